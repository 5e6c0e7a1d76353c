"""Another server takes over, behind Sentinels and in a cluster: calls go on, the store is soon used again, and nothing
of what the one before said counts any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import Store, StoreError, Verdict
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy

CLOCK = SystemClock()
TENANT = "stamford"
KEY = CacheKey(TENANT, "p1", "jobs", "detail", "j1")
TAGS = ("jobs", "job:j1")
IN_USE_S = 5.0
"""From when the new primary is known to when the store is used again."""


@dataclass
class Run:
    """What a loop of reads met: (seconds, seconds it took, reason or None when it was answered)."""

    reads: list[tuple[float, float, str | None]]
    named_at: float

    @property
    def in_use_s(self) -> float:
        """How long after the new one was named a read was answered, after which all were."""
        refused = [at for at, _, reason in self.reads if reason is not None]
        return max(refused) - self.named_at if refused else 0.0

    @property
    def slowest_s(self) -> float:
        return max(took for _, took, _ in self.reads)


@asynccontextmanager
async def guarded(url: str) -> AsyncIterator[GuardedStore]:
    """As the server has it: five failures open the breaker, for a minute unless something is heard of the store."""
    tell: list[Callable[[], None]] = []
    client = connect(url, tenant=TENANT, on_moved=lambda: tell[0]())
    breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=60, failures=5), CLOCK)
    try:
        async with GuardedStore(RedisStore(client, probe=TENANT), breaker, CLOCK, 0.1, tenants=(TENANT,)) as store:
            tell.append(store.moved)
            async with asyncio.timeout(10):
                while not await answered(store):  # noqa: ASYNC110 - another process does it
                    await asyncio.sleep(0.02)
            yield store
    finally:
        await client.aclose()


async def answered(store: Store) -> bool:
    try:
        await store.read(KEY, TAGS, "", want=True, call=Call.begin(CLOCK, "r"))
    except StoreError:
        return False
    return True


async def reading(store: Store, named: Callable[[], bool], *, on_s: float = 0.5) -> Run:
    """Read every few milliseconds until `named` has become true and the store has been in use for `on_s` again."""
    reads: list[tuple[float, float, str | None]] = []

    async def read() -> None:
        began, reason = time.monotonic(), None
        try:
            await store.read(KEY, TAGS, "", want=True, call=Call.begin(CLOCK, "r"))
        except StoreError as error:
            reason = error.reason
        reads.append((time.monotonic(), time.monotonic() - began, reason))

    async def until_named() -> float:
        while not await asyncio.to_thread(named):  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(0.02)
        return time.monotonic()

    watch = asyncio.ensure_future(until_named())
    async with asyncio.timeout(30):
        while not (watch.done() and all(reason is None for at, _, reason in reads if at > time.monotonic() - on_s)):
            await read()
            await asyncio.sleep(0.005)
    return Run(reads, watch.result())


def scripts_run(server: Any) -> int:
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha"))


async def not_read_again(store: Store, old: Any) -> None:
    """The old one comes to, believing what it believed; what was sent to it before is carried out, for nobody."""
    old.thaw()
    await asyncio.sleep(0.1)
    before = await asyncio.to_thread(scripts_run, old)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert await answered(store)
        await asyncio.sleep(0.005)
    assert await asyncio.to_thread(scripts_run, old) == before


async def test_a_primary_killed_behind_sentinels_is_replaced_and_no_call_fails(
    start_sentinels: Callable[[], Any],
) -> None:
    sentinels = start_sentinels()
    async with guarded(sentinels.url) as store:
        old = sentinels.named()
        old.kill()
        run = await reading(store, lambda: sentinels.named() is not old)
        assert run.in_use_s < IN_USE_S
        assert run.slowest_s < 0.5
        assert any(reason is not None for _, _, reason in run.reads), "there was nothing to replace"


async def test_a_primary_frozen_behind_sentinels_is_not_read_when_it_comes_to(
    start_sentinels: Callable[[], Any],
) -> None:
    sentinels = start_sentinels()
    async with guarded(sentinels.url) as store:
        old = sentinels.named()
        old.freeze()
        run = await reading(store, lambda: sentinels.named() is not old)
        assert run.in_use_s < IN_USE_S
        assert run.slowest_s < 0.5
        await not_read_again(store, old)


async def test_an_invalidation_that_a_failover_lost_does_not_bring_the_entry_back(
    start_sentinels: Callable[[], Any],
) -> None:
    sentinels = start_sentinels()
    async with guarded(sentinels.url) as store:
        old, new = sentinels.primary, sentinels.replica
        seen = await store.read(KEY, TAGS, "", want=True, call=Call.begin(CLOCK, "r"))
        entry = encode(
            Entry(b"{}", False, 1.0, "0" * 16), key_text=KEY.text, vector=seen.vector, tags=TAGS, compress=True
        )
        assert await store.fill(KEY, TAGS, seen, entry, ttl_s=600, admission_s=600, call=Call.begin(CLOCK, "f"))
        with old.client() as primary:
            assert primary.wait(1, 5_000) == 1
            # The replica is cut off, and cannot come back.
            primary.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            primary.execute_command("CLIENT", "KILL", "TYPE", "replica")
        notice = Notice("job.updated", "job", "j1", "webhook", time.time(), "e1")
        await store.append_and_bump(TENANT, TAGS, notice, Call.begin(CLOCK, "w"))
        old.kill()
        await reading(store, lambda: sentinels.named() is new, on_s=0.1)
        with new.client() as primary:
            assert primary.exists(KEY.text) == 1
            assert primary.xlen(f"jobnimbus-sys:{{{TENANT}}}:log") > 0
        found = await store.read(KEY, TAGS, "", want=True, call=Call.begin(CLOCK, "r"))
        assert found.verdict is Verdict.MISS
        assert found.vector.partition(b"\n")[0] != seen.vector.partition(b"\n")[0], "another epoch"
        assert found.vector.partition(b"\n")[2] == seen.vector.partition(b"\n")[2], "the bump itself is lost"


async def test_a_primary_killed_in_a_cluster_is_replaced_and_no_call_fails(start_cluster: Callable[[], Any]) -> None:
    cluster = start_cluster()
    async with guarded(cluster.url) as store:
        old = cluster.owner(TENANT)
        witness = next(node for node in cluster.nodes if node is not old)
        old.kill()
        run = await reading(store, lambda: cluster.owner(TENANT, witness) is not old)
        assert run.in_use_s < IN_USE_S
        assert run.slowest_s < 0.5
        assert any(reason is not None for _, _, reason in run.reads), "there was nothing to replace"


@pytest.mark.long
async def test_a_primary_frozen_in_a_cluster_is_not_read_when_it_comes_to(start_cluster: Callable[[], Any]) -> None:
    cluster = start_cluster()
    async with guarded(cluster.url) as store:
        old = cluster.owner(TENANT)
        witness = next(node for node in cluster.nodes if node is not old)
        old.freeze()
        run = await reading(store, lambda: cluster.owner(TENANT, witness) is not old)
        assert run.in_use_s < IN_USE_S
        assert run.slowest_s < 0.5
        await not_read_again(store, old)


@pytest.mark.long
async def test_one_failover_after_the_other_is_followed(start_sentinels: Callable[[], Any]) -> None:
    sentinels = start_sentinels()
    async with guarded(sentinels.url) as store:
        for _ in range(3):
            old = sentinels.named()
            old.kill()
            run = await reading(store, lambda old=old: sentinels.named() is not old)  # type: ignore[misc]  # bound in the loop
            assert run.in_use_s < IN_USE_S
            await asyncio.to_thread(old.restart)
            with sentinels.named().client() as primary:
                async with asyncio.timeout(20):
                    while not primary.info("replication").get("connected_slaves"):
                        assert await answered(store)
                        await asyncio.sleep(0.05)
