"""jobnimbus-mcp: an MCP server that lets agents read JobNimbus through a cache that is never out of date."""

__version__ = "0.4.1"
