"""How long an origin that failed is left alone by readers who have something to serve."""

from __future__ import annotations

from typing import NamedTuple

from jobnimbus_mcp.cache.lru import Bounded

__all__ = ["THROTTLE_LONGEST_S", "THROTTLE_S", "Throttle", "throttle_s"]

THROTTLE_S = 30.0
"""After a first failure. Ten times shorter, and an origin that is down is asked by every stale read's refresh; ten
times longer, and stale answers go on for minutes after it is back."""

THROTTLE_LONGEST_S = 300.0

_REMEMBERED = 4096


def throttle_s(failures: int) -> float:
    """The pause after so many failures in a row, at least one."""
    return min(THROTTLE_LONGEST_S, THROTTLE_S * 2.0 ** min(max(failures, 1) - 1, 10))


class _Pause(NamedTuple):
    failures: int
    until: float
    slow: bool = False


class Throttle:
    """This process's own memory of failures by key, in monotonic seconds: beside the one that all share in the store,
    it spares a round trip, and it counts while the store is away."""

    def __init__(self) -> None:
        self._pauses: Bounded[str, _Pause] = Bounded(_REMEMBERED)

    def holds(self, key_text: str, now: float) -> bool:
        """Must whoever has something to serve leave the origin alone?"""
        pause = self._pauses.get(key_text)
        return pause is not None and now < pause.until

    def slow(self, key_text: str) -> bool:
        """Is it only that the origin had not answered yet?"""
        pause = self._pauses.get(key_text)
        return pause is not None and pause.slow

    def failed(self, key_text: str, now: float) -> None:
        """A fetch failed. One made while others are to leave the origin alone makes their pause no longer: else whoever
        insists in a short outage would have them wait for minutes after it."""
        pause = self._pauses.get(key_text)
        if pause is None:
            failures = 1
        elif now < pause.until and not pause.slow:
            failures = max(1, pause.failures)
        else:
            failures = pause.failures + 1
        self._pauses.put(key_text, _Pause(failures, now + throttle_s(failures)))

    def told(self, key_text: str, until: float, *, slow: bool = False) -> None:
        """Another process's fetch failed, and the store says until when to wait; or, `slow`, one has not answered."""
        pause = self._pauses.get(key_text)
        self._pauses.put(key_text, _Pause(0 if pause is None else pause.failures, until, slow))

    def worked(self, key_text: str) -> None:
        self._pauses.discard(key_text)
