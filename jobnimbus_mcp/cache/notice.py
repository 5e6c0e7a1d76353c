"""What is told with an invalidation, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Applied", "Notice"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Why something is invalidated.

    `source`: webhook, write, catch_up or admin. `received_at`: wall seconds. `event_id` is a proposal: a duplicate is
    answered with the first one's. `dedupe_key`: equal keys within 24 h are one event; empty = never a duplicate.
    """

    event: str
    resource: str
    resource_id: str
    source: str
    received_at: float
    event_id: str
    dedupe_key: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """The invalidation holds: no read that starts from now on is answered with older data.

    `latency_ms`: from `received_at` until it held, by the store's clock, never negative. `bumped`: number of tags.
    """

    event_id: str
    duplicate: bool
    latency_ms: float
    bumped: int
