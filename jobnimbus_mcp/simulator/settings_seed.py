"""The account's configuration as GET /account/settings tells it, and how names and ids in it belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

__all__ = [
    "CUSTOM_FIELDS",
    "STATUSES",
    "UNITS",
    "find_source",
    "find_status",
    "find_type",
    "find_workflow",
    "seed_settings",
]

# Source: JobNimbus API documentation: numeric status codes of estimates are observed ones, low confidence; of the other
# kinds Open (2), Closed (4) and the material order's Draft (0) are on record and the rest is made up.
STATUSES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "estimates": {1: "Draft", 2: "Sent", 3: "Viewed", 4: "Approved", 5: "Invoiced", 6: "Declined"},
        "invoices": {1: "Draft", 2: "Open", 3: "Sent", 4: "Closed", 5: "Void"},
        "materialorders": {0: "Draft", 1: "Ordered", 2: "Delivered"},
        "budgets": {1: "Open", 2: "Closed"},
    }
)
"""Kind -> number -> name, of the kinds whose statuses are no setting of the account."""

UNITS = ("Items", "SQ", "LF", "SF", "EA", "BDL", "HR")
"""Units of measure."""

# Entity -> label -> storage key. Records show a custom field under both, and it can be written under either.
CUSTOM_FIELDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "contacts": {"Claim Number:": "cf_string_7", "Date of Loss": "cf_date_2"},
        "jobs": {"Shingle Color": "cf_string_3", "Insurance Job?": "cf_boolean_1", "Warranty Date": "cf_date_5"},
    }
)

_TYPE_KEYS = {
    "tasks": ("taskTypes", "TaskTypeId"),
    "activities": ("activityTypes", "ActivityTypeId"),
    "files": ("fileTypes", "FileTypeId"),
}


def seed_settings() -> dict[str, Any]:
    """A new settings object; key styles are mixed (snake_case, PascalCase) as in JobNimbus's own answer."""
    return {
        "workflows": [
            _workflow(
                1,
                "contact",
                "Customer",
                [
                    (1, "Lead", "lead"),
                    (5, "Appointment Scheduled", ""),
                    (8, "Estimate Sent", ""),
                    (12, "Signed Contract", ""),
                    (15, "Completed", ""),
                    (18, "Paid & Closed", "closed"),
                    (19, "Lost", "closed"),
                ],
            ),
            _workflow(2, "contact", "Subcontractor", [(30, "Active", ""), (31, "On Hold", "closed")], sub=True),
            _workflow(3, "contact", "Commercial", [(40, "Prospect", "lead"), (41, "Won", "")], active=False),
            _workflow(
                24,
                "job",
                "Roofing",
                [
                    (350, "Lead", "lead"),
                    (352, "Inspection", ""),
                    (353, "Approved", ""),
                    (354, "Scheduled", ""),
                    (355, "In Production", ""),
                    (357, "Final Inspection", ""),
                    (358, "Invoiced", ""),
                    (359, "Paid & Closed", "closed"),
                ],
            ),
            _workflow(
                25,
                "job",
                "Repair",
                [
                    (370, "Lead", "lead"),
                    (371, "Assessed", ""),
                    (372, "Approved", ""),
                    (373, "Scheduled", ""),
                    (374, "Completed", ""),
                    (375, "Paid & Closed", "closed"),
                ],
            ),
            _workflow(41, "workorder", "Install", [(366, "Assigned", ""), (367, "Done", "closed")]),
        ],
        "fileTypes": [
            {"FileTypeId": number, "TypeName": name, "IsActive": True}
            for number, name in enumerate(
                (
                    "Document",
                    "Photo",
                    "Email Attachment",
                    "naturalForms",
                    "Invoice",
                    "Eagleview",
                    "Accurence",
                    "Credit Memo",
                ),
                start=1,
            )
        ],
        "taskTypes": [
            _task_type(1, "Task", hidden=False),
            _task_type(2, "Phone Call", hidden=True),
            _task_type(3, "Appointment", hidden=False),
        ],
        "activityTypes": [
            {"ActivityTypeId": number, "TypeName": name, "ShowInJobShare": False, "IsActive": True}
            for number, name in (
                (1, "Note"),
                (2, "Phone Call"),
                (3, "Email"),
                (4, "Meeting"),
                (19, "Status Changed"),
                (20, "Contact Created"),
                (21, "Contact Modified"),
                (22, "Contact Deleted"),
                (23, "Job Created"),
                (24, "Job Modified"),
                (25, "Job Deleted"),
            )
        ],
        "sources": [
            {"JobSourceId": number, "SourceName": name, "IsActive": True}
            for number, name in enumerate(("Referral", "Website", "Canvassing", "Storm", "Google"), start=1)
        ],
    }


def find_workflow(settings: Mapping[str, Any], object_type: str, name_or_id: object) -> Mapping[str, Any] | None:
    """The workflow (active or not) of that object type, by id or by name whatever its case; None: there is none."""
    rows = [row for row in settings["workflows"] if row["object_type"] == object_type]
    return _find(rows, "id", "name", name_or_id)


def find_status(workflow: Mapping[str, Any], name_or_id: object) -> Mapping[str, Any] | None:
    """The workflow's status, by id or by name whatever its case; None: it has none."""
    return _find(workflow["status"], "id", "name", name_or_id)


def find_source(settings: Mapping[str, Any], name_or_id: object) -> Mapping[str, Any] | None:
    """The active lead source, by id or by name whatever its case; None: there is none."""
    active = [row for row in settings["sources"] if row["IsActive"]]
    return _find(active, "JobSourceId", "SourceName", name_or_id)


def find_type(settings: Mapping[str, Any], entity: str, name_or_id: object) -> tuple[int, str] | None:
    """(id, name) of an active task, activity or file type, by id or by name whatever its case; None: there is none."""
    if entity not in _TYPE_KEYS:
        return None
    listing, id_key = _TYPE_KEYS[entity]
    row = _find([row for row in settings[listing] if row["IsActive"]], id_key, "TypeName", name_or_id)
    return None if row is None else (row[id_key], row["TypeName"])


def _find(rows: Sequence[Mapping[str, Any]], id_key: str, name_key: str, wanted: object) -> Mapping[str, Any] | None:
    for row in rows:
        if isinstance(wanted, str):
            if row[name_key].casefold() == wanted.casefold():
                return row
        elif row[id_key] == wanted and not isinstance(wanted, bool):
            return row
    return None


def _workflow(
    number: int,
    object_type: str,
    name: str,
    statuses: Sequence[tuple[int, str, str]],
    *,
    sub: bool = False,
    active: bool = True,
) -> dict[str, Any]:
    return {
        "id": number,
        "order": number,
        "object_type": object_type,
        "name": name,
        "is_sub_contractor": sub,
        "is_supplier": False,
        "is_vendor": False,
        "is_active": active,
        "can_access_by_all": False,
        "icon": None,
        "status": [
            {
                "id": status_id,
                "name": status_name,
                "is_lead": flag == "lead",
                "is_closed": flag == "closed",
                "is_active": True,
                "is_archived": False,
                "send_to_quickbooks": False,
                "force_mobile_sync": False,
                "order": order,
                "profile_ids": [0],
            }
            for order, (status_id, status_name, flag) in enumerate(statuses, start=1)
        ],
    }


def _task_type(number: int, name: str, *, hidden: bool) -> dict[str, Any]:
    return {
        "TaskTypeId": number,
        "TypeName": name,
        "DefaultName": name,
        "Icon": "",
        "HideFromTaskList": False,
        "HideFromCalendarView": hidden,
        "IsActive": True,
    }
