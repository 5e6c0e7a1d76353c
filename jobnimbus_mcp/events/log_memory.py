"""MemoryEvents: the event log of a server that is one process and keeps nothing on disk."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.lanes import Lanes
from jobnimbus_mcp.events.ports import (
    ATTEMPTS_KEPT,
    REJECTED_BY,
    Attempt,
    ConsumerTrace,
    EventPage,
    EventQuery,
    EventsUnavailable,
    Fate,
    Lag,
    Rates,
    Routes,
    Settled,
    Subscription,
    Taken,
    Traced,
)

__all__ = ["ARCHIVE_MOST", "LIVE_MOST", "MemoryEvents"]

LIVE_MOST = 50_000
"""Events that some consumer has not finished. One more is refused: its sender comes again, or its journal keeps it."""

ARCHIVE_MOST = 10_000
"""Events that are done, and as many that are dead; the oldest make room."""

_MINUTES = 5


@dataclass(slots=True)
class _Part:
    """One consumer's part in an event. `fate`: None until it is done or dead. `since`: tries since it was appended or
    replayed. `receipt`: of whoever has it in hand."""

    due_at: float
    fate: Fate | None = None
    attempts: int = 0
    since: int = 0
    tried: deque[Attempt] = field(default_factory=lambda: deque(maxlen=ATTEMPTS_KEPT))
    done_at: float | None = None
    reason: str = ""
    receipt: int | None = None

    def state(self, now: float) -> str:
        return self.fate.value if self.fate else "delayed" if self.due_at > now else "pending"


@dataclass(slots=True)
class _Kept:
    event: Event
    parts: dict[str, _Part]

    def traced(self, now: float, *, body: bool = False) -> Traced:
        told = {
            name: ConsumerTrace(
                state=part.state(now),
                due_at=part.due_at,
                attempts=part.attempts,
                tried=tuple(part.tried),
                done_at=part.done_at,
                reason=part.reason,
            )
            for name, part in self.parts.items()
        }
        return Traced(self.event if body else self.event.without_body(), told)


class _Key(NamedTuple):
    instance: str
    event_id: str


@dataclass(slots=True)
class _Minute:
    """One consumer's tries within a minute since the epoch."""

    number: int
    ok: int = 0
    failed: int = 0
    late_s: float = 0.0


class MemoryEvents:
    """Implements EventLog for the embedded store.

    `token`: never the same for two of them, as everything is lost with each. At most `live_most` events are to be done,
    at most `archive_most` are kept of those that are, and of those given up.
    """

    def __init__(
        self, clock: Clock, *, token: str, live_most: int = LIVE_MOST, archive_most: int = ARCHIVE_MOST
    ) -> None:
        self._clock = clock
        self._token = token
        self._live_most = live_most
        self._archive_most = archive_most
        self._kept: dict[_Key, _Kept] = {}
        self._live: set[_Key] = set()
        # since when, the oldest first
        self._archive: dict[_Key, float] = {}
        self._dead: dict[_Key, float] = {}
        # sorted: by id for listings, by time for the lag
        self._ids: dict[str, list[str]] = defaultdict(list)
        self._unfinished: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        self._given_up: Counter[tuple[str, str]] = Counter()
        self._minutes: dict[tuple[str, str], deque[_Minute]] = defaultdict(lambda: deque(maxlen=_MINUTES + 1))
        self._lanes: dict[str, Lanes[_Key]] = defaultdict(Lanes)
        self._opened: dict[str, None] = {}
        self._listeners: set[asyncio.Future[None]] = set()
        self._receipts = 0

    # -- keeping and handing out -------------------------------------------------------------------------------------

    async def append(self, event: Event, routes: Routes) -> bool:
        key = _Key(event.instance, event.event_id)
        if key in self._kept:
            return False
        if len(self._live) >= self._live_most:
            raise EventsUnavailable("full")
        self._keep(key, _Kept(event, {}))
        for consumer, due_at in routes.items():
            self._kept[key].parts[consumer] = _Part(due_at)
            self._wait(key, consumer, due_at)
        if routes:
            self._live.add(key)
        else:
            self._file(key, self._archive)
        self._stir()
        return True

    def subscribe(self, consumer: str) -> Subscription:
        return _MemorySubscription(self, consumer, self._clock)

    async def open(self, consumers: Sequence[str]) -> None:
        self._opened.update(dict.fromkeys(consumers))

    def hand_out(self, consumer: str, most: int) -> list[Taken]:
        """What is due; to be taken in by `take_in` or `give_back`."""
        handed = []
        for key in self._lanes[consumer].ready(self._clock.now(), most):
            kept = self._kept[key]
            part = kept.parts[consumer]
            self._receipts += 1
            part.receipt = self._receipts
            handed.append(Taken(kept.event, part.since, part.due_at, self._receipts))
        return handed

    def take_in(self, consumer: str, result: Settled) -> None:
        """Note what came of one; passed over when somebody else has it."""
        key = _Key(result.taken.event.instance, result.taken.event.event_id)
        part = self._held(key, consumer, result.taken.receipt)
        if part is None:
            return
        part.receipt = None
        part.attempts += 1
        part.since += 1
        part.tried.append(result.attempt)
        self._rate(key.instance, consumer, part, ok=result.fate is Fate.DONE)
        if result.fate is Fate.RETRY:
            self._wait(key, consumer, result.due_at)
        else:
            self._end(key, consumer, result.fate, result.reason)
        self._stir()

    def give_back(self, consumer: str, taken: Taken) -> None:
        key = _Key(taken.event.instance, taken.event.event_id)
        part = self._held(key, consumer, taken.receipt)
        if part is not None:
            part.receipt = None
            self._lanes[consumer].put_back(key, part.due_at)
            self._stir()

    def next_due(self, consumer: str) -> float | None:
        return self._lanes[consumer].next_due()

    async def stirred(self, within_s: float, stop: asyncio.Future[None]) -> bool:
        """Wait until something has changed; False: `within_s` passed, or `stop` was set, before that."""
        listener: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleeper = asyncio.ensure_future(self._clock.sleep(within_s))
        self._listeners.add(listener)
        try:
            await asyncio.wait((listener, sleeper, stop), return_when=asyncio.FIRST_COMPLETED)
            return listener.done()
        finally:
            self._listeners.discard(listener)
            sleeper.cancel()

    # -- looking -----------------------------------------------------------------------------------------------------

    async def show(self, instance: str, event_id: str) -> Traced | None:
        kept = self._kept.get(_Key(instance, event_id))
        return None if kept is None else kept.traced(self._clock.now(), body=True)

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        ids = self._ids.get(instance, [])
        now = self._clock.now()
        found: list[Traced] = []
        for place in range(len(ids) if query.before is None else bisect_left(ids, query.before), 0, -1):
            kept = self._kept[_Key(instance, ids[place - 1])]
            if not _about(kept.event, query):
                continue
            # told from the parts: a trace of all that is looked through would hold up everybody else
            if query.state is None or query.state == _state(kept.parts.values(), now):
                if len(found) == query.limit:
                    return EventPage(tuple(found), found[-1].event.event_id if found else None)
                found.append(kept.traced(now))
        return EventPage(tuple(found), None)

    async def replay(self, instance: str, event_id: str, consumer: str | None = None) -> tuple[str, ...]:
        key = _Key(instance, event_id)
        kept = self._kept.get(key)
        if kept is None:
            return ()
        dead = tuple(
            name
            for name, part in kept.parts.items()
            if part.fate is Fate.DEAD and name != REJECTED_BY and consumer in (None, name)
        )
        for name in dead:
            part = kept.parts[name]
            part.fate, part.reason, part.since = None, "", 0
            self._given_up[instance, name] -= 1
            self._wait(key, name, self._clock.now())
        if dead:
            self._dead.pop(key, None)
            self._live.add(key)
            self._stir()
        return dead

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        now = self._clock.now()
        dead = {name: count for (account, name), count in self._given_up.items() if account == instance and count}
        waiting = {name: times for (account, name), times in self._unfinished.items() if account == instance and times}
        names = self._opened.keys() | waiting.keys() | dead.keys()
        return {name: _lag(waiting.get(name, ()), now, dead.get(name, 0)) for name in names}

    async def rates(self, instance: str) -> Mapping[str, Rates]:
        since = int(self._clock.now() // 60) - _MINUTES
        told = {}
        for (account, consumer), minutes in self._minutes.items():
            recent = [minute for minute in minutes if minute.number > since]
            if account == instance and recent:
                ok = sum(minute.ok for minute in recent)
                late_s = sum(minute.late_s for minute in recent)
                told[consumer] = Rates(ok, sum(minute.failed for minute in recent), late_s / ok if ok else 0.0)
        return told

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, Mapping[str, bool]]:
        return self._token, {event_id: _Key(instance, event_id) in self._live for event_id in event_ids}

    # -- keeping house -----------------------------------------------------------------------------------------------

    async def reject(self, event: Event, reason: str) -> None:
        key = _Key(event.instance, event.event_id)
        if key not in self._kept:
            self._keep(key, _Kept(event, {REJECTED_BY: _Part(event.received_at, Fate.DEAD, reason=reason)}))
            self._file(key, self._dead)

    async def clean(self, *, archived_before: float, dead_before: float) -> int:
        old = [key for key, at in self._archive.items() if at < archived_before]
        old += [key for key, at in self._dead.items() if at < dead_before]
        self._forget(old)
        return len(old)

    async def retire(self, consumers: Sequence[str]) -> int:
        gone = [
            (key, name)
            for key in self._live
            for name, part in self._kept[key].parts.items()
            if part.fate is None and name not in consumers
        ]
        for key, name in gone:
            self._end(key, name, Fate.DEAD, "no_such_consumer")
        for name in self._opened.keys() - set(consumers):
            del self._opened[name]
        self._stir()
        return len(gone)

    async def durable(self) -> bool:
        return False

    async def ping(self) -> None:
        return

    async def aclose(self) -> None:
        return

    # -- bookkeeping -------------------------------------------------------------------------------------------------

    def _held(self, key: _Key, consumer: str, receipt: int) -> _Part | None:
        kept = self._kept.get(key)
        part = None if kept is None else kept.parts.get(consumer)
        return part if part is not None and part.receipt == receipt else None

    def _keep(self, key: _Key, kept: _Kept) -> None:
        self._kept[key] = kept
        insort(self._ids[key.instance], key.event_id)

    def _wait(self, key: _Key, consumer: str, due_at: float) -> None:
        """Not done, and due (again) then."""
        kept = self._kept[key]
        part = kept.parts[consumer]
        if self._lanes[consumer].put_back(key, due_at):
            self._no_longer(key, consumer, part)
        else:
            self._lanes[consumer].add((key.instance, kept.event.record), key, due_at)
        part.due_at = due_at
        insort(self._unfinished[key.instance, consumer], (due_at, key.event_id))

    def _no_longer(self, key: _Key, consumer: str, part: _Part) -> None:
        times = self._unfinished[key.instance, consumer]
        del times[bisect_left(times, (part.due_at, key.event_id))]

    def _end(self, key: _Key, consumer: str, fate: Fate, reason: str) -> None:
        """This consumer is done with it or gives it up; the last one files it."""
        parts = self._kept[key].parts
        part = parts[consumer]
        self._no_longer(key, consumer, part)
        part.fate, part.reason, part.receipt = fate, reason, None
        part.done_at = self._clock.now() if fate is Fate.DONE else None
        self._given_up[key.instance, consumer] += fate is Fate.DEAD
        self._lanes[consumer].finish(key)
        if all(each.fate is not None for each in parts.values()):
            self._live.discard(key)
            self._file(key, self._dead if any(each.fate is Fate.DEAD for each in parts.values()) else self._archive)

    def _file(self, key: _Key, where: dict[_Key, float]) -> None:
        where[key] = self._clock.now()
        if len(where) > self._archive_most:
            self._forget([next(iter(where))])

    def _forget(self, keys: Iterable[_Key]) -> None:
        for key in keys:
            self._archive.pop(key, None)
            self._dead.pop(key, None)
            for name, part in self._kept.pop(key).parts.items():
                self._given_up[key.instance, name] -= part.fate is Fate.DEAD and name != REJECTED_BY
            ids = self._ids[key.instance]
            del ids[bisect_left(ids, key.event_id)]

    def _rate(self, instance: str, consumer: str, part: _Part, *, ok: bool) -> None:
        now = self._clock.now()
        minutes = self._minutes[instance, consumer]
        if not minutes or minutes[-1].number != int(now // 60):
            minutes.append(_Minute(int(now // 60)))
        minutes[-1].ok += ok
        minutes[-1].failed += not ok
        minutes[-1].late_s += max(0.0, now - part.due_at) if ok else 0.0

    def _stir(self) -> None:
        for listener in self._listeners:
            if not listener.done():
                listener.set_result(None)


class _MemorySubscription:
    def __init__(self, log: MemoryEvents, consumer: str, clock: Clock) -> None:
        self._log = log
        self._consumer = consumer
        self._clock = clock
        self._out: dict[int, Taken] = {}
        self._closed: asyncio.Future[None] | None = None

    async def take(self, most: int, *, wait_s: float) -> Sequence[Taken]:
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        end = self._clock.monotonic() + wait_s
        while not self._closed.done():
            taken = self._log.hand_out(self._consumer, most)
            left_s = end - self._clock.monotonic()
            if taken or left_s <= 0:
                self._out.update({each.receipt: each for each in taken})
                return taken
            due_at = self._log.next_due(self._consumer)
            due_s = left_s if due_at is None else max(0.0, due_at - self._clock.now())
            await self._log.stirred(min(left_s, due_s), self._closed)
        return ()

    async def settle(self, results: Sequence[Settled]) -> None:
        for result in results:
            self._out.pop(result.taken.receipt, None)
            self._log.take_in(self._consumer, result)

    async def aclose(self) -> None:
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        if not self._closed.done():
            self._closed.set_result(None)
        for taken in self._out.values():
            self._log.give_back(self._consumer, taken)
        self._out.clear()


def _about(event: Event, query: EventQuery) -> bool:
    return (
        query.entity in (None, event.entity)
        and query.record_id in (None, event.record_id)
        and (query.since is None or event.received_at >= query.since)
    )


def _state(parts: Iterable[_Part], now: float) -> str:
    """As Traced.state says."""
    states = {part.state(now) for part in parts}
    return next((state for state in ("pending", "delayed", "dead") if state in states), "done")


def _lag(times: Sequence[tuple[float, str]], now: float, dead: int) -> Lag:
    due = bisect_right(times, (now, "~"))
    return Lag(due, len(times) - due, now - times[0][0] if due else 0.0, dead)
