"""The kinds of record: their path, envelope and limits, and every documented field with its empty value.

Source: JobNimbus API documentation, entity pages; field lists as public clients of the API have recorded them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["BLANK", "KINDS", "Kind", "Record", "canonical", "kind_of_type", "reference"]

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record. `size_max`: rows of one page at most; `window`: highest `from` + `size` that is answered.

    `has_detail`: its path goes on with a jnid. `is_created`: the path takes a POST. `list_path`: a second path that
    lists and does nothing else ("" none).
    """

    name: str
    path: str
    envelope: str
    type: str
    object_type: str | None = None
    size_max: int = 1000
    window: int = 10_000
    has_detail: bool = True
    is_created: bool = True
    list_path: str = ""


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("contacts", "contacts", "results", "contact", object_type="contact"),
            Kind("jobs", "jobs", "results", "job", object_type="job"),
            Kind("tasks", "tasks", "results", "task"),
            Kind("activities", "activities", "activity", "activity", window=1000),
            Kind("files", "files", "files", "attachment"),
            Kind("estimates", "v2/estimates", "results", "estimate"),
            Kind("workorders", "v2/workorders", "results", "workorder", object_type="workorder", size_max=10_000),
            Kind("invoices", "v2/invoices", "results", "invoice", list_path="invoices"),
            # Created under another root, see `api_asgi.py`.
            Kind("payments", "payments", "results", "payment", has_detail=False, is_created=False),
            Kind("products", "v2/products", "results", "product"),
            Kind("materialorders", "v2/materialorders", "results", "materialorder"),
            Kind("budgets", "budgets", "results", "budget", has_detail=False, is_created=False),
        )
    }
)

_BY_SPELLING: Mapping[str, str] = MappingProxyType(
    {
        spelling: kind.name
        for kind in KINDS.values()
        for spelling in {kind.name, kind.path, "attachments" if kind.name == "files" else kind.name}
    }
)
_BY_TYPE: Mapping[str, str] = MappingProxyType({kind.type: kind.name for kind in KINDS.values()})


def canonical(entity: str) -> str | None:
    """The kind's name for any accepted spelling (`v2/estimates`, `attachments`, ...); None: no such kind."""
    return _BY_SPELLING.get(entity.strip("/"))


def kind_of_type(record_type: object) -> str | None:
    """The kind's name for a record's `type` value (`attachment` -> `files`); None: no such kind."""
    return _BY_TYPE.get(record_type) if isinstance(record_type, str) else None


def reference(record: Mapping[str, Any]) -> Record:
    """What other records keep of this one: a snapshot, never refreshed when this one is renamed."""
    return {
        "id": record["jnid"],
        "type": record["type"],
        "name": record.get("display_name") or record.get("name") or record.get("title") or record.get("filename"),
        "number": record.get("number"),
        "email": record.get("email"),
        "subject": None,
    }


_SHARED: Record = {
    "jnid": "",
    "recid": 0,
    "number": None,
    "type": "",
    "customer": "",
    "external_id": None,
    "merged": None,
    "created_by": None,
    "created_by_name": None,
    "date_created": 0,
    "date_updated": 0,
    "is_active": True,
    "is_archived": False,
    "owners": [],
    "sales_rep": None,
    "sales_rep_name": None,
    "location": {"id": 1},
    "related": [],
    "tags": [],
    "rules": [],
}

_CLASSIFIED: Record = {
    "record_type": 0,
    "record_type_name": "",
    "status": 0,
    "status_name": "",
    "date_status_change": 0,
    "class_id": None,
    "class_name": None,
}

_SCHEDULED: Record = {
    "date_start": 0,
    "date_end": 0,
    "all_day": False,
    "all_day_start_date": "",
    "all_day_end_date": "",
}

_ADDRESSED: Record = {
    "address_line1": "",
    "address_line2": "",
    "city": "",
    "state_text": "",
    "zip": "",
    "country_name": "United States",
    "geo": {"lat": 0, "lon": 0},
}

_TOTALS: Record = {
    "task_count": 0,
    "attachment_count": 0,
    "estimated_time": 0,
    "actual_time": 0,
    "approved_estimate_total": 0,
    "approved_invoice_total": 0,
    "approved_invoice_due": 0,
    "last_estimate": 0,
    "last_estimate_jnid": None,
    "last_estimate_number": None,
    "last_estimate_date_created": 0,
    "last_estimate_date_estimate": 0,
    "last_invoice": 0,
    "last_invoice_jnid": None,
    "last_invoice_number": None,
    "last_invoice_date_created": 0,
    "last_invoice_date_invoice": 0,
    "last_budget_revenue": 0,
    "last_budget_gross_profit": 0,
    "last_budget_gross_margin": 0,
}

_PARENTED: Record = {
    "parent_home_phone": None,
    "parent_mobile_phone": None,
    "parent_work_phone": None,
    "parent_fax_number": None,
    "parent_approved_estimate_total": 0,
    "parent_approved_invoice_total": 0,
    "parent_approved_invoice_due": 0,
    "parent_last_estimate": 0,
    "parent_last_invoice": 0,
}

_PRICED: Record = {
    "esigned": False,
    "signature_status": None,
    "subtotal": 0,
    "tax": 0,
    "total": 0,
    "cost": 0,
    "margin": 0,
    "note": "",
    "terms": None,
    "source": None,
    "version": None,
    "duplicate_from_id": None,
}

_DOCUMENT: Record = {
    "guid": None,
    "attachment_id": None,
    "template_id": None,
    "items": [],
    "sections": [],
    "internal_note": "",
    "date_status_change": 0,
    "class_id": None,
    "class_name": None,
}

BLANK: Mapping[str, Record] = MappingProxyType(
    {
        "contacts": {
            **_SHARED,
            **_CLASSIFIED,
            **_ADDRESSED,
            **_TOTALS,
            "type": "contact",
            "first_name": "",
            "last_name": "",
            "display_name": "",
            "company": "",
            "description": "",
            "email": "",
            "home_phone": None,
            "mobile_phone": None,
            "work_phone": "",
            "fax_number": "",
            "website": "",
            "date_start": 0,
            "date_end": 0,
            "source": None,
            "source_name": None,
            "is_lead": False,
            "is_closed": False,
            "is_sub_contractor": False,
            "is_sub": False,
            "is_user": False,
            "disable_auto_text": False,
            "open_edge_id": None,
            "subcontractors": [],
            "image_id": None,
        },
        "jobs": {
            **_SHARED,
            **_CLASSIFIED,
            **_SCHEDULED,
            **_ADDRESSED,
            **_TOTALS,
            **_PARENTED,
            "type": "job",
            "name": "",
            "description": "",
            "primary": None,
            "source": None,
            "source_name": None,
            "is_lead": False,
            "is_closed": False,
            "subcontractors": [],
            "image_id": None,
            "fieldassists": [],
            "stage_dates_overrides": [],
            "stage_dates_overrides_on": False,
            "sunlight_status": None,
        },
        "tasks": {
            **_SHARED,
            **_SCHEDULED,
            "type": "task",
            "title": "",
            "description": "",
            "record_type": 0,
            "record_type_name": "",
            "date_sort": 0,
            "is_completed": False,
            "priority": 0,
            "hide_from_calendarview": False,
            "hide_from_tasklist": False,
            "estimated_time": 0,
            "actual_time": 0,
            "primary": None,
        },
        "activities": {
            **_SHARED,
            "type": "activity",
            "note": "",
            "record_type": 0,
            "record_type_name": "",
            "is_status_change": False,
            "is_editable": True,
            "is_private": False,
            "primary": None,
            "email_status": None,
            "source": None,
            "stack": None,
        },
        "files": {
            **_SHARED,
            "type": "attachment",
            "filename": "",
            "content_type": "application/octet-stream",
            "size": 0,
            "md5": "",
            "description": "",
            "record_type": 1,
            "record_type_name": "Document",
            "is_private": False,
            "upload_status": "complete",
            "date_file_created": 0,
            "exif": [],
            "primary": None,
        },
        "estimates": {
            **_SHARED,
            **_DOCUMENT,
            "type": "estimate",
            "status": 1,
            "status_name": "Draft",
            "date_estimate": 0,
            "date_sign_requested": 0,
            "date_signed": 0,
            "esigned": False,
            "signature_status": None,
            "subtotal": 0,
            "tax": 0,
            "total": 0,
            "cost": 0,
            "margin": 0,
            "note": "",
            "terms": None,
            "source": None,
            "supplier": None,
            "version": None,
            "duplicate_from_id": None,
        },
        "workorders": {
            **_SHARED,
            **_CLASSIFIED,
            **_SCHEDULED,
            **_PARENTED,
            **_DOCUMENT,
            "type": "workorder",
            "name": "",
            "customer_note": "",
            "total_line_item_cost": 0,
            "total_line_item_price": 0,
            "subcontractors": [],
            "primary": None,
            "cf_string_1": None,
            "cf_date_1": None,
            "cf_boolean_1": None,
        },
        "invoices": {
            **_SHARED,
            **_DOCUMENT,
            **_PRICED,
            "type": "invoice",
            "status": 1,
            "status_name": "Draft",
            "date_invoice": 0,
            "date_due": 0,
            "date_paid_in_full": 0,
            "first_payment_date": 0,
            "total_paid": 0,
            "due": 0,
            "payments": [],
        },
        "payments": {
            **_SHARED,
            "type": "payment",
            "total": 0,
            "credit": 0,
            "refunded_amount": 0,
            "surcharge": 0,
            "method_id": 0,
            "reference": "",
            "date_payment": 0,
            "primary": None,
            "invoices": [],
            "estimates": [],
            "transaction_id": None,
            "external_record_id": None,
            "refund_id": None,
            "chargeback_id": None,
        },
        # Owned by nobody and linked to nothing.
        "products": {
            "jnid": "",
            "recid": 0,
            "type": "product",
            "customer": "",
            "external_id": None,
            "created_by": None,
            "created_by_name": None,
            "date_created": 0,
            "date_updated": 0,
            "is_active": True,
            "is_archived": False,
            "name": "",
            "description": "",
            "item_type": "material",
            "location_id": 1,
            "tax_exempt": False,
            "suppliers": [],
            "uoms": [],
        },
        "materialorders": {
            **_SHARED,
            **_DOCUMENT,
            "type": "materialorder",
            "status": 0,
            "status_name": "Draft",
            "date_materialorder": 0,
            "address": {"line1": "", "line2": "", "city": "", "state_text": "", "zip": "", "geo": {"lat": 0, "lon": 0}},
            "supplier": {
                "type": "manual",
                "branch": None,
                "customer_branch": None,
                "customer_job": None,
                "customer_job_name": None,
                "delivery_time": None,
                "po": None,
                "status": None,
                "logs": [],
            },
            "total_line_item_cost": 0,
            "total_line_item_price": 0,
        },
        "budgets": {
            **_SHARED,
            "type": "budget",
            "status": 1,
            "status_name": "Open",
            "date_budget": 0,
            "revenue": 0,
            "total_cost": 0,
            "total_commissions": 0,
            "gross_profit": 0,
            "gross_margin": 0,
            "net_profit": 0,
            "net_margin": 0,
        },
    }
)
