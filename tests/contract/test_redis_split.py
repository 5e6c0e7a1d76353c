"""Two servers that both take themselves for the one: an old primary that nobody has told, or that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from jobnimbus_mcp.cache.address import Place
from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.pool_redis import ReadyPool
from jobnimbus_mcp.cache.ports import StoreError, StoreUnreachable, Verdict
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock

T = "stamford"
CLOCK = SystemClock()
KEY = CacheKey(T, "p1", "jobs", "detail", "j1")
TAGS = ("jobs", "job:j1")


class Named:
    """Says at once what it is told to say."""

    watch_s: float | None = None

    def __init__(self, server: Any) -> None:
        self.server = server

    async def locate(self, failed: Place | None, hint: Exception | None) -> Place:
        return "127.0.0.1", self.server.port

    async def aclose(self) -> None:
        pass


class Process:
    """One with a way of its own to know where the server is."""

    def __init__(self, server: Any) -> None:
        self.locator = Named(server)
        self.pool = ReadyPool(
            connection_class=Connection, protocol=3, retry=Retry(NoBackoff(), 0), locator=self.locator, timeout=5.0
        )
        self.client: Any = Redis.from_pool(self.pool)
        self.store = RedisStore(self.client)

    async def moves_to(self, server: Any) -> None:
        self.locator.server = server
        where = self.pool._where
        assert where is not None
        where.ask()
        while where.place != ("127.0.0.1", server.port):
            await CLOCK.sleep(0.01)

    async def fills(self) -> None:
        seen = await self.store.read(KEY, TAGS, "", want=True, call=call())
        entry = Entry(b"old", False, 1.0, "0" * 16)
        value = encode(entry, key_text=KEY.text, vector=seen.vector, tags=TAGS, compress=True)
        assert await self.store.fill(KEY, TAGS, seen, value, ttl_s=60, admission_s=60, call=call())

    async def verdict(self) -> Verdict:
        return (await self.store.read(KEY, TAGS, "", want=True, call=call())).verdict

    async def invalidates(self, how: str = "bump") -> None:
        if how == "epoch":
            await self.store.renew_epoch(T, call())
        else:
            await self.store.append_and_bump(T, TAGS, notice(), call())


def call() -> Call:
    return Call.begin(CLOCK, "r", within_s=10.0)


def notice() -> Notice:
    return Notice("job.updated", "job", "j1", "webhook", CLOCK.now(), "e1")


async def copied(old: Any, new: Any) -> None:
    """The new one has all that the old one has now, and nothing of later."""
    with old.client() as source, new.client() as target:
        target.flushall()
        for key in source.scan_iter():
            target.restore(key, max(0, source.pttl(key)), source.dump(key))


@pytest.mark.parametrize("how", ["bump", "epoch"])
async def test_what_the_old_server_confirmed_after_others_had_left_it_holds_on_the_new_one(
    start_redis: Callable[..., Any], how: str
) -> None:
    old, new = start_redis(), start_redis()
    late, early = Process(old), Process(old)
    await late.fills()
    await copied(old, new)
    await early.moves_to(new)
    assert await early.verdict() is Verdict.MISS
    await early.fills()
    await late.invalidates(how)
    await late.moves_to(new)
    assert await late.verdict() is Verdict.MISS
    assert await early.verdict() is Verdict.MISS
    for process in (late, early):
        await process.client.aclose()


async def test_an_old_server_that_is_named_again_without_having_learnt_anything_revives_nothing(
    start_redis: Callable[..., Any],
) -> None:
    old, new = start_redis(), start_redis()
    process = Process(old)
    await process.fills()
    await copied(old, new)
    await process.moves_to(new)
    await process.invalidates()
    await process.moves_to(old)
    with old.client() as operator:
        assert operator.exists(KEY.text) == 1
    assert await process.verdict() is Verdict.MISS
    await process.client.aclose()


async def test_a_move_that_lost_nothing_costs_the_hits_once_for_all_processes(start_redis: Callable[..., Any]) -> None:
    old, new = start_redis(), start_redis()
    late, early = Process(old), Process(old)
    await late.invalidates()
    await late.fills()
    await copied(old, new)
    await early.moves_to(new)
    assert await early.verdict() is Verdict.MISS
    await early.fills()
    await late.moves_to(new)
    assert await late.verdict() is Verdict.HIT
    for process in (late, early):
        await process.client.aclose()


async def test_an_answer_from_a_server_that_was_left_meanwhile_is_none(start_redis: Callable[..., Any]) -> None:
    """One address, and behind it now another server, but for new connections."""
    old, new = start_redis(), start_redis()
    client: Any = connect(old.url)
    store, pool = RedisStore(client), client.connection_pool
    await store.append_and_bump(T, TAGS, notice(), call())
    command = ("XREAD", "BLOCK", 400, "STREAMS", "jobnimbus-sys:{stamford}:log", "$")
    heard = asyncio.ensure_future(store._scripts.blocked(command, tenants=(T,)))
    with old.client() as operator:
        while not operator.info("clients")["blocked_clients"]:
            await CLOCK.sleep(0.01)
    await copied(old, new)
    pool.connection_kwargs["port"] = new.port
    await pool._drop_idle()
    await store.append_and_bump(T, TAGS, notice(), call())
    with pytest.raises(StoreUnreachable):
        await heard
    await client.aclose()


async def test_a_server_that_became_a_replica_is_left_where_the_address_stays(start_redis: Callable[..., Any]) -> None:
    """Its connections are not broken, and it would go on answering reads from what it once had."""
    old, new = start_redis(), start_redis()
    client: Any = connect(old.url)
    store, pool = RedisStore(client), client.connection_pool
    await store.append_and_bump(T, TAGS, notice(), call())
    await copied(old, new)
    with old.client() as operator:
        operator.replicaof("127.0.0.1", 1)
    pool.connection_kwargs["port"] = new.port
    with pytest.raises(StoreError):
        await store.append_and_bump(T, TAGS, notice(), call())
    await store.append_and_bump(T, TAGS, notice(), call())
    with new.client() as operator:
        ((_, line),) = operator.xrevrange("jobnimbus-sys:{stamford}:log", count=1)
        assert line[b"tags"] == b"jobs\njob:j1"
        assert operator.get("jobnimbus-sys:{stamford}:run").decode() == operator.info("server")["run_id"]
    await client.aclose()
