"""Fields of a record that JobNimbus works out from other records, computed when the record is read.

They change without a write to the record itself, so `date_updated` stays. Everything else a record shows of another
one (`related`, `primary`, `parent_*` phones, `*_name`) is a snapshot of when it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from jobnimbus_mcp.simulator.paid import PAID_FIELDS, amount, paid_fields, plain
from jobnimbus_mcp.simulator.shapes import KINDS, Record

__all__ = ["ROLLUP_FIELDS", "with_rollups"]

Linked = Callable[[str, str], Iterable[Record]]
"""(kind, jnid) -> the live records of that kind that are linked to it."""

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
        "approved_invoice_total",
        "approved_invoice_due",
        "last_invoice",
        "last_invoice_jnid",
        "last_invoice_number",
        "last_invoice_date_created",
        "last_invoice_date_invoice",
        "last_budget_revenue",
        "last_budget_gross_profit",
        "last_budget_gross_margin",
    }
)
# Of the contact's own, what its jobs and their work orders show too.
_OF_PARENT = (
    "approved_estimate_total",
    "approved_invoice_total",
    "approved_invoice_due",
    "last_estimate",
    "last_invoice",
)
_PARENT_FIELDS = frozenset(f"parent_{name}" for name in _OF_PARENT)

_FIELDS: Mapping[str, frozenset[str]] = {
    "contacts": _OF_CHILDREN,
    "jobs": _OF_CHILDREN | _PARENT_FIELDS,
    "workorders": _PARENT_FIELDS,
    "invoices": PAID_FIELDS,
}
ROLLUP_FIELDS: Mapping[str, frozenset[str]] = MappingProxyType({name: _FIELDS.get(name, frozenset()) for name in KINDS})
"""Kind of record -> the fields derived at read time. Kinds without any have an empty set."""

_APPROVED_ESTIMATES = (4, 5)
_APPROVED_INVOICES = (2, 3, 4)


def with_rollups(kind: str, record: Record, linked: Linked) -> Record:
    """A copy of `record` with its derived fields filled in."""
    derived: Record = {}
    if kind in ("contacts", "jobs"):
        jnid = record["jnid"]
        derived = {
            "task_count": sum(1 for _ in linked("tasks", jnid)),
            "attachment_count": sum(1 for _ in linked("files", jnid)),
            **_of_documents(jnid, linked),
            **_of_budgets(jnid, linked),
        }
    if kind in ("jobs", "workorders"):
        parent = _of_documents(_contact_of(record), linked)
        derived |= {f"parent_{name}": parent[name] for name in _OF_PARENT}
    if kind == "invoices":
        derived = paid_fields(record, linked("payments", record["jnid"]))
    return {**record, **derived}


def _of_documents(jnid: str, linked: Linked) -> Record:
    approved = invoiced = due = 0.0
    estimate = invoice = None
    for one in linked("estimates", jnid):
        # Approval in the embedded quoting product does not reach the roll-up.
        # Source: JobNimbus API documentation, quirks of approved_* fields.
        if one.get("status") in _APPROVED_ESTIMATES and one.get("source") != "sumoquote":
            approved += amount(one.get("total"))
        estimate = _later(estimate, one)
    for one in linked("invoices", jnid):
        if one.get("status") in _APPROVED_INVOICES:
            invoiced += amount(one.get("total"))
            due += paid_fields(one, linked("payments", one["jnid"]))["due"]
        invoice = _later(invoice, one)
    return {
        "approved_estimate_total": plain(approved),
        "last_estimate": 0 if estimate is None else estimate.get("total"),
        "last_estimate_jnid": None if estimate is None else estimate["jnid"],
        "last_estimate_number": None if estimate is None else estimate.get("number"),
        "last_estimate_date_created": 0 if estimate is None else estimate.get("date_created"),
        "last_estimate_date_estimate": 0 if estimate is None else estimate.get("date_estimate"),
        "approved_invoice_total": plain(invoiced),
        "approved_invoice_due": plain(due),
        "last_invoice": 0 if invoice is None else invoice.get("total"),
        "last_invoice_jnid": None if invoice is None else invoice["jnid"],
        "last_invoice_number": None if invoice is None else invoice.get("number"),
        "last_invoice_date_created": 0 if invoice is None else invoice.get("date_created"),
        "last_invoice_date_invoice": 0 if invoice is None else invoice.get("date_invoice"),
    }


def _of_budgets(jnid: str, linked: Linked) -> Record:
    last: Record | None = None
    for one in linked("budgets", jnid):
        last = _later(last, one)
    names = ("revenue", "gross_profit", "gross_margin")
    return {f"last_budget_{name}": 0 if last is None else last.get(name) for name in names}


def _contact_of(record: Mapping[str, Any]) -> str:
    """The contact that a job or work order hangs on; "" for none."""
    related = record.get("related")
    for link in (record.get("primary"), *(related if isinstance(related, list) else ())):
        if isinstance(link, dict) and link.get("type") == "contact" and isinstance(link.get("id"), str):
            return str(link["id"])
    return ""


def _later(one: Record | None, other: Record) -> Record:
    return other if one is None or _recency(other) > _recency(one) else one


def _recency(document: Record) -> tuple[float, int]:
    return amount(document.get("date_created")), document["recid"]
