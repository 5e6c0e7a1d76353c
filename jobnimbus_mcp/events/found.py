"""What polling has found: rows of a list -> events, and which of them say that another record was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import orjson

from jobnimbus_mcp.crm.catalog import CATALOG
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef, entity_named
from jobnimbus_mcp.crm.relations import CALENDAR_KINDS, CHILDREN, tags_of_change
from jobnimbus_mcp.errors import UnknownPayload
from jobnimbus_mcp.events.envelope import event_name, parse_body, record_id, version_key
from jobnimbus_mcp.events.event import Event

__all__ = [
    "DELETED",
    "POLLED",
    "Found",
    "deletion",
    "deletion_key",
    "event_of",
    "found_in",
    "kind_event",
    "logged_deletion",
]

POLLED = (
    Entity.ACTIVITIES,
    *(kind for kind in CATALOG if kind not in {Entity.ACTIVITIES, Entity.USERS, Entity.SETTINGS}),
)
"""Kinds with lists that can be asked for what has changed. Activities first: they tell of deletions, and a record that
was deleted and restored is then told in that order."""

DELETED = 0
"""In the place of a version: the record is gone."""

_SOURCE = "catch_up"
_LOGGED_DELETIONS: Mapping[str, Entity] = MappingProxyType(
    {"job deleted": Entity.JOBS, "contact deleted": Entity.CONTACTS}
)


@dataclass(frozen=True, slots=True)
class Found:
    """One version of one record. `version_s`: its `date_updated`, or DELETED. `body`: the row, for the trace."""

    change: Change
    version_s: int
    body: str = ""

    def key(self, instance: str) -> str:
        """What this version is known by, however it was heard of."""
        return version_key(instance, self.change.ref.entity, self.change.ref.jnid, self.version_s)


def found_in(kind: Entity, row: Mapping[str, Any]) -> Found | None:
    """What one row of a list of that kind says; None when it is no record with an id and a `date_updated`.

    A record that is no older than its last change was made with it: its action is CREATED.
    """
    try:
        parsed = parse_body({**row, "resource_type": kind.value})
    except UnknownPayload:
        return None
    if parsed.change.occurred_at is None:
        return None
    action = Action.CREATED if parsed.is_new else Action.UPDATED
    return Found(replace(parsed.change, action=action), parsed.change.occurred_at, orjson.dumps(dict(row)).decode())


def logged_deletion(row: Mapping[str, Any]) -> Found | None:
    """The job or contact whose deletion this row of the activity log tells of; None for any other row.

    Source: JobNimbus API documentation, deletes: activities named "Contact Deleted" and "Job Deleted" have the id in
    `primary.id`; other kinds leave no trace.
    """
    kind = _LOGGED_DELETIONS.get(" ".join(str(row.get("record_type_name")).casefold().split()))
    primary = row.get("primary")
    if kind is None or not isinstance(primary, Mapping):
        return None
    named = primary.get("type")
    jnid = record_id(primary.get("id"), kind)
    if jnid is None or (isinstance(named, str) and entity_named(named) not in (None, kind)):
        return None
    return deletion(EntityRef(kind, jnid), orjson.dumps(dict(row)).decode())


def deletion(ref: EntityRef, body: str = "") -> Found:
    """The record is gone."""
    return Found(Change(ref, Action.DELETED), DELETED, body)


def deletion_key(instance: str, kind: Entity, jnid: str) -> str:
    """What a deletion is known by, once it was told."""
    return version_key(instance, kind, jnid, DELETED)


def event_of(found: Found, *, instance: str, event_id: str, at: float, request_id: str, final: bool) -> Event:
    """The event to be told. `final` False: the same version will be looked at again, so nothing may be known by it.

    The tags are those of a change that may have been anything: a list cannot tell whether a record that was made and
    moved within a second hung on somebody else in between.
    """
    key = found.key(instance) if final else ""
    may_be_anything = found.change
    if found.change.action is not Action.DELETED:
        may_be_anything = replace(found.change, action=Action.UNKNOWN)
    return Event.of_change(
        found.change,
        event_id=event_id,
        instance=instance,
        name=event_name(found.change),
        tags=tags_of_change(may_be_anything),
        source=_SOURCE,
        received_at=at,
        dedupe_key=key,
        version_key=key,
        request_id=request_id,
        body=found.body,
    )


def kind_event(kind: Entity, *, instance: str, event_id: str, at: float, request_id: str) -> Event:
    """More records of a kind have changed than can be told one by one: everything that shows any of them is renewed."""
    tags = [kind.value]
    if kind in CALENDAR_KINDS:
        tags.append(f"{Entity.CALENDAR}:list")
    for child in (*CHILDREN.get(kind, ()), Entity.ACTIVITIES):
        tags += [f"{child}:list", f"{child}:search"]
    return Event(
        event_id=event_id,
        instance=instance,
        name=event_name(Change(EntityRef(kind, ""), Action.UNKNOWN)),
        entity=kind.value,
        record_id="",
        action=Action.UNKNOWN.value,
        tags=tuple(dict.fromkeys(tags)),
        source=_SOURCE,
        received_at=at,
        request_id=request_id,
    )
