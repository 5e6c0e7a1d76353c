"""ToolSpec: one tool, as an agent sees it and as it is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from jobnimbus_mcp.crm.entities import Entity
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


TOOLSETS = {
    "crm": "contacts and jobs",
    "work": "tasks, activities, the calendar, work orders and material orders",
    "sales": "estimates, invoices, payments, budgets and products",
    "files": "files and photos",
    "account": "users, statuses, workflows and other settings, webhooks",
    "bulk": "many records at once",
}
"""Groups of tools; `default` is a choice across them, `all` is all of them, `meta` finds and uses the others."""

_ANNOTATIONS = {
    Effect.READ: {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True},
    Effect.CREATE: {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False},
    Effect.UPDATE: {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    Effect.DELETE: {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    Effect.BULK: {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False},
}

LIST_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "results": {"type": "array", "items": {"type": "object"}},
        "count": {"type": "integer", "description": "All records that match."},
        "returned": {"type": "integer"},
        "next_cursor": {"type": ["string", "null"], "description": "Pass as cursor for the next page; null: the end."},
        "as_of": {"type": "string", "description": "When JobNimbus was asked, RFC 3339."},
        "complete": {"type": "boolean", "description": "false: records are missing, see incomplete_reason."},
        "incomplete_reason": {"type": "string"},
        "stale": {"type": "boolean"},
        "stale_reason": {"type": "string"},
        "truncated": {"type": "boolean"},
        "omitted_fields": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["results", "count", "returned", "next_cursor", "as_of"],
}
RECORD_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "record": {"type": "object"},
        "as_of": {"type": "string", "description": "When JobNimbus was asked, RFC 3339."},
        "other_jobs_with_this_number": {"type": "array", "items": {"type": "string"}},
        "stale": {"type": "boolean"},
        "stale_reason": {"type": "string"},
        "truncated": {"type": "boolean"},
        "omitted_fields": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["record", "as_of"],
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
