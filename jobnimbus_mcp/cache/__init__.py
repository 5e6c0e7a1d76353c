"""A read-through cache that knows nothing of CRMs: keys, tags and loaders come from outside."""
