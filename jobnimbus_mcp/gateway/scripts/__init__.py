"""The steps of the receipts in Redis; each is atomic and touches one tenant's keys only."""
