"""What the routes need from inside; the composition root hands it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.cache.ports import StoreHealth
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.events.intake import Accepted, Delivery
from jobnimbus_mcp.events.ports import EventPage, EventQuery, Traced
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.answers import ToolAnswer
from jobnimbus_mcp.gateway.identity import Caller

__all__ = [
    "Counts",
    "Entries",
    "Events",
    "Explain",
    "Identify",
    "Invalidations",
    "Part",
    "ProbeStore",
    "Readiness",
    "Receiver",
    "ToolCaller",
    "Warm",
]


class ToolCaller(Protocol):
    """The tools, as plain HTTP callers meet them."""

    def listing(self, access: Access) -> list[dict[str, Any]]:
        """The same tools and schemas as tools/list over MCP, of a caller with this access."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any], who: Caller, call: Call) -> ToolAnswer:
        """The tool's answer, before the call's deadline.

        Raises:
            ProjectError: by its kind.
        """
        ...


class Identify(Protocol):
    """Who is asking JobNimbus."""

    def identify(self, api_key: str | None, instance: str | None, access: Access) -> Caller:
        """The caller behind the two header values (None where a header was not sent).

        Raises:
            InvalidInput: a malformed key, or an account that is unknown or left out where several are served.
            NotAllowed: the account is not one of those in `access`.
            NotAuthenticated: no key given, and none held here.
        """
        ...


class Receiver(Protocol):
    """Takes webhooks; `events.intake.Intake`."""

    async def receive(self, delivery: Delivery, call: Call) -> Accepted: ...


class Invalidations(Protocol):
    """Invalidates, and remembers what was invalidated; every method may raise CacheUnavailable."""

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        """Bump every tag and write it to the log; holds when it returns."""
        ...

    async def renew_epoch(self, tenant: str, call: Call, *, reason: str) -> None:
        """Invalidate everything of the account."""
        ...

    async def invalidate_pattern(self, tenant: str, *, pattern: str, notice: Notice, call: Call) -> int:
        """Delete the entries whose key past the account matches the glob (`*` and `?`); how many they were."""
        ...

    async def recent(self, tenant: str, *, limit: int, since: float | None, call: Call) -> Sequence[Mapping[str, Any]]:
        """The log, newest first: eventId, event, resource, resourceId, tags, latencyMs, source, at (RFC 3339)."""
        ...

    async def rates(self, tenant: str, *, hours: int, call: Call) -> Mapping[str, Any]:
        """Invalidations per hour by entity and source, of the last `hours`."""
        ...


class Entries(Protocol):
    """Lists what is kept."""

    async def __call__(
        self, tenant: str, *, entity: str | None, operation: str | None, limit: int, call: Call
    ) -> Sequence[Mapping[str, Any]]:
        """At most `limit` of: key, ageSeconds, ttlSeconds, sizeBytes, tags, hits.

        Raises:
            CacheUnavailable: the store is away.
        """
        ...


class Explain(Protocol):
    """Tells why one entry is, or is no longer, an answer."""

    async def __call__(self, tenant: str, key_text: str, call: Call) -> Mapping[str, Any] | None:
        """Its tags, their generations then and now, what dirtied it and when; None when nothing is kept under the key.

        Raises:
            CacheUnavailable: the store is away.
        """
        ...


class Events(Protocol):
    """The trace of change events; every method may raise CacheUnavailable."""

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        """A page of one account's events, newest first, without their bodies."""
        ...

    async def show(self, instance: str, event_id: str) -> Traced | None:
        """One event with all that became of it, or None."""
        ...


class Warm(Protocol):
    """Reads ahead."""

    async def __call__(self, instance: str | None, queries: Sequence[Any] | None) -> int:
        """How many reads were started, of one account or of all: those `queries` (tool calls), or what is asked most.

        Raises:
            InvalidInput: a query is not understood; nothing was started.
        """
        ...


class Counts(Protocol):
    """Fields of `telemetry.tally` and their sums."""

    async def shared(self, instance: str) -> Mapping[str, int]:
        """All replicas' counts, with this process's latest.

        Raises:
            CacheUnavailable: the store is away.
        """
        ...

    def own(self, instance: str) -> Mapping[str, int]:
        """This process's counts since it started."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the server as /ready shows it. `essential`: nothing works without it. `reason`: from a closed list."""

    status: Literal["up", "down", "off"]
    essential: bool = False
    reason: str | None = None


ProbeStore = Callable[[], Awaitable[StoreHealth]]
Readiness = Callable[[], Awaitable[Mapping[str, Part]]]
