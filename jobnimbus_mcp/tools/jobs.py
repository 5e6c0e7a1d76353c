"""Jobs: what only they can be asked for, and get_job."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import AnyOf, Between, Is, Not
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.filters import Condition, Filter, Given, flag
from jobnimbus_mcp.tools.inputs import ContactId, JobArgs, Truth
from jobnimbus_mcp.tools.record import record_answer

__all__ = ["ARCHIVED", "OF_CONTACT", "SCHEDULE", "get_job"]

_OTHERS_SHOWN = 20


async def _of_contact(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    contact = given["contact_id"]
    # a job's contact is its primary, which is not always among what it is related to
    where = (AnyOf((Is("primary.id", contact), Is("related.id", contact))),)
    return Condition(where, frozenset({contact}))


async def _has_schedule(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    scheduled = Between("date_start", at_least=1)
    return Condition((scheduled if given["has_schedule"] else Not(scheduled),))


OF_CONTACT = Filter({"contact_id": ContactId}, _of_contact)
SCHEDULE = Filter(
    {"has_schedule": Annotated[Truth | None, Field(description="true: only with a start date; false: without.")]},
    _has_schedule,
)
ARCHIVED = flag("is_archived", "is_archived", "true: only archived jobs; false: none of them.")


async def get_job(ctx: ToolContext, args: JobArgs) -> dict[str, Any]:
    """The record behind a jnid or job number, and the ids of others with the same number."""
    record, others = await ctx.job(args.job_id)
    extra = {"other_jobs_with_this_number": others[:_OTHERS_SHOWN]} if others else None
    return await record_answer(ctx, Entity.JOBS, record, args, extra)
