"""What is told with an invalidation, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Applied", "Notice", "Parcel", "Told"]


class Told(NamedTuple):
    """Where an invalidation stands in the log, for whoever waits until every L1 has applied it.

    `registered`: how many instances there are to wait for. `unknown`: the store cannot tell who they are (its epoch or
    their register was lost lately, or the log took no line), so that only a whole lease's time makes sure of them.
    `register`: which register it was; another one later knows nothing of those who were in it.
    """

    position: str = "0-0"
    registered: int = 0
    unknown: bool = False
    register: bytes = b""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is appended in the same step as the invalidation, unless that is a duplicate's; it is nothing to the cache.

    `keys`, on the tenant's slot: a hash, a stream, and sorted sets. The stream gets `id`, `e`, `to` and, of a late
    notice, `late`; the hash `e`,
    `b`, `to`, the entry's id as `x` and the number of sets as `left`; each set the event's id. A hash that is there
    already has been through this before. `args`: e, b, to, then the score in each sorted set.
    """

    keys: tuple[str, ...]
    args: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notice:
    """Why something is invalidated.

    `source`: webhook, write, catch_up or admin. `received_at`: wall seconds. `event_id` is a proposal: a duplicate is
    answered with the first one's. `dedupe_key`: equal keys within 24 h are one event; empty = never a duplicate.
    `version_key`: noted as if it had been a dedupe key too, for whoever hears of the same version in another way.
    `floors`: what fills must not fall behind, name -> version (epoch seconds; 0 when only the fact is known).
    `parcel`: what else to append. `quiet`: no event, so nothing for people to see. `late`: it comes out of the journal,
    and later ones may have come before it; the parcel is marked so.
    """

    event: str
    resource: str
    resource_id: str
    source: str
    received_at: float
    event_id: str
    dedupe_key: str = ""
    floors: Mapping[str, int] = field(default_factory=dict, hash=False)
    version_key: str = ""
    parcel: Parcel | None = None
    quiet: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """The generations are bumped: no read that is validated from now on is answered with older data. `told`: what it
    takes for L1 not to either.

    `latency_ms`: from `received_at` until it held, by the store's clock, never negative. `bumped`: number of tags.
    """

    event_id: str
    duplicate: bool
    latency_ms: float
    bumped: int
    told: Told = field(default_factory=Told)
