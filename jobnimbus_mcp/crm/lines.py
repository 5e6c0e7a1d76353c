"""Lines: the rows of a document, whose PUT replaces them all, so what nobody meant to change goes back beside the rest.

A row is said in part: what is left out of one that is there already stays as it is, its tax, its labour and whatever
else nobody here has a name for; of a new one it is JobNimbus's usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

__all__ = ["FRESH", "LINES", "completed"]

_NOTHING_ASKED = MappingProxyType({"price": 0, "cost": 0})

FRESH: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "items": MappingProxyType(
            {
                "quantity": 1,
                "price": 0,
                "cost": 0,
                "uom": "Items",
                "item_type": "material",
                "description": "",
            }
        ),
        "uoms": MappingProxyType({"material": _NOTHING_ASKED, "labor": _NOTHING_ASKED}),
    }
)
"""By the list's name: what a new row is where nothing else is said."""

LINES = frozenset(FRESH)
"""Fields of documents that are lists of such rows: lines of estimates, invoices and orders, units of products."""

_NAMED = {"items": "name", "uoms": "uom"}


def completed(field: str, wanted: Sequence[Any], had: Any = ()) -> list[Any]:
    """The rows as they are to be sent. `had`: those of the record as it is.

    A row is the one of its product (`jnid`) or, where it names none, of its name; of several such the one most alike.
    """
    left = [row for row in had if isinstance(row, Mapping)] if isinstance(had, (list, tuple)) else []
    rows: list[Any] = []
    for row in wanted:
        if not isinstance(row, Mapping) or not row:
            rows.append(row)
            continue
        same = [old for old in left if _is_of(field, row, old)]
        if same:
            old = max(same, key=lambda one: sum(one.get(name) == value for name, value in row.items()))
            left = [one for one in left if one is not old]
            rows.append(_over(old, row))
        else:
            rows.append(_over(FRESH[field], row))
    return rows


def _is_of(field: str, row: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    if row.get("jnid") and old.get("jnid"):
        return bool(row["jnid"] == old["jnid"])
    named = _NAMED[field]
    return str(row.get(named) or "").strip() == str(old.get(named) or "").strip()


def _over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What is new over what was, also within what is made of parts."""
    made = {name: dict(value) if isinstance(value, Mapping) else value for name, value in old.items()}
    for name, value in new.items():
        was = made.get(name)
        if value and isinstance(value, Mapping) and isinstance(was, Mapping):
            value = _over(was, value)
        made[name] = value
    return made
