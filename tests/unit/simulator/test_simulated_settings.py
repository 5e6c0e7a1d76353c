"""Adding to an account's settings: POST alone, once per name, for keys with the right to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from jobnimbus_mcp.simulator import Simulator


@pytest.mark.parametrize(
    ("path", "body", "made", "part"),
    [
        ("leadsource", {"SourceName": "Radio"}, {"JobSourceId": 6, "SourceName": "Radio", "IsActive": True}, "sources"),
        ("filetype", {"TypeName": "Permit"}, {"FileTypeId": 9, "TypeName": "Permit", "IsActive": True}, "fileTypes"),
        (
            "tasktype",
            {"TypeName": "Delivery", "HideFromTaskList": True},
            {
                "TaskTypeId": 4,
                "TypeName": "Delivery",
                "DefaultName": "Delivery",
                "Icon": "",
                "HideFromTaskList": True,
                "HideFromCalendarView": False,
                "IsActive": True,
            },
            "taskTypes",
        ),
        (
            "activitytype",
            {"TypeName": "Letter", "ShowInJobShare": True},
            {"ActivityTypeId": 26, "TypeName": "Letter", "ShowInJobShare": True, "IsActive": True},
            "activityTypes",
        ),
        (
            "workflow",
            {"name": "Solar", "object_type": "job"},
            {
                "id": 42,
                "order": 7,
                "object_type": "job",
                "name": "Solar",
                "is_sub_contractor": False,
                "is_supplier": False,
                "is_vendor": False,
                "is_active": True,
                "can_access_by_all": False,
                "icon": None,
                "status": [],
            },
            "workflows",
        ),
    ],
)
async def test_what_is_added_is_in_the_settings_once(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], made: dict[str, Any], part: str
) -> None:
    before = (await api.get("/account/settings", params={"field": part})).json()

    first = (await api.post(f"/account/{path}", json=body)).json()
    again = (await api.post(f"/account/{path}", json={**body, "IsActive": False})).json()

    assert first == again == made
    assert (await api.get("/account/settings", params={"field": part})).json() == [*before, made]


async def test_a_status_is_added_to_its_workflow_with_an_id_of_its_own(api: httpx.AsyncClient) -> None:
    before = (await api.get("/account/settings")).json()["workflows"]
    highest = max(status["id"] for workflow in before for status in workflow["status"])

    made = (await api.post("/account/workflow/24/status", json={"name": "On Hold", "is_closed": True})).json()
    again = (await api.post("/account/workflow/24/status", json={"name": "on hold"})).json()
    after = (await api.get("/account/settings")).json()["workflows"]

    assert (made["name"], made["is_lead"], made["is_closed"], made["order"]) == ("On Hold", False, True, 9)
    assert made["id"] == highest + 1
    assert again == made
    roofing = next(workflow for workflow in after if workflow["id"] == 24)
    assert roofing["status"][-1] == made
    body = {"name": "A job on hold", "record_type_name": "Roofing", "status_name": "On Hold"}
    assert (await api.post("/jobs", json=body)).json()["status"] == made["id"]


async def test_a_new_source_and_a_new_task_type_can_be_used_at_once(api: httpx.AsyncClient) -> None:
    job = {"name": "By radio", "record_type_name": "Roofing", "status_name": "Lead", "source_name": "Radio"}
    task = {"title": "t", "date_start": 1, "record_type_name": "Delivery"}
    assert [(await api.post(path, json=body)).status_code for path, body in (("/jobs", job), ("/tasks", task))] == [
        400,
        400,
    ]

    source = (await api.post("/account/leadsource", json={"SourceName": "Radio"})).json()
    await api.post("/account/tasktype", json={"TypeName": "Delivery"})

    assert (await api.post("/jobs", json=job)).json()["source"] == source["JobSourceId"]
    assert (await api.post("/tasks", json=task)).json()["record_type"] == 4


async def test_a_custom_field_tells_its_storage_key_and_is_mirrored(api: httpx.AsyncClient) -> None:
    body = {"title": "Gate Code", "object_type": "job", "type": "string"}
    made = (await api.post("/account/customfield", json=body)).json()
    known = (await api.post("/account/customfield", json={**body, "title": "shingle color"})).json()

    assert (made["field"], made["is_ddn"], made["visible"], made["options"]) == ("cf_string_4", False, True, [])
    assert known["field"] == "cf_string_3"
    job = {"name": "Gated", "record_type_name": "Roofing", "status_name": "Lead", "Gate Code": "4471"}
    record = (await api.post("/jobs", json=job)).json()
    assert (record["cf_string_4"], record["Gate Code"]) == ("4471", "4471")
    changed = (await api.put(f"/jobs/{record['jnid']}", json={"cf_string_4": "1"})).json()
    assert changed["Gate Code"] == "1"


async def test_a_dropdown_is_text_with_options(api: httpx.AsyncClient) -> None:
    body = {"title": "Pitch", "object_type": "contact", "type": "dropdown", "options": ["4/12", "8/12"]}
    made = (await api.post("/account/customfield", json=body)).json()

    assert (made["type"], made["is_ddn"], made["options"], made["field"]) == (
        "string",
        True,
        ["4/12", "8/12"],
        "cf_string_8",
    )


async def test_a_location_is_answered_and_listed_nowhere(sim: Simulator, api: httpx.AsyncClient) -> None:
    made = (await api.post("/account/location", json={"name": "South", "code": "SO"})).json()
    main = (await api.post("/account/location", json={"name": "main"})).json()

    assert (made["id"], made["name"], made["code"], main["id"]) == (3, "South", "SO", 1)
    assert "locations" not in sim.account("stamford").settings


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("leadsource", {}, 400, "Missing required field(s): SourceName"),
        ("workflow", {"name": "x"}, 400, "Missing required field(s): object_type"),
        ("workflow", {"name": "x", "object_type": "invoice"}, 400, "Invalid object_type - invoice"),
        ("customfield", {"title": "x", "object_type": "job", "type": "colour"}, 400, "Invalid type - colour"),
        ("customfield", {"title": "x", "object_type": "job", "type": "dropdown"}, 400, "field(s): options"),
        ("workflow/999/status", {"name": "x"}, 404, "Not Found"),
        ("workflow/24/status", {}, 400, "Missing required field(s): name"),
    ],
)
async def test_a_bad_setting_is_refused(
    sim: Simulator, api: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    before = dict(sim.account("stamford").settings)

    answer = await api.post(f"/account/{path}", json=body)

    assert answer.status_code == status
    assert message in answer.text
    assert sim.account("stamford").settings == before


@pytest.mark.parametrize("path", ["leadsource", "customfield", "workflow", "workflow/24/status", "location"])
async def test_a_key_without_the_right_adds_nothing(
    sim: Simulator, api: httpx.AsyncClient, restricted: httpx.AsyncClient, path: str
) -> None:
    before = dict(sim.account("stamford").settings)
    body = {"SourceName": "Radio", "title": "x", "name": "x", "object_type": "job", "type": "string"}

    answer = await restricted.post(f"/account/{path}", json=body)

    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (403, "text/plain")
    assert sim.account("stamford").settings == before
    assert (await api.get(f"/account/{path}")).status_code == 405


async def test_what_an_account_is_seeded_with_is_never_changed(sim: Simulator, api: httpx.AsyncClient) -> None:
    before = (await api.get("/account/settings")).json()
    for path, body in (
        ("leadsource", {"SourceName": "Radio"}),
        ("workflow/24/status", {"name": "On Hold"}),
        ("customfield", {"title": "Gate Code", "object_type": "job", "type": "string"}),
    ):
        await api.post(f"/account/{path}", json=body)

    sim.reset()

    assert (await api.get("/account/settings")).json() == before
    assert sim.account("stamford").custom_fields["jobs"] == {
        "Shingle Color": "cf_string_3",
        "Insurance Job?": "cf_boolean_1",
        "Warranty Date": "cf_date_5",
    }
