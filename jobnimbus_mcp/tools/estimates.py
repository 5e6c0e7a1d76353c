"""Estimates: what only they can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause
from jobnimbus_mcp.tools.clauses import date_range
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.filters import STATUS as ANY_STATUS
from jobnimbus_mcp.tools.filters import Condition, Filter, Given
from jobnimbus_mcp.tools.inputs import Day, Name

__all__ = ["APPROVED", "SENT", "STATUS", "approved_at", "sent_at"]

_AFTER_SENDING = frozenset({"sent", "viewed"})


def _window(
    field: str, start: str, end: str, moment_of: Callable[[Mapping[str, Any]], int | None], what: str
) -> Filter:
    """A date that has a stand-in: rows are asked for by either and checked by the one that counts."""

    async def condition(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
        window = date_range(ctx, "", given.get(start), given.get(end), names=(start, end))

        def keep(row: Mapping[str, Any]) -> bool:
            return all(_within(clause, moment_of(row)) for clause in window)

        return Condition(tuple(_either(clause, field) for clause in window), keep=keep)

    types = {
        start: Annotated[Day | None, Field(description=f"{what} on or after.")],
        end: Annotated[Day | None, Field(description=f"{what} on or before.")],
    }
    return Filter(types, condition)


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


SENT = _window("date_sign_requested", "sent_from", "sent_to", sent_at, "Sent for signature")
APPROVED = _window("date_signed", "approved_from", "approved_to", approved_at, "Signed or approved")
STATUS = Filter(
    {"status": Annotated[Name | None, Field(description="Draft, Sent, Viewed, Approved, Invoiced or Declined.")]},
    ANY_STATUS.condition,
)
