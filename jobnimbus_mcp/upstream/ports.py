"""What asking JobNimbus needs from outside: somebody who sends, and somebody who minds the request budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.upstream.request import Request

__all__ = ["RawAnswer", "RequestBudget", "Sender"]


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One HTTP answer. Header names are lower case; the body, decompressed, stays out of every repr. A `location` is
    absolute. `too_large`: the body's size, as far as it is known, when it exceeds the request's `bytes_max`; then the
    body is empty."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    too_large: int | None = None


class Sender(Protocol):
    """Sends one request to JobNimbus and gives back whatever comes, whatever the status."""

    async def send(self, request: Request, credential: str, timeout_s: float) -> RawAnswer:
        """The answer, within `timeout_s`; redirects are not followed; cancelling it gives up its connection.

        `credential` goes to JobNimbus's own services, never to a place that a `url` names.

        Raises:
            UpstreamTimeout: no whole answer in time.
            UpstreamUnreachable: no connection, or it broke before an answer began.
            UpstreamUnreadable: the answer was cut short, or larger than anything JobNimbus sends.
            FeatureDisabled: the `url` is at a host that files may not be at; nothing was sent.
        """
        ...


class RequestBudget(Protocol):
    """Requests per second that one account's JobNimbus may be sent."""

    @property
    def rate_per_s(self) -> float:
        """How many; 0 is no limit."""
        ...

    async def take(self, instance: str, call: Call) -> float:
        """Return when one request may be sent: the seconds waited for it.

        Raises:
            BudgetExhausted: it would take too long; at once, and nothing was taken. `retry_after_s` says how long.
        """
        ...

    def share_left(self, instance: str) -> float:
        """How much of what may be sent at once is left, 0 to 1, as far as is known without asking; no limit: 1."""
        ...
