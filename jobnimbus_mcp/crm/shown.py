"""What lists under a record show of it: whether they are still right after a change of the record itself.

Source: JobNimbus API documentation, shared record conventions: a link to a record has its id, kind, name, number,
e-mail and subject, and the `parent_...` fields of a row its phones and totals; owners decide who sees a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.crm.relations import DERIVED_FIELDS

__all__ = ["links_say", "shown_under"]

_OF_ITSELF = frozenset(
    {
        *("date_updated", "status", "status_name", "date_status_change", "is_lead", "is_closed"),
        *("description", "date_start", "date_end"),
    }
)
"""Fields that nothing under a record shows or follows. Every field that is not named here may be shown."""

_NOT_SHOWN = {entity: _OF_ITSELF | DERIVED_FIELDS.get(entity, frozenset()) for entity in Entity}

_OF_THE_ROW = frozenset({"id", "type", "old_status", "new_status"})
"""Of a link: which record is meant, and what an entry of the activity log says of the change that it is about."""


def shown_under(entity: Entity, record: Mapping[str, Any]) -> bytes:
    """A digest of all that lists under this record may show of it, or follow. Totals apart, which move without a change
    of the record, and so without a renewal."""
    kept = dict(record)
    for name in _NOT_SHOWN[entity]:
        kept.pop(name, None)
    return hashlib.blake2b(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


def links_say(row: Mapping[str, Any], ref: EntityRef, record: Mapping[str, Any]) -> bool:
    """Is what the row's links say of the record `ref` what it says of itself?"""
    fields = {"name": facts_of(ref.entity).title, "number": "number", "email": "email", "subject": "subject"}
    related = row.get("related")
    for link in (row.get("primary"), *(related if isinstance(related, list) else (related,))):
        if not isinstance(link, Mapping) or link.get("id") != ref.jnid:
            continue
        for name in link.keys() - _OF_THE_ROW:
            if name not in fields or (link[name] or None) != (record.get(fields[name]) or None):
                return False
    return True
