"""The road of a read, over the embedded store."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from jobnimbus_mcp.cache.admission import CHECK_S, UNDECIDED_S
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import Seen, StoreError, StoreTimeout
from jobnimbus_mcp.cache.read_through import Question, ReadThrough
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
)
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

TAGS = ("jobs", "jobs:detail", "job:j1")
ADMISSION_S = 300.0


class World:
    """An engine over the embedded store, an origin that counts, and a credential it accepts or not."""

    def __init__(self, *, l1_bytes: int = 1 << 20, store: MemoryStore | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = store if store is not None else MemoryStore(self.clock)
        self.recorder = InMemoryRecorder()
        self.l1 = L1(l1_bytes)
        self.cache = ReadThrough(
            self.store, self.l1, clock=self.clock, random01=lambda: 0.5, recorder=self.recorder, **options
        )
        self.invalidator = Invalidator(self.store, clock=self.clock, recorder=self.recorder)
        self.loads = 0
        self.asked = 0
        self.value = b"v1"
        self.negative = False
        self.load_error: Exception | None = None
        self.admit_error: Exception | None = None
        self.time_to_ask: list[float] = []
        self.go = asyncio.Event()
        self.go.set()

    def question(
        self, partition: str = "p1", policy: Policy | None = None, tags: Sequence[str] = TAGS, bearer: str = ""
    ) -> Question:
        key = CacheKey("stamford", partition, "jobs", "detail", "j1", bearer)
        return Question(key, tuple(tags), policy or Policy(600))

    def call(self, within_s: float = 14.0) -> Call:
        return Call.begin(self.clock, "r", within_s=within_s)

    async def loader(self, call: Call) -> Loaded:
        self.loads += 1
        answer = Loaded(self.value, self.negative)
        await self.go.wait()
        if self.load_error is not None:
            raise self.load_error
        return answer

    async def admit(self, call: Call) -> None:
        self.asked += 1
        self.time_to_ask.append(call.remaining_s(self.clock))
        await self.go.wait()
        if self.admit_error is not None:
            raise self.admit_error

    async def read(self, question: Question | None = None, **options: Any) -> Outcome:
        options.setdefault("call", self.call())
        return await self.cache.read(question or self.question(), self.loader, **options)

    async def bump(self, tags: Sequence[str] = ("jobs",)) -> None:
        notice = Notice("job.updated", "job", "j1", "webhook", self.clock.now(), "e1")
        await self.invalidator.append_and_bump("stamford", tags, notice, self.call())

    def entry_keys(self) -> list[str]:
        return [name for name in self.store.names() if name.startswith("jobnimbus:")]


async def ticks(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def shown(outcome: Outcome) -> tuple[bytes, Status, Tier, float]:
    return outcome.value, outcome.status, outcome.tier, outcome.ttl_s


async def test_a_first_read_misses_a_second_hits_l1_and_another_process_hits_l2() -> None:
    world = World()
    first = await world.read()
    world.clock.advance(10)
    second = await world.read()
    world.l1.clear()
    third = await world.read()
    assert shown(first) == (b"v1", Status.MISS, Tier.UPSTREAM, 600)
    assert shown(second) == (b"v1", Status.HIT, Tier.L1, 590)
    assert shown(third) == (b"v1", Status.HIT, Tier.L2, 590)
    assert first.etag == second.etag == third.etag != ""
    assert first.fetched_at == second.fetched_at == world.clock.now() - 10
    assert world.loads == 1


async def test_a_read_after_a_bump_loads_anew_with_another_etag() -> None:
    world = World()
    first = await world.read()
    await world.bump()
    world.value = b"v2"
    second = await world.read()
    assert shown(second) == (b"v2", Status.MISS, Tier.UPSTREAM, 600)
    assert second.etag != first.etag


async def test_equal_values_of_two_fetches_have_two_etags() -> None:
    world = World()
    first = await world.read()
    await world.bump()
    assert (await world.read()).etag != first.etag


async def test_an_expired_entry_is_a_miss() -> None:
    world = World()
    await world.read()
    world.clock.advance(600)
    assert (await world.read()).status is Status.MISS


async def test_an_invalidation_during_the_load_keeps_nothing_and_answers_the_reader_who_came_before() -> None:
    world = World()
    world.go.clear()
    before = asyncio.create_task(world.read())
    await ticks()
    world.value = b"v2"
    await world.bump()
    after = asyncio.create_task(world.read())
    await ticks()
    world.go.set()
    assert shown(await before) == (b"v1", Status.MISS, Tier.UPSTREAM, 0)
    assert shown(await after) == (b"v2", Status.MISS, Tier.UPSTREAM, 600)
    assert (await world.read()).value == b"v2"
    assert world.recorder.counts["cache_fills", (("entity", "jobs"), ("result", "raced"))] == 1


async def test_all_who_ask_before_a_load_ends_share_it() -> None:
    world = World()
    world.go.clear()
    reading = [asyncio.create_task(world.read()) for _ in range(100)]
    await ticks()
    world.go.set()
    outcomes = await asyncio.gather(*reading)
    assert world.loads == 1
    assert {outcome.status for outcome in outcomes} == {Status.MISS}
    assert sum(outcome.coalesced for outcome in outcomes) == 99


async def test_a_negative_answer_is_kept_for_its_own_short_time() -> None:
    world = World()
    world.negative = True
    first = await world.read()
    hit = await world.read()
    assert (first.negative, first.ttl_s, hit.negative, hit.status) == (True, 30, True, Status.HIT)
    world.clock.advance(30)
    assert (await world.read()).status is Status.MISS


@pytest.mark.parametrize("error", [UpstreamServerError("down"), BudgetExhausted("later"), ValueError("defect")])
async def test_what_the_loader_raises_reaches_everybody_and_is_never_kept(error: Exception) -> None:
    world = World()
    world.load_error = error
    results = await asyncio.gather(*(world.read() for _ in range(5)), return_exceptions=True)
    assert results == [error] * 5
    world.load_error = None
    assert (await world.read()).status is Status.MISS


async def test_a_dirty_entry_whose_load_fails_is_an_error_not_an_answer() -> None:
    world = World()
    await world.read()
    await world.bump()
    world.load_error = UpstreamServerError("down")
    with pytest.raises(UpstreamServerError):
        await world.read()


async def test_a_load_beyond_the_calls_deadline_ends_with_it() -> None:
    world = World()
    world.go.clear()
    with pytest.raises(UpstreamTimeout):
        await world.read(call=world.call(within_s=0.02))
    world.go.set()
    assert (await world.read()).status is Status.MISS


# -- max_age_s ---------------------------------------------------------------------------------------------------------


async def test_an_entry_older_than_asked_for_is_loaded_anew_and_kept_for_all() -> None:
    world = World()
    await world.read()
    world.clock.advance(60)
    assert (await world.read(max_age_s=61)).status is Status.HIT
    world.value = b"v2"
    renewed = await world.read(max_age_s=59)
    assert shown(renewed) == (b"v2", Status.MISS, Tier.UPSTREAM, 600)
    assert shown(await world.read()) == (b"v2", Status.HIT, Tier.L1, 600)


async def test_a_newer_entry_of_another_process_satisfies_the_age_though_l1_holds_an_older_one() -> None:
    world = World()
    await world.read()
    world.clock.advance(60)
    neighbour = World(store=world.store)
    neighbour.clock.advance(60)
    neighbour.value = b"v2"
    await neighbour.read(max_age_s=1)
    outcome = await world.read(max_age_s=30)
    assert (outcome.value, outcome.status, outcome.tier) == (b"v2", Status.HIT, Tier.L2)


async def test_age_zero_asks_now_joins_nothing_and_is_kept_for_others() -> None:
    world = World()
    world.go.clear()
    earlier = asyncio.create_task(world.read())
    await ticks()
    world.value = b"v2"
    now = asyncio.create_task(world.read(max_age_s=0))
    await ticks()
    assert world.loads == 2
    world.go.set()
    await earlier
    outcome = await now
    assert (outcome.value, outcome.status, outcome.tier, outcome.coalesced) == (
        b"v2",
        Status.BYPASS,
        Tier.UPSTREAM,
        False,
    )
    assert outcome.ttl_s == 600
    assert (await world.read()).value == b"v2"


async def test_under_a_wall_clock_that_was_set_back_an_age_is_never_taken_for_less_than_it_is() -> None:
    world = World()
    await world.read(world.question(policy=Policy(600, jitter=0)))
    world.clock.advance(3)
    world.clock.jump_wall(-3600)
    assert (await world.read(max_age_s=60)).status is Status.MISS  # of an age nobody knows
    assert (await world.read(max_age_s=60)).status is Status.HIT
    assert (await world.read()).status is Status.HIT

    world.clock.advance(100)
    world.clock.jump_wall(-99)
    exact = world.question(policy=Policy(600, jitter=0))
    assert (await world.read(exact, max_age_s=60)).status is Status.MISS  # its lifetime tells


async def test_a_replica_whose_clock_is_a_little_ahead_costs_no_hit() -> None:
    world = World()
    await world.read()
    world.clock.jump_wall(-0.5)
    assert (await world.read(max_age_s=60)).status is Status.HIT


# -- what is not kept --------------------------------------------------------------------------------------------------


async def test_a_value_too_large_is_answered_counted_and_kept_nowhere() -> None:
    world = World()
    question = world.question(policy=Policy(600, max_bytes=100))
    for _ in range(2):
        assert shown(await world.read(question)) == (b"v1", Status.MISS, Tier.UPSTREAM, 0)
    assert world.entry_keys() == []
    assert world.l1.stats()["entries"] == 0
    assert world.recorder.counts["cache_fills", (("entity", "jobs"), ("result", "too_large"))] == 2


async def test_the_size_that_counts_is_that_of_the_stored_value() -> None:
    world = World()
    world.value = b"x" * 5_000
    question = world.question(policy=Policy(600, max_bytes=400))
    await world.read(question)
    assert (await world.read(question)).status is Status.HIT
    plain = World(compress=False)
    plain.value = world.value
    await plain.read(question)
    assert (await plain.read(question)).status is Status.MISS


@pytest.mark.parametrize("mode", ["refused", "timeout"])
async def test_with_the_store_away_answers_come_from_the_origin_and_nothing_is_kept(mode: Any) -> None:
    world = World()
    await world.read()
    world.store.fail(mode)
    for _ in range(3):
        call = world.call()
        assert shown(await world.read(call=call)) == (b"v1", Status.BYPASS, Tier.UPSTREAM, 0)
        assert call.store_usable is False
    world.store.fail(None)
    assert (await world.read()).status is Status.HIT


async def test_with_the_store_away_a_burst_still_asks_the_origin_once() -> None:
    world = World()
    world.store.fail("refused")
    outcomes = await asyncio.gather(*(world.read() for _ in range(200)))
    assert world.loads == 1
    assert {outcome.status for outcome in outcomes} == {Status.BYPASS}


@pytest.mark.parametrize("mode", ["out_of_memory", "read_only"])
async def test_a_store_without_room_or_right_to_write_is_read_and_not_filled(mode: Any) -> None:
    world = World()
    world.store.fail(mode)
    for _ in range(2):
        assert shown(await world.read()) == (b"v1", Status.MISS, Tier.UPSTREAM, 0)
    world.store.fail(None)
    await world.read()
    world.store.fail(mode)
    assert (await world.read()).status is Status.HIT


async def test_switched_off_nothing_is_looked_up_or_kept() -> None:
    world = World(enabled=False)
    for _ in range(2):
        assert shown(await world.read()) == (b"v1", Status.BYPASS, Tier.UPSTREAM, 0)
    await world.cache.admitted("stamford", "p1", world.admit, world.call())
    assert (world.loads, world.asked, world.store.names()) == (2, 1, {})


async def test_a_call_that_has_lost_the_store_does_not_try_it() -> None:
    world = World()
    await world.read()
    call = dataclasses.replace(world.call(), store_usable=False)
    assert (await world.read(call=call)).status is Status.BYPASS


class SlowFill(MemoryStore):
    """Takes its time to fill."""

    go: asyncio.Event

    async def fill(self, *args: Any, **options: Any) -> bool:
        await self.go.wait()
        return await super().fill(*args, **options)


async def test_an_answer_does_not_wait_for_a_slow_fill_which_goes_on_and_stays_joinable() -> None:
    store = SlowFill(ManualClock())
    store.go = asyncio.Event()
    world = World(store=store, fill_grace_s=0.005)
    assert shown(await world.read()) == (b"v1", Status.MISS, Tier.UPSTREAM, 0)
    joined = await world.read()
    assert (joined.coalesced, world.loads) == (True, 1)
    store.go.set()
    await world.cache.aclose()
    assert (await world.read()).status is Status.HIT


class FailingFill(MemoryStore):
    async def fill(self, *args: Any, **options: Any) -> bool:
        raise StoreTimeout


async def test_a_failed_fill_is_counted_and_the_answer_given() -> None:
    world = World(store=FailingFill(ManualClock()))
    assert shown(await world.read()) == (b"v1", Status.MISS, Tier.UPSTREAM, 0)
    assert world.l1.stats()["entries"] == 0
    assert world.recorder.counts["cache_fills", (("entity", "jobs"), ("result", "failed"))] == 1


# -- admission ---------------------------------------------------------------------------------------------------------


async def test_a_load_admits_its_partition_so_a_hit_asks_nobody() -> None:
    world = World()
    await world.read(admit=world.admit)
    assert (await world.read(admit=world.admit)).status is Status.HIT
    assert world.asked == 0


@pytest.mark.parametrize("tier", [Tier.L1, Tier.L2])
async def test_a_hit_is_served_only_after_the_origin_accepted_the_credential_lately(tier: Tier) -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S)
    if tier is Tier.L2:
        world.l1.clear()
    for _ in range(2):
        assert (await world.read(admit=world.admit)).status is Status.HIT
    assert world.asked == 1


async def test_many_hits_ask_the_origin_once() -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S)
    world.go.clear()
    reading = [asyncio.create_task(world.read(admit=world.admit)) for _ in range(50)]
    await ticks()
    world.go.set()
    assert {outcome.status for outcome in await asyncio.gather(*reading)} == {Status.HIT}
    assert world.asked == 1


async def test_a_refused_credential_gets_the_refusal_and_its_partition_is_dropped() -> None:
    world = World()
    await world.read(admit=world.admit)
    await world.read(world.question("p2"), admit=world.admit)
    world.clock.advance(ADMISSION_S)
    world.admit_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(admit=world.admit)
    assert world.entry_keys() == [world.question("p2").key.text]
    assert world.l1.get(world.question().key.text) is None
    assert world.l1.get(world.question("p2").key.text) is not None


async def test_a_load_refused_drops_what_the_partition_had() -> None:
    world = World()
    await world.read(admit=world.admit)
    await world.bump()
    other = dataclasses.replace(world.question(), key=CacheKey("stamford", "p1", "jobs", "detail", "j2"))
    await world.read(other, admit=world.admit)
    world.load_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(admit=world.admit)
    assert world.entry_keys() == []


async def test_an_invented_credential_leaves_no_trace_in_the_store() -> None:
    world = World()
    world.load_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(world.question("invented"), admit=world.admit)
    assert [name for name in world.store.names() if "invented" in name] == []


@pytest.mark.parametrize("error", [UpstreamServerError("down"), BudgetExhausted("later"), UpstreamTimeout("slow")])
async def test_while_the_origin_cannot_say_hits_go_on_and_it_is_asked_again_after_a_while(error: Exception) -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S)
    world.admit_error = error
    for _ in range(3):
        assert (await world.read(admit=world.admit)).status is Status.HIT
    assert world.asked == 1
    world.clock.advance(UNDECIDED_S)
    assert (await world.read(admit=world.admit)).status is Status.HIT
    assert world.asked == 2


async def test_a_refusal_the_store_could_not_be_told_of_still_counts_here() -> None:
    """With the store away a load is refused; when the store is back it still holds marker and entries."""
    world = World()
    await world.read(admit=world.admit)
    world.store.fail("refused")
    world.load_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(admit=world.admit)
    world.store.fail(None)
    world.admit_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(admit=world.admit)
    assert world.entry_keys() == []
    world.load_error = world.admit_error = None
    assert (await world.read(admit=world.admit)).status is Status.MISS
    assert (await world.read(admit=world.admit)).status is Status.HIT


@pytest.mark.parametrize("recheck_due", [False, True])
async def test_after_a_refused_load_an_origin_that_cannot_say_is_no_leave_to_serve(recheck_due: bool) -> None:
    world = World()
    await world.read(admit=world.admit)
    if recheck_due:
        world.clock.advance(ADMISSION_S)
    other = dataclasses.replace(world.question(), key=CacheKey("stamford", "p1", "jobs", "detail", "j2"))
    world.load_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(other, admit=world.admit)
    world.load_error = world.admit_error = UpstreamServerError("down")
    for _ in range(2):
        with pytest.raises(UpstreamServerError):
            await world.read(admit=world.admit)
    world.load_error = world.admit_error = None
    await world.read(admit=world.admit)
    assert (await world.read(admit=world.admit)).status is Status.HIT


async def test_an_answer_asked_for_before_a_refusal_does_not_take_it_back() -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S)
    world.go.clear()
    other = dataclasses.replace(world.question(), key=CacheKey("stamford", "p1", "jobs", "detail", "j2"))
    slow = asyncio.create_task(world.read(other, admit=world.admit))
    await ticks()
    world.clock.advance(1)

    async def refusing(call: Call) -> Loaded:
        raise UpstreamUnauthorized("refused")

    third = dataclasses.replace(world.question(), key=CacheKey("stamford", "p1", "jobs", "detail", "j3"))
    with pytest.raises(UpstreamUnauthorized):
        await world.cache.read(third, refusing, call=world.call(), admit=world.admit)
    world.go.set()
    await slow
    # what was asked for before the refusal was answered, and not kept: the next read asks again
    assert (await world.read(other, admit=world.admit)).status is Status.MISS


async def test_a_call_learns_whether_the_store_has_its_credential_marked_as_accepted() -> None:
    world = World()
    first, second = world.call(), world.call()
    await world.read(call=first, admit=world.admit)
    await world.read(call=second, admit=world.admit)
    assert (first.admitted, second.admitted) == (False, True)


async def test_a_refusal_drops_what_was_kept_also_long_after_the_last_acceptance() -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S + 1)
    other = dataclasses.replace(world.question(), key=CacheKey("stamford", "p1", "jobs", "detail", "j2"))
    world.load_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(other, admit=world.admit)

    # so no other process can serve it either, whatever the origin says to that one
    assert await world.cache.entries("stamford", call=world.call()) == []


async def test_a_check_before_a_hit_takes_no_longer_than_an_origin_may_take_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S)
    monkeypatch.setattr("jobnimbus_mcp.cache.admission.CHECK_S", 0.01)
    world.go.clear()  # the origin hangs
    async with asyncio.timeout(2):
        for _ in range(2):
            assert (await world.read(admit=world.admit)).status is Status.HIT
    assert world.asked == 1
    world.clock.advance(UNDECIDED_S)
    monkeypatch.undo()
    world.go.set()
    await world.read(admit=world.admit)
    await world.read(admit=world.admit, call=world.call(within_s=2))
    assert world.time_to_ask == pytest.approx([0.01, CHECK_S])


async def test_a_tool_without_a_read_gives_the_origin_all_the_time_its_call_has() -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S)
    world.go.clear()
    hit = asyncio.create_task(world.read(admit=world.admit))
    await ticks()
    tool = asyncio.create_task(world.cache.admitted("stamford", "p1", world.admit, world.call()))
    await ticks()
    world.go.set()
    await asyncio.gather(hit, tool)
    assert world.time_to_ask == [CHECK_S, 14.0]


# Several bearers of one partition: entries are shared, and nothing else.


async def test_bearers_of_one_partition_share_entries_and_each_is_asked_for_once() -> None:
    world = World()
    good, second = world.question(bearer="good"), world.question(bearer="second")
    await world.read(good, admit=world.admit)
    for _ in range(2):
        assert (await world.read(second, admit=world.admit)).status is Status.HIT
    assert (world.loads, world.asked) == (1, 1)
    await world.cache.admitted("stamford", "p1", world.admit, world.call(), bearer="second")
    assert world.asked == 1
    await world.cache.admitted("stamford", "p1", world.admit, world.call(), bearer="third")
    assert world.asked == 2


async def test_a_bearer_refused_loses_its_own_acceptance_and_the_others_keep_their_entries() -> None:
    world = World()
    good, bad = world.question(bearer="good"), world.question(bearer="bad")
    await world.read(bad, admit=world.admit)
    world.clock.advance(ADMISSION_S - 1)
    await world.read(good, admit=world.admit)  # asked, accepted and marked for its own while
    world.clock.advance(1)
    world.admit_error = UpstreamUnauthorized("refused")
    for _ in range(3):
        with pytest.raises(UpstreamUnauthorized):
            await world.read(bad, admit=world.admit)
        assert (await world.read(good, admit=world.admit)).status is Status.HIT
    assert world.loads == 1
    world.admit_error = UpstreamServerError("down")
    with pytest.raises(UpstreamServerError):
        await world.read(bad, admit=world.admit)


async def test_a_bearer_refused_while_its_acceptance_counts_loses_that_and_the_others_nothing() -> None:
    world = World()
    good, bad = world.question(bearer="good"), world.question(bearer="bad")
    await world.read(bad, admit=world.admit)
    await world.read(good, admit=world.admit)
    world.load_error = world.admit_error = UpstreamUnauthorized("refused")
    other = dataclasses.replace(bad, key=CacheKey("stamford", "p1", "jobs", "detail", "j2", "bad"))
    with pytest.raises(UpstreamUnauthorized):
        await world.read(other, admit=world.admit)
    markers = [await world.store.admission("stamford", bearer, world.call()) for bearer in ("bad", "good")]
    assert [marked for marked, _ in markers] == [False, True]
    assert world.entry_keys() == [good.key.text]
    assert (await world.read(good, admit=world.admit)).tier is Tier.L1
    with pytest.raises(UpstreamUnauthorized):
        await world.read(bad, admit=world.admit)


async def test_a_refused_bearer_that_keeps_asking_does_not_keep_the_others_from_filling() -> None:
    world = World()
    good, bad = world.question(bearer="good"), world.question(bearer="bad")
    await world.read(bad, admit=world.admit)
    world.clock.advance(ADMISSION_S)
    world.admit_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.read(bad, admit=world.admit)

    async def refusing(call: Call) -> None:
        raise UpstreamUnauthorized("refused")

    world.go.clear()
    other = dataclasses.replace(good, key=CacheKey("stamford", "p1", "jobs", "detail", "j2", "good"))
    filling = asyncio.create_task(world.read(other, admit=world.admit))
    await ticks()
    with pytest.raises(UpstreamUnauthorized):
        await world.read(bad, admit=refusing)
    world.go.set()
    await filling
    assert (await world.read(other, admit=world.admit)).status is Status.HIT


@pytest.mark.parametrize("store_away", [False, True])
async def test_bearers_of_one_partition_do_not_join_each_others_loads(store_away: bool) -> None:
    world = World()
    if store_away:
        world.store.fail("refused")

    async def refusing(call: Call) -> Loaded:
        await world.go.wait()
        raise UpstreamUnauthorized("refused")

    world.go.clear()
    good = asyncio.create_task(world.read(world.question(bearer="good")))
    bad = asyncio.create_task(world.cache.read(world.question(bearer="bad"), refusing, call=world.call()))
    await ticks()
    world.go.set()
    assert (await good).value == b"v1"
    with pytest.raises(UpstreamUnauthorized):
        await bad


async def test_bearers_of_one_partition_do_not_share_the_round_trip_that_tells_of_their_acceptance() -> None:
    class Remote(MemoryStore):
        async def read(self, *args: Any, **options: Any) -> Seen:
            await asyncio.sleep(0)
            return await super().read(*args, **options)

    world = World(store=Remote(ManualClock()))
    await world.read(world.question(bearer="good"), admit=world.admit)
    world.admit_error = UpstreamUnauthorized("refused")
    kinds = ["good", "good", "bad", "good", "bad"]
    results = await asyncio.gather(
        *(world.read(world.question(bearer=kind), admit=world.admit) for kind in kinds), return_exceptions=True
    )
    assert [isinstance(result, Outcome) for result in results] == [kind == "good" for kind in kinds]


async def test_an_acceptance_that_a_refusal_overtook_is_not_noted() -> None:
    world = World()
    await world.read(admit=world.admit)
    world.clock.advance(ADMISSION_S)
    world.go.clear()
    reading = asyncio.create_task(world.read(admit=world.admit))
    await ticks()
    await world.store.withdraw("stamford", "p1", world.call())
    world.go.set()
    await reading
    assert (await world.store.admission("stamford", "p1", world.call()))[0] is False


async def test_a_tool_without_a_read_checks_the_credential_once_in_a_while() -> None:
    world = World()
    for _ in range(3):
        await world.cache.admitted("stamford", "p1", world.admit, world.call())
    assert world.asked == 1
    world.clock.advance(ADMISSION_S)
    world.admit_error = UpstreamServerError("down")
    with pytest.raises(UpstreamServerError):  # unlike a hit: there is nothing that shows it was ever accepted
        await world.cache.admitted("stamford", "p1", world.admit, world.call())


async def test_a_tool_without_a_read_works_with_the_store_away() -> None:
    world = World()
    world.store.fail("refused")
    await world.cache.admitted("stamford", "p1", world.admit, world.call())
    world.admit_error = UpstreamUnauthorized("refused")
    with pytest.raises(UpstreamUnauthorized):
        await world.cache.admitted("stamford", "p1", world.admit, world.call())


async def test_another_partition_never_sees_what_a_first_one_cached() -> None:
    world = World()
    await world.read(world.question("p1"))
    world.value = b"v2"
    assert shown(await world.read(world.question("p2"))) == (b"v2", Status.MISS, Tier.UPSTREAM, 600)


# -- listing, deletion, log --------------------------------------------------------------------------------------------


async def test_entries_are_listed_with_age_life_size_tags_and_hits() -> None:
    world = World()
    await world.read()
    world.clock.advance(10)
    await world.read()
    await world.read()
    entries = await world.cache.entries("stamford", call=world.call())
    key = world.question().key.text
    assert entries == [
        {
            "key": key,
            "ageSeconds": 10.0,
            "ttlSeconds": 590.0,
            "sizeBytes": len(world.store._keys.peek(key) or b""),
            "tags": list(TAGS),
            "hits": 2,
        }
    ]
    assert await world.cache.entries("stamford", entity="jobs", operation="list", call=world.call()) == []
    assert len(await world.cache.entries("stamford", entity="jobs", operation="detail", call=world.call())) == 1
    assert await world.cache.entries("guilford", call=world.call()) == []


async def test_a_pattern_deletes_what_matches_is_logged_and_undone_by_no_late_fill() -> None:
    world = World()
    await world.read()
    world.go.clear()
    other = dataclasses.replace(world.question(), key=CacheKey("stamford", "p1", "jobs", "detail", "j2"))
    late = asyncio.create_task(world.read(other))
    await ticks()
    notice = Notice("cache.invalidate", "jobs", "", "admin", world.clock.now(), "a1")
    deleted = await world.invalidator.invalidate_pattern("stamford", "*:jobs:det*:j?", notice, world.call())
    world.go.set()
    await late
    assert deleted == 1
    assert world.entry_keys() == []
    assert [row["source"] for row in await world.invalidator.recent("stamford", limit=5, since=None)] == ["admin"]


async def test_the_log_and_the_rates_tell_what_was_invalidated() -> None:
    world = World()
    await world.bump()
    (row,) = await world.invalidator.recent("stamford", limit=5, since=None)
    assert row == {
        "eventId": "e1",
        "event": "job.updated",
        "resource": "job",
        "resourceId": "j1",
        "tags": ["jobs"],
        "latencyMs": 0.0,
        "source": "webhook",
        "at": "2026-09-21T14:13:20.000Z",
    }
    rates = await world.invalidator.rates("stamford")
    assert rates == {
        "hours": [{"hour": "2026-09-21T14:00:00.000Z", "total": 1, "byEntity": {"job": 1}, "bySource": {"webhook": 1}}],
        "total": 1,
        "byEntity": {"job": 1},
        "bySource": {"webhook": 1},
    }
    assert world.recorder.counts["cache_invalidations", (("entity", "job"), ("source", "webhook"))] == 1


async def test_a_failed_invalidation_is_cache_unavailable() -> None:
    world = World()
    world.store.fail("refused")
    with pytest.raises(StoreError) as caught:
        await world.bump()
    assert (caught.value.code, caught.value.http_status) == ("cache_unavailable", 503)


async def test_the_embedded_store_stays_within_its_bytes() -> None:
    clock = ManualClock()
    store = MemoryStore(clock, max_bytes=50_000)
    world = World(store=store)
    for number in range(300):
        key = CacheKey("stamford", "p1", "jobs", "detail", f"j{number}")
        await world.read(dataclasses.replace(world.question(), key=key, tags=("jobs", f"job:{number}")))
        assert store._keys._bytes <= 50_000
    assert 10 < len(world.entry_keys()) < 300


async def test_a_corrupt_value_is_counted_and_replaced() -> None:
    world = World(l1_bytes=0)
    await world.read()
    stored = world.store._keys.peek(world.question().key.text) or b""
    world.store.put_raw(world.question().key.text, stored[:-1] + b"\x00")
    assert (await world.read()).status is Status.MISS
    assert (await world.read()).status is Status.HIT
    assert world.recorder.total("cache_corrupt") == 1


async def test_reads_of_one_key_at_once_share_round_trips() -> None:
    class Counting(MemoryStore):
        sent = 0

        async def read(self, *args: Any, **options: Any) -> Seen:
            self.sent += 1
            await asyncio.sleep(0)
            return await super().read(*args, **options)

    store = Counting(ManualClock())
    world = World(store=store)
    await world.read()
    store.sent = 0
    outcomes = await asyncio.gather(*(world.read() for _ in range(500)))
    assert {outcome.tier for outcome in outcomes} == {Tier.L1}
    assert store.sent == 2


async def test_the_redis_store_keeps_an_acceptance_under_its_bearers_own_name(redis_url: str) -> None:
    world, client = World(), connect(redis_url)
    cache = ReadThrough(
        RedisStore(client), world.l1, clock=world.clock, random01=lambda: 0.5, recorder=InMemoryRecorder()
    )
    good, second = world.question(bearer="good"), world.question(bearer="second")
    for question in (good, second, good, second):
        await cache.read(question, world.loader, call=world.call(), admit=world.admit)
    assert (world.loads, world.asked) == (1, 1)
    await cache.admitted("stamford", "p1", world.admit, world.call(), bearer="third")
    assert world.asked == 2
    await cache.aclose()
    await client.aclose()
