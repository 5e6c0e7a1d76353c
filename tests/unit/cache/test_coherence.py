"""L1 of several processes over one store: nobody serves what an acknowledged invalidation has named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.coherence import BLOCK_S, LINGER_S, SWEEP_S, Coherence
from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.cache.ports import (
    L1_LEASE_S,
    START,
    Ears,
    Heard,
    Lead,
    LeadVerdict,
    Logged,
    Seen,
    Standing,
    StoreError,
    StoreTimeout,
    StoreUnreachable,
)
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

T = "stamford"
KEY = CacheKey(T, "p1", "jobs", "detail", "j1")
TAGS = ("jobs", "job:j1")
STEP_S = 0.05


class Wire:
    """One process's way to the store: it may be cut, hear nothing, answer late, or lose what it heard."""

    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.cut = False
        self.error: StoreError = StoreTimeout()
        self.deaf = False
        self.reply_s = 0.0
        self.defect: Exception | None = None
        self.loses: Callable[[Logged], bool] = lambda line: False
        self.listened: list[Mapping[str, Ears]] = []
        self.renewed: list[str] = []
        self.struck: list[set[str]] = []
        self.before_changes: Callable[[], Awaitable[object]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def reach(self) -> None:
        if self.defect is not None:
            raise self.defect
        if self.cut:
            raise self.error

    async def listen(self, ears: Mapping[str, Ears], *, block_s: float) -> Mapping[str, Heard]:
        self.reach()
        self.listened.append(dict(ears))
        if self.deaf:
            await self.clock.sleep(block_s)
            return {}
        heard = await self.store.listen(ears, block_s=block_s)
        self.reach()
        return {
            tenant: Heard(tuple(line for line in news.changes if not self.loses(line)), news.wakes)
            for tenant, news in heard.items()
        }

    async def renew_l1(self, tenant: str, instance: str, applied: str, *, register: bool, call: Call) -> Standing:
        self.reach()
        self.renewed.append(applied)
        standing = await self.store.renew_l1(tenant, instance, applied, register=register, call=call)
        if self.reply_s:
            await self.clock.sleep(self.reply_s)
        return standing

    async def changes(self, tenant: str, after: str, call: Call) -> list[Logged]:
        self.reach()
        if self.before_changes is not None:
            await self.before_changes()
        return [line for line in await self.store.changes(tenant, after, call) if not self.loses(line)]

    async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
        self.reach()
        return await self.store.behind(tenant, position, call, register=register)

    async def strike(self, tenant: str, instances: Mapping[str, bytes | None], call: Call) -> None:
        self.reach()
        self.struck.append(set(instances))
        await self.store.strike(tenant, instances, call)


class Replica:
    """A process with one value in its L1."""

    def __init__(self, world: World, name: str, **options: Any) -> None:
        self.world = world
        self.wire = Wire(world.store, world.clock)
        self.recorder = InMemoryRecorder()
        options = {"follow": True, "register": True} | options
        self.coherence = Coherence(
            self.wire,
            clock=world.clock,
            recorder=self.recorder,
            instance=name,
            tenants=(T,),
            **options,
        )
        self.since = -1

    def hold(self) -> None:
        """A READ is sent now, and what it brings goes to L1."""
        self.since = self.coherence.mark(T)

    @property
    def holds(self) -> bool:
        return self.coherence.holds(T)

    @property
    def clean(self) -> bool:
        return self.coherence.clean(T, self.since, TAGS, "p1")

    @property
    def serves(self) -> bool:
        """Would what is held be served without asking the store?"""
        return self.holds and self.clean


class World:
    """A store, a clock that the test moves, and processes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.replicas: list[Replica] = []
        self.recorder = InMemoryRecorder()
        barrier = Barrier(self.store, clock=self.clock, recorder=self.recorder)
        self.invalidator = Invalidator(self.store, clock=self.clock, recorder=self.recorder, barrier=barrier)

    async def replica(self, name: str, **options: Any) -> Replica:
        """One that has started, renewed its lease and holds its value."""
        one = Replica(self, name, **options)
        self.replicas.append(one)
        await self.store.read(KEY, TAGS, "", want=False, call=self.call())
        await one.coherence.start()
        await ticks()
        one.hold()
        return one

    def call(self) -> Call:
        return Call.begin(self.clock, "r")

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)
            await ticks()

    async def bump(self, *tags: str, wait: bool = False) -> Applied:
        notice = Notice("job.updated", "job", "j1", "webhook", self.clock.now(), "e1")
        return await self.invalidator.append_and_bump(T, tags or ("jobs",), notice, self.call(), wait=wait)

    async def seconds_of(self, step: Awaitable[Any], most_s: float = 10.0) -> float:
        """How long that takes, by the clock."""
        began, task = self.clock.monotonic(), asyncio.ensure_future(step)
        while not task.done():
            await ticks()
            if not task.done():
                assert self.clock.monotonic() - began < most_s
                self.clock.advance(0.01)
        await task
        return self.clock.monotonic() - began

    async def fleet(self) -> set[str]:
        return set(await self.store.behind(T, "9999999999999-0", self.call()))


async def ticks(number: int = 60) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> Any:
    world = World()
    yield world
    for one in world.replicas:
        await one.coherence.aclose()


# -- the lease ---------------------------------------------------------------------------------------------------------


async def test_a_process_holds_once_the_store_has_answered_and_not_before(world: World) -> None:
    one = Replica(world, "a")
    world.replicas.append(one)
    await world.store.read(KEY, TAGS, "", want=False, call=world.call())
    assert not one.holds
    one.wire.cut = True
    await one.coherence.start()
    await ticks()
    assert not one.holds
    one.wire.cut = False
    await world.pass_time(0.6)
    assert one.holds


async def test_what_was_read_before_the_first_answer_is_not_clean(world: World) -> None:
    one = Replica(world, "a")
    world.replicas.append(one)
    one.hold()
    await world.bump()
    await one.coherence.start()
    await ticks()
    assert not one.clean


async def test_a_process_goes_on_holding_while_it_renews(world: World) -> None:
    one = await world.replica("a")
    for _ in range(10):
        await world.pass_time(0.6)
        assert one.serves


async def test_a_process_that_is_cut_off_stops_serving_within_the_lease(world: World) -> None:
    one = await world.replica("a")
    one.wire.cut = True
    await world.pass_time(L1_LEASE_S - 0.6)
    assert one.serves
    await world.pass_time(0.6)
    assert not one.holds


async def test_a_process_whose_connection_breaks_stops_serving_at_once(world: World) -> None:
    one = await world.replica("a")
    one.wire.cut, one.wire.error = True, StoreUnreachable()
    await world.bump("contacts")
    await ticks()
    assert not one.holds


async def test_after_a_cut_what_was_missed_is_dirty_before_anything_is_served_again(world: World) -> None:
    one = await world.replica("a")
    one.wire.cut = True
    await world.pass_time(L1_LEASE_S)
    await world.bump()
    one.wire.cut = False
    for _ in range(40):
        await world.pass_time(STEP_S)
        assert not one.serves
    assert one.holds
    one.hold()
    assert one.serves


async def test_after_a_cut_in_which_nothing_happened_l1_is_served_again(world: World) -> None:
    one = await world.replica("a")
    one.wire.cut = True
    await world.pass_time(2 * L1_LEASE_S)
    one.wire.cut = False
    await world.pass_time(1.5)
    assert one.serves


async def test_the_lease_counts_from_when_the_renewal_was_sent(world: World) -> None:
    one = await world.replica("a")
    one.wire.reply_s = L1_LEASE_S
    await world.pass_time(3.5)
    assert len(one.wire.renewed) >= 2
    assert not one.holds


async def test_a_process_that_stood_still_does_not_hold_when_it_goes_on(world: World) -> None:
    one = await world.replica("a")
    await world.bump()
    world.clock.advance(L1_LEASE_S)
    assert not one.holds


async def test_a_renewal_that_shows_more_than_was_applied_grants_nothing_before_it_is(world: World) -> None:
    one = await world.replica("a")
    one.wire.deaf = True
    await world.pass_time(BLOCK_S)
    stuck = asyncio.Event()
    one.wire.before_changes = lambda: asyncio.wait_for(stuck.wait(), 5)
    await world.bump()
    await world.pass_time(L1_LEASE_S)
    assert not one.holds
    stuck.set()
    await world.pass_time(0.6)
    assert one.holds
    assert not one.clean


async def test_a_store_that_may_not_be_relied_on_is_not_outdone_by_l1(world: World) -> None:
    owing: set[str] = set()
    one = await world.replica("a", distrusted=owing.__contains__)
    assert one.serves
    owing.add(T)
    assert not one.holds


async def test_a_tenant_that_is_not_the_stores_is_never_held(world: World) -> None:
    one = await world.replica("a")
    assert not one.coherence.holds("guilford")
    assert not one.coherence.clean("guilford", one.coherence.mark("guilford"), TAGS, "p1")


def test_a_lease_that_is_over_before_it_is_renewed_is_refused() -> None:
    world = World()
    with pytest.raises(ValueError, match="renewed"):
        Replica(world, "a", lease_s=0.5)


# -- invalidations -----------------------------------------------------------------------------------------------------


async def test_a_bump_makes_its_tags_dirty_in_every_process_at_once_and_no_others(world: World) -> None:
    both = [await world.replica("a"), await world.replica("b")]
    await world.bump("contacts")
    await ticks()
    assert [one.serves for one in both] == [True, True]
    await world.bump("job:j1")
    await ticks()
    assert [(one.holds, one.clean) for one in both] == [(True, False), (True, False)]


async def test_a_bump_during_a_read_makes_what_that_read_brought_unusable(world: World) -> None:
    one = await world.replica("a")
    one.hold()  # the READ is on its way
    await world.bump()
    await ticks()  # the line overtakes its answer, which goes to L1 only now
    assert not one.serves
    one.hold()
    assert one.serves


async def test_a_bump_that_nobody_heard_is_found_at_the_next_renewal(world: World) -> None:
    one = await world.replica("a")
    one.wire.deaf = True
    await world.pass_time(BLOCK_S)
    one.hold()
    await world.bump()
    await ticks()
    assert one.clean
    await world.pass_time(0.6)
    assert (one.holds, one.clean) == (True, False)


async def test_a_line_that_was_lost_makes_everything_dirty_when_the_next_one_comes(world: World) -> None:
    one = await world.replica("a")
    one.wire.loses = lambda line: "job:j1" in line.tags
    await world.bump("job:j1")
    await world.bump("contacts")
    await ticks()
    assert not one.clean
    assert one.coherence.stats()[T]["cleared"]["gap"] == 1
    assert one.recorder.counts["cache_l1_cleared", (("reason", "gap"),)] == 1


async def test_lines_that_cannot_be_had_any_more_make_everything_dirty(world: World) -> None:
    one = await world.replica("a")
    one.wire.deaf, one.wire.loses = True, lambda line: True
    await world.pass_time(BLOCK_S)
    one.hold()
    await world.bump("contacts")
    await world.pass_time(0.6)
    assert (one.holds, one.clean) == (True, False)


async def test_a_new_epoch_makes_everything_dirty(world: World) -> None:
    one = await world.replica("a")
    await world.invalidator.renew_epoch(T, world.call(), reason="admin", wait=False)
    await ticks()
    assert not one.clean


async def test_a_lost_epoch_is_noticed_at_the_next_renewal(world: World) -> None:
    one = await world.replica("a")
    world.store.evict(system_key(T, "epoch"))
    await world.pass_time(0.6)
    assert not one.clean
    await world.store.read(KEY, TAGS, "", want=False, call=world.call())
    await world.pass_time(0.6)
    one.hold()
    assert one.serves


async def test_while_the_store_has_no_epoch_nothing_is_held(world: World) -> None:
    one = await world.replica("a")
    world.store.evict(system_key(T, "epoch"))
    await world.pass_time(L1_LEASE_S + 0.6)
    assert not one.holds
    assert await world.fleet() == {"a"}


async def test_a_flush_makes_everything_dirty_and_invalidations_are_heard_afterwards(world: World) -> None:
    one = await world.replica("a")
    await world.bump("contacts")
    await ticks()
    one.hold()
    world.store.flush()
    await world.pass_time(0.6)
    assert not one.clean
    await world.store.read(KEY, TAGS, "", want=False, call=world.call())
    await world.pass_time(1.5)
    one.hold()
    assert one.serves
    await world.bump()
    await ticks()
    assert not one.clean


async def test_a_flush_with_a_bump_right_after_makes_everything_dirty(world: World) -> None:
    one = await world.replica("a")
    await world.bump("contacts")
    await ticks()
    one.hold()
    world.store.flush()
    world.clock.advance(0.001)
    await world.bump("contacts")
    await ticks()
    assert not one.clean


async def test_a_withdrawn_bearer_is_dirty_and_others_are_not(world: World) -> None:
    one = await world.replica("a")
    await world.store.admit(
        T,
        "p1",
        (await world.store.admission(T, "p1", world.call()))[1],
        admission_s=300,
        call=world.call(),
    )
    await world.store.withdraw(T, "p1", world.call())
    await ticks()
    assert not one.coherence.clean(T, one.since, TAGS, "p1")
    assert one.coherence.clean(T, one.since, TAGS, "p2")


async def test_what_l1_is_told_beside_the_tags_is_dirty_in_it(world: World) -> None:
    one = await world.replica("a")
    notice = Notice("job.updated", "job", "j1", "webhook", world.clock.now(), "e1")
    await world.invalidator.append_and_bump(T, ("contacts",), notice, world.call(), tells=("job:j1",))
    assert not one.clean


async def test_a_deletion_by_pattern_makes_everything_dirty_everywhere(world: World) -> None:
    one = await world.replica("a")
    notice = Notice("cache.invalidated", "job", "", "admin", world.clock.now(), "e1")
    await world.invalidator.invalidate_pattern(T, "*:contacts:*", notice, world.call())
    assert not one.serves
    assert (await world.store.changes(T, START, world.call()))[-1].tags == ("*",)


# -- who is waited for -------------------------------------------------------------------------------------------------


async def test_a_webhook_is_answered_when_every_process_has_applied_it(world: World) -> None:
    both = [await world.replica("a"), await world.replica("b")]
    assert await world.seconds_of(world.bump(wait=True)) < 0.05
    assert [one.serves for one in both] == [False, False]


async def test_a_slow_process_is_waited_for(world: World) -> None:
    one, slow = await world.replica("a"), await world.replica("slow")
    slow.wire.deaf = True
    await world.pass_time(BLOCK_S + 0.1)
    slow.hold()
    took_s = await world.seconds_of(world.bump(wait=True))
    assert 0.1 < took_s < 0.6
    assert (one.serves, slow.serves) == (False, False)
    assert await world.fleet() == {"a", "slow"}


async def test_the_latency_told_includes_the_wait(world: World) -> None:
    slow = await world.replica("slow")
    slow.wire.deaf = True
    await world.pass_time(BLOCK_S + 0.1)
    told: list[Applied] = []

    async def bump() -> None:
        told.append(await world.bump(wait=True))

    took_s = await world.seconds_of(bump())
    assert told[0].latency_ms == pytest.approx(took_s * 1000, abs=25)
    assert told[0].latency_ms > 100


async def test_a_dead_process_is_waited_for_a_lease_and_only_once(world: World) -> None:
    await world.replica("a")
    dead = await world.replica("dead")
    dead.wire.cut = True
    await ticks()
    took_s = await world.seconds_of(world.bump(wait=True))
    assert L1_LEASE_S <= took_s < L1_LEASE_S + 0.3
    assert not dead.serves
    assert await world.seconds_of(world.bump(wait=True)) < 0.05
    assert await world.fleet() == {"a"}


async def test_a_process_that_was_struck_and_lives_is_waited_for_again(world: World) -> None:
    one = await world.replica("a")
    one.wire.cut = True
    await world.seconds_of(world.bump(wait=True))
    assert await world.fleet() == set()
    one.wire.cut = False
    await world.pass_time(1.5)
    assert await world.fleet() == {"a"}
    one.hold()
    assert one.serves
    await world.seconds_of(world.bump(wait=True))
    assert not one.serves


async def test_who_does_not_ask_for_the_wait_is_not_held_up(world: World) -> None:
    dead = await world.replica("dead")
    dead.wire.cut = True
    assert await world.seconds_of(world.bump(wait=False)) < 0.05


async def test_after_a_flush_a_bump_waits_a_lease_since_nobody_knows_who_is_there(world: World) -> None:
    lost = await world.replica("lost")
    lost.wire.cut = True
    await ticks()
    world.store.flush()
    took_s = await world.seconds_of(world.bump(wait=True))
    assert took_s >= L1_LEASE_S
    assert not lost.holds


async def test_a_flush_while_a_webhook_waits_does_not_let_it_go_before_the_lease(world: World) -> None:
    lost = await world.replica("lost")
    await world.pass_time(L1_LEASE_S + 0.5)
    lost.wire.cut = True
    await ticks()
    lost.hold()
    waiting = asyncio.ensure_future(world.bump(wait=True))
    await world.pass_time(0.3)
    world.store.flush()
    world.clock.advance(0.001)
    await world.pass_time(0.5)
    assert lost.serves
    assert not waiting.done()
    await world.seconds_of(waiting)
    assert not lost.serves


async def test_renewing_the_epoch_and_deleting_by_pattern_wait_as_well(world: World) -> None:
    slow = await world.replica("slow")
    slow.wire.deaf = True
    await world.pass_time(BLOCK_S + 0.1)
    slow.hold()
    assert await world.seconds_of(world.invalidator.renew_epoch(T, world.call(), reason="admin")) > 0.1
    assert not slow.serves
    await world.pass_time(0.1)
    slow.hold()
    notice = Notice("cache.invalidated", "job", "", "admin", world.clock.now(), "e1")
    assert await world.seconds_of(world.invalidator.invalidate_pattern(T, "*:x:*", notice, world.call())) > 0.1
    assert not slow.serves


async def test_who_does_not_register_follows_and_is_not_waited_for(world: World) -> None:
    one = await world.replica("bounded", register=False)
    assert await world.fleet() == set()
    assert one.serves
    await world.bump()
    await ticks()
    assert (one.holds, one.clean) == (True, False)


async def test_who_does_not_follow_never_holds_and_asks_the_store_for_nothing(world: World) -> None:
    one = await world.replica("strict", follow=False)
    await world.pass_time(2.0)
    assert not one.holds
    assert await world.fleet() == set()
    await one.coherence.aclose()
    assert (one.wire.renewed, one.wire.listened, one.wire.struck) == ([], [], [])


async def test_after_closing_nothing_is_held_and_nobody_waits(world: World) -> None:
    one = await world.replica("a")
    await one.coherence.aclose()
    assert not one.holds
    assert await world.fleet() == set()
    await world.pass_time(1.0)
    assert not one.holds


async def test_closing_without_a_store_ends_and_says_so(world: World) -> None:
    one = await world.replica("a")
    one.wire.cut = True
    with capture_logs() as logs:
        await asyncio.wait_for(one.coherence.aclose(), 5)
    assert [line["event"] for line in logs] == ["not signed off from the fleet"]


async def test_who_crashed_is_swept_from_the_fleet_and_the_living_are_not(world: World) -> None:
    living = [await world.replica("a"), await world.replica("b")]
    await world.store.renew_l1(T, "crashed", START, register=True, call=world.call())
    await world.pass_time(SWEEP_S - 1.0)
    assert await world.fleet() == {"a", "b", "crashed"}
    await world.pass_time(2 * SWEEP_S)
    assert await world.fleet() == {"a", "b"}
    struck = [names for one in living for names in one.wire.struck]
    assert struck
    assert all(names == {"crashed"} for names in struck)


# -- wakes -------------------------------------------------------------------------------------------------------------


async def led(world: World, token: str) -> tuple[Seen, Lead]:
    seen = await world.store.read(KEY, TAGS, "", want=True, call=world.call())
    return seen, await world.store.lead(KEY, seen, token, call=world.call())


async def release(world: World, token: str, result: str) -> None:
    await world.store.release(KEY, token, result=result, call=world.call())


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("result", ["unkept", "failed"])
async def test_a_follower_is_woken_when_the_fetch_has_ended(world: World, follow: bool, result: str) -> None:
    one = await world.replica("a", follow=follow)
    with one.coherence.waiting(T, KEY.text):  # what is heard first may be old, so let that be over
        await ticks()
        await led(world, "t0")
        await led(world, "x")
        await release(world, "t0", "unkept")
        await ticks()
    await led(world, "t1")
    with one.coherence.waiting(T, KEY.text) as waiting:
        assert (await led(world, "t2"))[1].verdict is LeadVerdict.FOLLOW
        asked = asyncio.ensure_future(waiting.ended(5.0))
        await ticks()
        assert not asked.done()
        await release(world, "t1", result)
        await ticks()
        assert asked.done()
        assert await asked == result


async def test_a_wake_that_overtakes_the_answer_is_not_missed_and_is_told_once(world: World) -> None:
    one = await world.replica("a")
    await led(world, "t1")
    with one.coherence.waiting(T, KEY.text) as waiting:
        await led(world, "t2")
        await release(world, "t1", "unkept")
        await ticks()
        assert await waiting.ended(5.0) is not None
        again = asyncio.ensure_future(waiting.ended(0.2))
        await ticks()
        assert not again.done()
        await world.pass_time(0.3)
        assert await again is None


async def test_a_follower_waits_no_longer_than_it_said(world: World) -> None:
    one = await world.replica("a")
    with one.coherence.waiting(T, KEY.text) as waiting:
        asked = asyncio.ensure_future(waiting.ended(1.0))
        await world.pass_time(0.9)
        assert not asked.done()
        await world.pass_time(0.2)
        assert await asked is None


async def test_every_follower_of_the_key_is_woken_and_those_of_others_are_not(world: World) -> None:
    one = await world.replica("a")
    with (
        one.coherence.waiting(T, KEY.text) as first,
        one.coherence.waiting(T, KEY.text) as second,
        one.coherence.waiting(T, KEY.text + "2") as other,
    ):
        await led(world, "t1")
        await led(world, "t2")
        await release(world, "t1", "failed")
        await ticks()
        asked = asyncio.ensure_future(other.ended(0.1))
        assert await first.ended(1.0) is not None
        assert await second.ended(1.0) is not None
        await world.pass_time(0.2)
        assert await asked is None


async def test_an_old_failure_that_is_heard_first_only_makes_a_follower_look_again(world: World) -> None:
    await led(world, "t1")
    await led(world, "t2")
    await release(world, "t1", "failed")
    one = await world.replica("a", follow=False)
    with one.coherence.waiting(T, KEY.text) as waiting:
        await ticks()
        assert await waiting.ended(1.0) == "stored"


async def test_what_was_not_listened_to_meanwhile_is_old_as_well(world: World) -> None:
    one = await world.replica("a", follow=False)
    with one.coherence.waiting(T, KEY.text):
        await led(world, "t1")
        await led(world, "t2")
        await release(world, "t1", "unkept")
        await ticks()
    await world.pass_time(LINGER_S + 2 * BLOCK_S)
    await led(world, "t1")
    await led(world, "t2")
    await release(world, "t1", "failed")
    with one.coherence.waiting(T, KEY.text) as waiting:
        await ticks()
        assert await waiting.ended(1.0) == "stored"


async def test_without_followers_a_process_listens_only_while_somebody_waits_and_a_little_longer(world: World) -> None:
    one = await world.replica("a", follow=False)
    with one.coherence.waiting(T, KEY.text):
        await ticks()
        assert one.wire.listened == [{T: Ears(None, START)}]
    await world.pass_time(LINGER_S + 2 * BLOCK_S)
    number = len(one.wire.listened)
    await world.pass_time(3 * BLOCK_S)
    assert len(one.wire.listened) == number


async def test_after_a_break_wakes_are_heard_from_the_start(world: World) -> None:
    one = await world.replica("a", follow=False)
    with one.coherence.waiting(T, KEY.text) as waiting:
        await led(world, "t1")
        await led(world, "t2")
        await release(world, "t1", "unkept")
        await ticks()
        assert await waiting.ended(1.0) is not None
        assert one.wire.listened[-1][T].wakes != START
        one.wire.cut = True
        await world.pass_time(2 * BLOCK_S)
        one.wire.cut = False
        await world.pass_time(1.5)
        breaks = [ears[T].wakes for ears in one.wire.listened]
        assert breaks.count(START) == 2


# -- loops that do not end ---------------------------------------------------------------------------------------------


async def test_an_outage_is_counted_each_time_and_told_once(world: World) -> None:
    one = await world.replica("a")
    with capture_logs() as logs:
        one.wire.cut = True
        await world.pass_time(5.0)
        one.wire.cut = False
        await world.pass_time(3.0)
    assert one.holds
    assert one.recorder.total("cache_coherence_failures") > 4
    told = sorted((line["event"], line["part"]) for line in logs)
    assert told == [
        ("coherence interrupted", "listen"),
        ("coherence interrupted", "renew"),
        ("coherence is back", "listen"),
        ("coherence is back", "renew"),
    ]


async def test_a_defect_is_told_and_the_loops_go_on(world: World) -> None:
    one = await world.replica("a")
    with capture_logs() as logs:
        one.wire.defect = RuntimeError("a defect")
        await world.pass_time(L1_LEASE_S + 0.1)
        assert not one.holds
        one.wire.defect = None
        await world.pass_time(2.0)
    assert {line["part"] for line in logs if line["event"] == "coherence failed"} == {"listen", "renew"}
    one.hold()
    assert one.serves
    await world.bump()
    await ticks()
    assert not one.clean


async def test_stats_tell_how_far_each_tenant_is_and_what_remains_of_its_lease(world: World) -> None:
    one = await world.replica("a")
    told = (await world.bump()).told
    await ticks()
    world.clock.advance(0.25)
    stats = one.coherence.stats()[T]
    assert stats["applied"] == told.position
    assert stats["lines"] == 1
    assert 0 < stats["leaseSeconds"] <= L1_LEASE_S - 0.25
    assert stats["cleared"] == {"start": 1}
