"""The calendar: what is scheduled between two days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import values_at
from jobnimbus_mcp.crm.query import Between, Sort
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.dates import first_second, last_second, whole_days
from jobnimbus_mcp.tools.inputs import CalendarArgs
from jobnimbus_mcp.tools.listing import Listing

__all__ = ["get_calendar_activities"]

_DAYS = 30


async def get_calendar_activities(ctx: ToolContext, args: CalendarArgs) -> Listing:
    """Scheduled tasks, jobs and work orders of a stretch of days, in time order.

    Source: JobNimbus API documentation, calendars: there is no calendar endpoint, this is what one is made of.
    """
    # only the day of the clock's time is used, so the answer is good all day long
    if args.date_from is not None:
        start = first_second(args.date_from, ctx.zone, field="date_from")
    elif args.date_to is not None:
        start = min(whole_days(ctx.clock.now(), ctx.zone, 0)[0], first_second(args.date_to, ctx.zone, field="date_to"))
    else:
        start = whole_days(ctx.clock.now(), ctx.zone, 0)[0]
    if args.date_to is not None:
        end = last_second(args.date_to, ctx.zone, field="date_to")
    else:
        end = whole_days(start, ctx.zone, _DAYS)[1]
    if end < start:
        raise InvalidInput("date_to lies before date_from.", field="date_to")

    def keep(row: Mapping[str, Any]) -> bool:
        return args.owner_id is None or args.owner_id in values_at(row, "owners.id")

    # whose they are is checked here, so that one kept calendar serves everybody's
    return Listing(
        Entity.CALENDAR, (Between("date_start", start, end),), sort=Sort("date_start", False), scan=True, keep=keep
    )
