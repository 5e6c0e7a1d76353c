"""Fields of a record that JobNimbus works out from other records, computed when the record is read.

They change without a write to the record itself, so `date_updated` stays. Everything else a record shows of another
one (`related`, `primary`, `parent_*`, `*_name`) is a snapshot of when it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from jobnimbus_mcp.simulator.shapes import KINDS, Record

__all__ = ["ROLLUP_FIELDS", "with_rollups"]

_OF_CHILDREN = frozenset(
    {
        "task_count",
        "attachment_count",
        "approved_estimate_total",
        "last_estimate",
        "last_estimate_jnid",
        "last_estimate_number",
        "last_estimate_date_created",
        "last_estimate_date_estimate",
    }
)

ROLLUP_FIELDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {name: _OF_CHILDREN if name in ("contacts", "jobs") else frozenset() for name in KINDS}
)
"""Kind of record -> the fields derived at read time. Kinds without any have an empty set."""

_APPROVED, _INVOICED = 4, 5


def with_rollups(kind: str, record: Record, linked: Callable[[str, str], Iterable[Record]]) -> Record:
    """A copy of `record` with its derived fields filled in; `linked(kind, jnid)` are the live records linked to it."""
    if not ROLLUP_FIELDS[kind]:
        return dict(record)
    jnid = record["jnid"]
    approved: float = 0
    last: Record | None = None
    for estimate in linked("estimates", jnid):
        # Approval in the embedded quoting product does not reach the roll-up.
        # Source: JobNimbus API documentation, quirks of approved_* fields.
        if estimate.get("status") in (_APPROVED, _INVOICED) and estimate.get("source") != "sumoquote":
            approved += _number(estimate.get("total"))
        if last is None or _recency(estimate) > _recency(last):
            last = estimate
    return {
        **record,
        "task_count": sum(1 for _ in linked("tasks", jnid)),
        "attachment_count": sum(1 for _ in linked("files", jnid)),
        "approved_estimate_total": approved,
        "last_estimate": 0 if last is None else last.get("total"),
        "last_estimate_jnid": None if last is None else last["jnid"],
        "last_estimate_number": None if last is None else last.get("number"),
        "last_estimate_date_created": 0 if last is None else last.get("date_created"),
        "last_estimate_date_estimate": 0 if last is None else last.get("date_estimate"),
    }


def _recency(estimate: Record) -> tuple[float, int]:
    return _number(estimate.get("date_created")), estimate["recid"]


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) else 0
