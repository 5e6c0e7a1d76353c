"""Invoices, payments, products and orders: what only they can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Between, Is, NameIs, OneOf
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.dates import whole_days
from jobnimbus_mcp.tools.filters import Condition, Filter, Given, dated, flag
from jobnimbus_mcp.tools.inputs import Day, Name, RecordId, Truth, Whole

__all__ = [
    "DUE",
    "INVOICE",
    "IN_USE",
    "ITEM_TYPE",
    "METHOD",
    "NAMED_STATUS",
    "OVERDUE",
    "PAID_ON",
    "UNPAID",
    "amount",
    "owed",
]

_USUAL_STATUSES = frozenset({"draft", "sent", "open", "closed"})
"""Of documents. Source: JobNimbus API documentation, invoices; the others are an account's own."""


def amount(value: Any) -> float:
    """Dollars; JobNimbus writes some as text, and none in several ways."""
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0


def owed(row: Mapping[str, Any]) -> bool:
    """Is anything of an invoice still to be paid? Half a cent is what arithmetic left over."""
    return amount(row.get("due")) >= 0.005


async def _unpaid(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    wanted: bool = given["unpaid"]
    return Condition(keep=lambda row: owed(row) is wanted)


async def _overdue(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    """Due dates are days, so what is due today is not overdue before tomorrow."""
    wanted: bool = given["overdue"]
    today, _ = whole_days(ctx.clock.now(), ctx.zone, 0)
    past = Between("date_due", 1, today - 1)

    def keep(row: Mapping[str, Any]) -> bool:
        return (owed(row) and past.holds(row)) is wanted

    return Condition((past,) if wanted else (), keep=keep)


async def _named_status(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    """The usual names are single words that JobNimbus finds exactly; of others it may give more than is meant."""
    name = given["status"].strip()
    clause = await ctx.directory.status(entity, name)
    return Condition((clause,), scan=name.casefold() not in _USUAL_STATUSES)


async def _invoice(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    """Payments name the invoices they pay in a list that JobNimbus is not known to search; so those of the invoice's
    own job and contact are looked through."""
    jnid = given["invoice_id"]
    invoice = (await ctx.look_up(Read.record(Entity.INVOICES, jnid))).value()
    links = [link.get("id") for link in invoice.get("related") or () if isinstance(link, Mapping)]
    ids = tuple(sorted({link for link in links if isinstance(link, str)}))
    pays = Is("invoices.invoice_id", jnid)
    return Condition((OneOf("related.id", ids),) if ids else (), frozenset(ids), keep=pays.holds)


async def _method(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    return Condition((Is("method_id", given["method_id"]),))


async def _item_type(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    # a product of both kinds is found by the name of either
    return Condition((NameIs("item_type", given["item_type"]),), scan=True)


DUE = dated(
    "date_due",
    "due_from",
    "due_to",
    (
        Annotated[Day | None, Field(description="Due on or after.")],
        Annotated[Day | None, Field(description="Due on or before.")],
    ),
    unset_is_zero=True,
)
UNPAID = Filter(
    {"unpaid": Annotated[Truth | None, Field(description="true: only with money due; false: only settled.")]}, _unpaid
)
OVERDUE = Filter(
    {"overdue": Annotated[Truth | None, Field(description="true: money due since before today; false: the others.")]},
    _overdue,
)
NAMED_STATUS = Filter(
    {"status": Annotated[Name | None, Field(description="Draft, Sent, Open, Closed or the account's own.")]},
    _named_status,
)
INVOICE = Filter(
    {"invoice_id": Annotated[RecordId | None, Field(description="Only what pays this invoice.")]}, _invoice
)
METHOD = Filter(
    {"method_id": Annotated[Whole | None, Field(description="JobNimbus's number of the way of payment.")]}, _method
)
PAID_ON = dated(
    "date_payment",
    "date_from",
    "date_to",
    (
        Annotated[Day | None, Field(description="Paid on or after: 2026-11-01 or RFC 3339.")],
        Annotated[Day | None, Field(description="Paid on or before.")],
    ),
    unset_is_zero=True,
)
IN_USE = flag("is_active", "is_active", "true: only those in use; false: only former ones.")
ITEM_TYPE = Filter(
    {"item_type": Annotated[Literal["material", "labor", "labor+material"] | None, Field(description="Kind.")]},
    _item_type,
)
