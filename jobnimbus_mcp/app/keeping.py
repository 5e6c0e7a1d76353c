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
    """`token`: of the log when the event was last seen there; "" for one that was not yet."""

    kept: Kept
    event: Event
    routes: Routes
    token: str


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
        self._tokens: dict[str, str] = {}
        self._wake = asyncio.Event()

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
        await self._keep(event, routes, _SHIP, "")
        self._wake.set()

    async def guard(self, event: Event, routes: Routes) -> None:
        """The event is in the log; on the disk too when this returns, until every consumer is done.

        Raises:
            EventsUnavailable: it is not on the disk.
        """
        instance = event.instance
        if event.event_id in self._guarded.get(instance, ()):
            return
        await self._keep(event, routes, _GUARD, await self._token(instance))

    async def _token(self, instance: str) -> str:
        """The log's; "" when it cannot be asked now: then the event may be appended once more than was needed."""
        if instance not in self._tokens:
            try:
                self._tokens[instance], _ = await self._logs[instance].standing(instance, ())
            except CacheUnavailable:
                return ""
        return self._tokens[instance]

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

    async def _keep(self, event: Event, routes: Routes, kind: str, token: str) -> None:
        notice = Notice(
            event=event.name,
            resource=event.entity,
            resource_id=event.record_id,
            source=event.source,
            received_at=event.received_at,
            event_id=event.event_id,
            parcel=Parcel((), (encode(event).decode(), event.body, orjson.dumps(routes).decode())),
        )
        try:
            async with asyncio.timeout(KEPT_WITHIN_S):
                kept = await self._journal.append(Line(event.instance, (kind, token), notice))
        except (TimeoutError, JournalError) as error:
            self._recorder.count("journal", outcome="refused")
            self._log.error("events cannot be kept on the disk", error=type(error).__name__)
            raise EventsUnavailable("no room on the disk") from error
        self._recorder.count("journal", outcome="kept")
        copies = self._shipping if kind == _SHIP else self._guarded
        copies.setdefault(event.instance, {})[event.event_id] = _Copy(kept, event, routes, token)

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
        for kept in found:
            self._adopted(kept)
        if found:
            self._log.warning("copies of events adopted", lines=len(found))
            self._wake.set()

    def _adopted(self, kept: Kept) -> None:
        line = kept.line
        self._recorder.count("journal", outcome="adopted")
        try:
            if line.notice is None or line.notice.parcel is None:
                raise ValueError("no event")
            (kind, token), (envelope, body, to) = line.tags, line.notice.parcel.args
            event = decode(envelope, body)
            routes = {str(name): float(due_at) for name, due_at in orjson.loads(to).items()}
        except ValueError:
            # Its bytes are whole or it would not have come so far: another release wrote it.
            self._recorder.count("journal", outcome="damaged")
            self._log.error("a copy of an event cannot be read", instance=line.tenant)
            return
        copies = self._shipping if kind == _SHIP else self._guarded
        copies.setdefault(line.tenant, {}).setdefault(event.event_id, _Copy(kept, event, routes, token))

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
            for instance in (*self._shipping, *self._guarded):
                try:
                    await self._shipped(instance)
                    await self._looked(instance)
                except CacheUnavailable:
                    continue  # the log says so where it is read; the copies stay
                except Exception as error:  # the boundary of a background task: a defect must not end it
                    self._log.error("copies of events failed", error=type(error).__name__, exc_info=True)

    async def _woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    async def _shipped(self, instance: str) -> None:
        copies = self._shipping.get(instance, {})
        for event_id in sorted(copies):
            copy = copies[event_id]
            await self._logs[instance].append(copy.event, copy.routes)
            self._recorder.count("journal", outcome="applied")
            await self._drop([copy.kept])
            del copies[event_id]

    async def _looked(self, instance: str) -> None:
        copies = self._guarded.get(instance, {})
        asked = sorted(copies)
        for start in range(0, len(asked), _ASKED_AT_ONCE):
            ids = asked[start : start + _ASKED_AT_ONCE]
            token, lives = await self._logs[instance].standing(instance, ids)
            self._tokens[instance] = token
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
            await self._journal.drop(kept)
        except JournalError as error:
            # They come back after a crash, and are found to be done.
            self._log.warning("copies of events cannot be removed", error=type(error).__name__)
