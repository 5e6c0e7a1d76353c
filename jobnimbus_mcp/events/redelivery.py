"""What follows a try: done, again after a while, or given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from jobnimbus_mcp.events.ports import Outcome

__all__ = ["AFTER_S", "JITTER", "Dead", "Done", "NextStep", "Retry", "next_step"]

AFTER_S = (2.0, 4.0, 8.0)
"""Seconds before the second, third and fourth try. The fourth that fails is the last, but for what is away: that is
tried at the last pace until it is back."""

JITTER = 0.2
"""Waits differ by up to this part of them, so that what failed together is not tried again together."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Once more, `after_s` from now."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Dead:
    """A person has to look at it. `reason`: the error of the last try."""

    reason: str


NextStep: TypeAlias = Done | Retry | Dead


def next_step(outcome: Outcome, attempts: int, random01: float) -> NextStep:
    """`attempts`: tries before the one this is the outcome of. `random01`: evenly between 0 and 1."""
    if outcome.ok:
        return Done()
    if not outcome.away and (not outcome.retry or attempts >= len(AFTER_S)):
        return Dead(outcome.error)
    return Retry(AFTER_S[min(attempts, len(AFTER_S) - 1)] * (1.0 + JITTER * (2.0 * random01 - 1.0)))
