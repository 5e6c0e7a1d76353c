"""How long to wait before trying again: exponential with full jitter, never less than the other side asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["BackoffPolicy", "delay_s", "parse_retry_after"]

_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The first wait is at most `base_s`, each further one at most twice the one before, none more than `cap_s`."""

    base_s: float = 0.25
    cap_s: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError("0 < base_s <= cap_s must hold")


def delay_s(attempt: int, retry_after_s: float | None, random01: float, policy: BackoffPolicy) -> float:
    """Seconds to wait after the failed `attempt` (the first is 1).

    `retry_after_s` is what the other side asked for, None when it did not say; a little jitter comes on top of it, so
    that those who were told the same do not come back together.
    """
    if retry_after_s is not None:
        return retry_after_s + random01 * policy.base_s
    # the exponent is bounded because 2.0 ** 1024 overflows
    return random01 * min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, 60))


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Seconds a `Retry-After` header asks for, at `now` (epoch seconds); None when absent or senseless.

    Both forms of RFC 9110, section 10.2.3: seconds, and an HTTP date (in the past: 0).
    """
    if text is None:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return max(0.0, moment.timestamp() - now)
    except (ValueError, OverflowError):
        return None
