"""Settings: one table of variables, read once from a mapping and checked whole."""

from __future__ import annotations

from jobnimbus_mcp.settings.checks import SECRET_LENGTH_MIN
from jobnimbus_mcp.settings.model import Settings
from jobnimbus_mcp.settings.table import VARIABLES, Variable

__all__ = ["SECRET_LENGTH_MIN", "VARIABLES", "Settings", "Variable"]
