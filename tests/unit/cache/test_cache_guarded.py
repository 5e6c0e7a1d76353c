"""The guarded store's bookkeeping, with the embedded store failing on demand and a clock that stands still."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import structlog

from jobnimbus_mcp.cache.codec import VERSION
from jobnimbus_mcp.cache.guarded import DEBT_RETRY_S, GuardedStore
from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.key import CacheKey, entry_glob
from jobnimbus_mcp.cache.notice import Applied, Told
from jobnimbus_mcp.cache.ports import (
    L1_LEASE_S,
    START,
    Ears,
    Seen,
    StoreError,
    StoreNotTried,
    StoreOutOfMemory,
    StoreTimeout,
    StoreUnreachable,
    Verdict,
)
from jobnimbus_mcp.cache.store_memory import FailMode, MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy, State
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

KEY = CacheKey("stamford", "p1", "jobs", "detail", "j1")
OPEN_S = 60.0


class Counted(MemoryStore):
    """Counts what reaches it, and can hold commands up."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.reads = 0
        self.renewals = 0
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()
        self.deaf = False
        """Invalidations fail, all else goes on."""

    async def read(self, *args: Any, **options: Any) -> Seen:
        self.reads += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
        return await super().read(*args, **options)

    async def renew_epoch(self, tenant: str, call: Call) -> Told:
        self.renewals += 1
        self._hear()
        return await super().renew_epoch(tenant, call)

    async def append_and_bump(self, *args: Any, **options: Any) -> Applied:
        self._hear()
        return await super().append_and_bump(*args, **options)

    def _hear(self) -> None:
        if self.deaf:
            raise StoreUnreachable("deaf")


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = Counted(self.clock)
        self.recorder = InMemoryRecorder()
        self.breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=OPEN_S, failures=5), self.clock)
        self.guarded = GuardedStore(self.store, self.breaker, self.clock, 0.05, self.recorder, **options)
        self.invalidator = Invalidator(self.guarded, clock=self.clock, recorder=self.recorder)

    def call(self) -> Call:
        return Call.begin(self.clock, "r")

    def state(self) -> State:
        return self.breaker.state

    def owing(self) -> tuple[str, ...]:
        return self.guarded.indebted

    async def read(self, call: Call | None = None) -> Seen:
        return await self.guarded.read(KEY, ("jobs",), "", want=True, call=call or self.call())

    async def bump(self, tenant: str = "stamford") -> None:
        notice = Notice("job.updated", "job", "j1", "webhook", self.clock.now(), "e")
        await self.invalidator.append_and_bump(tenant, ("jobs",), notice, self.call())


async def ticks(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("mode", "reason"), [("refused", "unreachable"), ("timeout", "timeout"), ("read_only", "read_only")]
)
async def test_after_one_failure_nothing_more_is_tried_in_the_call(mode: FailMode, reason: str) -> None:
    world, call = World(), World().call()
    world.store.fail(mode)
    with pytest.raises(StoreError) as caught:
        await world.guarded.ping(call)
    assert (caught.value.reason, call.store_usable) == (reason, False)
    with pytest.raises(StoreNotTried):
        await world.read(call)
    assert world.store.reads == 0


async def test_a_full_store_is_not_a_failing_one() -> None:
    world = World()
    world.store.fail("out_of_memory")
    for _ in range(10):
        call = world.call()
        with pytest.raises(StoreOutOfMemory):
            await world.guarded.ping(call)
        assert call.store_usable is True
    assert world.state() is State.CLOSED


async def test_five_failures_open_the_breaker_and_nothing_is_sent_while_it_is_open() -> None:
    world = World()
    world.store.fail("timeout")
    for _ in range(5):
        with pytest.raises(StoreTimeout):
            await world.read()
    assert world.store.reads == 5
    with pytest.raises(StoreNotTried) as caught:
        await world.read()
    assert (caught.value.reason, world.store.reads) == ("circuit_open", 5)
    health = await world.guarded.health()
    assert (health.connected, health.circuit_state, health.reason) == (False, "OPEN", "circuit_open")


async def test_a_command_is_bounded_from_when_it_is_sent_and_the_rest_wait_for_their_turn() -> None:
    world = World(max_in_flight=2)
    world.store.go.clear()
    results = await asyncio.gather(*(world.read() for _ in range(8)), return_exceptions=True)
    assert world.store.most_at_once == 2
    # The last two had their turn when the breaker was open, unless this machine stood still meanwhile.
    types = [type(result) for result in results]
    assert types[:6] == [StoreTimeout] * 6
    assert set(types[6:]) <= {StoreNotTried, StoreTimeout}


async def test_many_may_wait_longer_than_the_bound_as_long_as_each_command_is_quick() -> None:
    world = World(max_in_flight=1)

    async def quick(*args: Any, **options: Any) -> Seen:
        await asyncio.sleep(0.02)
        return Seen(Verdict.MISS, 0.0, 0.0)

    world.store.read = quick  # type: ignore[method-assign]  # one step replaced
    results = await asyncio.gather(*(world.read() for _ in range(6)))
    assert len(results) == 6
    assert world.state() is State.CLOSED


async def test_a_cancelled_command_counts_for_nothing_and_frees_its_place() -> None:
    world = World(max_in_flight=1)
    world.store.go.clear()
    for _ in range(8):
        reading = asyncio.create_task(world.read())
        await ticks()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    world.store.go.set()
    assert (await world.read()).verdict is Verdict.MISS
    assert world.state() is State.CLOSED


@pytest.mark.parametrize("what", ["bump", "epoch"])
async def test_a_refused_invalidation_is_owed_and_the_next_read_pays_it_first(what: str) -> None:
    world = World()
    before = await world.read()
    world.store.fail("refused")
    told = world.bump() if what == "bump" else world.invalidator.renew_epoch("stamford", world.call(), reason="admin")
    with pytest.raises(CacheUnavailable):
        await told
    assert world.owing() == ("stamford",)
    world.store.fail(None)
    after = await world.read()
    assert after.vector.split(b"\n")[0] != before.vector.split(b"\n")[0]
    assert world.owing() == ()


async def test_while_a_tenant_owes_nothing_of_it_is_read_or_filled_and_others_go_on() -> None:
    world = World()
    seen = await world.read()
    world.store.deaf = True
    with pytest.raises(CacheUnavailable):
        await world.bump()
    reads = world.store.reads
    with pytest.raises(StoreNotTried):
        await world.read()
    with pytest.raises(StoreNotTried):
        await world.guarded.fill(KEY, ("jobs",), seen, b"x", ttl_s=1, admission_s=1, call=world.call())
    assert world.store.reads == reads
    other = CacheKey("guilford", "p1", "jobs", "detail", "j1")
    seen = await world.guarded.read(other, ("jobs",), "", want=True, call=world.call())
    assert seen.verdict is Verdict.MISS


async def test_a_debt_is_tried_at_most_once_a_second_however_many_read() -> None:
    world = World()
    world.store.deaf = True
    with pytest.raises(CacheUnavailable):
        await world.bump()
    results = await asyncio.gather(*(world.read() for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreNotTried}
    assert world.store.renewals == 1
    world.clock.advance(DEBT_RETRY_S)
    with pytest.raises(StoreNotTried):
        await world.read()
    assert world.store.renewals == 2


async def test_a_debt_made_while_another_is_paid_is_not_covered_by_that_payment() -> None:
    world = World()
    world.store.fail("refused")
    with pytest.raises(CacheUnavailable):
        await world.bump()
    world.store.fail(None)
    renew = world.store.renew_epoch

    async def overtaken(tenant: str, call: Call) -> Told:
        told = await renew(tenant, call)
        world.store.fail("refused")
        with pytest.raises(CacheUnavailable):
            await world.bump()
        world.store.fail(None)
        return told

    world.store.renew_epoch = overtaken  # type: ignore[method-assign]  # one step replaced
    with pytest.raises(StoreNotTried):
        await world.read()
    assert world.owing() == ("stamford",)


async def opened(world: World, *, by: str) -> None:
    """Open the breaker by invalidations, which are then owed, or by reads."""
    world.store.fail("refused")
    for _ in range(5):
        with pytest.raises(StoreError):
            await (world.bump() if by == "bump" else world.read())
    assert world.state() is State.OPEN
    await ticks()


async def test_a_debt_is_paid_without_a_call_within_a_second_though_the_breaker_stays_open() -> None:
    """Another process on the same store may never have lost it."""
    world = World()
    before = (await world.read()).vector
    async with world.guarded:
        await opened(world, by="bump")
        for _ in range(3):
            world.clock.advance(DEBT_RETRY_S)
            await ticks()
        assert world.owing() == ("stamford",)
        world.store.fail(None)
        world.clock.advance(DEBT_RETRY_S)
        await ticks()
        assert world.owing() == ()
        neighbour = await world.store.read(KEY, ("jobs",), "", want=True, call=world.call())
        assert neighbour.vector != before
        # Neither the failed payments nor the good one are results for the breaker.
        assert world.state() is State.OPEN
        assert world.breaker.retry_in_s == OPEN_S - 4 * DEBT_RETRY_S
        world.clock.advance(OPEN_S)
        await ticks(40)
        assert world.state() is State.CLOSED


async def test_a_debt_made_while_the_breaker_is_open_is_paid_within_a_second_too() -> None:
    world = World()
    async with world.guarded:
        await opened(world, by="read")
        with pytest.raises(StoreUnreachable):
            await world.bump()
        assert world.owing() == ("stamford",)
        world.store.fail(None)
        world.clock.advance(DEBT_RETRY_S)
        await ticks()
        assert (world.owing(), world.state()) == ((), State.OPEN)


async def test_what_is_owed_at_the_end_is_tried_once_more_before_the_process_goes() -> None:
    world = World()
    before = (await world.read()).vector
    async with world.guarded:
        await opened(world, by="bump")
        world.store.fail(None)  # back between two tries of the healer
    assert world.owing() == ()
    assert (await world.store.read(KEY, ("jobs",), "", want=True, call=world.call())).vector != before


async def test_what_cannot_be_paid_at_the_end_is_said_in_the_log() -> None:
    world = World()
    with structlog.testing.capture_logs() as logged:
        async with world.guarded:
            await opened(world, by="bump")
    lost = [line for line in logged if line["event"] == "invalidation owed and lost"]
    assert [(line["log_level"], line["instance"]) for line in lost] == [("error", "stamford")]


async def test_an_invalidation_goes_past_an_open_breaker_to_a_store_that_is_back() -> None:
    world = World()
    async with world.guarded:
        await opened(world, by="read")
        world.store.fail(None)
        await world.bump()
        assert (world.owing(), world.state()) == ((), State.OPEN)
        with pytest.raises(StoreNotTried):
            await world.guarded.read(KEY, ("jobs",), "", want=True, call=world.call())


async def test_a_store_away_for_the_open_time_is_probed_again_and_its_debts_wait() -> None:
    world = World()
    async with world.guarded:
        await opened(world, by="bump")
        world.clock.advance(OPEN_S)
        await ticks()
        assert world.state() is State.OPEN  # the probe failed
        assert world.owing() == ("stamford",)
        world.store.fail(None)
        world.clock.advance(OPEN_S)
        await ticks(40)
        assert (world.owing(), world.state()) == ((), State.CLOSED)


@pytest.mark.parametrize("mode", ["refused", "timeout", "read_only"])
async def test_a_process_started_while_the_store_is_away_owes_for_all_its_tenants(mode: FailMode) -> None:
    """What the one before it was refused and could not pay died with it."""
    world = World(tenants=("stamford", "guilford"))
    before = (await world.read()).vector
    world.store.fail(mode)
    async with world.guarded:
        await ticks()
        assert world.owing() == ("stamford", "guilford")
        world.store.fail(None)
        world.clock.advance(DEBT_RETRY_S)
        await ticks(40)
        assert world.owing() == ()
        world.clock.advance(OPEN_S)
        await ticks(40)
        assert (await world.read()).vector != before


@pytest.mark.parametrize("mode", [None, "out_of_memory"])
async def test_a_process_started_on_a_store_that_answers_owes_nothing(mode: FailMode | None) -> None:
    world = World(tenants=("stamford", "guilford"))
    world.store.fail(mode)
    async with world.guarded:
        await ticks()
        assert (world.owing(), world.store.renewals) == ((), 0)


async def test_a_deletion_by_pattern_that_failed_is_owed() -> None:
    world = World()
    await world.read()
    world.store.fail("refused")
    with pytest.raises(CacheUnavailable):
        await world.guarded.delete_some("stamford", entry_glob("stamford", entity="jobs"), 0, world.call())
    assert world.owing() == ("stamford",)


async def test_a_breaker_without_debts_is_healed_by_a_ping() -> None:
    world = World()
    async with world.guarded:
        world.store.fail("timeout")
        for _ in range(5):
            with pytest.raises(StoreTimeout):
                await world.read()
        world.store.fail(None)
        await ticks()
        world.clock.advance(OPEN_S)
        await ticks(40)
        assert world.state() is State.CLOSED
    assert world.store.renewals == 0


async def test_errors_are_counted_by_operation_and_reason() -> None:
    world = World()
    world.store.fail("timeout")
    with pytest.raises(StoreTimeout):
        await world.read()
    assert world.recorder.counts["cache_errors", (("operation", "read"), ("reason", "timeout"))] == 1


def test_senseless_numbers_are_refused() -> None:
    clock = ManualClock()
    breaker = BreakerBox(BreakerPolicy(window_s=1, open_s=1, failures=1), clock)
    with pytest.raises(ValueError, match="positive"):
        GuardedStore(MemoryStore(clock), breaker, clock, 0)


async def test_whatever_a_driver_lets_through_is_a_failure_of_the_store_and_not_of_the_read() -> None:
    world = World()

    async def broken(*args: Any, **options: Any) -> Seen:
        raise AttributeError("a defect of the client library")

    world.store.read = broken  # type: ignore[method-assign]  # one step replaced
    with pytest.raises(StoreError):
        await world.read()
    assert world.recorder.total("cache_errors") == 1


async def test_a_store_that_refuses_writes_opens_the_breaker_at_once() -> None:
    world = World()
    world.store.fail("read_only")
    with pytest.raises(StoreError):
        await world.bump()
    assert world.state() is State.OPEN


async def test_corrupt_values_are_answers_of_a_healthy_store() -> None:
    world = World()
    seen = await world.read()
    await world.guarded.fill(KEY, ("jobs",), seen, b"no entry", ttl_s=60, admission_s=60, call=world.call())
    for _ in range(20):
        world.store.put_raw(KEY.text, bytes([VERSION]) + b"broken")
        assert (await world.read()).verdict is Verdict.CORRUPT
    assert world.state() is State.CLOSED


async def test_a_store_that_has_moved_is_probed_at_once() -> None:
    world = World()
    async with world.guarded:
        await opened(world, by="read")
        world.store.fail(None)
        world.guarded.moved()
        await ticks(40)
        assert world.state() is State.CLOSED
        assert world.clock.monotonic() == 0
        assert (await world.read()).verdict is Verdict.MISS


async def test_a_store_that_has_moved_while_it_was_probed_is_probed_once_more() -> None:
    """The probe may have gone to where it was before."""
    world = World()
    async with world.guarded:
        await opened(world, by="read")
        world.clock.advance(OPEN_S)
        ping, probing, answer = world.store.ping, asyncio.Event(), asyncio.Event()

        async def late(call: Call) -> None:
            probing.set()
            await answer.wait()
            raise StoreUnreachable("the old one")

        world.store.ping = late  # type: ignore[method-assign]  # one step replaced
        await probing.wait()
        world.guarded.moved()
        world.store.ping = ping  # type: ignore[method-assign]  # one step replaced
        world.store.fail(None)
        answer.set()
        await ticks(40)
        assert world.state() is State.CLOSED


async def test_what_is_owed_is_paid_at_once_when_the_store_has_moved() -> None:
    world = World()
    async with world.guarded:
        await opened(world, by="bump")
        world.store.fail(None)
        world.guarded.moved()
        await ticks(40)
        assert (world.owing(), world.state()) == ((), State.CLOSED)


async def test_l1_is_trusted_again_one_lease_after_the_last_payment() -> None:
    """It learns of the payment on its own way, and a lease granted before does not know of it."""
    world = World()
    world.store.fail("refused")
    with pytest.raises(CacheUnavailable):
        await world.bump()
    assert world.guarded.owes("stamford")
    world.store.fail(None)
    await world.read()
    assert (world.owing(), world.guarded.owes("stamford"), world.guarded.owes("guilford")) == ((), True, False)
    world.clock.advance(L1_LEASE_S - 0.01)
    assert world.guarded.owes("stamford")
    world.clock.advance(0.01)
    assert not world.guarded.owes("stamford")


@pytest.mark.parametrize("mode", ["refused", "timeout", "read_only"])
async def test_the_background_of_l1_opens_no_breaker_when_no_call_has_failed(mode: FailMode) -> None:
    world = World()
    world.store.fail(mode)
    for _ in range(10):
        with pytest.raises(StoreError):
            await world.guarded.renew_l1("stamford", "here", START, register=True, call=world.call())
        if mode != "read_only":
            with pytest.raises(StoreError):
                await world.guarded.changes("stamford", START, world.call())
    assert world.state() is State.CLOSED
    assert world.recorder.total("cache_errors") >= 10
    world.store.fail(None)
    assert (await world.read()).verdict is Verdict.MISS


async def test_readers_leave_it_to_the_background_to_pay_while_the_breaker_is_open() -> None:
    world = World()
    await opened(world, by="bump")
    world.store.fail(None)
    with pytest.raises(StoreNotTried):
        await world.read()
    assert (world.store.renewals, world.owing()) == (0, ("stamford",))


async def test_giving_a_lease_back_is_tried_and_never_the_callers_trouble() -> None:
    world = World()
    world.store.fail("refused")
    await world.guarded.release(KEY, "t", result="failed", call=world.call())
    assert world.recorder.counts["cache_errors", (("operation", "release"), ("reason", "unreachable"))] == 1


async def test_nothing_is_led_while_the_tenant_owes() -> None:
    world = World()
    seen = await world.read()
    world.store.deaf = True
    with pytest.raises(CacheUnavailable):
        await world.bump()
    with pytest.raises(StoreNotTried):
        await world.guarded.lead(KEY, seen, "t", call=world.call())


async def test_listening_is_bounded_by_nobody_here_and_counts_for_nothing() -> None:
    world = World(max_in_flight=1)
    world.store.fail("refused")
    for _ in range(10):
        with pytest.raises(StoreUnreachable):
            await world.guarded.listen({"stamford": Ears(START, START)}, block_s=1)
    assert world.state() is State.CLOSED
    world.store.fail(None)
    listening = asyncio.create_task(world.guarded.listen({"stamford": Ears(START, START)}, block_s=1))
    await asyncio.sleep(0.1)  # twice the bound of a command
    assert (await world.read()).verdict is Verdict.MISS  # it takes no place
    assert not listening.done()
    world.clock.advance(1)
    await asyncio.wait_for(listening, 1)
    assert world.state() is State.CLOSED


async def test_who_is_behind_is_asked_past_an_open_breaker_as_the_invalidation_was() -> None:
    world = World()
    await opened(world, by="read")
    world.store.fail(None)

    async def behind(tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
        return {"there": b"1"}

    world.store.behind = behind  # type: ignore[method-assign]  # one step replaced
    assert await world.guarded.behind("stamford", START, world.call()) == {"there": b"1"}
    await world.guarded.strike("stamford", {"gone": None}, world.call())
    with pytest.raises(StoreNotTried):
        await world.guarded.changes("stamford", START, world.call())


async def test_where_the_log_stands_is_asked_past_an_open_breaker_by_who_is_no_instance() -> None:
    world = World()
    await opened(world, by="read")
    world.store.fail(None)
    standing = await world.guarded.renew_l1("stamford", "", START, register=False, call=world.call())
    assert standing.position == START
    with pytest.raises(StoreNotTried):
        await world.guarded.renew_l1("stamford", "here", START, register=True, call=world.call())


PASSED_ON: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "read": ((KEY, ("jobs",), "e"), {"want": True, "dirty": True}),
    "lead": ((KEY, Seen(Verdict.MISS, 0.0, 0.0), "t"), {"etag": "e", "patient": True}),
    "keep_lead": ((KEY, "t"), {}),
    "release": ((KEY, "t"), {"result": "failed", "failures": 2, "throttle_s": 30.0}),
    "fill": (
        (KEY, ("jobs",), Seen(Verdict.MISS, 0.0, 0.0), b"v"),
        {"ttl_s": 1.0, "admission_s": 2.0, "token": "t"},
    ),
    "append_and_bump": (("stamford", ("jobs",), Notice("e", "r", "i", "s", 0.0, "e")), {"tells": ("*",)}),
    "renew_epoch": (("stamford",), {}),
    "renew_l1": (("stamford", "here", "1-1"), {"register": True}),
    "changes": (("stamford", "1-1"), {}),
    "behind": (("stamford", "1-1"), {"register": b"7"}),
    "strike": (("stamford", {"there": b"1"}), {}),
    "inspect": ((KEY,), {}),
    "generations": (("stamford", ("jobs",)), {}),
    "admission": (("stamford", "p1"), {}),
    "admit": (("stamford", "p1", b"g"), {"admission_s": 3.0}),
    "withdraw": (("stamford", "p1"), {"if_admitted": True}),
    "delete_some": (("stamford", "*", 0), {}),
    "list_some": (("stamford", "*", 0), {}),
    "log": (("stamford",), {"limit": 5, "since": 1.0}),
    "rates": (("stamford", (1, 2)), {}),
    "ping": ((), {}),
}


@pytest.mark.parametrize("operation", PASSED_ON)
async def test_each_operation_reaches_the_driver_as_it_was_asked_and_its_answer_comes_back(operation: str) -> None:
    world, (arguments, options) = World(), PASSED_ON[operation]
    call, reached = world.call(), []
    signature = inspect.signature(getattr(MemoryStore, operation))

    async def driver(*args: Any, **kwargs: Any) -> str:
        reached.append(signature.bind(None, *args, **kwargs).arguments)
        return "answer"

    setattr(world.store, operation, driver)
    answer = await getattr(world.guarded, operation)(*arguments, **options, call=call)
    assert answer == (None if operation in ("release", "strike", "ping") else "answer")
    assert reached == [signature.bind(None, *arguments, **options, call=call).arguments]
