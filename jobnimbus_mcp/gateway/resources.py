"""The URIs by which records are known outside: `jobnimbus://{instance}/{entity}/{jnid}`."""

from __future__ import annotations

import re
from typing import NamedTuple

from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.errors import InvalidInput

__all__ = ["RESOURCE_KINDS", "SCHEME", "Located", "located", "uri_of"]

SCHEME = "jobnimbus"

RESOURCE_KINDS = (
    Entity.JOBS,
    Entity.CONTACTS,
    Entity.ESTIMATES,
    Entity.ACTIVITIES,
    Entity.TASKS,
    Entity.WORKORDERS,
    Entity.ATTACHMENTS,
    Entity.USERS,
)
"""Kinds of which one record can be read: every kind the tools read that has records of its own."""

_FORM = re.compile(
    rf"{SCHEME}://(?P<instance>[a-z0-9][a-z0-9_-]{{0,31}})/(?P<kind>[a-z]+)/(?P<jnid>[A-Za-z0-9]{{1,64}})"
)
_KINDS = {kind.value: kind for kind in RESOURCE_KINDS}


class Located(NamedTuple):
    """What a URI names."""

    instance: str
    ref: EntityRef


def uri_of(instance: str, ref: EntityRef) -> str:
    """The one spelling of a record's URI: whoever compares URIs compares texts."""
    return f"{SCHEME}://{instance}/{ref.entity.value}/{ref.jnid}"


def located(uri: str) -> Located:
    """What the URI names; whether it exists is another question.

    Raises:
        InvalidInput: it is not of this form, or its kind is none that can be read singly.
    """
    found = _FORM.fullmatch(uri)
    if found is None:
        raise InvalidInput(
            f"This is no resource URI of this server: {SCHEME}://<account>/<kind>/<jnid>.",
            field="uri",
        )
    kind = _KINDS.get(found["kind"])
    if kind is None:
        raise InvalidInput(
            f"There are no resources of the kind {found['kind'][:40]!r}. There are: {', '.join(_KINDS)}.", field="uri"
        )
    return Located(found["instance"], EntityRef(kind, found["jnid"]))
