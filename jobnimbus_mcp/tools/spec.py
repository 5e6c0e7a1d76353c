"""ToolSpec: one tool, as an agent sees it and as it is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.gateway.access import TOOLSETS
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import schema_of
from jobnimbus_mcp.tools.listing import Listing

__all__ = ["LIST_OUTPUT", "RECORD_OUTPUT", "TOOLSETS", "WRITE_OUTPUT", "Effect", "ToolSpec"]

Plan = Callable[[ToolContext, Any], Awaitable[Listing]]
Handler = Callable[[ToolContext, Any], Awaitable[dict[str, Any]]]


class Effect(Enum):
    """What a call does to JobNimbus: nothing, add, overwrite, remove, or much of either at once."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    BULK = "bulk"

    @property
    def writes(self) -> bool:
        return self is not Effect.READ


_ANNOTATIONS = {
    Effect.READ: {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True},
    Effect.CREATE: {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False},
    Effect.UPDATE: {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    Effect.DELETE: {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    Effect.BULK: {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False},
}

_ANY: dict[str, Any] = {}
"""A value whose name says what it is: what agents read of every tool is kept short."""
_OF_EVERY_READ = ("as_of", "version", "unchanged", "stale", "stale_reason", "truncated", "omitted_fields")
# only what every answer has is required: one that is unchanged has no records, and a table has no results
LIST_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "results": {"type": "array"},
        **dict.fromkeys(("columns", "table", "count", "returned", "next_cursor"), _ANY),
        **dict.fromkeys(("complete", "incomplete_reason"), _ANY),
        **dict.fromkeys(("changes_since", "unchanged_count", "removed", "known_version_unknown"), _ANY),
        **dict.fromkeys(_OF_EVERY_READ, _ANY),
    },
    "required": ["as_of"],
}
RECORD_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "record": {"type": "object"},
        "other_jobs_with_this_number": _ANY,
        **dict.fromkeys(_OF_EVERY_READ, _ANY),
    },
    "required": ["as_of"],
}
WRITE_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "done": {"enum": ["created", "updated", "deleted", "unchanged"]},
        "jnid": {"type": "string"},
        "record": {"type": "object"},
        "changed": {"type": "object", "description": "field -> [before, after]"},
        "replayed": {"type": "boolean", "description": "It had been done before, under the same idempotency_key."},
        "note": {"type": "string"},
    },
    "required": ["done"],
}


@dataclass(frozen=True)
class ToolSpec:
    """Exactly one of `plan` (a list tool: says what to list) and `handler` (makes the whole answer) is given.

    `toolset`: one of TOOLSETS, or "meta". `default`: it is listed where nobody chose toolsets. `long`: it may take
    longer than a call usually may, where its caller hears of its progress meanwhile.
    """

    name: str
    title: str
    description: str
    entity: Entity
    arguments: type[BaseModel]
    output: dict[str, Any] | None = None
    plan: Plan | None = None
    handler: Handler | None = None
    effect: Effect = Effect.READ
    toolset: str = "crm"
    default: bool = True
    long: bool = False

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        return schema_of(self.arguments)

    @cached_property
    def argument_names(self) -> frozenset[str]:
        return frozenset(self.input_schema["properties"])

    @cached_property
    def listing(self) -> dict[str, Any]:
        """The tool as tools/list shows it."""
        shown: dict[str, Any] = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self.input_schema,
            "annotations": {"title": self.title, **_ANNOTATIONS[self.effect], "openWorldHint": True},
        }
        if self.output is not None:
            shown["outputSchema"] = self.output
        return shown
