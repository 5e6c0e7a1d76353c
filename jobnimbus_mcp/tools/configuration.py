"""How the account is set up: workflows with their statuses, types, sources and groups; and units of measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import MaxAge, NoArgs, Truth
from jobnimbus_mcp.tools.shape import size_bytes

__all__ = ["SettingsArgs", "UnitsArgs", "get_settings", "get_units"]

_TYPES = {
    "task_types": ("taskTypes", "TaskTypeId"),
    "activity_types": ("activityTypes", "ActivityTypeId"),
    "file_types": ("fileTypes", "FileTypeId"),
}
_SLACK_BYTES = 256


class SettingsArgs(NoArgs):
    """get_settings"""

    part: Annotated[
        Literal["all", "workflows", "sources", "types", "groups"],
        Field(description="workflows: with their statuses; types: of tasks, activities and files."),
    ] = "all"
    include_inactive: Annotated[Truth, Field(description="true: those no longer in use too.")] = False
    max_age_s: MaxAge = None


class UnitsArgs(NoArgs):
    """get_units"""

    max_age_s: MaxAge = None


async def get_units(ctx: ToolContext, args: UnitsArgs) -> dict[str, Any]:
    """`{"units": ["SQ", ...], "as_of"}`."""
    rows = (await ctx.read(Read.whole(Entity.PRODUCTS, "uoms")))["rows"]
    ctx.about_to_shape()
    return {"units": [row["name"] for row in rows], **_told(ctx)}


async def get_settings(ctx: ToolContext, args: SettingsArgs) -> dict[str, Any]:
    """Names and ids: `workflows` by what they are of, `sources`, `task_types`, `activity_types`, `file_types`,
    `groups`. What does not fit is left out whole, named in `omitted_parts`."""
    parts: dict[str, Any] = {}
    inactive = args.include_inactive
    if args.part != "groups":
        settings: Mapping[str, Any] = await ctx.read(Read.whole(Entity.SETTINGS))
        if args.part in ("all", "workflows"):
            parts["workflows"] = _workflows(settings, inactive=inactive)
        if args.part in ("all", "sources"):
            parts["sources"] = _named(settings.get("sources"), "JobSourceId", "SourceName", inactive=inactive)
        if args.part in ("all", "types"):
            for name, (listed, key) in _TYPES.items():
                parts[name] = _named(settings.get(listed), key, "TypeName", inactive=inactive)
    if args.part in ("all", "groups"):
        groups = _dicts((await ctx.read(Read.whole(Entity.SETTINGS, "groups")))["rows"])
        people = await ctx.directory.user_names() if groups else {}
        parts["groups"] = [_group(group, people) for group in groups]
    ctx.about_to_shape()
    told = _told(ctx)
    return _fitted(parts, ctx.answer_max_bytes - size_bytes(told) - _SLACK_BYTES) | told


def _told(ctx: ToolContext) -> dict[str, Any]:
    provenance = ctx.provenance()
    stale = {} if provenance.stale_reason is None else {"stale": True, "stale_reason": provenance.stale_reason}
    return {"as_of": provenance.as_of, **stale}


def _workflows(settings: Mapping[str, Any], *, inactive: bool) -> dict[str, list[dict[str, Any]]]:
    """By kind of record, in the account's order, each with its statuses in theirs."""
    of_kind: dict[str, list[dict[str, Any]]] = {}
    for flow in _ordered(_dicts(settings.get("workflows"))):
        if not (inactive or _in_use(flow)):
            continue
        statuses = [
            {**_entry(one, "id", "name"), **{flag: True for flag in ("is_lead", "is_closed") if one.get(flag)}}
            for one in _ordered(_dicts(flow.get("status")))
            if inactive or _in_use(one)
        ]
        kind = of_kind.setdefault(str(flow.get("object_type")), [])
        kind.append({**_entry(flow, "id", "name"), "statuses": statuses})
    return of_kind


def _named(items: Any, key: str, name: str, *, inactive: bool) -> list[dict[str, Any]]:
    return [_entry(item, key, name) for item in _dicts(items) if inactive or _in_use(item)]


def _entry(item: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    shown = {"id": item.get(key), "name": item.get(name)}
    return shown if _in_use(item) else {**shown, "is_active": False}


def _group(group: Mapping[str, Any], people: Mapping[str, str]) -> dict[str, Any]:
    def named(ids: Any) -> list[dict[str, Any]]:
        return [{"id": one, "name": people.get(one, "")} for one in ids or () if isinstance(one, str)]

    return {"name": group.get("name"), "managers": named(group.get("managers")), "members": named(group.get("members"))}


def _fitted(parts: dict[str, Any], room: int) -> dict[str, Any]:
    """The parts that fit, the smaller ones first to stay."""
    omitted: list[str] = []
    while parts and size_bytes(parts) > room:
        largest = max(parts, key=lambda name: size_bytes(parts[name]))
        if largest == "workflows" and len(parts) == 1 and len(parts[largest]) > 1:
            kinds = parts[largest]
            kind = max(kinds, key=lambda name: size_bytes(kinds[name]))
            parts = {largest: {name: flows for name, flows in kinds.items() if name != kind}}
            omitted.append(f"{largest}.{kind}")
            continue
        parts = {name: part for name, part in parts.items() if name != largest}
        omitted.append(largest)
    return {**parts, "truncated": True, "omitted_parts": omitted} if omitted else parts


def _in_use(item: Mapping[str, Any]) -> bool:
    return item.get("is_active", item.get("IsActive")) is not False and not item.get("is_archived")


def _ordered(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: item.get("order") or 0)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
