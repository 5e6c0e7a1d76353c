"""A token bucket as a value, by the generic cell rate algorithm: one number instead of tokens and a refill time."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Bucket"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """`rate_per_s` tokens come each second and at most `burst` are kept; rate 0 means no limit.

    `next_at` is when the bucket would be full again if nothing more were taken (the algorithm's theoretical arrival
    time); within any T seconds at most `burst + rate_per_s * T` tokens are spent.
    """

    rate_per_s: float
    burst: float = 1.0
    next_at: float = float("-inf")

    def __post_init__(self) -> None:
        if self.rate_per_s < 0 or self.burst < 1:
            raise ValueError("rate_per_s must not be negative, burst must be at least 1")

    @classmethod
    def per_second(cls, rate_per_s: float) -> Bucket:
        """A bucket of half a second's tokens: one question's requests go at once, and no second sees more than one
        and a half times the rate. Twice the burst would double the rate in the first second, none would put a pause
        between the pages of one list."""
        return cls(rate_per_s, burst=max(1.0, rate_per_s / 2))

    def take(self, now: float) -> tuple[Bucket, float]:
        """The bucket after taking one token, and the seconds to wait until it may be spent (0: now).

        Who will not wait that long keeps the old bucket, and nothing was taken.
        """
        if self.rate_per_s == 0:
            return self, 0.0
        interval_s = 1 / self.rate_per_s
        starts = max(now, self.next_at)
        wait_s = max(0.0, starts - now - (self.burst - 1) * interval_s)
        return replace(self, next_at=starts + interval_s), wait_s

    def share_left(self, now: float) -> float:
        """How much of the burst is left, 0 to 1; without a limit always 1."""
        spent = max(0.0, self.next_at - now) * self.rate_per_s
        return max(0.0, 1 - spent / self.burst)
