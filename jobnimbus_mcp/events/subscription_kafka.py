"""One consumer's hand in the topics: a member of its group, with what it has read and not finished in memory.

The group's offset stands before the first unfinished message of each partition, so whatever becomes of this process,
the next owner reads everything that is not done; the trace says what of it is done already, and whether somebody still
works on it. Hence a rebalance needs to wait for nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events.client_kafka import KafkaClient
from jobnimbus_mcp.events.lanes import Lanes
from jobnimbus_mcp.events.message_kafka import (
    Message,
    dead_topic,
    group_id,
    headers_of_dead,
    read_message,
    topic,
    write_message,
)
from jobnimbus_mcp.events.ports import EventsUnavailable, Fate, Settled, Taken
from jobnimbus_mcp.events.ports_kafka import Claim, Claimed, KafkaTrace
from jobnimbus_mcp.events.progress_kafka import Progress

__all__ = ["WAITING_MOST", "KafkaSubscription"]

WAITING_MOST = 20_000
"""Messages in memory; with more, nothing is fetched until half of them are gone."""

WAITING_BYTES_MOST = 64 * 1024 * 1024

_FETCH_S = 0.25
_FETCH_MOST = 1_000
_COMMIT_EVERY_S = 0.5
_COMMIT_WITHIN_S = 2.0
_REST_S = 0.5
_HELD_AGAIN_S = 0.25
_CLOSE_WITHIN_S = 5.0

Part = tuple[str, int]
Key = tuple[str, int, int]
"""Topic, partition and offset of a message."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A message in memory; another one, though the same message, when it was read again."""

    key: Key
    message: Message
    size_bytes: int

    @property
    def name(self) -> tuple[str, str]:
        return self.message.event.instance, self.message.event.event_id


class KafkaSubscription:
    """Reads from the first `take` on, in a task of its own, until it is closed. `holder`: no other's name."""

    def __init__(
        self,
        consumer: str,
        *,
        client: KafkaClient,
        trace: KafkaTrace,
        clock: Clock,
        prefix: str,
        instances: Sequence[str],
        holder: str,
        hold_s: float,
        session_s: float,
        provide: Callable[[], Awaitable[None]],
        closed: Callable[[KafkaSubscription], None],
    ) -> None:
        self._consumer = consumer
        self._client = client
        self._trace = trace
        self._clock = clock
        self._prefix = prefix
        self._instance_of = {topic(prefix, instance): instance for instance in instances}
        self._holder = holder
        self._hold_s = hold_s
        self._session_s = session_s
        self._provide = provide
        self._on_closed = closed
        self._lanes: Lanes[Key] = Lanes()
        self._waiting: dict[Key, _Waiting] = {}
        self._waiting_bytes = 0
        self._progress: dict[Part, Progress] = {}
        self._hand: dict[tuple[str, str], _Waiting] = {}
        self._wake = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._down = ""
        self._closed = False

    # -- the port ----------------------------------------------------------------------------------------------------

    async def take(self, most: int, *, wait_s: float) -> Sequence[Taken]:
        if self._closed:
            raise EventsUnavailable("closed")
        if self._reader is not None and self._reader.done():
            # A defect, for nothing else ends it: told to the caller, and the next call begins anew.
            reader, self._reader = self._reader, None
            reader.result()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_on(), name=f"kafka {self._consumer}")
        until = self._clock.monotonic() + wait_s
        while True:
            self._wake.clear()
            keys = self._lanes.ready(self._clock.now(), most)
            if keys:
                if taken := await self._claimed(keys):
                    return taken
                continue
            if self._down:
                raise EventsUnavailable(self._down)
            left = until - self._clock.monotonic()
            if left <= 0:
                return ()
            due_at = self._lanes.next_due()
            rest = left if due_at is None else min(left, max(0.001, due_at - self._clock.now()))
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._wake.wait()

    async def settle(self, results: Sequence[Settled]) -> None:
        by_instance: defaultdict[str, list[Settled]] = defaultdict(list)
        for settled in results:
            by_instance[settled.taken.event.instance].append(settled)
        failed: EventsUnavailable | None = None
        try:
            for instance, some in by_instance.items():
                dead = [settled for settled in some if settled.fate is Fate.DEAD]
                for group in ([settled for settled in some if settled.fate is not Fate.DEAD], dead):
                    try:
                        await self._note(instance, group)
                    except EventsUnavailable as error:
                        failed = error
        finally:
            for settled in results:
                waiting: _Waiting = settled.taken.receipt
                if self._hand.pop(waiting.name, None) is not None:
                    self._put_back(waiting, self._clock.now())
            self._wake.set()
        if failed is not None:
            raise failed

    async def _note(self, instance: str, results: Sequence[Settled]) -> None:
        if results:
            await self._tell_dead(instance, results)
            await self._trace.note(instance, self._consumer, results, holder=self._holder)
            for settled in results:
                self._after(settled)

    async def aclose(self) -> None:
        self._closed = True
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader}, timeout=_CLOSE_WITHIN_S)
        by_instance: defaultdict[str, list[str]] = defaultdict(list)
        for instance, event_id in self._hand:
            by_instance[instance].append(event_id)
        self._hand.clear()
        for instance, event_ids in by_instance.items():
            await self._let_go(instance, event_ids)
        self._on_closed(self)

    # -- what is in memory -------------------------------------------------------------------------------------------

    async def _claimed(self, keys: Sequence[Key]) -> list[Taken]:
        """Those of the keys, just made ready, that are ours to work on; what becomes of the others is arranged."""
        asked: defaultdict[str, list[_Waiting]] = defaultdict(list)
        for key in keys:
            waiting = self._waiting[key]
            if waiting.name in self._hand:
                # Read again after a rebalance, while it is still being worked on.
                self._put_back(waiting, self._clock.now() + _HELD_AGAIN_S)
            else:
                asked[waiting.message.event.instance].append(waiting)
        taken: list[Taken] = []
        open_ = {waiting.key: waiting for some in asked.values() for waiting in some}
        try:
            for instance, some in asked.items():
                told = await self._trace.claim(
                    instance,
                    self._consumer,
                    [waiting.message.event.event_id for waiting in some],
                    holder=self._holder,
                    hold_s=self._hold_s,
                )
                lost: list[str] = []
                for waiting, claimed in zip(some, told, strict=True):
                    del open_[waiting.key]
                    if claimed.claim is not Claim.OURS:
                        await self._not_ours(waiting, claimed)
                    elif self._waiting.get(waiting.key) is not waiting or waiting.name in self._hand:
                        # The partition went while we asked; or it is there twice.
                        self._put_back(waiting, self._clock.now() + _HELD_AGAIN_S)
                        if waiting.name not in self._hand:
                            lost.append(waiting.message.event.event_id)
                    else:
                        self._hand[waiting.name] = waiting
                        taken.append(Taken(waiting.message.event, claimed.attempts, claimed.due_at, waiting))
                if lost:
                    await self._let_go(instance, lost)
        except EventsUnavailable:
            if not taken:
                raise
        except asyncio.CancelledError:
            for one in taken:
                del self._hand[one.receipt.name]
                self._put_back(one.receipt, self._clock.now())
            raise
        finally:
            for waiting in open_.values():
                self._put_back(waiting, self._clock.now())
        return taken

    async def _not_ours(self, waiting: _Waiting, claimed: Claimed) -> None:
        match claimed.claim:
            case Claim.OVER:
                self._finish(waiting)
            case Claim.EARLY:
                self._put_back(waiting, claimed.due_at)
            case Claim.HELD:
                self._put_back(waiting, self._clock.now() + min(claimed.held_s, _HELD_AGAIN_S))
            case _:
                # The trace lost what it knew; the message is all there is.
                self._put_back(waiting, self._clock.now())
                event = waiting.message.event
                structlog.get_logger().warning("event unknown to the trace", event_id=event.event_id)
                await self._trace.adopt(event, self._consumer, waiting.message.routes[self._consumer])

    def _after(self, settled: Settled) -> None:
        waiting: _Waiting = settled.taken.receipt
        if self._hand.get(waiting.name) is not waiting:
            return
        del self._hand[waiting.name]
        if settled.fate is Fate.RETRY:
            self._put_back(waiting, settled.due_at)
        else:
            self._finish(waiting)

    def _put_back(self, waiting: _Waiting, due_at: float) -> None:
        if self._waiting.get(waiting.key) is waiting:
            self._lanes.put_back(waiting.key, due_at)

    def _finish(self, waiting: _Waiting) -> None:
        if self._waiting.get(waiting.key) is not waiting:
            return
        del self._waiting[waiting.key]
        self._waiting_bytes -= waiting.size_bytes
        self._lanes.finish(waiting.key)
        name, partition, offset = waiting.key
        self._progress[name, partition].finish(offset)

    async def _let_go(self, instance: str, event_ids: Sequence[str]) -> None:
        try:
            await self._trace.release(instance, self._consumer, event_ids, holder=self._holder)
        except EventsUnavailable as error:
            # What is held goes by itself after a while.
            structlog.get_logger().warning("events not given back", events=len(event_ids), reason=error.detail)

    async def _tell_dead(self, instance: str, results: Iterable[Settled]) -> None:
        """Before it is noted: one told twice does less harm than one never told."""
        for settled in results:
            waiting: _Waiting = settled.taken.receipt
            if settled.fate is Fate.DEAD and self._hand.get(waiting.name) is waiting:
                message = waiting.message
                await self._client.send(
                    dead_topic(self._prefix, instance),
                    None,
                    message.event.record.encode(),
                    write_message(message.event, message.routes),
                    headers_of_dead(self._consumer, settled.reason, settled.taken.attempts + 1),
                )

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        while True:
            try:
                await self._read()
            except EventsUnavailable as error:
                self._down = error.detail
            except (self._client.errors.KafkaError, SettingsError, OSError, TimeoutError) as error:
                self._down = type(error).__name__
                structlog.get_logger().warning("kafka cannot be read", consumer=self._consumer, error=self._down)
            self._wake.set()
            await self._clock.sleep(_REST_S)

    async def _read(self) -> None:
        await self._provide()
        member = self._client.consumer(group_id(self._prefix, self._consumer), session_s=self._session_s)
        try:
            member.subscribe(topics=sorted(self._instance_of), listener=self._client.listener(member, self))
            await member.start()
            self._down = ""
            committed_at = self._clock.monotonic()
            while True:
                fetched = await member.getmany(timeout_ms=int(_FETCH_S * 1000), max_records=_FETCH_MOST)
                for part, records in fetched.items():
                    if self._add((part.topic, part.partition), records):
                        self._wake.set()
                self._hold_back(member)
                if self._clock.monotonic() - committed_at >= _COMMIT_EVERY_S:
                    await self._commit(member, tuple(self._progress))
                    committed_at = self._clock.monotonic()
        finally:
            await self._leave(member)

    async def _leave(self, member: Any) -> None:
        try:
            await self._commit(member, tuple(self._progress))
        finally:
            self._forget(tuple(self._progress))
            await self._client.stop(member)

    def _hold_back(self, member: Any) -> None:
        """Fetch as memory allows. Partitions that have come meanwhile are not paused yet, so all are, each time."""
        share = max(len(self._waiting) / WAITING_MOST, self._waiting_bytes / WAITING_BYTES_MOST)
        if share >= 1:
            member.pause(*member.assignment())
        elif share <= 0.5 and (paused := member.paused()):
            member.resume(*paused)

    def _add(self, part: Part, records: Iterable[Any]) -> bool:
        """Whether there is anything new to work on."""
        progress = self._progress.get(part)
        if progress is None:
            return False
        instance, found = self._instance_of[part[0]], False
        for record in records:
            if not progress.begin(record.offset):
                continue
            key = (*part, record.offset)
            try:
                message = read_message(record.value, instance)
            except ValueError as error:
                structlog.get_logger().error(
                    "message cannot be read", topic=part[0], partition=part[1], offset=record.offset, reason=str(error)
                )
                progress.finish(record.offset)
                continue
            due_at = message.routes.get(self._consumer)
            if due_at is None:
                progress.finish(record.offset)
                continue
            size = len(record.value)
            self._waiting[key] = _Waiting(key, message, size)
            self._waiting_bytes += size
            self._lanes.add((instance, message.event.record), key, due_at)
            found = True
        return found

    # -- what the group tells ----------------------------------------------------------------------------------------

    async def revoked(self, member: Any, parts: Sequence[Part]) -> None:
        await self._commit(member, parts)
        self._forget(parts)

    def assigned(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self._progress[part] = Progress()

    def _forget(self, parts: Iterable[Part]) -> None:
        """What is in hand stays there, and is noted when it is settled."""
        for part in parts:
            progress = self._progress.pop(part, None)
            for offset in () if progress is None else progress.unfinished():
                waiting = self._waiting.pop((*part, offset), None)
                if waiting is not None:
                    self._waiting_bytes -= waiting.size_bytes
                    self._lanes.finish(waiting.key)

    async def _commit(self, member: Any, parts: Iterable[Part]) -> None:
        """Tell the group how far we are. That it fails costs asking the trace again, no effect twice."""
        reached: Mapping[Part, int] = {
            part: offset
            for part in parts
            if (progress := self._progress.get(part)) is not None and (offset := progress.to_commit()) is not None
        }
        if not reached:
            return
        try:
            async with asyncio.timeout(_COMMIT_WITHIN_S):
                await self._client.commit(member, reached)
        except (self._client.errors.KafkaError, OSError, TimeoutError) as error:
            structlog.get_logger().info("offsets not committed", consumer=self._consumer, error=type(error).__name__)
            return
        for part, offset in reached.items():
            if part in self._progress:
                self._progress[part].committed(offset)
