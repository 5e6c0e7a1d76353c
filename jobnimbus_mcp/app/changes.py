"""Where the road of changes meets the cache: appending an event and renewing its tags, counted; and what arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.payloads import rfc3339
from jobnimbus_mcp.crm.relations import floors_of_change
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.intake import WebhooksSeen
from jobnimbus_mcp.events.ports import Appended, Event
from jobnimbus_mcp.telemetry.tally import Tally

__all__ = ["AppendAndBump", "CountedInvalidations", "received"]

_LOOKED_BACK = 1_000
"""Entries of the log that are looked through for what has arrived; it is trimmed, and this is for people."""


class _Told(Protocol):
    """The accounts' invalidations, as far as changes need them; `app.accounts.Accounts`."""

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied: ...

    async def defer(self, tenant: str, tags: Sequence[str], notice: Notice) -> bool: ...


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


class AppendAndBump:
    """The events' port over the accounts' invalidations: one script appends the event and renews its tags. Where the
    store cannot be told, the journal takes the event over."""

    def __init__(self, invalidations: _Told, tally: Tally) -> None:
        self._invalidations = invalidations
        self._tally = tally

    async def __call__(self, event: Event, call: Call) -> Appended:
        notice = Notice(
            event=event.name,
            resource=event.change.ref.entity.value,
            resource_id=event.change.ref.jnid,
            source=event.source,
            received_at=event.received_at,
            event_id=event.event_id,
            dedupe_key=event.dedupe_key,
            floors=floors_of_change(event.change),
        )
        appended = await self._appended(event, notice, call)
        self._tally.add(event.instance, "invalidations", entity=notice.resource)
        return appended

    async def _appended(self, event: Event, notice: Notice, call: Call) -> Appended:
        try:
            applied = await self._invalidations.append_and_bump(event.instance, event.tags, notice, call)
        except CacheUnavailable:
            # Nothing may be awaited between: the store's guard pays in its own way for what it is not told to defer.
            if not await self._invalidations.defer(event.instance, event.tags, notice):
                raise
            return Appended(event.event_id, False, 0.0, journalled=True)
        return Appended(applied.event_id, applied.duplicate, applied.latency_ms)


class CountedInvalidations:
    """The admin's invalidations, counted like those of webhooks."""

    def __init__(self, invalidations: _Administered, tally: Tally) -> None:
        self._invalidations = invalidations
        self._tally = tally
        self.renew_epoch = invalidations.renew_epoch
        self.recent = invalidations.recent
        self.rates = invalidations.rates

    async def append_and_bump(self, tenant: str, tags: Any, notice: Notice, call: Call) -> Applied:
        applied = await self._invalidations.append_and_bump(tenant, tags, notice, call)
        self._tally.add(tenant, "invalidations")
        return applied

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
