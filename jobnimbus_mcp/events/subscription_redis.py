"""One consumer's hand in the log in Redis: reads the partitions this process has, and hands out what is due."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.asking_redis import Asking, text
from jobnimbus_mcp.events.event import decode, received_ms
from jobnimbus_mcp.events.keys_redis import (
    archive_key,
    archived_key,
    due_key,
    event_key,
    live_key,
    owners_key,
    stream_key,
)
from jobnimbus_mcp.events.lanes import Lanes
from jobnimbus_mcp.events.ownership_redis import START, Ownership
from jobnimbus_mcp.events.ports import BATCH_MOST, EventsUnavailable, Fate, Settled, Taken
from jobnimbus_mcp.events.settling_redis import SettleRow, settle_call
from jobnimbus_mcp.events.trace_redis import Became, milliseconds

__all__ = ["HELD_MOST", "RedisSubscription"]

HELD_MOST = 20_000
"""Events that wait in this process for one consumer; no more are read until there is room."""

_READ_MOST = 512
_SETTLED_MOST = 200
_NEW = ">"
_DROP = "drop"
_LOST, _DONE, _MISSING = 0, 1, 2


@dataclass(slots=True, eq=False)
class _Part:
    """A partition that this process has. `cursor`: where to read on, first in the pending list, then `>`. `draining`:
    nothing more is handed out, since another is to have it; `out`: how many are in hands. `reading` counts up whenever
    what is being read is to be read again."""

    tenant: str
    number: int
    token: str
    cursor: str = START
    draining: bool = False
    reading: int = 0
    out: int = 0
    held: dict[str, _Held] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Held:
    """An event that waits, or is in hands. `here` False: its partition is no longer this one's."""

    part: _Part
    event_id: str
    entry: str
    raw: bytes
    due_ms: int
    became: Became = field(default_factory=Became)
    here: bool = True


class _Result(NamedTuple):
    """What is to be noted of an event. `late_ms`: from due to done, "" when it was not even tried."""

    held: _Held
    fate: str
    became: Became
    due_ms: int = 0
    late_ms: int | str = ""


class RedisSubscription:
    """A `Subscription`; made by `RedisEvents.subscribe`."""

    def __init__(self, consumer: str, asking: Asking, ownership: Ownership, *, clock: Clock) -> None:
        self._consumer = consumer
        self._asking = asking
        self._ownership = ownership
        self._clock = clock
        self._parts: dict[tuple[str, int], _Part] = {}
        self._fresh: dict[tuple[str, int], None] = {}
        self._lanes: Lanes[_Held] = Lanes()
        self._woken = asyncio.Event()
        self._closed = False
        self._log = structlog.get_logger().bind(consumer=consumer)
        ownership.add(self)

    @property
    def consumer(self) -> str:
        return self._consumer

    @property
    def closed(self) -> bool:
        return self._closed

    # -- taking ------------------------------------------------------------------------------------------------------

    async def take(self, most: int, *, wait_s: float) -> Sequence[Taken]:
        if self._closed:
            return ()
        ends = self._clock.monotonic() + wait_s
        await self._ownership.join(self)
        while True:
            self._woken.clear()
            await self._read()
            held_s = self._ownership.held_s
            taken = await self._hand_out(min(most, BATCH_MOST)) if held_s <= 0 else []
            if taken or self._closed:
                return taken
            if self._readable():
                continue
            left_s = ends - self._clock.monotonic()
            if left_s <= 0:
                return ()
            if held_s > 0:
                await self._woken_within(min(left_s, held_s))
                continue
            if self._ownership.failing is not None:
                raise EventsUnavailable(self._ownership.failing.detail)
            await self._rest(left_s)

    async def _rest(self, most_s: float) -> None:
        """Until something has happened, or the next event is due."""
        due_at = self._lanes.next_due()
        if due_at is not None and all(self._ownership.lasts(tenant) for tenant, _ in self._parts):
            # never 0: a clock that was set back must not make this a busy loop
            most_s = min(most_s, max(0.001, due_at - self._clock.now()))
        await self._woken_within(most_s)

    async def _woken_within(self, most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._woken.wait()

    def _readable(self) -> bool:
        return len(self._lanes) < HELD_MOST and bool(self._fresh)

    async def _read(self) -> None:
        """Fetch what is new in the partitions, as far as there is room."""
        room = HELD_MOST - len(self._lanes)
        if not self._fresh or room <= 0:
            return
        by_tenant: defaultdict[str, list[_Part]] = defaultdict(list)
        for place in self._fresh:
            if (part := self._parts.get(place)) is not None and not part.draining:
                by_tenant[place[0]].append(part)
        self._fresh.clear()
        unread = dict(by_tenant)
        try:
            for tenant, parts in by_tenant.items():
                await self._read_of(tenant, parts, max(1, min(_READ_MOST, room) // len(parts)))
                del unread[tenant]
        finally:
            # What was given to the group without reaching this process is in the pending list.
            for part in (part for parts in unread.values() for part in parts):
                self._anew(part)

    async def _read_of(self, tenant: str, parts: Sequence[_Part], most: int) -> None:
        keys = [owners_key(tenant), due_key(tenant, self._consumer)]
        keys += [stream_key(tenant, part.number) for part in parts]
        asked = [(part, part.reading, part.cursor) for part in parts]
        args: list[Any] = [self._consumer, most]
        for part, _, cursor in asked:
            args += [part.number, part.token, cursor]
        reply = await self._asking.run("event_read", tenant, keys, args)
        orphans: list[tuple[_Part, list[str]]] = []
        for (part, reading, cursor), row in zip(asked, reply, strict=True):
            if part.reading != reading or self._parts.get((tenant, part.number)) is not part:
                continue  # given up meanwhile: it is read again, by whoever has it then
            if row[0] == _LOST:
                self._lose(part)
                continue
            _, number, last, flat, nobodys = row
            if cursor != _NEW:
                part.cursor = text(last) if number == most else _NEW
            if cursor != _NEW or number == most:
                self._fresh[tenant, part.number] = None
            self._hold(part, flat)
            if number:
                self._ownership.read_up_to(self, tenant, part.number, text(last))
            if nobodys:
                orphans.append((part, [text(event_id) for event_id in nobodys]))
        for part, event_ids in orphans:
            await self._file(part, event_ids)

    def _hold(self, part: _Part, flat: Sequence[bytes]) -> None:
        for event_id, entry, raw, due, late in zip(*[iter(flat)] * 5, strict=True):
            held = _Held(part, text(event_id), text(entry), raw, round(float(due)))
            if held.entry in part.held:
                continue  # it was in hands while the partition was to be given up
            try:
                record = decode(raw).record
            except ValueError:
                record = held.event_id  # nobody knows whose it is, so it must hold back nothing
            part.held[held.entry] = held
            received = received_ms(held.event_id) or 0
            self._lanes.add((part.tenant, record), held, held.due_ms / 1000, of=received, late=late == b"1")

    async def _file(self, part: _Part, event_ids: Sequence[str]) -> None:
        """Events that are for nobody would stay for ever: no consumer is the last of theirs."""
        tenant = part.tenant
        keys = [live_key(tenant), archive_key(tenant), archived_key(tenant), stream_key(tenant, part.number)]
        keys += [event_key(tenant, event_id) for event_id in event_ids]
        args = [arg for event_id in event_ids for arg in (event_id, received_ms(event_id) or 0)]
        await self._asking.run("event_file", tenant, keys, args)

    async def _hand_out(self, most: int) -> list[Taken]:
        ready = self._lanes.ready(self._clock.now(), most)
        for held in ready:
            held.part.out += 1
        try:
            return await self._look_up(ready)
        except BaseException:  # whatever it was, also cancelled: nobody has them
            for held in ready:
                self._back(held)
            raise

    async def _look_up(self, ready: Sequence[_Held]) -> list[Taken]:
        by_tenant: defaultdict[str, list[_Held]] = defaultdict(list)
        for held in ready:
            by_tenant[held.part.tenant].append(held)
        taken: list[Taken] = []
        useless: list[_Result] = []
        failed: EventsUnavailable | None = None
        for tenant, some in by_tenant.items():
            try:
                rows = await self._looked_up(tenant, some) if self._ownership.lasts(tenant) else [None] * len(some)
            except EventsUnavailable as error:
                failed, rows = error, [None] * len(some)
            for held, row in zip(some, rows, strict=True):
                if not held.here:
                    continue
                if row == _LOST:
                    self._lose(held.part)
                elif row == _DONE:
                    self._finished(held)
                elif row == _MISSING:
                    self._log.error("an event was lost by the store", instance=tenant, event_id=held.event_id)
                    useless.append(_Result(held, _DROP, held.became))
                elif row is None:
                    self._back(held)
                else:
                    self._give(held, row, taken, useless)
        if useless:
            await self._note(useless)
        if failed is not None and not taken:
            raise failed
        return [one for one in taken if self._still_ours(one.receipt)]

    def _still_ours(self, held: _Held) -> bool:
        """Asked last of all: the process may have been stopped meanwhile, for longer than its leases last."""
        if held.here and self._ownership.lasts(held.part.tenant):
            return True
        self._back(held)
        return False

    async def _looked_up(self, tenant: str, some: Sequence[_Held]) -> list[Any]:
        keys = [owners_key(tenant), due_key(tenant, self._consumer)]
        keys += [event_key(tenant, held.event_id) for held in some]
        args: list[Any] = [self._consumer]
        for held in some:
            args += [held.part.number, held.part.token, held.event_id]
        return list(await self._asking.run("event_hand_out", tenant, keys, args))

    def _give(self, held: _Held, row: Sequence[bytes], taken: list[Taken], useless: list[_Result]) -> None:
        body, told = row
        held.became = Became.read(told)
        try:
            event = decode(held.raw, text(body))
        except ValueError:
            self._log.error("an event cannot be read", instance=held.part.tenant, event_id=held.event_id)
            became = held.became.gone("unreadable", milliseconds(self._clock.now()))
            useless.append(_Result(held, Fate.DEAD.value, became))
            return
        taken.append(Taken(event, held.became.tries, held.due_ms / 1000, held))

    # -- settling ----------------------------------------------------------------------------------------------------

    async def settle(self, results: Sequence[Settled]) -> None:
        now = self._clock.now()
        noted: list[_Result] = []
        for settled in results:
            held: _Held = settled.taken.receipt
            became = held.became.after(settled, milliseconds(now))
            late_ms = max(0, milliseconds(now - settled.taken.due_at))
            noted.append(_Result(held, settled.fate.value, became, milliseconds(settled.due_at), late_ms))
        await self._note(noted)

    async def _note(self, results: Sequence[_Result]) -> None:
        by_tenant: defaultdict[str, list[_Result]] = defaultdict(list)
        for result in results:
            if result.held.here:
                by_tenant[result.held.part.tenant].append(result)
        failed: EventsUnavailable | None = None
        try:
            for tenant, some in by_tenant.items():
                for first in range(0, len(some), _SETTLED_MOST):
                    try:
                        await self._note_of(tenant, some[first : first + _SETTLED_MOST])
                    except EventsUnavailable as error:
                        failed = error
        finally:
            for result in results:
                self._back(result.held)
            self._woken.set()
        if failed is not None:
            raise failed

    async def _note_of(self, tenant: str, some: Sequence[_Result]) -> None:
        rows = [
            SettleRow(
                held.part.number, held.part.token, held.entry, held.event_id, fate, became.written, due_ms, late_ms
            )
            for held, fate, became, due_ms, late_ms in some
        ]
        keys, args = settle_call(tenant, self._consumer, self._clock.now(), rows)
        reply = await self._asking.run("event_settle", tenant, keys, args)
        for result, noted in zip(some, reply, strict=True):
            held = result.held
            if not held.here:
                continue
            if noted == _LOST:
                self._lose(held.part)
            elif noted == _DONE and result.fate == Fate.RETRY.value:
                held.due_ms, held.became = result.due_ms, result.became
            else:
                self._finished(held)

    def _finished(self, held: _Held) -> None:
        self._lanes.finish(held)
        held.part.held.pop(held.entry, None)
        held.here = False
        self._emptied(held.part)

    def _back(self, held: _Held) -> None:
        """Its turn comes again, unless it is done with."""
        if held.here and self._lanes.is_out(held):
            self._lanes.put_back(held, held.due_ms / 1000)
            self._emptied(held.part)

    def _emptied(self, part: _Part) -> None:
        part.out -= 1
        if part.draining and part.out == 0:
            self._ownership.hurry()

    # -- partitions --------------------------------------------------------------------------------------------------

    def give_up(self, tenant: str) -> Sequence[int]:
        empty = [part for part in self._of(tenant) if part.draining and part.out == 0]
        for part in empty:
            self._drop(part)
        return [part.number for part in empty]

    def own(self, tenant: str, share: int, tokens: Sequence[str]) -> bool:
        before = set(self._parts)
        for number, token in enumerate(tokens):
            part = self._parts.get((tenant, number))
            if part is not None and part.token != token:
                self._drop(part)
            if token and (part is None or part.token != token):
                self._parts[tenant, number] = _Part(tenant, number, token)
                self._fresh[tenant, number] = None
        # Those that are draining already, then those of which least is in hands.
        mine = sorted(self._of(tenant), key=lambda part: (not part.draining, part.out))
        surplus = max(0, len(mine) - share)
        for place, part in enumerate(mine):
            if place < surplus:
                self._drain(part)
            elif part.draining:
                part.draining = False
                self._anew(part)
        self._woken.set()
        return before != set(self._parts)

    def owned(self) -> Sequence[tuple[str, int]]:
        return list(self._parts)

    def heard(self, tenant: str, partition: int) -> None:
        if (tenant, partition) in self._parts:
            self._fresh[tenant, partition] = None
            self._woken.set()

    def wake(self) -> None:
        self._woken.set()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            for part in list(self._parts.values()):
                self._drop(part)
            self._woken.set()
            await self._ownership.leave(self)

    def _of(self, tenant: str) -> list[_Part]:
        return [part for (whose, _), part in self._parts.items() if whose == tenant]

    def _drain(self, part: _Part) -> None:
        """Hand out nothing more of it; should it stay after all, it is read anew."""
        part.draining = True
        part.reading += 1
        for held in [held for held in part.held.values() if not self._lanes.is_out(held)]:
            self._forget(held)
        if part.out == 0:
            self._ownership.hurry()

    def _anew(self, part: _Part) -> None:
        """Read from the start of the pending list, if it is still ours; what is held already is passed over."""
        part.cursor = START
        part.reading += 1
        if self._parts.get((part.tenant, part.number)) is part and not part.draining:
            self._fresh[part.tenant, part.number] = None

    def _lose(self, part: _Part) -> None:
        """It is another's now, or nobody's."""
        if self._parts.get((part.tenant, part.number)) is part:
            self._drop(part)
            self._ownership.hurry()

    def _drop(self, part: _Part) -> None:
        self._parts.pop((part.tenant, part.number), None)
        self._fresh.pop((part.tenant, part.number), None)
        for held in list(part.held.values()):
            self._forget(held)

    def _forget(self, held: _Held) -> None:
        held.here = False
        self._lanes.finish(held)
        held.part.held.pop(held.entry, None)
