"""Writes in JobNimbus's dialects, and records read back against what was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.catalog import CATALOG, SETTINGS_PARTS, LinkForm, facts_of
from jobnimbus_mcp.crm.encoding import body_of, landed, later_fields, missing, unlinked
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.writes import Link, Upload, Write

JOB, CONTACT = Link("j1", Entity.JOBS), Link("c1", Entity.CONTACTS)
DOCUMENTS = (Entity.ESTIMATES, Entity.INVOICES, Entity.PRODUCTS, Entity.WORKORDERS, Entity.MATERIALORDERS)


def new(entity: Entity, *links: Link, part: str = "", **fields: Any) -> Write:
    return Write(entity, Action.CREATED, fields=fields, links=links, part=part)


def change(entity: Entity, *links: Link, **fields: Any) -> Write:
    return Write(entity, Action.UPDATED, "r1", fields=fields, links=links)


def deletion(entity: Entity) -> Write:
    return Write(entity, Action.DELETED, "r1")


# ---- bodies of new records


@pytest.mark.parametrize(
    ("write", "body"),
    [
        (new(Entity.JOBS, CONTACT, JOB, name="Re-roof"), {"name": "Re-roof", "primary": {"id": "c1"}}),
        (new(Entity.ACTIVITIES, JOB, note="n"), {"note": "n", "primary": {"id": "j1"}}),
        (new(Entity.TASKS, JOB, title="t"), {"title": "t", "related": [{"id": "j1", "type": "job"}]}),
        (new(Entity.TASKS, Link("x1"), title="t"), {"title": "t", "related": [{"id": "x1"}]}),
        (new(Entity.ATTACHMENTS, JOB, CONTACT, type=2), {"type": 2, "related": ["j1", "c1"]}),
        (new(Entity.CONTACTS, JOB, first_name="Dana"), {"first_name": "Dana"}),
        (
            new(Entity.ESTIMATES, JOB, CONTACT, status=1, items=[]),
            {
                "type": "estimate",
                "is_active": True,
                "status": 1,
                "items": [],
                "related": [{"id": "j1", "type": "job"}, {"id": "c1", "type": "contact"}],
            },
        ),
        (
            new(Entity.PAYMENTS, Link("i1", Entity.INVOICES), total=5),
            {"type": "payment", "is_active": True, "total": 5, "related": [{"id": "i1", "type": "invoice"}]},
        ),
        (new(Entity.PRODUCTS, name="Nail", is_active=False), {"name": "Nail", "is_active": False}),
        (new(Entity.SETTINGS, part="source", SourceName="Fair"), {"SourceName": "Fair"}),
    ],
)
def test_a_new_record_says_its_links_and_constants_as_its_kind_wants_them(write: Write, body: dict[str, Any]) -> None:
    assert body_of(write) == body


def test_what_a_contact_cannot_be_made_with_is_set_afterwards() -> None:
    write = new(Entity.CONTACTS, first_name="Dana", sales_rep="u1")
    assert body_of(write) == {"first_name": "Dana"}
    assert later_fields(write) == {"sales_rep": "u1"}
    assert later_fields(change(Entity.CONTACTS, sales_rep="u1")) == {}
    assert body_of(change(Entity.CONTACTS, sales_rep="u1")) == {"sales_rep": "u1"}
    assert later_fields(new(Entity.JOBS, sales_rep="u1")) == {}
    assert later_fields(new(Entity.SETTINGS, part="source", SourceName="Fair")) == {}


# ---- bodies of changes


@pytest.mark.parametrize("entity", [Entity.JOBS, Entity.CONTACTS, Entity.TASKS, Entity.ACTIVITIES, Entity.ATTACHMENTS])
def test_a_change_of_a_plain_record_holds_what_changes_and_nothing_of_the_rest(entity: Entity) -> None:
    assert body_of(change(entity, description="d"), base={"jnid": "r1", "name": "n"}) == {"description": "d"}


def test_a_plain_record_is_hung_elsewhere_in_its_own_way() -> None:
    assert body_of(change(Entity.JOBS, CONTACT)) == {"primary": {"id": "c1"}}
    assert body_of(change(Entity.TASKS, JOB)) == {"related": [{"id": "j1", "type": "job"}]}
    assert body_of(change(Entity.ATTACHMENTS, JOB)) == {"related": ["j1"]}


AN_INVOICE = {
    "jnid": "r1",
    "recid": 640,
    "type": "invoice",
    "guid": "G-1",
    "number": "1042-1",
    "customer": "a1",
    "created_by": "u1",
    "created_by_name": "Robin",
    "date_created": 1,
    "date_updated": 2,
    "date_status_change": 3,
    "date_invoice": 4,
    "status": 2,
    "status_name": "Open",
    "subtotal": "17800",
    "tax": 0,
    "total": 17800,
    "cost": 9760,
    "margin": 45,
    "total_paid": 5900,
    "due": 11900,
    "date_paid_in_full": 0,
    "first_payment_date": 5,
    "payments": [{"jnid": "y1"}],
    "primary": {"id": "c1", "type": "contact", "name": "Dana"},
    "related": [{"id": "j1", "type": "job", "name": "Re-roof", "number": "1042"}, "c1"],
    "items": [
        {
            "jnid": "p1",
            "name": "Shingle",
            "quantity": 32,
            "price": 385,
            "amount": 12320,
            "labor": {"amount": 1, "price": 2},
        }
    ],
    "sections": [],
    "sales_rep": "u1",
    "sales_rep_name": "Robin",
    "owners": [{"id": "u1"}],
    "note": "",
    "is_active": True,
    "is_archived": False,
    "future_field": {"x": 1},
}


def test_a_document_goes_back_whole_without_what_jobnimbus_works_out() -> None:
    """Source: JobNimbus API documentation, quirks: a v2 PUT needs the jnid, and `items` replaces."""
    assert body_of(change(Entity.INVOICES, note="Net 30"), base=AN_INVOICE) == {
        "jnid": "r1",
        "type": "invoice",
        "guid": "G-1",
        "number": "1042-1",
        "date_invoice": 4,
        "status": 2,
        "status_name": "Open",
        "primary": {"id": "c1", "type": "contact"},
        "related": [{"id": "j1", "type": "job"}, "c1"],
        "items": [{"jnid": "p1", "name": "Shingle", "quantity": 32, "price": 385, "labor": {"price": 2}}],
        "sections": [],
        "sales_rep": "u1",
        "owners": [{"id": "u1"}],
        "note": "Net 30",
        "is_active": True,
        "is_archived": False,
        "future_field": {"x": 1},
    }


NAIL = {"name": "Nail", "quantity": 1, "price": 2, "cost": 1, "uom": "BX", "item_type": "material", "description": ""}


def test_changed_items_replace_those_of_the_document() -> None:
    assert body_of(change(Entity.INVOICES, items=[NAIL]), base=AN_INVOICE)["items"] == [NAIL]


OLD_SHINGLE = {"jnid": "p1", "name": "Shingle", "quantity": 32, "price": 385, "cost": 210, "tax_rate": 7.5, "sku": "S1"}
OLD_LABOR = {"jnid": "p2", "name": "Labor", "quantity": 1, "price": 90, "labor": {"price": 50, "cost": 9}}
REAR_LABOR = {"jnid": "p2", "name": "Labor", "quantity": 5, "price": 70, "tax_rate": 3}
NEW_LINE = {"quantity": 1, "price": 0, "cost": 0, "uom": "Items", "item_type": "material", "description": ""}


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ([{"name": "Shingle", "quantity": 33}], [{**OLD_SHINGLE, "quantity": 33}]),
        ([{"name": "Lifetime shingle", "jnid": "p1"}], [{**OLD_SHINGLE, "name": "Lifetime shingle"}]),
        ([{"name": " Shingle "}], [{**OLD_SHINGLE, "name": " Shingle "}]),
        ([{"name": "Shingle", "jnid": "p9"}], [{**NEW_LINE, "name": "Shingle", "jnid": "p9"}]),
        # of two alike the one most alike, and none twice
        ([{"name": "Labor", "quantity": 5}], [REAR_LABOR]),
        (
            [{"name": "Labor", "price": 95}, {"name": "Labor", "price": 70}, {"name": "Labor"}],
            [{**OLD_LABOR, "price": 95}, REAR_LABOR, {**NEW_LINE, "name": "Labor"}],
        ),
        ([{"name": "Labor", "labor": {"price": 60}}], [{**OLD_LABOR, "labor": {"price": 60, "cost": 9}}]),
        ([{"name": "Nail", "price": 2}], [{**NEW_LINE, "name": "Nail", "price": 2}]),
        ([], []),
    ],
)
def test_of_a_line_that_stays_what_was_not_said_stays(said: list[dict[str, Any]], sent: list[dict[str, Any]]) -> None:
    """Source: JobNimbus API documentation, estimates: the PUT replaces the items, tax, labour and all."""
    base = {**AN_INVOICE, "items": [{**OLD_SHINGLE, "amount": 12320}, OLD_LABOR, REAR_LABOR]}
    write = change(Entity.INVOICES, items=said)
    assert body_of(write, base=base)["items"] == sent
    assert landed(write, {"items": sent}) == ()
    assert base["items"] == [{**OLD_SHINGLE, "amount": 12320}, OLD_LABOR, REAR_LABOR]


def test_of_a_products_unit_what_was_not_said_stays() -> None:
    base = {
        "jnid": "r1",
        "uoms": [{"uom": "SQ", "material": {"cost": 2, "price": 3}, "labor": {"cost": 4, "price": 5}}],
    }
    said = [{"uom": "SQ", "material": {"price": 9}}, {"uom": "EA", "labor": {"cost": 1}}]
    assert body_of(change(Entity.PRODUCTS, uoms=said), base=base)["uoms"] == [
        {"uom": "SQ", "material": {"cost": 2, "price": 9}, "labor": {"cost": 4, "price": 5}},
        {"uom": "EA", "material": {"cost": 0, "price": 0}, "labor": {"cost": 1, "price": 0}},
    ]
    assert body_of(new(Entity.PRODUCTS, uoms=[{"uom": "EA"}]))["uoms"] == [
        {"uom": "EA", "material": {"cost": 0, "price": 0}, "labor": {"cost": 0, "price": 0}}
    ]


@pytest.mark.parametrize(
    ("links", "related", "primary"),
    [
        ((Link("c2", Entity.CONTACTS),), ["c2 contact", "j1 job", "c1"], "c2 contact"),
        ((CONTACT,), ["c1 contact", "j1 job"], "c1 contact"),
        ((Link("j2", Entity.JOBS),), ["j2 job", "c1"], "c1 contact"),
        ((Link("j2", Entity.JOBS), CONTACT), ["j2 job", "c1 contact"], "c1 contact"),
        ((Link("x1"),), ["x1", "j1 job", "c1"], "c1 contact"),
    ],
)
def test_a_new_link_of_a_document_takes_the_place_of_its_kind_and_no_other(
    links: tuple[Link, ...], related: list[str], primary: str
) -> None:
    body = body_of(change(Entity.INVOICES, *links), base=AN_INVOICE)
    told = [" ".join(link.values()) if isinstance(link, dict) else link for link in body["related"]]
    assert (told, " ".join(body["primary"].values())) == (related, primary)


@pytest.mark.parametrize(
    ("fields", "there", "gone"),
    [
        ({"status": 4}, {"status": 4}, "status_name"),
        ({"status_name": "Closed"}, {"status_name": "Closed"}, "status"),
        ({"status": 4, "status_name": "Closed"}, {"status": 4, "status_name": "Closed"}, "sales_rep_name"),
    ],
)
def test_half_of_a_pair_never_goes_back_with_the_old_other_half(
    fields: dict[str, Any], there: dict[str, Any], gone: str
) -> None:
    body = body_of(change(Entity.INVOICES, **fields), base=AN_INVOICE)
    assert {name: body[name] for name in there} == there
    assert gone not in body


A_WORK_ORDER = {
    "jnid": "r1",
    "type": "workorder",
    "parent_mobile_phone": "555",
    "total_line_item_cost": 1,
    "task_count": 2,
    "cf_string_1": "Red",
    "Door: color": "Red",
    "cf_string_2": "Red",
    "Trim color?": "Red",
    "cf_boolean_1": None,
    "Gated": None,
    "is_archived": False,
}


def without(*names: str, **more: Any) -> dict[str, Any]:
    left_out = {"parent_mobile_phone", "total_line_item_cost", "task_count", *names}
    return {name: value for name, value in A_WORK_ORDER.items() if name not in left_out} | more


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"internal_note": "x"}, without(internal_note="x")),
        # both labels had the old value; the key that stays carries the value of the one that does not change
        ({"cf_string_1": "Blue"}, without("Door: color", "Trim color?", cf_string_1="Blue")),
        ({"Door: color": "Blue"}, without("cf_string_1", "cf_string_2", **{"Door: color": "Blue"})),
        ({"cf_boolean_1": True}, without("Gated", cf_boolean_1=True)),
        (
            {"cf_string_1": "B", "Door: color": "B"},
            without("cf_string_2", "Trim color?", **{"cf_string_1": "B", "Door: color": "B"}),
        ),
    ],
)
def test_a_custom_field_that_changes_leaves_its_old_self_under_no_other_name(
    fields: dict[str, Any], body: dict[str, Any]
) -> None:
    """Source: JobNimbus API documentation, custom fields: a record shows each under its key and under its label."""
    assert body_of(change(Entity.WORKORDERS, **fields), base=A_WORK_ORDER) == body


def test_a_document_cannot_be_changed_without_the_record_as_it_is() -> None:
    with pytest.raises(ValueError, match="as it is"):
        body_of(change(Entity.ESTIMATES, note="n"))


@pytest.mark.parametrize("entity", DOCUMENTS)
def test_a_document_is_deleted_under_its_id(entity: Entity) -> None:
    assert body_of(deletion(entity)) == {"jnid": "r1", "is_active": False}


@pytest.mark.parametrize("entity", [Entity.JOBS, Entity.CONTACTS, Entity.TASKS])
def test_a_plain_record_is_deleted_by_its_flag_alone(entity: Entity) -> None:
    assert body_of(deletion(entity)) == {"is_active": False}


# ---- what is missing


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (new(Entity.JOBS, name="n", record_type_name="Roofing", status_name="Lead"), ()),
        (new(Entity.JOBS, name="  ", status_name="Lead"), ("name", "record_type_name")),
        (new(Entity.CONTACTS, record_type_name="c", status_name="s"), ("display_name",)),
        (new(Entity.CONTACTS, record_type_name="c", status_name="s", company="Acme"), ()),
        (new(Entity.ACTIVITIES, note="n", record_type_name="Note"), ("primary",)),
        (new(Entity.ESTIMATES, status=0, items=[]), ("related",)),
        (new(Entity.ESTIMATES, JOB, items=[]), ("status",)),
        (new(Entity.PAYMENTS, JOB), ("total", "date_payment")),
        (
            new(Entity.PRODUCTS, name="n", description="d", item_type="material", location_id=1, tax_exempt=False),
            ("uoms",),
        ),
        (new(Entity.SETTINGS, part="workflow", name="Repair"), ("object_type",)),
        (new(Entity.SETTINGS, part="custom_field"), ("title", "object_type", "type")),
        (new(Entity.SETTINGS, part="source", SourceName="Fair"), ()),
        (change(Entity.JOBS), ()),
        (deletion(Entity.ESTIMATES), ()),
    ],
)
def test_what_jobnimbus_needs_and_is_not_given_is_named(write: Write, names: tuple[str, ...]) -> None:
    assert missing(write) == names


@pytest.mark.parametrize("part", SETTINGS_PARTS)
def test_every_part_of_the_settings_needs_its_name(part: str) -> None:
    assert missing(new(Entity.SETTINGS, part=part))[0] == SETTINGS_PARTS[part].name


# ---- reading back


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({"name": "Re-roof"}, {"name": "Re-roof "}),
        ({"description": "a\nb"}, {"description": "a\r\nb"}),
        ({"status_name": "in production"}, {"status_name": "In  Production"}),
        ({"date_start": 1790000000}, {"date_start": 1790000000000}),
        ({"date_start": 1790000000}, {"date_start": "1790000000"}),
        ({"date_end": 0}, {"date_end": None}),
        ({"number": 1042}, {"number": "1042"}),
        ({"subtotal": 17800}, {"subtotal": "17800.0"}),
        ({"email": ""}, {"email": None}),
        ({"email": None}, {}),
        ({"is_completed": True}, {"is_completed": 1}),
        ({"is_completed": False}, {}),
        ({"tags": ["a", "b"]}, {"tags": ["b", "a"]}),
        ({"tags": ["a", "b"]}, {"tags": "b, a"}),
        ({"tags": []}, {"tags": None}),
        ({"owners": [{"id": "u1"}]}, {"owners": [{"id": "u1", "name": "Robin"}]}),
        ({"subcontractors": ["s1"]}, {"subcontractors": [{"id": "s1"}]}),
        ({"items": [{"name": "Nail", "price": 2}]}, {"items": [{"name": "Nail", "price": 2.0, "amount": 4}]}),
        ({"geo": {"lat": 1}}, {"geo": {"lat": 1.0, "lon": 2}}),
        ({"Claim Number:": "C-1"}, {"cf_string_7": "C-1"}),
        ({"cf_string_7": "C-1"}, {"Claim Number:": "C-1"}),
    ],
)
def test_a_field_that_jobnimbus_shows_in_its_own_way_has_landed(wanted: dict[str, Any], shown: dict[str, Any]) -> None:
    assert landed(change(Entity.JOBS, **wanted), {"jnid": "r1"} | shown) == ()


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({"name": "Re-roof"}, {"name": "re-roof"}),
        ({"name": "Re-roof"}, {}),
        ({"status_name": "Lead"}, {"status_name": "Lost"}),
        ({"date_start": 1790000000}, {"date_start": 1790000001}),
        ({"date_start": 1790000000}, {"date_start": None}),
        ({"number": 1042}, {"number": "1042a"}),
        ({"total": 5}, {"total": True}),
        ({"email": None}, {"email": "dana@example.com"}),
        ({"is_completed": True}, {"is_completed": False}),
        ({"is_completed": False}, {"is_completed": True}),
        ({"tags": ["a"]}, {"tags": ["a", "b"]}),
        ({"tags": ["a", "a"]}, {"tags": ["a", "b"]}),
        ({"owners": [{"id": "u1"}]}, {"owners": [{"id": "u2"}]}),
        ({"items": [{"name": "a"}, {"name": "b"}]}, {"items": [{"name": "b"}, {"name": "a"}]}),
        ({"items": [{"name": "a", "price": 2}]}, {"items": [{"name": "a", "price": 3}]}),
        ({"geo": {"lat": 1}}, {"geo": None}),
        ({"Claim Number:": "C-1"}, {"Claim Number:": "C-2", "cf_string_9": "C-1"}),
        ({"Claim Number:": "C-1"}, {"cf_string_7": "C-2", "description": "C-1"}),
    ],
)
def test_a_field_that_another_value_stands_in_has_not_landed(wanted: dict[str, Any], shown: dict[str, Any]) -> None:
    assert landed(change(Entity.JOBS, **wanted), {"jnid": "r1"} | shown) == tuple(wanted)


def test_the_type_of_a_file_is_looked_for_where_files_show_it() -> None:
    record = {"type": "attachment", "record_type": 2, "record_type_name": "Photo"}
    assert landed(change(Entity.ATTACHMENTS, type=2), record) == ()
    assert landed(change(Entity.ATTACHMENTS, type="photo"), record) == ()
    assert landed(change(Entity.ATTACHMENTS, type=1), record) == ("type",)


def test_a_link_that_is_not_there_has_not_landed() -> None:
    record = {"name": "n", "primary": {"id": "c2"}, "related": [{"id": "c2"}, {"id": "c1"}]}
    assert landed(change(Entity.JOBS, CONTACT, name="n"), record) == ("primary",)
    assert landed(change(Entity.INVOICES, JOB), {"related": []}) == ("related",)
    assert landed(change(Entity.INVOICES), {"related": []}) == ()


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({}, ()),
        ({"jnid": "r1", "is_active": False}, ()),
        ({"jnid": "r1", "is_active": True}, ("is_active",)),
        ({"jnid": "r1"}, ("is_active",)),
    ],
)
def test_a_deletion_has_landed_when_the_record_is_gone(record: dict[str, Any], names: tuple[str, ...]) -> None:
    assert landed(deletion(Entity.ATTACHMENTS), record) == names


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**40) | st.text(max_size=8) | st.floats(0, 1e9, allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(
    ["name", "status_name", "date_start", "tags", "items", "owners", "cf_string_1", "Claim #:", "total"]
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_a_record_that_shows_the_fields_as_they_were_sent_has_them_all(fields: dict[str, Any]) -> None:
    assert landed(change(Entity.JOBS, **fields), dict(fields)) == ()


@given(
    st.sampled_from(DOCUMENTS),
    st.dictionaries(_NAMES | st.sampled_from(["note", "cf_string_2", "Door: x"]), _VALUES, max_size=6),
    st.dictionaries(_NAMES, _VALUES, max_size=3),
)
def test_the_body_of_a_document_shows_every_change(
    entity: Entity, base: dict[str, Any], fields: dict[str, Any]
) -> None:
    body = body_of(change(entity, **fields), base=base)
    assert landed(change(entity, **fields), body) == ()
    assert (body["jnid"], body["type"]) == ("r1", facts_of(entity).type)


# ---- orphans

PLAIN_IDS, OBJECTS = {"related": ["j1"]}, {"related": [{"id": "j1", "type": "job"}]}


@pytest.mark.parametrize(
    ("wanted", "record", "lacking"),
    [
        (new(Entity.ESTIMATES, JOB), OBJECTS, False),
        (new(Entity.ESTIMATES, JOB), PLAIN_IDS, False),
        (new(Entity.ESTIMATES, JOB, CONTACT), OBJECTS, True),
        (new(Entity.ESTIMATES, JOB), {}, True),
        (new(Entity.TASKS, JOB, CONTACT), OBJECTS, False),
        (new(Entity.TASKS, CONTACT, JOB), OBJECTS, True),
        (new(Entity.ACTIVITIES, JOB), {"primary": {"id": "j1"}}, False),
        (new(Entity.ACTIVITIES, JOB), OBJECTS, False),
        (new(Entity.JOBS, CONTACT), {"primary": {"id": "c1"}}, False),
        (new(Entity.JOBS, CONTACT), {"primary": None, "related": [{"id": "c1"}]}, True),
        (new(Entity.CONTACTS, JOB), {}, False),
        (new(Entity.ESTIMATES), {}, False),
        (Upload("a.jpg", "image/jpeg", 2, (JOB,), content=b"x"), OBJECTS, False),
        (Upload("a.jpg", "image/jpeg", 2, (JOB, CONTACT), content=b"x"), OBJECTS, True),
        (Upload("a.jpg", "image/jpeg", 2, (JOB,), content=b"x"), {"related": None}, True),
    ],
)
def test_a_record_without_a_link_that_was_asked_for_is_noticed(
    wanted: Write | Upload, record: dict[str, Any], lacking: bool
) -> None:
    assert unlinked(wanted, record) is lacking


@pytest.mark.parametrize(
    "entity",
    [kind for kind, facts in CATALOG.items() if facts.writes.create and facts.writes.links is not LinkForm.NONE],
)
def test_a_new_record_that_shows_its_own_body_hangs_where_it_should(entity: Entity) -> None:
    write = new(entity, JOB, CONTACT)
    assert not unlinked(write, body_of(write))
