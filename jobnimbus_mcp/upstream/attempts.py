"""One request until it is answered: slot, budget, breaker, send, interpret; back off and again.

What changes something is repeated only where it surely was not carried out. Credentials that JobNimbus has not accepted
yet pass the limits of strangers first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    OwnError,
    UpstreamCircuitOpen,
    UpstreamError,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.resilience.backoff import BackoffPolicy, delay_s
from jobnimbus_mcp.resilience.breaker import BreakerBox, Event, State
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.upstream.known import KnownKeys
from jobnimbus_mcp.upstream.ports import RawAnswer, RequestBudget, Sender
from jobnimbus_mcp.upstream.request import Base, Repeat, Request
from jobnimbus_mcp.upstream.response import interpret
from jobnimbus_mcp.upstream.strangers import Strangers

__all__ = ["ATTEMPTS_MAX", "ATTEMPT_TIMEOUT_S", "Asking", "Attempts", "Trail"]

ATTEMPTS_MAX = 4

ATTEMPT_TIMEOUT_S = 10.0
"""Bound of one attempt: some ten times what a page takes, and the call's deadline leaves room for another, or for
reading back whether a change was carried out. A file's bytes may take all the time there is."""

_ATTEMPT_MIN_S = 0.25
"""An attempt with less time than this is not begun."""

_FAIR_CHANCE_S = 2.0
"""An attempt that our own deadline cut sooner than this says nothing about JobNimbus: the breaker ignores it."""

_RETRY_AFTER_GUESS_S = 5.0
"""What callers are told after a 429 without `Retry-After`."""

_FAILURES = (UpstreamServerError, UpstreamTimeout, UpstreamUnreachable, UpstreamUnreadable)
"""What the breaker counts as failed; a refusal (400, 401, 403, 404, 429) is an answer."""

_ACCEPTANCES = (UpstreamForbidden, UpstreamNotFound, UpstreamRejected)
"""Refusals of a question whose key was accepted; 429 and 5xx may come from in front of whatever looks at keys."""

T = TypeVar("T")


@dataclass(slots=True)
class Trail:
    """`sent`: something of the request may have reached JobNimbus, and no answer says that it was not carried out."""

    sent: bool = False


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for what: everything of a request but the request; and how far it got."""

    instance: str
    entity: Entity
    call: Call
    credential: str
    trail: Trail = field(default_factory=Trail, compare=False)


@dataclass(slots=True)
class _Standing:
    """What one request has shown of JobNimbus so far, for the breaker; all its attempts count once."""

    admitted_at: float | None = None
    shown: Event = Event.ABANDONED


class Attempts:
    """Asks JobNimbus, with up to `ATTEMPTS_MAX` attempts. `JobNimbusClient` documents the arguments."""

    def __init__(
        self,
        *,
        sender: Sender,
        budget: RequestBudget,
        breakers: Mapping[str, BreakerBox],
        clock: Clock,
        random01: Callable[[], float],
        recorder: Recorder,
        on_call: Callable[[str, Entity], None],
        max_concurrent: int,
        backoff: BackoffPolicy,
        known: KnownKeys,
    ) -> None:
        if max_concurrent < 0:
            raise ValueError("max_concurrent must not be negative")
        self._sender = sender
        self._budget = budget
        self._breakers = dict(breakers)
        self._clock = clock
        self._random01 = random01
        self._recorder = recorder
        self._on_call = on_call
        self._backoff = backoff
        self._known = known
        self._strangers = Strangers(budget.rate_per_s, max_concurrent, breakers, clock)
        self._slots: dict[str, AbstractAsyncContextManager[Any]] = {
            instance: asyncio.Semaphore(max_concurrent) if max_concurrent else nullcontext() for instance in breakers
        }

    async def ask(self, asking: Asking, request: Request, parse: Callable[[Any], T]) -> T:
        """What `parse` makes of the JSON that JobNimbus answers with. Ends and raises as `ask_raw`."""

        def read(answer: RawAnswer) -> T:
            now = self._clock.now()
            return parse(interpret(answer, now=now, credential=asking.credential, writes=request.writes))

        return await self.ask_raw(asking, request, read)

    async def ask_raw(self, asking: Asking, request: Request, read: Callable[[RawAnswer], T]) -> T:
        """What `read` makes of JobNimbus's answer; where it raises `UpstreamError`, the attempt has failed, and whether
        there is another is the request's own word (`Repeat`).

        Attempts end with the call's deadline; waiting for a slot does not, so the caller bounds the whole.

        Raises:
            UpstreamError: of the last attempt.
            BudgetExhausted: before the first attempt.
            FeatureDisabled: the request's URL is at a host that files may not be at.
        """
        breaker = self._breakers[asking.instance]
        if breaker.retry_in_s > 0:  # said before queueing, since waiting would not help
            raise _circuit_open(breaker)
        standing = _Standing()
        error: UpstreamError | None = None
        try:
            for attempt in range(1, ATTEMPTS_MAX + 1):
                try:
                    return await self._attempt(asking, request, read, breaker, standing)
                except UpstreamCircuitOpen:
                    raise
                except BudgetExhausted as exhausted:
                    if error is None:
                        raise
                    raise error from exhausted
                except UpstreamError as failed:
                    if error is not None and _may_be_carried_out(error):
                        failed.sent = True  # one of the attempts may have got through
                    error = failed
                pause_s = delay_s(attempt, error.retry_after_s, self._random01(), self._backoff)
                fits = pause_s + _ATTEMPT_MIN_S <= asking.call.remaining_s(self._clock)
                if not _may_repeat(request, error) or attempt == ATTEMPTS_MAX or not fits:
                    break
                self._recorder.count("upstream_retries", reason=error.code)
                await self._clock.sleep(pause_s)
                if breaker.state is State.OPEN:
                    break
        finally:
            self._report(breaker, standing)
        assert error is not None
        if isinstance(error, UpstreamRateLimited) and error.retry_after_s is None:
            error.retry_after_s = _RETRY_AFTER_GUESS_S
        raise error

    async def _attempt(
        self,
        asking: Asking,
        request: Request,
        read: Callable[[RawAnswer], T],
        breaker: BreakerBox,
        standing: _Standing,
    ) -> T:
        waited_s = 0.0
        stranger_slot: AbstractAsyncContextManager[Any] = nullcontext()
        if not asking.call.admitted and not self._known.knows(asking.instance, asking.credential):
            waited_s = await self._strangers.admit(asking.instance, asking.call)
            stranger_slot = self._strangers.slot(asking.instance)
        async with stranger_slot, self._slots[asking.instance]:
            waited_s += await self._budget.take(asking.instance, asking.call)
            self._recorder.observe("budget_wait_seconds", waited_s)
            if standing.admitted_at is None:
                if not breaker.admit():
                    raise _circuit_open(breaker)
                standing.admitted_at = self._clock.monotonic()
            left_s = asking.call.remaining_s(self._clock)
            timeout_s = left_s if request.slow else min(ATTEMPT_TIMEOUT_S, left_s)
            if timeout_s <= 0:
                raise UpstreamTimeout("There was no time left to ask JobNimbus.").unsent()
            return await self._send(asking, request, read, timeout_s, standing)

    async def _send(
        self, asking: Asking, request: Request, read: Callable[[RawAnswer], T], timeout_s: float, standing: _Standing
    ) -> T:
        began = self._clock.monotonic()
        outcome = "cancelled"
        # a place that a URL names says nothing of the key, which it never sees, and nothing of the API
        elsewhere = request.base is Base.ABSOLUTE
        self._on_call(asking.instance, asking.entity)
        sent_before, asking.trail.sent = asking.trail.sent, True
        try:
            value = read(await self._sender.send(request, asking.credential, timeout_s))
            outcome = "ok"
            if not elsewhere:
                standing.shown = Event.SUCCEEDED
                self._known.accepted(asking.instance, asking.credential)
            return value
        except OwnError as error:
            outcome, asking.trail.sent = error.code, sent_before
            raise
        except UpstreamError as error:
            outcome = error.code
            asking.trail.sent = sent_before or _may_be_carried_out(error)
            if not elsewhere:
                self._learn(asking, error, standing, began)
            raise
        except asyncio.CancelledError:
            if not elsewhere and asking.call.remaining_s(self._clock) <= 0 and self._had_a_fair_chance(began):
                standing.shown = Event.FAILED
            raise
        finally:
            self._recorder.count("upstream_calls", entity=asking.entity.value, outcome=outcome)
            self._recorder.observe("upstream_seconds", self._clock.monotonic() - began, entity=asking.entity.value)

    def _learn(self, asking: Asking, error: UpstreamError, standing: _Standing, began: float) -> None:
        """What a failure says of the key and of JobNimbus."""
        if isinstance(error, UpstreamUnauthorized):
            self._known.refused(asking.instance, asking.credential)
        elif isinstance(error, _ACCEPTANCES):
            self._known.accepted(asking.instance, asking.credential)
        if not isinstance(error, _FAILURES):
            standing.shown = Event.SUCCEEDED
        elif not isinstance(error, UpstreamTimeout) or self._had_a_fair_chance(began):
            standing.shown = Event.FAILED

    def _had_a_fair_chance(self, began: float) -> bool:
        return self._clock.monotonic() - began >= _FAIR_CHANCE_S

    def _report(self, breaker: BreakerBox, standing: _Standing) -> None:
        if standing.admitted_at is None:
            return
        if standing.shown is Event.SUCCEEDED:
            breaker.succeeded(standing.admitted_at)
        elif standing.shown is Event.FAILED:
            breaker.failed(standing.admitted_at)
        else:
            breaker.abandoned(standing.admitted_at)


def _may_be_carried_out(error: UpstreamError) -> bool:
    """Whether a change that ended so may have been made all the same: no answer, or none that says."""
    return error.sent and isinstance(error, _FAILURES)


def _may_repeat(request: Request, error: UpstreamError) -> bool:
    match request.repeat:
        case Repeat.ANY_FAILURE:
            return error.retryable
        case Repeat.IF_UNDONE:
            return isinstance(error, UpstreamRateLimited) or (error.retryable and not error.sent)
        case Repeat.IF_THROTTLED:
            return isinstance(error, UpstreamRateLimited)


def _circuit_open(breaker: BreakerBox) -> UpstreamCircuitOpen:
    return UpstreamCircuitOpen(
        "JobNimbus was not asked: most calls to it failed of late.", retry_after_s=breaker.retry_in_s
    ).unsent()
