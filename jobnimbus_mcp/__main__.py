"""`python -m jobnimbus_mcp` is `jobnimbus-mcp`."""

from __future__ import annotations

from jobnimbus_mcp.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
