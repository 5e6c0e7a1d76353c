"""What every write tool does: arguments into a `Write`, the write into an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Action, Entity, is_jnid
from jobnimbus_mcp.crm.query import NameIs
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.crm.writes import Link, Write, WriteResult
from jobnimbus_mcp.errors import DuplicateRecord, InternalError, InvalidInput, OwnError, UpstreamError
from jobnimbus_mcp.gateway.orders import kind_name
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.schedule import SCHEDULE
from jobnimbus_mcp.tools.shape import Projection, fit_one
from jobnimbus_mcp.tools.write_fields import Argument

__all__ = [
    "answered",
    "create_handler",
    "delete_handler",
    "drafted",
    "linked_to",
    "revised",
    "update_handler",
    "writer_of",
]

Handler = Callable[[ToolContext, Any], Awaitable[dict[str, Any]]]

_LINK_ARGUMENTS: Mapping[str, tuple[str, Entity | None]] = {
    "job": ("job_id", Entity.JOBS),
    "contact": ("contact_id", Entity.CONTACTS),
    "related": ("related_to", None),
}
_DONE = {Action.CREATED: "created", Action.UPDATED: "updated", Action.DELETED: "deleted"}
_SHOWN_OF_A_VALUE = 300


def create_handler(entity: Entity, arguments: Sequence[Argument], links: Sequence[str], *, needs: bool) -> Handler:
    """create_X."""

    async def create(ctx: ToolContext, args: BaseModel) -> dict[str, Any]:
        write = await drafted(ctx, entity, args, arguments, links, needs=needs)
        key = getattr(args, "idempotency_key", None)
        try:
            result = await writer_of(ctx).write(write, ctx.caller, ctx.call, idempotency_key=key)
        except DuplicateRecord as duplicate:
            raise await _named(ctx, entity, write, duplicate) from duplicate
        return await answered(ctx, result)

    return create


def update_handler(entity: Entity, id_name: str, arguments: Sequence[Argument], links: Sequence[str]) -> Handler:
    """update_X."""

    async def update(ctx: ToolContext, args: BaseModel) -> dict[str, Any]:
        write = await revised(ctx, entity, getattr(args, id_name), args, arguments, links)
        return await answered(ctx, await writer_of(ctx).write(write, ctx.caller, ctx.call))

    return update


def delete_handler(entity: Entity, id_name: str, called: str) -> Handler:
    """delete_X: not without a person's yes."""

    async def delete(ctx: ToolContext, args: BaseModel) -> dict[str, Any]:
        jnid = await _jnid(ctx, entity, getattr(args, id_name))
        record = (await ctx.look_now(Read.record(entity, jnid))).value()
        title = str(record.get(facts_of(entity).title) or record.get("number") or "").strip()[:120]
        named = f"{called} {title!r} ({jnid})" if title else f"{called} {jnid}"
        ctx.confirm(getattr(args, "confirm", False), f"Delete the {named} in JobNimbus?")
        write = Write(entity, Action.DELETED, jnid)
        return await answered(ctx, await writer_of(ctx).write(write, ctx.caller, ctx.call))

    return delete


async def drafted(
    ctx: ToolContext,
    entity: Entity,
    args: BaseModel,
    arguments: Sequence[Argument],
    links: Sequence[str],
    *,
    needs: bool,
) -> Write:
    """The creation that the arguments describe.

    Raises:
        InvalidInput: a name the account does not have, a date that is none, or nothing to hang it on.
    """
    linked = await linked_to(ctx, args, links)
    if needs and not linked:
        names = " or ".join(_LINK_ARGUMENTS[link][0] for link in links)
        raise InvalidInput(f"Say what it belongs to: {names}.", field=_LINK_ARGUMENTS[links[0]][0])
    fields = await _encoded(ctx, entity, args, arguments, {})
    return Write(entity, Action.CREATED, fields=fields, links=linked)


async def revised(
    ctx: ToolContext,
    entity: Entity,
    record_id: str,
    args: BaseModel,
    arguments: Sequence[Argument],
    links: Sequence[str],
    *,
    look: bool = True,
) -> Write:
    """The change of a record that the arguments describe. `look` False: the record is not read first, unless what it is
    decides what is meant (a status without its workflow, when it is all day).

    Raises:
        RecordNotFound: there is no such record.
        InvalidInput: as `drafted`, or nothing to change.
    """
    jnid = await _jnid(ctx, entity, record_id)
    record: Mapping[str, Any] = {}
    if look or _depends(args):
        record = (await ctx.look_up(Read.record(entity, jnid))).value()
    fields = await _encoded(ctx, entity, args, arguments, record)
    linked = await linked_to(ctx, args, links)
    if not fields and not linked:
        raise InvalidInput("Nothing to change was given.")
    return Write(entity, Action.UPDATED, jnid, fields, linked)


async def answered(ctx: ToolContext, result: WriteResult) -> dict[str, Any]:
    """`{"done", "jnid", "record", "changed": {field: [before, after]}}`, the record as compact answers show it."""
    done = _DONE[result.action] if result.changed or result.action is not Action.UPDATED else "unchanged"
    answer: dict[str, Any] = {"done": done}
    if result.jnid:
        answer["jnid"] = result.jnid
    if result.action is not Action.DELETED and result.record:
        projection = await ctx.people.named(ctx, Projection(result.entity), (result.record,))
        answer["record"], omitted = fit_one(result.record, projection, ctx.answer_max_bytes // 2)
        if omitted:
            answer["note"] = f"not shown: {', '.join(omitted)[:_SHOWN_OF_A_VALUE]}"
    if result.before is not None and result.changed and result.action is Action.UPDATED:
        before, after = result.before, result.record
        answer["changed"] = {name: [_brief(before.get(name)), _brief(after.get(name))] for name in result.changed}
    if result.replayed:
        answer["replayed"] = True
    if result.note:
        answer["note"] = result.note
    return answer


def writer_of(ctx: ToolContext) -> Any:
    """Whoever carries out writes. A call without one never gets here."""
    if ctx.writer is None:
        raise InternalError("This server was built without a way to write.")
    return ctx.writer


async def _encoded(
    ctx: ToolContext, entity: Entity, args: BaseModel, arguments: Sequence[Argument], record: Mapping[str, Any]
) -> dict[str, Any]:
    given = args.model_dump(exclude_none=True)
    known = {**record, "arguments": given}
    fields: dict[str, Any] = {}
    for one in arguments:
        value = getattr(args, one.name, None)
        if value is not None:
            fields |= await one.encode(ctx, entity, value, known)
    return fields


def _depends(args: BaseModel) -> bool:
    given = args.model_dump(include={"status", "record_type", *SCHEDULE}, exclude_none=True)
    return ("status" in given and "record_type" not in given) or any(name in given for name in SCHEDULE)


async def linked_to(ctx: ToolContext, args: BaseModel, links: Sequence[str]) -> tuple[Link, ...]:
    found: list[Link] = []
    for link in links:
        name, entity = _LINK_ARGUMENTS[link]
        value = getattr(args, name, None)
        if value is None:
            continue
        jnid = await ctx.job_to_write(value) if entity is Entity.JOBS else str(value)
        # JobNimbus stores some kinds without a word, hung on nothing
        if entity is not None and not await ctx.exists(Read.record(entity, jnid)):
            raise InvalidInput(f"There is no {kind_name(entity)} with this id that it could belong to.", field=name)
        found.append(Link(jnid, entity))
    if sum(link.entity is None for link in found) and len(found) > 1:
        raise InvalidInput("Give related_to, or job_id and contact_id, not both.", field="related_to")
    return tuple([await _with_kind(ctx, link) for link in found])


async def _with_kind(ctx: ToolContext, link: Link) -> Link:
    """`related_to` names no kind: a job's or a contact's is found by asking; others JobNimbus tells by the id."""
    if link.entity is not None or not is_jnid(link.jnid):
        return link
    for entity in (Entity.JOBS, Entity.CONTACTS):
        if await ctx.exists(Read.record(entity, link.jnid)):
            return replace(link, entity=entity)
    return link


async def _jnid(ctx: ToolContext, entity: Entity, record_id: str) -> str:
    return await ctx.job_to_write(record_id) if entity is Entity.JOBS else record_id


async def _named(ctx: ToolContext, entity: Entity, write: Write, duplicate: DuplicateRecord) -> DuplicateRecord:
    """The error with the ids of those that have the name already, so that the next call can use one of them."""
    name = write.fields.get(facts_of(entity).writes.unique)
    if entity is Entity.CONTACTS and not name:
        name = f"{write.fields.get('first_name') or ''} {write.fields.get('last_name') or ''}".strip()
        name = name or write.fields.get("company")
    if not isinstance(name, str) or not name.strip():
        return duplicate
    read = Read.scan(entity, (NameIs(facts_of(entity).writes.unique, name),), operation=Operation.SEARCH)
    try:
        rows = (await ctx.look_up(read)).value()["rows"]
    except (UpstreamError, OwnError):
        return duplicate  # which is what happened, whether or not it can be told who it is
    ids = ", ".join(str(row.get("jnid")) for row in rows[:5])
    if not ids:
        return duplicate
    return DuplicateRecord(f"{duplicate.public_message} It is {ids}: use that one, or choose another name.")


def _brief(value: Any) -> Any:
    """A value short enough to be told as before or after."""
    if isinstance(value, str) and len(value) > _SHOWN_OF_A_VALUE:
        return value[: _SHOWN_OF_A_VALUE - 1] + "…"
    if isinstance(value, list) and len(str(value)) > _SHOWN_OF_A_VALUE:
        return f"{len(value)} entries"
    return value
