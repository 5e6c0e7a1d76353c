"""What doctor asks for, and what it says: probes, the facts they bring, and findings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from jobnimbus_mcp.events.ports import Lag
from jobnimbus_mcp.events.watermark import Loss

__all__ = [
    "PROBE_BOUND_S",
    "BackgroundFacts",
    "EventFacts",
    "EventsAway",
    "Finding",
    "IssuerAway",
    "Level",
    "Probes",
    "StoreAway",
    "StoreFacts",
    "ago",
    "is_loopback",
    "worst",
]

PROBE_BOUND_S = 20.0
"""A check of a key may take the 15 s of a call; nothing else comes near."""


class Level(StrEnum):
    """OK: as it should be. WARN: works, with less than it could. BAD: will not work so."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """`sentence`: what is so, and what to change where something is to be changed."""

    level: Level
    subject: str
    sentence: str


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a Redis says of itself; None where it does not tell (managed services hide some).

    `found`: where Sentinels or a cluster led to, in words; empty of a server with a fixed address. `tls`: the way there
    is encrypted. `user`: as whom it was asked.
    """

    version: str
    ping_ms: float
    eviction: str | None = None
    memory_max_bytes: int | None = None
    append_only: bool | None = None
    found: str = ""
    tls: bool = False
    user: str | None = None


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What an account's event log says of itself, without anything being made in it.

    `durable`: what was appended outlives the process that keeps it; None where that is not told. `lags`: by consumer;
    None where nothing has been prepared for events yet. `workers`: processes that act on events now; None where the log
    cannot tell.
    """

    durable: bool | None
    lags: Mapping[str, Lag] | None
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class BackgroundFacts:
    """How polling and the sweep of an account are getting on. `polled_at`: epoch seconds of the last round that asked
    everything, None before the first. `swept_at`: when the last sweep ended, or the first was planned. `loss`: of the
    last 24 hours. `now`: when this was asked."""

    now: float
    polled_at: float | None
    swept_at: float | None
    loss: Loss


class StoreAway(Exception):
    """The Redis could not be asked; the message says why in a word or two."""


class EventsAway(Exception):
    """The event log could not be asked; the message says why, or what is missing, and holds no credential."""


class IssuerAway(Exception):
    """The keys of the issuer of access tokens could not be had; the message says why, without anybody's data."""


@dataclass(frozen=True, slots=True)
class Probes:
    """What doctor asks of the running parts. All of them only look.

    `store(instance)`: raises StoreAway; not asked on the embedded store. `check_key(instance)`: returns when JobNimbus
    accepts the server's own key, raises a ProjectError when it does not or could not say. `digest(instance)`: of that
    key's partition. `last_webhook_age_s(instance)`: seconds since the last delivery, None when none is known of.
    `events(instance)`: raises EventsAway; not asked where events are in a server's memory. `background(instance)`:
    raises a ProjectError; not asked on the embedded store. `issuer()`: how many keys of OAUTH_ISSUER_URL tokens may be
    signed with, raises IssuerAway; not asked without one.
    """

    store: Callable[[str], Awaitable[StoreFacts]]
    check_key: Callable[[str], Awaitable[None]]
    digest: Callable[[str], str]
    last_webhook_age_s: Callable[[str], Awaitable[float | None]]
    events: Callable[[str], Awaitable[EventFacts]]
    background: Callable[[str], Awaitable[BackgroundFacts]]
    issuer: Callable[[], Awaitable[int]]


def ago(age_s: float) -> str:
    """`5 minutes`."""
    for unit, length_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if age_s >= 2 * length_s:
            return f"{age_s / length_s:.0f} {unit}"
    return f"{max(0.0, age_s):.0f} s"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach `host`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level among them."""
    order = (Level.OK, Level.WARN, Level.BAD)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)
