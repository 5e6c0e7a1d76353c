"""The world of the log in memory: one process, whose log is the data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from events_world import VOLATILE

from jobnimbus_mcp.clock import Clock, SystemClock
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.ports import EventLog

__all__ = ["MemoryWorld", "world"]


class MemoryWorld:
    """`log` gives the same log each time: there is no other process that could have another."""

    limits: frozenset[str] = frozenset({VOLATILE})

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self.instance = "acme"
        self._log = MemoryEvents(self.clock, token="memory")

    async def log(self, *, claim_idle_s: float = 30.0) -> EventLog:
        return self._log

    async def crash(self, log: EventLog) -> None:
        raise AssertionError("nothing of this log outlives its process")


@asynccontextmanager
async def world(request: pytest.FixtureRequest | None = None) -> AsyncIterator[MemoryWorld]:
    made = MemoryWorld()
    yield made
    await (await made.log()).aclose()
