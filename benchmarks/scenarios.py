"""The work that every cache is given alike: hits, a stampede, an invalidation during a fill, writes by turns."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rig import Lines, medians_us, percentile, record

__all__ = ["HIT_BYTES", "Load", "Scenarios", "Subject", "timed_us"]

HIT_BYTES = 1_600


@dataclass(frozen=True)
class Load:
    """How the origin answers: it has the value when it is asked, and delivers it `takes_s` later."""

    begin: Callable[[], str]
    takes_s: float = 0.0


class Subject(Protocol):
    """A cache as its users wire it: reading through by key, and invalidating a record."""

    async def read(self, identifier: str, load: Load) -> str: ...

    async def read_once(self, identifier: str, load: Load) -> str:
        """The same, by what the library has against many loads at once."""
        ...

    async def invalidate(self, identifier: str) -> None: ...


class Scenarios:
    """Orders (see `rig.take_orders`) for one process with one cache. `source`: a file with the version of a record that
    several processes change."""

    def __init__(self, subject: Subject, source: str) -> None:
        self._subject = subject
        self._source = Path(source)

    @property
    def orders(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        names = ("hits", "stampede", "race", "read", "write")
        return {name: getattr(self, name) for name in names}

    async def hits(self, rounds: int, identifier: str = "hit") -> float:
        """Median microseconds of a hit of 1.6 KB, one after the other."""
        load = Load(lambda: record(HIT_BYTES).decode())

        async def hit() -> None:
            await self._subject.read(identifier, load)

        await hit()
        await asyncio.sleep(0.05)
        return (await medians_us(rounds, {"hit": hit}))["hit"]

    async def stampede(self, identifier: str, readers: int, takes_s: float, log: str) -> dict[str, Any]:
        """So many reads at once of what is nowhere kept; each load leaves a line in the file `log`."""
        taken: list[float] = []
        failures: list[str] = []
        loads = Lines(log)

        def begin() -> str:
            loads.add(str(os.getpid()))
            return record(HIT_BYTES).decode()

        async def reader() -> None:
            began = time.monotonic()
            try:
                await self._subject.read_once(identifier, Load(begin, takes_s))
            except Exception as error:  # the boundary to the library; whoever ordered it tells how many failed
                failures.append(f"{type(error).__name__}: {error}"[:200])
            taken.append(time.monotonic() - began)

        await asyncio.gather(*(reader() for _ in range(readers)))
        return {"longest_s": max(taken), "p50_s": percentile(taken, 0.5), "failures": failures}

    async def race(self, rounds: int, takes_s: float) -> int:
        """Stale reads after invalidations that were acknowledged while a fill was under way. In each round two records:
        of one the reads come at once and when that fill has ended, of the other only then: 3 reads."""
        stale = 0
        for number in range(rounds):
            for reads_at_once in (True, False):
                identifier, version = f"race{number}{reads_at_once}", ["1"]
                load = Load(partial(version.__getitem__, 0), takes_s)
                filling = asyncio.create_task(self._subject.read(identifier, load))
                await asyncio.sleep(takes_s / 2)
                version[0] = "2"
                await self._subject.invalidate(identifier)
                if reads_at_once:
                    stale += await self._subject.read(identifier, load) != "2"
                await filling
                await asyncio.sleep(0.005)
                stale += await self._subject.read(identifier, load) != "2"
        return stale

    async def read(self, identifier: str) -> int:
        """The version that a read of the source's record tells."""
        return int(await self._subject.read(identifier, Load(self._source.read_text)))

    async def write(self, identifier: str, version: int) -> None:
        """Change the source's record, then invalidate."""
        self._source.write_text(str(version))
        await self._subject.invalidate(identifier)


async def timed_us(operation: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await operation()
    return (time.perf_counter() - began) * 1e6
