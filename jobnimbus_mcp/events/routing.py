"""Which consumers an event is for, and when it is due for each."""

from __future__ import annotations

from collections.abc import Sequence

from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import Consumer, Routes

__all__ = ["routes_of"]


def routes_of(event: Event, consumers: Sequence[Consumer]) -> Routes:
    """Consumer -> when the event is due for it, epoch seconds; those it is nothing to are missing."""
    return {
        consumer.name: event.received_at + delay
        for consumer in consumers
        if (delay := consumer.delay_s(event)) is not None
    }
