"""Our cache beside cashews, aiocache and dogpile.cache: the same work, on one Redis, in one run.

    python benchmarks/bench_peers.py [--rounds 2000] [--only NAME ...]

Needs the peers: `pip install -e '.[bench]'`. Each cache runs in processes of its own (see `peers.py` for how each is
used). Told of each: the median of a hit of 1.6 KB, one caller's, one after the other, as a multiple of the plain
client's GET; how often the origin was asked by 1,000 concurrent cold reads of one record from 4 processes, when it
takes 200 ms; how many reads were stale that began after an invalidation had been acknowledged, where a fill was under
way meanwhile; and how many, where two processes change one record by turns and both read after each change.

Goals: of ours 1 load and no stale read, with and without L1; its L1 hit is no slower than any peer's hit. What its L2
hit may cost is `bench_engine.py`'s to judge, by the same client's GET.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from replica import Wiring
from rig import Child, Goals, Lines, RedisProcess, child, machine, redis_process

PROCESSES, READERS, LOAD_S = 4, 250, 0.2
RACES, RACE_LOAD_S = 30, 0.02
TURNS = 100
BLOCKS = 5

HERE = Path(__file__).parent
OURS, OURS_L2, BARE = "ours", "ours, no L1", "bare GET"

Open = Callable[[], AbstractAsyncContextManager[Child]]


@dataclass
class Row:
    """What one cache came to; None: not asked."""

    hit_us: float | None = None
    loads: int | None = None
    longest_s: float | None = None
    failures: int = 0
    raced: int | None = None
    turned: int | None = None


class Peers:
    def __init__(self, server: RedisProcess, directory: str) -> None:
        self._server = server
        self._directory = directory
        self._numbers = itertools.count()
        self._source = str(Path(directory, "source"))

    def opener(self, name: str) -> Open:
        """How to start a process of this cache."""
        if name in (OURS, OURS_L2):
            l1_bytes = 0 if name == OURS_L2 else 64 << 20
            # the peers wait for Redis for ever
            wiring = Wiring(self._server.url, l1_bytes=l1_bytes, command_timeout_s=1.0, source=self._source)
            return lambda: self._ours(wiring)
        return lambda: child(str(HERE / "peers.py"), name, self._server.url, self._source)

    async def hits(self, names: list[str], rounds: int) -> dict[str, float]:
        """Median microseconds of a hit; the caches take turns, so that a busy machine slows all alike."""
        taken: dict[str, list[float]] = {name: [] for name in names}
        async with AsyncExitStack() as stack:
            children = {name: await stack.enter_async_context(self.opener(name)()) for name in names}
            for _ in range(BLOCKS):
                for name, one in children.items():
                    taken[name].append(await one.ask("hits", rounds=max(10, rounds // BLOCKS)))
        return {name: sorted(told)[len(told) // 2] for name, told in taken.items()}

    async def stampede(self, row: Row, name: str) -> None:
        log = Lines(Path(self._directory, f"loads{next(self._numbers)}"))
        async with AsyncExitStack() as stack:
            children = [await stack.enter_async_context(self.opener(name)()) for _ in range(PROCESSES)]
            for one in children:
                await one.ask("hits", rounds=10)  # connected, and its code has run
            asked: dict[str, Any] = {"identifier": "stampede", "readers": READERS, "takes_s": LOAD_S, "log": log.file}
            told = await asyncio.gather(*(one.ask("stampede", **asked) for one in children))
        row.loads = len(log.all())
        row.longest_s = max(one["longest_s"] for one in told)
        row.failures = sum(len(one["failures"]) for one in told)
        for failure, number in Counter(failure for one in told for failure in one["failures"]).most_common(2):
            print(f"{name}: {number} of {PROCESSES * READERS} reads failed with {failure}", file=sys.stderr)

    async def race(self, row: Row, name: str) -> None:
        async with self.opener(name)() as one:
            row.raced = await one.ask("race", rounds=RACES, takes_s=RACE_LOAD_S)

    async def turns(self, row: Row, name: str) -> None:
        """Two processes; each change is read by both as soon as it is acknowledged."""
        stale = 0
        async with self._pair(name) as pair:
            await pair[0].ask("write", identifier="turns", version=0)
            for one in pair:
                await one.ask("read", identifier="turns")
            for number in range(1, TURNS + 1):
                writer, other = pair[number % 2], pair[1 - number % 2]
                await writer.ask("write", identifier="turns", version=number)
                for one in (other, writer):
                    stale += await one.ask("read", identifier="turns") < number
        row.turned = stale

    @asynccontextmanager
    async def _pair(self, name: str) -> AsyncIterator[tuple[Child, Child]]:
        async with self.opener(name)() as first, self.opener(name)() as second:
            yield first, second

    @asynccontextmanager
    async def _ours(self, wiring: Wiring) -> AsyncIterator[Child]:
        async with child(str(HERE / "replica.py"), wiring.text) as one:
            if wiring.l1_bytes:
                await one.ask("in_step")
            yield one


async def measure(server: RedisProcess, directory: str, rounds: int, names: list[str]) -> int:
    peers, rows = Peers(server, directory), {name: Row() for name in names}
    for name, hit_us in (await peers.hits([BARE, *names], rounds)).items():
        rows.setdefault(name, Row()).hit_us = hit_us
    for name in names:
        server.command("FLUSHALL")
        await peers.stampede(rows[name], name)
        server.command("FLUSHALL")
        await peers.race(rows[name], name)
        server.command("FLUSHALL")
        await peers.turns(rows[name], name)
    table(rows)
    return judged(rows)


def table(rows: dict[str, Row]) -> None:
    get_us = rows[BARE].hit_us or float("nan")
    print(
        f"{'':<20} {'hit p50':>9} {'= GET':>7} {'loads of ' + str(PROCESSES * READERS):>14} {'longest':>8} "
        f"{'failed':>7} {'stale, race':>12} {'stale, turns':>13}"
    )
    for name, row in rows.items():
        hit = f"{row.hit_us:>6.1f} us {row.hit_us / get_us:>6.2f}x" if row.hit_us is not None else ""
        rest = ""
        if row.loads is not None:
            rest = (
                f"{row.loads:>14} {row.longest_s:>6.2f} s {row.failures:>7} {f'{row.raced}/{3 * RACES}':>12} "
                f"{f'{row.turned}/{2 * TURNS}':>13}"
            )
        print(f"{name:<20} {hit:>17} {rest}")
    print(
        f"a load takes {LOAD_S * 1e3:.0f} ms; race: an invalidation while a fill of {RACE_LOAD_S * 1e3:.0f} ms is "
        "under way; turns: two processes change one record alternately. Stale of so many reads."
    )


def judged(rows: dict[str, Row]) -> int:
    goals = Goals()
    for name in (OURS, OURS_L2):
        row = rows.get(name)
        if row is None:
            continue
        goals.check(f"{name}: one load", row.loads == 1 and not row.failures, f"{row.loads}, {row.failures} failed")
        goals.check(f"{name}: no stale read", row.raced == row.turned == 0, f"{row.raced} and {row.turned}")
    hits = {name: row.hit_us for name, row in rows.items() if row.hit_us is not None}
    if OURS in hits:
        others = [hit_us for name, hit_us in hits.items() if name not in (OURS, OURS_L2)]
        goals.check("L1 hit is no slower than any peer's", hits[OURS] <= min(others), f"{hits[OURS]:.1f} us")
    return goals.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2_000)
    every = [OURS, OURS_L2, "cashews", "cashews client_side", "aiocache", "dogpile.cache"]
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="NAME")
    given = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("cashews", "aiocache", "dogpile.cache", "redis"))
    print(f"{machine()}, {versions}")
    with redis_process() as server, tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-bench-") as directory:
        sys.exit(asyncio.run(measure(server, directory, given.rounds, given.only)))


if __name__ == "__main__":
    main()
