"""Heat as all processes share it: the same of memory and of a real Redis, and what only Redis has to hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import redis

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import ManualClock, SystemClock
from jobnimbus_mcp.consumers.heat import KEPT_MOST, Heat, MemoryHeat
from jobnimbus_mcp.consumers.heat_redis import FLUSH_EVERY_S, QUESTION_BYTES_MAX, RedisHeat
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import NEWEST_FIRST, OneOf, Word
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

KEY = "jobnimbus-sys:{stamford}:heat"
JOB = Read.record(Entity.JOBS, "mjob1")
LIST = Read.block(Entity.TASKS, (OneOf("status", (1, "a", True)),), NEWEST_FIRST, 0, scope=frozenset({"mjob1"}))
SEARCH = Read.scan(Entity.JOBS, (Word("Whitfield", ("name",)),))


class Shared:
    """Processes over one Redis, and one that looks at it."""

    def __init__(self, url: str) -> None:
        self.clients = [connect(url) for _ in range(2)]
        self.clock = ManualClock()
        self.recorder = InMemoryRecorder()
        self.one, self.other = (
            RedisHeat(
                Scripts(client, package="jobnimbus_mcp.consumers.scripts"), clock=self.clock, recorder=self.recorder
            )
            for client in self.clients
        )

    async def aclose(self) -> None:
        for client in self.clients:
            await client.aclose()


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[Shared]:
    world = Shared(redis_url)
    yield world
    await world.aclose()


@pytest.fixture
def looking(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(params=["memory", "redis"])
def heat(request: pytest.FixtureRequest) -> Heat:
    if request.param == "memory":
        return MemoryHeat(SystemClock())
    found: Shared = request.getfixturevalue("shared")
    return found.one


async def within(told: Any) -> list[tuple[Read, int]]:
    async with asyncio.timeout(5):
        found = await told
    return [(hot.read, round(hot.uses)) for hot in found]


async def test_the_most_used_come_first(heat: Heat) -> None:
    for read, uses in ((JOB, 2), (LIST, 5), (SEARCH, 3)):
        for _ in range(uses):
            heat.note("stamford", read)
    heat.note("guilford", JOB)

    assert await within(heat.hottest("stamford")) == [(LIST, 5), (SEARCH, 3), (JOB, 2)]
    heat.note("stamford", JOB)
    heat.note("stamford", JOB)
    assert await within(heat.hottest("stamford", at_least=2.9)) == [(LIST, 5), (JOB, 4), (SEARCH, 3)]
    assert await within(heat.hottest("stamford", at_least=3.9)) == [(LIST, 5), (JOB, 4)]
    assert await within(heat.hottest("stamford", most=1)) == [(LIST, 5)]
    assert await within(heat.hottest("guilford")) == [(JOB, 1)]
    assert await within(heat.hottest("nowhere")) == []


async def test_a_process_that_asks_nothing_sees_the_heat_of_those_that_serve(shared: Shared) -> None:
    for _ in range(3):
        shared.one.note("stamford", JOB)
    assert await within(shared.other.hottest("stamford")) == []
    async with shared.one.running():
        for _ in range(5):
            await asyncio.sleep(0)
        shared.clock.advance(FLUSH_EVERY_S)
        await _until(shared, [(JOB, 3)])
        shared.one.note("stamford", SEARCH)
    # what was noted last is shared at the stop
    assert await within(shared.other.hottest("stamford")) == [(JOB, 3), (SEARCH, 1)]


async def _until(shared: Shared, wanted: Sequence[tuple[Read, int]]) -> None:
    for _ in range(500):
        if await within(shared.other.hottest("stamford")) == wanted:
            return
        await asyncio.sleep(0.01)
    pytest.fail("nothing was shared within 5 s")


async def test_uses_are_halved_every_hour(shared: Shared, looking: Any) -> None:
    for _ in range(16):
        shared.one.note("stamford", JOB)
    await shared.one.flush("stamford")
    # as if it had been two hours ago
    (member,) = looking.zrange(KEY, 0, -1)
    looking.zincrby(KEY, -2, member)
    assert await within(shared.other.hottest("stamford")) == [(JOB, 4)]
    for _ in range(3):
        shared.one.note("stamford", JOB)
    await shared.one.flush("stamford")
    assert await within(shared.other.hottest("stamford", at_least=6.9)) == [(JOB, 7)]


async def test_the_key_expires_and_says_nothing_of_what_is_asked(shared: Shared, looking: Any) -> None:
    shared.one.note("stamford", SEARCH)
    await shared.one.flush("stamford")

    assert 6 * 86_400 < looking.ttl(KEY) <= 7 * 86_400
    assert looking.keys("*heat*") == [KEY.encode()]


async def test_an_account_s_questions_are_bounded_the_most_used_staying(shared: Shared, looking: Any) -> None:
    for _ in range(2):
        shared.one.note("stamford", JOB)
    for batch in range(5):
        for number in range(KEPT_MOST - 1):
            shared.one.note("stamford", Read.record(Entity.CONTACTS, f"c{batch}x{number}"))
        await shared.one.flush("stamford")
        assert looking.zcard(KEY) <= 2 * KEPT_MOST

    found = await within(shared.other.hottest("stamford", most=10_000))
    assert len(found) == KEPT_MOST
    assert found[0] == (JOB, 2)
    assert found[1][0].record_id.startswith("c4x")  # of equals, the newest


async def test_what_one_process_notes_between_two_flushes_is_bounded(shared: Shared, looking: Any) -> None:
    for number in range(KEPT_MOST + 100):
        shared.one.note("stamford", Read.record(Entity.CONTACTS, f"c{number}"))
    for _ in range(3):
        shared.one.note("stamford", Read.record(Entity.CONTACTS, "c0"))
    await shared.one.flush("stamford")

    assert looking.zcard(KEY) == KEPT_MOST
    assert (await within(shared.other.hottest("stamford")))[0] == (Read.record(Entity.CONTACTS, "c0"), 4)


async def test_questions_that_are_long_or_cannot_be_written_are_passed_over(shared: Shared, looking: Any) -> None:
    shared.one.note("stamford", Read.scan(Entity.JOBS, (Word("x" * QUESTION_BYTES_MAX, ("name",)),)))
    shared.one.note("stamford", Read.scan(Entity.JOBS, (Word("\ud800", ("name",)),)))
    shared.one.note("stamford", JOB)
    await shared.one.flush("stamford")

    assert looking.zcard(KEY) == 1
    assert await within(shared.other.hottest("stamford")) == [(JOB, 1)]


async def test_what_another_release_wrote_is_counted_and_passed_over(shared: Shared, looking: Any) -> None:
    shared.one.note("stamford", JOB)
    await shared.one.flush("stamford")
    looking.zadd(KEY, {b'{"v":99}': 1e9, b"\xff": 1e9})

    assert await within(shared.other.hottest("stamford")) == [(JOB, 1)]
    counted = shared.recorder.counts["cache_errors", (("operation", "heat"), ("reason", "unreadable"))]
    assert counted == 2


async def test_while_redis_is_away_noting_goes_on_and_asking_says_so(
    start_redis: Callable[..., Any],
) -> None:
    server = start_redis()
    world = Shared(server.url)
    try:
        world.one.note("stamford", JOB)
        await world.one.flush("stamford")
        server.stop()
        async with asyncio.timeout(10):
            with pytest.raises(CacheUnavailable):
                await world.one.hottest("stamford")
            async with world.one.running():
                world.one.note("stamford", JOB)
        assert world.recorder.total("cache_errors") == 1
    finally:
        await world.aclose()


async def test_a_redis_that_does_not_answer_costs_no_more_than_the_bound(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    client = connect(server.url)
    runner = Scripts(client, package="jobnimbus_mcp.consumers.scripts")
    heat = RedisHeat(runner, clock=SystemClock(), recorder=InMemoryRecorder(), command_timeout_s=0.1)
    try:
        heat.note("stamford", JOB)
        await heat.flush("stamford")
        server.freeze()
        async with asyncio.timeout(5):
            with pytest.raises(CacheUnavailable):
                await heat.hottest("stamford")
    finally:
        await client.aclose()
