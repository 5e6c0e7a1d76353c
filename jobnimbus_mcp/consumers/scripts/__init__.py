"""The steps of the consumers that share something in Redis; each is atomic and touches one tenant's keys only."""
