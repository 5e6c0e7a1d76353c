"""What lists can be asked for: one row per argument, or pair of them, with what it adds to the question.

Whatever means the same for several kinds of record is one row; what only one kind has stands in that kind's module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Between, Is, Not, Where
from jobnimbus_mcp.tools.clauses import date_range, parents
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import (
    ContactId,
    CreatedFrom,
    CreatedTo,
    Day,
    Name,
    OfJob,
    OwnerId,
    RecordType,
    RelatedTo,
    SalesRep,
    Status,
    Truth,
    UpdatedSince,
)

__all__ = [
    "ACTIVITY_TYPE",
    "AUTHOR",
    "CONTACT",
    "CREATED",
    "JOB",
    "OWNER",
    "RECORD_TYPE",
    "RELATED",
    "SALES_REP",
    "SCHEDULED",
    "STATUS",
    "TASK_TYPE",
    "UPDATED",
    "Condition",
    "Filter",
    "Given",
    "Keep",
    "dated",
    "flag",
]

Keep = Callable[[Mapping[str, Any]], bool]
Given = Mapping[str, Any]
"""The arguments of one filter that were given, checked; never empty."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a filter adds to a question. `keep`: a check on every row, for what no clause can say; `scan`: the clauses
    ask for more rows than are meant, so they have to be checked here as well."""

    where: Where = ()
    scope: frozenset[str] = frozenset()
    keep: Keep | None = None
    scan: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """`arguments`: name -> type as pydantic wants it, its description included; all may be left out, and are then
    worth what `defaults` says (nothing). `condition` raises InvalidInput for what cannot be asked."""

    arguments: Mapping[str, Any]
    condition: Callable[[ToolContext, Entity, Given], Awaitable[Condition]]
    defaults: Mapping[str, Any] = field(default_factory=dict)


def dated(field_name: str, start: str, end: str, types: tuple[Any, Any], *, unset_is_zero: bool = False) -> Filter:
    """A date field between two days. `unset_is_zero`: 0 is how JobNimbus writes that there is none."""

    async def condition(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
        where = date_range(ctx, field_name, given.get(start), given.get(end), names=(start, end))
        if unset_is_zero and start not in given:
            where = (*where, Between(field_name, at_least=1))
        return Condition(where)

    return Filter(dict(zip((start, end), types, strict=True)), condition)


def flag(name: str, field_name: str, description: str) -> Filter:
    """A yes-or-no field; one that is not there is a no."""

    async def condition(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
        yes = Is(field_name, True)
        return Condition((yes if given[name] else Not(yes),))

    return Filter({name: Annotated[Truth | None, Field(description=description)]}, condition)


def _person(name: str, field_name: str, type_: Any) -> Filter:
    async def condition(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
        return Condition((await ctx.directory.person(field_name, given[name], argument=name),))

    return Filter({name: type_}, condition)


def _type(name: str, type_: Any) -> Filter:
    async def condition(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
        return Condition((await ctx.directory.record_type(entity, given[name], argument=name),))

    return Filter({name: type_}, condition)


def _parent(name: str, type_: Any) -> Filter:
    async def condition(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
        where, scope = await parents(ctx, **given)
        return Condition(where, scope)

    return Filter({name: type_}, condition)


async def _status(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    return Condition((await ctx.directory.status(entity, given["status"]),))


async def _owner(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    return Condition((Is("owners.id", given["owner_id"]),))


async def _updated(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    return Condition(date_range(ctx, "date_updated", given["updated_since"], None, names=("updated_since", "")))


_Scheduled = Annotated[Day | None, Field(description="Work starts on or after.")]
_ScheduledTo = Annotated[Day | None, Field(description="Work starts on or before.")]

JOB = _parent("job_id", OfJob)
CONTACT = _parent("contact_id", ContactId)
RELATED = _parent("related_to", RelatedTo)
STATUS = Filter({"status": Status}, _status)
RECORD_TYPE = _type("record_type", RecordType)
TASK_TYPE = _type("record_type", Annotated[Name | None, Field(description="Task type, e.g. Phone Call.")])
ACTIVITY_TYPE = _type(
    "activity_type", Annotated[Name | None, Field(description="Note, Phone Call, Email, Status Changed, ...")]
)
SALES_REP = _person("sales_rep", "sales_rep", SalesRep)
AUTHOR = _person(
    "created_by", "created_by", Annotated[Name | None, Field(description="Author: full name, e-mail or user id.")]
)
OWNER = Filter({"owner_id": OwnerId}, _owner)
CREATED = dated("date_created", "date_from", "date_to", (CreatedFrom, CreatedTo))
UPDATED = Filter({"updated_since": UpdatedSince}, _updated)
SCHEDULED = dated("date_start", "scheduled_from", "scheduled_to", (_Scheduled, _ScheduledTo), unset_is_zero=True)
