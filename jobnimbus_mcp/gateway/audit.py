"""Audit: who changed what, from what to what, as it is kept with the event of a write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.gateway.identity import Caller

__all__ = ["AUDIT_MOST", "audit_of", "author", "bounded", "values_of"]

AUDIT_MOST = 60_000
"""Bytes of an audit entry: an event keeps 64 KiB of its body, and what is cut there would be no JSON any more."""

_NAMES_MOST = 500
_LONGEST = 16_384
_SHORTEST = 16


def author(caller: Caller) -> str:
    """Who did it: the token's name, else the beginning of the partition, which tells the key apart and is not it."""
    return caller.access.client or f"partition:{caller.partition[:8]}"


def audit_of(
    caller: Caller,
    call: Call,
    *,
    action: str,
    outcome: str,
    changed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """`changed`: name -> `{"before", "after"}`."""
    return {
        "by": author(caller),
        "tool": call.tool,
        "request_id": call.request_id,
        "action": action,
        "outcome": outcome,
        "changed": changed,
    }


def values_of(
    names: Sequence[str], before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Of each of these fields what it was and what it is."""
    was = before or {}
    return {name: {"before": was.get(name), "after": after.get(name)} for name in names}


def bounded(audit: Mapping[str, Any], most: int = AUDIT_MOST) -> str:
    """The entry as JSON of at most `most` bytes: of too long a one the longest values are cut, then the last names."""
    changed: Mapping[str, Mapping[str, Any]] = audit["changed"]
    names = list(changed)[:_NAMES_MOST]
    longest = _LONGEST
    while True:
        kept = {name: {side: _cut(value, longest) for side, value in changed[name].items()} for name in names}
        text = json.dumps({**audit, "changed": kept}, ensure_ascii=False, default=str)
        text = text.encode("utf-8", "replace").decode()
        if len(text.encode()) <= most or not names:
            return text
        if longest > _SHORTEST:
            longest //= 2
        else:
            names = names[: len(names) // 2]


def _cut(value: Any, longest: int) -> Any:
    """The value, or the beginning of it as text."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= longest else text[:longest] + "..."
