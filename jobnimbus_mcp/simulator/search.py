"""One list call: parameters -> matching records, in order, cut to a page.

Source: JobNimbus API documentation, list parameters. Unknown parameters are ignored, as the service does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jobnimbus_mcp.simulator.filters import CompiledFilter, compile_filter
from jobnimbus_mcp.simulator.matching import values_at
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.relevance import SEARCHED, Relevance
from jobnimbus_mcp.simulator.rollups import ROLLUP_FIELDS, with_rollups
from jobnimbus_mcp.simulator.shapes import Kind, Record
from jobnimbus_mcp.simulator.view import View

__all__ = ["Orders", "Searcher", "cut_fields"]

_DEFAULT_SIZE = 1000
_MOST_ORDERS = 64
_Rows = list[Record]
_Visible = Callable[[Record], bool]


class Orders:
    """Remembered sort orders of the whole of a kind; forgotten when the kind is written to. Bounded."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, bool], list[Record]] = {}

    def forget(self, kind: str) -> None:
        for key in [key for key in self._kept if key[0] == kind]:
            del self._kept[key]

    def of(self, view: View, kind: str, field: str, descending: bool) -> list[Record]:
        key = (kind, field, descending)
        order = self._kept.get(key)
        if order is None:
            if len(self._kept) >= _MOST_ORDERS:
                self._kept.clear()
            order = self._kept[key] = _sorted(view.all(kind), field, descending)
        return order


class Searcher:
    """Answers list calls. Holds only what makes them fast; the data come with each call."""

    def __init__(self) -> None:
        self.orders = Orders()
        self._relevance = {kind: Relevance(kind) for kind in SEARCHED}

    def list(
        self, kind: Kind, params: Mapping[str, str], view: View, visible: _Visible | None, now: float
    ) -> tuple[int, _Rows]:
        """(count of all matches, rows of the page). Rows are new dicts; what they hold is shared.

        Raises: Refusal 400 for a page beyond the window or a filter that cannot be read.
        """
        start, size = _page(kind, params)
        wanted = compile_filter(params["filter"], now) if params.get("filter") else None
        field = params.get("sort_field") or "date_created"
        descending = params.get("sort_direction", "desc").lower() != "asc"
        derived = ROLLUP_FIELDS[kind.name]

        def complete(record: Record) -> Record:
            return with_rollups(kind.name, record, view.linked)

        candidates = self._candidates(kind.name, params, view, wanted)
        looks_at_derived = derived and (
            field in derived or (wanted is not None and not wanted.fields.isdisjoint(derived))
        )
        if looks_at_derived:
            rows = _sorted(map(complete, view.all(kind.name) if candidates is None else candidates), field, descending)
        elif candidates is not None:
            rows = _sorted(candidates, field, descending)
        elif view.is_current(kind.name):
            rows = self.orders.of(view, kind.name, field, descending)
        else:
            rows = _sorted(view.all(kind.name), field, descending)

        if visible is not None:
            rows = [record for record in rows if visible(record)]
        if wanted is not None:
            rows = [record for record in rows if wanted.matches(record)]
        words = params.get("search")
        if words and kind.name in SEARCHED:
            ranked = self._relevance[kind.name].rank(words, rows)
            if not params.get("sort_field"):
                ranked.sort(key=lambda pair: -pair[0])
            rows = [record for _, record in ranked]

        page = rows[start : start + size]
        if not looks_at_derived:
            page = [complete(record) for record in page]
        return len(rows), [cut_fields(record, params.get("fields")) for record in page]

    def _candidates(
        self, kind: str, params: Mapping[str, str], view: View, wanted: CompiledFilter | None
    ) -> Iterable[Record] | None:
        """The only records that can match; None: any of them may."""
        links = wanted.links if wanted else None
        if kind == "files" and params.get("related"):
            related = params["related"]
            return [
                record
                for record in view.linked(kind, related)
                if any(value == related for value in values_at(record, "related.id"))
            ]
        if wanted is not None and wanted.ids is not None:
            return [record for jnid in wanted.ids if (record := view.get(kind, jnid)) is not None]
        if links is not None:
            found = {record["jnid"]: record for link in links for record in view.linked(kind, link)}
            return found.values()
        return None


def cut_fields(record: Record, fields: str | None) -> Record:
    """The record with exactly the top-level keys asked for (comma-separated); None or empty: all of it."""
    if not fields or not fields.strip(", "):
        return record
    return {name: record[name] for part in fields.split(",") if (name := part.strip()) in record}


def _page(kind: Kind, params: Mapping[str, str]) -> tuple[int, int]:
    start = max(_whole(params.get("from"), 0), 0)
    size = min(max(_whole(params.get("size"), _DEFAULT_SIZE), 0), kind.size_max)
    if start + size > kind.window:
        raise Refusal(
            400,
            "illegal_argument_exception: Result window is too large, from + size must be less than or equal to: "
            f"[{kind.window}] but was [{start + size}]. See the scroll api for a more efficient way to request large "
            "data sets. This limit can be set by changing the [index.max_result_window] index level setting.",
        )
    return start, size


def _whole(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    try:
        return int(text)
    except ValueError:
        return otherwise


def _sorted(records: Iterable[Record], field: str, descending: bool) -> list[Record]:
    """By the field's value, then by `recid`, both in the asked direction; records without a value come last."""
    present: list[tuple[tuple[int, Any], int, str, Record]] = []
    absent: list[tuple[int, str, Record]] = []
    for record in records:
        value = record.get(field)
        if value is None or isinstance(value, (list, dict)):
            value = next(values_at(record, field), None)
        if value is None:
            absent.append((record["recid"], record["jnid"], record))
        else:
            rank = (1, value.lower()) if isinstance(value, str) else (0, value)
            present.append((rank, record["recid"], record["jnid"], record))
    # No two jnids are equal, so a comparison never reaches the record.
    present.sort(reverse=descending)
    absent.sort(reverse=descending)
    return [row[3] for row in present] + [row[2] for row in absent]
