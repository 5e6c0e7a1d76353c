"""How many requests a caller may make: a token bucket for each, filled by the minute, a minute's worth deep."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.resilience.budget import Bucket

__all__ = ["CALLERS_MOST", "Allowance", "CallerRate", "LocalCallerRate", "bucket_of"]

CALLERS_MOST = 10_000
"""Buckets of one process, two megabytes. Of more callers the one unseen longest is forgotten: its bucket is full."""

_MINUTE_S = 60.0
_ROUNDING_S = 1e-6
"""Sums of many intervals are not exact, and a wait of this length is none."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What became of one request. `limit`: per minute; `remaining`: how many more may be made at once; `reset_s`: until
    as many as `limit` may; `wait_s`: until the next may, 0 when this one was granted."""

    granted: bool
    limit: int
    remaining: int
    reset_s: float
    wait_s: float

    @classmethod
    def of(cls, per_minute: int, *, granted: bool, wait_s: float, full_s: float) -> Allowance:
        """`wait_s`: until a token is there; `full_s`: until the bucket is full, after this request."""
        left = per_minute - (full_s - _ROUNDING_S) * per_minute / _MINUTE_S
        return cls(granted, per_minute, max(0, min(per_minute, math.floor(left))), full_s, 0.0 if granted else wait_s)


class CallerRate(Protocol):
    """Counts the requests of callers."""

    async def spend(self, who: str, per_minute: int) -> Allowance:
        """Count one request of this caller, who may make `per_minute` of them; one that is refused counts nothing.

        `per_minute`: 1 or more. All of a minute's may be made at once, for agents ask in bursts; from then on one every
        60 / `per_minute` seconds. Within any T minutes at most (T + 1) times `per_minute` are granted.
        """
        ...


def bucket_of(per_minute: int) -> Bucket:
    """A caller's bucket, full."""
    return Bucket(per_minute / _MINUTE_S, burst=float(per_minute))


class LocalCallerRate:
    """Implements `CallerRate` within this process, in bounded memory."""

    def __init__(self, clock: Clock, *, callers_most: int = CALLERS_MOST) -> None:
        self._clock = clock
        self._callers_most = callers_most
        self._buckets: OrderedDict[tuple[str, int], Bucket] = OrderedDict()

    async def spend(self, who: str, per_minute: int) -> Allowance:
        now, key = self._clock.monotonic(), (who, per_minute)
        before = self._buckets.pop(key, None) or bucket_of(per_minute)
        after, wait_s = before.take(now)
        granted = wait_s <= _ROUNDING_S
        kept = after if granted else before
        self._buckets[key] = kept
        if len(self._buckets) > self._callers_most:
            self._buckets.popitem(last=False)
        return Allowance.of(per_minute, granted=granted, wait_s=wait_s, full_s=max(0.0, kept.next_at - now))
