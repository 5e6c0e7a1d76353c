"""A circuit breaker as a value with one `step`, and the box a driver keeps it in.

    state      ASKED                      SUCCEEDED   FAILED                        REFUSED   ABANDONED
    CLOSED     admitted                   counted     counted; OPEN when too many   OPEN      nothing
    OPEN       refused until `open_s`     nothing     nothing                       nothing   nothing
               is over, then: HALF_OPEN
    HALF_OPEN  admitted, one at a time    CLOSED      OPEN                          OPEN      the probe's place is free

MOVED ends the time of OPEN; in the others it forgets what was counted, and what is still under way.

A result counts for the state it was asked in: a call admitted before the breaker opened neither closes nor reopens it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from jobnimbus_mcp.clock import Clock

__all__ = ["Breaker", "BreakerBox", "BreakerPolicy", "Event", "State"]

_BUCKETS = 10
"""Parts of the window: the share of failures is exact to a tenth of `window_s`, in constant memory."""


class State(StrEnum):
    """As `/cache/health` and the metrics spell it."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class Event(StrEnum):
    """What can happen to a breaker."""

    ASKED = "asked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    """It answered, and will refuse whatever else it is asked: no point in counting."""
    ABANDONED = "abandoned"
    MOVED = "moved"
    """What was away is to be found elsewhere now: it may be asked again at once."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open, and for how long.

    It opens at `failures` failures within `window_s` (0: this rule is off), or when of at least `min_calls` calls
    within `window_s` more than the share `failure_share` failed (`min_calls` 0: this rule is off).
    """

    window_s: float
    open_s: float
    failures: int = 0
    min_calls: int = 0
    failure_share: float = 0.0

    def __post_init__(self) -> None:
        if self.window_s <= 0 or self.open_s <= 0:
            raise ValueError("window_s and open_s must be positive")
        if self.failures < 0 or self.min_calls < 0 or not 0 <= self.failure_share < 1:
            raise ValueError("failures and min_calls must not be negative, failure_share must be in [0, 1)")
        if not self.failures and not self.min_calls:
            raise ValueError("a breaker needs a rule: failures or min_calls")


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Results of one tenth of the window; `number` counts the tenths since the clock's zero."""

    number: int
    succeeded: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What a breaker knows. `since`: when it entered `state`; `probe_since`: when the probe under way was admitted."""

    state: State = State.CLOSED
    since: float = float("-inf")
    probe_since: float | None = None
    failed_at: tuple[float, ...] = ()
    buckets: tuple[_Bucket, ...] = ()

    def state_at(self, now: float, policy: BreakerPolicy) -> State:
        """The state, where OPEN whose time is over is HALF_OPEN."""
        if self.state is State.OPEN and now >= self.since + policy.open_s:
            return State.HALF_OPEN
        return self.state

    def admits(self, now: float, policy: BreakerPolicy) -> bool:
        """Whether a call asked for now may go."""
        match self.state_at(now, policy):
            case State.CLOSED:
                return True
            case State.HALF_OPEN:
                # a probe whose caller was lost must not keep the way shut for ever
                return self.probe_since is None or now >= self.probe_since + policy.open_s
            case _:
                return False

    def retry_in_s(self, now: float, policy: BreakerPolicy) -> float:
        """Seconds until a call may be admitted; 0 when it may now."""
        if self.admits(now, policy):
            return 0.0
        begun = self.since if self.probe_since is None else self.probe_since
        return max(0.0, begun + policy.open_s - now)

    def step(self, event: Event, now: float, policy: BreakerPolicy, *, began: float | None = None) -> Breaker:
        """The breaker after `event`.

        `began`: when the reported call was admitted; None where calls are much shorter than `open_s`, so that no
        result can come later than the state it was asked in. Of ASKED the caller must ask `admits` before.
        """
        if event is Event.ASKED:
            if self.state_at(now, policy) is State.HALF_OPEN and self.admits(now, policy):
                since = now if self.state is State.OPEN else self.since
                return Breaker(State.HALF_OPEN, since=since, probe_since=now)
            return self
        if event is Event.MOVED:
            return Breaker(self.state, since=now - policy.open_s if self.state is State.OPEN else now)
        if self.state is State.HALF_OPEN:
            return self._probed(event, now, began)
        if self.state is State.OPEN or event is Event.ABANDONED or (began is not None and began < self.since):
            return self
        if event is Event.REFUSED:
            return Breaker(State.OPEN, since=now)
        return self._counted(event is Event.FAILED, now, policy)

    def _probed(self, event: Event, now: float, began: float | None) -> Breaker:
        if self.probe_since is None or (began is not None and began < self.probe_since):
            return self
        if event is Event.SUCCEEDED:
            return Breaker(State.CLOSED, since=now)
        if event in (Event.FAILED, Event.REFUSED):
            return Breaker(State.OPEN, since=now)
        return replace(self, probe_since=None)

    def _counted(self, failed: bool, now: float, policy: BreakerPolicy) -> Breaker:
        failed_at, buckets = self.failed_at, self.buckets
        if policy.failures and failed:
            failed_at = (*failed_at, now)[-policy.failures :]
            if len(failed_at) == policy.failures and failed_at[0] > now - policy.window_s:
                return Breaker(State.OPEN, since=now)
        if policy.min_calls:
            buckets = _add(buckets, failed, int(now // (policy.window_s / _BUCKETS)))
            failures = sum(bucket.failed for bucket in buckets)
            calls = failures + sum(bucket.succeeded for bucket in buckets)
            if failed and calls >= policy.min_calls and failures > policy.failure_share * calls:
                return Breaker(State.OPEN, since=now)
        if failed_at is self.failed_at and buckets is self.buckets:
            return self
        return replace(self, failed_at=failed_at, buckets=buckets)


def _add(buckets: tuple[_Bucket, ...], failed: bool, number: int) -> tuple[_Bucket, ...]:
    kept = tuple(bucket for bucket in buckets if number - _BUCKETS < bucket.number <= number)
    last = kept[-1] if kept and kept[-1].number == number else _Bucket(number)
    grown = replace(last, succeeded=last.succeeded + (not failed), failed=last.failed + failed)
    return (*(kept[:-1] if kept and kept[-1].number == number else kept), grown)


class BreakerBox:
    """Holds the current `Breaker` of one foreign thing; for one event loop, not for threads.

    Whoever is admitted reports exactly once: `succeeded`, `failed`, `refused` or `abandoned`. `on_change` hears of
    every new state; OPEN turns HALF_OPEN for it when the first probe goes.
    """

    def __init__(self, policy: BreakerPolicy, clock: Clock, on_change: Callable[[State], None] | None = None) -> None:
        self._policy = policy
        self._clock = clock
        self._on_change = on_change
        self._breaker = Breaker()

    def admit(self) -> bool:
        """Whether this call may go. While HALF_OPEN only one goes at a time: the probe."""
        now = self._clock.monotonic()
        if not self._breaker.admits(now, self._policy):
            return False
        self._step(Event.ASKED, now)
        return True

    def succeeded(self, began: float | None = None) -> None:
        """An admitted call was answered. `began`: monotonic time of its admission, where calls may outlive `open_s`."""
        self._step(Event.SUCCEEDED, self._clock.monotonic(), began)

    def failed(self, began: float | None = None) -> None:
        """An admitted call failed."""
        self._step(Event.FAILED, self._clock.monotonic(), began)

    def refused(self, began: float | None = None) -> None:
        """An admitted call was answered in such a way that the next would fail too."""
        self._step(Event.REFUSED, self._clock.monotonic(), began)

    def abandoned(self, began: float | None = None) -> None:
        """An admitted call was cancelled or says nothing: counts nothing, and frees the probe's place."""
        self._step(Event.ABANDONED, self._clock.monotonic(), began)

    def moved(self) -> None:
        """Where it opened does not matter any more: a probe may go at once."""
        self._step(Event.MOVED, self._clock.monotonic())

    @property
    def state(self) -> State:
        """The state now; OPEN whose time is over is HALF_OPEN."""
        return self._breaker.state_at(self._clock.monotonic(), self._policy)

    @property
    def retry_in_s(self) -> float:
        """Seconds until a call may be admitted; 0 when it may now."""
        return self._breaker.retry_in_s(self._clock.monotonic(), self._policy)

    def _step(self, event: Event, now: float, began: float | None = None) -> None:
        before = self._breaker.state
        self._breaker = self._breaker.step(event, now, self._policy, began=began)
        if self._on_change is not None and self._breaker.state is not before:
            self._on_change(self._breaker.state)
