"""Processes over a real server: who is waited for, and what a lost register costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import ANYBODY, L1_LEASE_S, Store
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.telemetry.recorder import NullRecorder

T = "stamford"
CLOCK = SystemClock()
KEY = CacheKey(T, "p1", "jobs", "detail", "j1")
TAGS = ("jobs", "job:j1")


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    """One whose register of instances has been there for long."""
    client = connect(redis_url)
    store = RedisStore(client)
    await store.read(KEY, TAGS, "", want=False, call=call())
    with redis.Redis.from_url(redis_url) as plain:
        plain.hset(system_key(T, "fleet"), ANYBODY, "1000000")
    yield store
    await client.aclose()


def call() -> Call:
    return Call.begin(CLOCK, "r")


def coherence(store: Store, name: str) -> Coherence:
    return Coherence(
        store, clock=CLOCK, recorder=NullRecorder(), instance=name, tenants=(T,), follow=True, register=True
    )


async def bump(store: Store) -> float:
    """Seconds until the invalidation was acknowledged."""
    wait = Barrier(store, clock=CLOCK, recorder=NullRecorder())
    invalidator = Invalidator(store, clock=CLOCK, recorder=NullRecorder(), barrier=wait)
    began = CLOCK.monotonic()
    notice = Notice("job.updated", "job", "j1", "webhook", CLOCK.now(), "e1")
    await invalidator.append_and_bump(T, ("jobs",), notice, call())
    return CLOCK.monotonic() - began


async def until(condition: Any) -> None:
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("not within ten seconds")


async def test_an_acknowledged_invalidation_has_been_applied_by_every_process(store: RedisStore) -> None:
    fleet = [coherence(store, name) for name in ("a", "b", "c")]
    for one in fleet:
        await one.start()
    try:
        await until(lambda: all(one.holds(T) for one in fleet))
        for _ in range(20):
            marks = [one.mark(T) for one in fleet]
            assert all(one.clean(T, since, TAGS, "p1") for one, since in zip(fleet, marks, strict=True))
            assert await bump(store) < L1_LEASE_S
            assert not any(one.clean(T, since, TAGS, "p1") for one, since in zip(fleet, marks, strict=True))
    finally:
        for one in fleet:
            await one.aclose()
    assert await store.behind(T, "9999999999999-0", call()) == {}


async def test_a_register_that_is_lost_while_somebody_waits_costs_the_lease(store: RedisStore, redis_url: str) -> None:
    await store.renew_l1(T, "away", "0-0", register=True, call=call())
    waiting = asyncio.ensure_future(bump(store))
    await asyncio.sleep(0.2)
    with redis.Redis.from_url(redis_url) as plain:
        plain.flushall()
    assert await waiting >= L1_LEASE_S


async def test_a_register_younger_than_the_invalidation_names_nobody(store: RedisStore, redis_url: str) -> None:
    notice = Notice("job.updated", "job", "j1", "webhook", CLOCK.now(), "e1")
    told = (await store.append_and_bump(T, ("jobs",), notice, call())).told
    assert not told.unknown
    assert await store.behind(T, told.position, call()) == {}
    with redis.Redis.from_url(redis_url) as plain:
        plain.delete(system_key(T, "fleet"))
    assert set(await store.behind(T, told.position, call())) == {ANYBODY}
    await store.renew_l1(T, "new", told.position, register=True, call=call())
    assert set(await store.behind(T, told.position, call())) == {ANYBODY}
