"""Where the road of changes meets the cache: appending an event and renewing its tags, counted; and what arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.notice import Applied
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.payloads import rfc3339
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.intake import WebhooksSeen
from jobnimbus_mcp.events.ports import Appended, Event
from jobnimbus_mcp.telemetry.tally import Tally

__all__ = ["AppendAndBump", "CountedInvalidations", "received"]

_LOOKED_BACK = 1_000
"""Entries of the log that are looked through for what has arrived; it is trimmed, and this is for people."""


class AppendAndBump:
    """The events' port over the cache's invalidator: one script appends the event and renews its tags."""

    def __init__(self, invalidator: Invalidator, tally: Tally) -> None:
        self._invalidator = invalidator
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
        )
        applied = await self._invalidator.append_and_bump(event.instance, event.tags, notice, call)
        self._tally.add(event.instance, "invalidations", entity=notice.resource)
        return Appended(applied.event_id, applied.duplicate, applied.latency_ms)


class CountedInvalidations:
    """The admin's invalidations, counted like those of webhooks."""

    def __init__(self, invalidator: Invalidator, tally: Tally) -> None:
        self._invalidator = invalidator
        self._tally = tally
        self.renew_epoch = invalidator.renew_epoch
        self.recent = invalidator.recent
        self.rates = invalidator.rates

    async def append_and_bump(self, tenant: str, tags: Any, notice: Notice, call: Call) -> Applied:
        applied = await self._invalidator.append_and_bump(tenant, tags, notice, call)
        self._tally.add(tenant, "invalidations")
        return applied

    async def invalidate_pattern(self, tenant: str, **what: Any) -> int:
        deleted = await self._invalidator.invalidate_pattern(tenant, **what)
        self._tally.add(tenant, "invalidations")
        return deleted


async def received(
    invalidator: Invalidator, seen: WebhooksSeen, instance: str, clock: Clock, request_id: str
) -> Mapping[str, Mapping[str, Any]]:
    """`{"jobs": {"count", "last_at" (RFC 3339)}}`: what has arrived at all replicas as the shared log has it; while
    that is away, at this process."""
    call = Call.begin(clock, request_id, tool="get_webhooks")
    try:
        rows = await invalidator.recent(instance, limit=_LOOKED_BACK, since=None, call=call)
    except CacheUnavailable:
        return {
            resource: {"count": told["count"], "last_at": rfc3339(told["last_at"])}
            for resource, told in seen.seen(instance).items()
        }
    arrived = [row for row in rows if row["source"] == "webhook"]
    counted = Counter(row["resource"] for row in arrived)
    last = {row["resource"]: row["at"] for row in reversed(arrived)}
    return {resource: {"count": n, "last_at": last[resource]} for resource, n in counted.items()}
