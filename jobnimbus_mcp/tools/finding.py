"""find_tools and use_tool: the tools that are not listed, found by words and used by name.

A list of every tool would fill an agent's context before it has asked anything; so tools/list shows the usual ones,
and these two lead to the rest.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs, SortedListArgs, Whole
from jobnimbus_mcp.tools.shape import size_bytes
from jobnimbus_mcp.tools.spec import TOOLSETS, Effect, ToolSpec
from jobnimbus_mcp.tools.toolbox import META, USE_TOOL

__all__ = ["FIND_TOOLS", "FindArgs", "UseArgs", "finding", "meta_tools", "ranked"]

FIND_TOOLS = "find_tools"

Usable = Callable[[ToolSpec, Access], bool]
Specs = Callable[[], Sequence[ToolSpec]]
Toolset = Literal["crm", "work", "sales", "files", "account", "bulk"]

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "note": ("activity",),
    "comment": ("activity",),
    "call": ("activity",),
    "email": ("activity",),
    "log": ("activity",),
    "history": ("activity",),
    "file": ("attachment",),
    "photo": ("attachment",),
    "picture": ("attachment",),
    "image": ("attachment",),
    "document": ("attachment",),
    "pdf": ("attachment",),
    "bill": ("invoice",),
    "receivable": ("invoice",),
    "quote": ("estimate",),
    "proposal": ("estimate",),
    "crew": ("work_order",),
    "workorder": ("work_order",),
    "materialorder": ("material_order",),
    "customer": ("contact",),
    "client": ("contact",),
    "lead": ("contact",),
    "homeowner": ("contact",),
    "appointment": ("task", "calendar"),
    "meeting": ("task", "calendar"),
    "schedule": ("calendar", "task"),
    "todo": ("task",),
    "reminder": ("task",),
    "project": ("job",),
    "rep": ("sale_rep", "user"),
    "salesperson": ("sale_rep", "user"),
    "employee": ("user",),
    "staff": ("user",),
    "team": ("user", "group"),
    "person": ("user", "contact"),
    "people": ("user", "contact"),
    "workflow": ("setting",),
    "status": ("setting",),
    "source": ("setting",),
    "material": ("product", "material_order"),
    "price": ("product",),
    "profit": ("budget",),
    "paid": ("payment",),
    "check": ("payment",),
    "add": ("create",),
    "new": ("create",),
    "make": ("create",),
    "write": ("create", "update"),
    "change": ("update",),
    "edit": ("update",),
    "modify": ("update",),
    "set": ("update",),
    "move": ("update",),
    "assign": ("update",),
    "remove": ("delete",),
    "show": ("get",),
    "read": ("get",),
    "list": ("get",),
    "fetch": ("get",),
    "find": ("search",),
    "look": ("search",),
    "lookup": ("search",),
}
"""What people and agents say for what the tools are called; words as `_words` makes them."""

_SAY_NOTHING = frozenset(
    (
        *("a", "an", "the", "of", "for", "to", "in", "on", "at", "by", "from", "with", "and", "or", "all", "is", "are"),
        *("my", "me", "i", "it", "they", "what", "which", "who", "when", "how", "do", "does", "can", "want"),
    )
)

_EVERY_LISTS = frozenset(field.alias or name for name, field in SortedListArgs.model_fields.items())
"""Arguments that tell no list from another."""

_NAME, _TITLE, _TEXT, _ARGUMENT = 8, 4, 2, 1
"""What a word of the query counts where it is found; half where only a synonym of it is."""


class FindArgs(NoArgs):
    """find_tools"""

    query: Annotated[
        str | None, Field(min_length=1, max_length=200, description="What you want to do, e.g. add a note to a job.")
    ] = None
    toolset: Annotated[Toolset | None, Field(description="Only of this group.")] = None
    limit: Annotated[Whole, Field(ge=1, le=20)] = 10


class UseArgs(NoArgs):
    """use_tool"""

    name: Annotated[str, Field(min_length=1, max_length=100, description="As find_tools told it.")]
    arguments: Annotated[dict[str, Any], Field(default_factory=dict, description="As its inputSchema says.")]


class _AnyTool(ToolSpec):
    """A tool that does what the one it is given does: where there are any that write, hosts have to expect a write."""

    @cached_property
    def listing(self) -> dict[str, Any]:
        hints = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False}
        shown = super().listing
        return {**shown, "annotations": {**shown["annotations"], **hints}}


def meta_tools(usable: Usable, specs: Specs, *, writes: bool) -> tuple[ToolSpec, ToolSpec]:
    """find_tools and use_tool over `specs`. `usable`: may this caller use that tool? `writes`: does any of them?"""
    use = _AnyTool if writes else ToolSpec
    return (
        ToolSpec(
            FIND_TOOLS,
            "Find more tools",
            "Find tools that are not listed, by what you want to do; without query: the groups and their tools.",
            Entity.SETTINGS,
            FindArgs,
            handler=finding(usable, specs),
            toolset=META,
        ),
        use(
            USE_TOOL,
            "Use a found tool",
            "Use a tool that find_tools told of, as if it were listed.",
            Entity.SETTINGS,
            UseArgs,
            handler=_unreachable,
            toolset=META,
        ),
    )


def finding(usable: Usable, specs: Specs) -> Callable[[ToolContext, FindArgs], Awaitable[dict[str, Any]]]:
    """find_tools, given all tools there are and who may use which."""

    async def find_tools(ctx: ToolContext, args: FindArgs) -> dict[str, Any]:
        """`{"tools": [...], "found"}`, the best first; without a query `{"toolsets": {group: {"about", "tools"}}}`."""
        mine = [spec for spec in specs() if spec.toolset != META and usable(spec, ctx.caller.access)]
        if args.toolset is not None:
            mine = [spec for spec in mine if spec.toolset == args.toolset]
        if args.query is None:
            return {"toolsets": _groups(mine)}
        found = ranked(mine, args.query)
        answer: dict[str, Any] = {"tools": [], "found": len(found)}
        if not found:
            answer["toolsets"] = _groups(mine)
            return answer
        room = ctx.answer_max_bytes - size_bytes(answer)
        for spec in found[: args.limit]:
            told = _told(spec)
            if size_bytes(told) + 1 > room:
                answer["truncated"] = True  # the best come first, so what is missing is what was meant least
                break
            room -= size_bytes(told) + 1
            answer["tools"].append(told)
        return answer

    return find_tools


def ranked(specs: Sequence[ToolSpec], query: str) -> list[ToolSpec]:
    """The tools that a word of the query is found in: first any that it names, then those with most of its words, then
    those with them in the more telling places, then in the order given."""
    named = set(re.findall(r"[a-z0-9_]+", query.lower()))
    words = list(dict.fromkeys(word for word in _words(query) if word not in _SAY_NOTHING))
    scored = []
    for place, spec in enumerate(specs):
        known = _vocabulary(spec)
        points = [_points(known, word) for word in words]
        if any(points) or spec.name in named:
            scored.append((spec.name not in named, -sum(1 for one in points if one), -sum(points), place, spec))
    return [spec for *_, spec in sorted(scored, key=lambda one: one[:4])]


def _points(known: Mapping[str, int], word: str) -> int:
    return max(2 * known.get(word, 0), *(known.get(other, 0) for other in _SYNONYMS.get(word, ())), 0)


def _vocabulary(spec: ToolSpec) -> dict[str, int]:
    """Every word a tool can be found by, pairs such as `work_order` among them, and what it counts."""
    counts: dict[str, int] = {}
    for worth, texts in (
        (_ARGUMENT, sorted(spec.argument_names - _EVERY_LISTS)),
        (_TEXT, [spec.description, spec.toolset]),
        (_TITLE, [spec.title]),
        (_NAME, [spec.name]),
    ):
        for text in texts:
            words = _words(text)
            counts |= dict.fromkeys([*words, *(f"{one}_{two}" for one, two in pairwise(words))], worth)
    return counts


def _words(text: str) -> list[str]:
    return [_singular(word) for word in re.findall(r"[a-z0-9]+", text.lower().replace("e-mail", "email"))]


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 3:
        return word[:-1]
    return word


def _told(spec: ToolSpec) -> dict[str, Any]:
    first, dot, _ = spec.description.partition(". ")
    return {
        "name": spec.name,
        "title": spec.title,
        "description": first + dot.strip(),
        "inputSchema": spec.input_schema,
        "toolset": spec.toolset,
        "writes": spec.effect is not Effect.READ,
    }


def _groups(specs: Sequence[ToolSpec]) -> dict[str, Any]:
    named = {group: [spec.name for spec in specs if spec.toolset == group] for group in TOOLSETS}
    return {group: {"about": TOOLSETS[group], "tools": names} for group, names in named.items() if names}


async def _unreachable(ctx: ToolContext, args: UseArgs) -> dict[str, Any]:
    raise AssertionError("use_tool is unwrapped before it is called")
