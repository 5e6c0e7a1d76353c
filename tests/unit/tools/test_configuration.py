"""get_settings and get_units: names and ids, in the account's order, without what is no longer in use."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from tool_desk import Desk

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read


def status(number: int, name: str, order: int, **more: Any) -> dict[str, Any]:
    flags = {"is_lead": False, "is_closed": False, "is_active": True, "is_archived": False, "profile_ids": [0]}
    return {"id": number, "name": name, "order": order, **flags, **more}


SETTINGS = {
    "workflows": [
        {"id": 25, "order": 2, "object_type": "job", "name": "Repair", "is_active": True, "status": []},
        {
            "id": 24,
            "order": 1,
            "object_type": "job",
            "name": "Roofing",
            "is_active": True,
            "status": [
                status(359, "Paid & Closed", 3, is_closed=True),
                status(350, "Lead", 1, is_lead=True),
                status(352, "Inspection", 2),
                status(360, "On Hold", 4, is_active=False),
            ],
        },
        {"id": 3, "order": 1, "object_type": "contact", "name": "Commercial", "is_active": False, "status": []},
    ],
    "sources": [
        {"JobSourceId": 1, "SourceName": "Referral", "IsActive": True},
        {"JobSourceId": 2, "SourceName": "Radio", "IsActive": False},
    ],
    "taskTypes": [{"TaskTypeId": 1, "TypeName": "Task", "Icon": "", "IsActive": True}],
    "activityTypes": [{"ActivityTypeId": 1, "TypeName": "Note", "IsActive": True}],
    "fileTypes": [{"FileTypeId": 2, "TypeName": "Photo", "IsActive": True}],
}
PARTS = {
    (Entity.SETTINGS, ""): SETTINGS,
    (Entity.SETTINGS, "groups"): {"rows": [{"name": "Sales", "managers": ["u1"], "members": ["u1", "u9"]}]},
    (Entity.USERS, ""): {"rows": [{"id": "u1", "first_name": "Robin", "last_name": "Okafor"}]},
    (Entity.PRODUCTS, "uoms"): {"rows": [{"name": "Items"}, {"name": "SQ"}]},
}

WORKFLOWS = {
    "job": [
        {
            "id": 24,
            "name": "Roofing",
            "statuses": [
                {"id": 350, "name": "Lead", "is_lead": True},
                {"id": 352, "name": "Inspection"},
                {"id": 359, "name": "Paid & Closed", "is_closed": True},
            ],
        },
        {"id": 25, "name": "Repair", "statuses": []},
    ]
}
SOURCES = [{"id": 1, "name": "Referral"}]
TYPES = {
    "task_types": [{"id": 1, "name": "Task"}],
    "activity_types": [{"id": 1, "name": "Note"}],
    "file_types": [{"id": 2, "name": "Photo"}],
}
GROUPS = [
    {
        "name": "Sales",
        "managers": [{"id": "u1", "name": "Robin Okafor"}],
        "members": [{"id": "u1", "name": "Robin Okafor"}, {"id": "u9", "name": ""}],
    }
]
AS_OF = {"as_of": "2026-09-21T14:13:20.000Z"}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("workflows", {"workflows": WORKFLOWS}),
        ("sources", {"sources": SOURCES}),
        ("types", TYPES),
        ("groups", {"groups": GROUPS}),
        ("all", {"workflows": WORKFLOWS, "sources": SOURCES, **TYPES, "groups": GROUPS}),
    ],
)
async def test_a_part_of_the_settings_is_told_by_names_and_ids_in_the_accounts_order(
    part: str, told: dict[str, Any]
) -> None:
    desk = Desk(parts=PARTS)

    assert await desk.ask("get_settings", part=part) == {**told, **AS_OF}
    assert (Read.whole(Entity.SETTINGS) in desk.account.asked) is (part != "groups")


async def test_without_arguments_all_of_it_is_told() -> None:
    assert await Desk(parts=PARTS).ask("get_settings") == await Desk(parts=PARTS).ask("get_settings", part="all")


async def test_what_is_no_longer_in_use_is_told_when_asked_for_and_marked() -> None:
    told = await Desk(parts=PARTS).ask("get_settings", include_inactive=True)

    (roofing, _) = told["workflows"]["job"]
    assert roofing["statuses"][-1] == {"id": 360, "name": "On Hold", "is_active": False}
    assert told["workflows"]["contact"] == [{"id": 3, "name": "Commercial", "is_active": False, "statuses": []}]
    assert told["sources"] == [*SOURCES, {"id": 2, "name": "Radio", "is_active": False}]


async def test_settings_that_do_not_fit_lose_their_largest_parts_and_say_which() -> None:
    many = [status(number, f"Status {number}", number) for number in range(100)]
    flows = [
        {"id": 1, "object_type": "job", "name": "Long", "status": many},
        {"id": 2, "object_type": "contact", "name": "Short", "status": many[:10]},
    ]
    parts = {**PARTS, (Entity.SETTINGS, ""): {**SETTINGS, "workflows": flows}}

    told = await Desk(parts=parts, answer_max_bytes=2_000).ask("get_settings")
    assert told == {
        "sources": SOURCES,
        **TYPES,
        "groups": GROUPS,
        "truncated": True,
        "omitted_parts": ["workflows"],
        **AS_OF,
    }

    told = await Desk(parts=parts, answer_max_bytes=2_000).ask("get_settings", part="workflows")
    assert list(told["workflows"]) == ["contact"]
    assert told["omitted_parts"] == ["workflows.job"]
    assert len(orjson.dumps(told)) <= 2_000


async def test_units_are_their_names() -> None:
    assert await Desk(parts=PARTS).ask("get_units") == {"units": ["Items", "SQ"], **AS_OF}
