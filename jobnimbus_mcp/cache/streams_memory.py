"""The log and the wakes in this process, and who listens to them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from jobnimbus_mcp.cache.ports import LOG_LENGTH, START, WAKES_LENGTH, Ears, Heard, Logged, LogRow, Wake, order
from jobnimbus_mcp.clock import Clock

__all__ = ["Streams"]

T = TypeVar("T")


class _Line(NamedTuple):
    told: Logged
    shown: LogRow | None


class Streams:
    """Both streams of every tenant. A position never comes twice, also after `clear`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logs: dict[str, deque[_Line]] = {}
        self._wakes: dict[str, deque[Wake]] = {}
        self._listeners: set[asyncio.Future[None]] = set()
        self._last = (0, 0)

    def append(self, tenant: str, tags: Sequence[str], shown: LogRow | None = None) -> str:
        """One line more; its position."""
        lines = self._logs.setdefault(tenant, deque(maxlen=LOG_LENGTH))
        told = Logged(self._next(), lines[-1].told.position if lines else START, tuple(tags))
        lines.append(_Line(told, shown))
        self.stir()
        return told.position

    def wake(self, tenant: str, key_text: str, result: str) -> None:
        self._wakes.setdefault(tenant, deque(maxlen=WAKES_LENGTH)).append(Wake(self._next(), key_text, result))
        self.stir()

    def last(self, tenant: str) -> str:
        """The position of the log's last line."""
        lines = self._logs.get(tenant)
        return lines[-1].told.position if lines else START

    def last_before(self, tenant: str, at_ms: int) -> str:
        """The position of the last line from before that moment."""
        before = START
        for line in reversed(self._logs.get(tenant, ())):
            if order(line.told.position) < (at_ms, 0):
                return line.told.position
            before = line.told.previous
        return before

    def changes(self, tenant: str, after: str, most: int) -> list[Logged]:
        lines = (line.told for line in reversed(self._logs.get(tenant, ())))
        return _after(lines, after, lambda told: told.position)[:most]

    def shown(self, tenant: str) -> Iterator[LogRow]:
        """The lines for people, newest first."""
        return (line.shown for line in reversed(self._logs.get(tenant, ())) if line.shown is not None)

    def heard(self, ears: Mapping[str, Ears], most: int) -> dict[str, Heard]:
        """What there is after these positions; nothing of a tenant of whom there is nothing."""
        found = {}
        for tenant, ear in ears.items():
            changes = () if ear.log is None else tuple(self.changes(tenant, ear.log, most))
            wakes = _after(reversed(self._wakes.get(tenant, ())), ear.wakes, lambda wake: wake.position)[:most]
            if changes or wakes:
                found[tenant] = Heard(changes, tuple(wakes))
        return found

    async def stirred(self, block_s: float) -> bool:
        """Wait until something is appended anywhere; False: `block_s` passed first."""
        listener: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listeners.add(listener)
        sleeper = asyncio.ensure_future(self._clock.sleep(block_s))
        try:
            await asyncio.wait((listener, sleeper), return_when=asyncio.FIRST_COMPLETED)
            return listener.done()
        finally:
            self._listeners.discard(listener)
            sleeper.cancel()

    def stir(self) -> None:
        """Let all who listen look again."""
        for listener in self._listeners:
            if not listener.done():
                listener.set_result(None)

    def clear(self) -> None:
        """Lose all of it. Nobody is woken by that."""
        self._logs.clear()
        self._wakes.clear()

    def _next(self) -> str:
        milliseconds, sequence = self._last
        now = int(self._clock.now() * 1000)
        self._last = (now, 0) if now > milliseconds else (milliseconds, sequence + 1)
        return f"{self._last[0]}-{self._last[1]}"


def _after(newest_first: Iterator[T], after: str, position: Callable[[T], str]) -> list[T]:
    bound, found = order(after), []
    for line in newest_first:
        if order(position(line)) <= bound:
            break
        found.append(line)
    return found[::-1]
