"""The request budget: in one process, and shared through Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock, SystemClock
from jobnimbus_mcp.errors import BudgetExhausted
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.budget_redis import RedisBudget

KEY = "jobnimbus-sys:{stamford}:budget"


class Skipping(ManualClock):
    """Does not wait, and notes how long it should have; `pass_time` also moves on by it."""

    def __init__(self, *, pass_time: bool = False) -> None:
        super().__init__()
        self.slept: list[float] = []
        self._pass_time = pass_time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        if self._pass_time:
            self.advance(seconds)


def call_for(clock: ManualClock | SystemClock, within_s: float = 14.0) -> Call:
    return Call.begin(clock, "request-1", within_s=within_s)


async def test_a_local_budget_lets_a_burst_go_and_then_one_by_one() -> None:
    clock = Skipping()
    budget = LocalBudget(4, ["stamford"], clock)
    waited = [await budget.take("stamford", call_for(clock)) for _ in range(5)]
    assert waited == [0, 0, 0.25, 0.5, 0.75]
    assert clock.slept == [0.25, 0.5, 0.75]


async def test_accounts_have_budgets_of_their_own() -> None:
    clock = Skipping()
    budget = LocalBudget(1, ["stamford", "guilford"], clock)
    assert await budget.take("stamford", call_for(clock)) == 0
    assert await budget.take("guilford", call_for(clock)) == 0
    assert await budget.take("stamford", call_for(clock)) == 1


async def test_a_wait_longer_than_five_seconds_is_refused_at_once_and_takes_nothing() -> None:
    clock = Skipping()
    budget = LocalBudget(1, ["stamford"], clock)
    for _ in range(6):
        await budget.take("stamford", call_for(clock))
    for _ in range(3):
        with pytest.raises(BudgetExhausted) as caught:
            await budget.take("stamford", call_for(clock))
        assert caught.value.retry_after_s == 6
    clock.advance(1)
    assert await budget.take("stamford", call_for(clock)) == 5


async def test_a_wait_longer_than_the_call_has_is_refused_at_once() -> None:
    clock = Skipping()
    budget = LocalBudget(1, ["stamford"], clock)
    await budget.take("stamford", call_for(clock))
    with pytest.raises(BudgetExhausted):
        await budget.take("stamford", call_for(clock, within_s=0.5))
    assert clock.slept == []


async def test_rate_zero_never_waits() -> None:
    clock = Skipping()
    budget = LocalBudget(0, ["stamford"], clock)
    assert {await budget.take("stamford", call_for(clock)) for _ in range(500)} == {0}


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    opened = Redis.from_url(redis_url)
    yield opened
    await opened.aclose()


def redis_budget(
    client: Redis, clock: ManualClock | SystemClock, rate: float, recorder: InMemoryRecorder | None = None
) -> RedisBudget:
    return RedisBudget(
        client,
        LocalBudget(rate, ["stamford"], clock),
        rate_per_s=rate,
        clock=clock,
        recorder=recorder or InMemoryRecorder(),
        command_timeout_s=2.0,
    )


async def test_a_local_budget_tells_what_is_left_of_each_account_s() -> None:
    clock = Skipping()
    budget = LocalBudget(8, ["stamford", "guilford"], clock)
    await budget.take("stamford", call_for(clock))
    assert (budget.share_left("stamford"), budget.share_left("guilford")) == (0.75, 1.0)
    clock.advance(1 / 16)
    assert budget.share_left("stamford") == pytest.approx(0.875)


async def test_a_shared_budget_tells_what_was_left_at_its_last_answer_and_what_time_has_given_back(
    client: Redis,
) -> None:
    clock = Skipping()
    one, other = redis_budget(client, clock, 1), redis_budget(client, clock, 1)
    assert one.share_left("stamford") == 1.0
    await one.take("stamford", call_for(clock))
    await one.take("stamford", call_for(clock))
    assert one.share_left("stamford") == 0.0
    assert other.share_left("stamford") == 1.0  # it has not asked yet
    with pytest.raises(BudgetExhausted):
        await other.take("stamford", call_for(clock, within_s=0.1))
    assert other.share_left("stamford") == 0.0
    clock.advance(60)
    assert one.share_left("stamford") == 1.0


async def test_while_redis_is_away_the_share_is_that_of_the_local_budget(client: Redis) -> None:
    clock = Skipping()
    budget = redis_budget(client, clock, 4)
    await budget.take("stamford", call_for(clock))
    away = call_for(clock)
    away.store_usable = False
    await budget.take("stamford", away)
    await budget.take("stamford", away)
    assert budget.share_left("stamford") == 0.0


async def test_replicas_share_one_budget_and_its_key_expires(client: Redis) -> None:
    clock = Skipping()
    replicas = [redis_budget(client, clock, 0.5), redis_budget(client, clock, 0.5)]
    assert await replicas[0].take("stamford", call_for(clock)) == 0
    assert await replicas[1].take("stamford", call_for(clock)) == pytest.approx(2, abs=0.5)
    assert await replicas[0].take("stamford", call_for(clock)) == pytest.approx(4, abs=0.5)
    with pytest.raises(BudgetExhausted) as caught:
        await replicas[1].take("stamford", call_for(clock))
    assert caught.value.retry_after_s in (5, 6)
    assert await client.keys("*") == [KEY.encode()]
    assert 0 < await client.pttl(KEY) <= 6_100


async def test_the_shared_budget_keeps_the_rate_in_real_time(client: Redis) -> None:
    clock = SystemClock()
    budget = redis_budget(client, clock, 50)
    began = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*(budget.take("stamford", call_for(clock)) for _ in range(40))), 10)
    # 25 at once, 15 at 50 a second
    assert time.monotonic() - began >= 0.29


async def test_a_refusal_takes_nothing_from_the_shared_budget(client: Redis) -> None:
    clock = Skipping()
    budget = redis_budget(client, clock, 0.25)
    await budget.take("stamford", call_for(clock))
    before = await client.get(KEY)
    with pytest.raises(BudgetExhausted):
        await budget.take("stamford", call_for(clock, within_s=1))
    assert await client.get(KEY) == before


async def test_a_clock_that_went_back_does_not_shut_the_budget(client: Redis) -> None:
    clock = Skipping()
    seconds, _ = await client.time()
    await client.set(KEY, (seconds + 3_600) * 1_000_000, px=60_000)
    assert await redis_budget(client, clock, 1).take("stamford", call_for(clock)) == 0


async def test_a_flushed_script_cache_goes_unnoticed(client: Redis) -> None:
    clock, recorder = Skipping(), InMemoryRecorder()
    budget = redis_budget(client, clock, 10, recorder)
    await budget.take("stamford", call_for(clock))
    await client.script_flush()
    call = call_for(clock)
    assert await budget.take("stamford", call) == 0
    assert call.store_usable
    assert recorder.total("cache_errors") == 0


async def test_a_local_budget_takes_over_when_redis_refuses_the_connection(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    gone = Redis.from_url(server.url)
    server.stop()
    clock, recorder = Skipping(), InMemoryRecorder()
    budget = redis_budget(gone, clock, 1, recorder)
    call = call_for(clock)
    assert await budget.take("stamford", call) == 0
    assert not call.store_usable
    assert recorder.counts["cache_errors", (("operation", "budget"), ("reason", "error"))] == 1
    assert await budget.take("stamford", call) == 1  # the local bucket was charged, and Redis not tried again
    assert recorder.total("cache_errors") == 1
    await gone.aclose()


class Unused:
    """A client whose script must not be sent, or never answers."""

    def __init__(self, *, silent: bool = False) -> None:
        self.sent = 0
        self._silent = silent

    def register_script(self, text: str) -> Any:
        async def run(**_: Any) -> Any:
            self.sent += 1
            assert self._silent, "sent"
            await asyncio.Event().wait()

        return run


@pytest.mark.parametrize(("rate", "usable", "waits"), [(0, True, [0, 0]), (1, False, [0, 1])])
async def test_nothing_is_sent_without_a_limit_or_once_the_store_failed_this_call(
    rate: float, usable: bool, waits: list[float]
) -> None:
    clock, client = Skipping(), Unused()
    budget = redis_budget(client, clock, rate)  # type: ignore[arg-type]
    call = call_for(clock)
    call.store_usable = usable
    assert [await budget.take("stamford", call) for _ in range(2)] == waits
    assert client.sent == 0


async def test_a_silent_redis_costs_a_call_one_command_time_out() -> None:
    clock, client, recorder = Skipping(), Unused(silent=True), InMemoryRecorder()
    budget = RedisBudget(
        client,  # type: ignore[arg-type]
        LocalBudget(10, ["stamford"], clock),
        rate_per_s=10,
        clock=clock,
        recorder=recorder,
        command_timeout_s=0.01,
    )
    call = call_for(clock)
    for _ in range(3):
        await asyncio.wait_for(budget.take("stamford", call), 5)
    assert client.sent == 1
    assert recorder.counts["cache_errors", (("operation", "budget"), ("reason", "timeout"))] == 1
