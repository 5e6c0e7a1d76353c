"""A store in a cluster: each account on the node of its slot, and after the slot when it moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.ports import Store, Verdict
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.doctor_redis import store_facts
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.budget_redis import RedisBudget

Exercise = Callable[[Store, str], Awaitable[None]]
CLOCK = SystemClock()
TENANTS = ("stamford", "guilford", "default", "new-haven")
"""On all three nodes."""


async def test_all_of_a_store_works_on_every_node_of_a_cluster(redis_cluster: Any, exercise: Exercise) -> None:
    owners = {redis_cluster.owner(tenant).port for tenant in TENANTS}
    assert len(owners) == 3
    for tenant in TENANTS:
        client = connect(redis_cluster.url, tenant=tenant)
        await exercise(RedisStore(client, probe=tenant), tenant)
        with redis_cluster.owner(tenant).client() as owner:
            assert owner.exists(f"jobnimbus-sys:{{{tenant}}}:run") == 1
        await client.aclose()
    facts = await store_facts(redis_cluster.url)
    assert "3 primaries" in facts.found
    assert facts.version.startswith("7.")


async def test_accounts_follow_their_slot_when_it_is_moved(redis_cluster: Any) -> None:
    """A script under way is answered MOVED, carried out where the slot is now, and everything before is invalid."""
    tenant = TENANTS[0]
    moved: list[int] = []
    client = connect(redis_cluster.url, tenant=tenant, on_moved=lambda: moved.append(1))
    store, key = RedisStore(client, probe=tenant), CacheKey(tenant, "p", "jobs", "detail", "a")
    first = await store.read(key, ("x",), "", want=True, call=Call.begin(CLOCK, "r"))
    old = redis_cluster.owner(tenant)
    new = next(node for node in redis_cluster.nodes[:3] if node is not old)
    redis_cluster.move(tenant, new)
    again = await store.read(key, ("x",), "", want=True, call=Call.begin(CLOCK, "r"))
    assert again.verdict is Verdict.MISS
    assert again.vector != first.vector, "another server process, another epoch"
    async with asyncio.timeout(2):
        while not moved:  # noqa: ASYNC110 - told in the background
            await asyncio.sleep(0.01)
    with new.client() as there:
        assert there.exists(f"jobnimbus-sys:{{{tenant}}}:run") == 1
    assert {connection.port for connection in client.connection_pool._available_connections} == {new.port}
    await client.aclose()


async def test_the_request_budget_is_shared_in_a_cluster(redis_cluster: Any) -> None:
    waits = []
    for takes in (5, 1):  # a burst is half a second's worth
        client = connect(redis_cluster.url, tenant="stamford")
        recorder = InMemoryRecorder()
        local = LocalBudget(10, ["stamford"], CLOCK)
        budget = RedisBudget(client, local, rate_per_s=10, clock=CLOCK, recorder=recorder, command_timeout_s=5.0)
        waits += [await budget.take("stamford", Call.begin(CLOCK, "r")) for _ in range(takes)]
        assert recorder.total("cache_errors") == 0
        await client.aclose()
    assert waits[0] == 0
    assert waits[5] > 0, "the second begins where the first ended"


async def test_a_cluster_with_a_frozen_node_still_says_where_the_others_are(redis_cluster: Any) -> None:
    frozen = redis_cluster.owner("stamford")
    tenant = next(name for name in TENANTS if redis_cluster.owner(name) is not frozen)
    frozen.freeze()
    try:
        client = connect(redis_cluster.url, tenant=tenant)
        assert await asyncio.wait_for(client.ping(), 3) is True
        await client.aclose()
    finally:
        frozen.thaw()
