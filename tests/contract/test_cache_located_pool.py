"""The pool where the server's address may change: what is used of the one before, what is asked and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from jobnimbus_mcp.cache.address import Place
from jobnimbus_mcp.cache.pool_redis import ReadyPool
from jobnimbus_mcp.cache.ports import StoreReadOnly, StoreUnreachable
from jobnimbus_mcp.cache.scripts_redis import Scripts

KEYS = ("jobnimbus-sys:{t}:rates:1",)


class Telling:
    """Says what it is told to say, and notes what it is asked."""

    def __init__(self, *places: Any, watch_s: float | None = None) -> None:
        self.places: list[Any] = list(places)
        self.watch_s = watch_s
        self.asked: list[tuple[float, Place | None, Exception | None]] = []
        self.closed = False

    async def locate(self, failed: Place | None, hint: Exception | None) -> Place:
        self.asked.append((asyncio.get_running_loop().time(), failed, hint))
        said = self.places.pop(0) if len(self.places) > 1 else self.places[0]
        if isinstance(said, Exception):
            raise said
        place: Place = said
        return place

    async def aclose(self) -> None:
        self.closed = True


def place(server: Any) -> Place:
    return "127.0.0.1", server.port


def located(locator: Telling, **options: Any) -> tuple[Redis, ReadyPool]:
    pool = ReadyPool(
        connection_class=Connection, protocol=3, retry=Retry(NoBackoff(), 0), locator=locator, timeout=5.0, **options
    )
    return Redis.from_pool(pool), pool


async def until(met: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not met():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.01)


def run_id(server: Any) -> str:
    with server.client() as client:
        return str(client.info("server")["run_id"])


async def run_id_of(scripts: Scripts) -> str:
    return str((await scripts.blocked(("INFO", "server"))).decode().split("run_id:")[1].split("\r")[0])


async def unreachable(scripts: Scripts) -> bool:
    try:
        await run_id_of(scripts)
    except StoreUnreachable:
        return True
    return False


async def test_all_connections_follow_when_another_server_is_named(start_redis: Callable[..., Any]) -> None:
    old, new = start_redis(), start_redis()
    told: list[str] = []
    locator = Telling(place(old), watch_s=0.05)
    client, pool = located(locator, on_moved=lambda: told.append("moved"))
    scripts = Scripts(client)
    assert await run_id_of(scripts) == run_id(old)
    await until(lambda: len(pool._available_connections) == 4)
    blocked = asyncio.ensure_future(scripts.blocked(("XREAD", "BLOCK", 60_000, "STREAMS", "s", "$"), within_s=60))
    await until(lambda: len(pool._in_use_connections) == 1)
    before = [*pool._available_connections, *pool._in_use_connections]
    locator.places = [place(new)]
    with pytest.raises(StoreUnreachable):
        await asyncio.wait_for(blocked, 2)
    await until(lambda: told == ["moved"])
    assert [connection for connection in before if connection.is_connected] == []
    assert await run_id_of(scripts) == run_id(new)
    assert {connection.port for connection in pool._available_connections} == {new.port}
    await client.aclose()
    assert locator.closed


async def test_nothing_is_told_as_moved_while_the_address_stays(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    told: list[str] = []
    client, _ = located(Telling(place(server)), on_moved=lambda: told.append("moved"))
    scripts = Scripts(client)
    await run_id_of(scripts)
    server.restart()
    async with asyncio.timeout(2):
        while await unreachable(scripts):  # as many times as it had been connected
            pass
    assert await run_id_of(scripts) == run_id(server)
    assert told == []
    await client.aclose()


async def test_a_server_that_went_away_unnoticed_is_asked_about_when_it_refuses(
    start_redis: Callable[..., Any],
) -> None:
    old, new = start_redis(), start_redis()
    locator = Telling(place(old))
    client, _ = located(locator, max_retries=0)
    scripts = Scripts(client)
    await run_id_of(scripts)
    old.kill()
    old.process.wait(5)
    await asyncio.sleep(0.05)
    locator.places = [place(new)]
    async with asyncio.timeout(1):
        while await unreachable(scripts):
            pass
    assert await run_id_of(scripts) == run_id(new)
    await client.aclose()


async def test_a_server_that_refuses_writes_is_left_and_asked_about(start_redis: Callable[..., Any]) -> None:
    primary = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(primary.port))
    locator = Telling(place(replica), place(primary))
    client, pool = located(locator)
    scripts = Scripts(client)
    with pytest.raises((StoreReadOnly, StoreUnreachable)):
        await scripts.run("probe", ("jobnimbus-sys:{t}:probe",), (1_000,))
    assert await scripts.run("probe", ("jobnimbus-sys:{t}:probe",), (1_000,)) is not None
    assert isinstance(locator.asked[1][2], ReadOnlyError)
    assert {connection.port for connection in pool._available_connections} == {primary.port}
    await client.aclose()


async def test_while_nobody_answers_it_is_asked_four_times_a_second_without_a_command(
    start_redis: Callable[..., Any],
) -> None:
    old, new = start_redis(), start_redis()
    locator = Telling(place(old))
    told: list[str] = []
    client, _ = located(locator, max_retries=0, on_moved=lambda: told.append("moved"))
    scripts = Scripts(client)
    await run_id_of(scripts)
    old.kill()
    locator.places = [RedisConnectionError("no master")]
    assert await unreachable(scripts)
    asked = len(locator.asked)
    await asyncio.sleep(1.0)
    assert 2 <= len(locator.asked) - asked <= 5
    locator.places = [place(new)]
    await until(lambda: told == ["moved"], 1.0)
    assert await run_id_of(scripts) == run_id(new)
    await client.aclose()


async def test_a_command_given_up_raises_a_doubt_that_its_next_answer_ends(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    locator = Telling(place(server))
    client, pool = located(locator)
    scripts = Scripts(client)
    await run_id_of(scripts)
    assert len(locator.asked) == 1
    server.freeze()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_id_of(scripts)
    await asyncio.sleep(0.6)
    doubting = len(locator.asked)
    assert doubting >= 3
    assert locator.asked[-1][1] == place(server)
    server.thaw()
    await run_id_of(scripts)
    await asyncio.sleep(0.3)
    settled = len(locator.asked)
    await asyncio.sleep(0.6)
    assert len(locator.asked) == settled
    assert pool._available_connections
    await client.aclose()


async def test_a_watched_server_is_asked_about_while_it_is_used_and_again_before_it_is_used_again(
    start_redis: Callable[..., Any],
) -> None:
    old, new = start_redis(), start_redis()
    locator = Telling(place(old), watch_s=0.05)
    client, _ = located(locator)
    scripts = Scripts(client)
    used_until = asyncio.get_running_loop().time() + 0.5
    while asyncio.get_running_loop().time() < used_until:
        await run_id_of(scripts)
        await asyncio.sleep(0.01)
    assert len(locator.asked) >= 5
    await asyncio.sleep(0.3)
    idle = len(locator.asked)
    await asyncio.sleep(0.3)
    assert len(locator.asked) == idle, "nobody uses it, so nobody asks"
    locator.places = [place(new)]
    assert await run_id_of(scripts) == run_id(new), "the old one was not asked for anything"
    await client.aclose()


async def test_a_server_stays_in_use_while_those_who_name_it_are_away(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    locator = Telling(place(server), RedisConnectionError("away"), watch_s=0.05)
    client, pool = located(locator)
    scripts = Scripts(client)
    for _ in range(10):
        assert await run_id_of(scripts) == run_id(server)
        await asyncio.sleep(0.06)
    await asyncio.sleep(0.3)
    assert await run_id_of(scripts) == run_id(server)
    assert len(locator.asked) > 5
    assert len(pool._available_connections) <= 5, "asking again is no reason to connect again"
    await client.aclose()


async def test_nobody_who_could_say_where_it_is_is_unreachable_at_once() -> None:
    client, pool = located(Telling(RedisConnectionError("no master")), max_retries=0)
    with pytest.raises(StoreUnreachable):
        await asyncio.wait_for(Scripts(client).run("rates", KEYS, (), tenant="t"), 1)
    await client.aclose()
    assert not pool._connecting
