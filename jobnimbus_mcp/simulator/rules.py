"""What the API refuses, and with which words.

Source: JobNimbus API documentation, errors and the create/update notes of each entity.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from jobnimbus_mcp.simulator.account import Account
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.rollups import ROLLUP_FIELDS
from jobnimbus_mcp.simulator.settings_seed import CUSTOM_FIELDS, find_source, find_status, find_type, find_workflow
from jobnimbus_mcp.simulator.shapes import BLANK, KINDS, Record

__all__ = ["accepted_change", "accepted_file", "accepted_new"]

_UNRELATED = "Attempt to relate to invalid document"
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "contacts": ("record_type_name", "status_name"),
    "jobs": ("name", "record_type_name", "status_name"),
    "tasks": ("title", "date_start", "record_type_name"),
    "activities": ("note", "record_type_name", "primary"),
    "estimates": ("type", "is_active", "status", "related", "items"),
    "workorders": ("name", "record_type_name", "status_name"),
}
_CONTACT_NAMES = ("first_name", "last_name", "display_name", "company")


def accepted_new(kind: str, body: Mapping[str, Any], account: Account) -> Record:
    """The fields of a POST that count. Unknown keys are dropped, as the service ignores them.

    Raises: Refusal for what the service would refuse.
    """
    if kind == "activities" and "related" in body:
        raise Refusal(400, _UNRELATED)
    missing = [name for name in _REQUIRED[kind] if body.get(name) is None or body[name] == ""]
    if missing:
        raise Refusal(400, f"Missing required field(s): {', '.join(missing)}")
    if kind == "contacts" and not any(body.get(name) for name in _CONTACT_NAMES):
        raise Refusal(400, f"Missing required field(s): one of {', '.join(_CONTACT_NAMES)}")
    if kind == "estimates" and body["type"] != "estimate":
        raise Refusal(400, f"Invalid type - {body['type']}")
    fields = _known(kind, body)
    _check(kind, fields, account, None)
    return fields


def accepted_change(kind: str, jnid: str, body: Mapping[str, Any], account: Account) -> Record:
    """The fields of a PUT that count.

    Raises: Refusal for what the service would refuse.
    """
    # The documentation's own way to delete a work order sends the flag alone.
    if KINDS[kind].path.startswith("v2/") and body.get("jnid") != jnid and set(body) != {"is_active"}:
        raise Refusal(400, "DocId must match the jnid used in the body")
    fields = _known(kind, body)
    if kind == "activities":
        fields.pop("related", None)
    _check(kind, fields, account, jnid)
    return fields


def accepted_file(body: Mapping[str, Any], account: Account) -> tuple[Record, bytes]:
    """The fields and the content of a POST to /files (JSON, base64).

    Links are made only by `type` with a list of plain ids; other shapes are taken without an error and lose the link.

    Raises: Refusal for what the service would refuse.
    """
    missing = [name for name in ("data", "filename") if not body.get(name)]
    if missing:
        raise Refusal(400, f"Missing required field(s): {', '.join(missing)}")
    try:
        content = base64.b64decode(str(body["data"]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "Invalid data - not base64") from error
    number = body.get("type")
    if number is not None:
        found = None if isinstance(number, str) else find_type(account.settings, "files", number)
        if found is None:
            valid = [row["FileTypeId"] for row in account.settings["fileTypes"] if row["IsActive"]]
            raise Refusal(400, f"Invalid type - {number}. Valid FileTypeIds: {', '.join(map(str, valid))}")
    fields = _known("files", {**body, "record_type": number if number is not None else 1})
    for name in ("primary", "related", "record_type_name"):
        fields.pop(name, None)
    related = body.get("related")
    if isinstance(related, list):
        if not all(isinstance(one, str) and account.find(one) is not None for one in related):
            raise Refusal(500, _UNRELATED)
        if number is not None and related:
            jobs = [one for one in related if account.get("jobs", one) is not None]
            fields["primary"] = (jobs or related)[0]
            fields["related"] = related
    fields["size"] = len(content)
    fields["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return fields, content


def _known(kind: str, body: Mapping[str, Any]) -> Record:
    labels = CUSTOM_FIELDS.get(kind, {})
    derived = ROLLUP_FIELDS[kind]
    return {
        key: value
        for key, value in body.items()
        if key not in derived and (key in BLANK[kind] or key in labels or key.startswith("cf_"))
    }


def _check(kind: str, fields: Mapping[str, Any], account: Account, jnid: str | None) -> None:
    _check_type_and_status(kind, fields, account, jnid)
    email = fields.get("email")
    if kind == "contacts" and email and not (isinstance(email, str) and _EMAIL.fullmatch(email)):
        raise Refusal(400, f"Invalid email - {email}")
    source = fields.get("source_name")
    if kind in ("contacts", "jobs") and source and find_source(account.settings, source) is None:
        raise Refusal(400, f"Invalid source_name - {source}")
    _check_names(kind, fields, account, jnid)
    _check_links(fields, account)
    for name in ("date_start", "date_end", "date_created"):
        value = fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise Refusal(400, f"Invalid {name} - {value}")


def _check_type_and_status(kind: str, fields: Mapping[str, Any], account: Account, jnid: str | None) -> None:
    object_type = KINDS[kind].object_type
    type_name = fields.get("record_type_name", fields.get("record_type"))
    if object_type is None:
        if type_name is not None and kind != "estimates" and find_type(account.settings, kind, type_name) is None:
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


def _check_links(fields: Mapping[str, Any], account: Account) -> None:
    refs = []
    if fields.get("primary") is not None:
        refs.append(fields["primary"])
    related = fields.get("related")
    if related is not None:
        if not isinstance(related, list):
            raise Refusal(400, _UNRELATED)
        refs.extend(related)
    for ref in refs:
        jnid = ref.get("id") if isinstance(ref, dict) else None
        if not isinstance(jnid, str) or account.find(jnid) is None:
            raise Refusal(400, _UNRELATED)
