"""get_jobs, search_jobs, get_job."""

from __future__ import annotations

from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Is, Not, Sort
from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.tools.clauses import date_range, word_query
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import JobArgs, JobsArgs, SearchJobsArgs
from jobnimbus_mcp.tools.listing import Listing
from jobnimbus_mcp.tools.shape import Projection, fit_one, size_bytes

__all__ = ["get_job", "get_jobs", "search_jobs"]

_SEARCHED = (
    *("name", "number", "description"),
    *("address_line1", "address_line2", "city", "state_text", "zip"),
)


async def get_jobs(ctx: ToolContext, args: JobsArgs) -> Listing:
    """The jobs that satisfy every argument given."""
    where: list[Clause] = []
    scope: frozenset[str] = frozenset()
    if args.status is not None:
        where.append(await ctx.directory.status(Entity.JOBS, args.status))
    if args.record_type is not None:
        where.append(await ctx.directory.record_type(Entity.JOBS, args.record_type))
    if args.sales_rep is not None:
        where.append(await ctx.directory.person("sales_rep", args.sales_rep, argument="sales_rep"))
    if args.owner_id is not None:
        where.append(Is("owners.id", args.owner_id))
    if args.contact_id is not None:
        where.append(AnyOf((Is("primary.id", args.contact_id), Is("related.id", args.contact_id))))
        scope = frozenset({args.contact_id})
    if args.has_schedule is not None:
        scheduled = Between("date_start", at_least=1)
        where.append(scheduled if args.has_schedule else Not(scheduled))
    if args.is_archived is not None:
        archived = Is("is_archived", True)
        where.append(archived if args.is_archived else Not(archived))
    where += date_range(ctx, "date_created", args.date_from, args.date_to, names=("date_from", "date_to"))
    where += date_range(ctx, "date_updated", args.updated_since, None, names=("updated_since", ""))
    where += date_range(
        ctx, "date_start", args.scheduled_from, args.scheduled_to, names=("scheduled_from", "scheduled_to")
    )
    if args.scheduled_to is not None and args.scheduled_from is None:
        where.append(Between("date_start", at_least=1))  # 0 is how JobNimbus writes "not scheduled"
    return Listing(Entity.JOBS, tuple(where), scope, Sort(args.sort_by, args.order == "desc"))


async def search_jobs(ctx: ToolContext, args: SearchJobsArgs) -> Listing:
    """The jobs of get_jobs in which every word of the query occurs."""
    listing = await get_jobs(ctx, args)
    if args.query is None:
        return listing
    where = (*word_query(args.query, _SEARCHED), *listing.where)
    return Listing(Entity.JOBS, where, listing.scope, listing.sort, scan=True, operation=Operation.SEARCH)


async def get_job(ctx: ToolContext, args: JobArgs) -> dict[str, Any]:
    """`{"record", "as_of"}`, with `"truncated"` and `"omitted_fields"` where the record was cut to size."""
    record, others = await ctx.job(args.job_id)
    ctx.about_to_shape()
    provenance = ctx.provenance()
    answer: dict[str, Any] = {"record": {}, "as_of": provenance.as_of}
    if provenance.stale_reason is not None:
        answer |= {"stale": True, "stale_reason": provenance.stale_reason}
    if others:
        answer["other_jobs_with_this_number"] = others[:20]
    projection = Projection(Entity.JOBS, args.verbosity, tuple(args.fields) if args.fields else None)
    room = ctx.answer_max_bytes - size_bytes(answer)
    shown, omitted = fit_one(record, projection, room)
    if omitted:
        answer |= {"truncated": True, "omitted_fields": omitted}
        shown, omitted = fit_one(record, projection, room - size_bytes(omitted) - 64)
        answer["omitted_fields"] = omitted
    answer["record"] = shown
    return answer
