"""What polling and the sweep keep: the same promises in memory and in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import Store
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.cache.system_keys import seen_key
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.background import Keeper, Known
from jobnimbus_mcp.events.background_memory import MemoryBackground
from jobnimbus_mcp.events.background_redis import RedisBackground
from jobnimbus_mcp.events.watermark import Loss, Mark

T = "stamford"
CLOCK = SystemClock()
HOUR = 497_222


@dataclass
class Kept:
    """What is tested, and the store whose appends it knows of."""

    here: Keeper
    known: Known
    store: Store
    redis: Redis | None = None


@pytest.fixture(params=["memory", "redis"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        memory = MemoryStore(CLOCK)
        background = MemoryBackground(CLOCK, lambda tenant, key: seen_key(tenant, key) in memory.names())
        yield Kept(background, background, memory)
        return
    client = connect(request.getfixturevalue("redis_url"))
    in_redis = RedisBackground(Scripts(client, package="jobnimbus_mcp.events.scripts"), seen_key)
    yield Kept(in_redis, in_redis, RedisStore(client), client)
    await client.aclose()


async def appended(store: Store, *, dedupe_key: str = "", version_key: str = "") -> None:
    notice = Notice(
        "job.updated", "jobs", "j1", "webhook", time.time(), "e1", dedupe_key=dedupe_key, version_key=version_key
    )
    await store.append_and_bump(T, ("jobs",), notice, Call.begin(CLOCK, "test"))


async def test_versions_are_known_once_an_event_of_theirs_was_appended(kept: Kept) -> None:
    await appended(kept.store, dedupe_key="body:1", version_key="version:1")
    await appended(kept.store, dedupe_key="version:2", version_key="version:2")
    await appended(kept.store, version_key="version:3")
    keys = ["version:1", "version:2", "version:3", "version:4", ""]
    assert list(await kept.known.known(T, keys)) == [True, True, True, False, False]
    assert list(await kept.known.known("guilford", keys)) == [False] * 5


async def test_very_many_versions_are_looked_up_in_their_order(kept: Kept) -> None:
    await appended(kept.store, version_key="version:1234")
    found = await kept.known.known(T, [f"version:{n}" for n in range(1_700)])
    assert [n for n, one in enumerate(found) if one] == [1234]


async def test_one_holds_at_a_time_until_it_lets_go(kept: Kept) -> None:
    assert await kept.here.hold(T, "catch-up", "a", 30)
    assert not await kept.here.hold(T, "catch-up", "b", 30)
    assert await kept.here.hold(T, "catch-up", "a", 30)
    assert await kept.here.hold(T, "sweep", "b", 30)
    assert await kept.here.hold("guilford", "catch-up", "b", 30)
    await kept.here.let_go(T, "catch-up", "b")
    assert not await kept.here.hold(T, "catch-up", "b", 30)
    await kept.here.let_go(T, "catch-up", "a")
    assert await kept.here.hold(T, "catch-up", "b", 30)


async def test_what_nobody_renews_is_free_after_its_time(kept: Kept) -> None:
    assert await kept.here.hold(T, "catch-up", "a", 0.2)
    assert not await kept.here.hold(T, "catch-up", "b", 30)
    for _ in range(100):
        if await kept.here.hold(T, "catch-up", "b", 30):
            break
        await asyncio.sleep(0.02)
    assert not await kept.here.hold(T, "catch-up", "a", 30)


async def test_marks_are_kept_by_kind_and_account(kept: Kept) -> None:
    assert await kept.here.marks(T) == {}
    await kept.here.hold(T, "catch-up", "a", 30)
    assert await kept.here.advance(
        T, "catch-up", "a", {"jobs": Mark(10, 3), "tasks": Mark(11)}, loss=Loss(0, 0), hour=HOUR
    )
    assert await kept.here.advance(T, "catch-up", "a", {"jobs": Mark(20, 4)}, loss=Loss(0, 0), hour=HOUR)
    assert await kept.here.marks(T) == {"jobs": Mark(20, 4), "tasks": Mark(11)}
    assert await kept.here.marks("guilford") == {}


async def test_losses_add_up_over_the_hours_asked_for(kept: Kept) -> None:
    await kept.here.hold(T, "catch-up", "a", 30)
    for hour, loss in ((HOUR, Loss(1, 2)), (HOUR, Loss(0, 5)), (HOUR + 1, Loss(4, 0)), (HOUR + 30, Loss(9, 9))):
        assert await kept.here.advance(T, "catch-up", "a", {}, loss=loss, hour=hour)
    assert await kept.here.losses(T, [HOUR, HOUR + 1, HOUR + 2]) == Loss(5, 7)
    assert await kept.here.losses(T, [HOUR + 1]) == Loss(4, 0)
    assert await kept.here.losses(T, []) == Loss(0, 0)


async def test_a_sweep_is_remembered_and_so_are_its_ids(kept: Kept) -> None:
    assert await kept.here.swept_at(T) is None
    assert await kept.here.ids(T, "jobs") is None
    await kept.here.hold(T, "sweep", "a", 30)
    many = frozenset(f"l8x{n:021}" for n in range(20_000))
    assert await kept.here.note_sweep(T, "sweep", "a", 1_790_000_000.25)
    assert await kept.here.keep_ids(T, "sweep", "a", "jobs", many)
    assert await kept.here.keep_ids(T, "sweep", "a", "tasks", set())
    assert await kept.here.swept_at(T) == 1_790_000_000.25
    assert await kept.here.ids(T, "jobs") == many
    assert await kept.here.ids(T, "tasks") == frozenset()
    assert await kept.here.ids(T, "contacts") is None


async def test_who_does_not_hold_it_writes_nothing(kept: Kept) -> None:
    here = kept.here
    await here.hold(T, "catch-up", "a", 30)
    await here.hold(T, "sweep", "a", 30)
    writes: list[Callable[[str], Awaitable[bool]]] = [
        lambda token: here.advance(T, "catch-up", token, {"jobs": Mark(1)}, loss=Loss(1, 1), hour=HOUR),
        lambda token: here.note_sweep(T, "sweep", token, 1.0),
        lambda token: here.keep_ids(T, "sweep", token, "jobs", {"j1"}),
    ]
    for write in writes:
        assert not await write("b")
    told = (await here.marks(T), await here.losses(T, [HOUR]), await here.swept_at(T), await here.ids(T, "jobs"))
    assert told == ({}, Loss(0, 0), None, None)
    for write in writes:
        assert await write("a")


@pytest.mark.parametrize("kept", ["redis"], indirect=True)
async def test_what_is_damaged_is_begun_anew(kept: Kept) -> None:
    assert kept.redis is not None
    await kept.here.hold(T, "catch-up", "a", 30)
    await kept.here.advance(T, "catch-up", "a", {"jobs": Mark(1)}, loss=Loss(0, 0), hour=HOUR)
    await kept.redis.hset(f"jobnimbus-sys:{{{T}}}:catch-up", "jobs", "yesterday")
    await kept.redis.set(f"jobnimbus-sys:{{{T}}}:sweep-ids:jobs", b"\x00\x01", ex=60)
    assert await kept.here.marks(T) == {}
    assert await kept.here.ids(T, "jobs") is None


async def test_a_store_that_is_away_is_said_to_be() -> None:
    client = connect("redis://127.0.0.1:1/0")
    away = RedisBackground(Scripts(client, package="jobnimbus_mcp.events.scripts"), seen_key)
    with pytest.raises(CacheUnavailable):
        await away.hold(T, "catch-up", "a", 30)
    with pytest.raises(CacheUnavailable):
        await away.known(T, ["version:1"])
    await client.aclose()
