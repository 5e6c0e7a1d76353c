"""What `event_settle` is asked: by who acted on events, or gives them up for a consumer that is no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jobnimbus_mcp.events.event import PARTITIONS, received_ms
from jobnimbus_mcp.events.keys_redis import (
    archive_key,
    archived_key,
    dead_key,
    due_key,
    event_key,
    live_key,
    owners_key,
    stream_keys,
    tries_key,
)
from jobnimbus_mcp.events.trace_redis import milliseconds

__all__ = ["SettleRow", "settle_call"]

_TRIES_S = 900


class SettleRow(NamedTuple):
    """As `event_settle` wants it. `token` and `entry`: "" without a lease and without an entry to acknowledge."""

    partition: int
    token: str
    entry: str
    event_id: str
    fate: str
    became: bytes
    due_ms: int
    late_ms: int | str


def settle_call(tenant: str, consumer: str, now: float, rows: Sequence[SettleRow]) -> tuple[list[str], list[Any]]:
    """Keys and arguments of `event_settle`."""
    keys = [owners_key(tenant), due_key(tenant, consumer), dead_key(tenant), dead_key(tenant, consumer)]
    keys += [live_key(tenant), archive_key(tenant), archived_key(tenant), tries_key(tenant, int(now // 60))]
    keys += stream_keys(tenant)
    args: list[Any] = [consumer, milliseconds(now), PARTITIONS, _TRIES_S]
    for row in rows:
        keys.append(event_key(tenant, row.event_id))
        args += [*row[:4], received_ms(row.event_id) or 0, *row[4:]]
    return keys, args
