"""Where the road of changes meets the cache: appending an event and renewing its tags, counted; and what arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from jobnimbus_mcp.cache.notice import Applied, Notice, Parcel
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, is_jnid
from jobnimbus_mcp.crm.payloads import rfc3339
from jobnimbus_mcp.crm.relations import floors_of_change
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.intake import WebhooksSeen
from jobnimbus_mcp.events.ports import Appended, Routes
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.telemetry.tally import Tally

__all__ = ["AppendAndBump", "CountedInvalidations", "Way", "received"]

_CAUGHT_UP_S = 0.5
"""How long an event waits for those in the journal, and its sender for it when it went there: the next event of the
record may be sent to another process, and must not overtake it. A store that is away for longer opens its breaker, and
then nobody waits."""

_LOOKED_BACK = 1_000
"""Entries of the log that are looked through for what has arrived; it is trimmed, and this is for people."""


class _Told(Protocol):
    """The accounts' invalidations, as far as changes need them; `app.accounts.Accounts`."""

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied: ...

    async def defer(self, tenant: str, tags: Sequence[str], notice: Notice) -> bool: ...

    async def caught_up(self, tenant: str, within_s: float) -> None: ...


class _Remembered(Protocol):
    """The log of invalidations; `app.accounts.Accounts`."""

    async def recent(
        self, tenant: str, *, limit: int, since: float | None, call: Call | None = None
    ) -> list[dict[str, Any]]: ...


class _Administered(_Remembered, Protocol):
    """The accounts' invalidations, as far as admins need them; `app.accounts.Accounts`."""

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied: ...

    async def renew_epoch(self, tenant: str, call: Call, *, reason: str) -> None: ...

    async def invalidate_pattern(self, tenant: str, pattern: str, notice: Notice, call: Call) -> int: ...

    async def rates(self, tenant: str, hours: int = 24, *, call: Call | None = None) -> dict[str, Any]: ...


class Way(Protocol):
    """How an account's events get into their log."""

    def parcel(self, event: Event, routes: Routes) -> Parcel | None:
        """What the store appends in the same step as it invalidates; None where the log is not in the store."""
        ...

    async def appended(self, event: Event, routes: Routes) -> bool:
        """The event is durable when this returns: True in its log, False on this machine's disk, on its way there.

        To be called once the invalidation holds, and again for each duplicate.

        Raises:
            EventsUnavailable: it is neither.
        """
        ...


class AppendAndBump:
    """The events' port over the accounts' invalidations: one script appends the event and renews its tags. Where the
    store cannot be told, the journal takes the event over."""

    def __init__(
        self,
        invalidations: _Told,
        ways: Mapping[str, Way],
        routes_of: Callable[[Event], Routes],
        *,
        tally: Tally,
        recorder: Recorder,
    ) -> None:
        self._invalidations = invalidations
        self._ways = ways
        self._routes_of = routes_of
        self._tally = tally
        self._recorder = recorder

    async def __call__(self, event: Event, call: Call) -> Appended:
        """As `events.ports.AppendAndBump`."""
        return await self.told(event, call)

    async def told(self, event: Event, call: Call, *, by_admin: bool = False) -> Appended:
        """As `__call__`. `by_admin`: not for the journal, since an admin asks again; and counted by whoever calls."""
        way, routes = self._ways[event.instance], self._routes_of(event)
        change = event.change
        notice = Notice(
            event=event.name,
            resource=event.entity,
            resource_id=event.record_id,
            source=event.source,
            received_at=event.received_at,
            event_id=event.event_id,
            dedupe_key=event.dedupe_key,
            version_key=event.version_key,
            floors={} if change is None else floors_of_change(change),
            parcel=way.parcel(event, routes),
        )
        appended = await self._appended(event, routes, way, notice, call, deferred=not by_admin)
        if not by_admin:
            self._tally.add(event.instance, "invalidations", entity=event.entity)
        outcome = "duplicate" if appended.duplicate else "journalled" if appended.journalled else "appended"
        self._recorder.count("events", source=event.source, outcome=outcome)
        return appended

    async def _appended(
        self, event: Event, routes: Routes, way: Way, notice: Notice, call: Call, *, deferred: bool
    ) -> Appended:
        await self._invalidations.caught_up(event.instance, _CAUGHT_UP_S)
        try:
            applied = await self._invalidations.append_and_bump(event.instance, event.tags, notice, call)
        except CacheUnavailable:
            # Nothing may be awaited between: the store's guard pays in its own way for what it is not told to defer.
            if not deferred or not await self._invalidations.defer(event.instance, event.tags, notice):
                raise
            if notice.parcel is None:
                # The journal knows of the invalidation alone, and the log may be there although the store is not.
                await way.appended(event, routes)
            await self._invalidations.caught_up(event.instance, _CAUGHT_UP_S)
            return Appended(event.event_id, False, 0.0, journalled=True)
        known = event if applied.event_id == event.event_id else replace(event, event_id=applied.event_id)
        logged = await way.appended(known, routes)
        return Appended(applied.event_id, applied.duplicate, applied.latency_ms, journalled=not logged)


class CountedInvalidations:
    """The admin's invalidations, counted like those of webhooks, and events like those."""

    def __init__(
        self, invalidations: _Administered, tally: Tally, append: AppendAndBump, event_id: Callable[[], str]
    ) -> None:
        self._invalidations = invalidations
        self._tally = tally
        self._append = append
        self._event_id = event_id
        self.renew_epoch = invalidations.renew_epoch
        self.recent = invalidations.recent
        self.rates = invalidations.rates

    async def append_and_bump(self, tenant: str, tags: Any, notice: Notice, call: Call) -> Applied:
        event = Event(
            event_id=self._event_id(),
            instance=tenant,
            name=notice.event,
            entity=notice.resource,
            record_id=notice.resource_id if is_jnid(notice.resource_id) else "",
            action=Action.UNKNOWN.value,
            tags=tuple(tags),
            source=notice.source,
            received_at=notice.received_at,
            request_id=call.request_id,
        )
        appended = await self._append.told(event, call, by_admin=True)
        self._tally.add(tenant, "invalidations")
        return Applied(appended.event_id, appended.duplicate, appended.latency_ms, len(event.tags))

    async def invalidate_pattern(self, tenant: str, **what: Any) -> int:
        deleted = await self._invalidations.invalidate_pattern(tenant, **what)
        self._tally.add(tenant, "invalidations")
        return deleted


async def received(
    invalidations: _Remembered, seen: WebhooksSeen, instance: str, clock: Clock, request_id: str
) -> Mapping[str, Mapping[str, Any]]:
    """`{"jobs": {"count", "last_at" (RFC 3339)}}`: what has arrived at all replicas as the shared log has it; while
    that is away, at this process."""
    call = Call.begin(clock, request_id, tool="get_webhooks")
    try:
        rows = await invalidations.recent(instance, limit=_LOOKED_BACK, since=None, call=call)
    except CacheUnavailable:
        return {
            resource: {"count": told["count"], "last_at": rfc3339(told["last_at"])}
            for resource, told in seen.seen(instance).items()
        }
    arrived = [row for row in rows if row["source"] == "webhook"]
    counted = Counter(row["resource"] for row in arrived)
    last = {row["resource"]: row["at"] for row in reversed(arrived)}
    return {resource: {"count": n, "last_at": last[resource]} for resource, n in counted.items()}
