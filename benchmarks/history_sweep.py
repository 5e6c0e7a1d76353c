"""The checker: what each read owed when it began, by what had been acknowledged then. Online, in bounded memory.

Versions of a register are written by one writer and acknowledged in their order, so the highest acknowledged before a
read began is what it owes. All times are of one monotonic clock.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Read", "Sweep", "Violation"]

REMEMBERED_S = 120.0
"""Longer than any read takes, frozen processes included: what was acknowledged before is owed by everybody."""


class Read(NamedTuple):
    """`slack_s`: how much later than acknowledged a version may be owed (bounded). `labelled`: it may be older, since
    it said that it is stale (any)."""

    started: float
    register: int
    version: int
    slack_s: float = 0.0
    labelled: bool = False
    by: str = ""


@dataclass(frozen=True)
class Violation:
    read: Read
    owed: int
    acknowledged_at: float


class Sweep:
    """Reads wait until every source has told all it acknowledged before they began (`told_until`), then are checked."""

    def __init__(self) -> None:
        self._times: dict[int, list[float]] = {}
        self._versions: dict[int, list[int]] = {}
        self._waiting: deque[Read] = deque()
        self._until: dict[str, float] = {}
        self.checked = 0
        self.acknowledged = 0
        self.violations: list[Violation] = []

    def acknowledge(self, register: int, at: float, version: int) -> None:
        times = self._times.setdefault(register, [])
        versions = self._versions.setdefault(register, [])
        if versions and (version <= versions[-1] or at < times[-1]):
            raise ValueError("a register's versions are acknowledged in their order")
        times.append(at)
        versions.append(version)
        self.acknowledged += 1
        if len(times) > 64 and times[len(times) // 2] < at - REMEMBERED_S:
            del times[: len(times) // 2]
            del versions[: len(versions) // 2]

    def observe(self, reads: Iterable[Read]) -> None:
        self._waiting.extend(reads)

    def told_until(self, source: str, at: float) -> None:
        """`source` has handed over all that it acknowledged before `at`."""
        self._until[source] = at

    def ended(self, source: str) -> None:
        """It acknowledges nothing any more."""
        self._until.pop(source, None)

    def check(self) -> None:
        """Check what can be."""
        until = min(self._until.values(), default=float("inf"))
        for _ in range(len(self._waiting)):
            read = self._waiting.popleft()
            if read.started - read.slack_s > until:
                self._waiting.append(read)
            else:
                self._check(read)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _check(self, read: Read) -> None:
        self.checked += 1
        times = self._times.get(read.register, ())
        position = bisect.bisect_left(times, read.started - read.slack_s)
        if position and not read.labelled:
            owed = self._versions[read.register][position - 1]
            if read.version < owed:
                self.violations.append(Violation(read, owed, times[position - 1]))
