"""How a page of records is written: as a JSON array, or as a table of text that spares repeating every name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.tools.inputs import Format
from jobnimbus_mcp.tools.shape import Projection, fit, fit_one, size_bytes
from jobnimbus_mcp.tools.table_text import columns_of, line_of

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """`order`: of the columns, dotted paths too; None: as the records have them."""

    format: Format
    order: tuple[str, ...] | None

    def body(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`{"results"}`, or `{"columns", "table"}` with the header as the table's first line."""
        if self.format == "json":
            return {"results": list(rows)}
        columns = columns_of(rows, self.order)
        lines = [line_of({name: name for name in columns}, columns), *(line_of(row, columns) for row in rows)]
        return {"columns": columns, "table": "\n".join(lines)}

    def fit(self, rows: Sequence[dict[str, Any]], budget_bytes: int) -> int:
        """How many of the first `rows` fit when they are written so."""
        if self.format == "json":
            return fit(rows, budget_bytes)
        columns = columns_of(rows, self.order)
        used = size_bytes(columns) + size_bytes(line_of({name: name for name in columns}, columns))
        for index, row in enumerate(rows):
            used += size_bytes("\n" + line_of(row, columns)) - len('""')
            if used > budget_bytes:
                return index
        return len(rows)

    def fit_one(
        self, row: Mapping[str, Any], projection: Projection, budget_bytes: int
    ) -> tuple[dict[str, Any], list[str]]:
        """One record cut to fit when it is written so, and the names of the fields left out or shortened."""
        room = budget_bytes
        while True:
            kept, omitted = fit_one(row, projection, room)
            over = 0 if self.format == "json" else size_bytes(self.body([kept])) - budget_bytes
            # a table of one line says every name twice and can be longer than the record itself
            if over <= 0 or not kept:
                return kept, omitted
            room = min(room, size_bytes(kept)) - over
