"""Workers that die or stand still, and a Redis that is restarted: every event's effect happens, in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import event_worker_redis
import pytest

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_redis import RedisEvents
from jobnimbus_mcp.events.ports import EventsUnavailable

INSTANCE = "acme"
CONSUMERS = ("settle", "relay:crm")


@dataclass(frozen=True)
class Size:
    events: int
    records: int
    claim_idle_s: float
    bound_s: float


SMALL = Size(events=400, records=20, claim_idle_s=1.0, bound_s=20)
LARGE = Size(events=2_000, records=50, claim_idle_s=2.0, bound_s=60)


@contextmanager
def worker(url: str, file: Path, claim_idle_s: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, event_worker_redis.__file__, url, INSTANCE, str(file), str(claim_idle_s), *CONSUMERS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=5)


@asynccontextmanager
async def event_log(url: str) -> AsyncIterator[RedisEvents]:
    client = connect(url)
    runner = Scripts(client, package="jobnimbus_mcp.events.scripts")
    log = RedisEvents(runner, clock=SystemClock(), tenants=[INSTANCE])
    yield log
    await log.aclose()
    await client.aclose()


async def insisted(ask: Callable[[], Awaitable[Any]], bound_s: float = 10.0) -> Any:
    """Its answer, however often Redis is away meanwhile."""
    async with asyncio.timeout(bound_s):
        while True:
            try:
                return await ask()
            except EventsUnavailable:
                await asyncio.sleep(0.02)


async def append(log: RedisEvents, size: Size, first: int, end: int) -> None:
    for number in range(first, end):
        now = time.time()
        event = Event(
            event_id=event_id_at(now, f"{number:020x}"),
            instance=INSTANCE,
            name="job.updated",
            entity="jobs",
            record_id=f"j{number % size.records}",
            action="updated",
            tags=("jobs",),
            source="webhook",
            received_at=now,
            occurred_at=number // size.records,
        )
        routes = dict.fromkeys(CONSUMERS, now)
        await insisted(lambda event=event, routes=routes: log.append(event, routes))  # type: ignore[misc]


async def until_idle(log: RedisEvents, bound_s: float) -> None:
    async with asyncio.timeout(bound_s):
        while True:
            lag = await insisted(lambda: log.lag(INSTANCE))
            if all(lag[consumer].due + lag[consumer].delayed == 0 for consumer in CONSUMERS):
                return
            await asyncio.sleep(0.05)


def checked(file: Path, size: Size) -> int:
    """Everything happened, nothing out of order; how many effects happened again."""
    happened: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for line in file.read_text().splitlines():
        consumer, record, number, _ = line.split()
        happened[consumer, record].append(int(number))
    repeats = 0
    each = size.events // size.records
    for consumer in CONSUMERS:
        for name in (f"j{record}" for record in range(size.records)):
            numbers = happened[consumer, name]
            assert sorted(set(numbers)) == list(range(each)), (consumer, name, numbers)
            # what was in a dead worker's hands may happen again, before anything later of its record does
            assert numbers == sorted(numbers), (consumer, name, numbers)
            repeats += len(numbers) - each
    return repeats


async def disturbed(start_redis: Callable[..., Any], file: Path, size: Size, seed: int) -> None:
    chance = random.Random(seed)
    # with `everysec` a killed server may have answered what it had not yet written
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    fifth = size.events // 5
    with ExitStack() as stack:
        processes = [stack.enter_context(worker(server.url, file, size.claim_idle_s)) for _ in range(3)]
        async with event_log(server.url) as log:
            await insisted(lambda: log.open(CONSUMERS))
            await append(log, size, 0, fifth)
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            await append(log, size, fifth, 2 * fifth)
            dead, frozen, _ = chance.sample(processes, 3)
            os.kill(frozen.pid, signal.SIGSTOP)
            stopped_at = time.monotonic()
            await append(log, size, 2 * fifth, 3 * fifth)
            os.kill(dead.pid, signal.SIGKILL)
            await append(log, size, 3 * fifth, 4 * fifth)
            appending = asyncio.create_task(append(log, size, 4 * fifth, size.events))
            await asyncio.to_thread(server.restart)
            await appending
            # longer than its leases last
            await asyncio.sleep(max(0.0, stopped_at + 1.4 * size.claim_idle_s - time.monotonic()))
            os.kill(frozen.pid, signal.SIGCONT)
            await until_idle(log, size.bound_s)
            assert await log.durable()
            with server.client() as client:
                left = [client.xlen(f"jobnimbus-sys:{{{INSTANCE}}}:events:{partition}") for partition in range(8)]
                archived = client.xlen(f"jobnimbus-sys:{{{INSTANCE}}}:archive")
        assert (left, archived) == ([0] * 8, size.events)
        assert checked(file, size) <= 3 * 20 * len(CONSUMERS)  # as much as three processes had in hand


async def test_every_effect_happens_in_order_though_workers_die_and_redis_is_restarted(
    start_redis: Callable[..., Any], tmp_path: Path
) -> None:
    await disturbed(start_redis, tmp_path / "effects", SMALL, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
async def test_every_effect_happens_in_order_of_many_events(
    start_redis: Callable[..., Any], tmp_path: Path, seed: int
) -> None:
    await disturbed(start_redis, tmp_path / "effects", LARGE, seed)
