"""Answers cut to size: which fields of a record are shown, how dates read, and how many records fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools.fields import COMPACT, SUMMARY
from jobnimbus_mcp.tools.present import PEOPLE, date_labels, has_labels, readable, without_twins

__all__ = ["Projection", "fit", "fit_one", "size_bytes"]

_LONG_TEXT = 1_000


@dataclass(frozen=True, slots=True)
class Projection:
    """How much of each record to show. `fields` (dotted paths) wins over `verbosity`; `people`: user id -> name."""

    entity: Entity
    verbosity: str = "compact"
    fields: tuple[str, ...] | None = None
    people: Mapping[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...] | None:
        """What is shown, in order; None: every field, in the record's own order."""
        if self.fields is not None:
            return self.fields
        match self.verbosity:
            case "raw" | "detailed":
                return None
            case "summary":
                return SUMMARY[self.entity]
            case _:
                return COMPACT[self.entity]

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The record as shown: a new object, made readable unless `raw`."""
        paths = self.paths
        picked = row if paths is None else _pick(row, paths)
        if self.verbosity == "raw":
            return dict(picked)
        if self.fields is not None:
            return readable(picked, self.people, dated=date_labels(row) if has_labels(self.fields) else ())
        if paths is None:
            once, dated = without_twins(row)
            return readable(once, self.people, dated=dated)
        return readable(picked, self.people, brief_links=True)

    def has_people(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether these records, as shown, hold ids of people without their names."""
        if self.verbosity == "raw":
            return False
        paths = self.paths
        shown = [name for name in PEOPLE if paths is None or name in paths]
        return any(
            isinstance(person, Mapping) and "id" in person and "name" not in person
            for row in rows
            for name in shown
            for person in (row.get(name) if isinstance(row.get(name), list) else None) or ()
        )

    def smaller(self) -> Projection:
        """What a record that is too large alone is cut to."""
        return replace(self, verbosity="compact", fields=None)


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
