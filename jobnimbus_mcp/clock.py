"""The only module that asks the time. Everything else is handed a `Clock`."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Wall time, monotonic time and waiting, as one thing that tests can hold still."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. May jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow, also while the machine sleeps; for durations, deadlines and leases."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` (at once when not positive)."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._monotonic = _boot_time() or time.monotonic

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return self._monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """A clock that moves only when told: `advance` wakes the sleepers whose time has come, in order."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._sequence = 0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._sequence += 1
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, self._sequence, wake))
        await wake

    def advance(self, seconds: float) -> None:
        """Move both clocks on and wake whoever slept until then."""
        self._now += seconds
        self._monotonic += seconds
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            _, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                wake.set_result(None)

    def jump_wall(self, seconds: float) -> None:
        """Move the wall clock alone, as setting the machine's clock does."""
        self._now += seconds


def _boot_time() -> Callable[[], float] | None:
    """A clock that goes on while the machine sleeps, as `time.monotonic` on Linux does not; None without one."""
    number = getattr(time, "CLOCK_BOOTTIME", None)
    if number is None:
        return None
    clock = partial(time.clock_gettime, number)
    try:
        clock()
    except OSError:
        return None
    return clock
