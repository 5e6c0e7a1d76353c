"""No read that starts after an acknowledged invalidation returns older data: checked on histories of many clients.

Two engines, each with its own L1, client and lease, over one Redis. Writers change a register at the source,
invalidate it and note when that was acknowledged; readers note when they started and which version they got. Versions
of a register are ordered by their single writer, so a history is checked by one sweep through time. One register's
entries soon expire and its loads sometimes fail, so that it is often answered stale; its answers owe no less.

The same run must catch engines with one rule broken each; a checker that finds nothing in those proves nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.codec import Entry
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.fetch import Fetcher
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.holding import Holding
from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import Ears, Heard, Seen, Standing, Store, StoreTimeout
from jobnimbus_mcp.cache.question import Errand, Look
from jobnimbus_mcp.cache.read_through import Question, ReadThrough
from jobnimbus_mcp.cache.shared_reads import SharedReads
from jobnimbus_mcp.cache.single_flight import Body, Joining, SingleFlight
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.errors import UpstreamServerError
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

CLOCK = SystemClock()
REGISTERS = 3
STALE_REGISTER = 2
SOON_STALE = Policy(0.004, jitter=0, stale_s=0.01, error_s=5.0, soft_s=0.004)
RUN_BOUND_S = 20.0
LEASE_S = 0.4
"""Shorter than in earnest, so that a run sees many end."""


@dataclass(frozen=True)
class Read:
    register: int
    started: float
    version: int


@dataclass(frozen=True)
class Acknowledged:
    register: int
    at: float
    version: int


@dataclass
class History:
    reads: list[Read] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)

    def violations(self) -> list[tuple[Read, int]]:
        """Reads that returned less than had been acknowledged when they started, with what they owed."""
        found = []
        for register in range(REGISTERS):
            acknowledged = sorted((a.at, a.version) for a in self.acknowledged if a.register == register)
            owed, position = 0, 0
            for read in sorted((r for r in self.reads if r.register == register), key=lambda r: r.started):
                while position < len(acknowledged) and acknowledged[position][0] < read.started:
                    owed = max(owed, acknowledged[position][1])
                    position += 1
                if read.version < owed:
                    found.append((read, owed))
        return found


# -- engines with one rule broken --------------------------------------------------------------------------------------


class VectorAfterFetch(ReadThrough):
    """Fills under the generations of after the fetch, so that comparing them proves nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._fetcher.__class__ = _FillsUnderLater


class _FillsUnderLater(Fetcher):
    async def _keep(self, errand: Errand, look: Look, *rest: Any) -> tuple[bool, bool]:
        question = errand.question
        now = await self._store.read(question.key, question.tags, "", want=False, call=errand.call)
        return await super()._keep(errand, replace(look, seen=now), *rest)


class JoinsAnyFlight(ReadThrough):
    """Joins whatever load of the key is under way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loads._flights = _FlightsByKeyAlone(CLOCK)


class _FlightsByKeyAlone(SingleFlight[Outcome]):
    async def fly(self, key: Hashable, body: Body[Outcome], **options: Any) -> tuple[Outcome, bool]:
        assert isinstance(key, tuple)
        # Who can be put off still waits for another load than who cannot: that is no matter of generations.
        return await super().fly((key[0], len(key) > 2 and key[-1]), body, **options)


class TrustsL1(ReadThrough):
    """Serves what L1 holds without asking the store or the lease."""

    async def _answer(self, question: Question, *rest: Any) -> Outcome:
        held = self._l1.get(question.key.text)
        if held is not None:
            entry = held.entry
            return Outcome(entry.value, False, Status.HIT, Tier.L1, entry.fetched_at, 1.0, False, entry.etag)
        return await super()._answer(question, *rest)


class SharesReadsInTheAir(ReadThrough):
    """Takes the answer of a round trip that had been sent before the reader came."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._looks._reads = _AnyRead()


class _AnyRead(SharedReads[Seen]):
    def __init__(self) -> None:
        super().__init__()
        self._away: dict[Hashable, asyncio.Future[Seen]] = {}

    async def read(self, key: Hashable, send: Callable[[], Any], send_for_all: Callable[[], Any]) -> Seen:
        if key not in self._away:
            self._away[key] = asyncio.ensure_future(send())
            self._away[key].add_done_callback(lambda _: self._away.pop(key))
        return await asyncio.shield(self._away[key])


class JoinsWhileBlind(ReadThrough):
    """Joins a load under way although the generations could not be looked at."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loads._flights = _AlwaysJoinable(CLOCK)


class _AlwaysJoinable(SingleFlight[Outcome]):
    async def fly(self, key: Hashable, body: Body[Outcome], **options: Any) -> tuple[Outcome, bool]:
        if options["joining"] is Joining.UNBEGUN:
            options["joining"] = Joining.BEGUN
        return await super().fly(key, body, **options)


class MarksWhatCame(ReadThrough):
    """Takes the coherence mark when an entry comes, not before it was asked for: what overtook it is forgotten."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._holding.__class__ = _MarksLate


class _MarksLate(Holding):
    def bring(self, question: Question, key_text: str, entry: Entry, look: Look, **options: Any) -> None:
        late = replace(look, since=self.mark(question.key.tenant))
        super().bring(question, key_text, entry, late, **options)


class ServesDirty(ReadThrough):
    """Takes an entry of older generations for one that is merely past its lifetime."""

    async def _answer(self, question: Question, *rest: Any) -> Outcome:
        return await super()._answer(replace(question, mode=Mode.ANY), *rest)


class WithoutLease(Coherence):
    """Trusts L1 for ever."""

    def holds(self, tenant: str) -> bool:
        return True


class RenewsUnapplied(Coherence):
    """Has its lease renewed although it has not applied what the log says."""

    async def _renew(self, tenant: str, one: Any) -> None:
        if one.log.position is None:
            return await super()._renew(tenant, one)
        asked = CLOCK.monotonic()
        await self._store.renew_l1(
            tenant, self._instance, one.log.position, register=True, call=Call.begin(CLOCK, "coherence")
        )
        one.served_until = asked + self._lease_s
        return None


class LateAnswers(GuardedStore):
    """A network between the store and this process: answers to look-ups arrive a moment later, or not at all; and now
    and then it hears nothing of the log (`deaf`), or cannot renew its lease either (`cut`)."""

    delays: random.Random
    lost: float = 0.0
    deaf: bool = False
    cut: bool = False

    async def read(self, *args: Any, **options: Any) -> Seen:
        seen = await super().read(*args, **options)
        await asyncio.sleep(self.delays.choice((0, 0, 0.001, 0.003)))
        if self.delays.random() < self.lost:
            raise StoreTimeout
        return seen

    async def listen(self, ears: Mapping[str, Ears], *, block_s: float) -> Mapping[str, Heard]:
        heard = {} if self.deaf else await super().listen(ears, block_s=min(block_s, 0.05))
        if self.deaf:
            raise StoreTimeout
        return heard

    async def renew_l1(self, *args: Any, **options: Any) -> Standing:
        if self.cut:
            raise StoreTimeout
        return await super().renew_l1(*args, **options)


# -- a run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """What the replicas are made of, and what happens to them. `troubled`: a replica's ears or its lease fail now and
    then: "deaf" or "cut"."""

    engine: type[ReadThrough] = ReadThrough
    mode: Mode = Mode.STRICT
    coherence: type[Coherence] = Coherence
    barrier: bool = True
    lost: float = 0.0
    troubled: str = ""


@asynccontextmanager
async def replica(
    redis_url: str, rules: Rules, seed: int
) -> AsyncIterator[tuple[ReadThrough, Invalidator, InMemoryRecorder, LateAnswers]]:
    client, recorder = connect(redis_url), InMemoryRecorder()
    breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=60, failures=5), CLOCK)
    async with aclosing(client), LateAnswers(RedisStore(client), breaker, CLOCK, 5.0, recorder) as store:
        store.delays, store.lost = random.Random(seed), rules.lost
        follow = rules.mode.trusts_l1
        coherence = rules.coherence(
            store,
            clock=CLOCK,
            recorder=recorder,
            instance=f"i{seed}",
            tenants=["stamford"],
            follow=follow,
            register=follow,
            lease_s=LEASE_S,
            renew_s=LEASE_S / 4,
        )
        await coherence.start()
        cache = rules.engine(
            store,
            L1(1 << 20),
            clock=CLOCK,
            random01=random.Random(seed).random,
            recorder=recorder,
            coherence=coherence,
        )
        barrier = Barrier(store, clock=CLOCK, recorder=recorder, lease_s=LEASE_S, margin_s=LEASE_S / 4)
        invalidator = Invalidator(store, clock=CLOCK, recorder=recorder, barrier=barrier if rules.barrier else None)
        try:
            yield cache, invalidator, recorder, store
        finally:
            store.deaf = store.cut = False
            await cache.aclose()
            await coherence.aclose()


async def old_fleet(redis_url: str, *stores: Store) -> None:
    """The fleet's register was not made lately, so that a bump need not wait for whoever may have been in another."""
    client = connect(redis_url)
    for store in stores:
        # The first command on a server that is new to the store makes everything new there.
        await store.generations("stamford", (), Call.begin(CLOCK, "r"))
    await client.hset(system_key("stamford", "fleet"), "_", str(int((CLOCK.now() - 60) * 1e6)))
    await client.aclose()


async def run(redis_url: str, rules: Rules, seed: int, *, reads: int) -> tuple[History, InMemoryRecorder]:
    """Readers and writers at once on both replicas, until `reads` reads have been made."""
    history, chance = History(), random.Random(seed)
    source = [0] * REGISTERS
    left = reads

    async def loader(register: int, call: Call) -> Loaded:
        # Read first and delivered late, so that bumps and other loads overtake it.
        await asyncio.sleep(chance.choice((0, 0.0005)))
        version = source[register]
        await asyncio.sleep(chance.choice((0, 0.001, 0.004, 0.008)))
        if register == STALE_REGISTER and chance.random() < 0.1:
            raise UpstreamServerError("down")
        return Loaded(b"%d" % version + b" " * 1_200)

    async def reader(cache: ReadThrough) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            register = chance.randrange(REGISTERS)
            question = Question(
                CacheKey("stamford", "p", "jobs", "detail", f"r{register}"),
                (f"job:{register}",) if register == STALE_REGISTER else ("jobs", f"job:{register}"),
                SOON_STALE if register == STALE_REGISTER else Policy(3600),
                rules.mode,
            )
            started = CLOCK.monotonic()
            # Where a replica may be deaf, nothing else may tell it what is new.
            max_age_s = None if rules.troubled else chance.choice((None, None, None, None, 0.05, 0))
            try:
                outcome = await cache.read(
                    question, partial(loader, register), call=Call.begin(CLOCK, "r"), max_age_s=max_age_s
                )
            except UpstreamServerError:
                outcome = None
            if outcome is not None:
                history.reads.append(Read(register, started, int(outcome.value)))
            if chance.random() < 0.3 or rules.mode.trusts_l1:
                await asyncio.sleep(chance.choice((0, 0.002, 0.01 if rules.troubled else 0)))

    async def writer(register: int, invalidator: Invalidator) -> None:
        while left > 0:
            await asyncio.sleep(chance.uniform(0.001, 0.012) * (5 if register == STALE_REGISTER else 1))
            source[register] += 1
            version = source[register]
            notice = Notice("job.updated", "job", f"r{register}", "webhook", CLOCK.now(), f"e{register}-{version}")
            tag = "jobs" if register != STALE_REGISTER and chance.random() < 0.1 else f"job:{register}"
            await invalidator.append_and_bump("stamford", (tag,), notice, Call.begin(CLOCK, "w"))
            history.acknowledged.append(Acknowledged(register, CLOCK.monotonic(), version))

    async def trouble(store: LateAnswers) -> None:
        while left > 0:
            await asyncio.sleep(chance.uniform(0.1, 0.3))
            store.deaf, store.cut = True, rules.troubled == "cut"
            await asyncio.sleep(chance.uniform(0.1, 4 * LEASE_S))
            store.deaf = store.cut = False

    async with (
        replica(redis_url, rules, seed) as (first, first_invalidator, recorder, quiet),
        replica(redis_url, rules, seed + 1) as (second, second_invalidator, _, troubled),
        asyncio.timeout(RUN_BOUND_S),
        asyncio.TaskGroup() as group,
    ):
        await old_fleet(redis_url, quiet, troubled)
        for number in range(12):
            group.create_task(reader(first if number % 2 else second))
        for register in range(REGISTERS):
            group.create_task(writer(register, second_invalidator if register % 2 else first_invalidator))
        if rules.troubled:
            group.create_task(trouble(troubled))
    return history, recorder


def told(recorder: InMemoryRecorder, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for (counted, labels) in recorder.counts if counted == name}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("mode", [Mode.STRICT, Mode.BARRIER])
async def test_no_read_returns_less_than_was_acknowledged_before_it(redis_url: str, mode: Mode, seed: int) -> None:
    history, recorder = await run(redis_url, Rules(mode=mode), seed, reads=2_000)
    assert history.violations() == [], f"seed {seed}"
    # Nothing is proved by a run in which the dangerous things did not happen.
    assert {"stored", "raced"} <= told(recorder, "cache_fills", "result")
    assert {"l1", "l2", "upstream"} <= told(recorder, "cache_reads", "tier")
    assert {"hit", "miss", "bypass", "stale"} <= told(recorder, "cache_reads", "status")
    assert {"leader", "follower"} <= told(recorder, "cache_flights", "role")
    assert len(history.acknowledged) > 100


async def test_the_promise_holds_while_look_ups_are_lost(redis_url: str) -> None:
    """A reader that could not look may be one of a process whose neighbours can: invalidations go on meanwhile."""
    history, recorder = await run(redis_url, Rules(lost=0.5), 7, reads=2_000)
    assert history.violations() == []
    assert told(recorder, "cache_reads", "status") == {"hit", "miss", "bypass", "stale"}


@pytest.mark.parametrize("troubled", ["deaf", "cut"])
async def test_the_promise_holds_while_a_replica_hears_nothing(redis_url: str, troubled: str) -> None:
    history, recorder = await run(redis_url, Rules(mode=Mode.BARRIER, troubled=troubled), 3, reads=4_000)
    assert history.violations() == []
    assert recorder.total("cache_reads") > 500
    assert len(history.acknowledged) > 20


@pytest.mark.parametrize(
    "broken",
    [
        Rules(VectorAfterFetch),
        Rules(JoinsAnyFlight),
        Rules(TrustsL1),
        Rules(SharesReadsInTheAir),
        Rules(JoinsWhileBlind, lost=0.5),
        Rules(ServesDirty),
        Rules(MarksWhatCame, Mode.BARRIER),
        Rules(mode=Mode.BARRIER, barrier=False),
        Rules(mode=Mode.BARRIER, coherence=WithoutLease, troubled="cut"),
        Rules(mode=Mode.BARRIER, coherence=RenewsUnapplied, troubled="deaf"),
    ],
    ids=lambda rules: f"{rules.engine.__name__}-{rules.coherence.__name__}-{'' if rules.barrier else 'no barrier'}",
)
async def test_an_engine_with_one_rule_broken_is_caught(redis_url: str, broken: Rules) -> None:
    caught: list[tuple[Read, int]] = []
    for seed in range(1, 13):
        history, _ = await run(redis_url, broken, seed, reads=4_000 if broken.troubled else 1_200)
        caught = history.violations()
        print(f"{broken}: seed {seed}, {len(caught)} violations")
        if caught:
            break
    assert caught


def test_the_checker_finds_an_old_read_and_no_other() -> None:
    history = History(
        reads=[Read(0, 1.0, 0), Read(0, 2.5, 1), Read(0, 3.5, 1), Read(1, 9.0, 0)],
        acknowledged=[Acknowledged(0, 2.0, 1), Acknowledged(0, 3.0, 2)],
    )
    assert history.violations() == [(Read(0, 3.5, 1), 2)]


async def test_the_embedded_store_holds_the_same_promise() -> None:
    """One process, one engine; the interleavings are those of the loader and the invalidations."""
    history, chance, source = History(), random.Random(5), [0]
    recorder, store = InMemoryRecorder(), MemoryStore(CLOCK)
    cache = ReadThrough(store, L1(1 << 20), clock=CLOCK, random01=chance.random, recorder=recorder)
    invalidator = Invalidator(store, clock=CLOCK, recorder=recorder)
    question = Question(CacheKey("stamford", "p", "jobs", "detail", "r0"), ("jobs",), Policy(3600))

    async def loader(call: Call) -> Loaded:
        version = source[0]
        await asyncio.sleep(chance.choice((0, 0.001, 0.003)))
        return Loaded(b"%d" % version)

    async def reader() -> None:
        for _ in range(150):
            started = CLOCK.monotonic()
            outcome = await cache.read(question, loader, call=Call.begin(CLOCK, "r"))
            history.reads.append(Read(0, started, int(outcome.value)))
            await asyncio.sleep(chance.choice((0, 0.001)))

    async def writer() -> None:
        for _ in range(60):
            await asyncio.sleep(chance.uniform(0.001, 0.004))
            source[0] += 1
            version = source[0]
            notice = Notice("job.updated", "job", "r0", "write", CLOCK.now(), f"e{version}")
            await invalidator.append_and_bump("stamford", ("jobs",), notice, Call.begin(CLOCK, "w"))
            history.acknowledged.append(Acknowledged(0, CLOCK.monotonic(), version))

    async with asyncio.timeout(RUN_BOUND_S), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(reader())
        group.create_task(writer())
    await cache.aclose()
    assert history.violations() == []
    assert recorder.total("cache_fills") > 20
