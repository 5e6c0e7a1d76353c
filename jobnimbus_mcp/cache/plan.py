"""What is done with an entry that was found: served, served and refreshed, served if the origin fails, or not at all.

Expired by time and dirty by event are two things. The first may be served for a while under every promise, labelled;
the second only to who asked for dirty answers, since an acknowledged change says that it is wrong.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from jobnimbus_mcp.cache.codec import Entry
from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    UpstreamCircuitOpen,
    UpstreamRateLimited,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUnreadable,
)

__all__ = [
    "CLOCKS_APART_S",
    "ORIGIN_FAULTS",
    "Course",
    "Found",
    "course",
    "fresh_left_s",
    "origin_failed",
    "served",
    "too_old",
]

CLOCKS_APART_S = 1.0
"""Wall clocks of replicas differ by less: what seems fetched later than now by more was fetched before one was set."""

ORIGIN_FAULTS = (
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUnreadable,
    UpstreamCircuitOpen,
    UpstreamRateLimited,
    BudgetExhausted,
)
"""The origin could not be asked; an answer of a while ago may stand in. A refusal (401, 403) or a "not found" is an
answer, and hides behind none."""


class Course(Enum):
    """What to do with what was found."""

    SERVE = "serve"
    SERVE_AND_REFRESH = "serve and refresh"
    LOAD_OR_SERVE = "load, or serve when the origin fails"
    LOAD = "load"


class Found(NamedTuple):
    """An entry as a READ found it. `fresh_left_s`: negative for as long as its lifetime has been over."""

    entry: Entry
    tier: Tier
    fresh_left_s: float
    least_age_s: float
    dirty: bool = False


def fresh_left_s(entry: Entry, ttl_s: float) -> float:
    """What remains of the entry's lifetime when the store keeps it for `ttl_s` more: no wall clock is needed."""
    return min(entry.fresh_s, entry.fresh_s - entry.kept_s + ttl_s)


def course(found: Found, policy: Policy) -> Course:
    over_s = -found.fresh_left_s
    if over_s < 0 and not found.dirty:
        return Course.SERVE
    if found.entry.negative:
        return Course.LOAD
    if over_s < policy.stale_s or over_s < 0:
        return Course.SERVE_AND_REFRESH
    return Course.LOAD_OR_SERVE if over_s < policy.error_s else Course.LOAD


def too_old(fetched_at: float, max_age_s: float | None, now: float, least_age_s: float = 0.0) -> bool:
    """Is it older than asked for, or of an age that the wall clock, set back since the fetch, cannot tell?

    `least_age_s`: what the lifetime that is over shows of the age, whatever the wall clock did.
    """
    if max_age_s is None:
        return False
    age_s = now - fetched_at
    return max(age_s, least_age_s) > max_age_s or age_s < -CLOCKS_APART_S


def origin_failed(error: BaseException, took_s: float, policy: Policy) -> bool:
    """Does this failure say that the origin had better be left alone for a while?

    A time-out does only when it was given `policy.soft_s`: a call at its end gives up on an origin that is well.
    """
    return isinstance(error, ORIGIN_FAULTS) and not (isinstance(error, UpstreamTimeout) and took_s < policy.soft_s)


def served(found: Found, *, meanwhile: str = "") -> Outcome:
    """The answer made of what was found; `meanwhile` tells a stale one's reader what is being done about it."""
    entry, reason, status = found.entry, None, Status.HIT
    if meanwhile:
        reason = f"{'changed since' if found.dirty else 'past its lifetime'}; {meanwhile}"
        status = Status.STALE
    return Outcome(
        entry.value,
        entry.negative,
        status,
        found.tier,
        entry.fetched_at,
        0.0 if meanwhile else found.fresh_left_s,
        False,
        entry.etag,
        reason,
    )
