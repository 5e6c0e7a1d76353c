"""The worker: hands events to their consumers, and tells the log what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import CacheUnavailable, ProjectError
from jobnimbus_mcp.events.ports import (
    ACT_WITHIN_S,
    ANSWER_MOST,
    BATCH_MOST,
    Attempt,
    Consumer,
    EventLog,
    EventsUnavailable,
    Fate,
    Lag,
    Outcome,
    Settled,
    Subscription,
    Taken,
)
from jobnimbus_mcp.events.redelivery import Dead, Retry, next_step
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Worker", "request_id_of"]

_WAIT_S = 5.0
_REST_S = 0.5
_LOOK_S = 0.2
_END_WITHIN_S = 0.4
_STOP_WITHIN_S = 1.0
_STUCK_S = 10.0

_LONG_TURN_S = 0.003
_STOPPED_S = 1.0
_REST_TURNS = 20.0
_REST_MOST_S = 0.2
"""A turn of the event loop that takes long means that others have much to do here, webhooks before all: their senders
wait, while events are kept. So many times as long nothing more is taken. One of seconds means that the process stood
still."""


def request_id_of(taken: Taken, consumer: str) -> str:
    """What this try is called, in the trace and towards targets: `<event id>.<consumer>.<number of the try>`."""
    return f"{taken.event.event_id}.{consumer.replace(':', '-')}.{taken.attempts + 1}"


class Worker:
    """Each consumer has a loop of its own, and up to `parallel` batches under way: who hangs delays only itself.

    `random01`: evenly between 0 and 1, for the jitter of retries. That two workers over one log do nothing twice is the
    log's doing.
    """

    def __init__(
        self,
        events: EventLog,
        consumers: Sequence[Consumer],
        *,
        clock: Clock,
        random01: Callable[[], float],
        recorder: Recorder,
        log: FilteringBoundLogger,
    ) -> None:
        if len({consumer.name for consumer in consumers}) < len(consumers):
            raise ValueError("Two consumers of one name would take each other's events.")
        self._events = events
        self._consumers = tuple(consumers)
        self._clock = clock
        self._random01 = random01
        self._recorder = recorder
        self._log = log
        self._away: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Works until it is left; then stops within a second, and gives back what it had in hand."""
        loops = [asyncio.create_task(self._serve(consumer), name=consumer.name) for consumer in self._consumers]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            if loops:
                await asyncio.wait(loops, timeout=_STOP_WITHIN_S)

    async def run_until_idle(self, instances: Sequence[str], *, within_s: float | None = None) -> bool:
        """Works until nothing is due or delayed for these consumers in any of the accounts. False: `within_s` seconds
        passed before that; None: however long it takes. While the log is away, nothing is known to be idle."""
        end = None if within_s is None else self._clock.monotonic() + within_s
        async with self.running():
            while not await self._idle(instances):
                if end is not None and self._clock.monotonic() >= end:
                    return False
                await self._clock.sleep(_LOOK_S)
        return True

    async def _idle(self, instances: Sequence[str]) -> bool:
        try:
            lags = [await self._events.lag(instance) for instance in instances]
        except EventsUnavailable:
            return False
        return not any(self._waits(lag) for lag in lags)

    def _waits(self, lags: Mapping[str, Lag]) -> bool:
        ours = (lags.get(consumer.name) for consumer in self._consumers)
        return any(lag is not None and (lag.due or lag.delayed) for lag in ours)

    # -- one consumer ------------------------------------------------------------------------------------------------

    async def _serve(self, consumer: Consumer) -> None:
        """For ever. A defect of the log costs the subscription, whose events are then given back, and a rest."""
        while True:
            try:
                await self._events.open([consumer.name])
                await self._subscribed(consumer)
            except EventsUnavailable as error:
                self._is_away(consumer, error)
            except Exception as defect:  # the boundary of a loop that nobody waits for: it must not end unheard
                self._log.error("worker failed", consumer=consumer.name, **defect_fields(defect))
            await self._clock.sleep(_REST_S)

    async def _subscribed(self, consumer: Consumer) -> None:
        """Take and hand on. What is under way goes on while the log is away."""
        hand = self._events.subscribe(consumer.name)
        batches: set[asyncio.Task[None]] = set()
        most = min(consumer.batch_most, BATCH_MOST)
        try:
            while True:
                for batch in [batch for batch in batches if batch.done()]:
                    batches.discard(batch)
                    batch.result()
                free = consumer.parallel - len(batches)
                if not free:
                    await asyncio.wait(batches, return_when=asyncio.FIRST_COMPLETED)
                    continue
                await self._let_others()
                try:
                    taken = await hand.take(min(free * most, BATCH_MOST), wait_s=_WAIT_S)
                except EventsUnavailable as error:
                    self._is_away(consumer, error)
                    await self._clock.sleep(_REST_S)
                    continue
                self._is_back(consumer)
                for first in range(0, len(taken), most):
                    some = taken[first : first + most]
                    batches.add(asyncio.create_task(self._handle(consumer, hand, some)))
        finally:
            await self._leave(consumer, hand, batches)

    async def _let_others(self) -> None:
        """Rest while this process has much else to do."""
        began = self._clock.monotonic()
        await asyncio.sleep(0)
        turn_s = self._clock.monotonic() - began
        if _LONG_TURN_S < turn_s < _STOPPED_S:
            await self._clock.sleep(min(_REST_MOST_S, _REST_TURNS * turn_s))

    async def _leave(self, consumer: Consumer, hand: Subscription, batches: set[asyncio.Task[None]]) -> None:
        for batch in batches:
            batch.cancel()
        if batches:
            _, hanging = await asyncio.wait(batches, timeout=_END_WITHIN_S)
            if hanging:
                # given back, it could be done by two at once; kept, it comes back when this process's time is over
                self._log.error("an effect cannot be stopped", consumer=consumer.name)
                return
        try:
            async with asyncio.timeout(_END_WITHIN_S):
                await hand.aclose()
        except (EventsUnavailable, TimeoutError):
            self._log.warning("events not given back", consumer=consumer.name)
        except Exception as defect:  # must not take the place of the cancellation that ends the loop
            self._log.error("worker failed", consumer=consumer.name, **defect_fields(defect))

    def _is_away(self, consumer: Consumer, error: EventsUnavailable) -> None:
        if consumer.name not in self._away:
            self._away.add(consumer.name)
            self._log.warning("event log unavailable", consumer=consumer.name, detail=error.detail)

    def _is_back(self, consumer: Consumer) -> None:
        if consumer.name in self._away:
            self._away.discard(consumer.name)
            self._log.info("event log back", consumer=consumer.name)

    # -- one batch ---------------------------------------------------------------------------------------------------

    async def _handle(self, consumer: Consumer, hand: Subscription, batch: Sequence[Taken]) -> None:
        at, began = self._clock.now(), self._clock.monotonic()
        noted = False
        results: list[Settled] = []
        try:
            outcomes = await self._act(consumer, batch)
            took_s = self._clock.monotonic() - began
            self._recorder.observe("event_act_seconds", took_s, consumer=consumer.name)
            results = [
                self._settled(consumer, taken, outcome, at, took_s)
                for taken, outcome in zip(batch, outcomes, strict=True)
            ]
            await hand.settle(results)
            noted = True
        except EventsUnavailable as error:
            self._log.warning("events not noted", consumer=consumer.name, events=len(batch), detail=error.detail)
        finally:
            for result in results:
                self._tell(consumer, result, result.fate.value if noted else "given_back")
            if not results:
                self._recorder.count("events_handled", len(batch), consumer=consumer.name, outcome="given_back")

    async def _act(self, consumer: Consumer, batch: Sequence[Taken]) -> Sequence[Outcome]:
        """One outcome for each, whatever the consumer does."""
        try:
            outcomes = await self._bounded(consumer, batch)
            if len(outcomes) == len(batch):
                return outcomes
            error = "wrong_outcomes"
            self._log.error("wrong outcomes", consumer=consumer.name, events=len(batch), outcomes=len(outcomes))
        except TimeoutError:
            error = "timeout"
        except CacheUnavailable as unreachable:
            return [Outcome(unreachable.code, away=True)] * len(batch)
        except ProjectError as refused:
            error = type(refused).__name__
        except Exception as defect:  # a consumer's own: it costs a try, and no other consumer anything
            error = type(defect).__name__
            self._log.error("consumer failed", consumer=consumer.name, **defect_fields(defect))
        return [Outcome(error)] * len(batch)

    async def _bounded(self, consumer: Consumer, batch: Sequence[Taken]) -> Sequence[Outcome]:
        """Raises TimeoutError when the effect is not there in time, or ends by itself for that reason."""
        request_ids = [request_id_of(taken, consumer.name) for taken in batch]
        acting = asyncio.ensure_future(consumer.act([taken.event for taken in batch], request_ids))
        bound = asyncio.ensure_future(self._clock.sleep(min(consumer.within_s, ACT_WITHIN_S)))
        try:
            await asyncio.wait((acting, bound), return_when=asyncio.FIRST_COMPLETED)
            if not acting.done():
                raise TimeoutError
            return acting.result()
        finally:
            bound.cancel()
            if not acting.done():
                await self._ended(consumer, acting)

    async def _ended(self, consumer: Consumer, acting: asyncio.Future[Sequence[Outcome]]) -> None:
        """Stop an effect and wait until it has stopped: its record's next event must not meet it."""
        acting.cancel()
        while not (await asyncio.wait((acting,), timeout=_STUCK_S))[0]:
            self._log.error("an effect cannot be stopped", consumer=consumer.name)
        if not acting.cancelled() and (late := acting.exception()) is not None:
            self._log.info("an effect failed while it was stopped", consumer=consumer.name, **defect_fields(late))

    def _settled(self, consumer: Consumer, taken: Taken, outcome: Outcome, at: float, took_s: float) -> Settled:
        attempt = Attempt(
            at=at,
            request_id=request_id_of(taken, consumer.name),
            duration_ms=took_s * 1000.0,
            status=outcome.status,
            error=outcome.error[:ANSWER_MOST],
            answer=outcome.answer[:ANSWER_MOST],
        )
        match next_step(outcome, taken.attempts, self._random01()):
            case Retry(after_s):
                return Settled(taken, Fate.RETRY, attempt, due_at=self._clock.now() + after_s)
            case Dead(reason):
                return Settled(taken, Fate.DEAD, attempt, reason=reason[:ANSWER_MOST])
            case _:
                return Settled(taken, Fate.DONE, attempt)

    def _tell(self, consumer: Consumer, result: Settled, outcome: str) -> None:
        """The one line about this event and consumer."""
        self._recorder.count("events_handled", consumer=consumer.name, outcome=outcome)
        event, attempt = result.taken.event, result.attempt
        self._log.info(
            "event handled",
            consumer=consumer.name,
            outcome=outcome,
            event_id=event.event_id,
            instance=event.instance,
            name=event.name,
            source=event.source,
            attempt=result.taken.attempts + 1,
            request_id=attempt.request_id,
            error=attempt.error or None,
            status=attempt.status,
            duration_ms=round(attempt.duration_ms, 3),
            late_ms=round(1000.0 * (attempt.at - result.taken.due_at), 3),
        )
