"""Names to ids: what agents call a status, workflow, type, source or person, as JobNimbus wants it written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import NameIs, OneOf
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.answers import Answer, ParsedValues
from jobnimbus_mcp.gateway.directory import Directory


def status(number: int, name: str, order: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "name": name, "order": order, "is_active": True, "is_archived": False, **more}


def workflow(number: int, kind: str, name: str, *statuses: dict[str, Any], active: bool = True) -> dict[str, Any]:
    return {"id": number, "object_type": kind, "name": name, "is_active": active, "status": list(statuses)}


SETTINGS = {
    "workflows": [
        workflow(
            24,
            "job",
            "Roofing",
            status(355, "In Production", 2),
            status(350, "Lead", 1),
            status(360, "On Hold", 3, is_active=False),
            status(361, "Waiting", 4, is_archived=True),
        ),
        workflow(25, "job", "Repair", status(370, "Lead", 1), status(374, "Completed", 2)),
        workflow(26, "job", "Gutters", status(380, "Lead", 1), status(381, "Measured", 2), active=False),
        workflow(27, "job", "Empty", status(390, "Once", 1, is_active=False)),
        workflow(41, "workorder", "Install", status(366, "Assigned", 1)),
        workflow(1, "contact", "Customer", status(1, "Lead", 1)),
    ],
    "taskTypes": [
        {"TaskTypeId": 1, "TypeName": "Task", "IsActive": True},
        {"TaskTypeId": 9, "TypeName": "Old Task", "IsActive": False},
    ],
    "activityTypes": [{"ActivityTypeId": 1, "TypeName": "Note", "IsActive": True}],
    "fileTypes": [{"FileTypeId": 2, "TypeName": "Photo", "IsActive": True}],
    "sources": [
        {"JobSourceId": 3, "SourceName": "Referral", "IsActive": True},
        {"JobSourceId": 4, "SourceName": "Radio", "IsActive": False},
    ],
}


def user(jnid: str, first: str, last: str, email: str, *, active: bool = True) -> dict[str, Any]:
    return {"id": jnid, "first_name": first, "last_name": last, "email": email, "is_active": active}


USERS = [
    user("u1", "Robin", "Okafor", "robin@example.com", active=False),
    user("u2", "Robin", "Okafor", "robin@example.com"),
    user("u3", "Sam", "Ibarra", "sam@example.com"),
    user("u4", "Sam", "Ibarra", "s.ibarra@example.com"),
    user("u5", "Lee", "Former", "lee@example.com", active=False),
]


class Account:
    """Answers a directory's look-ups and remembers them."""

    def __init__(self) -> None:
        self.asked: list[Read] = []
        self.values: Mapping[Entity, Any] = {
            Entity.SETTINGS: SETTINGS,
            Entity.USERS: {"rows": USERS},
        }
        self.directory = Directory(self.look_up)

    async def look_up(self, read: Read) -> Answer:
        self.asked.append(read)
        outcome = Outcome(
            orjson.dumps(self.values[read.entity]), False, Status.HIT, Tier.L1, 0.0, 1.0, False, "e", None
        )
        return Answer(outcome, ParsedValues(0), Mode.STRICT)


def roofing(number: int, name: str) -> dict[str, Any]:
    return {"record_type": 24, "record_type_name": "Roofing", "status": number, "status_name": name}


REPAIR_LEAD = {"record_type": 25, "record_type_name": "Repair", "status": 370, "status_name": "Lead"}


@pytest.mark.parametrize(
    ("name", "record_type", "current", "written"),
    [
        ("in production", None, None, roofing(355, "In Production")),
        ("In Production", "ROOFING", None, roofing(355, "In Production")),
        ("Lead", "repair", None, REPAIR_LEAD),
        # the record's own workflow is kept, whether it tells its id or only its name
        ("Lead", None, {"record_type": 25}, REPAIR_LEAD),
        ("Lead", None, {"record_type_name": "repair"}, REPAIR_LEAD),
        ("Lead", "Repair", {"record_type": 24}, REPAIR_LEAD),
        # a status that only another workflow has moves the record there
        ("Completed", None, {"record_type": 24}, {**REPAIR_LEAD, "status": 374, "status_name": "Completed"}),
    ],
)
async def test_a_status_is_written_with_its_workflow(
    name: str, record_type: str | None, current: dict[str, Any] | None, written: dict[str, Any]
) -> None:
    assert await Account().directory.status_fields(Entity.JOBS, name, record_type, current) == written


@pytest.mark.parametrize(
    ("name", "record_type", "current", "field", "said"),
    [
        ("Lead", None, None, "record_type", "Several workflows have a status of that name: Repair, Roofing."),
        ("Lead", None, {"record_type": 26}, "record_type", "Repair, Roofing. Say which one in record_type."),
        ("On Hold", None, None, "status", "no longer in use. In use are: Completed, In Production, Lead."),
        ("Waiting", "Roofing", None, "status", "no longer in use. In use are: In Production, Lead."),
        ("Measured", None, None, "status", "no status of that name. It has: Completed, In Production, Lead."),
        ("Completed", "Roofing", None, "status", "no status of that name. It has: In Production, Lead."),
        ("Lead", "Gutters", None, "record_type", "no longer in use. In use are: Empty, Repair, Roofing."),
        ("Lead", "Siding", None, "record_type", "no record_type of that name. It has: Empty, Repair, Roofing."),
        ("Once", "Empty", None, "status", "no longer in use. In use are: none."),
    ],
)
async def test_a_status_that_cannot_be_written_is_refused_with_those_that_can(
    name: str, record_type: str | None, current: dict[str, Any] | None, field: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await Account().directory.status_fields(Entity.JOBS, name, record_type, current)
    assert said in refused.value.public_message
    assert refused.value.field == field


async def test_types_and_sources_are_written_with_id_and_name_and_only_while_in_use() -> None:
    directory = Account().directory

    assert await directory.type_fields(Entity.TASKS, "task") == {"record_type": 1, "record_type_name": "Task"}
    assert await directory.type_fields(Entity.ACTIVITIES, "NOTE") == {"record_type": 1, "record_type_name": "Note"}
    assert await directory.type_fields(Entity.ATTACHMENTS, "Photo") == {"record_type": 2, "record_type_name": "Photo"}
    assert await directory.source_fields("referral") == {"source": 3, "source_name": "Referral"}
    with pytest.raises(InvalidInput, match=r"no longer in use\. In use are: Task\.") as refused:
        await directory.type_fields(Entity.TASKS, "Old Task", argument="task_type")
    assert refused.value.field == "task_type"
    with pytest.raises(InvalidInput, match=r"no longer in use\. In use are: Referral\."):
        await directory.source_fields("Radio")
    with pytest.raises(InvalidInput, match=r"no source of that name\. It has: Referral\."):
        await directory.source_fields("Television")


@pytest.mark.parametrize(
    ("name", "jnid"),
    [
        ("Robin Okafor", "u2"),
        ("robin okafor ", "u2"),
        ("ROBIN@example.com", "u2"),
        ("s.ibarra@example.com", "u4"),
        ("u1", "u1"),
        ("Lee Former", "u5"),
    ],
)
async def test_a_person_of_several_ids_is_the_active_one(name: str, jnid: str) -> None:
    assert await Account().directory.user_id(name, "owner") == jnid


async def test_several_people_of_one_name_are_told_apart_by_their_addresses() -> None:
    with pytest.raises(InvalidInput, match=r"s\.ibarra@example\.com, sam@example\.com") as refused:
        await Account().directory.user_id("Sam Ibarra", "sales_rep")
    assert refused.value.field == "sales_rep"

    with pytest.raises(InvalidInput, match=r"no owner of that name\. It has: Robin Okafor, Sam Ibarra\."):
        await Account().directory.user_id("Nobody", "owner")


async def test_everybody_has_a_name_former_users_too() -> None:
    assert await Account().directory.user_names() == {
        "u1": "Robin Okafor",
        "u2": "Robin Okafor",
        "u3": "Sam Ibarra",
        "u4": "Sam Ibarra",
        "u5": "Lee Former",
    }


async def test_settings_and_users_are_looked_up_once_however_many_names_are_asked_for() -> None:
    account = Account()
    directory = account.directory
    await directory.status_fields(Entity.JOBS, "Completed")
    await directory.source_fields("Referral")
    await directory.type_fields(Entity.TASKS, "Task")
    await directory.user_id("u3", "owner")
    await directory.user_names()

    assert account.asked == [Read.whole(Entity.SETTINGS), Read.whole(Entity.USERS)]


async def test_reading_asks_for_retired_statuses_too() -> None:
    directory = Account().directory

    assert await directory.status(Entity.JOBS, "on hold") == OneOf("status", (360,))
    assert await directory.status(Entity.JOBS, "Lead") == OneOf("status", (350, 370, 380))
    assert await directory.status(Entity.WORKORDERS, "assigned") == OneOf("status", (366,))
    assert await directory.status(Entity.INVOICES, "Void") == NameIs("status_name", "Void")
    assert await directory.record_type(Entity.ATTACHMENTS, "photo") == OneOf("record_type", (2,))
