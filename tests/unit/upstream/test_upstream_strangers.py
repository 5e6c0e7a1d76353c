"""Keys that JobNimbus has not accepted yet: their own limits, and that accepted callers do not notice them."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import orjson
import pytest

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import BudgetExhausted, ProjectError, UpstreamUnauthorized, UpstreamUnreachable
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.known import KNOWN_MAX, KnownKeys
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Request
from jobnimbus_mcp.upstream.strangers import Strangers

OURS = "the-server-s-own-key"
GOOD = "a-good-key-of-a-caller"
JSON = {"content-type": "application/json"}
FOUND = RawAnswer(200, JSON, orjson.dumps({"jnid": "j1"}))
REFUSED = RawAnswer(401, JSON, b"{}")


def invented(count: int, first: int = 0) -> list[str]:
    return [f"invented-key-{n:06}" for n in range(first, first + count)]


class JobNimbus:
    """Implements `Sender`: accepts some keys at once, and answers the others what it is told, after `refusal_s`."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.accepts = {OURS, GOOD}
        self.refusal: RawAnswer | Exception = REFUSED
        self.refusal_s = 0.0
        self.sent: list[str] = []
        self.under_way = 0

    async def send(self, request: Request, credential: str, timeout_s: float) -> RawAnswer:
        self.sent.append(credential)
        self.under_way += 1
        try:
            if credential in self.accepts:
                return FOUND
            if self.refusal_s:
                await self.clock.sleep(self.refusal_s)
            if isinstance(self.refusal, Exception):
                raise self.refusal
            return self.refusal
        finally:
            self.under_way -= 1


class World:
    """A client in front of that JobNimbus, on a clock that moves when told."""

    def __init__(self, *, rate: float = 10, max_concurrent: int = 8, trusted: Iterable[str] = (OURS,)) -> None:
        self.clock = ManualClock()
        self.jobnimbus = JobNimbus(self.clock)
        instances = ["stamford", "guilford"]
        recorder = InMemoryRecorder()
        self.client = JobNimbusClient(
            sender=self.jobnimbus,
            budget=LocalBudget(rate, instances, self.clock),
            breakers=upstream_breakers(instances, self.clock, recorder),
            clock=self.clock,
            random01=lambda: 0.0,
            recorder=recorder,
            on_call=lambda *_: None,
            max_concurrent=max_concurrent,
            trusted=[("stamford", key) for key in trusted],
        )
        self.begun: list[asyncio.Task[Any]] = []

    async def begin(self, *keys: str, instance: str = "stamford") -> list[asyncio.Task[Any]]:
        """Ask with each key at once, and wait until all are done or held up."""
        read = Read.record(Entity.JOBS, "j1")
        tasks = []
        for key in keys:
            call = Call.begin(self.clock, "request-1")
            tasks.append(asyncio.create_task(self.client.load(read, instance=instance, credential=key, call=call)))
        self.begun += tasks
        await self.settle()
        return tasks

    async def told_now(self, key: str, *, instance: str = "stamford") -> type[ProjectError] | dict[str, Any] | None:
        """What a question comes to without any time passing; None: it has to wait."""
        (task,) = await self.begin(key, instance=instance)
        return come_to(task) if task.done() else None

    async def settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            await self.settle()

    async def end(self) -> None:
        for task in self.begun:
            task.cancel()
        await asyncio.gather(*self.begun, return_exceptions=True)


MakeWorld = Callable[..., World]


@pytest.fixture
async def make_world() -> AsyncIterator[MakeWorld]:
    made: list[World] = []

    def make(**limits: Any) -> World:
        made.append(World(**limits))
        return made[-1]

    yield make
    for world in made:
        await world.end()


def come_to(task: asyncio.Task[Any]) -> type[ProjectError] | dict[str, Any]:
    error = task.exception()
    if error is None:
        return dict(task.result())
    assert isinstance(error, ProjectError)
    return type(error)


@pytest.mark.parametrize("refusal_s", [0.0, 0.1, 20.0])
@pytest.mark.parametrize("rate", [4, 10, 100])
async def test_forty_invented_keys_at_once_do_not_delay_an_accepted_caller(
    make_world: MakeWorld, rate: float, refusal_s: float
) -> None:
    world = make_world(rate=rate)
    world.jobnimbus.refusal_s = refusal_s
    tasks = await world.begin(*invented(40))
    assert await world.told_now(OURS) == {"jnid": "j1"}
    refused = [task for task in tasks if task.done() and come_to(task) is BudgetExhausted]
    assert 40 - 8 - rate / 4 <= len(refused) + 1 < 40, "strangers must be told at once, and some must pass"
    assert all(task.exception().retry_after_s >= 1 for task in refused)  # type: ignore[union-attr]


async def test_a_key_that_the_store_has_marked_as_accepted_is_no_stranger_after_a_restart(
    make_world: MakeWorld,
) -> None:
    world = make_world(rate=10)
    await world.begin(*invented(40))
    assert await world.told_now(GOOD) != {"jnid": "j1"}, "the strangers' share is not used up"
    call = Call.begin(world.clock, "request-1")
    call.admitted = True

    read = Read.record(Entity.JOBS, "j1")
    task = asyncio.create_task(world.client.load(read, instance="stamford", credential="marked-key", call=call))
    world.begun.append(task)
    world.jobnimbus.accepts.add("marked-key")
    await world.settle()

    assert come_to(task) == {"jnid": "j1"}


@pytest.mark.parametrize("refusal_s", [0.0, 0.1])
async def test_a_stream_of_invented_keys_never_delays_an_accepted_caller_and_keeps_to_its_share(
    make_world: MakeWorld, refusal_s: float
) -> None:
    world = make_world(rate=10)
    world.jobnimbus.refusal_s = refusal_s
    for moment in range(40):
        await world.begin(*invented(10, first=10 * moment))
        assert await world.told_now(OURS) == {"jnid": "j1"}
        await world.pass_time(0.25)
    asked = len(world.jobnimbus.sent) - 40
    assert 2.5 * 10 <= asked <= 8 + 2.5 * 11


@pytest.mark.parametrize(("max_concurrent", "strangers_most"), [(8, 4), (3, 1), (2, 1), (1, 1)])
async def test_strangers_hold_at_most_half_of_the_slots(
    make_world: MakeWorld, max_concurrent: int, strangers_most: int
) -> None:
    world = make_world(rate=100, max_concurrent=max_concurrent)
    world.jobnimbus.refusal_s = 100.0
    for moment in range(5):
        await world.begin(*invented(10, first=10 * moment))
        await world.pass_time(0.5)
    assert world.jobnimbus.under_way == strangers_most
    if max_concurrent > 1:
        assert await world.told_now(OURS) == {"jnid": "j1"}


async def test_the_first_call_of_a_new_good_key_works_and_then_it_is_known(make_world: MakeWorld) -> None:
    world = make_world()
    assert await world.told_now(GOOD) == {"jnid": "j1"}
    await world.begin(*invented(40))
    assert await world.told_now("another-invented-key") is BudgetExhausted
    assert await world.told_now(GOOD) == {"jnid": "j1"}


async def test_a_new_good_key_gets_through_between_invented_ones(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin(*invented(40))
    assert await world.told_now(GOOD) is BudgetExhausted
    await world.pass_time(2)
    (task,) = await world.begin(GOOD)
    await world.pass_time(1)
    assert come_to(task) == {"jnid": "j1"}


async def test_a_key_that_jobnimbus_refuses_is_a_stranger_again_until_it_is_accepted(make_world: MakeWorld) -> None:
    world = make_world()
    for key in (GOOD, OURS):
        assert await world.told_now(key) == {"jnid": "j1"}
    world.jobnimbus.accepts.clear()
    for key in (GOOD, OURS):
        assert await world.told_now(key) is UpstreamUnauthorized
    await world.begin(*invented(40))
    world.jobnimbus.accepts = {GOOD, OURS}
    for key in (GOOD, OURS):
        assert await world.told_now(key) is BudgetExhausted
    await world.pass_time(4)
    for key in (GOOD, OURS):
        assert await world.told_now(key) == {"jnid": "j1"}
    await world.begin(*invented(40, first=40))
    for key in (GOOD, OURS):
        assert await world.told_now(key) == {"jnid": "j1"}


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (FOUND, True),
        (RawAnswer(400, JSON, b"{}"), True),
        (RawAnswer(403, JSON, b"{}"), True),
        (RawAnswer(404, JSON, b"{}"), True),
        (REFUSED, False),
        (RawAnswer(429, {"retry-after": "60"}, b"{}"), False),
        (RawAnswer(503, {"retry-after": "60"}, b"{}"), False),
        (RawAnswer(200, {"content-type": "text/html"}, b"<html>"), False),
        (UpstreamUnreachable("u"), False),
    ],
)
async def test_only_an_answer_that_shows_the_key_accepted_makes_it_known(
    make_world: MakeWorld, answer: RawAnswer | Exception, known: bool
) -> None:
    world = make_world(rate=40)
    world.jobnimbus.accepts = {OURS}
    world.jobnimbus.refusal = answer
    (task,) = await world.begin("a-key-to-be-judged")
    await world.pass_time(1)
    assert task.done()
    world.jobnimbus.refusal = REFUSED
    world.jobnimbus.accepts = {"a-key-to-be-judged"}
    await world.begin(*invented(60))
    assert (await world.told_now("a-key-to-be-judged") == {"jnid": "j1"}) is known


async def test_a_key_known_to_one_account_is_a_stranger_to_another(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin(*invented(40), instance="guilford")
    assert await world.told_now(OURS, instance="guilford") is BudgetExhausted
    assert await world.told_now(GOOD) == {"jnid": "j1"}, "the limits of one account must not bind another"


async def test_without_limits_strangers_have_none(make_world: MakeWorld) -> None:
    world = make_world(rate=0, max_concurrent=0)
    world.jobnimbus.refusal_s = 1.0
    await world.begin(*invented(40))
    assert world.jobnimbus.under_way == 40


async def test_a_strangers_token_is_waited_for_at_most_a_second_and_never_longer_than_the_call_has() -> None:
    clock = ManualClock()
    strangers = Strangers(32, 8, ["stamford"], clock)
    async with asyncio.timeout(5):
        for _ in range(8):
            assert await strangers.admit("stamford", Call.begin(clock, "r")) == 0
        with pytest.raises(BudgetExhausted):
            await strangers.admit("stamford", Call.begin(clock, "r", within_s=0.1))
        waiting = [asyncio.create_task(strangers.admit("stamford", Call.begin(clock, "r"))) for _ in range(10)]
        await asyncio.sleep(0)
        assert [type(task.exception()) for task in waiting if task.done()] == [BudgetExhausted] * 2
        clock.advance(1)
        waited = await asyncio.gather(*waiting[:8])
    assert waited == [n / 8 for n in range(1, 9)]


# ---- what is remembered


def test_only_so_many_accepted_keys_are_remembered_and_the_longest_unused_goes_first() -> None:
    known = KnownKeys([("stamford", OURS)])
    keys = invented(KNOWN_MAX)
    for key in keys:
        known.accepted("stamford", key)
    assert known.knows("stamford", keys[0])  # which is a use
    for key in (keys[2], *invented(2, first=KNOWN_MAX)):
        known.accepted("stamford", key)
    assert len(known) == KNOWN_MAX + 1
    assert [known.knows("stamford", key) for key in keys[:5]] == [True, False, True, False, True]
    for key in invented(2 * KNOWN_MAX):
        known.accepted("stamford", key)
    assert len(known) == KNOWN_MAX + 1
    assert known.knows("stamford", OURS), "trusted keys never make room"


def test_refusing_and_accepting_a_trusted_key_adds_nothing_to_memory() -> None:
    known = KnownKeys([("stamford", OURS)], most=1)
    known.accepted("stamford", GOOD)
    known.refused("stamford", OURS)
    assert not known.knows("stamford", OURS)
    known.accepted("stamford", OURS)
    assert known.knows("stamford", OURS)
    assert known.knows("stamford", GOOD)
    assert len(known) == 2


def test_what_is_remembered_holds_no_credential() -> None:
    known = KnownKeys([("stamford", OURS)])
    known.accepted("stamford", GOOD)
    known.refused("stamford", "a-refused-key-of-someone")
    kept = pickle.dumps(known)
    assert all(key.encode() not in kept for key in (OURS, GOOD, "a-refused-key-of-someone"))
