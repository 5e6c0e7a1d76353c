"""HTTP, all of it."""
