"""Event: one change as it is kept, whichever way we learnt of it; and its durable form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import orjson

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef

__all__ = ["BODY_MOST", "PARTITIONS", "Event", "decode", "encode", "event_id_at", "partition_of", "received_ms"]

PARTITIONS = 8
"""Parts of an account's stream; what one record's events have in common is their part. Two processes that disagree
about the number would break the order, so it is no setting. Fewer, and workers could share the load less evenly; more,
and each costs every worker a key to look at."""

BODY_MOST = 65_536
"""Bytes of a body that are kept for the trace; a record is a few thousand."""

_VERSION = 1
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Event:
    """One change, understood.

    `event_id`: 32 hex digits, the first twelve the milliseconds of `received_at`, so that ids sort by time; proposed: a
    duplicate keeps the first one's. `name`: `job.updated`, `admin.invalidate`. `entity`, `record_id`: what changed; an
    admin's invalidation may be about no record (`record_id` ""). `action`: created, updated, deleted, unknown.
    `tags`: what the change renews. `source`: webhook, write, catch_up or admin. `received_at`: epoch seconds.
    `parents`: ids it hangs on, None where nobody told. `occurred_at`: the record's `date_updated`, epoch seconds.
    `is_new`: the record was made with this change, as far as the body tells. `dedupe_key`: "" is never a duplicate.
    `version_key`: the same for all ways of learning of this version of the record; "" where it has none.
    `body`: as received, at most BODY_MOST bytes of it. `request_id`: of the request that brought it.
    """

    event_id: str
    instance: str
    name: str
    entity: str
    record_id: str
    action: str
    tags: tuple[str, ...]
    source: str
    received_at: float
    parents: tuple[str, ...] | None = None
    occurred_at: int | None = None
    is_new: bool = False
    dedupe_key: str = ""
    version_key: str = ""
    request_id: str = ""
    body: str = field(default="", repr=False)

    @classmethod
    def of_change(
        cls,
        change: Change,
        *,
        event_id: str,
        instance: str,
        name: str,
        tags: Sequence[str],
        source: str,
        received_at: float,
        is_new: bool = False,
        dedupe_key: str = "",
        version_key: str = "",
        request_id: str = "",
        body: str = "",
    ) -> Event:
        return cls(
            event_id=event_id,
            instance=instance,
            name=name,
            entity=change.ref.entity.value,
            record_id=change.ref.jnid,
            action=change.action.value,
            tags=tuple(tags),
            source=source,
            received_at=received_at,
            parents=None if change.parents is None else tuple(sorted(change.parents)),
            occurred_at=change.occurred_at,
            is_new=is_new or change.action is Action.CREATED,
            dedupe_key=dedupe_key,
            version_key=version_key,
            request_id=request_id,
            body=body[:BODY_MOST],
        )

    @property
    def record(self) -> str:
        """What one record's events have in common, in whose order they are handled: `jobs:<jnid>`; an invalidation
        about no record has an order of its own per kind."""
        return f"{self.entity}:{self.record_id}"

    @property
    def change(self) -> Change | None:
        """What changed, or None when the event is about no record."""
        if not self.record_id or self.entity not in _ENTITIES:
            return None
        parents = None if self.parents is None else frozenset(self.parents)
        ref = EntityRef(Entity(self.entity), self.record_id)
        return Change(ref, Action(self.action), parents, self.occurred_at)

    def without_body(self) -> Event:
        return replace(self, body="")


def encode(event: Event) -> bytes:
    """The event without its body, as one JSON object."""
    return orjson.dumps(
        {
            "v": _VERSION,
            "id": event.event_id,
            "instance": event.instance,
            "name": event.name,
            "entity": event.entity,
            "record": event.record_id,
            "action": event.action,
            "tags": event.tags,
            "source": event.source,
            "received_at": event.received_at,
            "parents": event.parents,
            "occurred_at": event.occurred_at,
            "is_new": event.is_new,
            "dedupe": event.dedupe_key,
            "version_key": event.version_key,
            "request_id": event.request_id,
        }
    )


def decode(raw: bytes | str, body: str = "") -> Event:
    """The event of `encode`; fields that a later version adds are passed over.

    Raises:
        ValueError: it is damaged, or of a version that is not understood.
    """
    try:
        told: Mapping[str, Any] = orjson.loads(raw)
        if told["v"] != _VERSION:
            raise ValueError("another version")
        return Event(
            event_id=str(told["id"]),
            instance=str(told["instance"]),
            name=str(told["name"]),
            entity=str(told["entity"]),
            record_id=str(told["record"]),
            action=str(told["action"]),
            tags=tuple(map(str, told["tags"])),
            source=str(told["source"]),
            received_at=float(told["received_at"]),
            parents=None if told["parents"] is None else tuple(map(str, told["parents"])),
            occurred_at=None if told["occurred_at"] is None else int(told["occurred_at"]),
            is_new=bool(told["is_new"]),
            dedupe_key=str(told["dedupe"]),
            version_key=str(told["version_key"]),
            request_id=str(told["request_id"]),
            body=body,
        )
    except (KeyError, TypeError) as error:
        raise ValueError("no event") from error


def event_id_at(now: float, random_hex: str) -> str:
    """An id for an event received at `now` (epoch seconds). `random_hex`: 20 hex digits, never the same twice."""
    return f"{int(now * 1000):012x}{random_hex}"


def received_ms(event_id: str) -> int | None:
    """When the event of this id was received, epoch milliseconds; None when it is no id of ours."""
    return int(event_id[:12], 16) if _ID.fullmatch(event_id) else None


def partition_of(record: str) -> int:
    """Which part of the stream holds the events of this record: the same in every process and release."""
    return crc32(record.encode()) % PARTITIONS


_ENTITIES = frozenset(entity.value for entity in Entity)
