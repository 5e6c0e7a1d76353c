"""Why an entry is what it is: its tags' generations then and now, and the changes that made them differ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jobnimbus_mcp.cache.codec import peek
from jobnimbus_mcp.cache.holding import Holding
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.plan import CLOCKS_APART_S
from jobnimbus_mcp.cache.ports import Store
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock

__all__ = ["explain"]

_LINES_TOLD = 20
_LINES_READ = 1_000


async def explain(store: Store, holding: Holding, clock: Clock, key_text: str, call: Call) -> dict[str, Any] | None:
    """What is known of the entry under `key_text`; None when there is none. `state`: fresh; stale (kept beyond its
    lifetime); dirty (a generation has changed or is missing); expired (about to go).

    Raises:
        CacheUnavailable: the store is away.
    """
    key = CacheKey.parse(key_text)
    row = None if key is None else await store.inspect(key, call)
    head = None if row is None else peek(row.head)
    if key is None or row is None or head is None:
        return None
    now_text = [_text(value) for value in await store.generations(key.tenant, head.tags, call)]
    then_text: list[str | None] = [line.decode("utf-8", "replace") for line in head.vector.split(b"\n")]
    then_text += [None] * (len(now_text) - len(then_text))
    tags = [
        {"tag": tag, "thenGeneration": then, "nowGeneration": now, "changed": then != now}
        for tag, then, now in zip(head.tags, then_text[1:], now_text[1:], strict=False)
    ]
    epoch = {"then": then_text[0], "now": now_text[0], "changed": then_text[0] != now_text[0]}
    changed = {str(tag["tag"]) for tag in tags if tag["changed"]}
    fresh_left_s = head.fresh_s - head.kept_s + row.ttl_s
    held, clean = holding.is_clean(key.tenant, key_text)
    return {
        "key": key_text,
        "ageSeconds": round(max(0.0, clock.now() - head.fetched_at), 3),
        "ttlSeconds": round(max(0.0, fresh_left_s), 3),
        "sizeBytes": row.size_bytes,
        "state": _state(bool(changed) or bool(epoch["changed"]), fresh_left_s, row.ttl_s),
        "tags": tags,
        "epoch": epoch,
        "dirtiedBy": await _dirtied_by(store, key.tenant, changed, head.fetched_at, call) if changed else [],
        "l1": {"held": held, "clean": clean},
    }


def _state(dirty: bool, fresh_left_s: float, ttl_s: float) -> str:
    if dirty:
        return "dirty"
    if fresh_left_s > 0:
        return "fresh"
    return "stale" if ttl_s > 0 else "expired"


async def _dirtied_by(
    store: Store, tenant: str, changed: set[str], fetched_at: float, call: Call
) -> list[dict[str, Any]]:
    rows = await store.log(tenant, limit=_LINES_READ, since=fetched_at - CLOCKS_APART_S, call=call)
    return [
        {
            "eventId": row.event_id,
            "event": row.event,
            "resource": row.resource,
            "resourceId": row.resource_id,
            "source": row.source,
            "at": datetime.fromtimestamp(row.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "tags": list(row.tags),
        }
        for row in rows
        if changed.intersection(row.tags)
    ][:_LINES_TOLD]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
