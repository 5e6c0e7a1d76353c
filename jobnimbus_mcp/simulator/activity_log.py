"""The activities JobNimbus writes by itself about contacts and jobs: created, changed, moved to a status, deleted.

Source: JobNimbus API documentation, activities and deletes. No other kind of record leaves a trace there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.simulator.settings_seed import find_type
from jobnimbus_mcp.simulator.shapes import Record, reference

__all__ = ["has_moved", "log_entries"]

_WORDS = {"contacts": "Contact", "jobs": "Job"}
_UNLISTED = frozenset(
    {"date_updated", "date_status_change", "status", "status_name", "record_type", "source", "sales_rep"}
    | {"is_lead", "is_closed"}
)


def log_entries(kind: str, before: Record | None, after: Record | None, settings: Mapping[str, Any]) -> list[Record]:
    """The fields of the activities that a write leaves behind; `before` None: a creation, `after` None: a deletion."""
    word = _WORDS.get(kind)
    subject = after if after is not None else before
    if word is None or subject is None:
        return []
    if before is None or after is None:
        verb = "Created" if before is None else "Deleted"
        return [_entry(f"{word} {verb}", subject, f"{word} {verb}\n{reference(subject)['name']}", settings)]
    entries = []
    if has_moved(before, after):
        old, new = before.get("status_name"), after.get("status_name")
        # Both wordings are in the wild.
        note = f"Status changed from {old} to {new}." if kind == "contacts" else f"Job Updated\nStatus: {old} => {new}"
        moved = _entry("Status Changed", subject, note, settings)
        codes = {"old_status": before.get("status"), "new_status": after.get("status")}
        entries.append({**moved, "is_status_change": True, "primary": {**moved["primary"], **codes}})
    lines = _changed_lines(before, after)
    if lines:
        entries.append(_entry(f"{word} Modified", subject, "\n".join([f"{word} Updated", *lines]), settings))
    return entries


def has_moved(before: Record, after: Record) -> bool:
    """Whether the status is another one."""
    return (after.get("status"), after.get("status_name")) != (before.get("status"), before.get("status_name"))


def _entry(type_name: str, subject: Record, note: str, settings: Mapping[str, Any]) -> Record:
    found = find_type(settings, "activities", type_name)
    primary, parent = reference(subject), subject.get("primary")
    return {
        "owners": subject["owners"],
        "sales_rep": subject["sales_rep"],
        "sales_rep_name": subject["sales_rep_name"],
        "note": note,
        "record_type": 0 if found is None else found[0],
        "record_type_name": type_name,
        "is_editable": False,
        "primary": primary,
        "related": [primary, parent] if isinstance(parent, dict) else [primary],
    }


def _changed_lines(before: Record, after: Record) -> list[str]:
    """`Field: old => new` for each plain field that differs; status, stamps and mirrored custom keys left out."""
    lines = []
    for key, new in after.items():
        old = before.get(key)
        if new == old or key in _UNLISTED or key.startswith("cf_") or isinstance(new, (dict, list)):
            continue
        label = key if key[:1].isupper() else key.replace("_", " ").title()
        lines.append(f"{label.replace(':', '')}: {_plain(old)} => {_plain(new)}")
    return lines


def _plain(value: object) -> str:
    return "" if value is None or isinstance(value, (dict, list)) else " ".join(str(value).split())
