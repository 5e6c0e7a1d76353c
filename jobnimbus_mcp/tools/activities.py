"""get_activities."""

from __future__ import annotations

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Sort
from jobnimbus_mcp.tools.clauses import date_range, parents
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import ActivitiesArgs
from jobnimbus_mcp.tools.listing import Listing

__all__ = ["get_activities"]


async def get_activities(ctx: ToolContext, args: ActivitiesArgs) -> Listing:
    """Notes, calls, e-mails and the change log, as far as they satisfy every argument given."""
    where, scope = await parents(ctx, job_id=args.job_id, contact_id=args.contact_id, related_to=args.related_to)
    if args.activity_type is not None:
        clause = await ctx.directory.record_type(Entity.ACTIVITIES, args.activity_type, argument="activity_type")
        where = (*where, clause)
    if args.created_by is not None:
        where = (*where, await ctx.directory.person("created_by", args.created_by, argument="created_by"))
    where += date_range(ctx, "date_created", args.date_from, args.date_to, names=("date_from", "date_to"))
    return Listing(Entity.ACTIVITIES, where, scope, Sort(args.sort_by, args.order == "desc"))
