"""Making what is kept invalid, and telling what has been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.key import glob_within
from jobnimbus_mcp.cache.notice import Applied, Notice, Told
from jobnimbus_mcp.cache.ports import EVERYTHING, RATES_S, START, Store
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Applied", "Invalidator", "Notice"]

_DELETE_STEPS = 20_000
"""Bounds a deletion by pattern: some ten million keys. Reaching it is a defect of the pattern, not a way of life."""


class Invalidator:
    """Invalidates through the store; every method raises `CacheUnavailable` when the store cannot be told.

    With a guarded store, an invalidation that could not be told leaves a debt: nothing of the tenant is read from the
    store again before everything of it has been invalidated.

    `barrier`: an invalidation returns when no process serves anything older from L1 any more; with `wait=False` as soon
    as nothing older is served from the store. None: no L1 is trusted anywhere.
    """

    def __init__(self, store: Store, *, clock: Clock, recorder: Recorder, barrier: Barrier | None = None) -> None:
        self._store = store
        self._clock = clock
        self._recorder = recorder
        self._barrier = barrier

    async def append_and_bump(
        self,
        tenant: str,
        tags: Sequence[str],
        notice: Notice,
        call: Call,
        *,
        tells: Sequence[str] = (),
        wait: bool = True,
    ) -> Applied:
        """Make every entry with one of these tags invalid and note it in the log; a duplicate only invalidates.

        `tells`: what else has become dirty in L1. The latency told includes the wait.

        Raises:
            CacheUnavailable: the store could not be told.
        """
        applied = await self._store.append_and_bump(tenant, tuple(dict.fromkeys(tags)), notice, call, tells=tells)
        if wait:
            waited_ms = await self._everywhere(tenant, applied.told, call)
            applied = replace(applied, latency_ms=round(applied.latency_ms + waited_ms, 3))
        if not notice.quiet:
            self._recorder.count("cache_invalidations", entity=notice.resource, source=notice.source)
        return applied

    async def renew_epoch(self, tenant: str, call: Call, *, reason: str, wait: bool = True) -> None:
        """Make everything of the tenant invalid, in one step.

        Raises:
            CacheUnavailable: the store could not be told.
        """
        told = await self._store.renew_epoch(tenant, call)
        if wait:
            await self._everywhere(tenant, told, call)
        self._recorder.count("cache_epoch_renewals", reason=reason)

    async def invalidate_pattern(
        self, tenant: str, pattern: str, notice: Notice, call: Call, *, wait: bool = True
    ) -> int:
        """Scan and delete the entries that match; how many there were. `pattern` is over `<partition>:<entity>:
        <operation>:<identifier>`: `*` (also over colons) and `?` are wild, all else is literal.

        What is being fetched meanwhile is not kept, so nothing that was deleted comes back with a late fill. L1 knows
        no patterns: everything of the tenant becomes dirty there.

        Raises:
            CacheUnavailable: the store failed on the way; some may be deleted.
        """
        glob = glob_within(tenant, pattern)
        deleted, cursor = 0, 0
        for _ in range(_DELETE_STEPS):
            cursor, number = await self._store.delete_some(tenant, glob, cursor, call)
            deleted += number
            if cursor == 0:
                break
        await self.append_and_bump(tenant, (), notice, call, tells=(EVERYTHING,), wait=wait)
        return deleted

    async def _everywhere(self, tenant: str, told: Told, call: Call) -> float:
        """Return when no L1 serves anything older: the milliseconds that took."""
        if self._barrier is None:
            return 0.0
        began = self._clock.monotonic()
        await self._barrier.passed(tenant, told, call)
        return (self._clock.monotonic() - began) * 1000

    async def everywhere(self, tenant: str, call: Call) -> None:
        """Return when no L1 serves anything that was invalidated before this was called.

        Raises:
            CacheUnavailable: the store could not be asked.
        """
        if self._barrier is None:
            return
        standing = await self._store.renew_l1(tenant, "", START, register=False, call=call)
        await self._barrier.passed(tenant, Told(standing.position, registered=1), call)

    async def recent(
        self, tenant: str, *, limit: int, since: float | None, call: Call | None = None
    ) -> list[dict[str, Any]]:
        """The log, newest first, none older than `since` (wall seconds); `at` is RFC 3339 in UTC."""
        rows = await self._store.log(tenant, limit=limit, since=since, call=call or Call.begin(self._clock, "listing"))
        return [
            {
                "eventId": row.event_id,
                "event": row.event,
                "resource": row.resource,
                "resourceId": row.resource_id,
                "tags": list(row.tags),
                "latencyMs": row.latency_ms,
                "source": row.source,
                "at": _rfc3339(row.at),
            }
            for row in rows
        ]

    async def rates(self, tenant: str, hours: int = 24, *, call: Call | None = None) -> dict[str, Any]:
        """Invalidations of the last `hours` hours (at most 48 are kept), newest hour first, by entity and by source."""
        newest = int(self._clock.now() // 3600)
        asked = [newest - back for back in range(min(max(hours, 1), RATES_S // 3600))]
        counted = await self._store.rates(tenant, asked, call or Call.begin(self._clock, "listing"))
        rows: list[dict[str, Any]] = []
        all_entities: Counter[str] = Counter()
        all_sources: Counter[str] = Counter()
        for hour in sorted(counted, reverse=True):
            entities: Counter[str] = Counter()
            sources: Counter[str] = Counter()
            for field, number in counted[hour].items():
                entity, _, source = field.partition("|")
                entities[entity] += number
                sources[source] += number
            all_entities.update(entities)
            all_sources.update(sources)
            rows.append(
                {
                    "hour": _rfc3339(hour * 3600),
                    "total": sum(entities.values()),
                    "byEntity": dict(entities),
                    "bySource": dict(sources),
                }
            )
        return {
            "hours": rows,
            "total": sum(all_entities.values()),
            "byEntity": dict(all_entities),
            "bySource": dict(all_sources),
        }


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
