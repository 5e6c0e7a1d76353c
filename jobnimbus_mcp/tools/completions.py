"""Values for what a person types into a prompt's argument or a resource template: accounts, names, tags, job numbers.

They come from what is cached anyway: the settings, the users, and the newest jobs or contacts, one block of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import NEWEST_FIRST, Where, Word
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import InvalidInput, RecordNotFound, UpstreamNotFound
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.directory import full_name
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.toolbox import META, Toolbox

__all__ = ["COMPLETE", "VALUES_MOST", "Completed", "Completions"]

COMPLETE = "completion/complete"

VALUES_MOST = 100
"""Of one answer; the protocol allows no more."""

_DAYS = ("1", "7", "14", "30", "60", "90")
_ENOUGH_NUMBERS = 10
_OBJECT_TYPES = {Entity.JOBS: "job", Entity.CONTACTS: "contact"}


class Completed(NamedTuple):
    """`total`: of all that begin so, None where they were not all looked at."""

    values: Sequence[str]
    total: int | None
    has_more: bool


class _Typed(NoArgs):
    kind: str
    prefix: str


class Completions:
    """Completes in the caller's name, counted and logged like a tool's call."""

    def __init__(self, toolbox: Toolbox) -> None:
        spec = ToolSpec(COMPLETE, "Complete", "Values that begin so.", Entity.JOBS, _Typed, handler=_complete)
        self._asking = replace(toolbox, specs=(replace(spec, toolset=META),))
        self._toolbox = toolbox

    def instances(self, prefix: str, instances: Iterable[str], access: Access) -> Completed:
        """Accounts that this caller may name."""
        return _completed(prefix, (one for one in instances if access.allows_instance(one)))

    async def complete(self, kind: str, prefix: str, who: Caller, call: Call) -> Completed:
        """What begins so, whatever the case. `kind`: as templates and prompts name what their variables stand for.

        What this caller may not read is not told; where there is nothing to be found, nothing is.

        Raises:
            ProjectError: by its kind, as for a tool.
        """
        entity = Entity(kind.partition(".")[0]) if "." in kind else Entity.USERS if kind == "people" else Entity.JOBS
        if kind == "days":
            return _completed(prefix, _DAYS)
        if not self._readable(entity, who.access):
            return Completed((), 0, False)
        try:
            told = (await self._asking.call(COMPLETE, {"kind": kind, "prefix": prefix}, who, call)).structured
        except (RecordNotFound, UpstreamNotFound):
            return Completed((), 0, False)
        return Completed(told["values"], told["total"], told["has_more"])

    def _readable(self, entity: Entity, access: Access) -> bool:
        return any(
            spec.entity is entity and not spec.effect.writes and self._toolbox.usable(spec, access)
            for spec in self._toolbox.specs
        )


async def _complete(ctx: ToolContext, args: _Typed) -> dict[str, Any]:
    if args.kind == "job":
        return (await _job_numbers(ctx, args.prefix))._asdict()
    if args.kind in ("people", "jobs.owner"):
        users = [user for user in await ctx.directory.users() if user.get("is_active") is not False]
        return _completed(args.prefix, map(full_name, users))._asdict()
    kind, _, what = args.kind.partition(".")
    entity = Entity(kind)
    if what == "tag":
        rows = await _newest(ctx, entity)
        return _completed(args.prefix, (tag for row in rows for tag in _texts(row.get("tags"))), whole=False)._asdict()
    if what not in ("status", "record_type"):
        raise InvalidInput("Nothing is known of such values.", field="argument")
    settings = (await ctx.look_up(Read.whole(Entity.SETTINGS))).value()
    flows = [
        flow
        for flow in settings.get("workflows") or ()
        if isinstance(flow, Mapping)
        and flow.get("object_type") == _OBJECT_TYPES[entity]
        and flow.get("is_active") is not False
    ]
    if what == "record_type":
        return _completed(args.prefix, (str(flow.get("name") or "") for flow in flows))._asdict()
    statuses = (one for flow in flows for one in flow.get("status") or () if isinstance(one, Mapping))
    names = (str(one.get("name") or "") for one in statuses if one.get("is_active") is not False)
    return _completed(args.prefix, names)._asdict()


async def _job_numbers(ctx: ToolContext, prefix: str) -> Completed:
    """Of the newest jobs, and where these are few, of those that JobNimbus finds."""
    newest = _completed(prefix, _numbers(await _newest(ctx, Entity.JOBS)), whole=False)
    typed = prefix.strip()
    if len(newest.values) >= _ENOUGH_NUMBERS or not any(character.isalnum() for character in typed):
        return newest
    return _completed(prefix, _numbers(await _newest(ctx, Entity.JOBS, (Word(typed, ("number",)),))), whole=False)


async def _newest(ctx: ToolContext, entity: Entity, where: Where = ()) -> list[dict[str, Any]]:
    rows = (await ctx.look_up(Read.block(entity, where, NEWEST_FIRST, 0))).value()["rows"]
    return [row for row in rows if isinstance(row, dict)]


def _numbers(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (str(row["number"]) for row in rows if row.get("number"))


def _texts(value: Any) -> Iterable[str]:
    """Tags are a list of texts, and in what integrations sent a text with commas."""
    if isinstance(value, str):
        value = value.split(",")
    return (str(item).strip() for item in value) if isinstance(value, list) else ()


def _completed(prefix: str, names: Iterable[str], *, whole: bool = True) -> Completed:
    """`whole`: are these all there are?"""
    begins = prefix.lstrip().casefold()
    found = list(dict.fromkeys(name for name in names if name and name.casefold().startswith(begins)))
    return Completed(found[:VALUES_MOST], len(found) if whole else None, len(found) > VALUES_MOST)
