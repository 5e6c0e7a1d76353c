"""What a read through the cache gives: the value, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Loaded", "Outcome", "Status", "Tier"]


class Status(StrEnum):
    """How the cache took part in the answer."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    REVALIDATED = "revalidated"
    BYPASS = "bypass"


class Tier(StrEnum):
    """Where the value lay."""

    L1 = "l1"
    L2 = "l2"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loader's answer. `negative`: the origin knows of no such thing, and that is kept for a short time.

    `versions`: of the records it shows, floor name -> version (epoch seconds), to be compared with what changes said.
    """

    value: bytes
    negative: bool = False
    versions: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A value and its provenance.

    `fetched_at`: wall seconds when its fetch began. `ttl_s`: what remains of its lifetime; 0 when it was not kept, or
    when its fill had not ended yet. `coalesced`: it waited for another reader's fetch. `etag` differs from fetch to
    fetch and is the same for the same fetch, kept or not, so it names the value within a process. `stale_reason`: why
    it is served although it is stale, in words for the caller; None when it is not.
    """

    value: bytes
    negative: bool
    status: Status
    tier: Tier
    fetched_at: float
    ttl_s: float
    coalesced: bool
    etag: str
    stale_reason: str | None = None
