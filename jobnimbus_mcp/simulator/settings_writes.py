"""Adding to an account's settings: types, sources, workflows and their statuses, custom fields, locations.

Source: JobNimbus API documentation, creating settings. What exists by that name is answered as it is, so that doing it
twice is doing it once. Ids go on from the highest in use; those of statuses are unique over all workflows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.settings_seed import CUSTOM_FIELDS
from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["add_setting", "custom_fields_of", "is_creator", "seed_unlisted"]

_STATUS_PATH = re.compile(r"account/workflow/([^/]+)/status")
_KIND_OF = MappingProxyType({"contact": "contacts", "job": "jobs", "workorder": "workorders"})
_STORAGE = MappingProxyType(
    {
        "date": "date",
        "double": "double",
        "long": "long",
        "string": "string",
        "boolean": "boolean",
        "dropdown": "string",
    }
)


@dataclass(frozen=True, slots=True)
class _Creator:
    """`part`: the list it adds to. `name` and `id`: the fields that hold them. `optional`: with their defaults."""

    part: str
    name: str
    id: str
    optional: Mapping[str, Any]
    required: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


_CREATORS: Mapping[str, _Creator] = MappingProxyType(
    {
        "account/workflow": _Creator(
            "workflows",
            "name",
            "id",
            {
                "is_sub_contractor": False,
                "is_supplier": False,
                "is_vendor": False,
                "is_active": True,
                "can_access_by_all": False,
            },
            required=("object_type",),
            fixed={"icon": None, "status": []},
        ),
        "account/leadsource": _Creator("sources", "SourceName", "JobSourceId", {"IsActive": True}),
        "account/filetype": _Creator("fileTypes", "TypeName", "FileTypeId", {"IsActive": True}),
        "account/activitytype": _Creator(
            "activityTypes", "TypeName", "ActivityTypeId", {"ShowInJobShare": False, "IsActive": True}
        ),
        "account/tasktype": _Creator(
            "taskTypes",
            "TypeName",
            "TaskTypeId",
            {"HideFromTaskList": False, "HideFromCalendarView": False, "IsActive": True, "DefaultName": None},
            fixed={"Icon": ""},
        ),
        "account/location": _Creator(
            "locations",
            "name",
            "id",
            {
                "address_line1": "",
                "address_line2": "",
                "code": "",
                "city": "",
                "zip": "",
                "phone": "",
                "is_active": True,
            },
        ),
        "account/customfield": _Creator(
            "customFields",
            "title",
            "field",
            {"is_required": False, "is_currency": False, "options": []},
            required=("object_type", "type"),
            fixed={"visible": True},
        ),
    }
)
_STATUS = _Creator(
    "workflows",
    "name",
    "id",
    {
        "is_lead": False,
        "is_closed": False,
        "is_active": True,
        "is_archived": False,
        "send_to_quickbooks": False,
        "force_mobile_sync": False,
    },
    fixed={"profile_ids": [0]},
)


def is_creator(path: str) -> bool:
    """Whether settings are added to under that path, by POST alone."""
    return path in _CREATORS or _STATUS_PATH.fullmatch(path) is not None


def seed_unlisted() -> dict[str, list[Record]]:
    """The parts that no GET shows: locations and the definitions of custom fields."""
    return {
        "locations": [
            {"id": number, "name": name, "code": code, "is_active": True}
            for number, name, code in ((1, "Main", "MA"), (2, "North", "NO"))
        ],
        "customFields": [
            _definition(kind, label, storage)
            for kind, fields in CUSTOM_FIELDS.items()
            for label, storage in fields.items()
        ],
    }


def custom_fields_of(definitions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Kind of record -> label -> storage key."""
    found: dict[str, dict[str, str]] = {}
    for row in definitions:
        found.setdefault(_KIND_OF[row["object_type"]], {})[row["title"]] = row["field"]
    return found


def add_setting(path: str, body: Mapping[str, Any], parts: Mapping[str, Any]) -> tuple[str, Any, Record]:
    """(part, what it is now, the new or existing item) of a POST; `parts` stay as they are.

    Raises: Refusal 400 for a field that is missing or wrong, 404 for a workflow that is not there.
    """
    under = _STATUS_PATH.fullmatch(path)
    if under is not None:
        return _add_status(under[1], body, parts["workflows"])
    creator = _CREATORS[path]
    _require(body, creator.name, *creator.required)
    if "object_type" in creator.required and body["object_type"] not in _KIND_OF:
        raise Refusal(400, f"Invalid object_type - {body['object_type']}")
    rows = parts[creator.part]
    for row in rows:
        if _same(row, body, creator.name) and row.get("object_type") == body.get("object_type"):
            return creator.part, rows, dict(row)
    made = _made(creator, body)
    if creator.part == "customFields":
        made = _custom_field(made, body, rows)
    else:
        made[creator.id] = 1 + max(row[creator.id] for row in rows)
    if creator.part == "workflows":
        made |= {"object_type": body["object_type"], "order": len(rows) + 1}
    if creator.part == "taskTypes":
        made["DefaultName"] = made["DefaultName"] or made["TypeName"]
    return creator.part, [*rows, made], dict(made)


def _add_status(
    workflow_id: str, body: Mapping[str, Any], workflows: Sequence[Record]
) -> tuple[str, list[Record], Record]:
    at = next((index for index, row in enumerate(workflows) if str(row["id"]) == workflow_id), None)
    if at is None:
        raise Refusal(404, "Not Found")
    _require(body, "name")
    statuses = workflows[at]["status"]
    for row in statuses:
        if _same(row, body, "name"):
            return "workflows", list(workflows), dict(row)
    highest = max((row["id"] for workflow in workflows for row in workflow["status"]), default=0)
    made = {**_made(_STATUS, body), "id": highest + 1, "order": len(statuses) + 1}
    changed = {**workflows[at], "status": [*statuses, made]}
    return "workflows", [*workflows[:at], changed, *workflows[at + 1 :]], dict(made)


def _made(creator: _Creator, body: Mapping[str, Any]) -> Record:
    asked = {name: body.get(name, otherwise) for name, otherwise in creator.optional.items()}
    return {creator.name: body[creator.name], **asked, **creator.fixed}


def _custom_field(made: Record, body: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Record:
    asked = body["type"]
    if asked not in _STORAGE:
        raise Refusal(400, f"Invalid type - {asked}")
    if asked == "dropdown" and not body.get("options"):
        raise Refusal(400, "Missing required field(s): options")
    stem = f"cf_{_STORAGE[asked]}_"
    taken = [
        int(row["field"].removeprefix(stem))
        for row in rows
        if row["object_type"] == body["object_type"] and row["field"].startswith(stem)
    ]
    return {
        **made,
        "object_type": body["object_type"],
        "type": _STORAGE[asked],
        "is_ddn": asked == "dropdown",
        "field": f"{stem}{1 + max(taken, default=0)}",
    }


def _definition(kind: str, label: str, storage: str) -> Record:
    object_type = next(name for name, known in _KIND_OF.items() if known == kind)
    return {
        "title": label,
        "object_type": object_type,
        "type": storage.split("_")[1],
        "visible": True,
        "is_currency": False,
        "is_ddn": False,
        "is_required": False,
        "options": [],
        "field": storage,
    }


def _require(body: Mapping[str, Any], *names: str) -> None:
    missing = [name for name in names if not isinstance(body.get(name), str) or not body[name]]
    if missing:
        raise Refusal(400, f"Missing required field(s): {', '.join(missing)}")


def _same(row: Mapping[str, Any], body: Mapping[str, Any], name: str) -> bool:
    return bool(str(row[name]).casefold() == str(body[name]).casefold())
