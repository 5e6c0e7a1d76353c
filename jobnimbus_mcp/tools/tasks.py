"""get_tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Is, Not, Sort
from jobnimbus_mcp.tools.clauses import date_range, parents
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.dates import whole_days
from jobnimbus_mcp.tools.inputs import TasksArgs
from jobnimbus_mcp.tools.listing import Listing

__all__ = ["get_tasks", "is_overdue"]

_DONE = Is("is_completed", True)


async def get_tasks(ctx: ToolContext, args: TasksArgs) -> Listing:
    """The tasks that satisfy every argument given."""
    where, scope = await parents(ctx, job_id=args.job_id, contact_id=args.contact_id, related_to=args.related_to)
    clauses: list[Clause] = list(where)
    if args.owner_id is not None:
        clauses.append(Is("owners.id", args.owner_id))
    if args.is_completed is not None:
        clauses.append(_DONE if args.is_completed else Not(_DONE))
    if args.priority is not None:
        clauses.append(Is("priority", args.priority))
    if args.record_type is not None:
        clauses.append(await ctx.directory.record_type(Entity.TASKS, args.record_type))
    clauses += date_range(ctx, "date_created", args.date_from, args.date_to, names=("date_from", "date_to"))
    sort = Sort(args.sort_by, args.order == "desc")
    if args.overdue is None:
        return Listing(Entity.TASKS, tuple(clauses), scope, sort)

    # asked by the day, so that the kept answer serves all day; checked by the second, on every call
    now = ctx.now()
    today, tonight = whole_days(now, ctx.zone, 0)
    if args.overdue:
        past = AnyOf((Between("date_start", 1, tonight), Between("date_end", 1, tonight)))
        clauses += [Not(_DONE), past]
    else:
        neither = Not(AnyOf((Between("date_start", at_least=1), Between("date_end", at_least=1))))
        ahead = (Between("date_start", at_least=today), Between("date_end", at_least=today))
        clauses.append(AnyOf((_DONE, *ahead, neither)))

    def keep(row: Mapping[str, Any]) -> bool:
        return is_overdue(row, now) is args.overdue

    return Listing(Entity.TASKS, tuple(clauses), scope, sort, scan=True, keep=keep)


def is_overdue(row: Mapping[str, Any], now: float) -> bool:
    """Not completed, and its end (or, where it has none, its start) lies before `now`."""
    due = epoch_s(row.get("date_end")) or epoch_s(row.get("date_start"))
    return not row.get("is_completed") and due is not None and due < now
