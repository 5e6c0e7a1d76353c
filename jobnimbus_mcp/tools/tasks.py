"""Tasks: what only they can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import AnyOf, Between, Is, Not
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.dates import whole_days
from jobnimbus_mcp.tools.filters import Condition, Filter, Given, flag
from jobnimbus_mcp.tools.inputs import Truth, Whole

__all__ = ["COMPLETED", "OVERDUE", "PRIORITY", "is_overdue"]

_DONE = Is("is_completed", True)


async def _priority(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    return Condition((Is("priority", given["priority"]),))


async def _overdue(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    """Asked by the day, so that the kept answer serves all day; checked by the second, on every call."""
    wanted: bool = given["overdue"]
    now = ctx.now()
    today, tonight = whole_days(now, ctx.zone, 0)

    def keep(row: Mapping[str, Any]) -> bool:
        return is_overdue(row, now) is wanted

    if wanted:
        past = AnyOf((Between("date_start", 1, tonight), Between("date_end", 1, tonight)))
        return Condition((Not(_DONE), past), keep=keep)
    neither = Not(AnyOf((Between("date_start", at_least=1), Between("date_end", at_least=1))))
    ahead = (Between("date_start", at_least=today), Between("date_end", at_least=today))
    return Condition((AnyOf((_DONE, *ahead, neither)),), keep=keep)


COMPLETED = flag("is_completed", "is_completed", "true: only done ones; false: only open ones.")
OVERDUE = Filter(
    {
        "overdue": Annotated[
            Truth | None, Field(description="true: open tasks whose end (or else start) is past; false: the others.")
        ]
    },
    _overdue,
)
PRIORITY = Filter(
    {"priority": Annotated[Annotated[Whole, Field(ge=0, le=5)] | None, Field(description="0 is none.")]}, _priority
)


def is_overdue(row: Mapping[str, Any], now: float) -> bool:
    """Not completed, and its end (or, where it has none, its start) lies before `now`."""
    due = epoch_s(row.get("date_end")) or epoch_s(row.get("date_start"))
    return not row.get("is_completed") and due is not None and due < now
