"""Receipts: the same of memory and of a real Redis, and what only Redis has to hold."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import redis

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.gateway.receipts import (
    LIFE_S,
    Another,
    Done,
    Keeping,
    Kept,
    MemoryReceipts,
    New,
    Owner,
    ReceiptsByAccount,
    Running,
    Unknown,
    digest,
)
from jobnimbus_mcp.gateway.receipts_redis import RedisReceipts

MINE = Owner("stamford", "p" * 32)
NOW = 1_790_000_000.25
KEPT = Kept(Entity.JOBS, Action.UPDATED, "mjob1", ("name", "Größe:"), "so")
PART = Kept(Entity.SETTINGS, Action.CREATED, part={"id": 7, "name": "Door hanger"})
PACKAGE = "jobnimbus_mcp.gateway.scripts"
T = TypeVar("T")


class InMemory:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.receipts = MemoryReceipts(self.clock, _tokens())

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)


class InRedis:
    """`later`: what the receipts hold is set back, since Redis has a clock of its own."""

    def __init__(self, url: str, looked_at: str) -> None:
        self.client = connect(url)
        self.url = looked_at
        self.receipts = RedisReceipts(Scripts(self.client, package=PACKAGE), _tokens())

    def later(self, seconds: float) -> None:
        with redis.Redis.from_url(self.url) as looking:
            for key in looking.keys("jobnimbus-sys:*:receipt:*"):
                for name in ("t", "u"):
                    value = looking.hget(key, name)
                    if value:
                        looking.hset(key, name, int(value) - int(seconds * 1000))


def _tokens() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"token-{next(numbers)}"


World = InMemory | InRedis


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield InMemory()
        return
    made = InRedis(request.getfixturevalue("redis_acl_url"), request.getfixturevalue("redis_url"))
    yield made
    await made.client.aclose()


async def within(work: Awaitable[T]) -> T:
    async with asyncio.timeout(5):
        return await work


async def begin(receipts: Keeping, fingerprint: str = "f", *, key: str = "key", owner: Owner = MINE) -> Any:
    return await within(receipts.begin(owner, key, fingerprint, NOW, lease_s=34.0))


async def test_who_comes_first_has_the_key_and_who_comes_next_hears_so(world: World) -> None:
    first, second = await begin(world.receipts), await begin(world.receipts)

    assert isinstance(first, New)
    assert isinstance(second, Running)
    assert 30.0 < second.retry_after_s <= 34.0


async def test_of_many_at_once_one_has_the_key(world: World) -> None:
    standings = await asyncio.gather(*(begin(world.receipts) for _ in range(20)))

    assert sorted(type(standing).__name__ for standing in standings) == ["New", *["Running"] * 19]


@pytest.mark.parametrize("kept", [KEPT, PART], ids=["record", "setting"])
async def test_what_was_done_is_told_as_it_was(world: World, kept: Kept) -> None:
    first = await begin(world.receipts)
    await within(world.receipts.done(MINE, "key", first.token, kept))

    assert [await begin(world.receipts), await begin(world.receipts)] == [Done(kept), Done(kept)]


async def test_a_key_of_another_write_is_said_to_be_so_whatever_became_of_it(world: World) -> None:
    first = await begin(world.receipts)
    assert await begin(world.receipts, "other") == Another()
    await within(world.receipts.unknown(MINE, "key", first.token, sent=True))
    assert await begin(world.receipts, "other") == Another()
    again = await begin(world.receipts)
    await within(world.receipts.done(MINE, "key", again.token, KEPT))
    assert await begin(world.receipts, "other") == Another()


async def test_a_key_that_is_given_back_is_as_good_as_new(world: World) -> None:
    first = await begin(world.receipts)
    await within(world.receipts.forget(MINE, "key", first.token))

    assert isinstance(await begin(world.receipts, "other"), New)


async def test_what_was_not_seen_to_end_has_to_be_looked_for_by_one_at_a_time(world: World) -> None:
    first = await begin(world.receipts)
    await within(world.receipts.unknown(MINE, "key", first.token, sent=True))
    world.later(4.0)
    second = await begin(world.receipts)

    assert isinstance(second, Unknown)
    assert (second.began, second.token != first.token) == (NOW, True)
    assert 4.0 <= second.age_s < 7.0
    assert isinstance(await begin(world.receipts), Running)


async def test_looking_does_not_make_it_younger_and_sending_does(world: World) -> None:
    first = await begin(world.receipts)
    await within(world.receipts.unknown(MINE, "key", first.token, sent=True))
    world.later(10.0)
    second = await begin(world.receipts)
    await within(world.receipts.unknown(MINE, "key", second.token, sent=False))
    third = await begin(world.receipts)
    await within(world.receipts.unknown(MINE, "key", third.token, sent=True))
    fourth = await begin(world.receipts)

    assert 10.0 <= third.age_s < 13.0
    assert 0.0 <= fourth.age_s < 3.0


async def test_who_dies_with_a_key_may_have_sent_until_the_lease_was_over(world: World) -> None:
    await begin(world.receipts)
    world.later(33.0)
    assert isinstance(await begin(world.receipts), Running)
    world.later(6.0)
    taken = await begin(world.receipts)

    assert isinstance(taken, Unknown)
    assert taken.began == NOW
    assert 5.0 <= taken.age_s < 8.0


async def test_who_comes_back_when_another_has_the_key_changes_nothing(world: World) -> None:
    late = await begin(world.receipts)
    world.later(35.0)
    taken = await begin(world.receipts)
    for end in (
        world.receipts.done(MINE, "key", late.token, KEPT),
        world.receipts.unknown(MINE, "key", late.token, sent=True),
        world.receipts.forget(MINE, "key", late.token),
    ):
        await within(end)
    assert isinstance(await begin(world.receipts), Running)
    await within(world.receipts.done(MINE, "key", taken.token, KEPT))
    assert await begin(world.receipts) == Done(KEPT)


@pytest.mark.parametrize(
    ("key", "owner"),
    [("other", MINE), ("key", Owner("stamford", "q" * 32)), ("key", Owner("guilford", "p" * 32))],
)
async def test_other_keys_owners_and_accounts_have_nothing_in_common(world: World, key: str, owner: Owner) -> None:
    await begin(world.receipts)
    assert isinstance(await begin(world.receipts, key=key, owner=owner), New)


async def test_it_is_known_under_whose_key_a_record_was_made(world: World) -> None:
    theirs = Owner("stamford", "q" * 32)
    for number, owner in enumerate((MINE, theirs, Owner("guilford", "p" * 32))):
        first = await begin(world.receipts, key=f"key {number}", owner=owner)
        made = Kept(Entity.TASKS, Action.CREATED, f"made {number}")
        await within(world.receipts.done(owner, f"key {number}", first.token, made))
    changed = await begin(world.receipts, key="a change")
    await within(world.receipts.done(MINE, "a change", changed.token, KEPT))
    jnids = ["made 0", "made 1", "made 2", KEPT.jnid, *(f"nobody's {number}" for number in range(1_200))]

    assert await within(world.receipts.others(MINE, "key 0", jnids)) == {"made 1"}
    assert await within(world.receipts.others(theirs, "key 1", jnids)) == {"made 0"}
    assert await within(world.receipts.others(MINE, "", jnids)) == {"made 0", "made 1"}
    assert await within(world.receipts.others(MINE, "key 0", [])) == frozenset()


@pytest.mark.parametrize("key", ["ключ\0 {x}", "\ud800", "a" * 200])
async def test_any_words_can_be_a_key(world: World, key: str) -> None:
    first = await begin(world.receipts, key=key)
    await within(world.receipts.done(MINE, key, first.token, KEPT))
    assert await begin(world.receipts, key=key) == Done(KEPT)


async def test_the_first_rows_of_an_id_stay(world: World) -> None:
    assert await within(world.receipts.kept(MINE, "run")) is None
    assert await within(world.receipts.keep(MINE, "run", b"\x1f\x8b\x00rows")) == b"\x1f\x8b\x00rows"
    assert await within(world.receipts.keep(MINE, "run", b"others")) == b"\x1f\x8b\x00rows"
    assert await within(world.receipts.kept(MINE, "run")) == b"\x1f\x8b\x00rows"
    assert await within(world.receipts.kept(Owner("stamford", "q" * 32), "run")) is None


async def test_each_account_has_its_own_store() -> None:
    stamford, guilford = InMemory().receipts, InMemory().receipts
    both = ReceiptsByAccount({"stamford": stamford, "guilford": guilford})
    first = await begin(both)
    assert isinstance(await begin(stamford), Running)
    assert isinstance(await begin(guilford), New)
    await both.unknown(MINE, "key", first.token, sent=True)
    again = await begin(both)
    await both.forget(MINE, "key", again.token)
    new = await begin(both)
    made = replace(KEPT, action=Action.CREATED)
    await both.done(MINE, "key", new.token, made)
    await both.keep(MINE, "run", b"rows")

    assert await begin(stamford) == Done(made)
    assert await both.others(MINE, "other", ["mjob1"]) == {"mjob1"}
    assert (await both.kept(MINE, "run"), await guilford.kept(MINE, "run")) == (b"rows", None)


async def test_in_memory_a_day_later_nothing_is_known() -> None:
    world = InMemory()
    first = await begin(world.receipts)
    await world.receipts.done(MINE, "key", first.token, KEPT)
    await world.receipts.keep(MINE, "run", b"rows")
    world.later(LIFE_S)

    assert isinstance(await begin(world.receipts, "other"), New)
    assert await world.receipts.kept(MINE, "run") is None


async def test_memory_is_bounded_and_whoever_is_at_it_goes_last() -> None:
    clock = ManualClock()
    receipts = MemoryReceipts(clock, _tokens(), most=3)
    await begin(receipts, key="at it")
    for number in range(5):
        made = await begin(receipts, key=str(number))
        await receipts.done(MINE, str(number), made.token, KEPT)
        await receipts.keep(MINE, str(number), b"rows")
    for number in range(40):
        await receipts.keep(MINE, f"run {number}", b"rows")

    assert isinstance(await begin(receipts, key="at it"), Running)
    assert await begin(receipts, key="4") == Done(KEPT)
    assert isinstance(await begin(receipts, key="0"), New)
    assert (await receipts.kept(MINE, "0"), await receipts.kept(MINE, "run 39")) == (None, b"rows")


async def test_in_redis_keys_are_digests_and_live_for_a_day(redis_url: str) -> None:
    world = InRedis(redis_url, redis_url)
    first = await begin(world.receipts, key="Dana Whitfield")
    await world.receipts.done(MINE, "Dana Whitfield", first.token, replace(KEPT, action=Action.CREATED))
    await world.receipts.keep(MINE, "Dana Whitfield", b"rows")
    await world.client.aclose()

    with redis.Redis.from_url(redis_url) as looking:
        name = digest(MINE, "Dana Whitfield")
        names = {f"jobnimbus-sys:{{stamford}}:{kind}:{name}".encode() for kind in ("receipt", "bulk")}
        names.add(f"jobnimbus-sys:{{stamford}}:made:{digest(Owner('stamford', ''), KEPT.jnid)}".encode())
        kept = {name for kind in ("receipt", "bulk", "made") for name in looking.keys(f"jobnimbus-sys:*:{kind}:*")}
        assert kept == names
        assert all(LIFE_S - 60 < looking.ttl(name) <= LIFE_S for name in names)


async def test_a_redis_that_does_not_answer_is_said_to_be_away() -> None:
    class Frozen:
        async def run(self, name: str, keys: Any, args: Any, *, tenant: str = "") -> Any:
            await asyncio.Event().wait()

    receipts = RedisReceipts(Frozen(), _tokens(), command_timeout_s=0.01)
    with pytest.raises(CacheUnavailable):
        await begin(receipts)
