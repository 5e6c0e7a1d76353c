"""What the event log in Redis costs: appending, handing out and settling, and that its archive costs nothing.

    python benchmarks/bench_events.py [--archived 1000000] [--rounds 2000]

Starts its own redis-servers. Goals:
- an event is appended in at most 1 ms, and taken and settled in batches in at most 1 ms each;
- taking and settling one event costs the same with 1,000,000 archived events as with 1,000 (within 1.5 times).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import orjson
import uvloop
from rig import Goals, RedisProcess, machine, percentile, record, redis_process

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.events.event import Event, encode, event_id_at
from jobnimbus_mcp.events.log_redis import RedisEvents
from jobnimbus_mcp.events.ports import Attempt, Fate, Settled, Subscription

INSTANCE = "stamford"
CONSUMER = "settle"
FEW = 1_000
BLOCKS = 10
BATCH = 100
GOAL_US = 1_000.0
BODY = record(1_600).decode()


def change(number: int, now: float) -> Event:
    return Event(
        event_id=event_id_at(now, f"{number:020x}"),
        instance=INSTANCE,
        name="job.updated",
        entity="jobs",
        record_id=f"j{number % 5_000}",
        action="updated",
        tags=("jobs", f"job:j{number % 5_000}"),
        source="webhook",
        received_at=now,
        body=BODY,
    )


def filled(server: RedisProcess, number: int) -> None:
    """So many finished events, as the log leaves them; without bodies, which nothing here looks at."""
    key = f"jobnimbus-sys:{{{INSTANCE}}}:"
    begun = time.time() - number / 1_000
    told = orjson.dumps({"s": "done", "n": 1, "t": 1, "u": 0, "d": 0, "r": "", "a": []})
    with server.client() as client:
        for first in range(0, number, 10_000):
            with client.pipeline(transaction=False) as pipeline:
                for one in range(first, min(first + 10_000, number)):
                    event = change(one, begun + one / 1_000)
                    ms, place = int(event.received_at * 1000), f"{one + 1}-0"
                    fields = {"id": event.event_id, "e": encode(event), "to": b'{"settle":0}', "c:settle": told}
                    pipeline.xadd(key + "archive", fields, id=place)
                    pipeline.zadd(key + "archived", {f"{event.event_id}:{place}": ms})
                pipeline.execute()


@asynccontextmanager
async def event_log(server: RedisProcess) -> AsyncIterator[RedisEvents]:
    client = connect(server.url)
    log = RedisEvents(Scripts(client, package="jobnimbus_mcp.events.scripts"), clock=SystemClock(), tenants=[INSTANCE])
    try:
        await log.open([CONSUMER])
        yield log
    finally:
        await log.aclose()
        await client.aclose()


async def appended(log: RedisEvents, first: int, rounds: int) -> list[float]:
    """Microseconds of each."""
    taken = []
    for number in range(first, first + rounds):
        event = change(number, time.time())
        began = time.perf_counter()
        await log.append(event, {CONSUMER: event.received_at})
        taken.append((time.perf_counter() - began) * 1e6)
    return taken


async def handled(hand: Subscription, events: int, most: int) -> list[float]:
    """Microseconds for each event, of batches of at most `most`."""
    taken, left = [], events
    while left:
        began = time.perf_counter()
        batch = await hand.take(min(most, left), wait_s=5.0)
        now = time.time()
        await hand.settle([Settled(one, Fate.DONE, Attempt(now, "r", 0.0)) for one in batch])
        if batch:
            taken.append((time.perf_counter() - began) * 1e6 / len(batch))
        left -= len(batch)
    return taken


async def each(rounds: int, goals: Goals) -> None:
    with redis_process() as server:
        async with event_log(server) as log:
            hand = log.subscribe(CONSUMER)
            await appended(log, 0, 50)
            await handled(hand, 50, BATCH)
            append = await appended(log, 50, rounds)
            batched = await handled(hand, rounds, BATCH)
    told = f"{statistics.median(append):.0f} us (p99 {percentile(append, 0.99):.0f} us)"
    goals.check("an event is appended in 1 ms", statistics.median(append) <= GOAL_US, told)
    told = f"{statistics.median(batched):.0f} us each, in batches of {BATCH}"
    goals.check("an event is taken and settled in 1 ms", statistics.median(batched) <= GOAL_US, told)


async def with_archive(archived: int, rounds: int, goals: Goals) -> None:
    """Two servers, so that both measurements alternate in one process and a busy machine slows both."""
    with redis_process() as few, redis_process() as many:
        await asyncio.to_thread(filled, few, FEW)
        began = time.monotonic()
        await asyncio.to_thread(filled, many, archived)
        print(f"filled with {archived:,} archived events in {time.monotonic() - began:.0f} s", flush=True)
        taken: list[list[float]] = [[], []]
        async with AsyncExitStack() as stack:
            logs = [await stack.enter_async_context(event_log(server)) for server in (few, many)]
            hands = [log.subscribe(CONSUMER) for log in logs]
            for block in range(BLOCKS + 1):
                for log, hand, times in zip(logs, hands, taken, strict=True):
                    await appended(log, block * rounds, rounds // BLOCKS)
                    found = await handled(hand, rounds // BLOCKS, 1)
                    times += found if block else []  # the first warms up
    one, other = (statistics.median(times) for times in taken)
    told = f"{one:.0f} us with {FEW:,} archived, {other:.0f} us with {archived:,}: {other / one:.2f} times"
    goals.check("taking and settling one costs the same whatever is archived (1.5 times)", other / one <= 1.5, told)


async def measure(archived: int, rounds: int) -> int:
    goals = Goals()
    await each(rounds, goals)
    await with_archive(archived, rounds, goals)
    return goals.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archived", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2_000)
    given = parser.parse_args()
    print(machine(), flush=True)
    sys.exit(uvloop.run(measure(given.archived, given.rounds)))


if __name__ == "__main__":
    main()
