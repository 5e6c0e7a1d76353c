"""The one way from inside to the CRM: reads through the cache."""
