"""The request budget of one process: a token bucket per account."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import BudgetExhausted
from jobnimbus_mcp.resilience.budget import Bucket

__all__ = ["BUDGET_WAIT_MAX_S", "LocalBudget", "exhausted", "longest_wait_s"]

BUDGET_WAIT_MAX_S = 5.0
"""Longest wait for a token: a third of a call's time. Longer, and calls would fail late what they can fail at once."""


class LocalBudget:
    """Implements `RequestBudget` within this process. `rate_per_s` 0 is no limit."""

    def __init__(self, rate_per_s: float, instances: Iterable[str], clock: Clock) -> None:
        self._rate_per_s = rate_per_s
        self._clock = clock
        self._buckets = {instance: Bucket.per_second(rate_per_s) for instance in instances}

    @property
    def rate_per_s(self) -> float:
        return self._rate_per_s

    async def take(self, instance: str, call: Call) -> float:
        bucket, wait_s = self._buckets[instance].take(self._clock.monotonic())
        if wait_s > longest_wait_s(call, self._clock):
            raise exhausted(wait_s)
        self._buckets[instance] = bucket
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        return wait_s

    def share_left(self, instance: str) -> float:
        return self._buckets[instance].share_left(self._clock.monotonic())


def longest_wait_s(call: Call, clock: Clock) -> float:
    """How long `call` may wait for a token."""
    return max(0.0, min(BUDGET_WAIT_MAX_S, call.remaining_s(clock)))


def exhausted(wait_s: float) -> BudgetExhausted:
    """The error for a token that is `wait_s` away."""
    return BudgetExhausted(
        "This server's own request budget for JobNimbus is used up for the moment; try again later.",
        retry_after_s=float(math.ceil(wait_s)),
    )
