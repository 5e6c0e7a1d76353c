"""Everything a store is asked for, once: for servers that are found, reached or permitted in different ways."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.key import CacheKey, entry_glob
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import START, Ears, EntryRow, LeadVerdict, Seen, Store, Verdict
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock

TAGS = ("jobs", "job:j1")
ETAG = "0123456789abcdef"
CLOCK = SystemClock()


@pytest.fixture
def exercise() -> Callable[[Store, str], Awaitable[None]]:
    """Awaits every operation of a store on one tenant, and says what each must answer."""
    return _exercise


async def _exercise(store: Store, tenant: str) -> None:
    call, key = Call.begin(CLOCK, "test", within_s=30.0), CacheKey(tenant, "p1", "jobs", "detail", "j1")
    await store.ping(call)
    heard_from = await store.renew_l1(tenant, "one", START, register=True, call=call)
    seen = await _filled(store, key, call)
    hit = await store.read(key, TAGS, "", want=True, call=call)
    assert (hit.verdict, hit.admitted, hit.value is None) == (Verdict.HIT, True, False)
    assert (await store.read(key, TAGS, ETAG, want=True, call=call)).verdict is Verdict.NOT_MODIFIED
    row = await store.inspect(key, call)
    assert row is not None
    assert [listed.key for listed in await _listed(store, key, call)] == [key.text]
    assert None not in await store.generations(tenant, TAGS, call)

    notice = Notice("job.updated", "job", "j1", "webhook", time.time(), "e1", "d1", {"job:j1": 1})
    applied = await store.append_and_bump(tenant, TAGS, notice, call)
    assert (applied.duplicate, applied.bumped) == (False, len(TAGS))
    assert (await store.append_and_bump(tenant, TAGS, notice, call)).duplicate
    assert applied.told.registered == 1
    assert "one" in await store.behind(tenant, applied.told.position, call)
    heard = await store.listen({tenant: Ears(heard_from.position, START)}, block_s=1.0)
    assert heard[tenant].changes[-1].tags == TAGS
    assert (await store.changes(tenant, heard_from.position, call))[-1].position == heard[tenant].changes[-1].position
    await store.strike(tenant, {"one": None}, call)
    assert "one" not in await store.behind(tenant, applied.told.position, call)
    assert [line.event_id for line in await store.log(tenant, limit=5, since=None, call=call)] == ["e1"]
    assert await store.rates(tenant, [int(time.time() // 3600)], call) != {}
    assert (await store.read(key, TAGS, "", want=True, dirty=True, call=call)).verdict is Verdict.DIRTY
    assert not await store.fill(key, TAGS, seen, _encoded(key, seen), ttl_s=60, admission_s=60, call=call)

    seen = await store.read(key, TAGS, "", want=True, call=call)
    assert (await store.lead(key, seen, "a", call=call)).verdict is LeadVerdict.LED
    assert (await store.lead(key, seen, "b", call=call)).verdict is LeadVerdict.FOLLOW
    assert await store.keep_lead(key, "a", call)
    await store.release(key, "a", result="failed", failures=1, throttle_s=1.0, call=call)
    heard = await store.listen({tenant: Ears(None, START)}, block_s=1.0)
    assert [wake.result for wake in heard[tenant].wakes] == ["failed"]

    admitted, guard = await store.admission(tenant, "p2", call)
    assert not admitted
    assert await store.admit(tenant, "p2", guard, admission_s=60, call=call)
    assert await store.withdraw(tenant, "p2", call)
    await store.add(tenant, {"hits": 2}, batch="process:1")
    assert await store.totals(tenant) == {"hits": 2}
    await _filled(store, key, call)
    await store.renew_epoch(tenant, call)
    assert (await store.read(key, TAGS, "", want=True, call=call)).verdict is Verdict.MISS
    await _filled(store, key, call)
    cursor, deleted = await store.delete_some(tenant, entry_glob(tenant), 0, call)
    while cursor:
        cursor, more = await store.delete_some(tenant, entry_glob(tenant), cursor, call)
        deleted += more
    assert deleted == 1


async def _filled(store: Store, key: CacheKey, call: Call) -> Seen:
    seen = await store.read(key, TAGS, "", want=True, call=call)
    assert await store.fill(key, TAGS, seen, _encoded(key, seen), ttl_s=60, admission_s=60, call=call)
    return seen


def _encoded(key: CacheKey, seen: Seen) -> bytes:
    return encode(Entry(b"{}", False, 1.0, ETAG), key_text=key.text, vector=seen.vector, tags=TAGS, compress=True)


async def _listed(store: Store, key: CacheKey, call: Call) -> list[EntryRow]:
    cursor, rows = await store.list_some(key.tenant, entry_glob(key.tenant), 0, call)
    while cursor:
        cursor, more = await store.list_some(key.tenant, entry_glob(key.tenant), cursor, call)
        rows += more
    return rows
