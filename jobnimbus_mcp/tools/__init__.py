"""The MCP face: what an agent can call, what it may say, and how answers are cut to size."""
