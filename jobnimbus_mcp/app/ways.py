"""The ways of an event into its log: in the store's own step, after it, or into a log elsewhere."""

from __future__ import annotations

from typing import Protocol

from jobnimbus_mcp.app.keeping import Keeper
from jobnimbus_mcp.cache.notice import Parcel
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import EventLog, EventsUnavailable, Routes

__all__ = ["AfterTheStore", "Elsewhere", "WithTheStore"]


class _InTheStore(EventLog, Protocol):
    """A log whose append the store can make in the step of an invalidation; `events.log_redis.RedisEvents`."""

    def parcel(self, event: Event, routes: Routes) -> tuple[list[str], list[str | bytes | int]]: ...


class WithTheStore:
    """The store appends in the step of the invalidation; where it may forget, there is a copy on the disk besides."""

    def __init__(self, log: _InTheStore, keeper: Keeper) -> None:
        self._log = log
        self._keeper = keeper

    def parcel(self, event: Event, routes: Routes) -> Parcel:
        keys, args = self._log.parcel(event, routes)
        return Parcel(tuple(keys), tuple(arg.decode() if isinstance(arg, bytes) else str(arg) for arg in args))

    async def appended(self, event: Event, routes: Routes) -> bool:
        if not await self._durable():
            await self._keeper.guard(event, routes)
        return True

    async def _durable(self) -> bool:
        try:
            return await self._log.durable()
        except EventsUnavailable:
            return False


class AfterTheStore:
    """A log in this process, which ends with it like the store."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def parcel(self, event: Event, routes: Routes) -> None:
        return None

    async def appended(self, event: Event, routes: Routes) -> bool:
        await self._log.append(event, routes)
        return True


class Elsewhere:
    """A log that is not in the store: appended to once the invalidation holds; while it is away, by way of the disk."""

    def __init__(self, log: EventLog, keeper: Keeper) -> None:
        self._log = log
        self._keeper = keeper

    def parcel(self, event: Event, routes: Routes) -> None:
        return None

    async def appended(self, event: Event, routes: Routes) -> bool:
        if not self._keeper.waits(event.instance):
            try:
                await self._log.append(event, routes)
            except EventsUnavailable:
                pass  # counted and told where it is kept
            else:
                return True
        await self._keeper.ship(event, routes)
        return False
