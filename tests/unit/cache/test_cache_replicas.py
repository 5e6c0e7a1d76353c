"""The road of a read in several replicas over one store: what L1 may answer, what may be stale, and who fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.flight_lease import FOLLOW_S, KEEP_EVERY_S
from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import FLIGHT_LEASE_S, L1_LEASE_S, Lead, StoreTimeout, StoreUnreachable
from jobnimbus_mcp.cache.read_through import Question, ReadThrough
from jobnimbus_mcp.cache.refresh import MOST_REFRESHES
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    Stopping,
    UpstreamCircuitOpen,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

T = TypeVar("T")

TENANT = "stamford"
TAGS = ("jobs", "jobs:detail", "job:j1")
PLAIN = Policy(600, jitter=0)
KIND = Policy(600, jitter=0, stale_s=60, error_s=1800, soft_s=5.0)

PAST = "past its lifetime; being fetched anew"
AWAY = "past its lifetime; the origin could not be asked"
SLOW = "past its lifetime; the origin has not answered yet"


async def ticks(number: int = 30) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


class Line:
    """One replica's way to the store: counts what is sent, may be cut, may hold answers back."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.sent: list[str] = []
        self.cut = False
        self.held = "read"
        self.answers = asyncio.Event()
        self.answers.set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def send(*args: Any, **options: Any) -> Any:
            self.sent.append(name)
            if self.cut:
                raise StoreTimeout
            result = await method(*args, **options)
            if name == self.held:
                await self.answers.wait()
            if self.cut:
                raise StoreTimeout
            return result

        return send


@dataclass
class Replica:
    line: Line
    coherence: Coherence
    cache: ReadThrough
    invalidator: Invalidator
    recorder: InMemoryRecorder
    l1: L1


@dataclass
class Fleet:
    """Replicas over one store, and one origin that counts, waits and fails as told."""

    clock: ManualClock = field(default_factory=ManualClock)
    replicas: list[Replica] = field(default_factory=list)
    loads: int = 0
    value: bytes = b"v1"
    negative: bool = False
    versions: dict[str, int] = field(default_factory=dict)
    error: Exception | None = None
    admit_error: Exception | None = None
    asked: int = 0
    random: float = 0.5
    beta: float = 0.0
    events: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    gates: list[asyncio.Event] = field(default_factory=list)
    last_calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.go.set()

    def question(self, mode: Mode = Mode.BARRIER, policy: Policy = PLAIN, bearer: str = "", **options: Any) -> Question:
        return Question(CacheKey(TENANT, "p1", "jobs", "detail", "j1", bearer), TAGS, policy, mode, **options)

    def call(self) -> Call:
        return Call.begin(self.clock, "r")

    async def loader(self, call: Call) -> Loaded:
        self.loads += 1
        self.last_calls.append(call)
        answer, error = Loaded(self.value, self.negative, dict(self.versions)), self.error
        await (self.gates.pop(0) if self.gates else self.go).wait()
        if error is not None:
            raise error
        return answer

    async def admit(self, call: Call) -> None:
        self.asked += 1
        if self.admit_error is not None:
            raise self.admit_error

    async def read(self, number: int = 0, question: Question | None = None, **options: Any) -> Outcome:
        options.setdefault("call", self.call())
        return await self.replicas[number].cache.read(question or self.question(), self.loader, **options)

    async def through(self, doing: Awaitable[T], *, step_s: float = 0.01, most_s: float = 30.0) -> T:
        """The result, while time goes on."""
        task, until = asyncio.ensure_future(doing), self.clock.monotonic() + most_s
        while True:
            await ticks()
            if task.done():
                return task.result()
            assert self.clock.monotonic() < until, "does not end"
            self.clock.advance(step_s)

    async def passes(self, seconds: float) -> None:
        """Time goes by in steps short enough for leases to be renewed."""
        till, step_s = self.clock.monotonic() + seconds, 0.25 if seconds < 20 else 1.0
        while self.clock.monotonic() < till - 1e-9:
            self.clock.advance(min(step_s, till - self.clock.monotonic()))
            await ticks()

    async def bump(
        self, tags: Sequence[str] = ("jobs",), number: int = 0, floors: Mapping[str, int] | None = None
    ) -> None:
        self.events += 1
        notice = Notice(
            "job.updated", "job", "j1", "webhook", self.clock.now(), f"e{self.events}", floors=dict(floors or {})
        )
        await self.through(self.replicas[number].invalidator.append_and_bump(TENANT, tags, notice, self.call()))

    def counted(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(
            n
            for replica in self.replicas
            for (counted, told), n in replica.recorder.counts.items()
            if counted == name and wanted <= set(told)
        )


@asynccontextmanager
async def fleet(replicas: int = 1, *, follow: bool = True, **options: Any) -> AsyncIterator[Fleet]:
    world = Fleet()
    for number in range(replicas):
        line, recorder, l1 = Line(world.store), InMemoryRecorder(), L1(1 << 20)
        store: Any = line
        coherence = Coherence(
            store,
            clock=world.clock,
            recorder=recorder,
            instance=f"i{number}",
            tenants=[TENANT],
            follow=follow,
            register=follow,
        )
        cache = ReadThrough(
            store,
            l1,
            clock=world.clock,
            random01=lambda: world.random,
            recorder=recorder,
            coherence=coherence,
            early_beta=lambda tenant: world.beta,
            **options,
        )
        barrier = Barrier(store, clock=world.clock, recorder=recorder)
        invalidator = Invalidator(store, clock=world.clock, recorder=recorder, barrier=barrier)
        world.replicas.append(Replica(line, coherence, cache, invalidator, recorder, l1))
        await coherence.start()
    # The epoch is made by the first look, and a renewal that meets another one makes everything dirty.
    await world.replicas[0].cache.read(
        Question(CacheKey(TENANT, "p0", "jobs", "detail", "first"), ("first",), PLAIN), world.loader, call=world.call()
    )
    await world.passes(1.0)
    world.loads = 0
    for replica in world.replicas:
        assert replica.coherence.holds(TENANT) is follow
        replica.line.sent.clear()
    try:
        yield world
    finally:
        world.go.set()
        for replica in world.replicas:
            replica.line.cut = False
            await world.through(replica.cache.aclose())
            await world.through(replica.coherence.aclose())


def shown(outcome: Outcome) -> tuple[bytes, Status, Tier, str | None]:
    return outcome.value, outcome.status, outcome.tier, outcome.stale_reason


HIT_L1 = (b"v1", Status.HIT, Tier.L1, None)
MISSED = (b"v1", Status.MISS, Tier.UPSTREAM, None)


# -- L1 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "reads"), [(Mode.STRICT, 2), (Mode.BARRIER, 1), (Mode.BOUNDED, 1), (Mode.ANY, 1)])
async def test_a_hit_in_l1_costs_no_round_trip_save_where_every_one_is_promised(mode: Mode, reads: int) -> None:
    async with fleet() as world:
        await world.read(question=world.question(mode))
        hit = await world.read(question=world.question(mode))
        assert shown(hit) == HIT_L1
        assert hit.ttl_s == 600
        assert world.replicas[0].line.sent.count("read") == reads


async def test_what_another_replica_filled_is_held_after_one_look() -> None:
    async with fleet(2) as world:
        await world.read(0)
        assert (await world.read(1)).tier is Tier.L2
        assert shown(await world.read(1)) == HIT_L1
        assert world.replicas[1].line.sent.count("read") == 1


@pytest.mark.parametrize("mode", [Mode.BARRIER, Mode.BOUNDED, Mode.ANY])
async def test_l1_answers_while_the_store_is_away_but_no_longer_than_its_lease(mode: Mode) -> None:
    async with fleet() as world:
        question = world.question(mode)
        await world.read(question=question)
        world.replicas[0].line.cut = True
        await world.passes(L1_LEASE_S - 0.6)
        assert shown(await world.read(question=question)) == HIT_L1
        lost = replace(world.call(), store_usable=False)
        assert shown(await world.read(question=question, call=lost)) == HIT_L1
        await world.passes(0.6)
        assert (await world.read(question=question)).status is Status.BYPASS


@pytest.mark.parametrize("tags", [("job:j1",), ("jobs",)])
async def test_after_an_acknowledged_invalidation_no_replica_answers_from_l1(tags: Sequence[str]) -> None:
    async with fleet(3) as world:
        for number in range(3):
            await world.read(number)
        world.value = b"v2"
        await world.bump(tags, number=1)
        assert [(await world.read(number)).value for number in range(3)] == [b"v2"] * 3


async def test_an_invalidation_of_something_else_costs_no_hit() -> None:
    async with fleet() as world:
        await world.read()
        await world.bump(("tasks", "job:j2"))
        assert shown(await world.read()) == HIT_L1


async def test_what_an_invalidation_overtook_on_its_way_from_the_store_is_not_trusted() -> None:
    async with fleet(2) as world:
        await world.read(0)
        world.replicas[1].line.answers.clear()
        slow = asyncio.create_task(world.read(1))
        await ticks()
        world.value = b"v2"
        await world.bump(number=0)
        world.replicas[1].line.answers.set()
        assert (await slow).value == b"v1"  # it started before
        assert (await world.read(1)).value == b"v2"


async def test_what_an_invalidation_overtook_on_its_way_from_the_origin_is_not_trusted() -> None:
    async with fleet(2) as world:
        world.go.clear()
        slow = asyncio.create_task(world.read(1))
        await ticks()
        world.value = b"v2"
        await world.bump(number=0)
        world.go.set()
        assert (await slow).value == b"v1"
        assert (await world.read(1)).value == b"v2"


async def test_l1_answers_no_longer_than_its_entry_is_fresh() -> None:
    async with fleet() as world:
        await world.read()
        await world.passes(599)
        assert shown(await world.read()) == HIT_L1
        await world.passes(1)
        assert shown(await world.read()) == MISSED


async def test_l1_minds_how_old_an_answer_may_be_also_under_a_clock_set_back() -> None:
    async with fleet() as world:
        await world.read()
        await world.passes(60)
        assert shown(await world.read(max_age_s=61)) == HIT_L1
        world.clock.jump_wall(-59.5)
        assert (await world.read(max_age_s=30)).status is Status.MISS
        assert (await world.read(max_age_s=0)).status is Status.BYPASS


async def test_l1_answers_only_the_bearer_it_was_brought_for_and_only_while_that_is_accepted() -> None:
    async with fleet(admission_s=300) as world:
        good, other = world.question(bearer="good"), world.question(bearer="other")
        await world.read(question=good, admit=world.admit)
        assert shown(await world.read(question=good, admit=world.admit)) == HIT_L1
        assert world.asked == 0
        await world.passes(300)
        reads = world.replicas[0].line.sent.count("read")
        await world.read(question=good, admit=world.admit)
        assert (world.asked, world.replicas[0].line.sent.count("read")) == (1, reads + 1)
        await world.read(question=good, admit=world.admit)  # learns for how long that acceptance counts
        assert shown(await world.read(question=good, admit=world.admit)) == HIT_L1
        assert world.replicas[0].line.sent.count("read") == reads + 2
        await world.read(question=other, admit=world.admit)
        assert (world.asked, world.replicas[0].line.sent.count("read")) == (2, reads + 3)


async def test_a_bearer_refused_anywhere_is_answered_from_no_l1() -> None:
    async with fleet(2) as world:
        bad = world.question(bearer="bad")
        for number in range(2):
            await world.read(number, bad, admit=world.admit)
        world.error = world.admit_error = UpstreamUnauthorized("refused")
        with pytest.raises(UpstreamUnauthorized):
            await world.read(0, bad, admit=world.admit, max_age_s=0)
        await ticks()
        for number in range(2):
            with pytest.raises(UpstreamUnauthorized):
                await world.read(number, bad, admit=world.admit)


async def test_a_refusal_that_the_store_could_not_be_told_holds_in_this_process() -> None:
    async with fleet() as world:
        bad = world.question(bearer="bad")
        await world.read(question=bad, admit=world.admit)
        world.error = world.admit_error = UpstreamUnauthorized("refused")
        world.replicas[0].line.cut = True
        with pytest.raises(UpstreamUnauthorized):
            await world.read(question=bad, admit=world.admit, max_age_s=0)
        world.replicas[0].line.cut = False
        assert world.replicas[0].coherence.holds(TENANT)
        with pytest.raises(UpstreamUnauthorized):
            await world.read(question=bad, admit=world.admit)


async def test_other_tags_of_the_same_key_are_not_answered_from_l1() -> None:
    async with fleet() as world:
        await world.read()
        other = replace(world.question(), tags=("jobs", "jobs:detail", "job:j2"))
        assert (await world.read(question=other)).status is Status.MISS


# -- stale -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
async def test_past_its_lifetime_an_entry_is_served_labelled_and_refreshed_once(mode: Mode) -> None:
    async with fleet(2) as world:
        question = world.question(mode, KIND)
        await world.read(question=question)
        await world.passes(630)
        world.value = b"v2"
        stale = [await world.read(number, question) for number in (0, 1, 0, 1)]
        assert {shown(outcome)[::3] for outcome in stale} == {(b"v1", PAST)}
        assert {(outcome.status, outcome.ttl_s) for outcome in stale} == {(Status.STALE, 0.0)}
        await ticks()
        renewed = await world.read(question=question)
        assert (renewed.value, renewed.status, renewed.ttl_s) == (b"v2", Status.HIT, 600)
        assert world.loads == 2
        assert world.counted("cache_refreshes", reason="stale", result="done") >= 1


async def test_a_refresh_has_a_deadline_of_its_own_and_does_not_hold_up_its_reader() -> None:
    async with fleet() as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(630)
        world.go.clear()
        hurried = Call.begin(world.clock, "r", within_s=0.5)
        assert (await world.read(question=question, call=hurried)).status is Status.STALE
        await ticks()
        assert world.last_calls[-1].remaining_s(world.clock) > 10
        assert (await world.read(question=question)).status is Status.STALE
        assert world.loads == 2
        world.go.set()
        await ticks()
        assert world.counted("cache_refreshes") == 1


async def test_a_negative_answer_is_never_stale() -> None:
    async with fleet() as world:
        world.negative = True
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(30)
        assert (await world.read(question=question)).status is Status.MISS


FAULTS = [
    UpstreamServerError("x"),
    UpstreamTimeout("x"),
    UpstreamUnreachable("x"),
    UpstreamUnreadable("x"),
    UpstreamCircuitOpen("x"),
    UpstreamRateLimited("x"),
    BudgetExhausted("x"),
]
ANSWERS = [UpstreamUnauthorized("x"), UpstreamForbidden("x"), UpstreamNotFound("x"), UpstreamRejected("x"), KeyError()]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
async def test_long_past_its_lifetime_an_entry_stands_in_for_an_origin_that_fails(error: Exception) -> None:
    async with fleet() as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(700)
        world.error = error
        assert shown(await world.read(question=question)) == (b"v1", Status.STALE, Tier.L1, AWAY)
        assert world.loads == 2


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
async def test_a_refusal_or_a_defect_hides_behind_no_stale_answer(error: Exception) -> None:
    async with fleet() as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(700)
        world.error = error
        with pytest.raises(type(error)):
            await world.read(question=question)


async def test_what_is_too_long_past_its_lifetime_is_gone() -> None:
    async with fleet() as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(600 + 1801)
        world.error = UpstreamServerError("x")
        with pytest.raises(UpstreamServerError):
            await world.read(question=question)


async def test_a_slow_origin_is_not_waited_for_and_its_answer_is_kept_when_it_comes() -> None:
    async with fleet() as world:
        question = world.question(policy=replace(KIND, soft_s=0.02))
        await world.read(question=question)
        await world.passes(700)
        world.go.clear()
        world.value = b"v2"
        assert shown(await world.read(question=question)) == (b"v1", Status.STALE, Tier.L1, SLOW)
        assert (await world.read(question=question)).stale_reason == SLOW  # without waiting for it again
        world.go.set()
        await ticks()
        assert (await world.read(question=question)).value == b"v2"
        assert world.loads == 2


async def test_what_comes_late_after_a_bump_is_not_kept() -> None:
    async with fleet() as world:
        question = world.question(policy=replace(KIND, soft_s=0.02))
        await world.read(question=question)
        await world.passes(700)
        world.go.clear()
        await world.read(question=question)
        await world.bump()
        world.value = b"v2"
        world.go.set()
        await ticks()
        assert shown(await world.read(question=question)) == (b"v2", Status.MISS, Tier.UPSTREAM, None)


async def test_after_a_failure_all_replicas_leave_the_origin_alone_for_a_growing_while() -> None:
    async with fleet(2) as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(700)
        world.error = UpstreamServerError("x")
        asked = []
        for _ in range(4):
            for number in (0, 1, 0, 1):
                assert (await world.read(number, question)).status is Status.STALE
                await ticks()
            asked.append(world.loads)
            await world.passes(31)
        assert asked == [2, 3, 3, 4]  # at once, after 30 s, and 60 s after that
        assert [replica.line.sent.count("lead") for replica in world.replicas] == [
            4,
            3,
        ]  # once each, and the first fill
        assert world.counted("cache_flights", role="throttled") >= 1
        world.error, world.value = None, b"v2"
        await world.passes(100)
        assert (await world.read(1, question)).value == b"v2"


async def test_a_refresh_too_leaves_an_origin_alone_that_failed_in_another_replica() -> None:
    async with fleet(2) as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(630)
        world.error = UpstreamServerError("x")
        for number in (0, 1):
            assert (await world.read(number, question)).stale_reason == PAST
            await ticks()
        assert (await world.read(1, question)).stale_reason == AWAY
        assert world.loads == 2
        assert world.counted("cache_refreshes", reason="stale", result="throttled") == 1


async def test_an_origin_that_answers_somebody_again_is_left_alone_no_longer() -> None:
    async with fleet() as world:
        question = world.question(policy=Policy(10, jitter=0, stale_s=60))
        await world.read(question=question)
        await world.passes(12)
        world.error = UpstreamServerError("x")
        await world.read(question=question)
        await ticks()
        assert (await world.read(question=question)).stale_reason == AWAY
        world.error = None
        assert (await world.read(question=question, max_age_s=1)).status is Status.MISS
        await world.passes(12)
        assert (await world.read(question=question)).stale_reason == PAST


async def test_who_cannot_be_put_off_does_not_share_the_load_of_those_who_can() -> None:
    async with fleet(2) as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(700)
        world.error = UpstreamServerError("x")
        await world.read(0, question)
        world.error, world.value = None, b"v2"
        world.replicas[1].line.held = "lead"
        world.replicas[1].line.answers.clear()
        both = [asyncio.create_task(world.read(1, question, max_age_s=age_s)) for age_s in (None, 5)]
        await ticks()
        world.replicas[1].line.answers.set()
        old, young = [await world.through(task) for task in both]
        assert (old.value, old.status, young.value, young.status) == (b"v1", Status.STALE, b"v2", Status.MISS)


async def test_who_has_nothing_to_serve_asks_in_spite_of_an_earlier_failure() -> None:
    async with fleet(2) as world:
        world.error = UpstreamServerError("x")
        for number in (0, 1, 0):
            with pytest.raises(UpstreamServerError):
                await world.read(number)
        assert world.loads == 3


async def test_a_failing_refresh_is_counted_and_not_repeated_at_once() -> None:
    async with fleet() as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(630)
        world.error = UpstreamServerError("x")
        assert (await world.read(question=question)).stale_reason == PAST
        await ticks()
        assert (await world.read(question=question)).stale_reason == AWAY
        assert world.loads == 2
        assert world.counted("cache_refreshes", reason="stale", result="failed") == 1


@pytest.mark.parametrize("mode", [Mode.STRICT, Mode.BARRIER, Mode.BOUNDED])
async def test_a_dirty_entry_is_no_answer_and_stands_in_for_nothing(mode: Mode) -> None:
    async with fleet() as world:
        question = world.question(mode, KIND)
        await world.read(question=question)
        await world.bump()
        world.error = UpstreamServerError("x")
        with pytest.raises(UpstreamServerError):
            await world.read(question=question)
        assert world.replicas[0].l1.get(question.key.text) is None


async def test_who_takes_any_answer_gets_a_dirty_one_labelled_while_the_new_one_is_fetched() -> None:
    async with fleet() as world:
        question = world.question(Mode.ANY, KIND)
        await world.read(question=question)
        await world.bump()
        world.value = b"v2"
        dirty = await world.read(question=question)
        assert shown(dirty) == (b"v1", Status.STALE, Tier.L2, "changed since; being fetched anew")
        assert dirty.ttl_s == 0
        await ticks()
        assert (await world.read(question=question)).value == b"v2"
        await world.bump()
        world.error = UpstreamServerError("x")
        await world.read(question=question)
        await ticks()
        assert (await world.read(question=question)).stale_reason == "changed since; the origin could not be asked"
        with pytest.raises(UpstreamServerError):
            await world.read(question=question, max_age_s=0)


async def test_an_age_asked_for_wins_over_what_may_be_stale() -> None:
    async with fleet() as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(630)
        assert (await world.read(question=question, max_age_s=640)).status is Status.STALE
        await ticks()
        await world.passes(700)
        world.error = UpstreamServerError("x")
        assert (await world.read(question=question, max_age_s=800)).status is Status.STALE
        with pytest.raises(UpstreamServerError):
            await world.read(question=question, max_age_s=600)


@pytest.mark.parametrize("after_s", [630, 700])
async def test_a_stale_answer_too_needs_a_bearer_that_the_origin_does_not_refuse(after_s: float) -> None:
    async with fleet(admission_s=300) as world:
        question = world.question(policy=KIND, bearer="bad")
        await world.read(question=question, admit=world.admit)
        await world.passes(after_s)
        world.error = world.admit_error = UpstreamServerError("x")
        assert (await world.read(question=question, admit=world.admit)).status is Status.STALE
        assert world.asked == 1
        await world.passes(31)
        world.admit_error = UpstreamUnauthorized("refused")
        with pytest.raises(UpstreamUnauthorized):
            await world.read(question=question, admit=world.admit)


async def test_refreshes_are_bounded_in_number_and_let_end() -> None:
    async with fleet() as world:
        questions = [
            replace(world.question(policy=KIND), key=CacheKey(TENANT, "p1", "jobs", "detail", f"j{number}"))
            for number in range(MOST_REFRESHES + 3)
        ]
        for question in questions:
            await world.read(question=question)
        await world.passes(630)
        world.go.clear()
        for question in questions:
            assert (await world.read(question=question)).status is Status.STALE
        await ticks()
        assert world.loads == len(questions) + MOST_REFRESHES
        assert world.counted("cache_refreshes", result="crowded") == 3
        closing = asyncio.create_task(world.replicas[0].cache.aclose())
        await ticks()
        world.go.set()
        await closing
        assert world.counted("cache_refreshes", result="done") == MOST_REFRESHES


async def test_a_call_given_up_by_a_stop_is_told_so() -> None:
    async with fleet() as world:
        world.go.clear()
        reading = asyncio.create_task(world.read())
        await ticks()
        await world.replicas[0].cache._loads.aclose(within_s=0.0)
        with pytest.raises(Stopping) as caught:
            await reading
        assert (caught.value.http_status, caught.value.retryable) == (503, True)


# -- early -------------------------------------------------------------------------------------------------------------


async def slow_fill(world: Fleet, question: Question, cost_s: float) -> None:
    """Fill with an entry whose fetch took so long."""
    world.go.clear()
    first = asyncio.create_task(world.read(question=question))
    await ticks()
    await world.passes(cost_s)
    world.go.set()
    await first


@pytest.mark.parametrize("mode", [Mode.STRICT, Mode.BARRIER])
async def test_a_hot_entry_is_refreshed_before_its_lifetime_is_over(mode: Mode) -> None:
    async with fleet() as world:
        question = world.question(mode, KIND)
        await slow_fill(world, question, 2.0)
        world.beta, world.random, world.value = 1.0, 0.5, b"v2"  # 2 s * ln 2: within the last 1.39 s
        for _ in range(3):
            await world.read(question=question, own=True)
        await world.passes(598.5)
        assert (await world.read(question=question, own=True)).value == b"v1"
        await ticks()
        assert world.loads == 1
        await world.passes(0.2)
        hit = await world.read(question=question, own=True)
        assert (hit.value, hit.status, hit.stale_reason) == (b"v1", Status.HIT, None)
        await ticks()
        renewed = await world.read(question=question, own=True)
        assert (renewed.value, renewed.status, world.loads) == (b"v2", Status.HIT, 2)


@pytest.mark.parametrize("mode", [Mode.STRICT, Mode.BARRIER])
@pytest.mark.parametrize(("own", "beta", "hits"), [(False, 1.0, 3), (True, 0.0, 3), (True, 1.0, 1)])
async def test_nothing_is_refreshed_early_with_a_callers_key_a_scarce_budget_or_for_one_reader(
    own: bool, beta: float, hits: int, mode: Mode
) -> None:
    async with fleet() as world:
        question = world.question(mode, KIND)
        await slow_fill(world, question, 2.0)
        world.beta, world.random = beta, 0.5
        await world.passes(599)
        for _ in range(hits):
            await world.read(question=question, own=own)
        await ticks()
        assert world.loads == 1


# -- one fetch for all -------------------------------------------------------------------------------------------------


async def gathered(world: Fleet, numbers: Sequence[int], **options: Any) -> list[asyncio.Task[Outcome]]:
    tasks = [asyncio.create_task(world.read(number, **options)) for number in numbers]
    await ticks(60)
    return tasks


@pytest.mark.parametrize("follow", [True, False])
async def test_cold_reads_of_four_replicas_make_one_load(follow: bool) -> None:
    async with fleet(4, follow=follow) as world:
        world.go.clear()
        tasks = await gathered(world, [number % 4 for number in range(200)])
        assert world.loads == 1
        world.go.set()
        outcomes = await world.through(asyncio.gather(*tasks))
        assert world.loads == 1
        assert {shown(outcome) for outcome in outcomes} == {MISSED}
        assert sum(outcome.coalesced for outcome in outcomes) == 199
        assert world.counted("cache_flights", role="leader") == 2  # the world's own first read among them
        assert world.counted("cache_flights", role="follower") == 3
        assert [replica.line.sent.count("release") for replica in world.replicas] == [0] * 4


async def test_followers_of_a_leader_that_died_wait_no_longer_than_its_lease_and_make_one_more_load() -> None:
    async with fleet(4) as world:
        world.go.clear()
        (leader,) = await gathered(world, [0])
        followers = await gathered(world, [1, 2, 3] * 5)
        world.replicas[0].line.cut = True
        leader.cancel()
        await ticks()
        await world.passes(FLIGHT_LEASE_S - 0.5)
        assert world.loads == 1
        await world.passes(0.75)
        assert world.loads == 2
        world.go.set()
        await ticks(60)
        assert {shown(task.result()) for task in followers} == {MISSED}
        assert world.loads == 2


async def test_a_living_leader_keeps_its_lease_and_followers_have_their_bound() -> None:
    async with fleet(2) as world:
        world.go.clear()
        leader, follower = await gathered(world, [0, 1])
        await world.passes(FOLLOW_S - 0.3)
        assert world.loads == 1
        assert world.replicas[0].line.sent.count("keep_lead") == int((FOLLOW_S - 0.3) / KEEP_EVERY_S)
        await world.passes(0.5)
        assert world.loads == 2
        assert world.replicas[1].line.sent.count("lead") == 3  # at once, when the lease might be over, at the bound
        world.go.set()
        assert [(await world.through(task)).value for task in (leader, follower)] == [b"v1"] * 2


async def test_a_leader_given_up_by_its_readers_gives_its_lease_back() -> None:
    async with fleet(2) as world:
        world.go.clear()
        (leader,) = await gathered(world, [0])
        leader.cancel()
        await ticks()
        world.go.set()
        assert shown(await world.through(world.read(1), most_s=0.1)) == MISSED
        assert world.counted("cache_flights", role="follower") == 0


async def test_followers_of_a_fetch_that_failed_ask_for_themselves() -> None:
    async with fleet(3) as world:
        world.go.clear()
        world.error = UpstreamServerError("x")
        (leader,) = await gathered(world, [0])
        world.error = None
        followers = await gathered(world, [1, 2])
        world.go.set()
        with pytest.raises(UpstreamServerError):
            await leader
        assert [(await world.through(task)).value for task in followers] == [b"v1"] * 2
        assert world.loads in (2, 3)  # the second may find what the first has brought


async def test_followers_that_have_something_to_serve_serve_it_when_the_leader_failed() -> None:
    async with fleet(3) as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(700)
        world.go.clear()
        world.error = UpstreamServerError("x")
        tasks = await gathered(world, [0, 1, 2], question=question)
        world.go.set()
        outcomes = [await world.through(task) for task in tasks]
        assert {(outcome.value, outcome.stale_reason) for outcome in outcomes} == {(b"v1", AWAY)}
        assert world.loads == 2


async def test_followers_of_an_answer_too_large_to_keep_ask_for_themselves() -> None:
    async with fleet(2) as world:
        world.go.clear()
        tasks = await gathered(world, [0, 1], question=world.question(policy=Policy(600, max_bytes=10)))
        world.go.set()
        assert [(await world.through(task)).value for task in tasks] == [b"v1"] * 2
        assert world.loads == 2


async def test_a_reader_who_came_after_a_bump_does_not_follow_a_fetch_from_before_it() -> None:
    async with fleet(2) as world:
        world.go.clear()
        (before,) = await gathered(world, [0])
        world.value = b"v2"
        await world.bump(number=0)
        (after,) = await gathered(world, [1])
        assert world.loads == 2
        world.go.set()
        assert [(await world.through(task)).value for task in (before, after)] == [b"v1", b"v2"]
        assert (await world.read(0)).value == b"v2"


async def test_followers_of_a_fetch_that_a_bump_overtook_share_one_that_is_kept() -> None:
    async with fleet(4) as world:
        first_gate = asyncio.Event()
        world.gates.append(first_gate)
        tasks = await gathered(world, [0, 1, 2, 3])
        world.go.clear()
        world.value = b"v2"
        await world.bump(number=0)
        first_gate.set()
        await ticks(100)
        assert world.loads == 2
        world.go.set()
        first, *others = [await world.through(task) for task in tasks]
        assert (first.value, first.ttl_s) == (b"v1", 0)
        assert {outcome.value for outcome in others} == {b"v2"}
        assert world.loads == 2
        assert (await world.read(0)).status is Status.HIT


async def test_an_entry_that_nobody_can_read_is_replaced_without_asking_for_it_again_and_again() -> None:
    async with fleet() as world:
        await world.read()
        await ticks()
        row = await world.store.inspect(world.question().key, world.call())
        assert row is not None
        world.store.put_raw(row.key, row.head[:-1] + b"\x00")
        world.replicas[0].l1.clear()
        world.replicas[0].line.sent.clear()
        assert shown(await world.read()) == MISSED
        assert world.replicas[0].line.sent.count("lead") == 1
        assert (await world.read()).status is Status.HIT


async def test_a_follower_whose_generations_have_moved_goes_on_with_the_new_ones() -> None:
    async with fleet(3) as world:
        world.go.clear()
        before = await gathered(world, [0, 1])
        world.value = b"v2"
        await world.bump(number=2)
        (after,) = await gathered(world, [2])
        world.go.set()
        outcomes = [await world.through(task) for task in (*before, after)]
        assert [outcome.value for outcome in outcomes] == [b"v1", b"v2", b"v2"]
        assert world.loads == 2


@pytest.mark.parametrize(("ages", "values"), [((3, 1), [b"v1", b"v2"]), ((1, 3), [b"v2", b"v2"]), ((1,), [b"v2"])])
async def test_a_follower_who_wants_it_younger_than_what_the_leader_brings_asks_itself(
    ages: Sequence[float], values: list[bytes]
) -> None:
    async with fleet(2) as world:
        world.go.clear()
        (leader,) = await gathered(world, [0])
        await world.passes(2)
        followers = [task for age_s in ages for task in await gathered(world, [1], max_age_s=age_s)]
        world.value = b"v2"
        world.go.set()
        assert (await world.through(leader)).value == b"v1"
        assert [(await world.through(task)).value for task in followers] == values
        assert world.loads == 2


async def test_an_answer_for_now_follows_nobody() -> None:
    async with fleet(2) as world:
        world.go.clear()
        (leader,) = await gathered(world, [0])
        world.value = b"v2"
        (now,) = await gathered(world, [1], max_age_s=0)
        assert world.loads == 2
        world.go.set()
        assert [(await world.through(task)).value for task in (leader, now)] == [b"v1", b"v2"]


async def test_what_another_bearer_fetched_is_shown_only_to_one_that_the_origin_accepts() -> None:
    async with fleet(3) as world:
        world.go.clear()
        (leader,) = await gathered(world, [0], question=world.question(bearer="good"), admit=world.admit)
        (second,) = await gathered(world, [1], question=world.question(bearer="second"), admit=world.admit)
        world.go.set()
        await leader
        assert (await world.through(second)).value == b"v1"
        assert (world.loads, world.asked) == (1, 1)
        await world.bump()
        world.go.clear()
        (leader,) = await gathered(world, [0], question=world.question(bearer="good"), admit=world.admit)
        (bad,) = await gathered(world, [2], question=world.question(bearer="bad"), admit=world.admit)
        world.admit_error = UpstreamUnauthorized("refused")
        world.go.set()
        await leader
        with pytest.raises(UpstreamUnauthorized):
            await world.through(bad)


class NoLead(MemoryStore):
    async def lead(self, *args: Any, **options: Any) -> Lead:
        raise StoreUnreachable


async def test_where_no_lease_can_be_had_the_fetch_is_made_without() -> None:
    async with fleet(2) as world:
        for replica in world.replicas:
            replica.line._store = NoLead(world.clock)
        assert shown(await world.read()) == MISSED
        assert world.counted("cache_flights", role="alone") == 1


async def test_an_entry_that_came_after_the_look_is_looked_up_and_not_fetched() -> None:
    async with fleet(2) as world:
        world.replicas[1].line.answers.clear()
        late = asyncio.create_task(world.read(1))
        await ticks()
        await world.read(0)
        world.replicas[1].line.answers.set()
        outcome = await world.through(late)
        assert (shown(outcome), outcome.coalesced, world.loads) == (MISSED, True, 1)
        assert shown(await world.read(1)) == HIT_L1


# -- floors ------------------------------------------------------------------------------------------------------------


async def test_for_a_while_after_a_change_a_list_is_kept_only_until_the_origin_has_caught_up() -> None:
    async with fleet() as world:
        question = world.question(policy=KIND, settles=("jobs",))
        await world.bump(floors={"jobs": 0})
        await world.passes(2)
        outcome = await world.read(question=question)
        assert outcome.ttl_s == pytest.approx(4, abs=0.2)
        await world.passes(4)
        assert (await world.read(question=question)).status is Status.MISS
        await world.passes(630)
        assert (await world.read(question=question)).status is Status.STALE


async def test_a_list_that_shows_less_than_a_change_told_is_given_labelled_and_not_kept() -> None:
    async with fleet() as world:
        change_s = int(world.clock.now())
        await world.bump(floors={"jobs:j1": change_s})
        world.versions = {"jobs:j1": change_s - 1}
        for number in (1, 2):
            lagging = await world.read()
            assert shown(lagging) == (
                b"v1",
                Status.STALE,
                Tier.UPSTREAM,
                "the origin's list lags behind a change",
            )
            assert (lagging.ttl_s, world.loads) == (0, number)
            await ticks()
        assert world.counted("cache_fills", result="lagging") == 2
        world.versions = {"jobs:j1": change_s}
        await world.passes(2)
        assert (await world.read()).ttl_s == 600


async def test_an_answer_for_now_is_kept_for_others_as_long_as_any() -> None:
    async with fleet() as world:
        question = world.question(policy=KIND, settles=("jobs",))
        for _ in range(2):
            assert (await world.read(question=question, max_age_s=0)).ttl_s == 600
            assert (await world.read(question=question)).status is Status.HIT
        await world.bump(floors={"jobs": 0})
        assert (await world.read(question=question, max_age_s=0)).ttl_s == pytest.approx(6, abs=0.1)


async def test_an_answer_for_now_beside_anothers_fetch_is_kept_only_as_long_as_it_might_lag() -> None:
    """Nobody told this one of the floors."""
    async with fleet(2) as world:
        question = world.question(policy=KIND, settles=("jobs",))
        world.go.clear()
        (leader,) = await gathered(world, [0], question=question)
        (now,) = await gathered(world, [1], question=question, max_age_s=0)
        world.go.set()
        assert (await world.through(now)).ttl_s in (0, 6)
        await world.through(leader)


# -- explaining --------------------------------------------------------------------------------------------------------


async def test_an_entry_is_explained_by_what_dirtied_it() -> None:
    async with fleet() as world:
        key_text = world.question().key.text
        assert await world.replicas[0].cache.explain(key_text, world.call()) is None
        assert await world.replicas[0].cache.explain("no key", world.call()) is None
        await world.bump(("job:j1",))  # before the fetch
        await world.passes(5)
        await world.read()
        await world.passes(10)
        fresh = await world.replicas[0].cache.explain(key_text, world.call())
        assert fresh is not None
        assert (fresh["key"], fresh["state"], fresh["ageSeconds"], fresh["ttlSeconds"]) == (key_text, "fresh", 10, 590)
        assert fresh["sizeBytes"] > 0
        assert [tag["tag"] for tag in fresh["tags"]] == list(TAGS)
        assert not any(tag["changed"] for tag in fresh["tags"])
        assert (fresh["epoch"]["changed"], fresh["dirtiedBy"]) == (False, [])
        assert fresh["l1"] == {"held": True, "clean": True}

        await world.bump(("job:j1",))
        await world.bump(("tasks",))
        await world.bump(("job:j1", "jobs:detail"))
        dirty = await world.replicas[0].cache.explain(key_text, world.call())
        assert dirty is not None
        assert dirty["state"] == "dirty"
        assert [tag["tag"] for tag in dirty["tags"] if tag["changed"]] == ["jobs:detail", "job:j1"]
        assert all((tag["thenGeneration"] != tag["nowGeneration"]) is tag["changed"] for tag in dirty["tags"])
        assert [line["eventId"] for line in dirty["dirtiedBy"]] == ["e4", "e2"]
        assert dirty["dirtiedBy"][0] == {
            "eventId": "e4",
            "event": "job.updated",
            "resource": "job",
            "resourceId": "j1",
            "source": "webhook",
            "at": dirty["dirtiedBy"][0]["at"],
            "tags": ["job:j1", "jobs:detail"],
        }
        assert dirty["l1"] == {"held": True, "clean": False}


async def test_an_entry_is_explained_by_a_new_epoch_and_by_its_age() -> None:
    async with fleet() as world:
        question = world.question(policy=KIND)
        await world.read(question=question)
        await world.passes(610)
        stale = await world.replicas[0].cache.explain(question.key.text, world.call())
        assert stale is not None
        assert (stale["state"], stale["ttlSeconds"]) == ("stale", 0)
        (row,) = [
            row
            for row in await world.replicas[0].cache.entries(TENANT, call=world.call())
            if row["key"] == question.key.text
        ]
        assert (row["ttlSeconds"], row["stale"]) == (0, True)
        await world.through(world.replicas[0].invalidator.renew_epoch(TENANT, world.call(), reason="admin"))
        dirty = await world.replicas[0].cache.explain(question.key.text, world.call())
        assert dirty is not None
        assert (dirty["state"], dirty["epoch"]["changed"], dirty["dirtiedBy"]) == ("dirty", True, [])
