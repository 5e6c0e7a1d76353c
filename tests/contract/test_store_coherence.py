"""What several processes over one store can rely on: leases of fetches, floors, the log's chain, who has an L1."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.key import CacheKey, entry_glob, system_key
from jobnimbus_mcp.cache.notice import Notice, Told
from jobnimbus_mcp.cache.ports import (
    ANYBODY,
    FLIGHT_LEASE_S,
    FLOOR_AHEAD_S,
    FLOOR_LIFE_S,
    FLOORS_MOST,
    HISTORY_LINES,
    L1_LEASE_S,
    LEASE_MARGIN_S,
    START,
    Ears,
    Lead,
    LeadVerdict,
    Logged,
    LogRow,
    Seen,
    Store,
    StoreError,
    Verdict,
    has_applied,
    order,
)
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock, SystemClock

T = "stamford"
KEY = CacheKey(T, "p1", "jobs", "detail", "j1")
TAGS = ("jobs", "job:j1")
ETAG = "0123456789abcdef"
FAR = "9999999999999-0"


@dataclass
class World:
    """A store; what time and an operator do to it. `later`: so many seconds pass for leases, fleet and floors."""

    store: Store
    later: Callable[[float], Awaitable[Any]]
    evict: Callable[[str], Awaitable[Any]]
    flush: Callable[[], Awaitable[Any]]
    choke_log: Callable[[], Awaitable[Any]]
    trim: Callable[[], Awaitable[Any]]


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield _memory_world()
        return
    client: Any = connect(request.getfixturevalue("redis_url"))

    def name(rest: str) -> str:
        return system_key(T, rest)

    async def later(seconds: float) -> None:
        """Everything that is counted from then is older."""
        microseconds = int(seconds * 1e6)
        if made := await client.hget(name("fleet"), "_"):
            await client.hset(name("fleet"), "_", int(made) - microseconds)
        for floor, value in (await client.hgetall(name("floors"))).items():
            version, told = value.split(b"|")
            await client.hset(name("floors"), floor, b"%s|%d" % (version, int(told) - microseconds))
        for lease in await client.keys(name("lease:*")):
            life_ms = await client.pttl(lease) - int(seconds * 1000)
            value = await client.get(lease)
            if value.startswith(b"!"):
                failures, till = value.split(b"|")
                await client.set(lease, b"%s|%d" % (failures, int(till) - microseconds), keepttl=True)
            await (client.pexpire(lease, life_ms) if life_ms > 0 else client.delete(lease))

    async def choke_log() -> None:
        await client.set(name("log"), "not a stream", ex=60)

    yield World(
        RedisStore(client),
        later,
        client.delete,
        client.flushall,
        choke_log,
        lambda: client.xtrim(name("log"), 1, approximate=False),
    )
    await client.aclose()


def _memory_world() -> World:
    clock = ManualClock(time.time())
    memory = MemoryStore(clock)

    async def later(seconds: float) -> None:
        clock.advance(seconds)

    async def evict(key_text: str) -> None:
        memory.evict(key_text)

    async def flush() -> None:
        memory.flush()

    async def choke_log() -> None:
        memory.fail("out_of_memory")

    async def trim() -> None:
        for number in range(10_000):
            await bump(one, f"x:{number}")

    one = World(memory, later, evict, flush, choke_log, trim)
    return one


def call() -> Call:
    return Call.begin(SystemClock(), "test")


def notice(event_id: str = "e1", *, dedupe_key: str = "", floors: dict[str, int] | None = None) -> Notice:
    return Notice("job.updated", "job", "j1", "webhook", time.time(), event_id, dedupe_key, floors or {})


def encoded(seen: Seen, etag: str = ETAG) -> bytes:
    return encode(Entry(b"{}", False, 1.0, etag), key_text=KEY.text, vector=seen.vector, tags=TAGS, compress=True)


async def look(world: World, *, etag: str = "", dirty: bool = False, key: CacheKey = KEY) -> Seen:
    return await world.store.read(key, TAGS, etag, want=True, dirty=dirty, call=call())


async def fill(world: World, seen: Seen, token: str = "", etag: str = ETAG) -> bool:
    return await world.store.fill(
        KEY, TAGS, seen, encoded(seen, etag), ttl_s=60, admission_s=60, token=token, call=call()
    )


async def bump(world: World, *tags: str, tells: tuple[str, ...] = (), **options: Any) -> Told:
    applied = await world.store.append_and_bump(T, tags or ("jobs",), notice(**options), call(), tells=tells)
    return applied.told


async def lead(world: World, seen: Seen, token: str, **options: Any) -> Lead:
    return await world.store.lead(KEY, seen, token, call=call(), **options)


async def release(world: World, token: str, result: str = "failed", **options: Any) -> None:
    await world.store.release(KEY, token, result=result, call=call(), **options)


async def changes(world: World, after: str = START) -> list[Logged]:
    return await world.store.changes(T, after, call())


async def renew(
    world: World, instance: str = "i1", applied: str = START, *, register: bool = True
) -> tuple[bytes, str]:
    return await world.store.renew_l1(T, instance, applied, register=register, call=call())


async def wakes(world: World) -> list[tuple[str, str]]:
    heard = await world.store.listen({T: Ears(None, START)}, block_s=0)
    return [(wake.key_text, wake.result) for one in heard.values() for wake in one.wakes]


async def settled(world: World) -> None:
    """A tenant that is in use: an epoch, a register older than a lease."""
    await look(world)
    await renew(world, "first")
    await world.store.strike(T, {"first": None}, call())
    await world.later(L1_LEASE_S + LEASE_MARGIN_S + 0.1)


# -- dirty entries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", ["", ETAG])
async def test_a_dirty_entry_is_given_to_who_asks_for_it_and_to_nobody_else(world: World, etag: str) -> None:
    before = await look(world)
    assert await fill(world, before)
    await bump(world)
    plain, found = await look(world, etag=etag), await look(world, etag=etag, dirty=True)
    assert (plain.verdict, plain.value) == (Verdict.MISS, None)
    assert (found.verdict, found.value) == (Verdict.DIRTY, encoded(before))
    assert 59 < found.ttl_s <= 60
    assert 59 < found.admitted_s <= 60
    assert found.vector == plain.vector != before.vector
    assert found.guard == before.guard


@pytest.mark.parametrize("lost", ["epoch", "g:jobs"])
async def test_an_entry_whose_generation_was_lost_is_dirty_and_the_new_one_noted(world: World, lost: str) -> None:
    before = await look(world)
    assert await fill(world, before)
    await world.evict(system_key(T, lost))
    found = await look(world, etag=ETAG, dirty=True)
    assert (found.verdict, found.value) == (Verdict.DIRTY, encoded(before))
    assert await fill(world, found)
    assert (await look(world)).verdict is Verdict.HIT


async def test_who_asks_for_dirty_ones_gets_a_clean_one_as_a_hit(world: World) -> None:
    assert (await look(world, dirty=True)).verdict is Verdict.MISS
    seen = await look(world)
    assert await fill(world, seen)
    assert (await look(world, dirty=True)).verdict is Verdict.HIT
    assert (await look(world, dirty=True, etag=ETAG)).verdict is Verdict.NOT_MODIFIED


async def test_a_hit_without_a_guard_has_one_made_for_it(world: World) -> None:
    before = await look(world)
    assert await fill(world, before)
    for etag, verdict in (("", Verdict.HIT), (ETAG, Verdict.NOT_MODIFIED)):
        await world.evict(system_key(T, "fill-guard"))
        found = await look(world, etag=etag)
        assert (found.verdict, found.vector) == (verdict, before.vector)
        assert found.guard not in (b"", before.guard)
        assert await fill(world, found) is True


# -- leases of fetches ---------------------------------------------------------------------------------------------


async def test_the_first_leads_and_the_second_follows_for_what_remains_of_the_lease(world: World) -> None:
    seen = await look(world)
    assert (await lead(world, seen, "a")).verdict is LeadVerdict.LED
    second = await lead(world, seen, "b")
    assert second.verdict is LeadVerdict.FOLLOW
    assert FLIGHT_LEASE_S - 1 < second.wait_s <= FLIGHT_LEASE_S
    assert (await lead(world, seen, "a")).verdict is LeadVerdict.LED


async def test_a_lease_that_is_kept_lasts_and_one_that_is_not_ends(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    for _ in range(3):
        await world.later(FLIGHT_LEASE_S - 1)
        assert await world.store.keep_lead(KEY, "a", call())
        assert (await lead(world, seen, "b")).verdict is LeadVerdict.FOLLOW
    await world.later(FLIGHT_LEASE_S + 0.1)
    assert await world.store.keep_lead(KEY, "a", call()) is False
    assert (await lead(world, seen, "b")).verdict is LeadVerdict.LED
    assert await fill(world, seen, "a") is False
    assert await fill(world, seen, "b") is True


async def test_at_newer_generations_the_lease_is_taken_over_and_the_older_fetch_kept_out(world: World) -> None:
    old = await look(world)
    await lead(world, old, "a")
    await bump(world)
    new = await look(world)
    assert (await lead(world, new, "b")).verdict is LeadVerdict.LED
    assert await world.store.keep_lead(KEY, "a", call()) is False
    await release(world, "a", throttle_s=60)
    assert await fill(world, old, "a") is False
    assert await world.store.keep_lead(KEY, "b", call()) is True
    assert await fill(world, new, "b") is True


async def test_who_comes_late_with_older_generations_follows_the_newer_fetch(world: World) -> None:
    old = await look(world)
    await bump(world)
    new = await look(world)
    await lead(world, new, "b")
    assert (await lead(world, old, "a")).verdict is LeadVerdict.FOLLOW
    assert await fill(world, new, "b") is True


async def test_a_fetch_after_a_moved_guard_takes_the_lease_over(world: World) -> None:
    old = await look(world)
    await lead(world, old, "a")
    await world.store.withdraw(T, "p1", call())
    assert (await lead(world, await look(world), "b")).verdict is LeadVerdict.LED


async def test_who_followed_the_one_that_was_taken_over_is_woken_by_the_next(world: World) -> None:
    old = await look(world)
    await lead(world, old, "a")
    await lead(world, old, "follower")
    await bump(world)
    new = await look(world)
    await lead(world, new, "b")
    assert await fill(world, old, "a") is False
    assert await wakes(world) == []
    assert await fill(world, new, "b")
    assert await wakes(world) == [(KEY.text, "stored")]


async def test_only_the_owner_gives_the_lease_back(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    for other in ("b", ""):
        await release(world, other)
        assert await world.store.keep_lead(KEY, other or "b", call()) is False
    assert await world.store.keep_lead(KEY, "a", call()) is True
    await release(world, "a")
    assert await world.store.keep_lead(KEY, "a", call()) is False
    assert (await lead(world, seen, "b")).verdict is LeadVerdict.LED


async def test_a_token_that_starts_like_the_owners_is_another(world: World) -> None:
    await lead(world, await look(world), "abc")
    assert await world.store.keep_lead(KEY, "ab", call()) is False


async def test_a_stored_entry_ends_the_lease_and_who_comes_then_is_told_of_it(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    assert await fill(world, seen, "a")
    assert await world.store.keep_lead(KEY, "a", call()) is False
    assert (await lead(world, seen, "b")).verdict is LeadVerdict.FILLED
    assert (await lead(world, seen, "b", etag="f" * 16)).verdict is LeadVerdict.FILLED
    assert (await lead(world, seen, "b", etag=ETAG)).verdict is LeadVerdict.LED


async def test_an_entry_of_older_generations_is_no_reason_not_to_lead(world: World) -> None:
    assert await fill(world, await look(world))
    await bump(world)
    assert (await lead(world, await look(world), "a")).verdict is LeadVerdict.LED


async def test_a_bump_between_look_up_and_fill_keeps_nothing_and_ends_the_lease_all_the_same(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    await lead(world, seen, "b")
    await bump(world)
    assert await fill(world, seen, "a") is False
    assert await wakes(world) == [(KEY.text, "unkept")]
    assert await world.store.keep_lead(KEY, "a", call()) is False
    assert (await look(world)).verdict is Verdict.MISS


async def test_a_fill_without_a_lease_leaves_anothers_alone(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    assert await fill(world, seen) is True
    assert await world.store.keep_lead(KEY, "a", call()) is True


async def test_after_a_failure_the_patient_wait_and_the_others_lead_and_know_how_often_it_failed(world: World) -> None:
    seen = await look(world)
    assert (await lead(world, seen, "a", patient=True)).failures == 0
    await release(world, "a", failures=3, throttle_s=30)
    throttled = await lead(world, seen, "b", patient=True)
    assert throttled.verdict is LeadVerdict.THROTTLED
    assert 29 < throttled.wait_s <= 30
    await world.later(30.1)
    again = await lead(world, seen, "b", patient=True)
    assert (again.verdict, again.failures) == (LeadVerdict.LED, 3)
    await release(world, "b", failures=4, throttle_s=60)
    at_once = await lead(world, seen, "c")
    assert (at_once.verdict, at_once.failures) == (LeadVerdict.LED, 4)


async def test_a_lease_given_back_without_a_throttle_leaves_no_trace(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    await release(world, "a", result="unkept", failures=3)
    again = await lead(world, seen, "b", patient=True)
    assert (again.verdict, again.failures) == (LeadVerdict.LED, 0)


async def test_a_failure_is_forgotten_in_the_end(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    await release(world, "a", failures=3, throttle_s=30)
    await world.later(2 * 30 + 61)
    assert (await lead(world, seen, "b", patient=True)).failures == 0


@pytest.mark.parametrize(
    ("followed", "heard"), [(False, []), (True, [(KEY.text, "failed")])], ids=["alone", "followed"]
)
async def test_only_who_is_waited_for_wakes(world: World, followed: bool, heard: list[tuple[str, str]]) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    if followed:
        await lead(world, seen, "b")
    await release(world, "a", throttle_s=30)
    assert await wakes(world) == heard


async def test_a_kept_entry_that_nobody_waits_for_wakes_nobody(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    assert await fill(world, seen, "a")
    assert await wakes(world) == []


# -- floors --------------------------------------------------------------------------------------------------------


async def floors(world: World) -> dict[str, tuple[int, float]]:
    token = str(time.monotonic_ns())
    led = await lead(world, await look(world), token)
    await release(world, token)
    return {name: (floor.version_s, floor.age_s) for name, floor in led.floors.items()}


async def test_who_leads_is_told_what_changes_said_and_the_highest_version_counts(world: World) -> None:
    now = int(time.time())
    await bump(world, floors={"job:j1": now - 5, "jobs": 0})
    await bump(world, floors={"job:j1": now - 9})
    found = await floors(world)
    assert {name: version for name, (version, _) in found.items()} == {"job:j1": now - 5, "jobs": 0}
    assert all(0 <= age_s < 5 for _, age_s in found.values())


async def test_a_duplicate_raises_its_floors_as_well(world: World) -> None:
    await bump(world, dedupe_key="d", floors={"a": 5})
    await bump(world, dedupe_key="d", floors={"a": 7})
    assert (await floors(world))["a"][0] == 7


async def test_a_version_from_the_future_is_taken_for_the_stores_time(world: World) -> None:
    await bump(world, floors={"a": int(time.time()) + 10_000, "b": -7})
    found = await floors(world)
    assert time.time() <= found["a"][0] <= time.time() + FLOOR_AHEAD_S
    assert found["b"][0] == 0


async def test_a_floor_ages_and_is_forgotten_and_counts_no_more_when_raised_anew(world: World) -> None:
    await bump(world, floors={"a": 500})
    await world.later(FLOOR_LIFE_S - 1)
    assert FLOOR_LIFE_S - 2 < (await floors(world))["a"][1] < FLOOR_LIFE_S
    await world.later(2)
    assert await floors(world) == {}
    await bump(world, floors={"a": 400})
    assert (await floors(world))["a"][0] == 400


async def test_a_mass_change_forgets_the_floors_told_first(world: World) -> None:
    for hundred in range(FLOORS_MOST // 100 + 1):
        await bump(world, floors={f"{hundred}-{number}": 1 for number in range(100)})
    found = await floors(world)
    assert len(found) == FLOORS_MOST // 2
    assert {f"{FLOORS_MOST // 100}-{number}" for number in range(100)} <= found.keys()
    assert not any(name.startswith("0-") for name in found)


async def test_who_follows_or_is_of_another_tenant_is_told_no_floors(world: World) -> None:
    await bump(world, floors={"a": 5})
    seen = await look(world)
    await lead(world, seen, "a")
    assert (await lead(world, seen, "b")).floors == {}
    key = CacheKey("guilford", "p1", "jobs", "detail", "j1")
    there = await world.store.read(key, TAGS, "", want=True, call=call())
    assert (await world.store.lead(key, there, "a", call=call())).floors == {}


# -- who must have heard -------------------------------------------------------------------------------------------


async def test_a_bump_tells_its_position_and_how_many_have_an_l1(world: World) -> None:
    await settled(world)
    told = await bump(world)
    assert told[:3] == ((await changes(world))[-1].position, 0, False)
    for instance in ("i1", "i2", "i1"):
        await renew(world, instance)
    told = await bump(world)
    assert (told.registered, told.unknown) == (2, False)
    await world.store.strike(T, {"i1": None}, call())
    assert (await world.store.renew_epoch(T, call())).registered == 1
    await renew(world, "i3", register=False)
    assert (await bump(world)).registered == 1


async def test_after_the_epoch_was_lost_a_bump_knows_nobody_once(world: World) -> None:
    await settled(world)
    await world.evict(system_key(T, "epoch"))
    assert (await bump(world)).unknown is True
    assert (await renew(world))[0] != b""
    assert (await bump(world)).unknown is False
    await world.evict(system_key(T, "epoch"))
    assert (await world.store.renew_epoch(T, call())).unknown is True
    assert (await world.store.renew_epoch(T, call())).unknown is False


@pytest.mark.parametrize("how", ["bump", "renew_epoch"])
async def test_after_a_flush_nobody_is_known_for_a_lease(world: World, how: str) -> None:
    async def invalidated() -> Told:
        return await (bump(world) if how == "bump" else world.store.renew_epoch(T, call()))

    await settled(world)
    assert (await invalidated()).unknown is False
    await world.flush()
    assert (await invalidated()).unknown is True
    assert (await invalidated()).unknown is True
    await renew(world)
    assert (await invalidated()).unknown is True
    await world.later(L1_LEASE_S + LEASE_MARGIN_S - 1)
    assert (await invalidated()).unknown is True
    await world.later(1.1)
    told = await invalidated()
    assert (told.unknown, told.registered) == (False, 1)


@pytest.mark.parametrize("how", ["bump", "renew_epoch", "withdraw", "delete_some"])
async def test_where_the_log_takes_no_line_everything_is_invalid(world: World, how: str) -> None:
    await settled(world)
    seen = await look(world)
    assert await fill(world, seen)
    await world.choke_log()
    if how == "bump":
        assert (await bump(world, "another")).unknown is True
    elif how == "renew_epoch":
        assert (await world.store.renew_epoch(T, call())).unknown is True
    elif how == "withdraw":
        await world.store.withdraw(T, "another", call())
    else:
        await world.store.delete_some(T, entry_glob(T, entity="none"), 0, call())
    assert (await world.store.generations(T, (), call()))[0] is None
    assert (await look(world)).verdict is Verdict.MISS


# -- the log's chain -----------------------------------------------------------------------------------------------


async def test_every_kind_of_invalidation_is_one_line_that_names_the_one_before(world: World) -> None:
    await look(world)
    start = (await renew(world))[1]
    await bump(world, "jobs", "job:j1", tells=("*", "jobs"), event_id="e1", dedupe_key="d")
    await bump(world, "jobs", event_id="e2", dedupe_key="d")
    await world.store.renew_epoch(T, call())
    await world.store.withdraw(T, "p1", call())
    await world.store.withdraw(T, "stranger", call(), if_admitted=True)
    await world.store.delete_some(T, entry_glob(T), 0, call())
    lines = await changes(world, start)
    assert [line.tags for line in lines] == [("jobs", "job:j1", "*"), ("jobs",), ("*",), ("bearer:p1",), ("*",)]
    assert [line.previous for line in lines] == [start, *(line.position for line in lines[:-1])]
    assert sorted((line.position for line in lines), key=order) == [line.position for line in lines]
    assert await changes(world, lines[1].position) == lines[2:]
    rows: list[LogRow] = await world.store.log(T, limit=10, since=None, call=call())
    assert [row.event_id for row in rows] == ["e1"]
    assert (await renew(world))[1] == lines[-1].position


async def test_lines_for_l1_alone_do_not_push_peoples_lines_out_of_the_listing(world: World) -> None:
    for event_id in ("e1", "e2"):
        await bump(world, event_id=event_id)
        for _ in range(510):
            await world.store.withdraw(T, "p1", call())
    rows = await world.store.log(T, limit=2, since=None, call=call())
    assert [row.event_id for row in rows] == ["e2", "e1"]
    assert await world.store.log(T, limit=0, since=None, call=call()) == []


async def test_the_chain_shows_that_lines_were_trimmed_away(world: World) -> None:
    applied = (await bump(world)).position
    await bump(world)
    await bump(world)
    await world.trim()
    first = (await changes(world, applied))[0]
    assert first.previous != applied
    assert order(first.previous) > order(applied)


async def test_after_a_flush_the_log_stands_before_everything_and_its_first_line_follows_nothing(world: World) -> None:
    await look(world)
    applied = (await bump(world)).position
    await world.flush()
    assert await renew(world) == (b"", START)
    assert await changes(world, applied) == []
    await bump(world)
    assert (await changes(world))[0].previous == START


async def test_changes_come_a_thousand_at_most_and_go_on_from_there(world: World) -> None:
    for _ in range(1_003):
        await world.store.withdraw(T, "p1", call())
    first = await changes(world)
    rest = await changes(world, first[-1].position)
    assert len(first) == 1_000
    assert 3 <= len(rest) <= 4
    assert rest[0].previous == first[-1].position


# -- who has an L1 -------------------------------------------------------------------------------------------------


async def test_who_has_not_applied_a_position_is_behind_until_it_says_so(world: World) -> None:
    await settled(world)
    await renew(world, "i1")
    await renew(world, "i2")
    position = (await bump(world)).position
    assert set(await world.store.behind(T, position, call())) == {"i1", "i2"}
    await renew(world, "i1", position)
    assert set(await world.store.behind(T, position, call())) == {"i2"}
    later = (await bump(world)).position
    await renew(world, "i2", later)
    assert await world.store.behind(T, position, call()) == {}
    assert set(await world.store.behind(T, later, call())) == {"i1"}
    assert set(await world.store.behind(T, FAR, call())) == {"i1", "i2"}


async def test_who_applied_a_log_that_was_lost_is_behind(world: World) -> None:
    await settled(world)
    told = await bump(world)
    await renew(world, "i1", FAR)
    assert set(await world.store.behind(T, told.position, call())) == {"i1"}


async def test_an_instance_is_struck_unless_it_has_registered_anew(world: World) -> None:
    for instance in ("dead", "alive", "gone"):
        await renew(world, instance)
    known = await world.store.behind(T, FAR, call())
    await renew(world, "alive")
    assert (await world.store.behind(T, FAR, call()))["alive"] != known["alive"]
    await world.store.strike(T, {"dead": known["dead"], "alive": known["alive"], "gone": None, "no one": b"x"}, call())
    assert set(await world.store.behind(T, FAR, call())) == {"alive"}
    await world.store.strike(T, {}, call())


async def test_what_the_register_knows_of_itself_is_no_instance_to_be_struck(world: World) -> None:
    await settled(world)
    await world.store.strike(T, {ANYBODY: None}, call())
    told = await bump(world)
    assert told.unknown is False
    assert await world.store.behind(T, told.position, call()) == {}


async def test_a_register_younger_than_a_line_says_that_somebody_unknown_may_be_behind(world: World) -> None:
    await settled(world)
    position = (await bump(world)).position
    assert await world.store.behind(T, position, call()) == {}
    await world.flush()
    assert set(await world.store.behind(T, position, call())) == {ANYBODY}
    await renew(world)
    assert ANYBODY in await world.store.behind(T, position, call())


async def test_another_register_than_that_of_the_invalidation_says_so_whatever_its_age(world: World) -> None:
    """One made anew by a server whose clock is behind is older than the line that it never knew of."""
    await settled(world)
    told = await bump(world)
    assert told.register
    assert await world.store.behind(T, told.position, call(), register=told.register) == {}
    assert set(await world.store.behind(T, told.position, call(), register=b"1")) == {ANYBODY}


async def test_positions_are_compared_as_numbers_and_nonsense_has_applied_nothing() -> None:
    assert has_applied(b"10-9|x", "9-10", "10-9")
    assert has_applied(b"10-10|x", "10-9", "11-0")
    assert not has_applied(b"10-9|x", "10-10", "11-0")
    assert not has_applied(b"12-0|x", "10-0", "11-0")
    assert not any(has_applied(value, "0-0", FAR) for value in (b"", b"|", b"x-1|", b"\xff|1"))


# -- listening -----------------------------------------------------------------------------------------------------


async def test_what_came_before_listening_is_heard_at_once_in_order_and_by_tenant(world: World) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    await lead(world, seen, "b")
    positions = [(await bump(world)).position for _ in range(3)]
    await release(world, "a")
    await world.store.append_and_bump("guilford", ("jobs",), notice(), call())
    ears = {T: Ears(positions[0], START), "guilford": Ears(START, START)}
    heard = await asyncio.wait_for(world.store.listen(ears, block_s=5), 5)
    assert [line.position for line in heard[T].changes] == positions[1:]
    assert [(wake.key_text, wake.result) for wake in heard[T].wakes] == [(KEY.text, "failed")]
    assert heard["guilford"].changes[-1].tags == ("jobs",)
    assert heard["guilford"].wakes == ()


async def test_who_listens_to_wakes_alone_hears_no_lines(world: World) -> None:
    await bump(world)
    assert await world.store.listen({T: Ears(None, START)}, block_s=0) == {}
    assert await world.store.listen({}, block_s=5) == {}


async def until_listening(world: World, task: asyncio.Task[Any]) -> None:
    for _ in range(50):
        await asyncio.sleep(0.002)
    assert not task.done()


@pytest.mark.parametrize("by", ["bump", "renew_epoch", "withdraw", "delete_some", "release"])
async def test_who_waits_is_woken_by_every_line_and_wake(world: World, by: str) -> None:
    seen = await look(world)
    await lead(world, seen, "a")
    await lead(world, seen, "b")
    ears = {"darien": Ears(FAR, START), T: Ears((await renew(world))[1], START)}
    task = asyncio.create_task(world.store.listen(ears, block_s=5))
    await until_listening(world, task)
    match by:
        case "bump":
            await bump(world)
        case "renew_epoch":
            await world.store.renew_epoch(T, call())
        case "withdraw":
            await world.store.withdraw(T, "p1", call())
        case "delete_some":
            await world.store.delete_some(T, entry_glob(T), 0, call())
        case "release":
            await release(world, "a")
    heard = await asyncio.wait_for(task, 2)
    assert set(heard) == {T}
    assert len(heard[T].changes) + len(heard[T].wakes) == 1


async def test_listening_ends_after_its_time_with_nothing(world: World) -> None:
    position = (await bump(world)).position
    task = asyncio.create_task(world.store.listen({T: Ears(position, START)}, block_s=0.15))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    await world.later(0.2)
    assert await asyncio.wait_for(task, 2) == {}


async def test_a_listener_that_is_given_up_leaves_the_store_as_it_was(world: World) -> None:
    seen = await look(world)
    for _ in range(5):
        position = (await renew(world))[1]
        task = asyncio.create_task(world.store.listen({T: Ears(position, START)}, block_s=5))
        await until_listening(world, task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await bump(world)
        assert (await renew(world))[1] != position
    assert await fill(world, seen) is False
    assert await fill(world, await look(world)) is True


# -- looking at it -------------------------------------------------------------------------------------------------


async def test_one_entry_is_inspected_valid_or_not(world: World) -> None:
    assert await world.store.inspect(KEY, call()) is None
    seen = await look(world)
    assert await fill(world, seen)
    await bump(world)
    row = await world.store.inspect(KEY, call())
    assert row is not None
    assert (row.key, row.head, row.size_bytes) == (KEY.text, encoded(seen), len(encoded(seen)))
    assert 59 < row.ttl_s <= 60


async def test_looking_at_generations_makes_none(world: World) -> None:
    key = CacheKey("darien", "p1", "jobs", "detail", "j1")
    for _ in range(2):
        assert (await world.store.generations("darien", TAGS, call()))[1:] == (None, None)
    seen = await world.store.read(key, TAGS, "", want=False, call=call())
    found = await world.store.generations("darien", (*TAGS, "other"), call())
    assert found[-1] is None
    assert b"\n".join(one for one in found[:-1] if one is not None) == seen.vector


# -- a Redis server's own ------------------------------------------------------------------------------------------


async def test_a_process_that_finds_another_server_tells_everybody_and_knows_nobody_for_a_lease(redis_url: str) -> None:
    """What a replica that took over has lost may be the registration of an instance that still trusts its L1."""
    client: Any = connect(redis_url)
    try:
        store = RedisStore(client)
        await store.append_and_bump(T, ("jobs",), notice(), call())
        await store.renew_l1(T, "i1", START, register=True, call=call())
        made = int(await client.hget(system_key(T, "fleet"), "_"))
        await client.hset(system_key(T, "fleet"), "_", made - 10_000_000)
        assert (await store.append_and_bump(T, ("jobs",), notice(), call())).told.unknown is False
        before = (await store.changes(T, START, call()))[-1].position
        await client.set(system_key(T, "run"), "another")
        successor: Any = connect(redis_url)
        told = (await RedisStore(successor).append_and_bump(T, ("jobs",), notice(), call())).told
        await successor.aclose()
        assert (told.unknown, told.registered) == (True, 1)
        lines = await store.changes(T, before, call())
        assert [line.tags for line in lines] == [("*",), ("jobs",)]
        assert lines[0].previous == before
    finally:
        await client.aclose()


async def test_a_register_made_in_the_future_says_nothing(redis_url: str) -> None:
    client: Any = connect(redis_url)
    try:
        store = RedisStore(client)
        await store.read(KEY, TAGS, "", want=True, call=call())
        await client.hset(system_key(T, "fleet"), "_", int((time.time() + 3_600) * 1e6))
        assert (await store.append_and_bump(T, (), notice(), call())).told.unknown is True
        assert int(await client.hget(system_key(T, "fleet"), "_")) <= time.time() * 1e6 + 1e6
    finally:
        await client.aclose()


async def test_a_line_without_a_predecessor_follows_nothing_that_was_applied(redis_url: str) -> None:
    """As an older release writes it."""
    client: Any = connect(redis_url)
    try:
        store = RedisStore(client)
        told = (await store.append_and_bump(T, ("jobs",), notice(), call())).told
        await client.xadd(system_key(T, "log"), {"id": "e2", "event": "job.updated", "tags": "jobs"})
        (line,) = await store.changes(T, told.position, call())
        assert (line.previous, line.tags) == ("", ("jobs",))
    finally:
        await client.aclose()


async def test_a_listener_of_a_key_that_is_no_stream_is_told_so(redis_url: str) -> None:
    client: Any = connect(redis_url)
    try:
        await client.set(system_key(T, "log"), "x", ex=60)
        with pytest.raises(StoreError):
            await RedisStore(client).listen({T: Ears(START, START)}, block_s=1)
        await RedisStore(client).ping(call())
    finally:
        await client.aclose()


async def test_two_releases_share_a_server_without_showing_each_other_their_entries(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share generations, log and leases, so that an invalidation by one holds for the other."""
    client: Any = connect(redis_url)
    store = RedisStore(client)
    module = "jobnimbus_mcp.cache.store_redis.VERSION"

    async def read(version: int) -> Seen:
        with monkeypatch.context() as patched:
            patched.setattr(module, version)
            return await store.read(KEY, TAGS, "", want=True, call=call())

    async def kept(version: int) -> None:
        seen = await read(version)
        value = bytes([version]) + encoded(seen)[1:]
        assert await store.fill(KEY, TAGS, seen, value, ttl_s=60, admission_s=60, call=call())

    try:
        for ours, theirs in ((3, 4), (4, 3), (3, 2)):
            await kept(theirs)
            assert (await read(theirs)).verdict is Verdict.HIT
            found = await read(ours)
            assert (found.verdict, found.admitted) == (Verdict.MISS, True)
            assert (await store.lead(KEY, found, "t", call=call())).verdict is (
                LeadVerdict.LED if theirs != 3 else LeadVerdict.FILLED
            )
            await store.release(KEY, "t", result="failed", call=call())
            await kept(ours)
            assert (await read(ours)).verdict is Verdict.HIT
            assert (await read(theirs)).verdict is Verdict.MISS
            await store.append_and_bump(T, ("jobs",), notice(), call())
            assert (await read(ours)).verdict is Verdict.MISS
    finally:
        await client.aclose()


async def test_the_history_is_what_came_after_a_position_or_within_a_time(world: World) -> None:
    store = world.store
    before = (await store.history(T, "", 0, call())).position  # a server that is met for the first time has one line
    nothing = await store.history(T, before, 0, call())
    assert (nothing.position, nothing.since(before)) == (before, ())
    first = (await bump(world, "jobs")).position
    second = (await bump(world, "jobs", "tasks")).position

    recent = await store.history(T, before, 0, call())
    assert recent.epoch == (await store.generations(T, (), call()))[0]
    assert recent.position == second
    assert [(line.position, line.previous, line.tags) for line in recent.lines] == [
        (first, before, ("jobs",)),
        (second, first, ("jobs", "tasks")),
    ]
    assert recent.since(before) == recent.lines
    assert (await store.history(T, second, 60, call())).settled == START, "all of it is from the last minute"
    assert recent.since(first) == recent.lines[1:]
    assert recent.since(second) == ()
    assert abs(recent.now_ms - int(second.partition("-")[0])) < 60_000


async def test_a_history_that_is_not_all_there_tells_nothing(world: World) -> None:
    store = world.store
    first = (await bump(world, "jobs")).position
    await bump(world, "tasks")
    told = await store.history(T, first, 0, call())

    assert told.since("1-1") is None, "the lines between are not here"
    assert told.since("9999999999999-0") is None, "the log has not come so far: it was lost"
    for _ in range(HISTORY_LINES):
        await bump(world, "jobs")
    assert (await store.history(T, first, 0, call())).since(first) is None, "too long to be told"
