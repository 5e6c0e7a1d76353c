"""A webhook's body, already parsed as JSON -> what changed, under which name, and how to know the delivery again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef, action_named, entity_named, is_jnid
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.errors import UnknownPayload

__all__ = ["ParsedBody", "dedupe_key", "event_name", "parents_of", "parse_body", "record_id", "version_key"]

_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_EVENT = re.compile(r"(?:(?P<kind>.+)[.:/\s_-])?(?P<action>[A-Za-z]+)", re.DOTALL)
_MAX_WORD = 64
_MAX_WRAPPERS = 3
_MAX_RELATED = 1000
_LATEST_S = 253_402_300_799
"""The last second of the year 9999."""
_MADE_WITHIN_S = 1
"""Between `date_created` and `date_updated` of a record nobody has touched since."""
_NOT_UNDERSTOOD = (
    "The body names no record we know: it needs a jnid with a type, or an event with resource_type and resource_id."
)
_SINGULAR: Mapping[Entity, str] = {
    Entity.JOBS: "job",
    Entity.CONTACTS: "contact",
    Entity.ESTIMATES: "estimate",
    Entity.INVOICES: "invoice",
    Entity.PAYMENTS: "payment",
    Entity.ACTIVITIES: "activity",
    Entity.TASKS: "task",
    Entity.ATTACHMENTS: "attachment",
    Entity.USERS: "user",
    Entity.PRODUCTS: "product",
    Entity.WORKORDERS: "workorder",
    Entity.MATERIALORDERS: "materialorder",
    Entity.BUDGETS: "budget",
    Entity.SETTINGS: "settings",
    Entity.CALENDAR: "calendar",
}


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """`name`: `job.updated`, or `job.changed` where the body names no action. `is_new`: as far as the body tells, the
    record was made with this change."""

    name: str
    change: Change
    is_new: bool = False


def parse_body(body: Any) -> ParsedBody:
    """What a webhook's body says has changed.

    Understood: `{"event", "resource_type", "resource_id"}`; a record (`jnid`, `type`), whose action nobody names; a
    custom template with a `jnid` and a `type` or `resource_type`; each also inside `{"data": ...}`, `{"job": ...}` or
    an array of one. An event word that is no action of ours makes the action UNKNOWN where a jnid and its kind are
    there all the same (admins name template events as they like), and an unknown payload elsewhere.

    Source: JobNimbus API documentation, webhooks: the default body is the record itself, without an envelope; custom
    bodies are whatever the admin typed, all values strings.

    Raises:
        UnknownPayload: anything else.
    """
    record, event, wrapper_kind = _unwrap(body)
    event_kind, action = _read_event(event)
    own_kind = _kind_of(record)
    if "jnid" in record:
        entity = own_kind or wrapper_kind or event_kind
        jnid = _same_id(record, entity)
        if event_kind is not None and event_kind is not entity:
            action = None
    else:
        entity = own_kind or wrapper_kind or event_kind
        jnid = record_id(record.get("resource_id"), entity)
        if action is None or (event_kind is not None and event_kind is not entity):
            raise UnknownPayload(_NOT_UNDERSTOOD)
    if entity is None or jnid is None:
        raise UnknownPayload(_NOT_UNDERSTOOD)
    change = Change(
        ref=EntityRef(entity, jnid),
        action=Action.UNKNOWN if action is None else action,
        parents=parents_of(record),
        occurred_at=_date(record.get("date_updated")),
    )
    return ParsedBody(event_name(change), change, _is_new(record, change))


def event_name(change: Change) -> str:
    """`job.updated`; `job.changed` when the action is unknown."""
    action = "changed" if change.action is Action.UNKNOWN else change.action.value
    return f"{_SINGULAR[change.ref.entity]}.{action}"


def record_id(value: Any, entity: Entity | None = None) -> str | None:
    """`value` as the id of a record, or None when it cannot be one.

    Source: JobNimbus API documentation, identifiers: letters and digits; some estimates carry GUIDs; attachment ids
    are in places prefixed with `file-`.
    """
    if not isinstance(value, str):
        return None
    text = value.strip()
    if entity is Entity.ATTACHMENTS:
        text = text.removeprefix("file-")
    return text if is_jnid(text) or _GUID.fullmatch(text) else None


def dedupe_key(instance: str, parsed: ParsedBody, body: Any, delivery_id: str | None) -> str:
    """What two deliveries of one event have in common; "" when nothing says that this one is not new.

    `delivery_id`: the `webhook-id` header. Without one: same record, date, action and body; a body without a date is
    never a duplicate, because two edits within one second look alike.
    """
    if delivery_id:
        return "id:" + _digest(instance, delivery_id)
    change = parsed.change
    if change.occurred_at is None:
        return ""
    try:
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # nested deeper than orjson writes: no canonical form, so not comparable
        return ""
    return "body:" + _digest(instance, change.ref.jnid, str(change.occurred_at), change.action.value, canonical)


def version_key(instance: str, entity: str, jnid: str, version_s: int) -> str:
    """What all ways of hearing of one version of a record (its `date_updated`, epoch seconds) have in common."""
    return "version:" + _digest(instance, entity, jnid, str(version_s))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _unwrap(body: Any) -> tuple[Mapping[str, Any], Any, Entity | None]:
    """(the object with the id, the event word, the kind told around it): what is said outside holds inside."""
    event: Any = None
    kind: Entity | None = None
    for _ in range(_MAX_WRAPPERS + 1):
        if isinstance(body, list):
            if len(body) != 1:
                break
            body = body[0]
            continue
        if not isinstance(body, Mapping):
            break
        event = body.get("event", event)
        if "jnid" in body or "resource_id" in body:
            return body, event, kind
        wrappers = ["data"] if "data" in body else [name for name in body if _word_kind(name) is not None]
        if len(wrappers) != 1:
            break
        (name,) = wrappers
        kind = _word_kind(body.get("resource_type")) or _word_kind(body.get("type")) or _word_kind(name) or kind
        body = body[name]
    raise UnknownPayload(_NOT_UNDERSTOOD)


def _word_kind(word: Any) -> Entity | None:
    return entity_named(word) if isinstance(word, str) and len(word) <= _MAX_WORD else None


def _read_event(event: Any) -> tuple[Entity | None, Action | None]:
    """(kind, action) of `job.updated`, `work_order.created`; (None, action) of `updated`; else (None, None).

    `job_status` tells nothing: a template of that name may well send the id of a task.
    """
    if not isinstance(event, str) or len(event) > _MAX_WORD:
        return None, None
    matched = _EVENT.fullmatch(event.strip())
    if matched is None:
        return None, None
    kind = matched["kind"]
    named = None if kind is None else _word_kind(kind)
    action = action_named(matched["action"])
    if action is None or (kind is not None and named is None):
        return None, None
    return named, action


def _kind_of(record: Mapping[str, Any]) -> Entity | None:
    """The kind a record says it is; `resource_type` first, since a template's `type` may be the account's own word.

    Raises:
        UnknownPayload: it names two kinds, or one that is none of ours.
    """
    told = record.get("resource_type") or record.get("type")
    if not told:
        return None
    kind = _word_kind(told)
    if kind is None or _word_kind(record.get("type")) not in (None, kind):
        raise UnknownPayload(_NOT_UNDERSTOOD)
    return kind


def _same_id(record: Mapping[str, Any], entity: Entity | None) -> str | None:
    jnid = record_id(record["jnid"], entity)
    if "resource_id" in record and record_id(record["resource_id"], entity) != jnid:
        return None
    return jnid


def parents_of(record: Mapping[str, Any]) -> frozenset[str] | None:
    """Ids of the records this one hangs on, or None where the body does not tell them all.

    `primary` alone is not enough: it names one of the related records, and a list of another one would stay. A payment
    also hangs on the invoices it pays.
    """
    related = record.get("related")
    if not isinstance(related, list) or len(related) > _MAX_RELATED:
        return None
    links = list(related)
    if record.get("primary") is not None:
        links.append(record["primary"])
    paid = record.get("invoices")
    if isinstance(paid, list):
        if len(paid) > _MAX_RELATED:
            return None
        links += [one.get("invoice_id") for one in paid if isinstance(one, Mapping)]
    parents = [record_id(link.get("id") if isinstance(link, Mapping) else link) for link in links]
    if any(parent is None for parent in parents):
        return None
    return frozenset(parent for parent in parents if parent is not None)


def _is_new(record: Mapping[str, Any], change: Change) -> bool:
    if change.action is not Action.UNKNOWN or change.occurred_at is None:
        return change.action is Action.CREATED
    created_at = _date(record.get("date_created"))
    return created_at is not None and change.occurred_at - created_at <= _MADE_WITHIN_S


def _date(value: Any) -> int | None:
    """Epoch seconds of `date_updated`; None for none, and for numbers no date has."""
    try:
        seconds = epoch_s(value)
    except (OverflowError, ValueError):  # 1e999 parses as infinity; a string of thousands of digits is refused by int()
        return None
    return None if seconds is None or seconds > _LATEST_S else seconds
