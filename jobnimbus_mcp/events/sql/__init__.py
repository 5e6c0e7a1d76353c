"""The steps of the PostgreSQL driver: migrations, applied in the order of their numbers, each once and whole."""
