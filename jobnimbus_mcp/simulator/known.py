"""Which fields of a body count: the documented ones and custom fields, without what JobNimbus derives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.simulator.account import Account
from jobnimbus_mcp.simulator.rollups import ROLLUP_FIELDS
from jobnimbus_mcp.simulator.shapes import BLANK, Record

__all__ = ["known_fields"]


def known_fields(kind: str, body: Mapping[str, Any], account: Account) -> Record:
    """What is left of `body`; other keys are dropped without a word, as the service does."""
    labels = account.custom_fields.get(kind, {})
    derived = ROLLUP_FIELDS[kind]
    return {
        key: value
        for key, value in body.items()
        if key not in derived and (key in BLANK[kind] or key in labels or key.startswith("cf_"))
    }
