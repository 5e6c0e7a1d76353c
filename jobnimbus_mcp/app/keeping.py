"""Copies of events on the local disk: for a Redis that forgets when it stops, and while a log cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.cache.journal import Journal, JournalError, Kept, Line
from jobnimbus_mcp.cache.notice import Notice, Parcel
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event, decode, encode
from jobnimbus_mcp.events.ports import EventLog, EventsUnavailable, Routes
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["KEEP_EVERY_S", "Keeper"]

KEEP_EVERY_S = 1.0
"""How often it is looked whether copies are still needed; events live for seconds."""

KEPT_WITHIN_S = 2.0
"""A disk that takes longer is no better than none: the sender is asked to come again."""

_ADOPT_EVERY_S = 5.0
_END_WITHIN_S = 0.5
_ASKED_AT_ONCE = 500
_SHIP, _GUARD = "ship", "guard"


@dataclass(slots=True)
class _Copy:
    """`token`: of the log when it was last asked about the event; "" before. It cannot be told from another answer: the
    log may have forgotten everything in between."""

    kept: Kept
    event: Event
    routes: Routes
    token: str = ""


class Keeper:
    """Copies of events of all accounts, each until its log no longer needs it.

    A copy to *ship* is appended to the log as soon as that answers, the oldest first and one after the other, so that
    one record's events keep their order. A copy to *guard* is of an event that is in a log which may forget: when the
    log's token is another one, the event is appended again unless it is there. `logs`: by account.
    """

    def __init__(
        self,
        journal: Journal,
        logs: Mapping[str, EventLog],
        *,
        clock: Clock,
        recorder: Recorder,
        log: FilteringBoundLogger,
    ) -> None:
        self._journal = journal
        self._logs = logs
        self._clock = clock
        self._recorder = recorder
        self._log = log
        self._shipping: dict[str, dict[str, _Copy]] = {}
        self._guarded: dict[str, dict[str, _Copy]] = {}
        self._wake = asyncio.Event()
        self._looking = asyncio.Lock()
        self._writing: set[asyncio.Task[JournalError | None]] = set()

    def waits(self, instance: str) -> bool:
        """Events of the account wait to be appended: what comes now must not overtake them."""
        return bool(self._shipping.get(instance))

    @property
    def counts(self) -> Mapping[str, int]:
        """How many copies there are: to ship and to guard."""
        return {
            _SHIP: sum(map(len, self._shipping.values())),
            _GUARD: sum(map(len, self._guarded.values())),
        }

    async def ship(self, event: Event, routes: Routes) -> None:
        """On the disk when it returns, and in the log before long.

        Raises:
            EventsUnavailable: it is not on the disk either.
        """
        if event.event_id not in self._shipping.get(event.instance, ()):
            await self._keep(event, routes, _SHIP)
        self._wake.set()

    async def guard(self, event: Event, routes: Routes) -> None:
        """The event is in the log; on the disk too when this returns, until every consumer is done.

        Raises:
            EventsUnavailable: it is not on the disk.
        """
        if event.event_id not in self._guarded.get(event.instance, ()):
            await self._keep(event, routes, _GUARD)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Adopt what dead processes have left, ship and look in the background. What is left at the end, whoever comes
        next adopts."""
        await self._adopt()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._for_ever()), loop.create_task(self._adopt_for_ever())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                async with asyncio.timeout(_END_WITHIN_S):
                    await self._journal.aclose()
            except (TimeoutError, JournalError) as error:
                self._log.warning("copies of events cannot be closed", error=type(error).__name__)
            for writing in self._writing:
                writing.cancel()
            await asyncio.gather(*self._writing, return_exceptions=True)

    async def _keep(self, event: Event, routes: Routes, kind: str) -> None:
        notice = Notice(
            event=event.name,
            resource=event.entity,
            resource_id=event.record_id,
            source=event.source,
            received_at=event.received_at,
            event_id=event.event_id,
            parcel=Parcel((), (encode(event).decode(), event.body, orjson.dumps(routes).decode())),
        )
        line = Line(event.instance, (kind,), notice)
        writing = asyncio.get_running_loop().create_task(self._written(line, event, routes))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.wait({writing}, timeout=KEPT_WITHIN_S)
        error = writing.result() if writing.done() else TimeoutError()
        if error is not None:
            self._recorder.count("journal", outcome="refused")
            self._log.error("events cannot be kept on the disk", error=type(error).__name__)
            raise EventsUnavailable("no room on the disk") from error

    async def _written(self, line: Line, event: Event, routes: Routes) -> JournalError | None:
        """Why it is not on the disk. Goes on when nobody waits any more: what is there must be known, to be removed."""
        try:
            kept = await self._journal.append(line)
        except JournalError as error:
            return error
        self._recorder.count("journal", outcome="kept")
        if not self._have(line.tags[0], _Copy(kept, event, routes)):  # its duplicate was quicker
            await self._drop([kept])
        return None

    def _have(self, kind: str, copy: _Copy) -> bool:
        """False when there is a copy of the event already."""
        copies = self._shipping if kind == _SHIP else self._guarded
        event = copy.event
        return copies.setdefault(event.instance, {}).setdefault(event.event_id, copy) is copy

    async def _adopt_for_ever(self) -> None:
        while True:
            await self._clock.sleep(_ADOPT_EVERY_S)
            await self._adopt()

    async def _adopt(self) -> None:
        try:
            async with asyncio.timeout(KEPT_WITHIN_S):
                found = await self._journal.adopt()
        except (TimeoutError, JournalError) as error:
            self._log.error("copies of events cannot be read", error=type(error).__name__)
            return
        await self._drop([kept for kept in found if not self._adopted(kept)])
        if found:
            self._log.warning("copies of events adopted", lines=len(found))
            self._wake.set()

    def _adopted(self, kept: Kept) -> bool:
        """False for a line that is not needed: of nothing that could be read, or a second one of an event."""
        line = kept.line
        self._recorder.count("journal", outcome="adopted")
        try:
            if line.notice is None or line.notice.parcel is None:
                raise ValueError("no event")
            (kind, *_), (envelope, body, to) = line.tags, line.notice.parcel.args
            event = decode(envelope, body)
            routes = {str(name): float(due_at) for name, due_at in orjson.loads(to).items()}
        except (ValueError, TypeError, AttributeError):
            self._recorder.count("journal", outcome="damaged")
            self._log.error("a copy of an event cannot be read", instance=line.tenant)
            # Left on the disk, a damaged line would keep all that is done with in its file coming back. One that is
            # whole was written by another release, which may be the next one here.
            return line.notice is not None
        return self._have(kind, _Copy(kept, event, routes))

    async def _for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            waits = (loop.create_task(self._clock.sleep(KEEP_EVERY_S)), loop.create_task(self._woken()))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            await self.look()

    async def look(self) -> None:
        """Append what is to be shipped, and what a log has forgotten; drop what is no longer needed. Copies whose log
        is away stay as they are."""
        async with self._looking:
            for instance in dict.fromkeys((*self._shipping, *self._guarded)):
                try:
                    await self._shipped(instance)
                    await self._looked(instance)
                except CacheUnavailable:
                    continue  # the log says so where it is read
                except Exception as error:  # the boundary of a background task: a defect must not end it
                    self._log.error("copies of events failed", error=type(error).__name__, exc_info=True)

    async def _woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    async def _shipped(self, instance: str) -> None:
        copies = self._shipping.get(instance, {})
        for copy in sorted(copies.values(), key=lambda copy: copy.event.received_at):
            await self._logs[instance].append(copy.event, copy.routes)
            self._recorder.count("journal", outcome="applied")
            await self._drop([copy.kept])
            del copies[copy.event.event_id]

    async def _looked(self, instance: str) -> None:
        copies = self._guarded.get(instance, {})
        asked = sorted(copies, key=lambda event_id: copies[event_id].event.received_at)
        for start in range(0, len(asked), _ASKED_AT_ONCE):
            ids = asked[start : start + _ASKED_AT_ONCE]
            token, lives = await self._logs[instance].standing(instance, ids)
            done: list[str] = []
            for event_id in ids:
                copy = copies[event_id]
                if lives.get(event_id, False):
                    copy.token = token
                elif copy.token == token:
                    done.append(event_id)
                else:
                    # It was in a log that has forgotten since; whether it was done by then, nobody knows any more.
                    await self._logs[instance].append(copy.event, copy.routes)
                    self._recorder.count("journal", outcome="applied")
                    copy.token = token
            await self._drop([copies.pop(event_id).kept for event_id in done])

    async def _drop(self, kept: Sequence[Kept]) -> None:
        if not kept:
            return
        try:
            async with asyncio.timeout(KEPT_WITHIN_S):
                await self._journal.drop(kept)
        except (TimeoutError, JournalError) as error:
            # They come back with the next process, and are found to be done.
            self._log.warning("copies of events cannot be removed", error=type(error).__name__)
