"""What is kept, for whoever runs the server: entries found by a bounded scan, with this process's hits."""

from __future__ import annotations

from typing import Any

from jobnimbus_mcp.cache.codec import peek
from jobnimbus_mcp.cache.key import CacheKey, entry_glob
from jobnimbus_mcp.cache.ports import Store
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock

__all__ = ["HitCounts", "list_entries"]

_SCAN_STEPS = 400
"""Bounds one listing of a large store; a listing is for looking, not for counting."""

_COUNTED_KEYS = 20_000


class HitCounts:
    """Hits per key in this process; the oldest keys are forgotten beyond a bound."""

    def __init__(self, most: int = _COUNTED_KEYS) -> None:
        self._most = most
        self._counts: dict[str, int] = {}

    def add(self, key_text: str) -> None:
        counts = self._counts
        counts[key_text] = counts.get(key_text, 0) + 1
        if len(counts) > self._most:
            del counts[next(iter(counts))]

    def of(self, key_text: str) -> int:
        return self._counts.get(key_text, 0)


async def list_entries(
    store: Store,
    clock: Clock,
    hits: HitCounts,
    tenant: str,
    *,
    entity: str | None,
    operation: str | None,
    limit: int,
    call: Call,
) -> list[dict[str, Any]]:
    """At most `limit` entries in no particular order; None for any entity or operation.

    Raises:
        CacheUnavailable: the store is away.
    """
    glob = entry_glob(tenant, entity=entity or "*", operation=operation or "*")
    now, cursor = clock.now(), 0
    found: dict[str, dict[str, Any]] = {}
    for _ in range(_SCAN_STEPS):
        cursor, rows = await store.list_some(tenant, glob, cursor, call)
        for row in rows:
            key, head = CacheKey.parse(row.key), peek(row.head)
            if key is None or head is None:
                continue
            # A star in the glob matches colons as well, so the parts are compared again.
            if (entity and key.entity != entity) or (operation and key.operation != operation):
                continue
            fresh_left_s = head.fresh_s - head.kept_s + row.ttl_s
            found[row.key] = {
                "key": row.key,
                "ageSeconds": round(max(0.0, now - head.fetched_at), 3),
                "ttlSeconds": round(max(0.0, fresh_left_s), 3),
                "sizeBytes": row.size_bytes,
                "tags": list(head.tags),
                "hits": hits.of(row.key),
            } | ({"stale": True} if fresh_left_s <= 0 else {})
        if cursor == 0 or len(found) >= limit:
            break
    return list(found.values())[:limit]
