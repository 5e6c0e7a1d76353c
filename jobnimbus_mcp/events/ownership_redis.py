"""Which partitions this process has, of which consumers; and what waits for news of them.

A worker says every `beat_s` that it lives, in one script for each account. The reply tells its share of the partitions
and which are its own; a lease that is not renewed for `claim_idle_s` is another's to take. One blocked XREAD for all
accounts tells when something came.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.asking_redis import Asking, text
from jobnimbus_mcp.events.event import PARTITIONS
from jobnimbus_mcp.events.keys_redis import consumers_key, owners_key, stream_key, stream_keys
from jobnimbus_mcp.events.ports import ACT_WITHIN_S, EventsUnavailable

__all__ = ["HOLD_S", "START", "Member", "Ownership"]

_BEAT_S = 2.0
_WAIT_S = 5.0
_REST_S = 0.25
HOLD_S = 4.0
"""So long after the server was away, nothing is handed out: meanwhile the servers bring what they have journalled, and
what has overtaken it waits here behind it. They try every half a second; ten times shorter, and a journal of some
thousand events would come too late, ten times longer, and every restart of Redis would stop events for long."""
START = "0-0"
"""Before every entry of a stream."""


class Member(Protocol):
    """One consumer of this process, as ownership knows it. Nothing of this waits."""

    @property
    def consumer(self) -> str: ...

    def give_up(self, tenant: str) -> Sequence[int]:
        """Partitions it is to have no longer and has nothing in hand of; it uses them no more from here on."""
        ...

    def own(self, tenant: str, share: int, tokens: Sequence[str]) -> bool:
        """What it has now: a token for each partition, "" where another has it. Whether that is another set."""
        ...

    def owned(self) -> Sequence[tuple[str, int]]:
        """Account and partition of all it has."""
        ...

    def heard(self, tenant: str, partition: int) -> None:
        """There may be something new."""
        ...

    def wake(self) -> None:
        """Look at how things are."""
        ...


class Ownership:
    """`worker`: this process's name, another for each start. The tasks begin with the first `join`."""

    def __init__(
        self, asking: Asking, *, clock: Clock, tenants: Sequence[str], worker: str, claim_idle_s: float
    ) -> None:
        self._asking = asking
        self._clock = clock
        self._tenants = tuple(tenants)
        self._worker = worker
        self.beat_s = min(_BEAT_S, claim_idle_s / 8)
        # The last beat may be one beat old when the process dies.
        self._lease_s = claim_idle_s + self.beat_s
        self.act_within_s = min(ACT_WITHIN_S, claim_idle_s * 2 / 3)
        self._members: dict[str, Member] = {}
        self._joined: set[str] = set()
        self._lasts: dict[str, float] = {}
        self._last: dict[tuple[str, int], str] = {}
        self._positions: dict[tuple[str, int], str] = {}
        self._locks = {tenant: asyncio.Lock() for tenant in self._tenants}
        self._number = 0
        self._hurry = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger()
        self._broken_at = -math.inf
        self.failing: EventsUnavailable | None = None
        """Why it was not possible lately to say that this worker lives."""

    @property
    def held_s(self) -> float:
        """For how much longer nothing is to be handed out, since the server was away a short while ago."""
        return self._broken_at + HOLD_S - self._clock.monotonic()

    def add(self, member: Member) -> None:
        if member.consumer in self._members:
            raise ValueError(f"this process has a subscription of {member.consumer} already")
        self._members[member.consumer] = member

    async def join(self, member: Member) -> None:
        """Return when the member knows what it has.

        Raises:
            EventsUnavailable: that could not be asked.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._beating()), asyncio.create_task(self._waiting())]
        if member.consumer not in self._joined:
            await self._beat_all()
            self._joined.add(member.consumer)

    async def leave(self, member: Member) -> None:
        """Its partitions are free for others, at once where that can be told."""
        if self._members.get(member.consumer) is not member:
            return
        del self._members[member.consumer]
        self._joined.discard(member.consumer)
        self._changed.set()
        if not self._number:
            return
        try:
            for tenant in self._tenants:
                async with self._locks[tenant]:
                    args = (self._worker, member.consumer, PARTITIONS)
                    await self._asking.run("event_give_up", tenant, [owners_key(tenant)], args)
        except EventsUnavailable as error:
            self._log.warning("leases run out by themselves", consumer=member.consumer, error=error.detail)

    def hurry(self) -> None:
        """Beat now: something is to be given up, or was lost."""
        self._hurry.set()

    def lasts(self, tenant: str) -> bool:
        """Whether an effect may begin: nobody else gets the partitions before it must have ended."""
        return self._clock.monotonic() + self.act_within_s < self._lasts.get(tenant, -math.inf)

    def read_up_to(self, member: Member, tenant: str, partition: int, entry: str) -> None:
        """This member has read so far: what is before needs no waking, and is news to the others."""
        place = (tenant, partition)
        if _after(entry, self._positions.get(place, START)):
            self._positions[place] = entry
            for other in self._members.values():
                if other is not member:
                    other.heard(tenant, partition)

    async def aclose(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in list(self._members.values()):
            await self.leave(member)

    # -- beating -----------------------------------------------------------------------------------------------------

    async def _beating(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.beat_s):
                    await self._hurry.wait()
            self._hurry.clear()
            try:
                await self._beat_all()
            except EventsUnavailable as error:
                if self.failing is None:
                    self._log.warning("event log away", error=error.detail)
                self.failing = error
                for member in self._members.values():
                    member.wake()
            except Exception:  # the task's boundary: without beats this process would never act again
                self._log.exception("beat failed")
            else:
                self.failing = None

    async def _beat_all(self) -> None:
        """For every account, whatever comes of the others.

        Raises:
            EventsUnavailable: for one of them at least.
        """
        told = await asyncio.gather(*map(self._beat, self._tenants), return_exceptions=True)
        for error in told:
            if isinstance(error, BaseException):
                raise error

    async def _beat(self, tenant: str) -> None:
        async with self._locks[tenant]:
            members = list(self._members.values())
            if not members:
                return
            self._number += 1
            args: list[Any] = [self._worker, f"{self._worker}.{self._number}", round(self._lease_s * 1000)]
            for member in members:
                args += [member.consumer, "".join(map(str, member.give_up(tenant)))]
            keys = [owners_key(tenant), consumers_key(tenant), *stream_keys(tenant)]
            began = self._clock.monotonic()
            last, *rows = await self._asking.run("event_beat", tenant, keys, args)
            self._lasts[tenant] = began + self._lease_s
            for member, (share, *tokens) in zip(members, rows, strict=True):
                if self._members.get(member.consumer) is member and member.own(
                    tenant, int(share), [text(token) for token in tokens]
                ):
                    self._changed.set()
            for partition, entry in enumerate(map(text, last)):
                self._seen(tenant, partition, entry)

    def _seen(self, tenant: str, partition: int, entry: str) -> None:
        """The last entry of a partition: what the wait has missed is found here, whatever the server has lost."""
        place = (tenant, partition)
        if self._last.get(place) != entry:
            self._last[place] = self._positions[place] = entry
            if entry != START:
                self._heard(place)

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def _waiting(self) -> None:
        while True:
            try:
                await self._wait_once()
            except EventsUnavailable:
                self._broken_at = self._clock.monotonic()
                await self._clock.sleep(_REST_S)  # the beat tells of it
            except Exception:  # the task's boundary: without it events would be found by the beat only
                self._log.exception("wait failed")
                await self._clock.sleep(_REST_S)

    async def _wait_once(self) -> None:
        """Until something came, or this process has other partitions to wait for."""
        self._changed.clear()
        changed = asyncio.create_task(self._changed.wait())
        places = sorted({place for member in self._members.values() for place in member.owned()})
        names = {stream_key(*place): place for place in places}
        tasks: list[asyncio.Task[Any]] = [changed]
        if names:
            positions = [self._positions.get(place, START) for place in places]
            command = ("XREAD", "COUNT", 1, "BLOCK", int(_WAIT_S * 1000), "STREAMS", *names, *positions)
            tenants = tuple(dict.fromkeys(tenant for tenant, _ in places))
            tasks.append(asyncio.create_task(self._asking.blocked(command, tenants, _WAIT_S)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = [task for task in tasks[1:] if task.done() and not task.cancelled()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            self._came(task.result(), names)

    def _came(self, reply: Any, names: Mapping[str, tuple[str, int]]) -> None:
        for name, entries in reply.items() if isinstance(reply, dict) else reply or ():
            place = names[text(name)]
            entry = text(entries[-1][0])
            # what has been read up to already was told when it was read
            if _after(entry, self._positions.get(place, START)):
                self._positions[place] = entry
                self._heard(place)

    def _heard(self, place: tuple[str, int]) -> None:
        for member in self._members.values():
            member.heard(*place)


def _after(entry: str, other: str) -> bool:
    """Is this entry of a stream the later one?"""
    return _numbers(entry) > _numbers(other)


def _numbers(entry: str) -> tuple[int, int]:
    ms, _, number = entry.partition("-")
    return int(ms), int(number or 0)
