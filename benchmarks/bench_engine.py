"""What the cache engine costs, as ratios to a bare command of the same client in the same run.

    python benchmarks/bench_engine.py [--rounds 3000] [--loop uvloop|asyncio]

Starts its own redis-server on a free port and stops it. Goals: a strict L1 hit within 3 bare PINGs and 3 bare GETs, an
L2 hit of a record of 1.6 KB within 2 GETs. Each figure is the median of one caller's operations, one after the other;
bare commands and engine reads alternate in blocks, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator

import uvloop

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.outcome import Loaded
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.read_through import Question, ReadThrough
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy
from jobnimbus_mcp.telemetry.recorder import NullRecorder

BLOCKS = 10


def record(size_bytes: int) -> bytes:
    """JSON with the texture of a CRM record."""
    words = random.Random(7)
    fields: dict[str, str] = {}
    while len(json.dumps(fields)) < size_bytes:
        fields[f"field_{len(fields)}"] = "".join(words.choices("abcdefghij 0123456789", k=40))
    return json.dumps(fields).encode()[:size_bytes]


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        sys.exit("needs a redis-server on PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([*command, "--dir", directory], stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(5)


async def medians(rounds: int, **operations: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Median microseconds of each operation, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(BLOCKS):
        for name, operation in operations.items():
            for _ in range(max(1, rounds // BLOCKS)):
                began = time.perf_counter()
                await operation()
                taken[name].append((time.perf_counter() - began) * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


async def measure(url: str, rounds: int) -> bool:
    clock, random01 = SystemClock(), random.Random(1).random
    client = connect(url)
    breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=60, failures=5), clock)
    loads = 0

    async def loader(call: Call) -> Loaded:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0)
        return Loaded(value)

    def question(identifier: str) -> Question:
        tags = ("jobs", "jobs:detail", f"jobs:detail:{identifier}", f"job:{identifier}")
        return Question(CacheKey("stamford", "0f" * 8, "jobs", "detail", identifier), tags, Policy(3600))

    def engine(l1_bytes: int) -> ReadThrough:
        return ReadThrough(store, L1(l1_bytes), clock=clock, random01=random01, recorder=NullRecorder())

    async with GuardedStore(RedisStore(client), breaker, clock, 0.5, NullRecorder()) as store:
        held, unheld = engine(64 << 20), engine(0)
        invalidator = Invalidator(store, clock=clock, recorder=NullRecorder())
        print(
            f"{platform.node()}: Python {platform.python_version()}, {asyncio.get_running_loop().__class__.__module__}"
        )
        goals_met = True
        for size, l2_goal in ((1_600, 2.0), (40_000, None)):
            value = record(size)
            asked = question(f"record{size}")

            def read(cache: ReadThrough, asked: Question = asked) -> Awaitable[object]:
                return cache.read(asked, loader, call=Call.begin(clock, "bench"))

            await client.set("jobnimbus-sys:{bench}:bare", value, px=600_000)
            await read(held)
            median = await medians(
                rounds,
                ping=client.ping,
                get=lambda: client.get("jobnimbus-sys:{bench}:bare"),
                l1=lambda: read(held),
                l2=lambda: read(unheld),
            )
            l1, l2 = median["l1"] / median["get"], median["l2"] / median["get"]
            print(f"{size} bytes: PING {median['ping']:.0f} us, GET {median['get']:.0f} us")
            print(
                f"  L1 hit, validated {median['l1']:.0f} us = {median['l1'] / median['ping']:.2f} PING = {l1:.2f} GET"
            )
            print(f"  L2 hit            {median['l2']:.0f} us = {l2:.2f} GET")
            if l2_goal is not None:
                goals_met = l1 <= 3 and median["l1"] / median["ping"] <= 3 and l2 <= l2_goal

        value = record(1_600)
        number = 0

        async def miss() -> None:
            nonlocal number
            number += 1
            await held.read(question(f"m{number}"), loader, call=Call.begin(clock, "bench"))

        async def bump() -> None:
            notice = Notice("job.updated", "job", "x", "webhook", clock.now(), "e")
            await invalidator.append_and_bump("stamford", ("jobs", "jobs:detail"), notice, Call.begin(clock, "bench"))

        median = await medians(
            max(100, rounds // 5), get=lambda: client.get("jobnimbus-sys:{bench}:bare"), miss=miss, bump=bump
        )
        print(f"miss and fill {median['miss']:.0f} us = {median['miss'] / median['get']:.2f} GET")
        print(f"invalidation  {median['bump']:.0f} us = {median['bump'] / median['get']:.2f} GET")

        for callers in (1_000,):
            asked, loads, began = question("stampede"), 0, time.perf_counter()
            await asyncio.gather(*(held.read(asked, loader, call=Call.begin(clock, "bench")) for _ in range(callers)))
            print(f"stampede of {callers}: {loads} load, {(time.perf_counter() - began) * 1e3:.0f} ms")
            began = time.perf_counter()
            await asyncio.gather(*(held.read(asked, loader, call=Call.begin(clock, "bench")) for _ in range(callers)))
            print(f"{callers} hits at once: {(time.perf_counter() - began) * 1e3:.0f} ms")
        await held.aclose()
        await unheld.aclose()
    await client.aclose()
    print("goals met" if goals_met else "GOALS MISSED")
    return goals_met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3_000)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    arguments = parser.parse_args()
    run = uvloop.run if arguments.loop == "uvloop" else asyncio.run
    with redis_server() as url:
        sys.exit(0 if run(measure(url, arguments.rounds)) else 1)


if __name__ == "__main__":
    main()
