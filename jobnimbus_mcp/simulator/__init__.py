"""A simulated JobNimbus, as read from its documentation. Shares nothing with the rest of the package but the clock."""

from __future__ import annotations

from jobnimbus_mcp.simulator.account import Account, Action, Change
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.rollups import ROLLUP_FIELDS
from jobnimbus_mcp.simulator.world import Simulator

__all__ = ["ROLLUP_FIELDS", "Account", "Action", "Change", "Refusal", "Simulator"]
