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
        Entity.INVOICES: ("jnid", "number", "status_name", "total", "due", "date_invoice", "date_due"),
        Entity.PAYMENTS: ("jnid", "total", "date_payment", "reference"),
        Entity.PRODUCTS: ("jnid", "name", "item_type"),
        Entity.WORKORDERS: ("jnid", "number", "name", "status_name", "date_start", "date_end"),
        Entity.MATERIALORDERS: ("jnid", "number", "status_name", "date_materialorder", "total_line_item_cost"),
        Entity.BUDGETS: ("jnid", "number", "status_name", "revenue", "gross_profit", "date_budget"),
        Entity.SETTINGS: ("id", "name", "object_type"),
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
            *("jnid", "record_type_name", "note", "primary", "related", "created_by_name", "date_created"),
        ),
        Entity.TASKS: (
            *("jnid", "title", "description", "record_type_name", "is_completed"),
            *("date_start", "date_end", "owners", "related"),
        ),
        Entity.ATTACHMENTS: (
            *("jnid", "filename", "content_type", "size", "description", "record_type_name"),
            *("primary", "related", "created_by_name", "date_created"),
        ),
        Entity.USERS: ("id", "first_name", "last_name", "email", "is_active"),
        Entity.CALENDAR: (
            *("jnid", "type", "number", "title", "name", "description", "record_type_name", "status_name"),
            *("date_start", "date_end", "all_day", "all_day_start_date", "all_day_end_date"),
            *("owners", "primary", "related", *_ADDRESS, "is_completed"),
        ),
        Entity.INVOICES: (
            *("jnid", "number", "status_name", "subtotal", "tax", "total", "total_paid", "due"),
            *("date_invoice", "date_due", "date_paid_in_full", "date_created", "date_updated"),
            *("related", "sales_rep_name", "note", "internal_note"),
        ),
        Entity.PAYMENTS: (
            *("jnid", "total", "credit", "refunded_amount", "surcharge", "method_id", "reference", "date_payment"),
            *("primary", "related", "invoices", "created_by_name", "date_created", "date_updated"),
        ),
        Entity.PRODUCTS: (
            *("jnid", "name", "description", "item_type", "uoms", "tax_exempt", "location_id", "is_active"),
            "date_updated",
        ),
        Entity.WORKORDERS: (
            *("jnid", "number", "name", "record_type_name", "status_name", "date_start", "date_end", "all_day"),
            *("all_day_start_date", "all_day_end_date", "owners", "subcontractors", "sales_rep_name"),
            *("primary", "related", "customer_note", "internal_note"),
            *("total_line_item_cost", "total_line_item_price", "date_created", "date_updated"),
        ),
        Entity.MATERIALORDERS: (
            *("jnid", "number", "status_name", "date_materialorder", "address", "supplier", "owners", "related"),
            *("total_line_item_cost", "total_line_item_price", "note", "internal_note"),
            *("date_created", "date_updated"),
        ),
        Entity.BUDGETS: (
            *("jnid", "number", "status_name", "date_budget", "revenue", "total_cost", "total_commissions"),
            *("gross_profit", "gross_margin", "net_profit", "net_margin", "related", "sales_rep_name"),
            *("date_created", "date_updated"),
        ),
        Entity.SETTINGS: ("id", "name", "object_type", "status", "is_active"),
    }
)
