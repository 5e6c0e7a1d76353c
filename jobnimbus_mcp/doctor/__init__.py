"""doctor: what is set, what answers, what is off and why; each finding one line that says what to change."""

from jobnimbus_mcp.doctor.examine import examine
from jobnimbus_mcp.doctor.facts import (
    BackgroundFacts,
    EventFacts,
    EventsAway,
    Finding,
    IssuerAway,
    Level,
    Probes,
    StoreAway,
    StoreFacts,
    is_loopback,
    worst,
)

__all__ = [
    "BackgroundFacts",
    "EventFacts",
    "EventsAway",
    "Finding",
    "IssuerAway",
    "Level",
    "Probes",
    "StoreAway",
    "StoreFacts",
    "examine",
    "is_loopback",
    "worst",
]
