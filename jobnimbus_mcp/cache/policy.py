"""How long an answer may be used, and how large it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """One kind of read's numbers; seconds and bytes.

    `jitter` spreads lifetimes by that share up and down, so that what was filled together does not expire together.
    `max_bytes` bounds the stored value, compressed as it is stored: a larger answer is given and not kept.
    `stale_s`: for so long after its lifetime an entry is served at once, labelled stale, and refreshed meanwhile.
    `error_s`: for so long after its lifetime it is served, labelled, when the origin fails or takes longer than
    `soft_s`. `settle_s`: for so long after a change the origin's lists may lag behind it.

    Raises:
        ValueError: a number that makes no sense.
    """

    fresh_s: float
    negative_s: float = 30
    jitter: float = 0.1
    max_bytes: int = 512 * 1024
    stale_s: float = 0
    error_s: float = 0
    soft_s: float = 2.0
    settle_s: float = 6.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fresh_s) and self.fresh_s > 0):
            raise ValueError("fresh_s must be positive")
        if not (math.isfinite(self.negative_s) and self.negative_s > 0):
            raise ValueError("negative_s must be positive")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter must be at least 0 and below 1")
        if self.max_bytes < 1:
            raise ValueError("max_bytes must be positive")
        for name in ("stale_s", "error_s", "soft_s", "settle_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must not be negative")

    def ttl_s(self, *, negative: bool, random01: float) -> float:
        """The lifetime of one fill; `random01` in 0..1 places it within the jitter. At least a millisecond."""
        base = self.negative_s if negative else self.fresh_s
        return max(0.001, base * (1 + self.jitter * (2 * random01 - 1)))

    def kept_s(self, fresh_s: float, *, negative: bool) -> float:
        """How long an entry is kept that is fresh for `fresh_s`; a negative one is never served stale."""
        return fresh_s if negative else fresh_s + max(self.stale_s, self.error_s)
