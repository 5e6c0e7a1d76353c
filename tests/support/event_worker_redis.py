"""A worker process of tests: acts on events by adding a line to a file that all workers share.

    python event_worker_redis.py <redis url> <account> <file> <claim idle s> <consumer> ...

A line is `<consumer> <record> <number> <worker>`; the number is the event's `occurred_at`. Prints `ready` first.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.events.log_redis import RedisEvents
from jobnimbus_mcp.events.ports import Attempt, EventsUnavailable, Fate, Settled, Taken


async def act(log: RedisEvents, consumer: str, file: Path, within_s: float) -> None:
    subscription = log.subscribe(consumer)
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        try:
            taken = await subscription.take(20, wait_s=5.0)
            until = time.monotonic() + within_s
            results = []
            for one in taken:
                await asyncio.sleep(0)  # a little of the time that effects take, for signals to come in between
                if time.monotonic() > until:
                    results.append(_result(one, Fate.RETRY))
                    continue
                line = f"{consumer} {one.event.record_id} {one.event.occurred_at} {os.getpid()}\n"
                os.write(handle, line.encode())
                results.append(_result(one, Fate.DONE))
            await subscription.settle(results)
        except EventsUnavailable:
            await asyncio.sleep(0.1)


def _result(taken: Taken, fate: Fate) -> Settled:
    return Settled(taken, fate, Attempt(time.time(), "", 0.0), due_at=time.time())


async def main(url: str, instance: str, file: str, claim_idle_s: float, consumers: list[str]) -> None:
    client = connect(url)
    runner = Scripts(client, package="jobnimbus_mcp.events.scripts")
    log = RedisEvents(runner, clock=SystemClock(), tenants=[instance], claim_idle_s=claim_idle_s)
    print("ready", flush=True)
    await asyncio.gather(*(act(log, consumer, Path(file), claim_idle_s / 2) for consumer in consumers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5:]))
