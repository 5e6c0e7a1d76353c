"""The names of everything that the event log keeps in Redis; T is the account, all of its keys are on one slot.

    jobnimbus-sys:{T}:events:<p>          stream  events not all consumers are done with, `id`, `e` (envelope) and `to`
                                                  (JSON, consumer -> due ms); replayed ones `only` for some consumers.
                                                  No expiry; entries go when the last consumer is done
    jobnimbus-sys:{T}:event:<id>          hash    `e`, `b` (body), `to`, `x` its entries, `left` sets it is still in,
                                                  `c:<consumer>` what became of it, `gone` how many gave it up.
                                                  No expiry; goes to the archive whole, or is cleaned when dead
    jobnimbus-sys:{T}:events-live         zset    id -> ms of its receipt, of all that have a hash. No expiry
    jobnimbus-sys:{T}:due:<consumer>      zset    id -> ms when it is due, of all it is not done with. No expiry
    jobnimbus-sys:{T}:archive             stream  finished events, `id` and the fields of the hash. No expiry; cleaned
    jobnimbus-sys:{T}:archived            zset    `<id>:<place in the archive>` -> ms of its receipt. No expiry; cleaned
    jobnimbus-sys:{T}:dead                zset    id -> ms since when all are done, and some gave up. No expiry; cleaned
    jobnimbus-sys:{T}:dead:<consumer>     zset    id -> ms when this one gave up. No expiry; cleaned
    jobnimbus-sys:{T}:events-consumers    hash    every consumer there is. No expiry
    jobnimbus-sys:{T}:events-token        string  stays the same for as long as nothing was lost. No expiry
    jobnimbus-sys:{T}:events-owners       hash    `w:<worker>` -> `<until ms>|<consumers>`, `p:<p>:<consumer>` ->
                                                  `<until ms>|<token of the lease>`
    jobnimbus-sys:{T}:tries:<minute>      hash    `<consumer>|ok`, `|failed`, `|ms` (sum from due to done)
    jobnimbus-sys:{T}:bus                 stream  what processes tell each other, `m`

Only the last three expire by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobnimbus_mcp.events.event import PARTITIONS

__all__ = [
    "archive_key",
    "archived_key",
    "bus_key",
    "consumers_key",
    "dead_key",
    "due_key",
    "event_key",
    "live_key",
    "owners_key",
    "stream_key",
    "stream_keys",
    "token_key",
    "tries_key",
]


def _key(tenant: str, name: str) -> str:
    return f"jobnimbus-sys:{{{tenant}}}:{name}"


def stream_key(tenant: str, partition: int) -> str:
    return _key(tenant, f"events:{partition}")


def stream_keys(tenant: str) -> Sequence[str]:
    """Of all partitions, in their order."""
    return [stream_key(tenant, partition) for partition in range(PARTITIONS)]


def event_key(tenant: str, event_id: str) -> str:
    return _key(tenant, f"event:{event_id}")


def live_key(tenant: str) -> str:
    return _key(tenant, "events-live")


def due_key(tenant: str, consumer: str) -> str:
    return _key(tenant, f"due:{consumer}")


def archive_key(tenant: str) -> str:
    return _key(tenant, "archive")


def archived_key(tenant: str) -> str:
    return _key(tenant, "archived")


def dead_key(tenant: str, consumer: str = "") -> str:
    """Dead for this consumer; without one, dead events."""
    return _key(tenant, f"dead:{consumer}" if consumer else "dead")


def consumers_key(tenant: str) -> str:
    return _key(tenant, "events-consumers")


def token_key(tenant: str) -> str:
    return _key(tenant, "events-token")


def owners_key(tenant: str) -> str:
    return _key(tenant, "events-owners")


def tries_key(tenant: str, minute: int) -> str:
    return _key(tenant, f"tries:{minute}")


def bus_key(tenant: str) -> str:
    return _key(tenant, "bus")
