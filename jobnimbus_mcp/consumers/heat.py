"""Heat: which questions an account's callers ask most, recent ones counting more.

A use loses half its weight every hour. Kept is not the weight, which would have to be lowered all the time, but the
logarithm of what it amounts to at the epoch: `log2(sum of 2^(hour of the use))`. That only ever grows, its order is the
order of the weights, and after years of use it is still a number below a million.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple, Protocol

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.reads import Read

__all__ = ["HALVED_EVERY_S", "KEPT_MOST", "Heat", "HeatByAccount", "Hot", "MemoryHeat", "score_with", "uses_at"]

HALVED_EVERY_S = 3600.0
"""What was asked all morning is still worth something after lunch, and nothing the next day."""

KEPT_MOST = 500
"""Questions kept of an account. Up to twice as many are between two prunings, so that a new one has time to be asked
again before it is compared with those that were asked for long."""

_EXPONENT_MOST = 60.0
"""A clock that was set back makes scores look like uses to come; they are many, and still a number."""


class Hot(NamedTuple):
    """A question and how often it was asked, decayed."""

    read: Read
    uses: float


class Heat(Protocol):
    """Counts questions by account, over every process that shares the store."""

    def note(self, instance: str, read: Read) -> None:
        """It was asked once more. Never waits, never fails."""
        ...

    async def hottest(self, instance: str, *, most: int = KEPT_MOST, at_least: float = 0.0) -> Sequence[Hot]:
        """The most used first, those with `at_least` so many uses.

        Raises:
            CacheUnavailable: it could not be asked.
        """
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """While it is open, what was noted is shared now and then, and once more at the end."""
        ...


def score_with(score: float | None, uses: float, now: float) -> float:
    """The score after `uses` more (above 0) at `now`, epoch seconds; None: there were none before."""
    added = now / HALVED_EVERY_S + math.log2(uses)
    if score is None:
        return added
    high, low = max(score, added), min(score, added)
    return high + math.log2(1.0 + 2.0 ** (low - high))


def uses_at(score: float, now: float) -> float:
    """How many uses a score stands for at `now`, epoch seconds."""
    return float(2.0 ** min(score - now / HALVED_EVERY_S, _EXPONENT_MOST))


class MemoryHeat:
    """Heat of one process, for the embedded store."""

    def __init__(self, clock: Clock, *, kept_most: int = KEPT_MOST) -> None:
        self._clock = clock
        self._kept_most = kept_most
        self._scores: dict[str, dict[Read, float]] = {}

    def note(self, instance: str, read: Read) -> None:
        scores = self._scores.setdefault(instance, {})
        scores[read] = score_with(scores.get(read), 1, self._clock.now())
        if len(scores) > 2 * self._kept_most:
            kept = sorted(scores.items(), key=lambda one: one[1], reverse=True)[: self._kept_most]
            self._scores[instance] = dict(kept)

    async def hottest(self, instance: str, *, most: int = KEPT_MOST, at_least: float = 0.0) -> Sequence[Hot]:
        now = self._clock.now()
        found = [Hot(read, uses_at(score, now)) for read, score in self._scores.get(instance, {}).items()]
        found = sorted((hot for hot in found if hot.uses >= at_least), key=lambda hot: hot.uses, reverse=True)
        return found[: min(most, self._kept_most)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield


class HeatByAccount:
    """The heat of accounts whose stores are different ones, as one; `heats`: account -> its own or a shared one."""

    def __init__(self, heats: Mapping[str, Heat]) -> None:
        self._heats = dict(heats)

    def note(self, instance: str, read: Read) -> None:
        self._heats[instance].note(instance, read)

    async def hottest(self, instance: str, *, most: int = KEPT_MOST, at_least: float = 0.0) -> Sequence[Hot]:
        return await self._heats[instance].hottest(instance, most=most, at_least=at_least)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for heat in dict.fromkeys(self._heats.values()):
                await stack.enter_async_context(heat.running())
            yield
