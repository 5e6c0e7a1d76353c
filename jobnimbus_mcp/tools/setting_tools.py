"""create_workflow, create_status, create_source, ...: additions to the account's settings, one row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from jobnimbus_mcp.crm.catalog import SETTINGS_PARTS
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Write
from jobnimbus_mcp.errors import InvalidInput, OwnError, UpstreamError
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import Name, NoArgs, Truth
from jobnimbus_mcp.tools.spec import Effect, ToolSpec
from jobnimbus_mcp.tools.writing import writer_of

__all__ = ["setting_tools"]

_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "done": {"enum": ["created", "unchanged"]},
        "setting": {"type": "object"},
        "note": {"type": "string"},
    },
    "required": ["done", "setting"],
}

_NOT_TOLD = " JobNimbus does not list them, so one that was there is answered as created too."


@dataclass(frozen=True, slots=True)
class _Row:
    """`listed`: where the account's settings list those there are; "" where they do not, as far as is known.
    `arguments`: name -> type with its default."""

    text: str
    listed: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    of_workflow: bool = False


_SHORT = Annotated[str | None, Field(max_length=200)]

_ROWS: Mapping[str, _Row] = {
    "workflow": _Row(
        "a workflow (record type)", "workflows", {"object_type": (Literal["contact", "job", "workorder"], ...)}
    ),
    "status": _Row(
        "a status in a workflow",
        "workflows",
        {
            "workflow": (Annotated[Name, Field(description="Name of the workflow it belongs to.")], ...),
            "is_lead": (Truth, False),
            "is_closed": (Truth, False),
        },
        of_workflow=True,
    ),
    "source": _Row("a lead source", "sources"),
    "custom_field": _Row(
        "a custom field",
        "",
        {
            "object_type": (Literal["contact", "job", "workorder"], ...),
            "type": (Literal["date", "double", "long", "string", "boolean", "dropdown"], ...),
            "options": (
                Annotated[list[Name] | None, Field(max_length=200, description="Choices of a dropdown.")],
                None,
            ),
            "is_required": (Truth, False),
        },
    ),
    "file_type": _Row("a file type", "fileTypes"),
    "task_type": _Row("a task type", "taskTypes"),
    "activity_type": _Row("an activity type", "activityTypes"),
    "location": _Row(
        "a location",
        "",
        dict.fromkeys(("address_line1", "address_line2", "city", "zip", "phone", "code"), (_SHORT, None)),
    ),
}


@cache
def setting_tools() -> tuple[ToolSpec, ...]:
    """One tool for each part of the settings that JobNimbus lets be added to."""
    return tuple(_tool(part, row) for part, row in _ROWS.items())


def _tool(part: str, row: _Row) -> ToolSpec:
    fields: dict[str, Any] = {
        "name": (Annotated[Name, Field(description="An existing one of this name is answered, not made twice.")], ...),
        **row.arguments,
    }
    model = create_model(f"Create{part.title().replace('_', '')}Args", __base__=NoArgs, **fields)

    async def create(ctx: ToolContext, args: Any) -> dict[str, Any]:
        given = args.model_dump(exclude_none=True)
        if given.get("type") == "dropdown" and not given.get("options"):
            raise InvalidInput("A dropdown needs its options.", field="options")
        record_id = ""
        if row.of_workflow:
            record_id = await _workflow_id(ctx, given.pop("workflow"))
        name = given.pop("name")
        facts = SETTINGS_PARTS[part]
        write = Write(Entity.SETTINGS, Action.CREATED, record_id, {facts.name: name, **given}, part=part)
        before = await _ids(ctx, row, record_id, facts.id) if row.listed else frozenset()
        result = await writer_of(ctx).write(write, ctx.caller, ctx.call)
        was_there = result.record.get(facts.id) in before
        answer: dict[str, Any] = {"done": "unchanged" if was_there else "created", "setting": dict(result.record)}
        return answer | ({"note": result.note} if result.note else {})

    return ToolSpec(
        f"create_{part}",
        f"Create {row.text}",
        f"Add {row.text} to the account's settings. Needs a key with the right to change settings."
        + ("" if row.listed else _NOT_TOLD),
        Entity.SETTINGS,
        model,
        _OUTPUT,
        handler=create,
        effect=Effect.CREATE,
        toolset="account",
        default=False,
    )


async def _ids(ctx: ToolContext, row: _Row, workflow_id: str, key: str) -> frozenset[Any]:
    """Of those there are; none where that cannot be told now, which must not keep anybody from adding one."""
    try:
        rows = (await ctx.look_up(Read.whole(Entity.SETTINGS))).value().get(row.listed)
    except (UpstreamError, OwnError):
        return frozenset()
    if row.of_workflow:
        flows = [flow for flow in _dicts(rows) if str(flow.get("id")) == workflow_id]
        rows = flows[0].get("status") if flows else None
    return frozenset(one[key] for one in _dicts(rows) if isinstance(one.get(key), int | str))


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


async def _workflow_id(ctx: ToolContext, name: str) -> str:
    """The id of the workflow of this name.

    Raises:
        InvalidInput: there is none, or several kinds of record have one of this name.
    """
    flows = (await ctx.look_up(Read.whole(Entity.SETTINGS))).value().get("workflows")
    named = [(str(flow.get("name")), flow.get("id"), str(flow.get("object_type"))) for flow in _dicts(flows)]
    found = [number for known, number, _ in named if known.casefold() == name.strip().casefold()]
    if len(found) == 1 and isinstance(found[0], int):
        return str(found[0])
    names = ", ".join(sorted(f"{known} ({kind})" for known, _, kind in named)) or "none"
    raise InvalidInput(f"There is not exactly one workflow of that name. Workflows: {names}.", field="workflow")
