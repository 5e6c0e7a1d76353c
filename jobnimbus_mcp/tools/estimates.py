"""get_estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Sort
from jobnimbus_mcp.tools.clauses import date_range, parents
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import EstimatesArgs
from jobnimbus_mcp.tools.listing import Listing

__all__ = ["approved_at", "get_estimates", "sent_at"]

_AFTER_SENDING = frozenset({"sent", "viewed"})


async def get_estimates(ctx: ToolContext, args: EstimatesArgs) -> Listing:
    """The estimates that satisfy every argument given."""
    where, scope = await parents(ctx, job_id=args.job_id, contact_id=args.contact_id)
    where += date_range(ctx, "date_created", args.date_from, args.date_to, names=("date_from", "date_to"))
    if args.status is not None:
        where = (*where, await ctx.directory.status(Entity.ESTIMATES, args.status))
    sent = date_range(ctx, "", args.sent_from, args.sent_to, names=("sent_from", "sent_to"))
    approved = date_range(ctx, "", args.approved_from, args.approved_to, names=("approved_from", "approved_to"))
    for window, field in ((sent, "date_sign_requested"), (approved, "date_signed")):
        where += tuple(_either(window_clause, field) for window_clause in window)

    def keep(row: Mapping[str, Any]) -> bool:
        return all(_within(clause, sent_at(row)) for clause in sent) and all(
            _within(clause, approved_at(row)) for clause in approved
        )

    windowed = bool(sent or approved)
    return Listing(
        Entity.ESTIMATES,
        where,
        scope,
        Sort(args.sort_by, args.order == "desc"),
        scan=windowed,
        keep=keep if windowed else None,
    )


def sent_at(row: Mapping[str, Any]) -> int | None:
    """Epoch seconds at which an estimate was sent for signature, as far as JobNimbus tells.

    Source: JobNimbus API documentation, estimates: there is `date_sign_requested`; without it, an estimate that is
    Sent or Viewed was sent when its status last changed, at the latest.
    """
    if (requested := epoch_s(row.get("date_sign_requested"))) is not None:
        return requested
    if str(row.get("status_name")).casefold() in _AFTER_SENDING:
        return epoch_s(row.get("date_status_change"))
    return None


def approved_at(row: Mapping[str, Any]) -> int | None:
    """Epoch seconds at which an estimate was approved.

    Source: JobNimbus API documentation, estimates: `date_approved` does not exist; `date_signed` is it, and without a
    signature the moment an Approved estimate changed its status.
    """
    if (signed := epoch_s(row.get("date_signed"))) is not None:
        return signed
    if str(row.get("status_name")).casefold() == "approved":
        return epoch_s(row.get("date_status_change"))
    return None


def _either(window: Clause, field: str) -> Clause:
    """Rows that may lie in the window: by the field itself, or by the status change that stands in for it."""
    assert isinstance(window, Between)
    return AnyOf(
        (
            Between(field, max(1, window.at_least or 1), window.at_most),
            Between("date_status_change", max(1, window.at_least or 1), window.at_most),
        )
    )


def _within(window: Clause, moment: int | None) -> bool:
    return moment is not None and window.holds({"": moment})
