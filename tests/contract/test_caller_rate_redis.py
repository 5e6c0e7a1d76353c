"""How many requests a caller may make, counted in a real Redis for all replicas; and without it, by each alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.gateway.caller_rate import Allowance, LocalCallerRate
from jobnimbus_mcp.gateway.caller_rate_redis import AWAY_S, RedisCallerRate
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

KEY = "jobnimbus-sys:{stamford}:caller-rate:desk"


class Replica:
    """One process's counting, over this client."""

    def __init__(self, client: Redis, timeout_s: float = 2.0) -> None:
        self.clock = ManualClock()
        self.recorder = InMemoryRecorder()
        self.rate = RedisCallerRate(
            client,
            LocalCallerRate(self.clock),
            home="stamford",
            clock=self.clock,
            recorder=self.recorder,
            command_timeout_s=timeout_s,
        )

    async def spend(self, who: str = "desk", per_minute: int = 2) -> Allowance:
        async with asyncio.timeout(5):
            return await self.rate.spend(who, per_minute)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    opened = Redis.from_url(redis_url)
    yield opened
    await opened.aclose()


async def test_replicas_count_together_and_the_key_expires_when_the_bucket_is_full(client: Redis) -> None:
    replicas = [Replica(client), Replica(client)]
    told = [await replicas[number % 2].spend() for number in range(3)]
    assert [(one.granted, one.limit, one.remaining) for one in told] == [(True, 2, 1), (True, 2, 0), (False, 2, 0)]
    assert told[0].reset_s == pytest.approx(30, abs=2)
    assert told[1].reset_s == pytest.approx(60, abs=2)
    assert told[2].wait_s == pytest.approx(30, abs=2)
    assert [one.wait_s for one in told[:2]] == [0, 0]
    assert await client.keys("*") == [KEY.encode()]
    assert 57_000 < await client.pttl(KEY) <= 60_100


async def test_callers_have_buckets_of_their_own(client: Redis) -> None:
    replica = Replica(client)
    assert [(await replica.spend(who, 1)).granted for who in ("desk", "field", "desk", "oauth:12345678")] == [
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("per_minute", [7, 60, 59])
async def test_exactly_a_minute_s_worth_is_granted_at_once(client: Redis, per_minute: int) -> None:
    replica = Replica(client)
    told = await asyncio.gather(*(replica.spend(per_minute=per_minute) for _ in range(per_minute + 3)))
    # by the time the last is asked one more may have come in
    assert per_minute <= sum(one.granted for one in told) <= per_minute + 1


async def test_a_refusal_takes_nothing_and_time_gives_the_next(client: Redis) -> None:
    replica = Replica(client)
    for _ in range(2):
        assert (await replica.spend()).granted
    full_at = int(await client.get(KEY))
    assert not (await replica.spend()).granted
    assert int(await client.get(KEY)) == full_at
    # as if 31 s had passed
    await client.set(KEY, full_at - 31_000_000, px=29_000)
    told = await replica.spend()
    assert (told.granted, told.remaining) == (True, 0)


async def test_while_redis_is_away_each_replica_counts_alone_and_it_is_tried_by_one_request_in_five_seconds(
    start_redis: Callable[..., Any],
) -> None:
    server = start_redis()
    gone = Redis.from_url(server.url)
    server.stop()
    replica = Replica(gone)
    failed = ("cache_errors", (("operation", "caller_rate"), ("reason", "error")))
    assert [(await replica.spend()).granted for _ in range(3)] == [True, True, False]
    assert replica.recorder.counts == {failed: 1}
    replica.clock.advance(AWAY_S)
    await asyncio.gather(*(replica.spend() for _ in range(20)))
    assert replica.recorder.counts == {failed: 2}

    server.restart()
    replica.clock.advance(AWAY_S)
    assert [(await replica.spend()).remaining for _ in range(2)] == [1, 0], "what Redis knows counts again"
    assert replica.recorder.counts == {failed: 2}
    await gone.aclose()


async def test_a_frozen_redis_costs_one_request_its_time_out(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    client = Redis.from_url(server.url)
    replica = Replica(client, timeout_s=0.05)
    assert (await replica.spend()).remaining == 1
    server.freeze()
    assert [(await replica.spend()).granted for _ in range(3)] == [True, True, False]
    assert replica.recorder.counts == {("cache_errors", (("operation", "caller_rate"), ("reason", "timeout"))): 1}
    server.thaw()
    await client.aclose()


async def test_a_user_with_the_least_rights_will_do(redis_acl_url: str) -> None:
    client = Redis.from_url(redis_acl_url)
    replica = Replica(client)
    assert (await replica.spend()).remaining == 1
    assert replica.recorder.counts == {}
    await client.aclose()
