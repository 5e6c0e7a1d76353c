"""What is the embedded store's own: its bound, its failures on demand, a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import (
    START,
    Ears,
    LeadVerdict,
    Seen,
    StoreError,
    StoreOutOfMemory,
    StoreReadOnly,
    StoreTimeout,
    StoreUnreachable,
    Verdict,
    order,
)
from jobnimbus_mcp.cache.store_memory import FailMode, MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock

T = "stamford"
KEY = CacheKey(T, "p1", "jobs", "detail", "j1")
TAGS = ("jobs",)
Operation = Callable[[MemoryStore, Seen], Awaitable[Any]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


def call() -> Call:
    return Call.begin(ManualClock(), "test")


def notice(event_id: str = "e1") -> Notice:
    return Notice("job.updated", "job", "j1", "webhook", ManualClock().now(), event_id)


async def look(store: MemoryStore) -> Seen:
    return await store.read(KEY, TAGS, "", want=True, call=call())


READS: dict[str, Operation] = {
    "changes": lambda store, seen: store.changes(T, START, call()),
    "listen": lambda store, seen: store.listen({T: Ears(START, START)}, block_s=1),
    "behind": lambda store, seen: store.behind(T, START, call()),
    "inspect": lambda store, seen: store.inspect(KEY, call()),
    "generations": lambda store, seen: store.generations(T, TAGS, call()),
    "renew_l1": lambda store, seen: store.renew_l1(T, "i1", START, register=False, call=call()),
}
WRITES: dict[str, Operation] = {
    "lead": lambda store, seen: store.lead(KEY, seen, "b", call=call()),
    "keep_lead": lambda store, seen: store.keep_lead(KEY, "a", call()),
    "release": lambda store, seen: store.release(KEY, "a", result="failed", call=call()),
    "fill": lambda store, seen: store.fill(KEY, TAGS, seen, b"", ttl_s=1, admission_s=1, token="a", call=call()),
    "register": lambda store, seen: store.renew_l1(T, "i1", START, register=True, call=call()),
    "strike": lambda store, seen: store.strike(T, {"i1": None}, call()),
    "renew_epoch": lambda store, seen: store.renew_epoch(T, call()),
    "bump": lambda store, seen: store.append_and_bump(T, TAGS, notice(), call()),
}


@pytest.mark.parametrize(("mode", "kind"), [("refused", StoreUnreachable), ("timeout", StoreTimeout)])
@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_a_store_that_is_away_answers_nothing(
    store: MemoryStore, name: str, mode: FailMode, kind: type[StoreError]
) -> None:
    seen = await look(store)
    store.fail(mode)
    with pytest.raises(kind):
        await (READS | WRITES)[name](store, seen)


@pytest.mark.parametrize("name", list(WRITES))
async def test_a_read_only_store_refuses_every_write(store: MemoryStore, name: str) -> None:
    seen = await look(store)
    await store.lead(KEY, seen, "a", call=call())
    store.fail("read_only")
    with pytest.raises(StoreReadOnly):
        await WRITES[name](store, seen)


@pytest.mark.parametrize("name", [name for name in READS if name != "listen"])
async def test_a_read_only_store_answers_every_question(store: MemoryStore, name: str) -> None:
    seen = await look(store)
    store.fail("read_only")
    await READS[name](store, seen)


async def test_a_full_store_leads_nobody_and_ends_a_lease_whose_fill_it_refuses(store: MemoryStore) -> None:
    seen = await look(store)
    await store.lead(KEY, seen, "a", call=call())
    await store.lead(KEY, seen, "b", call=call())
    store.fail("out_of_memory")
    with pytest.raises(StoreOutOfMemory):
        await store.fill(KEY, TAGS, seen, b"", ttl_s=1, admission_s=1, token="a", call=call())
    with pytest.raises(StoreOutOfMemory):
        await store.lead(KEY, seen, "c", call=call())
    store.fail(None)
    heard = await store.listen({T: Ears(None, START)}, block_s=0)
    assert [(wake.key_text, wake.result) for wake in heard[T].wakes] == [(KEY.text, "unkept")]
    assert (await store.lead(KEY, seen, "c", call=call())).verdict is LeadVerdict.LED


async def test_who_listens_learns_at_once_that_the_store_is_gone(store: MemoryStore) -> None:
    listening = asyncio.create_task(store.listen({T: Ears(START, START)}, block_s=5))
    await asyncio.sleep(0)
    store.fail("refused")
    with pytest.raises(StoreUnreachable):
        await asyncio.wait_for(listening, 2)


async def test_the_first_invalidation_of_all_waits_for_nobody(store: MemoryStore) -> None:
    told = (await store.append_and_bump(T, TAGS, notice(), call())).told
    assert told[1:3] == (0, False)
    assert (await store.renew_epoch("guilford", call())).unknown is False


async def test_nothing_comes_twice_while_the_clock_stands_still(store: MemoryStore) -> None:
    positions, vectors = [], []
    for _ in range(3):
        positions.append((await store.append_and_bump(T, TAGS, notice(), call())).told.position)
        vectors.append((await look(store)).vector)
        store.flush()
    assert sorted(set(positions), key=order) == positions
    assert len(set(vectors)) == 3


async def test_a_clock_that_is_set_back_takes_no_position_back(store: MemoryStore, clock: ManualClock) -> None:
    before = (await store.renew_epoch(T, call())).position
    clock.jump_wall(-3_600)
    assert order((await store.renew_epoch(T, call())).position) > order(before)


async def test_the_least_recently_used_goes_first_and_what_it_costs_is_hits(clock: ManualClock) -> None:
    store = MemoryStore(clock, max_bytes=20_000)
    for number in range(200):
        key = CacheKey(T, "p1", "jobs", "detail", f"j{number}")
        seen = await store.read(key, (f"job:{number}",), "", want=True, call=call())
        await store.fill(key, (f"job:{number}",), seen, b"x" * 100, ttl_s=60, admission_s=60, call=call())
    assert len(store.names()) < 60
    assert system_key(T, "g:job:199") in store.names()
    assert CacheKey(T, "p1", "jobs", "detail", "j0").text not in store.names()
    gone = CacheKey(T, "p1", "jobs", "detail", "j0")
    assert (await store.read(gone, ("job:0",), "", want=True, call=call())).verdict is Verdict.MISS


async def test_what_has_expired_is_gone_from_every_view(store: MemoryStore, clock: ManualClock) -> None:
    seen = await look(store)
    await store.fill(KEY, TAGS, seen, b"x", ttl_s=60, admission_s=30, call=call())
    clock.advance(30)
    assert (await look(store)).admitted_s == 0
    clock.advance(30)
    assert await store.inspect(KEY, call()) is None
    assert KEY.text not in store.names()
