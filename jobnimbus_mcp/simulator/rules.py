"""What the API refuses, and with which words.

Source: JobNimbus API documentation, errors and the create/update notes of each entity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from jobnimbus_mcp.simulator.account import Account
from jobnimbus_mcp.simulator.file_rules import refiled
from jobnimbus_mcp.simulator.known import known_fields
from jobnimbus_mcp.simulator.refusal import UNRELATED, Refusal
from jobnimbus_mcp.simulator.settings_seed import STATUSES, find_source, find_status, find_type, find_workflow
from jobnimbus_mcp.simulator.shapes import BLANK, KINDS, Record

__all__ = ["accepted_change", "accepted_new", "accepted_payment"]

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "contacts": ("record_type_name", "status_name"),
    "jobs": ("name", "record_type_name", "status_name"),
    "tasks": ("title", "date_start", "record_type_name"),
    "activities": ("note", "record_type_name", "primary"),
    "estimates": ("type", "is_active", "status", "related", "items"),
    "workorders": ("name", "record_type_name", "status_name"),
    "invoices": ("type", "is_active", "status", "related", "items"),
    "products": ("name", "description", "item_type", "location_id", "is_active", "tax_exempt", "uoms"),
    "materialorders": ("related", "items"),
}
_ITEM_TYPES = ("material", "labor", "labor+material")
_CONTACT_NAMES = ("first_name", "last_name", "display_name", "company")


def accepted_new(kind: str, body: Mapping[str, Any], account: Account) -> Record:
    """The fields of a POST that count. Unknown keys are dropped, as the service ignores them.

    Raises: Refusal for what the service would refuse.
    """
    if kind == "activities" and "related" in body:
        raise Refusal(400, UNRELATED)
    missing = [name for name in _REQUIRED[kind] if body.get(name) is None or body[name] == ""]
    if missing:
        raise Refusal(400, f"Missing required field(s): {', '.join(missing)}")
    if kind == "contacts" and not any(body.get(name) for name in _CONTACT_NAMES):
        raise Refusal(400, f"Missing required field(s): one of {', '.join(_CONTACT_NAMES)}")
    if kind == "contacts" and body.get("sales_rep"):
        # One account's observation; the same field is taken from a PUT right afterwards.
        raise Refusal(500, f"CouchbaseError: the key does not exist on the server - user::{body['sales_rep']}")
    if KINDS[kind].path.startswith("v2/") and body.get("type", KINDS[kind].type) != KINDS[kind].type:
        raise Refusal(400, f"Invalid type - {body['type']}")
    fields = known_fields(kind, body, account)
    _check(kind, fields, account, None)
    return fields


def accepted_change(kind: str, jnid: str, body: Mapping[str, Any], account: Account) -> Record:
    """The fields of a PUT that count.

    Raises: Refusal for what the service would refuse.
    """
    # The documentation's own way to delete a work order sends the flag alone.
    if KINDS[kind].path.startswith("v2/") and body.get("jnid") != jnid and set(body) != {"is_active"}:
        raise Refusal(400, "DocId must match the jnid used in the body")
    fields = known_fields(kind, body, account)
    if kind == "activities":
        fields.pop("related", None)
    if kind == "files":
        fields |= refiled(body, account)
    _check(kind, fields, account, jnid)
    return fields


def accepted_payment(body: Mapping[str, Any], account: Account) -> Record:
    """The fields of a POST to the payments' own root that count.

    Raises: Refusal for what the service would refuse, 500 for a field that is missing.
    """
    missing = [name for name in ("total", "related") if body.get(name) in (None, "", [])]
    if missing:
        raise Refusal(500, f"Missing required field(s): {', '.join(missing)}")
    fields = known_fields("payments", body, account)
    if isinstance(fields["total"], bool) or not isinstance(fields["total"], (int, float)):
        raise Refusal(400, f"Invalid total - {fields['total']}")
    invoices = fields.get("invoices") or []
    if not isinstance(invoices, list):
        raise Refusal(400, f"Invalid invoices - {invoices}")
    for entry in invoices:
        jnid = entry.get("invoice_id") if isinstance(entry, dict) else entry
        if not isinstance(entry, dict) or not isinstance(jnid, str) or account.get("invoices", jnid) is None:
            raise Refusal(400, f"Invalid invoice_id - {jnid}")
    fields["invoices"] = invoices
    _check("payments", fields, account, None)
    return fields


def _check(kind: str, fields: Mapping[str, Any], account: Account, jnid: str | None) -> None:
    _check_type_and_status(kind, fields, account, jnid)
    email = fields.get("email")
    if kind == "contacts" and email and not (isinstance(email, str) and _EMAIL.fullmatch(email)):
        raise Refusal(400, f"Invalid email - {email}")
    source = fields.get("source_name")
    if kind in ("contacts", "jobs") and source and find_source(account.settings, source) is None:
        raise Refusal(400, f"Invalid source_name - {source}")
    _check_names(kind, fields, account, jnid)
    if kind == "products":
        _check_product(fields)
    if kind == "files":
        _check_links({"primary": _as_link(fields.get("primary"))}, account)
    else:
        _check_links(fields, account)
    for name in ("date_start", "date_end", "date_created", "date_payment", "date_invoice", "date_due"):
        value = fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise Refusal(400, f"Invalid {name} - {value}")


def _check_type_and_status(kind: str, fields: Mapping[str, Any], account: Account, jnid: str | None) -> None:
    if kind in STATUSES:
        status = fields.get("status")
        if status is not None and (isinstance(status, (bool, float, str, list, dict)) or status not in STATUSES[kind]):
            raise Refusal(400, f"Invalid status - {status}")
        return
    object_type = KINDS[kind].object_type
    type_name = fields.get("record_type_name", fields.get("record_type"))
    if object_type is None:
        has_types = "record_type" in BLANK[kind]
        if has_types and type_name is not None and find_type(account.settings, kind, type_name) is None:
            raise Refusal(400, f"Invalid record_type_name - {type_name}")
        return
    if type_name is None and jnid is not None:
        current = account.get(kind, jnid)
        type_name = current["record_type"] if current else None
    workflow = find_workflow(account.settings, object_type, type_name)
    if workflow is None or not workflow["is_active"]:
        raise Refusal(400, f"Invalid record_type_name - {type_name}")
    status = fields.get("status_name", fields.get("status"))
    if status is not None and find_status(workflow, status) is None:
        raise Refusal(400, f"Invalid status_name - {status}")


def _check_names(kind: str, fields: Mapping[str, Any], account: Account, jnid: str | None) -> None:
    name_of: dict[str, Callable[[], Any]] = {
        "contacts": lambda: fields.get("display_name") or (None if jnid else _default_name(fields)),
        "jobs": lambda: fields.get("name"),
    }
    if kind not in name_of:
        return
    name, field = name_of[kind](), "display_name" if kind == "contacts" else "name"
    if name is None:
        return
    if not isinstance(name, str):
        raise Refusal(400, f"Invalid {field} - {name}")
    if account.text_taken(kind, field, name, but=jnid):
        raise Refusal(400, f"Duplicate {KINDS[kind].type} exists")


def _default_name(fields: Mapping[str, Any]) -> str:
    full = f"{fields.get('first_name') or ''} {fields.get('last_name') or ''}".strip()
    return full or str(fields.get("company") or "")


def _check_product(fields: Mapping[str, Any]) -> None:
    if "item_type" in fields and fields["item_type"] not in _ITEM_TYPES:
        raise Refusal(400, f"Invalid item_type - {fields['item_type']}")
    if "uoms" in fields and not isinstance(fields["uoms"], list):
        raise Refusal(400, f"Invalid uoms - {fields['uoms']}")


def _as_link(sent: Any) -> Any:
    return {"id": sent} if isinstance(sent, str) else sent


def _check_links(fields: Mapping[str, Any], account: Account) -> None:
    refs = []
    if fields.get("primary") is not None:
        refs.append(fields["primary"])
    related = fields.get("related")
    if related is not None:
        if not isinstance(related, list):
            raise Refusal(400, UNRELATED)
        refs.extend(related)
    for ref in refs:
        jnid = ref.get("id") if isinstance(ref, dict) else None
        if not isinstance(jnid, str) or account.find(jnid) is None:
            raise Refusal(400, UNRELATED)
