"""What a read through the cache gives: the value, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Loaded", "Lying", "Outcome", "Status", "Tier"]


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
    `position`: of the log; every change told up to there is in the value ("" not known). `exact`: so is every change
    that the origin's list may lag behind, so no floor of a list says anything about it.

    What was put together from what is kept says so. `as_of`: wall seconds when the oldest part's fetch began, None: it
    was fetched now. `fresh_s`: what remained of its lifetime. `proved` False: the origin was not asked under this
    credential meanwhile, so it must have accepted it lately.
    """

    value: bytes
    negative: bool = False
    versions: Mapping[str, int] = field(default_factory=dict, hash=False)
    position: str = ""
    exact: bool = False
    as_of: float | None = None
    fresh_s: float | None = None
    proved: bool = True


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


@dataclass(frozen=True, slots=True)
class Lying:
    """What lies in the cache under a key, within its lifetime: good as it is, or with `dirty` by what has changed since
    the log's `position` (empty: nobody knows since when). `epoch`: the tenant's when it was kept, and still. `kept_at`:
    wall seconds when it was kept, which is after all parts of it were fetched."""

    value: bytes
    negative: bool
    fetched_at: float
    fresh_s: float
    etag: str
    dirty: bool
    position: str
    epoch: bytes
    kept_at: float
