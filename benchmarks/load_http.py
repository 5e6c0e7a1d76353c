"""Calls at a fixed rate, whatever the answers take. A process that takes orders (see `rig.take_orders`).

A call's time counts from when it was due, so that a late answer does not hide the calls that came after it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import uvloop
from rig import take_orders
from servers import Connections, get_job, version_of

__all__: list[str] = []


class Load:
    def __init__(self) -> None:
        self._rows: list[list[Any]] = []
        self._driving: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self, port: int, per_s: float, jobs: list[str]) -> None:
        self._rows = []
        self._driving = asyncio.create_task(self._drive(Connections(port), per_s, jobs))

    async def stop(self) -> list[list[Any]]:
        """All calls: [due, took_s, HTTP status (0 none), cache status, tier, index of the job, version], times in
        seconds of the machine's monotonic clock."""
        assert self._driving is not None
        self._driving.cancel()
        await asyncio.gather(self._driving, return_exceptions=True)
        await asyncio.gather(*self._calls, return_exceptions=True)
        return self._rows

    async def _drive(self, connections: Connections, per_s: float, jobs: list[str]) -> None:
        chance, due = random.Random(7), time.monotonic()
        try:
            while True:
                due += 1 / per_s
                if (early := due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                task = asyncio.create_task(self._call(connections, due, chance.randrange(len(jobs)), jobs))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
        finally:
            connections.close()

    async def _call(self, connections: Connections, due: float, job: int, jobs: list[str]) -> None:
        status, cache, tier, version = 0, "", "", -1
        try:
            answer = await get_job(connections, jobs[job])
            status = answer.status
            if status == 200:
                told = json.loads(answer.body)
                cache, tier, version = told["cache"]["status"], told["cache"]["tier"], version_of(told)
        except (OSError, TimeoutError) as error:
            cache = type(error).__name__
        self._rows.append([due, time.monotonic() - due, status, cache, tier, job, version])


async def main() -> None:
    load = Load()
    await take_orders({"start": load.start, "stop": load.stop})


if __name__ == "__main__":
    uvloop.run(main())
