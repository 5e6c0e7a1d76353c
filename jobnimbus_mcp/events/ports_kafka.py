"""What the log in Kafka needs beside Kafka, which keeps messages and how far each group is, and nothing of an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import EventPage, EventQuery, Lag, Rates, Routes, Settled, Traced

__all__ = ["Claim", "Claimed", "KafkaTrace", "Opened"]


class Opened(IntEnum):
    """Whether the trace knew the event: not at all; yes, but no broker has confirmed it; yes, and it is in Kafka."""

    NEW = 0
    UNSHIPPED = 1
    SHIPPED = 2


class Claim(IntEnum):
    """Whether an event may be worked on: yes; no, it is done, given up or not for this consumer; another process has
    it; its time has not come; the trace does not know it and has not forgotten it in the ordinary way."""

    OURS = 0
    OVER = 1
    HELD = 2
    EARLY = 3
    UNKNOWN = 4


class Claimed(NamedTuple):
    """`attempts`: tries before this one. `due_at`: since or from when it is due, epoch seconds. `held_s`: with HELD,
    how long it is another's at most."""

    claim: Claim
    attempts: int = 0
    due_at: float = 0.0
    held_s: float = 0.0


class KafkaTrace(Protocol):
    """What became of each event for each consumer. Every method may raise `EventsUnavailable`, and is bounded in time.

    A process works on an event only while it holds it: so no rebalance, and no pause of a process, makes two work on
    one, or makes a later event of a record overtake one that is being worked on.
    """

    async def begin(self, event: Event, routes: Routes) -> Opened:
        """Know the event from now on, as not yet confirmed by a broker."""
        ...

    async def shipped(self, instance: str, event_id: str) -> None:
        """A broker has confirmed the event."""
        ...

    async def adopt(self, event: Event, consumer: str, due_at: float) -> None:
        """Know an event of the topic which is UNKNOWN, for this consumer alone: others may be done with it."""
        ...

    async def register(self, consumers: Sequence[str]) -> None:
        """These consumers exist, in every account."""
        ...

    async def claim(
        self, instance: str, consumer: str, event_ids: Sequence[str], *, holder: str, hold_s: float
    ) -> Sequence[Claimed]:
        """One answer for each event, in their order. What is OURS is nobody else's for `hold_s`."""
        ...

    async def release(self, instance: str, consumer: str, event_ids: Sequence[str], *, holder: str) -> None:
        """Give up what the holder still holds of these."""
        ...

    async def note(self, instance: str, consumer: str, results: Sequence[Settled], *, holder: str) -> None:
        """Note what came of them and release them; those that the holder does not hold any more are passed over."""
        ...

    async def revive(self, instance: str, event_id: str, consumer: str | None) -> tuple[Event, tuple[str, ...]] | None:
        """The event's dead letters are due again and not yet shipped: the event, and for which consumers. Also those
        that were revived before and never shipped. None when it has none."""
        ...

    async def show(self, instance: str, event_id: str) -> Traced | None: ...

    async def find(self, instance: str, query: EventQuery) -> EventPage: ...

    async def lag(self, instance: str) -> Mapping[str, Lag]: ...

    async def rates(self, instance: str) -> Mapping[str, Rates]: ...

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, Mapping[str, bool]]: ...

    async def reject(self, event: Event, reason: str) -> None: ...

    async def clean(self, *, archived_before: float, dead_before: float) -> int: ...

    async def retire(self, consumers: Sequence[str]) -> int: ...

    async def ping(self) -> None: ...
