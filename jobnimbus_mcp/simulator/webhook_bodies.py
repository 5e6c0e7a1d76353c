"""The default body of a webhook: the bare record, flat and without numeric codes; it never says what happened.

Source: JobNimbus API documentation, webhook payload shapes. Contact and job bodies follow the recorded ones, documents
are slim; the other kinds are the REST record without its numeric codes, which is a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jobnimbus_mcp.simulator.settings_seed import CUSTOM_FIELDS
from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["webhook_body"]

_COMMON = (
    "jnid",
    "type",
    "external_id",
    "number",
    "created_by",
    "created_by_name",
    "date_created",
    "date_updated",
    "date_status_change",
    "date_start",
    "date_end",
    "location",
    "owners",
    "sales_rep",
    "sales_rep_name",
    "description",
    "address_line1",
    "address_line2",
    "city",
    "state_text",
    "zip",
    "country_name",
    "record_type_name",
    "status_name",
    "source_name",
)
_NAMES = ("first_name", "last_name", "company", "display_name", "email", "website")
_PHONES = ("home_phone", "mobile_phone", "work_phone")
_SLIM = ("jnid", "type", "number", "status_name", "date_created", "date_updated", "related", "created_by_name")
_CODES = frozenset({"record_type", "status", "is_active", "rules", "exif"})


def webhook_body(
    record: Record,
    email_of: Callable[[object], str | None],
    custom_fields: Mapping[str, Mapping[str, str]] = CUSTOM_FIELDS,
) -> dict[str, Any]:
    """What is posted about `record`, on creation, change and deletion alike. `email_of(user id)`: None if unknown.
    `custom_fields`: kind of record -> label -> storage key."""
    kind = record["type"]
    if kind in ("estimate", "invoice", "payment"):
        return {key: record[key] for key in _SLIM if key in record}
    if kind not in ("contact", "job"):
        return {key: value for key, value in record.items() if key not in _CODES}
    body = {key: record[key] for key in _COMMON}
    body["sales_rep_email"] = email_of(record["sales_rep"])
    body["created_by_email"] = email_of(record["created_by"])
    if kind == "contact":
        body.update(
            {key: record[key] or "" for key in (*_NAMES, *_PHONES)}, tags=record["tags"], related=record["related"]
        )
        labels = custom_fields["contacts"]
    else:
        tags = record["tags"]
        joined = ",".join(map(str, tags)) if isinstance(tags, list) else tags
        body.update(name=record["name"], related=record["related"], tags=joined)
        labels = custom_fields["jobs"]
    body.update({label: record[label] for label in labels if record.get(label) is not None})
    return body
