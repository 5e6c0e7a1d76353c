"""A write in JobNimbus's dialects: the body each kind takes, and whether a record shows what was asked for.

Source: JobNimbus API documentation, links, custom fields, the notes on writing of each entity, and its quirks: the PUT
of a document replaces its lists, so the whole document goes back, without what JobNimbus works out itself. Whatever
else is unknown goes back as it came: custom fields have names of the account's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

from jobnimbus_mcp.crm.catalog import SETTINGS_PARTS, LinkForm, facts_of
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.lines import LINES, completed
from jobnimbus_mcp.crm.payloads import epoch_s, is_date_field, values_at
from jobnimbus_mcp.crm.relations import DERIVED_FIELDS
from jobnimbus_mcp.crm.writes import Link, Upload, Write

__all__ = ["body_of", "is_custom", "landed", "later_fields", "left_out", "missing", "unlinked"]

_SET_BY_JOBNIMBUS = frozenset(
    {
        "attachment_count",
        "cost",
        "created_by",
        "created_by_email",
        "created_by_name",
        "customer",
        "date_created",
        "date_status_change",
        "date_updated",
        "margin",
        "merged",
        "recid",
        "sales_rep_name",
        "subtotal",
        "task_count",
        "tax",
        "total",
        "total_line_item_cost",
        "total_line_item_price",
    }
)
"""Of a document: what JobNimbus assigns, counts or adds up."""

_COPIED_FROM_PARENT = "parent_"

_ADDED_UP = "amount"
"""Of an item and of its labour: quantity times price."""

_ID_OF_NAME = MappingProxyType(
    {
        "status_name": "status",
        "record_type_name": "record_type",
        "source_name": "source",
        "sales_rep_name": "sales_rep",
        "class_name": "class_id",
    }
)
"""Two fields of one meaning: where one of them changes, the other's old value must not go back."""

_NAME_OF_ID = MappingProxyType({identity: name for name, identity in _ID_OF_NAME.items()})

_CONTACT_NAMES = ("display_name", "first_name", "last_name", "company")

_PART_NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"workflow": ("object_type",), "custom_field": ("object_type", "type")}
)
"""What a piece of the settings needs besides its name."""

_UNORDERED = frozenset({"invoices", "owners", "related", "subcontractors", "tags"})
"""Lists whose order means nothing; that of items and sections does."""

_STORAGE_KEY = re.compile(r"cf_[a-z]+_\d+")
_PLAIN_NAME = re.compile(r"[a-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")


def body_of(write: Write, *, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON body for `write`. `base`: the record as it is now, which the update of a document needs.

    Raises:
        ValueError: the document to update is not there.
    """
    if write.entity is Entity.SETTINGS:
        return dict(write.fields)
    facts = facts_of(write.entity)
    if write.action is Action.DELETED:
        body: dict[str, Any] = {"is_active": False}
        return {"jnid": write.record_id} | body if facts.writes.whole else body
    if write.action is Action.CREATED:
        later = later_fields(write)
        told = {name: _rows(name, value) for name, value in write.fields.items() if name not in later}
        return dict(facts.writes.constants) | told | _links(facts.writes.links, write.links)
    if not facts.writes.whole:
        return dict(write.fields) | _links(facts.writes.links, write.links)
    if base is None:
        raise ValueError(f"an update of {write.entity.value} needs the record as it is")
    body = _sendable(write.entity, base, changed=write.fields)
    body |= {name: _rows(name, value, body.get(name)) for name, value in write.fields.items()}
    if write.links:
        body |= _relinked(body, _links(facts.writes.links, write.links))
    return body | {"jnid": write.record_id, "type": facts.type}


def later_fields(write: Write) -> dict[str, Any]:
    """What the POST must not carry, and an update right after it does."""
    if write.action is not Action.CREATED or write.entity is Entity.SETTINGS:
        return {}
    return {name: write.fields[name] for name in facts_of(write.entity).writes.later if name in write.fields}


def missing(write: Write) -> tuple[str, ...]:
    """Names of what JobNimbus needs for the new record and is not given; () for changes of what exists.

    Raises:
        KeyError: there is no such part of the settings.
    """
    if write.action is not Action.CREATED:
        return ()
    if write.entity is Entity.SETTINGS:
        needed = (SETTINGS_PARTS[write.part].name, *_PART_NEEDS.get(write.part, ()))
        return tuple(name for name in needed if _is_blank(write.fields.get(name)))
    facts = facts_of(write.entity).writes
    absent = [name for name in facts.required if _is_blank(write.fields.get(name))]
    if write.entity is Entity.CONTACTS and all(_is_blank(write.fields.get(name)) for name in _CONTACT_NAMES):
        absent.append(_CONTACT_NAMES[0])
    if facts.needs_link and not write.links:
        absent.append(_link_field(facts.links))
    return tuple(absent)


def landed(write: Write, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what `write` sets and `record` does not show, `related` or `primary` for its links; () when all is
    there. An empty record is one that is gone.

    JobNimbus rewrites what it stores: names in its own case, numbers as texts, none in five spellings, dates in
    seconds or milliseconds, custom fields under either of their names; none of these is a difference.
    """
    if write.action is Action.DELETED:
        return () if not record or record.get("is_active") is False else ("is_active",)
    absent = [name for name, wanted in write.fields.items() if not _shown(write.entity, name, wanted, record)]
    if unlinked(write, record):
        absent.append(_link_field(facts_of(write.entity).writes.links))
    return tuple(absent)


def unlinked(wanted: Write | Upload, record: Mapping[str, Any]) -> bool:
    """Whether `record` lacks a link that was asked for; links beyond those are JobNimbus's own and no fault.

    Where a kind keeps the first link alone, so is the first alone looked for. Source: production notes: files stored
    without their link, tasks that keep one.
    """
    entity = Entity.ATTACHMENTS if isinstance(wanted, Upload) else wanted.entity
    facts = facts_of(entity).writes
    if facts.links is LinkForm.NONE or not wanted.links:
        return False
    asked = wanted.links[:1] if facts.links is LinkForm.PRIMARY or entity is Entity.TASKS else wanted.links
    if entity is Entity.JOBS:
        return asked[0].jnid not in values_at(record, "primary.id")
    return any(link.jnid not in _linked(record) for link in asked)


def left_out(write: Write, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of further links that were asked for, where a kind keeps the first alone and `record` does not have them."""
    first_alone = facts_of(write.entity).writes.links is LinkForm.PRIMARY or write.entity is Entity.TASKS
    linked = _linked(record)
    return tuple(link.jnid for link in write.links[1:] if link.jnid not in linked) if first_alone and linked else ()


def _linked(record: Mapping[str, Any]) -> set[str]:
    """Ids of what the record hangs on."""
    related = record.get("related")
    entries = related if isinstance(related, list) else ()
    ids = (*values_at(record, "primary.id"), *(one.get("id") if isinstance(one, Mapping) else one for one in entries))
    return {found for found in ids if isinstance(found, str)}


def _link_field(form: LinkForm) -> str:
    return "primary" if form is LinkForm.PRIMARY else "related"


def _links(form: LinkForm, links: Sequence[Link]) -> dict[str, Any]:
    if not links or form is LinkForm.NONE:
        return {}
    match form:
        case LinkForm.PRIMARY:
            return {"primary": {"id": links[0].jnid}}
        case LinkForm.IDS:
            return {"related": [link.jnid for link in links]}
        case LinkForm.OBJECTS:
            return {"related": [_reference(link) for link in links]}


def _relinked(body: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The links of a document with the new ones among them: each in place of those of its kind, since a document hangs
    on a job and on that job's contact, and the other one was not spoken of."""
    links = new.get("related", [])
    kinds = {link["type"] for link in links if "type" in link}
    told = {"related": [*links, *(old for old in body.get("related") or () if not _stands_for(links, kinds, old))]}
    primary = body.get("primary")
    if isinstance(primary, Mapping) and primary.get("type") in kinds:
        told["primary"] = next(link for link in links if link.get("type") == primary["type"])
    return told


def _stands_for(links: Sequence[Mapping[str, Any]], kinds: Set[str], old: Any) -> bool:
    """Whether an old link is one of the new ones, or gives way to one of its kind."""
    known = old.get("id") if isinstance(old, Mapping) else old
    kind = old.get("type") if isinstance(old, Mapping) else None
    return any(link["id"] == known for link in links) or kind in kinds


def _rows(name: str, value: Any, had: Any = ()) -> Any:
    return completed(name, value, had) if name in LINES and isinstance(value, (list, tuple)) else value


def _reference(link: Link) -> dict[str, str]:
    word = "" if link.entity is None else facts_of(link.entity).type
    return {"id": link.jnid, "type": word} if word else {"id": link.jnid}


def _sendable(entity: Entity, base: Mapping[str, Any], *, changed: Mapping[str, Any]) -> dict[str, Any]:
    """What of the record as it is goes back beside what changes."""
    left_out = _SET_BY_JOBNIMBUS | DERIVED_FIELDS.get(entity, frozenset()) | _mirrors(base, changed)
    left_out |= {_ID_OF_NAME[name] for name in changed if name in _ID_OF_NAME}
    left_out |= {_NAME_OF_ID[name] for name in changed if name in _NAME_OF_ID}
    kept = {name: value for name, value in base.items() if name not in left_out}
    kept = {name: value for name, value in kept.items() if not name.startswith(_COPIED_FROM_PARENT)}
    if isinstance(kept.get("items"), list):
        kept["items"] = [_item(row) for row in kept["items"]]
    if isinstance(kept.get("related"), list):
        kept["related"] = [_bare_link(link) for link in kept["related"]]
    if "primary" in kept:
        kept["primary"] = _bare_link(kept["primary"])
    return kept


def _mirrors(base: Mapping[str, Any], changed: Mapping[str, Any]) -> set[str]:
    """The other names of the custom fields that change: each stands in the record under its key and under its label.

    Nothing says which label is whose, so every one with the same old value is left out; the key that stays behind
    carries the value of those that do not change.
    """
    other: set[str] = set()
    for name in changed:
        if is_custom(name):
            by_key = _STORAGE_KEY.fullmatch(name) is not None
            old = base.get(name)
            other |= {
                key
                for key, value in base.items()
                if key != name
                and is_custom(key)
                and (_STORAGE_KEY.fullmatch(key) is None) is by_key
                and _none_as_one(value) == _none_as_one(old)
            }
    return other


def _item(row: Any) -> Any:
    if not isinstance(row, Mapping):
        return row
    kept = {name: value for name, value in row.items() if name != _ADDED_UP}
    if isinstance(kept.get("labor"), Mapping):
        kept["labor"] = {name: value for name, value in kept["labor"].items() if name != _ADDED_UP}
    return kept


def _bare_link(link: Any) -> Any:
    if not isinstance(link, Mapping):
        return link
    return {name: link[name] for name in ("id", "type") if link.get(name)}


def _shown(entity: Entity, name: str, wanted: Any, record: Mapping[str, Any]) -> bool:
    if entity is Entity.ATTACHMENTS and name == "type":
        # of a file, `type` is sent as the id of its file type and answered as what every file is
        name = "record_type_name" if isinstance(wanted, str) and not wanted.isdigit() else "record_type"
    if name not in record and is_custom(name) and entity is not Entity.SETTINGS and not _is_none(wanted):
        others = (value for key, value in record.items() if is_custom(key))
        return any(_same(name, wanted, value) for value in others)
    return _same(name, wanted, record.get(name))


def _same(name: str, wanted: Any, found: Any) -> bool:
    if _is_none(wanted):
        return _is_none(found)
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_same(key, value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, (str, bytes)):
        return _same_list(name, wanted, found)
    if isinstance(wanted, bool) or isinstance(found, bool):
        return _as_bool(wanted) is _as_bool(found)
    if is_date_field(name) and epoch_s(wanted) is not None:
        return epoch_s(wanted) == epoch_s(found)
    if isinstance(wanted, (int, float)) or isinstance(found, (int, float)):
        number = _as_number(wanted)
        return number is not None and number == _as_number(found)
    return _folded(name, wanted) == _folded(name, found)


def _same_list(name: str, wanted: Sequence[Any], found: Any) -> bool:
    if isinstance(found, str):
        found = [part.strip() for part in found.split(",")]  # tags come as one text in places
    if not isinstance(found, list) or len(found) != len(wanted):
        return False
    if name not in _UNORDERED:
        return all(_same("", one, other) for one, other in zip(wanted, found, strict=True))
    left = list(found)
    for one in wanted:
        place = next((place for place, other in enumerate(left) if _same_entry(one, other)), None)
        if place is None:
            return False
        del left[place]
    return True


def _same_entry(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, str) and isinstance(found, Mapping):
        return bool(found.get("id") == wanted)
    return _same("", wanted, found)


def _folded(name: str, value: Any) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip().replace("\r\n", "\n")
    return " ".join(text.split()).casefold() if name in _ID_OF_NAME else text


def _as_number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, (int, float)) else None


def _as_bool(value: Any) -> Any:
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower(), value)
    return bool(value) if value in (0, 1, None) else value


def is_custom(name: str) -> bool:
    """A custom field's key, or a label as people write them: a space, a capital or punctuation in it."""
    return _STORAGE_KEY.fullmatch(name) is not None or _PLAIN_NAME.fullmatch(name) is None


def _is_none(value: Any) -> bool:
    """JobNimbus says none as null, "", 0, false, an empty list, or not at all."""
    return value is None or (isinstance(value, (str, bool, int, float, list, tuple, dict)) and not value)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _none_as_one(value: Any) -> Any:
    return None if _is_none(value) else value
