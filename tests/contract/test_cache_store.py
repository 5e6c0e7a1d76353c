"""The store's promises, held to by the embedded store and by Redis alike."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.key import CacheKey, entry_glob, system_key
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import GENERATION_LIFE_S, NOTED_LIFE_S, Seen, Store, Verdict
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock

KEY = CacheKey("stamford", "p1", "jobs", "detail", "j1")
OTHER = CacheKey("stamford", "p2", "contacts", "list", "all")
TAGS = ("jobs", "jobs:detail", "job:j1")
ETAG = "0123456789abcdef"
CLOCK = SystemClock()
PERMANENT = {system_key("stamford", name) for name in ("epoch", "run", "log", "fleet", "stats")}


@dataclass
class World:
    """A store, and what an operator could do to its keys behind its back."""

    store: Store
    put_raw: Callable[[str, bytes], Any]
    evict: Callable[[str], Any]
    flush: Callable[[], Any]
    lives: Callable[[], Any]

    async def expiries(self) -> dict[str, bool]:
        return {key: life_s is not None for key, life_s in (await self.lives()).items()}


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        memory = MemoryStore(CLOCK)

        async def call(function: Callable[..., Any], *args: Any) -> Any:
            return function(*args)

        async def memory_lives() -> dict[str, float | None]:
            now = CLOCK.monotonic()
            return {key: None if expires is None else expires - now for key, expires in memory.names().items()}

        world = World(
            memory,
            lambda key, value: call(memory.put_raw, key, value),
            lambda key: call(memory.evict, key),
            lambda: call(memory.flush),
            memory_lives,
        )
        yield world
        lasting = {key for key, expiring in (await world.expiries()).items() if not expiring}
        assert {key.partition("}:")[2] for key in lasting} <= {"epoch"}
        return
    client = connect(request.getfixturevalue("redis_url"))

    async def redis_lives() -> dict[str, float | None]:
        names = cast("list[bytes]", await client.keys())
        lives = {str(name, "utf-8"): await client.pttl(name) for name in names}
        return {name: None if life_ms == -1 else life_ms / 1000 for name, life_ms in lives.items()}

    yield World(
        RedisStore(client),
        lambda key, value: client.set(key, value, keepttl=True),
        client.delete,
        client.flushall,
        redis_lives,
    )
    await client.aclose()


def call() -> Call:
    return Call.begin(CLOCK, "test")


def notice(event_id: str = "e1", *, dedupe_key: str = "", received_at: float | None = None) -> Notice:
    at = time.time() if received_at is None else received_at
    return Notice("job.updated", "job", "j1", "webhook", at, event_id, dedupe_key)


def encoded(seen: Seen, key: CacheKey = KEY, tags: tuple[str, ...] = TAGS, etag: str = ETAG) -> bytes:
    return encode(Entry(b"{}", False, 1.0, etag), key_text=key.text, vector=seen.vector, tags=tags, compress=True)


async def look(
    world: World, key: CacheKey = KEY, tags: tuple[str, ...] = TAGS, etag: str = "", want: bool = True
) -> Seen:
    return await world.store.read(key, tags, etag, want=want, call=call())


async def fill(world: World, seen: Seen, key: CacheKey = KEY, tags: tuple[str, ...] = TAGS, ttl_s: float = 60) -> bool:
    return await world.store.fill(key, tags, seen, encoded(seen, key, tags), ttl_s=ttl_s, admission_s=60, call=call())


async def filled(world: World, key: CacheKey = KEY, tags: tuple[str, ...] = TAGS) -> Seen:
    seen = await look(world, key, tags)
    assert await fill(world, seen, key, tags)
    return seen


async def test_an_empty_store_answers_miss_with_a_vector_and_a_guard(world: World) -> None:
    seen = await look(world)
    assert (seen.verdict, seen.ttl_s, seen.admitted, seen.value) == (Verdict.MISS, 0.0, False, None)
    assert seen.vector.count(b"\n") == len(TAGS)
    assert seen.guard != b""


async def test_looking_twice_notes_the_same_generations(world: World) -> None:
    first, second = await look(world), await look(world)
    assert (first.vector, first.guard) == (second.vector, second.guard)


async def test_what_was_filled_is_a_hit_admitted_and_within_its_life(world: World) -> None:
    seen = await filled(world)
    found = await look(world)
    assert (found.verdict, found.admitted, found.value) == (Verdict.HIT, True, encoded(seen))
    assert 59 < found.ttl_s <= 60
    assert (found.vector, found.guard) == (seen.vector, seen.guard)


async def test_the_callers_own_copy_is_confirmed_without_a_value(world: World) -> None:
    seen = await filled(world)
    found = await look(world, etag=ETAG)
    assert (found.verdict, found.value, found.admitted) == (Verdict.NOT_MODIFIED, None, True)
    assert (found.vector, found.guard) == (seen.vector, seen.guard)
    assert 59 < found.ttl_s <= 60
    assert 59 < found.admitted_s <= 60


async def test_a_copy_of_another_fetch_is_answered_with_the_value(world: World) -> None:
    seen = await filled(world)
    found = await look(world, etag="f" * 16)
    assert (found.verdict, found.value) == (Verdict.HIT, encoded(seen))


async def test_only_noting_gives_no_value_though_there_is_one(world: World) -> None:
    seen = await filled(world)
    noted = await look(world, want=False)
    assert (noted.verdict, noted.value, noted.vector) == (Verdict.MISS, None, seen.vector)


@pytest.mark.parametrize("tag", TAGS)
async def test_a_read_after_a_bump_of_any_tag_misses_with_another_vector(world: World, tag: str) -> None:
    seen = await filled(world)
    applied = await world.store.append_and_bump("stamford", (tag,), notice(), call())
    found = await look(world, etag=ETAG)
    assert (applied.event_id, applied.duplicate, applied.bumped) == ("e1", False, 1)
    assert found.verdict is Verdict.MISS
    assert found.vector != seen.vector


async def test_a_bump_of_another_tag_or_tenant_leaves_the_entry(world: World) -> None:
    await filled(world)
    await world.store.append_and_bump("stamford", ("contacts",), notice(), call())
    await world.store.append_and_bump("guilford", TAGS, notice(), call())
    assert (await look(world)).verdict is Verdict.HIT


async def test_a_fill_that_began_before_a_bump_stores_nothing(world: World) -> None:
    before = await look(world)
    await world.store.append_and_bump("stamford", ("jobs",), notice(), call())
    assert await fill(world, before) is False
    assert (await look(world)).verdict is Verdict.MISS


async def test_two_bumps_in_a_row_give_two_generations(world: World) -> None:
    vectors = set()
    for _ in range(5):
        vectors.add((await look(world)).vector)
        await world.store.append_and_bump("stamford", ("jobs",), notice(), call())
    assert len(vectors) == 5


async def test_a_new_epoch_invalidates_everything_of_its_tenant_alone(world: World) -> None:
    await filled(world)
    elsewhere = CacheKey("guilford", "p1", "jobs", "detail", "j1")
    await filled(world, elsewhere)
    before = await look(world)
    await world.store.renew_epoch("stamford", call())
    assert (await look(world)).verdict is Verdict.MISS
    assert await fill(world, before) is False
    assert (await look(world, elsewhere)).verdict is Verdict.HIT


async def test_losing_any_single_key_never_revives_an_entry(world: World) -> None:
    await filled(world)
    names = list(await world.expiries())
    assert len(names) >= 7
    for name in names:
        await world.flush()
        await filled(world)
        stale = await look(world)
        await world.store.append_and_bump("stamford", ("jobs",), notice(), call())
        await world.evict(name)
        after = await look(world)
        assert after.verdict is Verdict.MISS, name
        assert await fill(world, stale) is False, name


async def test_a_fill_after_any_generation_was_lost_and_made_again_stores_nothing(world: World) -> None:
    for name in ("epoch", "fill-guard", "g:jobs", "g:job:j1"):
        stale = await look(world)
        await world.evict(system_key("stamford", name))
        assert await fill(world, stale) is False, name
        await look(world)
        assert await fill(world, stale) is False, name


async def test_after_a_flush_nothing_is_found_and_old_fills_are_refused(world: World) -> None:
    before = await filled(world)
    await world.flush()
    assert (await look(world, etag=ETAG)).verdict is Verdict.MISS
    assert await fill(world, before) is False


@pytest.mark.parametrize("garbage", [b"abc", b"", b"-5", b"99999999999999999999", b"1e400", b"nan"])
async def test_an_unreadable_generation_is_a_missing_one(world: World, garbage: bytes) -> None:
    await filled(world)
    await world.put_raw(system_key("stamford", "g:jobs"), garbage)
    seen = await look(world)
    assert seen.verdict is Verdict.MISS
    assert garbage not in seen.vector.split(b"\n")
    assert await fill(world, seen)
    assert (await look(world)).verdict is Verdict.HIT


@pytest.mark.parametrize("garbage", [b"abc", b"99999999999999999999", b"nan", b"inf"])
async def test_a_bump_moves_an_unreadable_generation_too(world: World, garbage: bytes) -> None:
    await filled(world)
    name = system_key("stamford", "g:jobs")
    await world.put_raw(name, garbage)
    await world.store.append_and_bump("stamford", ("jobs",), notice(), call())
    seen = await look(world)
    assert seen.verdict is Verdict.MISS
    assert seen.vector.split(b"\n")[1].isdigit()


@pytest.mark.parametrize("garbage", [b"\x03", b"\x03short"])
async def test_a_broken_entry_of_this_format_is_corrupt_and_replaced_by_the_fill(world: World, garbage: bytes) -> None:
    seen = await filled(world)
    await world.put_raw(KEY.text, garbage)
    for etag in ("", ETAG):
        found = await look(world, etag=etag)
        assert (found.verdict, found.vector, found.value) == (Verdict.CORRUPT, seen.vector, None)
    assert await fill(world, found)
    assert (await look(world)).verdict is Verdict.HIT


@pytest.mark.parametrize("foreign", [b"", b"x", b"{}", b"\x02short", b"\x04" + bytes(90), b"\x03" + bytes(90)])
async def test_another_releases_entry_is_a_plain_miss_and_replaced_by_the_fill(world: World, foreign: bytes) -> None:
    """Or one of this format under other generations, such as none at all."""
    seen = await filled(world)
    await world.put_raw(KEY.text, foreign)
    for etag in ("", ETAG):
        found = await look(world, etag=etag)
        assert (found.verdict, found.vector, found.value) == (Verdict.MISS, seen.vector, None)
    assert await fill(world, found)
    assert (await look(world)).verdict is Verdict.HIT


async def test_an_admission_counts_unless_the_guard_moved(world: World) -> None:
    marked, guard = await world.store.admission("stamford", "p1", call())
    assert marked is False
    assert await world.store.admit("stamford", "p1", guard, admission_s=60, call=call()) is True
    assert await world.store.admission("stamford", "p1", call()) == (True, guard)
    assert await world.store.admission("stamford", "p2", call()) == (False, guard)
    assert await world.store.withdraw("stamford", "p1", call()) is True
    assert await world.store.admit("stamford", "p1", guard, admission_s=60, call=call()) is False
    assert (await world.store.admission("stamford", "p1", call()))[0] is False
    assert await world.store.withdraw("stamford", "p1", call()) is False


async def test_a_fill_never_shortens_how_long_an_acceptance_counts(world: World) -> None:
    """What is put together out of kept parts knows an older acceptance than the one a part was asked for with."""
    seen = await look(world)
    _, guard = await world.store.admission("stamford", "p1", call())
    assert await world.store.admit("stamford", "p1", guard, admission_s=600, call=call())
    assert await fill(world, seen)  # for 60 s
    assert (await look(world)).admitted_s > 500


async def test_a_fill_that_began_before_a_withdrawal_stores_nothing_and_admits_nobody(world: World) -> None:
    before = await look(world)
    await world.store.withdraw("stamford", "p1", call())
    assert await fill(world, before) is False
    assert (await look(world)).admitted is False


async def test_withdrawing_from_a_stranger_disturbs_no_fill_and_leaves_nothing(world: World) -> None:
    under_way = await look(world)

    assert await world.store.withdraw("stamford", "stranger", call(), if_admitted=True) is False

    assert await fill(world, under_way) is True
    assert await world.store.withdraw("stamford", "p1", call(), if_admitted=True) is True
    assert await world.store.withdraw("stamford", "p1", call(), if_admitted=True) is False


async def test_deleting_by_glob_deletes_what_matches_and_refuses_fills_under_way(world: World) -> None:
    await filled(world)
    await filled(world, OTHER, ("contacts",))
    under_way = await look(world, CacheKey("stamford", "p1", "jobs", "detail", "j2"))
    deleted, cursor = 0, 0
    while True:
        cursor, number = await world.store.delete_some(
            "stamford", entry_glob("stamford", entity="jobs"), cursor, call()
        )
        deleted += number
        if cursor == 0:
            break
    assert deleted == 1
    assert (await look(world)).verdict is Verdict.MISS
    assert (await look(world, OTHER, ("contacts",))).verdict is Verdict.HIT
    assert await fill(world, under_way, CacheKey("stamford", "p1", "jobs", "detail", "j2")) is False


@pytest.mark.parametrize("identifier", ["a[b]c", "a\\b", "a^b", "plain"])
async def test_a_glob_part_without_stars_matches_itself_alone(world: World, identifier: str) -> None:
    key, near = CacheKey("stamford", "p1", "jobs", "list", identifier), CacheKey("stamford", "p1", "jobs", "list", "ab")
    await filled(world, key)
    await filled(world, near)
    glob = entry_glob("stamford", entity="jobs", operation="list", identifier=identifier)
    assert await world.store.delete_some("stamford", glob, 0, call()) == (0, 1)
    assert (await look(world, near)).verdict is Verdict.HIT


async def test_a_listing_gives_every_entry_once_with_start_life_and_size(world: World) -> None:
    seen = await filled(world)
    await filled(world, OTHER, ("contacts",))
    cursor, rows = await world.store.list_some("stamford", entry_glob("stamford", entity="jobs"), 0, call())
    assert cursor == 0
    assert [(row.key, row.head, row.size_bytes) for row in rows] == [(KEY.text, encoded(seen), len(encoded(seen)))]
    assert 59 < rows[0].ttl_s <= 60


async def test_a_duplicate_bumps_again_and_is_answered_with_the_first_event(world: World) -> None:
    first = await world.store.append_and_bump("stamford", ("jobs",), notice("e1", dedupe_key="d"), call())
    await filled(world)
    second = await world.store.append_and_bump("stamford", ("jobs",), notice("e2", dedupe_key="d"), call())
    assert (first.event_id, first.duplicate, second.event_id, second.duplicate) == ("e1", False, "e1", True)
    assert (await look(world)).verdict is Verdict.MISS
    rows = await world.store.log("stamford", limit=10, since=None, call=call())
    assert [row.event_id for row in rows] == ["e1"]


async def test_events_without_a_dedupe_key_are_never_duplicates(world: World) -> None:
    for event_id in ("e1", "e2"):
        applied = await world.store.append_and_bump("stamford", (), notice(event_id), call())
        assert (applied.event_id, applied.duplicate) == (event_id, False)


async def test_the_log_is_newest_first_limited_and_cut_by_time(world: World) -> None:
    start = time.time()
    for number in range(3):
        await world.store.append_and_bump("stamford", ("jobs", f"job:{number}"), notice(f"e{number}"), call())
    rows = await world.store.log("stamford", limit=2, since=None, call=call())
    assert [row.event_id for row in rows] == ["e2", "e1"]
    newest = rows[0]
    assert (newest.event, newest.resource, newest.resource_id, newest.source) == ("job.updated", "job", "j1", "webhook")
    assert newest.tags == ("jobs", "job:2")
    assert start - 0.01 <= newest.at <= time.time() + 0.01
    assert 0 <= newest.latency_ms < 5_000
    assert await world.store.log("stamford", limit=9, since=time.time() + 5, call=call()) == []
    assert await world.store.log("guilford", limit=9, since=None, call=call()) == []


async def test_latency_counts_from_reception_and_is_never_negative(world: World) -> None:
    late = await world.store.append_and_bump("stamford", (), notice(received_at=time.time() - 2), call())
    early = await world.store.append_and_bump("stamford", (), notice(received_at=time.time() + 60), call())
    assert 2_000 <= late.latency_ms < 10_000
    assert early.latency_ms == 0


async def test_rates_count_events_per_hour_kind_and_source_without_duplicates(world: World) -> None:
    for event_id, dedupe_key in (("e1", "d"), ("e2", "d"), ("e3", "")):
        await world.store.append_and_bump("stamford", (), notice(event_id, dedupe_key=dedupe_key), call())
    hour = int(time.time() // 3600)
    counted = await world.store.rates("stamford", [hour - 1, hour, hour + 1], call())
    assert sum(number for fields in counted.values() for number in fields.values()) == 2
    assert {field for fields in counted.values() for field in fields} == {"job|webhook"}


async def test_sums_last_and_belong_to_their_tenant(world: World) -> None:
    await world.store.add("stamford", {"hits": 2, "hits|tool|get_jobs": 2}, batch="p1:1")
    await world.store.add("stamford", {"hits": 3}, batch="p1:2")
    await world.store.add("stamford", {}, batch="p1:3")
    assert await world.store.totals("stamford") == {"hits": 5, "hits|tool|get_jobs": 2}
    assert await world.store.totals("guilford") == {}


async def test_a_batch_is_added_once_however_often_it_is_sent(world: World) -> None:
    for batch in ("p1:1", "p1:1", "p1:2", "p1:1", "p1:2", "p2:1", "p2:1"):
        await world.store.add("stamford", {"hits": 1, "misses": 2}, batch=batch)
    assert await world.store.totals("stamford") == {"hits": 3, "misses": 6}
    await world.store.add("guilford", {"hits": 1}, batch="p1:1")
    assert await world.store.totals("guilford") == {"hits": 1}


async def test_a_batch_without_a_process_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="<process>:<number>"):
        await world.store.add("stamford", {"hits": 1}, batch="1")


async def test_reads_that_are_never_filled_leave_nothing_for_long(world: World) -> None:
    for number in range(300):
        key = CacheKey("stamford", "p1", "jobs", "detail", f"invented{number}")
        await look(world, key, ("jobs", f"job:invented{number}"))
    lives = {name: life_s for name, life_s in (await world.lives()).items() if "}:g:" in name}
    assert len(lives) == 301
    assert max(lives.values()) <= NOTED_LIFE_S


async def test_a_bump_of_what_was_only_noted_counts_and_does_not_make_it_last(world: World) -> None:
    before = await look(world)
    await world.store.append_and_bump("stamford", TAGS, notice(), call())
    assert (await look(world)).vector != before.vector
    assert await fill(world, before) is False
    lives = await world.lives()
    assert max(lives[system_key("stamford", f"g:{tag}")] for tag in TAGS) <= NOTED_LIFE_S


async def test_generations_that_an_entry_names_outlive_it_also_after_a_bump_and_a_shorter_entry(world: World) -> None:
    seen = await look(world)
    assert await fill(world, seen, ttl_s=86_400)
    other = CacheKey("stamford", "p1", "jobs", "list", "all")
    await filled(world, other, TAGS)
    lives = await world.lives()
    assert min(lives[system_key("stamford", f"g:{tag}")] for tag in TAGS) > 86_400 > GENERATION_LIFE_S
    await world.store.append_and_bump("stamford", TAGS[:1], notice(), call())
    assert (await look(world)).verdict is Verdict.MISS
    assert (await world.lives())[system_key("stamford", f"g:{TAGS[0]}")] > 86_400


async def test_every_key_but_the_named_ones_expires(world: World) -> None:
    await filled(world)
    await world.store.append_and_bump("stamford", TAGS, notice(dedupe_key="d"), call())
    await world.store.renew_epoch("stamford", call())
    await world.store.withdraw("stamford", "p1", call())
    await world.store.delete_some("stamford", entry_glob("stamford"), 0, call())
    await world.store.add("stamford", {"hits": 1}, batch="p1:1")
    await world.store.ping(call())
    lasting = {key for key, expiring in (await world.expiries()).items() if not expiring}
    assert lasting <= PERMANENT
    assert system_key("stamford", "epoch") in lasting


async def test_a_partition_nobody_admitted_leaves_no_key_of_its_own(world: World) -> None:
    for number in range(20):
        await look(world, CacheKey("stamford", f"invented{number}", "jobs", "detail", "j1"))
        await world.store.admission("stamford", f"invented{number}", call())
    assert [key for key in await world.expiries() if "invented" in key] == []
