"""Answers cut to size: which fields of a record are shown, how dates read, and how many records fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s, is_date_field, rfc3339
from jobnimbus_mcp.tools.fields import COMPACT, SUMMARY

__all__ = ["Projection", "fit", "fit_one", "size_bytes"]

_NONE: tuple[Any, ...] = (None, "", [], {})
_LONG_TEXT = 1_000


@dataclass(frozen=True, slots=True)
class Projection:
    """How much of each record to show. `fields` (dotted paths) wins over `verbosity`."""

    entity: Entity
    verbosity: str = "compact"
    fields: tuple[str, ...] | None = None

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The record as shown: a new object; with dates as RFC 3339 unless `raw`."""
        if self.fields is not None:
            picked = _pick(row, self.fields)
            return picked if self.verbosity == "raw" else _readable(picked)
        match self.verbosity:
            case "raw":
                return dict(row)
            case "detailed":
                return _readable(row)
            case "summary":
                return _readable(_pick(row, SUMMARY[self.entity]))
            case _:
                return _readable(_pick(row, COMPACT[self.entity]))

    def smaller(self) -> Projection:
        """What a record that is too large alone is cut to."""
        return Projection(self.entity, "compact")


def size_bytes(value: Any) -> int:
    """Bytes of `value` as compact JSON."""
    return len(orjson.dumps(value))


def fit(rows: Sequence[dict[str, Any]], budget_bytes: int) -> int:
    """How many of the first `rows` fit into `budget_bytes` as the elements of a JSON array."""
    used = 2
    for index, row in enumerate(rows):
        used += size_bytes(row) + (1 if index else 0)
        if used > budget_bytes:
            return index
    return len(rows)


def fit_one(row: Mapping[str, Any], projection: Projection, budget_bytes: int) -> tuple[dict[str, Any], list[str]]:
    """One record within the budget, and the names of the fields left out or shortened (empty: shown whole)."""
    shown = projection.apply(row)
    if size_bytes(shown) <= budget_bytes:
        return shown, []
    whole = set(shown)
    kept = projection.smaller().apply({key: row[key] for key in row if key in whole} if projection.fields else row)
    cut: list[str] = []
    while size_bytes(kept) > budget_bytes and kept:
        largest = max(kept, key=lambda key: size_bytes(kept[key]))
        value = kept[largest]
        if isinstance(value, str) and len(value) > _LONG_TEXT:
            kept[largest] = value[: _LONG_TEXT - 1] + "…"
        else:
            del kept[largest]
        cut.append(largest)
    left_out = [key for key in shown if key not in kept]
    return kept, list(dict.fromkeys([*left_out, *(key for key in cut if key in kept)]))


def _readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not set, and with dates as RFC 3339. Zero money and `false` stay: they say something."""
    shown: dict[str, Any] = {}
    for key, value in row.items():
        if is_date_field(key) and not isinstance(value, (str, list, dict, bool)):
            seconds = epoch_s(value)
            if seconds is not None:
                shown[key] = rfc3339(seconds)
        elif isinstance(value, Mapping):
            if inner := _readable(value):
                shown[key] = inner
        elif isinstance(value, list):
            if items := [_readable(item) if isinstance(item, Mapping) else item for item in value]:
                shown[key] = items
        elif value not in _NONE:
            shown[key] = value
    return shown


def _pick(row: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    picked: dict[str, Any] = {}
    for path in paths:
        if path in row:  # field names may themselves hold dots: custom fields are shown under their label
            picked[path] = row[path]
            continue
        head, dot, rest = path.partition(".")
        if not dot or head not in row:
            continue
        value = row[head]
        if isinstance(value, Mapping):
            inner = _pick(value, (rest,))
            if inner:
                picked[head] = {**picked.get(head, {}), **inner}
        elif isinstance(value, list):
            items = [_pick(item, (rest,)) if isinstance(item, Mapping) else {} for item in value]
            before = picked.get(head) or [{}] * len(items)
            picked[head] = [{**old, **new} for old, new in zip(before, items, strict=True)]
    return picked
