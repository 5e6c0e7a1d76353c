"""warm: what is re-read after an event, in which order, with whose key, and when it leaves the budget alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from jobnimbus_mcp.call import CALL_DEADLINE_S, Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.consumers.heat import Hot, MemoryHeat
from jobnimbus_mcp.consumers.rounds import FETCHED_MOST, Rounds, server_callers
from jobnimbus_mcp.consumers.warm import Warm
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import NEWEST_FIRST, Is
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CacheUnavailable,
    ProjectError,
    RecordNotFound,
    UpstreamForbidden,
    UpstreamServerError,
    UpstreamUnauthorized,
)
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import ACT_WITHIN_S, Consumer, Outcome
from jobnimbus_mcp.gateway.answers import Answer, ParsedValues, Status, Tier
from jobnimbus_mcp.gateway.answers import Outcome as Got
from jobnimbus_mcp.gateway.identity import Caller, Identities, Partitions
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

CALLERS = {name: Caller(name, f"key-of-{name}", f"partition-of-{name}", own_key=False) for name in ("stamford", "rye")}
JOBS = Read.block(Entity.JOBS, (), NEWEST_FIRST, 0)
CONTACTS = Read.block(Entity.CONTACTS, (), NEWEST_FIRST, 0)
T = TypeVar("T")


def by_status(number: int) -> Read:
    return Read.block(Entity.JOBS, (Is("status", number),), NEWEST_FIRST, 0)


class World:
    """A gateway that notes what it is asked; a read takes `takes_s` of the clock's time and `costs` of the budget."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.heat = MemoryHeat(self.clock)
        self.recorder = InMemoryRecorder()
        self.asked: list[tuple[str, Read]] = []
        self.calls: list[Call] = []
        self.at_once = self.most_at_once = 0
        self.fails: dict[Read, ProjectError | RuntimeError] = {}
        self.fresh: set[Read] = set()
        self.takes_s = 0.0
        self.share = 1.0
        self.costs = 0.0
        self.rounds = Rounds(self, clock=self.clock, share_left=lambda _: self.share, recorder=self.recorder)
        self.warm = Warm(self.rounds, self.heat, callers=CALLERS, index_settle_s=6.0, events_settle_s=20.0)

    async def get(self, read: Read, caller: Caller, call: Call, *, internal: bool = False) -> Answer:
        assert internal, "counted as a caller's"
        assert caller is CALLERS[caller.instance]
        self.asked.append((caller.instance, read))
        self.calls.append(call)
        self.share -= self.costs
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.clock.sleep(self.takes_s) if self.takes_s else asyncio.sleep(0))
        finally:
            self.at_once -= 1
        if read in self.fails:
            raise self.fails[read]
        status, tier = (Status.HIT, Tier.L2) if read in self.fresh else (Status.MISS, Tier.UPSTREAM)
        return Answer(Got(b"{}", False, status, tier, 0.0, 1.0, False, "etag"), ParsedValues(1))

    def used(self, read: Read, times: int, instance: str = "stamford") -> None:
        for _ in range(times):
            self.heat.note(instance, read)

    async def act(self, *events: Event) -> Sequence[Outcome]:
        return await self.passing(self.warm.act(events, [f"r{number}" for number in range(len(events))]))

    async def passing(self, work: Awaitable[T], bound_s: float = 60.0) -> T:
        """The result of `work`, the clock moved on while it waits."""
        task = asyncio.ensure_future(work)
        began = self.clock.monotonic()
        while not task.done():
            for _ in range(30):
                await asyncio.sleep(0)
            assert self.clock.monotonic() - began < bound_s
            if not task.done():
                self.clock.advance(0.05)
        return task.result()

    @property
    def results(self) -> dict[str, float]:
        return {dict(labels)["result"]: n for (name, labels), n in self.recorder.counts.items() if name == "warm_reads"}


@pytest.fixture
def world() -> World:
    return World()


def event(*tags: str, instance: str = "stamford", is_new: bool = False) -> Event:
    return Event("e", instance, "job.updated", "jobs", "j1", "updated", tags, "webhook", 1.0, is_new=is_new)


@pytest.mark.parametrize(
    ("given", "delay_s"),
    [
        (event("jobs:list"), 7.0),
        (event("jobs:list", is_new=True), 20.0),
        (event(), None),
        (event("jobs:list", instance="guilford"), None),  # the server holds no key for it
    ],
)
def test_an_event_is_due_a_second_after_settling_a_record_s_creation_later(
    world: World, given: Event, delay_s: float | None
) -> None:
    consumer: Consumer = world.warm
    assert consumer.delay_s(given) == delay_s
    assert consumer.within_s <= ACT_WITHIN_S


def test_settling_longer_than_for_created_records_holds_for_them_too(world: World) -> None:
    rounds = Rounds(world, clock=world.clock, share_left=lambda _: 1.0, recorder=world.recorder)
    slow = Warm(rounds, world.heat, callers=CALLERS, index_settle_s=30.0, events_settle_s=20.0)
    assert slow.delay_s(event("jobs:list", is_new=True)) == 31.0


def test_background_work_uses_the_server_s_own_keys_alone() -> None:
    identities = Identities(("stamford", "guilford"), {"stamford": "s" * 20}, Partitions())
    callers = server_callers(identities)

    assert callers == {"stamford": identities.server_caller("stamford")}


async def test_what_was_hot_and_was_invalidated_is_read_again_the_most_used_first(world: World) -> None:
    world.used(by_status(1), 3)
    world.used(by_status(2), 9)
    world.used(by_status(3), 2)  # not hot
    world.used(CONTACTS, 50)  # hot, but still good
    world.used(JOBS, 5)
    world.used(JOBS, 50, "rye")  # hot with others

    told = await world.act(event("jobs:list"))

    assert world.asked == [("stamford", by_status(2)), ("stamford", JOBS), ("stamford", by_status(1))]
    assert told == [Outcome(answer="read 3 of 3, 3 from JobNimbus")]
    assert world.results == {"fetched": 3}
    assert {call.request_id for call in world.calls} == {"r0"}


async def test_uses_long_ago_are_no_heat(world: World) -> None:
    world.used(JOBS, 8)
    world.clock.advance(2 * 3600)
    assert await world.act(event("jobs:list")) == [Outcome(answer="read 0 of 0, 0 from JobNimbus")]
    assert world.asked == []


async def test_warming_makes_nothing_hotter(world: World) -> None:
    world.used(JOBS, 5)
    before = await world.heat.hottest("stamford")
    await world.act(event("jobs:list"))
    assert await world.heat.hottest("stamford") == before


async def test_what_many_events_of_several_accounts_dirtied_is_read_once_in_each(world: World) -> None:
    world.used(JOBS, 5)
    world.used(CONTACTS, 5)
    world.used(JOBS, 5, "rye")
    told = await world.act(
        event("jobs:list"),
        event("jobs@any", instance="rye"),
        event("jobs:list", "contacts:list"),
        event("jobs:list", instance="guilford"),
    )

    assert sorted(world.asked, key=str) == sorted([("stamford", JOBS), ("stamford", CONTACTS), ("rye", JOBS)], key=str)
    assert all(outcome.ok for outcome in told)
    assert [outcome.answer for outcome in told][3] == "no credential"


async def test_a_round_is_bounded_in_reads_and_two_are_made_at_once(world: World) -> None:
    world.takes_s = 0.1
    for number in range(30):
        world.used(by_status(number), 5)
    await world.act(event("jobs:list"))

    assert (len(world.asked), world.most_at_once) == (FETCHED_MOST, 2)


async def test_two_are_made_at_once_of_an_account_however_many_rounds_there_are(world: World) -> None:
    """Else a few of an admin's rounds have all connections to an account that answers slowly."""
    world.takes_s = 0.1

    async def round_of(instance: str, number: int) -> int:
        reads = [world.rounds.reading(by_status(10 * number + n), CALLERS[instance]) for n in range(4)]
        return (await world.rounds.run(instance, reads, request_id="r", reason="admin", begun_within_s=30.0)).made

    rounds = [round_of(instance, number) for instance in CALLERS for number in range(5)]
    assert await world.passing(asyncio.gather(*rounds)) == [4] * 10
    assert world.most_at_once == 2 * len(CALLERS)


async def test_nothing_is_asked_while_callers_need_the_budget(world: World) -> None:
    world.share = 0.49
    world.used(JOBS, 5)
    told = await world.act(event("jobs:list"))

    assert world.asked == []
    assert told == [Outcome(answer="read 0 of 1, 0 from JobNimbus")]
    assert world.results == {"left": 1}


async def test_a_round_stops_where_the_budget_is_half_spent(world: World) -> None:
    world.costs = 0.2
    for number in range(10):
        world.used(by_status(number), 5)
    await world.act(event("jobs:list"))

    # at 1, 0.8 and 0.6; two were looking at 0.6 or above at the same time at most
    assert len(world.asked) == 3
    assert world.results == {"fetched": 3, "left": 7}


async def test_a_round_goes_on_when_the_budget_fills_up_again(world: World) -> None:
    world.share = 0.0
    world.used(JOBS, 5)
    acting = asyncio.ensure_future(world.warm.act([event("jobs:list")], ["r"]))
    for _ in range(30):
        await asyncio.sleep(0)
    world.clock.advance(0.5)
    world.share = 1.0
    await world.passing(acting)

    assert world.asked == [("stamford", JOBS)]


async def test_slow_reads_end_within_what_the_consumer_is_given(world: World) -> None:
    world.takes_s = 4.0
    for number in range(20):
        world.used(by_status(number), 5)
    began = world.clock.monotonic()
    told = await world.act(event("jobs:list"))

    assert len(world.asked) == 4  # two at 0 s, two at 4 s, none after 5 s
    assert world.clock.monotonic() - began < ACT_WITHIN_S
    assert max(call.deadline for call in world.calls) - began < ACT_WITHIN_S
    assert all(round(call.deadline - call.started, 3) == CALL_DEADLINE_S for call in world.calls)
    assert told[0].ok


@pytest.mark.parametrize(
    "error", [UpstreamServerError("x"), BudgetExhausted("x", retry_after_s=1.0), UpstreamUnauthorized("x")]
)
async def test_what_jobnimbus_would_refuse_the_others_too_ends_the_round(world: World, error: ProjectError) -> None:
    for number in range(10):
        world.used(by_status(number), 20 - number)
    world.fails = {by_status(0): error}
    (told,) = await world.act(event("jobs:list"))

    assert told.ok
    assert told.answer.endswith(f"not read: {error.code}")
    assert len(world.asked) <= 3
    assert world.results["failed"] == 1


async def test_a_refusal_of_one_read_is_told_with_the_events_it_would_have_served_and_with_no_others(
    world: World,
) -> None:
    world.used(JOBS, 9)
    world.used(CONTACTS, 5)
    world.fails = {JOBS: UpstreamForbidden("x")}
    first, second = await world.act(event("jobs:list"), event("contacts:list"))

    assert first.ok
    assert second.ok
    assert "upstream_forbidden" in first.answer
    assert "upstream_forbidden" not in second.answer
    assert len(world.asked) == 2


async def test_a_record_that_is_gone_and_one_that_is_fresh_are_no_failures(world: World) -> None:
    gone = Read.record(Entity.JOBS, "j1")
    world.used(gone, 5)
    world.used(JOBS, 4)
    world.fails = {gone: RecordNotFound("x")}
    world.fresh = {JOBS}
    (told,) = await world.act(event("jobs:list", "jobs:detail:j1"))

    assert told == Outcome(answer="read 2 of 2, 1 from JobNimbus")
    assert world.results == {"fetched": 1, "kept": 1}


class Away(MemoryHeat):
    async def hottest(self, instance: str, *, most: int = 0, at_least: float = 0.0) -> Sequence[Hot]:
        raise CacheUnavailable("away")


def unheard(world: World) -> None:
    rounds = Rounds(world, clock=world.clock, share_left=lambda _: 1.0, recorder=world.recorder)
    world.warm = Warm(rounds, Away(world.clock), callers=CALLERS, index_settle_s=6.0, events_settle_s=20.0)


def broken(world: World) -> None:
    world.used(JOBS, 5)
    world.fails = {JOBS: RuntimeError("a defect")}


@pytest.mark.parametrize(("bad", "raised"), [(unheard, CacheUnavailable), (broken, RuntimeError)])
async def test_what_is_no_fault_of_jobnimbus_is_a_failed_try(
    world: World, bad: Callable[[World], None], raised: type[Exception]
) -> None:
    bad(world)
    with pytest.raises(raised):
        await world.act(event("jobs:list"))
    assert world.at_once == 0
