"""Which fields of each kind an answer shows: a line's worth (summary), and what most questions need (compact)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jobnimbus_mcp.crm.entities import Entity

__all__ = ["COMPACT", "SUMMARY"]

_PERSON = ("jnid", "display_name", "status_name")
_JOB_SUMMARY = ("jnid", "number", "name", "status_name", "date_updated")

SUMMARY: Mapping[Entity, tuple[str, ...]] = MappingProxyType(
    {
        Entity.JOBS: _JOB_SUMMARY,
        Entity.CONTACTS: (*_PERSON, "company", "mobile_phone", "email"),
        Entity.ESTIMATES: ("jnid", "number", "status_name", "total", "date_estimate"),
        Entity.ACTIVITIES: ("jnid", "record_type_name", "note", "date_created"),
        Entity.TASKS: ("jnid", "title", "record_type_name", "is_completed", "date_start", "date_end"),
        Entity.ATTACHMENTS: ("jnid", "filename", "record_type_name", "size", "date_created"),
        Entity.USERS: ("id", "first_name", "last_name"),
        Entity.CALENDAR: ("jnid", "type", "title", "name", "date_start", "date_end"),
    }
)

_ADDRESS = ("address_line1", "address_line2", "city", "state_text", "zip")
_DATES = ("date_created", "date_updated", "date_status_change")

COMPACT: Mapping[Entity, tuple[str, ...]] = MappingProxyType(
    {
        Entity.JOBS: (
            *("jnid", "number", "name", "description", "record_type_name", "status_name", "source_name"),
            *("sales_rep", "sales_rep_name", "owners", "primary", *_ADDRESS, "tags", "is_archived"),
            *("date_start", "date_end", *_DATES),
            *("approved_estimate_total", "approved_invoice_total", "approved_invoice_due", "last_estimate"),
            *("task_count", "attachment_count"),
        ),
        Entity.CONTACTS: (
            *("jnid", "number", "display_name", "first_name", "last_name", "company", "description"),
            *("record_type_name", "status_name", "source_name", "sales_rep", "sales_rep_name", "owners"),
            *("email", "mobile_phone", "home_phone", "work_phone", *_ADDRESS, "tags", *_DATES),
            *("approved_estimate_total", "approved_invoice_due"),
        ),
        Entity.ESTIMATES: (
            *("jnid", "number", "status_name", "subtotal", "tax", "total", "margin", "esigned"),
            *("date_estimate", "date_sign_requested", "date_signed", *_DATES),
            *("related", "sales_rep", "sales_rep_name", "note", "internal_note", "source"),
        ),
        Entity.ACTIVITIES: (
            *("jnid", "record_type_name", "note", "primary", "related", "is_status_change"),
            *("created_by", "created_by_name", "date_created", "date_updated"),
        ),
        Entity.TASKS: (
            *("jnid", "number", "title", "description", "record_type_name", "is_completed", "priority"),
            *("date_start", "date_end", "all_day", "all_day_start_date", "owners", "related"),
            *("created_by_name", "date_created", "date_updated"),
        ),
        Entity.ATTACHMENTS: (
            *("jnid", "filename", "content_type", "size", "description", "record_type_name", "is_private"),
            *("primary", "related", "created_by_name", "date_file_created", "date_created", "date_updated"),
        ),
        Entity.USERS: ("id", "first_name", "last_name", "email", "is_active"),
        Entity.CALENDAR: (
            *("jnid", "type", "number", "title", "name", "description", "record_type_name", "status_name"),
            *("date_start", "date_end", "all_day", "all_day_start_date", "all_day_end_date"),
            *("owners", "primary", "related", *_ADDRESS, "is_completed"),
        ),
    }
)
