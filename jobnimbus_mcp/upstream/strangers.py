"""What credentials that JobNimbus has not accepted yet may take: so little that accepted callers never wait for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import BudgetExhausted
from jobnimbus_mcp.resilience.budget import Bucket

__all__ = ["STRANGERS_BURST", "STRANGERS_WAIT_MAX_S", "Strangers"]

STRANGERS_BURST = 8.0
"""A question asked with a new key makes up to three requests at once: two such callers pass together."""

STRANGERS_SHARE = 0.25
"""Of the account's requests per second; a good key is a stranger once, so few of them are needed."""

STRANGERS_WAIT_MAX_S = 1.0
"""Longest wait for a stranger's token; the shared budget may add its own wait."""

_PACE = 0.5
"""Of the account's requests per second: how fast a burst of strangers goes on to the shared budget."""


class Strangers:
    """Limits of strangers, per account and within this process; they come on top of those for everybody.

    `rate_per_s` and `max_concurrent` are the account's own, 0 is no limit. Two buckets: one has a quarter of the rate;
    the other lets a burst go on so slowly that the shared budget always keeps a token for the others, unless it
    holds no more than one.
    """

    def __init__(self, rate_per_s: float, max_concurrent: int, instances: Iterable[str], clock: Clock) -> None:
        instances = tuple(instances)
        shared = Bucket.per_second(rate_per_s)
        admitting = Bucket(rate_per_s * STRANGERS_SHARE, burst=STRANGERS_BURST)
        pacing = Bucket(rate_per_s * _PACE, burst=max(1.0, shared.burst - 1))
        self._buckets = dict.fromkeys(instances, (admitting, pacing))
        self._slots: dict[str, AbstractAsyncContextManager[Any]] = {
            instance: asyncio.Semaphore(max(1, max_concurrent // 2)) if max_concurrent else nullcontext()
            for instance in instances
        }
        self._clock = clock

    async def admit(self, instance: str, call: Call) -> float:
        """Return when one request of a stranger may ask the shared budget: the seconds waited for that.

        Raises:
            BudgetExhausted: it would take over a second, or longer than the call has; at once, and nothing was taken.
        """
        now = self._clock.monotonic()
        admitting, pacing = self._buckets[instance]
        admitting, own_wait_s = admitting.take(now)
        pacing, pace_wait_s = pacing.take(now)
        wait_s = max(own_wait_s, pace_wait_s)
        if wait_s > max(0.0, min(STRANGERS_WAIT_MAX_S, call.remaining_s(self._clock))):
            raise BudgetExhausted(
                "Too many keys that JobNimbus has not accepted yet are in use here; try again later.",
                retry_after_s=float(math.ceil(wait_s)),
            )
        self._buckets[instance] = admitting, pacing
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        return wait_s

    def slot(self, instance: str) -> AbstractAsyncContextManager[Any]:
        """Held while a stranger's request is under way: at most half of the account's slots, and at least one."""
        return self._slots[instance]
