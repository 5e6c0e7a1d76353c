"""A broken store is a miss, never an error and never old data: with a real server frozen, killed, full or read-only."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
import redis

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.invalidate import Applied, Invalidator, Notice
from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.read_through import Question, ReadThrough
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy, State
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

CLOCK = SystemClock()
KEY = CacheKey("stamford", "p1", "jobs", "detail", "j1")
TAGS = ("jobs", "jobs:detail", "job:j1")
QUESTION = Question(KEY, TAGS, Policy(600))
COMMAND_TIMEOUT_S = 0.1
OPEN_S = 0.4


class Server(Protocol):
    url: str
    pid: int

    def client(self) -> redis.Redis: ...
    def stop(self) -> None: ...
    def restart(self) -> None: ...


class World:
    """One process's cache over a server, and a source that counts its questions."""

    def __init__(self, store: GuardedStore, breaker: BreakerBox, recorder: InMemoryRecorder, l1_bytes: int) -> None:
        self.store, self.breaker, self.recorder = store, breaker, recorder
        self.cache = ReadThrough(store, L1(l1_bytes), clock=CLOCK, random01=random.Random(1).random, recorder=recorder)
        self.invalidator = Invalidator(store, clock=CLOCK, recorder=recorder)
        self.version, self.loads = 1, 0

    async def loader(self, call: Call) -> Loaded:
        self.loads += 1
        version = self.version
        await asyncio.sleep(0.001)
        return Loaded(b"v%d" % version)

    async def read(self, **options: Any) -> Outcome:
        return await self.cache.read(QUESTION, self.loader, call=Call.begin(CLOCK, "r"), **options)

    async def changed(self) -> Applied:
        """The record changes, and its webhook comes in."""
        self.version += 1
        notice = Notice("job.updated", "job", "j1", "webhook", CLOCK.now(), f"e{self.version}")
        return await self.invalidator.append_and_bump("stamford", TAGS, notice, Call.begin(CLOCK, "w"))

    async def until(self, met: Callable[[], bool], within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while not met():  # noqa: ASYNC110 - what is awaited happens in another process
                await asyncio.sleep(0.01)


@asynccontextmanager
async def world(
    url: str, *, l1_bytes: int = 1 << 20, command_timeout_s: float = COMMAND_TIMEOUT_S
) -> AsyncIterator[World]:
    client, recorder = connect(url), InMemoryRecorder()
    breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=OPEN_S, failures=5), CLOCK)
    try:
        async with GuardedStore(RedisStore(client), breaker, CLOCK, command_timeout_s, recorder) as store:
            one = World(store, breaker, recorder, l1_bytes)
            try:
                yield one
            finally:
                await one.cache.aclose()
    finally:
        await client.aclose()  # also when the test failed: what it leaves open is told of as the next one's failure


StartRedis = Callable[..., Server]


def fill_up(server: Server) -> None:
    """Write until the server has no room."""
    with server.client() as junk:
        for number in range(2_000):
            try:
                junk.set(f"junk{number}", b"x" * 4_096, ex=600)
            except redis.exceptions.OutOfMemoryError:
                return
    pytest.fail("the server never was full")


async def test_a_frozen_server_costs_a_call_one_timeout_and_the_answer_comes_from_the_origin(
    start_redis: StartRedis,
) -> None:
    server = start_redis()
    async with world(server.url) as w:
        await w.read()
        os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        outcome = await w.read()
        taken_s = time.monotonic() - began
        os.kill(server.pid, signal.SIGCONT)
        assert (outcome.value, outcome.status, outcome.tier, outcome.ttl_s) == (b"v1", Status.BYPASS, Tier.UPSTREAM, 0)
        assert COMMAND_TIMEOUT_S * 0.9 <= taken_s < 1.0
        # Neither the fill nor a second look was tried: one command went out and timed out.
        assert w.recorder.total("cache_errors") <= 1
        assert w.loads == 2


async def test_a_frozen_server_costs_a_crowd_one_timeout_each_not_one_after_the_other(start_redis: StartRedis) -> None:
    server = start_redis()
    async with world(server.url) as w:
        await w.read()
        os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        outcomes = await asyncio.gather(*(w.read() for _ in range(200)))
        taken_s = time.monotonic() - began
        os.kill(server.pid, signal.SIGCONT)
        assert {outcome.status for outcome in outcomes} == {Status.BYPASS}
        assert taken_s < 1.0
        assert w.loads == 2


async def test_an_invalidation_refused_by_a_frozen_server_holds_before_anything_is_read_again(
    start_redis: StartRedis,
) -> None:
    server = start_redis()
    async with world(server.url) as w:
        assert (await w.read()).value == b"v1"
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(CacheUnavailable):
            await w.changed()
        assert w.store.indebted == ("stamford",)
        assert (await w.read()).status is Status.BYPASS
        os.kill(server.pid, signal.SIGCONT)
        # Not one call is needed: the debt is paid in the background.
        await w.until(lambda: w.store.indebted == ())
        outcome = await w.read()
        assert (outcome.value, outcome.status) == (b"v2", Status.MISS)
        assert (await w.read()).status is Status.HIT


async def test_five_failures_open_the_breaker_which_heals_without_a_call(start_redis: StartRedis) -> None:
    server = start_redis()
    async with world(server.url) as w:
        await w.read()
        os.kill(server.pid, signal.SIGSTOP)
        for _ in range(5):
            assert (await w.read()).status is Status.BYPASS
        assert w.breaker.state is State.OPEN
        began = time.monotonic()
        assert (await w.read()).status is Status.BYPASS
        assert time.monotonic() - began < COMMAND_TIMEOUT_S / 2  # nothing was tried
        with pytest.raises(CacheUnavailable):
            await w.changed()
        os.kill(server.pid, signal.SIGCONT)
        await w.until(lambda: w.breaker.state is State.CLOSED)
        assert w.store.indebted == ()
        assert (await w.read()).value == b"v2"
        health = await w.store.health()
        assert (health.connected, health.circuit_state, health.reason) == (True, "CLOSED", None)


async def test_a_killed_server_is_bypassed_and_its_empty_successor_filled_again(start_redis: StartRedis) -> None:
    server = start_redis()
    async with world(server.url) as w:
        await w.read()
        server.stop()
        assert (await w.read()).status is Status.BYPASS
        health = await w.store.health()
        assert (health.connected, health.reason) == (False, "unreachable")
        with pytest.raises(CacheUnavailable):
            await w.changed()
        server.restart()
        await w.until(lambda: w.store.indebted == ())
        outcome = await w.read()
        assert (outcome.value, outcome.status) == (b"v2", Status.MISS)
        assert (await w.read()).status is Status.HIT


async def test_a_restart_between_look_up_and_fill_keeps_nothing(start_redis: StartRedis) -> None:
    """Equal generations from old and new server would need equal microseconds; the epoch's token excludes even that."""
    server = start_redis()
    async with world(server.url, command_timeout_s=0.5) as w:
        started = asyncio.Event()

        async def slow(call: Call) -> Loaded:
            started.set()
            await asyncio.to_thread(server.restart)
            return Loaded(b"old")

        first = asyncio.create_task(w.cache.read(QUESTION, slow, call=Call.begin(CLOCK, "r")))
        await asyncio.wait_for(started.wait(), 5)
        assert (await asyncio.wait_for(first, 10)).value == b"old"
        await w.until(lambda: w.recorder.total("cache_fills") == 1)
        assert (await w.read()).value == b"v1"


async def test_in_a_full_server_invalidations_hold_and_reads_are_answered(start_redis: StartRedis) -> None:
    server = start_redis("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    async with world(server.url) as w:
        assert (await w.read()).status is Status.MISS
        assert (await w.read()).status is Status.HIT
        fill_up(server)
        assert (await w.read()).status is Status.HIT
        applied = await w.changed()
        assert applied.bumped == len(TAGS)
        for _ in range(3):
            outcome = await w.read()
            assert (outcome.value, outcome.status) == (b"v2", Status.MISS)
        assert w.breaker.state is State.CLOSED
        assert (await w.store.health()).reason == "out_of_memory"
        with server.client() as junk:
            junk.delete(*[f"junk{number}" for number in range(2_000)])
        assert (await w.read()).status is Status.MISS
        assert (await w.read()).status is Status.HIT


async def test_in_a_full_server_it_is_still_known_who_has_an_l1_and_what_they_must_hear(
    start_redis: StartRedis,
) -> None:
    server = start_redis("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    client = connect(server.url)
    store, bound = RedisStore(client), Call.begin(CLOCK, "r")
    await store.read(KEY, TAGS, "", want=True, call=bound)
    await store.renew_l1("stamford", "first", "0-0", register=True, call=bound)
    fill_up(server)
    await store.renew_l1("stamford", "second", "0-0", register=True, call=bound)
    notice = Notice("job.updated", "job", "j1", "webhook", CLOCK.now(), "e1")
    told = (await store.append_and_bump("stamford", TAGS, notice, bound)).told
    assert told.registered == 2
    assert set(await store.behind("stamford", told.position, bound)) >= {"first", "second"}
    assert (await store.changes("stamford", "0-0", bound))[-1].tags == TAGS
    await client.aclose()


async def test_a_read_only_server_refuses_the_invalidation_and_is_not_read_until_it_holds(
    start_redis: StartRedis,
) -> None:
    """A primary that was made a replica goes on answering reads."""
    server = start_redis()
    async with world(server.url) as w:
        await w.read()
        with server.client() as operator:
            operator.replicaof("127.0.0.1", 1)
            with pytest.raises(CacheUnavailable):
                await w.changed()
            outcome = await w.read()
            assert (outcome.value, outcome.status) == (b"v2", Status.BYPASS)
            # One refused write opens the breaker: the next would be refused as well.
            assert (await w.store.health()).reason == "circuit_open"
            operator.replicaof("NO", "ONE")
        await w.until(lambda: w.store.indebted == () and w.breaker.state is State.CLOSED)
        outcome = await w.read()
        assert (outcome.value, outcome.status) == (b"v2", Status.MISS)


async def test_a_read_only_server_refuses_an_invalidation_of_tags_it_does_not_know(start_redis: StartRedis) -> None:
    """Nothing need be written for them, and yet another server may hold entries with them."""
    server = start_redis()
    async with world(server.url) as w:
        with server.client() as operator:
            operator.replicaof("127.0.0.1", 1)
            with pytest.raises(CacheUnavailable):
                await w.changed()


async def test_forgotten_scripts_and_a_flush_cost_hits_only(redis_url: str) -> None:
    async with world(redis_url) as w:
        await w.read()
        control = connect(redis_url)
        await control.script_flush()
        assert (await w.read()).status is Status.HIT
        await control.script_flush()
        w.version = 2
        await control.flushall()
        outcome = await w.read()
        assert (outcome.value, outcome.status) == (b"v2", Status.MISS)
        assert (await w.read()).status is Status.HIT
        await control.aclose()


@pytest.mark.parametrize("damage", ["flip", "cut", "list", "other_format", "copied"])
async def test_a_damaged_value_is_a_miss_that_is_replaced_and_no_failure(redis_url: str, damage: str) -> None:
    async with world(redis_url, l1_bytes=0) as w:
        await w.read()
        control = connect(redis_url)
        stored = await control.get(KEY.text)
        assert isinstance(stored, bytes)
        if damage == "flip":
            await control.setrange(KEY.text, len(stored) - 1, bytes([stored[-1] ^ 1]))
        elif damage == "cut":
            await control.set(KEY.text, stored[:-1], keepttl=True)
        elif damage == "other_format":
            await control.set(KEY.text, b"\x7f" + stored[1:], keepttl=True)
        elif damage == "list":
            await control.delete(KEY.text)
            await control.lpush(KEY.text, "x")
            await control.expire(KEY.text, 60)
        else:
            other = Question(CacheKey("stamford", "p2", "jobs", "detail", "j1"), TAGS, Policy(600))

            async def secret(call: Call) -> Loaded:
                return Loaded(b"of another partition")

            await w.cache.read(other, secret, call=Call.begin(CLOCK, "r"))
            await control.copy(other.key.text, KEY.text, replace=True)
        outcome = await w.read()
        assert (outcome.value, outcome.status) == (b"v1", Status.MISS)
        assert (await w.read()).status is Status.HIT
        # Another release's entry is not a broken one.
        assert w.recorder.total("cache_corrupt") == (0 if damage == "other_format" else 1)
        assert w.recorder.total("cache_errors") == 0
        await control.aclose()


async def test_a_loop_held_up_for_longer_than_the_bound_is_no_failure_of_the_store(redis_url: str) -> None:
    async with world(redis_url) as w:
        await w.read()
        reading = asyncio.create_task(w.read())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(COMMAND_TIMEOUT_S * 3)  # noqa: ASYNC251 - holding the loop up is the point
        outcome = await reading
        assert (outcome.status, outcome.tier) == (Status.HIT, Tier.L1)
        assert w.recorder.total("cache_errors") == 0


@pytest.mark.parametrize("callers", [1_000])
async def test_a_thousand_callers_at_once_ask_the_origin_once(redis_url: str, callers: int) -> None:
    # The bound is a second here: this machine may take more than 100 ms to start a thousand calls.
    async with world(redis_url, command_timeout_s=1.0) as w:
        outcomes = await asyncio.gather(*(w.read() for _ in range(callers)))
        assert w.loads == 1
        assert {(outcome.value, outcome.status) for outcome in outcomes} == {(b"v1", Status.MISS)}
        assert sum(not outcome.coalesced for outcome in outcomes) == 1
        again = await asyncio.gather(*(w.read() for _ in range(callers)))
        assert {outcome.status for outcome in again} == {Status.HIT}
        reads_sent = len(w.recorder.observed["store_seconds"])
        assert reads_sent < 12


async def test_calls_given_up_at_any_point_leave_a_cache_that_works(redis_url: str) -> None:
    """Cancellation at every await of a miss: the next reader gets the right answer, and no task stays behind."""
    async with world(redis_url) as w:
        for step in range(60):
            reading = asyncio.create_task(w.read())
            for _ in range(step % 30):
                await asyncio.sleep(0)
            if step >= 30:
                await asyncio.sleep(0.0001 * (step - 30))
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            if step % 2:
                await w.changed()
            outcome = await w.read()
            assert outcome.value == b"v%d" % w.version
        assert w.breaker.state is State.CLOSED
        assert w.recorder.total("cache_errors") == 0


async def test_a_cancelled_invalidation_is_owed_because_nobody_knows_whether_it_was_applied(redis_url: str) -> None:
    async with world(redis_url) as w:
        for step in (1, 4, 6):
            await w.read()
            changing = asyncio.create_task(w.changed())
            for _ in range(step):
                await asyncio.sleep(0)
            changing.cancel()
            await asyncio.gather(changing, return_exceptions=True)
            assert (await w.read()).value == b"v%d" % w.version
            await w.until(lambda: w.store.indebted == ())


async def test_no_key_but_entries_carries_the_entries_prefix(redis_url: str) -> None:
    async with world(redis_url) as w:
        await w.read()
        await w.changed()
        control = connect(redis_url)
        names = {str(name, "utf-8") for name in await control.keys() if isinstance(name, bytes)}
        assert {name for name in names if name.startswith("jobnimbus:")} == {KEY.text}
        assert all(name.startswith("jobnimbus-sys:{") for name in names - {KEY.text})
        assert system_key("stamford", "epoch") in names
        await control.aclose()


@pytest.mark.parametrize("l1_bytes", [0, 1 << 20])
@pytest.mark.parametrize("reader", ["connected before", "new process"])
async def test_a_restart_that_lost_an_acknowledged_invalidation_revives_nothing(
    start_redis: StartRedis, reader: str, l1_bytes: int
) -> None:
    """The server comes back with a snapshot in which the entry and its old generations are still there."""
    server = start_redis()
    async with world(server.url, l1_bytes=l1_bytes) as w, world(server.url, l1_bytes=l1_bytes) as idle:
        assert (await w.read()).value == b"v1"
        assert (await idle.read()).value == b"v1"
        assert (await idle.read()).status is Status.HIT
        with server.client() as operator:
            operator.save()
        await w.changed()
        await asyncio.to_thread(server.restart)
        with server.client() as operator:
            assert operator.exists(KEY.text) == 1
        if reader == "connected before":
            idle.version = 2
            outcome = await idle.read()
        else:
            async with world(server.url) as late:
                late.version = 2
                outcome = await late.read()
        assert (outcome.value, outcome.status) == (b"v2", Status.MISS)
        # Who confirmed what was lost makes sure once more.
        assert (await w.read()).value == b"v2"
        assert (await w.read()).status is Status.HIT


async def test_a_fill_begun_before_a_restart_that_lost_the_invalidation_keeps_nothing(start_redis: StartRedis) -> None:
    server = start_redis()
    client = connect(server.url)
    store, call = RedisStore(client), Call.begin(CLOCK, "r")
    seen = await store.read(KEY, TAGS, "", want=True, call=call)
    with server.client() as operator:
        operator.save()
    notice = Notice("job.updated", "job", "j1", "webhook", CLOCK.now(), "e1")
    await store.append_and_bump("stamford", TAGS, notice, call)
    await asyncio.to_thread(server.restart)
    assert await store.fill(KEY, TAGS, seen, b"x", ttl_s=60, admission_s=60, call=call) is False
    await client.aclose()


async def test_a_restart_that_lost_nothing_costs_the_hits_once_for_all_processes(start_redis: StartRedis) -> None:
    server = start_redis()
    async with world(server.url) as w, world(server.url) as other:
        await w.read()
        with server.client() as operator:
            operator.save()
        await asyncio.to_thread(server.restart)
        assert (await w.read()).status is Status.MISS
        assert (await other.read()).status is Status.HIT
        assert (await w.read()).status is Status.HIT


async def test_a_server_that_does_not_tell_who_it_is_counts_as_another_with_each_connection(
    start_redis: StartRedis,
) -> None:
    """Managed services may refuse INFO."""
    server = start_redis()
    with server.client() as operator:
        operator.execute_command("ACL", "SETUSER", "default", "-info")
    async with world(server.url) as w:
        await w.read()
        async with world(server.url) as late:
            late.version = 2
            outcome = await late.read()
            assert (outcome.value, outcome.status) == (b"v2", Status.MISS)
            outcome = await late.read()
            assert (outcome.value, outcome.status) == (b"v2", Status.HIT)
