"""Which bodies name a change, which do not, and which deliveries are the same one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.errors import UnknownPayload
from jobnimbus_mcp.events.envelope import ParsedBody, dedupe_key, event_name, parse_body, record_id

JOB = "mjob0000000000000000j1"
CONTACT = "mctc0000000000000000c1"
GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
BARE: dict[str, Any] = {
    "jnid": JOB,
    "type": "job",
    "date_updated": 1789400215,
    "related": [{"id": CONTACT, "type": "contact", "name": "Dana Whitfield"}],
    "Insurance Job?": True,
}


def told(body: Any) -> tuple[Entity, str, Action]:
    change = parse_body(body).change
    return change.ref.entity, change.ref.jnid, change.action


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"event": "job.updated", "resource_type": "job", "resource_id": JOB}, (Entity.JOBS, JOB, Action.UPDATED)),
        ({"event": "updated", "resource_type": "job", "resource_id": JOB}, (Entity.JOBS, JOB, Action.UPDATED)),
        ({"event": "job.created", "resource_type": "jobs", "resource_id": JOB}, (Entity.JOBS, JOB, Action.CREATED)),
        ({"event": "Deleted", "resource_type": "Contact", "resource_id": JOB}, (Entity.CONTACTS, JOB, Action.DELETED)),
        ({"event": "job.modified", "resource_id": JOB}, (Entity.JOBS, JOB, Action.UPDATED)),
        ({"event": "Work Order Modified", "jnid": JOB}, (Entity.WORKORDERS, JOB, Action.UPDATED)),
        (
            {"event": "work_order.created", "resource_type": "workorder", "resource_id": JOB},
            (Entity.WORKORDERS, JOB, Action.CREATED),
        ),
        (
            {"event": "note.created", "resource_type": "activity", "resource_id": JOB},
            (Entity.ACTIVITIES, JOB, Action.CREATED),
        ),
        (BARE, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"jnid": JOB, "resource_type": "task"}, (Entity.TASKS, JOB, Action.UNKNOWN)),
        ({"jnid": JOB, "type": "material order"}, (Entity.MATERIALORDERS, JOB, Action.UNKNOWN)),
        ({"jnid": "file-" + JOB, "type": "file"}, (Entity.ATTACHMENTS, JOB, Action.UNKNOWN)),
        ({"jnid": GUID, "type": "estimate"}, (Entity.ESTIMATES, GUID, Action.UNKNOWN)),
        ({"event": "job_status", "jnid": JOB, "type": "job"}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"event": "job.updated.v2", "jnid": JOB, "type": "job"}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"event": "job.deleted", "jnid": JOB, "type": "task"}, (Entity.TASKS, JOB, Action.UNKNOWN)),
        ({"event": "updated", "jnid": f" {JOB} ", "type": "task"}, (Entity.TASKS, JOB, Action.UPDATED)),
        ({"jnid": JOB, "resource_type": "job", "type": "Roofing"}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"data": BARE}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"job": BARE}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ([BARE], (Entity.JOBS, JOB, Action.UNKNOWN)),
        ([{"data": {"job": BARE}}], (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"jobs": [{"jnid": JOB}]}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"work order": {"jnid": JOB}}, (Entity.WORKORDERS, JOB, Action.UNKNOWN)),
        ({"event": "job.updated", "data": {"jnid": JOB}}, (Entity.JOBS, JOB, Action.UPDATED)),
        ({"resource_type": "job", "data": {"jnid": JOB}}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        ({"data": {"jnid": JOB, "type": "job"}, "user": {"jnid": CONTACT}}, (Entity.JOBS, JOB, Action.UNKNOWN)),
        (
            {"data": {"event": "updated", "resource_type": "invoice", "resource_id": JOB}},
            (Entity.INVOICES, JOB, Action.UPDATED),
        ),
        (
            [{"event": "payment.created", "resource_type": "payment", "resource_id": JOB}],
            (Entity.PAYMENTS, JOB, Action.CREATED),
        ),
    ],
)
def test_a_body_of_a_known_shape_names_kind_id_and_action(body: Any, expected: tuple[Entity, str, Action]) -> None:
    assert told(body) == expected


@pytest.mark.parametrize("kind", list(Entity))
@pytest.mark.parametrize(
    ("word", "action"),
    [
        ("created", Action.CREATED),
        ("updated", Action.UPDATED),
        ("modified", Action.UPDATED),
        ("deleted", Action.DELETED),
    ],
)
def test_every_kind_and_action_is_known(kind: Entity, word: str, action: Action) -> None:
    body = {"event": f"{kind.value}.{word}", "resource_type": kind.value, "resource_id": JOB}
    assert told(body) == (kind, JOB, action)


@pytest.mark.parametrize(
    "body",
    [
        None,
        True,
        7,
        "job",
        [],
        {},
        [BARE, BARE],
        [[[[[BARE]]]]],
        {"event": "job.updated"},
        {"event": "job.updated", "resource_type": "job"},
        {"resource_type": "job", "resource_id": JOB},
        {"event": "job.exploded", "resource_type": "job", "resource_id": JOB},
        {"event": "updated", "resource_type": "unicorn", "resource_id": JOB},
        {"event": "updated", "resource_type": "job", "resource_id": "../jobs"},
        {"event": "updated", "resource_type": "job", "resource_id": ""},
        {"event": "updated", "resource_type": "job", "resource_id": 1042},
        {"event": "updated", "resource_type": "job", "resource_id": "x" * 65},
        {"event": "contact.updated", "resource_type": "job", "resource_id": JOB},
        {"event": ["updated"], "resource_type": "job", "resource_id": JOB},
        {"event": "job_status", "jnid": JOB},
        {"jnid": JOB},
        {"jnid": JOB, "type": "widget"},
        {"jnid": JOB, "type": ["job"]},
        {"jnid": JOB, "type": "job", "resource_type": "task"},
        {"jnid": JOB, "type": "job", "resource_type": "widget"},
        {"jnid": JOB, "type": "job", "resource_id": CONTACT},
        {"jnid": None, "type": "job"},
        {"jnid": "job-1", "type": "job"},
        {"jnid": "0f8fad5b-d9cb-469f-a165-7086772895", "type": "estimate"},
        {"job": BARE, "contact": BARE},
        {"data": "job"},
        {"type": "job", "number": "1042"},
    ],
)
def test_anything_else_is_an_unknown_payload(body: Any) -> None:
    with pytest.raises(UnknownPayload) as refusal:
        parse_body(body)
    assert refusal.value.http_status == 400
    assert refusal.value.code == "unknown_payload"


@pytest.mark.parametrize(
    ("links", "parents"),
    [
        ({"related": [{"id": JOB}, {"id": CONTACT}]}, {JOB, CONTACT}),
        ({"related": [{"id": JOB}], "primary": {"id": CONTACT}}, {JOB, CONTACT}),
        ({"related": [JOB]}, {JOB}),
        ({"related": [], "primary": None}, set()),
        ({"related": [{"id": GUID}]}, {GUID}),
        ({}, None),
        ({"primary": {"id": JOB}}, None),
        ({"primary": None}, None),
        ({"related": "Dana, Roof 1042"}, None),
        ({"related": [{"name": "Dana"}]}, None),
        ({"related": [{"id": JOB}], "primary": "Dana"}, frozenset({JOB, "Dana"})),
        ({"related": [{"id": JOB}], "primary": {"id": "not an id"}}, None),
        ({"related": [None]}, None),
    ],
)
def test_parents_are_told_only_when_all_of_them_are(links: dict[str, Any], parents: set[str] | None) -> None:
    change = parse_body({"jnid": "t1", "type": "task"} | links).change
    assert change.parents == parents


@pytest.mark.parametrize(
    ("value", "occurred_at"),
    [
        (1789400215, 1789400215),
        ("1789400215", 1789400215),
        (1789400215000, 1789400215),
        (0, None),
        (None, None),
        ("14 September", None),
        (float("inf"), None),
        ("9" * 5000, None),
        # longer than any number that can be kept, and a year that no calendar has
        ("20260101123000000000000", None),
        (253_402_300_800_000, None),
        (253_402_300_799_000, 253_402_300_799),
    ],
)
def test_the_date_is_read_in_each_of_its_spellings(value: Any, occurred_at: int | None) -> None:
    assert parse_body({"jnid": JOB, "type": "job", "date_updated": value}).change.occurred_at == occurred_at


@pytest.mark.parametrize(
    ("entity", "action", "name"),
    [
        (Entity.JOBS, Action.UPDATED, "job.updated"),
        (Entity.ACTIVITIES, Action.CREATED, "activity.created"),
        (Entity.WORKORDERS, Action.DELETED, "workorder.deleted"),
        (Entity.JOBS, Action.UNKNOWN, "job.changed"),
    ],
)
def test_a_change_is_named_in_the_singular(entity: Entity, action: Action, name: str) -> None:
    assert event_name(Change(EntityRef(entity, JOB), action)) == name


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("entity", list(Entity))
def test_every_change_has_a_name(entity: Entity, action: Action) -> None:
    assert event_name(Change(EntityRef(entity, JOB), action)).count(".") == 1


def key_of(body: Any, *, instance: str = "stamford", delivery_id: str | None = None) -> str:
    return dedupe_key(instance, parse_body(body), body, delivery_id)


def test_the_same_body_in_another_order_of_keys_is_the_same_delivery() -> None:
    assert key_of(BARE) == key_of(dict(reversed(BARE.items())))
    assert key_of(BARE).startswith("body:")


def test_the_same_delivery_id_is_the_same_delivery_whatever_the_body() -> None:
    assert key_of(BARE, delivery_id="msg_1") == key_of({"jnid": JOB, "type": "job"}, delivery_id="msg_1") != ""
    assert key_of(BARE, delivery_id="msg_1") != key_of(BARE, delivery_id="msg_2")


@pytest.mark.parametrize(
    "other",
    [
        BARE | {"jnid": CONTACT},
        BARE | {"date_updated": 1789400216},
        BARE | {"event": "updated"},
        BARE | {"Insurance Job?": False},
    ],
)
def test_another_record_date_action_or_body_is_another_delivery(other: dict[str, Any]) -> None:
    assert key_of(other) != key_of(BARE)


def test_the_same_body_for_another_account_is_another_delivery() -> None:
    assert key_of(BARE, instance="guilford") != key_of(BARE)
    assert key_of(BARE, instance="guilford", delivery_id="m") != key_of(BARE, delivery_id="m")


def test_a_body_without_a_date_is_never_a_duplicate() -> None:
    assert key_of({"event": "job.updated", "resource_type": "job", "resource_id": JOB}) == ""


def test_a_body_too_deep_to_compare_is_never_a_duplicate() -> None:
    deep: Any = orjson.loads(b"[" * 600 + b"]" * 600)
    assert key_of(BARE | {"deep": deep}) == ""


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_FIELD = st.sampled_from(
    ["event", "jnid", "type", "resource_type", "resource_id", "data", "job", "related", "primary", "date_updated"]
)
_WORD = st.sampled_from(["job", "job.updated", "deleted", "task", JOB, GUID, "", "é", "work order"]) | _JSON
_NEAR = st.recursive(
    st.dictionaries(_FIELD, _WORD, max_size=7),
    lambda inner: st.lists(inner, max_size=2) | st.fixed_dictionaries({"data": inner}),
    max_leaves=4,
)


@given(_JSON | _NEAR)
def test_every_json_value_is_either_a_change_of_a_valid_record_or_an_unknown_payload(body: Any) -> None:
    try:
        parsed = parse_body(body)
    except UnknownPayload:
        return
    assert isinstance(parsed, ParsedBody)
    assert record_id(parsed.change.ref.jnid) == parsed.change.ref.jnid
    assert dedupe_key("stamford", parsed, body, None).isascii()
