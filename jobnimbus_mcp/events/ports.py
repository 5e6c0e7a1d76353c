"""What the intake needs from outside: one atomic step that makes a change durable and its invalidation hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Change

__all__ = ["AppendAndBump", "Appended", "Event"]


@dataclass(frozen=True, slots=True)
class Event:
    """One delivery, understood.

    `event_id`: proposed; a duplicate keeps the first one's. `name`: `job.updated`. `tags`: what the change renews.
    `source`: webhook, write, catch_up. `received_at`: epoch seconds. `dedupe_key`: "" is never a duplicate.
    """

    event_id: str
    instance: str
    name: str
    change: Change
    tags: tuple[str, ...]
    source: str
    received_at: float
    dedupe_key: str


@dataclass(frozen=True, slots=True)
class Appended:
    """`event_id`: the event's, or that of the first delivery when this one is a `duplicate`.

    `journalled`: it is on this machine's disk, to be appended, with its tags renewed, in the background; whether it is
    a duplicate, and after how long it held, shows only then.
    """

    event_id: str
    duplicate: bool
    latency_ms: float
    journalled: bool = False


class AppendAndBump(Protocol):
    """Appends the event and renews its tags, in one step; renews them for a duplicate too, without a second event.

    When it returns, no read that starts later gets older data, unless it says `journalled`.

    Raises:
        CacheUnavailable: neither happened for certain, nor will it.
    """

    async def __call__(self, event: Event, call: Call) -> Appended: ...
