"""Prompts: jobs that people do again and again, told to an agent with the data to start.

The data is fetched when a prompt is asked for, by the server's own tools and in the caller's name, and fits, all parts
together, the budget of one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import InvalidInput, NotAllowed, UpstreamForbidden
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.shape import size_bytes
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.toolbox import META, Toolbox

__all__ = ["GET_PROMPT", "Argument", "Asked", "Made", "Part", "Prompt", "Prompted", "Prompts"]

GET_PROMPT = "prompts/get"

_VALUE_MOST = 120
_DAYS_MOST = 3_650


class Argument(NamedTuple):
    """`completes`: what its values are, for whoever offers some while it is typed; "" nothing."""

    name: str
    title: str
    description: str
    required: bool = False
    completes: str = ""


class Part(NamedTuple):
    """One call whose answer comes with the prompt. `keep`: of its rows those wanted, where no argument says so."""

    title: str
    tool: str
    arguments: Mapping[str, Any]
    keep: Callable[[Mapping[str, Any]], bool] | None = None


class Made(NamedTuple):
    """What to do, and the data to fetch for it; where the first part cannot be had, the prompt cannot."""

    text: str
    parts: Sequence[Part]


class Prompted(NamedTuple):
    """The prompt's messages, in order: what to do, then the data part by part."""

    description: str
    messages: Sequence[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt's arguments as given, checked one by one where they are used."""

    values: Mapping[str, str]
    today: date
    user_of: Callable[[str, str], Awaitable[tuple[str, str]]]
    """Id and name of a user given by name, with the argument that names it."""

    def text(self, name: str) -> str | None:
        """None where it was left out or blank.

        Raises:
            InvalidInput: too long for a name.
        """
        value = self.values.get(name, "").strip()
        if len(value) > _VALUE_MOST:
            raise InvalidInput(f"{name} has more than {_VALUE_MOST} characters.", field=name)
        return value or None

    def days(self, name: str, default: int) -> int:
        """A whole number of days.

        Raises:
            InvalidInput: it is none.
        """
        value = self.text(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or int(value) > _DAYS_MOST:
            raise InvalidInput(f"{name} must be a whole number of days, 0 to {_DAYS_MOST}.", field=name)
        return int(value)

    def day(self, ahead: int) -> str:
        return (self.today + timedelta(days=ahead)).isoformat()


@dataclass(frozen=True, slots=True)
class Prompt:
    """`needs`: tools without which it makes no sense."""

    name: str
    title: str
    description: str
    arguments: Sequence[Argument]
    needs: Sequence[str]
    make: Callable[[Asked], Awaitable[Made]] = field(repr=False)


class _Named(NoArgs):
    argument: str
    name: str


class Prompts:
    """Makes prompts through the toolbox's own tools."""

    def __init__(self, toolbox: Toolbox, prompts: Sequence[Prompt]) -> None:
        self._toolbox = toolbox
        self._prompts = {prompt.name: prompt for prompt in prompts}
        # answers of another size are not to be mistaken for the tools' own: nothing is remembered of them
        self._fetching = {
            parts: replace(toolbox, answer_max_bytes=toolbox.answer_max_bytes // parts, memo=AnswerMemo(0))
            for parts in range(1, 9)
        }
        who = ToolSpec(GET_PROMPT, "Make a prompt", "Whom it is about.", Entity.USERS, _Named, handler=_user_of)
        self._naming = replace(toolbox, specs=(replace(who, toolset=META),), memo=AnswerMemo(0))

    def listed(self, access: Access = EVERYTHING) -> list[Prompt]:
        """Those whose tools this caller may use."""
        return [prompt for prompt in self._prompts.values() if all(self._usable(name, access) for name in prompt.needs)]

    def named(self, name: str, access: Access = EVERYTHING) -> Prompt:
        """Raises InvalidInput: there is none of this name for this caller."""
        prompt = self._prompts.get(name)
        if prompt is None or prompt not in self.listed(access):
            names = ", ".join(one.name for one in self.listed(access)) or "none"
            raise InvalidInput(f"There is no prompt of this name. There are: {names}.", field="name")
        return prompt

    async def get(self, name: str, arguments: Mapping[str, str], who: Caller, call: Call) -> Prompted:
        """The prompt with its data.

        Raises:
            InvalidInput: no such prompt, an argument it does not take, or one that is wrong or missing.
            RecordNotFound: it is about a record that is not there.
            ProjectError: by its kind, as for a tool.
        """
        prompt = self.named(name, who.access)
        known = [argument.name for argument in prompt.arguments]
        for given in arguments:
            if given not in known:
                raise InvalidInput(
                    f"{name} has no argument {given[:60]!r}. It takes: {', '.join(known)}.", field=given[:60]
                )

        async def user_of(argument: str, text: str) -> tuple[str, str]:
            told = await self._naming.call(GET_PROMPT, {"argument": argument, "name": text}, who, replace(call))
            return told.structured["id"], told.structured["name"]

        box = self._toolbox
        today = datetime.fromtimestamp(box.clock.now(), UTC).astimezone(box.zone).date()
        made = await prompt.make(Asked(arguments, today, user_of))
        parts = [part for part in made.parts if self._exists(part.tool)]
        first, *others = parts
        share = len(parts)
        messages = [made.text, await self._fetched(first, share, who, call)]
        fetched = await asyncio.gather(
            *(self._if_allowed(part, share, who, call) for part in others), return_exceptions=True
        )
        for one in fetched:
            if isinstance(one, BaseException):
                raise one
            messages.append(one)
        return Prompted(prompt.description, messages)

    async def _if_allowed(self, part: Part, share: int, who: Caller, call: Call) -> str:
        """What this caller may not see is said, and does not keep it from the rest."""
        try:
            return await self._fetched(part, share, who, call)
        except (NotAllowed, UpstreamForbidden) as error:
            return f"{part.title}: not for this caller. {error.public_message}"

    async def _fetched(self, part: Part, share: int, who: Caller, call: Call) -> str:
        whole = self._fetching[1 if part.keep is not None else share]
        # each call has its own name and cursor words, and all of them the one deadline
        answer = await whole.call(part.tool, part.arguments, who, replace(call))
        if part.keep is None:
            data = answer.data
        else:
            data = orjson.dumps(_kept(answer.structured, part.keep, self._fetching[share].answer_max_bytes))
        asked = orjson.dumps(dict(part.arguments)).decode()
        return f"{part.title}, as {part.tool} answers {asked} (as of {answer.cache['asOf']}):\n{data.decode()}"

    def _exists(self, name: str) -> bool:
        return any(spec.name == name for spec in self._toolbox.specs)

    def _usable(self, name: str, access: Access) -> bool:
        return self._exists(name) and self._toolbox.usable(self._toolbox.spec(name), access)


async def _user_of(ctx: ToolContext, args: _Named) -> dict[str, Any]:
    user_id = await ctx.directory.user_id(args.name, args.argument)
    return {"id": user_id, "name": (await ctx.directory.user_names()).get(user_id, args.name)}


def _kept(answer: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], bool], most_bytes: int) -> dict[str, Any]:
    """The answer with the rows wanted alone, as many as fit; `looked_at` says of how many."""
    rows = [row for row in answer["results"] if keep(row)]
    shown: dict[str, Any] = {**answer, "results": [], "looked_at": answer["returned"], "matching": len(rows)}
    room = most_bytes - size_bytes(shown)
    for row in rows:
        room -= size_bytes(row) + 1
        if room < 0:
            break
        shown["results"].append(row)
    shown["returned"] = len(shown["results"])
    return shown
