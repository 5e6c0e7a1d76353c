"""Waiting for something that may already have happened, and for fetches that other processes make."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from jobnimbus_mcp.clock import Clock

__all__ = ["Bell", "Waiting", "Wakes"]


class Bell:
    """Rings for one listener, who may also come late: what rang since `silence` is heard at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = False
        self._ear: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._rung = True
        if self._ear is not None and not self._ear.done():
            self._ear.set_result(None)

    def silence(self) -> None:
        self._rung = False

    async def wait(self, within_s: float | None) -> bool:
        """Has it rung, by then at the latest? None: however long it takes."""
        if self._rung or (within_s is not None and within_s <= 0):
            return self._rung
        loop = asyncio.get_running_loop()
        self._ear = loop.create_future()
        sleeper = None
        try:
            if within_s is not None:
                sleeper = loop.create_task(self._sleep(within_s, self._ear))
            await self._ear
        finally:
            self._ear = None
            if sleeper is not None:
                sleeper.cancel()
        return self._rung

    async def _sleep(self, seconds: float, ear: asyncio.Future[None]) -> None:
        await self._clock.sleep(seconds)
        if not ear.done():
            ear.set_result(None)


class Waiting:
    """One follower of one fetch. A wake from before `ended` was called counts: it may have overtaken the answer that
    made the caller a follower."""

    def __init__(self, clock: Clock) -> None:
        self._bell = Bell(clock)
        self._result: str | None = None

    def end(self, result: str) -> None:
        self._result = result
        self._bell.ring()

    async def ended(self, within_s: float) -> str | None:
        """How the fetch ended (stored, unkept or failed); None when it had not by then. Each wake is told once."""
        await self._bell.wait(within_s)
        self._bell.silence()
        result, self._result = self._result, None
        return result


class Wakes:
    """Who waits for which fetch, by tenant and key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[tuple[str, str], set[Waiting]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def waiting(self, tenant: str, key_text: str) -> Iterator[Waiting]:
        """From here on wakes of that key are heard."""
        one, name = Waiting(self._clock), (tenant, key_text)
        together = self._waiting.setdefault(name, set())
        together.add(one)
        try:
            yield one
        finally:
            together.discard(one)
            if not together and self._waiting.get(name) is together:
                del self._waiting[name]

    def tell(self, tenant: str, key_text: str, result: str) -> None:
        for one in self._waiting.get((tenant, key_text), ()):
            one.end(result)
