"""The steps of the Redis driver; each is atomic and touches one tenant's keys only."""
