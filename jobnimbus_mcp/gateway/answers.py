"""Answer: what a read gave, and where it came from, told in the words callers are promised."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.crm.payloads import rfc3339

__all__ = [
    "Answer",
    "Outcome",
    "ParsedValues",
    "Provenance",
    "Status",
    "Tier",
    "ToolAnswer",
    "provenance_of",
    "stale_reason_of",
]

# stale last: an answer with something stale in it is stale, whatever else it was made of
_STATUS_RANK = (Status.HIT, Status.REVALIDATED, Status.MISS, Status.BYPASS, Status.STALE)
_TIER_RANK = (Tier.L1, Tier.L2, Tier.UPSTREAM)


class ParsedValues:
    """The values parsed last, so that calls which need the same one at the same time parse it once.

    Bounded by the bytes that were parsed; the objects made of them take several times as much.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[int, Any]] = OrderedDict()

    def of(self, outcome: Outcome) -> Any:
        """The parsed value: shared, so nobody's to change."""
        kept = self._kept.get(outcome.etag)
        if kept is not None:
            self._kept.move_to_end(outcome.etag)
            return kept[1]
        value, size = orjson.loads(outcome.value), len(outcome.value)
        if outcome.etag and size <= self._max_bytes:
            self._kept[outcome.etag] = (size, value)
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][0]
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """One read's value (bytes of JSON), its outcome, and how fresh it had to be."""

    outcome: Outcome
    parsed: ParsedValues = field(repr=False)
    mode: Mode = Mode.STRICT

    @property
    def stale_reason(self) -> str | None:
        """Why it is stale, as callers are told; None when it is not."""
        return stale_reason_of(self.outcome)

    def value(self) -> Any:
        """The parsed value: shared with other calls, so nobody's to change."""
        return self.parsed.of(self.outcome)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an answer came from; of several reads, the least favourable of each."""

    status: Status
    tier: Tier
    fetched_at: float
    ttl_s: float
    consistency: str
    stale_reason: str | None = None

    @property
    def as_of(self) -> str:
        """RFC 3339, of the moment the (oldest) fetch began."""
        whole = rfc3339(self.fetched_at)
        return f"{whole[:-1]}.{int(self.fetched_at % 1 * 1000):03d}Z"

    def envelope(self, now: float) -> dict[str, Any]:
        """`_meta["jobnimbus-mcp/cache"]` over MCP, `cache` over plain HTTP. Ages and lifetimes in seconds."""
        told: dict[str, Any] = {
            "status": self.status.value,
            "tier": self.tier.value,
            "ageSeconds": round(max(0.0, now - self.fetched_at), 3),
            "ttlSeconds": round(max(0.0, self.ttl_s), 3),
            "asOf": self.as_of,
            "consistency": self.consistency,
        }
        if self.stale_reason is not None:
            told["staleReason"] = self.stale_reason
        return told


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """A tool's structured result (a JSON object, as bytes) and the cache envelope that goes with it."""

    data: bytes
    cache: dict[str, Any]

    @property
    def structured(self) -> dict[str, Any]:
        """The result parsed: a fresh object each time."""
        parsed: dict[str, Any] = orjson.loads(self.data)
        return parsed


def provenance_of(outcomes: Sequence[Outcome], consistency: str) -> Provenance:
    """What to tell of an answer that was put together from `outcomes` (at least one)."""
    reasons = dict.fromkeys(reason for outcome in outcomes if (reason := stale_reason_of(outcome)) is not None)
    return Provenance(
        status=max((outcome.status for outcome in outcomes), key=_STATUS_RANK.index),
        tier=max((outcome.tier for outcome in outcomes), key=_TIER_RANK.index),
        fetched_at=min(outcome.fetched_at for outcome in outcomes),
        ttl_s=min(outcome.ttl_s for outcome in outcomes),
        consistency=consistency,
        stale_reason="; ".join(reasons) or None,
    )


def stale_reason_of(outcome: Outcome) -> str | None:
    """Why it is stale, in a caller's words; None when it is not."""
    if outcome.status is not Status.STALE:
        return None
    # the cache knows no CRM; whoever is told here knows no origin
    return (outcome.stale_reason or "past its lifetime").replace("the origin", "JobNimbus")
