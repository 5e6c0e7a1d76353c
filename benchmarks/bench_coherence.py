"""What coherence costs: invalidations, their barrier, and one load for all processes.

    python benchmarks/bench_coherence.py [--keys 1000000] [--rounds 1000]

Starts its own redis-server and replicas, each an engine in a process of its own. Goals:
- an invalidation takes no longer with 1,000,000 keys under the account than with 1,000 (within 1.5 times);
- from a webhook's invalidation until three idle replicas are coherent takes at most 1 ms more than the bare append,
  which is the same call where nobody is registered;
- 1,000 concurrent cold reads over 4 processes make one load; when the process that loads is killed meanwhile, at most
  two, and nobody waits longer than the flight lease and a load.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from replica import Wiring
from rig import Child, Goals, Lines, RedisProcess, child, machine, percentile, redis_process

from jobnimbus_mcp.cache.ports import FLIGHT_LEASE_S

FEW_KEYS = 1_000
BLOCKS = 10
REPLICAS = 3
PROCESSES, READERS, LOAD_S = 4, 250, 0.2
DYING_LOAD_S = 1.0
SCHEDULING_S = 1.0
"""A thousand readers of four processes on few cores wake one after the other."""
PATIENCE_S = 0.5
"""REDIS_COMMAND_TIMEOUT_MS here: no process of a machine that does other things is to be mistaken for a lost Redis."""
UNHEARD = "guilford"
"""An account of which no replica holds anything."""

HERE = Path(__file__).parent


@asynccontextmanager
async def replicas(
    server: RedisProcess, number: int, *, tenants: tuple[str, ...] = ("stamford",)
) -> AsyncIterator[list[Child]]:
    """So many, in step with the log."""
    async with AsyncExitStack() as stack:
        wiring = Wiring(server.url, tenants=tenants, command_timeout_s=PATIENCE_S)
        started = [await stack.enter_async_context(child(str(HERE / "replica.py"), wiring.text)) for _ in range(number)]
        for one in started:
            await one.ask("in_step")
            await one.ask("hits", rounds=10, identifier="warm")
        yield started


def filled(server: RedisProcess, first: int, last: int) -> None:
    """Entries of the account, as cheap as they come: an invalidation never looks at one."""
    with server.client() as client:
        for begin in range(first, last, 10_000):
            with client.pipeline(transaction=False) as pipeline:
                for number in range(begin, min(begin + 10_000, last)):
                    pipeline.set(f"jobnimbus:{{stamford}}:0f0f0f0f:jobs:detail:{number}", b"x", ex=3_600)
                pipeline.execute()


async def keys_and_bumps(server: RedisProcess, keys: int, rounds: int, goals: Goals) -> None:
    """Two servers, so that both measurements alternate in one process and a busy machine slows both."""
    with redis_process() as other:
        await asyncio.to_thread(filled, other, 0, FEW_KEYS)
        began = time.monotonic()
        await asyncio.to_thread(filled, server, 0, keys)
        print(f"filled with {keys:,} keys in {time.monotonic() - began:.0f} s", flush=True)
        wiring = [Wiring(one.url, l1_bytes=0, command_timeout_s=PATIENCE_S) for one in (other, server)]
        taken: list[list[float]] = [[], []]
        async with AsyncExitStack() as stack:
            pair = [await stack.enter_async_context(child(str(HERE / "replica.py"), one.text)) for one in wiring]
            for one in pair:
                await one.ask("bumps", tenant="stamford", rounds=50)
            for _ in range(BLOCKS):
                for one, times in zip(pair, taken, strict=True):
                    times += await one.ask("bumps", tenant="stamford", rounds=max(10, rounds // BLOCKS))
    few, many = (statistics.median(times) for times in taken)
    told = f"{few:.0f} us with {FEW_KEYS:,} keys, {many:.0f} us with {keys:,}: {many / few:.2f} times"
    goals.check("an invalidation's cost does not grow with the keys (1.5 times)", many / few <= 1.5, told)


async def webhook_to_coherent(server: RedisProcess, rounds: int, goals: Goals) -> None:
    async with replicas(server, REPLICAS) as started:
        one = started[0]
        taken: dict[str, list[float]] = {"stamford": [], UNHEARD: []}
        for tenant in taken:
            await one.ask("bumps", tenant=tenant, rounds=50)
        for _ in range(BLOCKS):
            for tenant, times in taken.items():
                times += await one.ask("bumps", tenant=tenant, rounds=max(10, rounds // BLOCKS))
        for mode in ("barrier", "strict"):
            times = await one.ask("mode_hits", rounds=rounds, mode=mode)
            print(f"  hit of 1.6 KB in mode {mode}: {statistics.median(times):.1f} us")
    bare, coherent = (statistics.median(taken[tenant]) for tenant in (UNHEARD, "stamford"))
    p99 = percentile(taken["stamford"], 0.99)
    told = (
        f"append {bare:.0f} us, coherent on {REPLICAS} replicas {coherent:.0f} us (p99 {p99:.0f} us): "
        f"{coherent - bare:+.0f} us, {coherent / bare:.2f} times"
    )
    goals.check("coherent at most 1 ms after the bare append", coherent - bare <= 1_000, told)


async def stampede(server: RedisProcess, directory: str, goals: Goals) -> None:
    log = Lines(Path(directory, "loads"))
    async with replicas(server, PROCESSES) as started:
        asked: dict[str, Any] = {"identifier": "cold", "readers": READERS, "takes_s": LOAD_S, "log": log.file}
        told = await asyncio.gather(*(one.ask("stampede", **asked) for one in started))
    loads, longest_s = len(log.all()), max(one["longest_s"] for one in told)
    failed = sum(len(one["failures"]) for one in told)
    goals.check(
        f"{PROCESSES * READERS:,} cold reads over {PROCESSES} processes make one load",
        loads == 1 and not failed,
        f"{loads} of {LOAD_S * 1e3:.0f} ms, longest wait {longest_s * 1e3:.0f} ms, {failed} failed",
    )


async def leader_killed(server: RedisProcess, directory: str, goals: Goals) -> None:
    log = Lines(Path(directory, "loads of who dies"))
    async with replicas(server, PROCESSES) as started:
        asked: dict[str, Any] = {"identifier": "dying", "readers": READERS, "takes_s": DYING_LOAD_S, "log": log.file}
        asking = [asyncio.create_task(one.ask("stampede", **asked)) for one in started]
        async with asyncio.timeout(10):
            while not (leaders := log.all()):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
        await asyncio.sleep(DYING_LOAD_S / 2)
        dead = next(one for one in started if one.process.pid == int(leaders[0]))
        dead.signal(signal.SIGKILL)
        ended = await asyncio.gather(*asking, return_exceptions=True)
    told = [one for one in ended if isinstance(one, dict)]
    loads, longest_s = len(log.all()), max(one["longest_s"] for one in told)
    failed = sum(len(one["failures"]) for one in told)
    bound_s = FLIGHT_LEASE_S + DYING_LOAD_S + SCHEDULING_S
    goals.check(
        "the loading process killed: at most two loads, nobody waits longer than the lease and a load",
        loads <= 2 and longest_s <= bound_s and not failed and len(told) == PROCESSES - 1,
        f"{loads} loads, longest wait {longest_s:.2f} s (bound {bound_s:.1f} s), {failed} failed",
    )


async def measure(keys: int, rounds: int) -> int:
    goals = Goals()
    with tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-bench-") as directory:
        with redis_process() as server:
            await webhook_to_coherent(server, rounds, goals)
            await stampede(server, directory, goals)
            await leader_killed(server, directory, goals)
        with redis_process() as server:
            await keys_and_bumps(server, keys, rounds, goals)
    return goals.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1_000)
    given = parser.parse_args()
    print(machine(), flush=True)
    sys.exit(uvloop.run(measure(given.keys, given.rounds)))


if __name__ == "__main__":
    main()
