"""The one way to call a tool, whichever door the call came through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import InternalError, InvalidInput, ProjectError, UnknownTool
from jobnimbus_mcp.gateway.answers import Provenance, Status, Tier, ToolAnswer
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools import inputs
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.cursor import Cursor, merged_arguments, question_of
from jobnimbus_mcp.tools.dates import whole_days
from jobnimbus_mcp.tools.listing import list_answer
from jobnimbus_mcp.tools.memo import AnswerMemo, Recalled, Remembered, memo_key
from jobnimbus_mcp.tools.spec import ToolSpec

__all__ = ["Toolbox"]


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

    def listing(self) -> list[dict[str, Any]]:
        """Every tool as tools/list shows it."""
        return [spec.listing for spec in self.specs]

    def spec(self, name: str) -> ToolSpec:
        """The tool of this name.

        Raises:
            UnknownTool: there is none.
        """
        for spec in self.specs:
            if spec.name == name:
                return spec
        raise UnknownTool("There is no tool of this name; tools/list tells which there are.", field="name")

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Return when there is such a tool and it takes these arguments.

        Raises:
            CallerError: otherwise.
        """
        spec = self.spec(name)
        self._refuse_unknown(spec, arguments)
        merged, _ = merged_arguments(spec.name, arguments)
        _validated(spec, merged)

    async def call(self, name: str, arguments: Mapping[str, Any], who: Caller, call: Call) -> ToolAnswer:
        """The tool's answer.

        Raises:
            ProjectError: by its kind; an unexpected error becomes an InternalError, its details in the log.
        """
        spec = self.spec(name)
        call.tool = spec.name
        ctx = ToolContext(self.gateway, who, call, self.clock, self.zone, self.answer_max_bytes)
        outcome, shown = "cancelled", {}
        try:
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
        ctx.max_age_s = getattr(args, "max_age_s", None)
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
        if ctx.used and not ctx.looked_at_clock and all(one.etag for one in ctx.used):
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
        first = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "arguments"
        message = first["msg"].removeprefix("Value error, ")
        more = wrong.error_count() - 1
        raise InvalidInput(
            f"{field}: {message}." + (f" ({more} more arguments are wrong.)" if more else ""), field=field
        ) from None
