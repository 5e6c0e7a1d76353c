"""The one way to call a tool, whichever door the call came through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cached_property
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import InternalError, InvalidInput, NotAllowed, ProjectError, UnknownTool
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.gateway.answers import Provenance, Status, Tier, ToolAnswer
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.gateway.writes import Writer
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools import inputs
from jobnimbus_mcp.tools.context import Progress, ToolContext
from jobnimbus_mcp.tools.cursor import Cursor, merged_arguments, question_of
from jobnimbus_mcp.tools.dates import whole_days
from jobnimbus_mcp.tools.listing import list_answer
from jobnimbus_mcp.tools.memo import AnswerMemo, Recalled, Remembered, memo_key
from jobnimbus_mcp.tools.numbers import refuse_unwritable
from jobnimbus_mcp.tools.people import People
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.versions import Versions

__all__ = ["META", "USE_TOOL", "Toolbox", "refusal_of"]

META = "meta"
"""The toolset of the tools that find and use others; everybody has it."""

USE_TOOL = "use_tool"


@dataclass(frozen=True)
class Toolbox:
    """Calls tools by name: arguments checked, counted, logged, with provenance."""

    specs: Sequence[ToolSpec]
    gateway: Gateway
    clock: Clock
    zone: tzinfo
    answer_max_bytes: int
    tally: Tally
    recorder: Recorder
    log: FilteringBoundLogger
    memo: AnswerMemo
    writer: Writer | None = None
    read_only: bool = False
    toolsets: frozenset[str] = frozenset({"default"})
    versions: Versions = field(default_factory=Versions)
    people: People = field(default_factory=People)

    def listing(self, access: Access = EVERYTHING) -> list[dict[str, Any]]:
        """The tools that tools/list shows to whoever has this access; others may be used that are not shown."""
        return [spec.listing for spec in self.shown(access)]

    def shown(self, access: Access = EVERYTHING) -> list[ToolSpec]:
        """Of a caller whose token names its tools those, of others the server's own choice."""
        chosen = self.toolsets if access.toolsets is None else access.toolsets
        if access.toolsets is None and access.tools is not None:
            chosen = frozenset()
        return [
            spec
            for spec in self.specs
            if self.usable(spec, access)
            and (
                spec.toolset in (*chosen, META)
                or "all" in chosen
                or (spec.default and "default" in chosen)
                or (access.tools is not None and spec.name in access.tools)
            )
        ]

    def usable(self, spec: ToolSpec, access: Access) -> bool:
        """May this caller use the tool?"""
        if spec.effect.writes and (self.read_only or access.read_only or self.writer is None):
            return False
        if access.allows_every_tool or spec.toolset == META:
            return True
        sets, tools = access.toolsets or frozenset(), access.tools or frozenset()
        in_default = spec.default and "default" in sets
        return "all" in sets or in_default or spec.toolset in sets or spec.name in tools

    def spec(self, name: str) -> ToolSpec:
        """The tool of this name.

        Raises:
            UnknownTool: there is none.
        """
        spec = self._by_name.get(name)
        if spec is None:
            raise UnknownTool("There is no tool of this name; find_tools tells which there are.", field="name")
        return spec

    @cached_property
    def _by_name(self) -> Mapping[str, ToolSpec]:
        return {spec.name: spec for spec in self.specs}

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Return when there is such a tool and it takes these arguments.

        Raises:
            CallerError: otherwise.
        """
        spec = self.spec(name)
        self._refuse_unknown(spec, arguments)
        merged, _ = merged_arguments(spec.name, arguments)
        _validated(spec, merged)

    def unwrapped(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """The tool that is meant and its arguments: use_tool names another one.

        Raises:
            InvalidInput: use_tool without a name, with arguments that are no object or beside it, or of itself.
        """
        if name != USE_TOOL:
            return name, arguments
        if beside := sorted(set(arguments) - {"name", "arguments"}):
            # left out silently, a filter would make a list of everything
            first = beside[0][:60]
            raise InvalidInput(f"{first!r} belongs into arguments: {{'name': ..., 'arguments': ...}}.", field=first)
        meant, given = arguments.get("name"), arguments.get("arguments", {})
        if not isinstance(meant, str) or meant == USE_TOOL:
            raise InvalidInput("name must be the name of a tool, as find_tools tells it.", field="name")
        if not isinstance(given, Mapping):
            raise InvalidInput("arguments must be a JSON object.", field="arguments")
        return meant, given

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        who: Caller,
        call: Call,
        *,
        confirmed: bool = False,
        progress: Progress | None = None,
    ) -> ToolAnswer:
        """The tool's answer. `confirmed`: a person has agreed to what it does. `progress`: is told how far it got.

        Raises:
            ConfirmationNeeded: a person is to be asked first.
            ProjectError: by its kind; an unexpected error becomes an InternalError, its details in the log.
        """
        name, arguments = self.unwrapped(name, arguments)
        spec = self.spec(name)
        call.tool = spec.name
        ctx = ToolContext(self.gateway, who, call, self.clock, self.zone, self.answer_max_bytes)
        ctx.writer, ctx.confirmed, ctx.progress = self.writer, confirmed, progress
        ctx.versions, ctx.people = self.versions, self.people
        outcome, shown = "cancelled", {}
        try:
            self._refuse_unusable(spec, who.access)
            data = await self._run(spec, arguments, ctx)
            cache = ctx.provenance().envelope(self.clock.now()) if ctx.outcomes else self._uncached(ctx)
            shown = {"status": cache["status"], "tier": cache["tier"], "age_s": cache["ageSeconds"]}
            outcome = "ok"
            return ToolAnswer(data, cache)
        except ProjectError as error:
            outcome = error.code
            raise
        except Exception as defect:  # the boundary of a tool call: a stranger learns nothing of it, the log its place
            outcome = "internal_error"
            self.log.error("tool call failed", tool=spec.name, request_id=call.request_id, **defect_fields(defect))
            raise InternalError("This tool call failed through a defect of the server; it was logged.") from defect
        finally:
            took_s = self.clock.monotonic() - call.started
            self._count(spec, ctx, outcome, str(shown.get("status", "none")), took_s)
            self.log.info(
                "tool call",
                tool=spec.name,
                instance=who.instance,
                outcome=outcome,
                ms=round(took_s * 1000, 1),
                request_id=call.request_id,
                **shown,
            )

    async def _run(self, spec: ToolSpec, arguments: Mapping[str, Any], ctx: ToolContext) -> bytes:
        self._refuse_unknown(spec, arguments)
        merged, cursor = merged_arguments(spec.name, arguments)
        args = _validated(spec, merged)
        refuse_unwritable(merged)
        ctx.max_age_s = getattr(args, "max_age_s", None)
        if spec.effect.writes:
            return orjson.dumps(await self._structured(spec, ctx, args, merged, cursor))
        key = memo_key(spec.name, ctx.caller, arguments, whole_days(self.clock.now(), self.zone, 0)[0])
        if ctx.max_age_s != 0:
            known = self.memo.get(key)
            if known is not None and await ctx.unchanged(known.used):
                return known.data
            ctx.recall = lambda: self.memo.get(key)
        try:
            structured = await self._structured(spec, ctx, args, merged, cursor)
        except Recalled as recalled:
            return recalled.data
        data = orjson.dumps(structured)
        # one that is about no read tells more than its look-ups gave, such as a file's content
        if ctx.answers and not ctx.looked_at_clock and all(one.etag for one in ctx.used):
            self.memo.put(key, Remembered(tuple(dict.fromkeys(ctx.used)), data))
        return data

    async def _structured(
        self, spec: ToolSpec, ctx: ToolContext, args: BaseModel, merged: Mapping[str, Any], cursor: Cursor | None
    ) -> dict[str, Any]:
        if spec.plan is not None:
            assert isinstance(args, inputs.ListArgs)
            return await list_answer(ctx, await spec.plan(ctx, args), args, question_of(merged), cursor)
        assert spec.handler is not None
        return await spec.handler(ctx, args)

    def _refuse_unusable(self, spec: ToolSpec, access: Access) -> None:
        if self.usable(spec, access):
            return
        if spec.effect.writes and (self.read_only or access.read_only):
            raise NotAllowed(f"{spec.name} changes JobNimbus, and this connection may only read.", code="read_only")
        raise NotAllowed(f"The token sent may not use {spec.name}.", code="tool_not_allowed", field="name")

    def _refuse_unknown(self, spec: ToolSpec, arguments: Mapping[str, Any]) -> None:
        unknown = sorted(set(arguments) - spec.argument_names)
        if unknown:
            known = ", ".join(sorted(spec.argument_names)) or "no arguments"
            first = unknown[0][:60]
            raise InvalidInput(f"{spec.name} has no argument {first!r}. It takes: {known}.", field=first)

    def _uncached(self, ctx: ToolContext) -> dict[str, Any]:
        """A tool without a read: what it tells is of this moment, and is not kept."""
        now = self.clock.now()
        return Provenance(Status.BYPASS, Tier.UPSTREAM, now, 0.0, ctx.consistency).envelope(now)

    def _count(self, spec: ToolSpec, ctx: ToolContext, outcome: str, status: str, took_s: float) -> None:
        self.recorder.count("tool_calls", tool=spec.name, outcome=outcome)
        self.recorder.observe("tool_call_seconds", took_s, tool=spec.name, status=status)
        if not ctx.outcomes:
            return
        told = ctx.provenance()

        def count(metric: str, n: int = 1) -> None:
            self.tally.add(ctx.caller.instance, metric, n, tool=spec.name, entity=spec.entity.value)

        for metric in _metrics_of(told.status, told.tier):
            count(metric)
        stored = sum(read.ttl_s > 0 and not read.coalesced for read in ctx.outcomes if read.tier is Tier.UPSTREAM)
        if stored:
            count("writes", stored)
        if any(read.coalesced for read in ctx.outcomes):
            count("coalesced")
        if told.status is Status.HIT and any(read.negative for read in ctx.outcomes):
            count("negativeHits")


def _metrics_of(status: Status, tier: Tier) -> tuple[str, ...]:
    served = ("hits", "l1Hits" if tier is Tier.L1 else "l2Hits")
    match status:
        case Status.HIT | Status.REVALIDATED:
            return served
        case Status.STALE:
            # fetched, of a list that lags: JobNimbus was asked, so nothing was hit
            return ("misses",) if tier is Tier.UPSTREAM else (*served, "staleHits")
        case Status.MISS:
            return ("misses",)
        case Status.BYPASS:
            return ()


def _validated(spec: ToolSpec, arguments: Mapping[str, Any]) -> BaseModel:
    try:
        return spec.arguments.model_validate(dict(arguments))
    except ValidationError as wrong:
        raise refusal_of(wrong) from None


def refusal_of(wrong: ValidationError) -> InvalidInput:
    """The first mistake, named by its argument; values are not repeated."""
    first = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "arguments"
    message = first["msg"].removeprefix("Value error, ")
    more = wrong.error_count() - 1
    return InvalidInput(f"{field}: {message}." + (f" ({more} more arguments are wrong.)" if more else ""), field=field)
