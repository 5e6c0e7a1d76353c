"""One call's deadline, and what it has learnt on its way: handed along both roads."""

from __future__ import annotations

from dataclasses import dataclass

from jobnimbus_mcp.clock import Clock

__all__ = ["CALL_DEADLINE_S", "Call"]

CALL_DEADLINE_S = 14.0
"""A caller hears from us within 15 s; the second between is for shaping the answer on a busy machine."""


@dataclass(slots=True)
class Call:
    """What one tool call (or one webhook, or one admin request) carries from front door to drivers.

    `deadline` is on the clock's monotonic scale. `store_usable` turns False at the first store time-out, after which
    nothing in this call tries the store again: a frozen Redis costs a call one time-out, not one per command. `spaced`
    turns True when the call has waited for its turn at the origin, which it does once, however many reads it makes.
    `admitted` turns True when the store says that the origin accepted this call's credential lately.
    """

    request_id: str
    started: float
    deadline: float
    tool: str = ""
    store_usable: bool = True
    admitted: bool = False
    spaced: bool = False

    @classmethod
    def begin(cls, clock: Clock, request_id: str, *, tool: str = "", within_s: float = CALL_DEADLINE_S) -> Call:
        now = clock.monotonic()
        return cls(request_id=request_id, started=now, deadline=now + within_s, tool=tool)

    def remaining_s(self, clock: Clock) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - clock.monotonic()
