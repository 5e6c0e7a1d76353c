"""What JobNimbus makes of the fields a caller sends: names and ids joined, links expanded, totals worked out.

Nothing is refused here (`rules.py` does that for the API): what cannot be resolved is kept as it was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from jobnimbus_mcp.simulator.paid import amount, plain, unapplied
from jobnimbus_mcp.simulator.settings_seed import (
    STATUSES,
    find_source,
    find_status,
    find_type,
    find_workflow,
)
from jobnimbus_mcp.simulator.shapes import KINDS, Record, reference

__all__ = ["FIXED_FIELDS", "Directory", "normalise"]

FIXED_FIELDS = frozenset({"jnid", "recid", "type", "customer", "date_updated", "created_by", "created_by_name"})
"""Set by JobNimbus alone; sent values are ignored."""


class Directory(Protocol):
    """What resolving names and ids needs to know of the account."""

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def custom_fields(self) -> Mapping[str, Mapping[str, str]]:
        """Kind of record -> label -> storage key."""
        ...

    def find(self, jnid: str) -> Record | None:
        """The live record with that id, of whatever kind."""
        ...

    def user_name(self, user_id: object) -> str | None:
        """The user's present name; None: no such user."""
        ...


def normalise(kind: str, fields: Mapping[str, Any], directory: Directory, current: Record | None) -> Record:
    """The fields to merge into `current` (None: into a new record)."""
    out = {key: value for key, value in fields.items() if key not in FIXED_FIELDS}
    _classify(kind, out, directory.settings, current or {})
    _link(kind, out, directory)
    if "sales_rep" in out:
        out["sales_rep_name"] = directory.user_name(out["sales_rep"])
    for label, key in directory.custom_fields.get(kind, {}).items():
        if label in out or key in out:
            out[label] = out[key] = out[label] if label in out else out[key]
    if isinstance(out.get("items"), list):
        _add_up(kind, out, current or {})
    if kind == "payments":
        _apply(out, directory, current or {})
    if kind == "contacts" and current is None and not out.get("display_name"):
        full = f"{out.get('first_name') or ''} {out.get('last_name') or ''}".strip()
        out["display_name"] = full or out.get("company") or ""
    if isinstance(out.get("number"), int):
        out["number"] = str(out["number"])
    if kind == "tasks" and "date_start" in out:
        out["date_sort"] = out["date_start"]
    return out


def _classify(kind: str, out: Record, settings: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    object_type = KINDS[kind].object_type
    if object_type is not None:
        wanted = out.get("record_type_name", out.get("record_type", current.get("record_type")))
        workflow = find_workflow(settings, object_type, wanted)
        if workflow is not None:
            if "record_type_name" in out or "record_type" in out:
                out["record_type"], out["record_type_name"] = workflow["id"], workflow["name"]
            if "status_name" in out or "status" in out:
                status = find_status(workflow, out.get("status_name", out.get("status")))
                if status is not None:
                    out["status"], out["status_name"] = status["id"], status["name"]
                    if kind != "workorders":
                        out["is_lead"], out["is_closed"] = status["is_lead"], status["is_closed"]
    elif kind in STATUSES:
        _classify_document(STATUSES[kind], out)
    elif "record_type_name" in out or "record_type" in out:
        found = find_type(settings, kind, out.get("record_type_name", out.get("record_type")))
        if found is not None:
            out["record_type"], out["record_type_name"] = found
    if kind in ("contacts", "jobs") and ("source_name" in out or "source" in out):
        source = find_source(settings, out.get("source_name", out.get("source")))
        if source is not None:
            out["source"], out["source_name"] = source["JobSourceId"], source["SourceName"]


def _classify_document(statuses: Mapping[int, str], out: Record) -> None:
    status, name = out.get("status"), out.get("status_name")
    if name is None and isinstance(status, int) and status in statuses:
        out["status_name"] = statuses[status]
    elif isinstance(name, str) and status is None:
        for number, known in statuses.items():
            if known.casefold() == name.casefold():
                out["status"], out["status_name"] = number, known


def _link(kind: str, out: Record, directory: Directory) -> None:
    primary = _expand(out["primary"], directory) if "primary" in out else None
    if "primary" in out:
        out["primary"] = primary
    related = out.get("related")
    if isinstance(related, list):
        related = [one for sent in related if (one := _expand(sent, directory)) is not None]
        # Source: JobNimbus API documentation, links: on tasks only the first element was kept (one source).
        out["related"] = related[:1] if kind == "tasks" else related
        if kind in ("estimates", "invoices"):
            out["related"] = _with_contact(related, directory)
        if kind == "payments" and primary is None:
            primary = out["primary"] = _payer(related, directory)
    if primary is None:
        return
    if kind == "activities" and "related" not in out:
        out["related"] = [primary, *_parent_of(primary, directory)]
    elif kind == "payments" and isinstance(related, list):
        out["related"] = related if primary in related else [*related, primary]
    elif kind != "contacts":
        sent = out.get("related")
        others = [one for one in sent if one["id"] != primary["id"]] if isinstance(sent, list) else []
        out["related"] = [primary, *others]
    if kind == "jobs":
        _copy_parent(out, directory.find(primary["id"]))


def _with_contact(related: list[Record], directory: Directory) -> list[Record]:
    """A document of a job is its contact's too, as recorded ones show."""
    contact = _payer(related, directory)
    return related if contact is None or contact in related else [*related, contact]


def _payer(related: list[Record], directory: Directory) -> Record | None:
    """The contact among the links, else the one that the first of them hangs on."""
    contact = next((one for one in related if one.get("type") == "contact"), None)
    return contact or next(iter(_parent_of(related[0], directory)), None) if related else None


def _expand(sent: Any, directory: Directory) -> Any:
    """A full reference for an id or `{"id": ...}`; whatever else was sent stays as it is."""
    jnid = sent.get("id") if isinstance(sent, dict) else sent
    record = directory.find(jnid) if isinstance(jnid, str) else None
    if record is None:
        return sent if isinstance(sent, dict) and isinstance(jnid, str) else None
    return reference(record)


def _parent_of(primary: Record, directory: Directory) -> list[Record]:
    record = directory.find(primary["id"])
    parent = record.get("primary") if record is not None and record["type"] == "job" else None
    return [parent] if isinstance(parent, dict) else []


def _copy_parent(out: Record, contact: Record | None) -> None:
    if contact is None or contact["type"] != "contact":
        return
    for name in ("home_phone", "mobile_phone", "work_phone", "fax_number"):
        out[f"parent_{name}"] = contact.get(name)


def _add_up(kind: str, out: Record, current: Mapping[str, Any]) -> None:
    price = cost = 0.0
    items = []
    for item in out["items"]:
        if isinstance(item, dict):
            quantity = amount(item.get("quantity"))
            sums: Record = {"amount": plain(quantity * amount(item.get("price")))}
            price, cost = price + sums["amount"], cost + plain(quantity * amount(item.get("cost")))
            labor = item.get("labor")
            if isinstance(labor, dict):
                labor = {**labor, "amount": plain(quantity * amount(labor.get("price")))}
                price, cost = price + labor["amount"], cost + plain(quantity * amount(labor.get("cost")))
                sums["labor"] = labor
            items.append({**item, **sums})
    out["items"] = items
    if kind in ("workorders", "materialorders"):
        out["total_line_item_price"], out["total_line_item_cost"] = plain(price), plain(cost)
    elif kind in ("estimates", "invoices"):
        tax = amount(out.get("tax", current.get("tax")))
        # Source: JobNimbus API documentation, estimates: this one amount is a string.
        out["subtotal"] = str(plain(price)) if kind == "estimates" else plain(price)
        out["total"], out["cost"] = plain(price + tax), plain(cost)
        out["margin"] = round(plain(100 * (price - cost) / price)) if price else 0


def _apply(out: Record, directory: Directory, current: Mapping[str, Any]) -> None:
    """The invoices a payment names become entries of their own; what none of them gets is its credit."""
    entries = out.get("invoices")
    if isinstance(entries, list):
        out["invoices"] = [_entry(entry, directory) for entry in entries if isinstance(entry, dict)]
    if out.keys() & {"total", "refunded_amount", "invoices"}:
        out["credit"] = plain(unapplied({**current, **out}))


def _entry(sent: Record, directory: Directory) -> Record:
    jnid = sent.get("invoice_id")
    invoice = directory.find(jnid) if isinstance(jnid, str) else None
    number = None if invoice is None else invoice.get("number")
    return {"invoice_no": number, "amount": 0, "is_active": True, **sent}
