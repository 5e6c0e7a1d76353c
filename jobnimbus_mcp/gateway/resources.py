"""The URIs by which records and lists are known outside, and what each of them names.

    jobnimbus://{instance}/{kind}/{jnid}                one record
    jobnimbus://{instance}/{jobs|contacts}/{jnid}/{kind}  what hangs on a job or contact
    jobnimbus://{instance}/{kind}/{by}/{value}          a list: jobs by status, owner or tag, contacts by status or tag
    jobnimbus://{instance}/{users|settings}             all of them

A value is percent-encoded. Whoever compares URIs compares texts, so there is one spelling of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote

from jobnimbus_mcp.crm.entities import Change, Entity, EntityRef
from jobnimbus_mcp.crm.relations import CHILDREN
from jobnimbus_mcp.errors import InvalidInput

__all__ = [
    "LISTS_BY",
    "PARENTS_MOST",
    "RELATED_LISTS",
    "RESOURCE_KINDS",
    "SCHEME",
    "WHOLE_KINDS",
    "AllOf",
    "ListBy",
    "ListUnder",
    "Place",
    "RecordAt",
    "any_list_of",
    "located",
    "spelled",
    "uri_of",
    "uris_of_change",
]

SCHEME = "jobnimbus"

RESOURCE_KINDS = (
    Entity.JOBS,
    Entity.CONTACTS,
    Entity.ESTIMATES,
    Entity.INVOICES,
    Entity.PAYMENTS,
    Entity.PRODUCTS,
    Entity.ACTIVITIES,
    Entity.TASKS,
    Entity.WORKORDERS,
    Entity.MATERIALORDERS,
    Entity.BUDGETS,
    Entity.ATTACHMENTS,
    Entity.USERS,
)
"""Kinds of which one record can be read."""

RELATED_LISTS: Mapping[Entity, tuple[Entity, ...]] = MappingProxyType(
    {parent: CHILDREN[parent] for parent in (Entity.JOBS, Entity.CONTACTS)}
)
"""What is listed under a job and under a contact."""

LISTS_BY: Mapping[Entity, tuple[str, ...]] = MappingProxyType(
    {Entity.JOBS: ("status", "owner", "tag"), Entity.CONTACTS: ("status", "tag")}
)
"""What lists of a kind can be asked by; no jnid is spelled like one of these words."""

WHOLE_KINDS = (Entity.USERS, Entity.SETTINGS)

PARENTS_MOST = 20
"""Records that a change is told under one by one; what hangs on more is told as if nobody knew on what."""

_VALUE_MOST = 120
_SEGMENT = r"[A-Za-z0-9._~!$&'()*+,;=:@%-]{1,1500}"
_FORM = re.compile(
    rf"{SCHEME}://(?P<instance>[a-z0-9][a-z0-9_-]{{0,31}})/(?P<kind>[a-z]+)(?:/(?P<second>{_SEGMENT}))?"
    rf"(?:/(?P<third>{_SEGMENT}))?"
)
_JNID = re.compile(r"[A-Za-z0-9]{1,64}")
_KINDS = {kind.value: kind for kind in (*RESOURCE_KINDS, Entity.SETTINGS)}


class RecordAt(NamedTuple):
    """One record."""

    instance: str
    ref: EntityRef

    @property
    def kind(self) -> Entity:
        return self.ref.entity


@dataclass(frozen=True, slots=True)
class ListUnder:
    """The records of a kind that hang on a job or contact."""

    instance: str
    parent: EntityRef
    kind: Entity


@dataclass(frozen=True, slots=True)
class ListBy:
    """The records of a kind that have this value; `by` is one of LISTS_BY."""

    instance: str
    kind: Entity
    by: str
    value: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """All users, or the settings."""

    instance: str
    kind: Entity


Place = RecordAt | ListUnder | ListBy | AllOf


def uri_of(instance: str, ref: EntityRef) -> str:
    """A record's URI."""
    return f"{SCHEME}://{instance}/{ref.entity.value}/{ref.jnid}"


def spelled(place: Place) -> str:
    """The URI of any place."""
    head = f"{SCHEME}://{place.instance}"
    match place:
        case RecordAt(instance, ref):
            return uri_of(instance, ref)
        case ListUnder(_, parent, kind):
            return f"{head}/{parent.entity.value}/{parent.jnid}/{kind.value}"
        case ListBy(_, kind, by, value):
            return f"{head}/{kind.value}/{by}/{quote(value, safe='')}"
        case AllOf(_, kind):
            return f"{head}/{kind.value}"


def any_list_of(instance: str, kind: Entity) -> str:
    """Stands for every list of the kind under whatever record; no resource, but a word between processes."""
    return f"{SCHEME}://{instance}/*/*/{kind.value}"


def uris_of_change(instance: str, change: Change) -> Iterable[str]:
    """What a change concerns: the record, and the lists under the records it hangs on.

    The kinds of those are not told, so each is named as a job and as a contact; nobody can watch the one that is not
    there. Where nobody told what it hangs on, every list of the kind may have changed. A record that was moved is told
    under its new parent only: nobody knows the old one.
    """
    kind = change.ref.entity
    if kind in RESOURCE_KINDS:
        yield uri_of(instance, change.ref)
    over = [parent for parent, kinds in RELATED_LISTS.items() if kind in kinds]
    if not over:
        return
    if change.parents is None or len(change.parents) > PARENTS_MOST:
        yield any_list_of(instance, kind)
        return
    for jnid in sorted(change.parents):
        for parent in over:
            yield spelled(ListUnder(instance, EntityRef(parent, jnid), kind))


def located(uri: str) -> Place:
    """What the URI names; whether it exists is another question.

    Raises:
        InvalidInput: it is not of these forms.
    """
    found = _FORM.fullmatch(uri)
    if found is None:
        raise InvalidInput(
            f"This is no resource URI of this server: {SCHEME}://<account>/<kind>/<jnid>, and the templates listed.",
            field="uri",
        )
    instance, second, third = found["instance"], found["second"], found["third"]
    kind = _KINDS.get(found["kind"])
    if kind is None:
        raise InvalidInput(
            f"There are no resources of the kind {found['kind'][:40]!r}. There are: {', '.join(_KINDS)}.", field="uri"
        )
    place: Place | None = None
    if second is None:
        place = AllOf(instance, kind) if kind in WHOLE_KINDS else None
    elif third is None:
        place = (
            RecordAt(instance, EntityRef(kind, second)) if kind in RESOURCE_KINDS and _JNID.fullmatch(second) else None
        )
    elif second in LISTS_BY.get(kind, ()):
        place = ListBy(instance, kind, second, _decoded(third))
    elif third in (listed.value for listed in RELATED_LISTS.get(kind, ())) and _JNID.fullmatch(second):
        place = ListUnder(instance, EntityRef(kind, second), Entity(third))
    if place is None:
        raise InvalidInput("No resource has such a URI; resources/templates/list shows their forms.", field="uri")
    if spelled(place) != uri:
        raise InvalidInput(f"Spell it as {spelled(place)}", field="uri")
    return place


def _decoded(segment: str) -> str:
    """The text of a percent-encoded segment.

    Raises:
        InvalidInput: no UTF-8, too long, or nothing that a name may hold.
    """
    try:
        text = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        text = ""
    if not text.strip() or len(text) > _VALUE_MOST or not text.isprintable():
        raise InvalidInput(
            f"The value in the URI must be percent-encoded text of at most {_VALUE_MOST} characters.", field="uri"
        )
    return text
