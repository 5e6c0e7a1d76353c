"""Every kind of record as tools read it: what lists can be asked for, what searches find, and single records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tool_desk import Desk, Rows

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Word
from jobnimbus_mcp.crm.reads import Shape
from jobnimbus_mcp.errors import InvalidInput, RecordNotFound
from jobnimbus_mcp.tools.spec import TOOLSETS, Effect
from jobnimbus_mcp.tools.table import ROWS, ReadRow, list_model, one_model, search_model

TWELVE = {
    *("get_jobs", "search_jobs", "get_job", "get_contacts", "search_contacts", "get_estimates", "get_activities"),
    *("get_calendar_activities", "get_tasks", "get_users", "get_attachments", "get_webhooks"),
}
KINDS = (
    *("task", "activity", "estimate", "invoice", "payment", "product", "work_order", "material_order", "budget"),
    *("attachment", "user"),
)
LISTS = (
    *("tasks", "activities", "estimates", "invoices", "payments", "products", "work_orders", "material_orders"),
    *("budgets", "attachments", "users"),
)
READS = (
    TWELVE
    | {"get_contact", "get_units", "get_settings"}
    | {f"get_{one}" for one in KINDS}
    | {f"{verb}_{many}" for verb in ("get", "search") for many in LISTS}
)
DEFAULT_READS_BYTES_MOST = 28 * 1024
"""Of the 44 KB that all default tools may take in an agent's context; the rest is for those that write."""

NOW = ManualClock().now()
DAY_S = 86_400


def at(days: float) -> int:
    return int(NOW + days * DAY_S)


def day(days: float) -> str:
    return datetime.fromtimestamp(at(days), UTC).date().isoformat()


def link(jnid: str, kind: str, name: str = "") -> dict[str, Any]:
    return {"id": jnid, "type": kind, "name": name}


JOB, OTHER_JOB, CONTACT = "mjob100000000000", "mjob200000000000", "mctc100000000000"
OF_JOB = [link(JOB, "job", "Whitfield roof"), link(CONTACT, "contact", "Dana Whitfield")]
OF_OTHER = [link(OTHER_JOB, "job", "Gibbs gutter")]

SETTINGS = {
    "workflows": [
        {
            "id": 41,
            "object_type": "workorder",
            "name": "Install",
            "status": [{"id": 366, "name": "Assigned"}, {"id": 367, "name": "Done"}],
        },
        {"id": 42, "object_type": "workorder", "name": "Service", "status": [{"id": 368, "name": "Assigned"}]},
    ],
}
USERS = [
    {"id": "u1", "first_name": "Robin", "last_name": "Okafor", "email": "robin@example.com", "is_active": True},
    {"id": "u2", "first_name": "Sam", "last_name": "Ibarra", "email": "sam@example.com", "is_active": True},
    {"id": "u3", "first_name": "Robin", "last_name": "Former", "email": "old@example.com", "is_active": False},
]
RECORDS: dict[Entity, Rows] = {
    Entity.TASKS: [
        {"jnid": "t1", "title": "Final inspection", "related": OF_JOB, "date_created": at(-3), "date_start": at(1)},
        {"jnid": "t2", "title": "Call back", "description": "about the ridge", "related": OF_OTHER,
         "date_created": at(-2), "date_start": at(-1), "owners": [{"id": "u1"}]},
    ],
    Entity.ACTIVITIES: [
        {"jnid": "a1", "note": "The <b>ridge</b> vent leaks", "related": OF_JOB, "date_created": at(-3)},
        {"jnid": "a2", "note": "Paid by check", "related": OF_OTHER, "date_created": at(-2)},
    ],
    Entity.ESTIMATES: [
        {"jnid": "7B1C0B52-0000-4000-8000-0000000000E1", "number": "1107", "status_name": "Approved",
         "items": [{"name": "Architectural shingle"}], "related": OF_JOB, "date_created": at(-3)},
        {"jnid": "e2", "number": "1108", "status_name": "Draft", "internal_note": "ask the adjuster",
         "related": OF_OTHER, "date_created": at(-2)},
    ],
    Entity.INVOICES: [
        {"jnid": "i1", "number": "1042-1", "status_name": "Open", "due": 100.5, "date_due": at(-5), "related": OF_JOB,
         "items": [{"name": "Deposit"}], "date_created": at(-20)},
        {"jnid": "i2", "number": "1042-2", "status_name": "Closed", "due": 0, "date_due": at(-5), "related": OF_JOB,
         "date_created": at(-19)},
        {"jnid": "i3", "number": "2001", "status_name": "Open - Partial", "due": "70.00", "date_due": at(5),
         "related": OF_OTHER, "date_created": at(-18)},
        {"jnid": "i4", "number": "2002", "status_name": "Draft", "due": 10, "date_due": 0, "note": "net thirty",
         "related": OF_OTHER, "date_created": at(-1)},
    ],
    Entity.PAYMENTS: [
        {"jnid": "p1", "reference": "CHK 4471", "date_payment": at(-4), "date_created": at(-1), "method_id": 3,
         "related": OF_JOB, "invoices": [{"invoice_id": "i1", "invoice_no": "1042-1", "amount": 50}]},
        {"jnid": "p2", "reference": "wire", "date_payment": at(-2), "date_created": at(-2), "method_id": 4,
         "related": OF_JOB, "invoices": [{"invoice_id": "i2", "invoice_no": "1042-2", "amount": 50}]},
        {"jnid": "p3", "reference": "cash", "date_payment": 0, "date_created": at(-9), "method_id": 1,
         "related": OF_OTHER, "invoices": []},
    ],
    Entity.PRODUCTS: [
        {"jnid": "r1", "name": "Architectural shingle", "description": "laminate", "item_type": "labor+material",
         "is_active": True, "date_created": at(-3)},
        {"jnid": "r2", "name": "Tear-off", "description": "old roof", "item_type": "labor", "is_active": True,
         "date_created": at(-2)},
        {"jnid": "r3", "name": "Cedar shake", "item_type": "material", "is_active": False, "date_created": at(-1)},
    ],
    Entity.WORKORDERS: [
        {"jnid": "w1", "name": "Install crew", "number": "WO-1", "status": 366, "record_type": 41, "related": OF_JOB,
         "date_start": at(2), "owners": [{"id": "u2"}], "internal_note": "dog in yard", "date_created": at(-3)},
        {"jnid": "w2", "name": "Warranty visit", "number": "WO-2", "status": 368, "record_type": 42,
         "related": OF_OTHER, "date_start": 0, "items": [{"name": "Flashing"}], "date_created": at(-2)},
        {"jnid": "w3", "name": "Clean up", "number": "WO-3", "status": 367, "record_type": 41, "related": OF_OTHER,
         "date_start": at(9), "date_created": at(-1)},
    ],
    Entity.MATERIALORDERS: [
        {"jnid": "m1", "number": "MO-57", "status": 0, "status_name": "Draft", "related": OF_JOB,
         "items": [{"name": "Ice shield"}], "date_created": at(-3)},
        {"jnid": "m2", "number": "MO-58", "status": 9, "status_name": "Delivered", "related": OF_OTHER,
         "date_created": at(-2)},
    ],
    Entity.BUDGETS: [
        {"jnid": "b1", "number": "B-1042", "sales_rep": "u1", "related": OF_JOB, "date_created": at(-3)},
        {"jnid": "b2", "number": "B-1043", "sales_rep": "u2", "related": OF_OTHER, "date_created": at(-2)},
    ],
    Entity.ATTACHMENTS: [
        {"jnid": "f1", "filename": "roof-after.jpg", "content_type": "image/jpeg", "related": OF_JOB,
         "date_created": at(-3)},
        {"jnid": "f2", "filename": "scope.pdf", "description": "signed by the owner", "content_type": "application/pdf",
         "related": OF_OTHER, "date_created": at(-2)},
    ],
    Entity.CONTACTS: [{"jnid": CONTACT, "display_name": "Dana Whitfield", "date_created": at(-30)}],
}  # fmt: skip
PARTS = {(Entity.SETTINGS, ""): SETTINGS, (Entity.USERS, ""): {"rows": USERS}}


def desk(zone: str = "UTC") -> Desk:
    return Desk(RECORDS, PARTS, zone=zone)


ALL = desk().specs


def test_the_tools_that_read_are_these() -> None:
    names = [spec.name for spec in ALL]

    assert set(names) == READS | {"find_tools", "use_tool"}
    assert len(names) == len(set(names))
    assert all(spec.effect is Effect.READ for spec in ALL)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_every_tool_says_in_a_line_what_it_is_for_and_what_each_argument_means(spec: Any) -> None:
    first = spec.description.split(". ")[0]
    assert 20 < len(first) <= 120
    assert spec.description.endswith(".")
    assert spec.title
    assert spec.toolset in {*TOOLSETS, "meta"}
    for name, told in spec.input_schema["properties"].items():
        assert told.get("description") or "enum" in told or "default" in told, name
    assert spec.input_schema["additionalProperties"] is False


def test_the_default_tools_are_the_twelve_and_two_more() -> None:
    default = {spec.name for spec in ALL if spec.default}

    assert default == TWELVE | {"get_contact", "get_invoices", "find_tools", "use_tool"}


def test_the_default_tools_leave_an_agents_context_to_its_work() -> None:
    listed = desk().toolbox.listing()

    assert len(orjson.dumps(listed)) <= DEFAULT_READS_BYTES_MOST


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.many)
def test_a_search_takes_everything_that_its_list_takes_and_words(row: ReadRow) -> None:
    listed, searched = list_model(row).model_fields, search_model(row).model_fields

    assert set(searched) == {*listed, "query"}
    with pytest.raises(ValidationError):
        search_model(row).model_validate({"query": "x" * 201})
    with pytest.raises(ValidationError):
        list_model(row).model_validate({"query": "x"})


@pytest.mark.parametrize(
    ("tool", "arguments", "ids"),
    [
        ("get_invoices", {}, ["i4", "i3", "i2", "i1"]),
        ("get_invoices", {"job_id": JOB}, ["i2", "i1"]),
        ("get_invoices", {"contact_id": CONTACT, "unpaid": True}, ["i1"]),
        ("get_invoices", {"status": "open"}, ["i1"]),
        ("get_invoices", {"status": "OPEN - partial"}, ["i3"]),
        ("get_invoices", {"date_from": day(-19)}, ["i4", "i3", "i2"]),
        ("get_invoices", {"due_from": day(0)}, ["i3"]),
        # what has no due date is due neither before nor after
        ("get_invoices", {"due_to": day(0)}, ["i2", "i1"]),
        ("get_invoices", {"unpaid": True}, ["i4", "i3", "i1"]),
        ("get_invoices", {"unpaid": False}, ["i2"]),
        ("get_invoices", {"overdue": True}, ["i1"]),
        ("get_invoices", {"overdue": False}, ["i4", "i3", "i2"]),
        ("get_invoices", {"unpaid": True, "overdue": False}, ["i4", "i3"]),
        ("get_invoices", {"sort_by": "date_due", "order": "asc", "unpaid": True}, ["i4", "i1", "i3"]),
        ("get_payments", {}, ["p1", "p2", "p3"]),
        ("get_payments", {"sort_by": "date_payment"}, ["p2", "p1", "p3"]),
        ("get_payments", {"job_id": JOB, "method_id": 4}, ["p2"]),
        ("get_payments", {"invoice_id": "i1"}, ["p1"]),
        ("get_payments", {"invoice_id": "i4"}, []),
        ("get_payments", {"date_from": day(-3)}, ["p2"]),
        ("get_payments", {"date_to": day(-3)}, ["p1"]),
        ("get_products", {}, ["r3", "r2", "r1"]),
        ("get_products", {"is_active": True}, ["r2", "r1"]),
        ("get_products", {"is_active": False}, ["r3"]),
        ("get_products", {"item_type": "material"}, ["r3"]),
        ("get_products", {"item_type": "labor+material"}, ["r1"]),
        ("get_work_orders", {"status": "assigned"}, ["w2", "w1"]),
        ("get_work_orders", {"record_type": "install"}, ["w3", "w1"]),
        ("get_work_orders", {"owner_id": "u2"}, ["w1"]),
        ("get_work_orders", {"scheduled_from": day(3)}, ["w3"]),
        # what is not scheduled lies before no day
        ("get_work_orders", {"scheduled_to": day(3)}, ["w1"]),
        ("get_work_orders", {"job_id": OTHER_JOB, "date_to": day(-2)}, ["w2"]),
        ("get_material_orders", {"status": "delivered"}, ["m2"]),
        ("get_material_orders", {"job_id": JOB}, ["m1"]),
        ("get_budgets", {"sales_rep": "robin okafor"}, ["b1"]),
        ("get_budgets", {"contact_id": CONTACT}, ["b1"]),
        ("search_tasks", {"query": "ridge"}, ["t2"]),
        ("search_tasks", {"query": "whitfield inspection"}, ["t1"]),
        ("search_tasks", {"query": "call", "overdue": True}, ["t2"]),
        ("search_tasks", {"query": "call", "overdue": False}, []),
        ("search_tasks", {"overdue": True}, ["t2"]),
        ("search_activities", {"query": "vent"}, ["a1"]),
        ("search_activities", {"query": "gibbs", "job_id": OTHER_JOB}, ["a2"]),
        ("search_estimates", {"query": "shingle"}, ["7B1C0B52-0000-4000-8000-0000000000E1"]),
        ("search_estimates", {"query": "adjuster 1108"}, ["e2"]),
        ("search_estimates", {"query": "11", "status": "draft"}, ["e2"]),
        ("search_invoices", {"query": "1042", "unpaid": True}, ["i1"]),
        ("search_invoices", {"query": "deposit"}, ["i1"]),
        ("search_invoices", {"query": "thirty"}, ["i4"]),
        ("search_payments", {"query": "4471"}, ["p1"]),
        ("search_payments", {"query": "1042-2"}, ["p2"]),
        ("search_payments", {"query": "whitfield", "invoice_id": "i2"}, ["p2"]),
        ("search_products", {"query": "roof"}, ["r2"]),
        ("search_products", {"query": "shingle", "item_type": "labor"}, []),
        ("search_work_orders", {"query": "wo-2"}, ["w2"]),
        ("search_work_orders", {"query": "dog"}, ["w1"]),
        ("search_work_orders", {"query": "flashing"}, ["w2"]),
        ("search_material_orders", {"query": "shield"}, ["m1"]),
        ("search_attachments", {"query": "signed"}, ["f2"]),
        ("search_attachments", {"query": "roof", "file_type": "jpg"}, ["f1"]),
        ("search_attachments", {"query": "roof", "file_type": "pdf"}, []),
        ("search_budgets", {"query": "gibbs"}, ["b2"]),
        ("search_users", {"query": "robin"}, ["u1"]),
        ("search_users", {"query": "robin", "active_only": False}, ["u1", "u3"]),
        ("search_users", {"query": "Okafor Robin"}, ["u1"]),
        ("get_users", {}, ["u1", "u2"]),
    ],
)
async def test_a_list_has_exactly_what_was_asked_for(tool: str, arguments: dict[str, Any], ids: list[str]) -> None:
    assert await desk().ids(tool, **arguments) == ids


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.many)
async def test_words_are_looked_for_in_every_field_that_is_named(row: ReadRow) -> None:
    def holding(path: str) -> dict[str, Any]:
        head, _, rest = path.partition(".")
        return {head: [{rest: "some zebra there"}] if rest else "some zebra there"}

    rows = [{"jnid": f"x{n}", "id": f"x{n}", **holding(path)} for n, path in enumerate(row.searched)]
    rows.append({"jnid": "none", "id": "none", "other": "zebra"})
    stocked = Desk({row.entity: rows}, {(Entity.USERS, ""): {"rows": rows}})

    found = await stocked.ids(f"search_{row.many}", query="ZEBRA")

    assert sorted(found) == sorted(one["jnid"] for one in rows[:-1])
    (asked,) = {clause for read in stocked.account.asked for clause in read.where} or {Word("ZEBRA", row.searched)}
    assert isinstance(asked, Word)


@pytest.mark.parametrize(
    ("tool", "arguments", "shown"),
    [
        ("get_contact", {"contact_id": CONTACT}, CONTACT),
        ("get_task", {"task_id": "t1"}, "t1"),
        ("get_activity", {"activity_id": "a1"}, "a1"),
        (
            "get_estimate",
            {"estimate_id": "7B1C0B52-0000-4000-8000-0000000000E1"},
            "7B1C0B52-0000-4000-8000-0000000000E1",
        ),
        ("get_invoice", {"invoice_id": "i1"}, "i1"),
        ("get_payment", {"payment_id": "p1"}, "p1"),
        ("get_product", {"product_id": "r3"}, "r3"),
        ("get_work_order", {"work_order_id": "w1"}, "w1"),
        ("get_material_order", {"material_order_id": "m1"}, "m1"),
        ("get_budget", {"budget_id": "b1"}, "b1"),
        ("get_attachment", {"attachment_id": "f1"}, "f1"),
    ],
)
async def test_a_single_record_is_told_by_its_id(tool: str, arguments: dict[str, str], shown: str) -> None:
    told = await desk().ask(tool, **arguments, fields="jnid")
    assert told["record"] == {"jnid": shown}
    assert told["as_of"] == "2026-09-21T14:13:20.000Z"

    with pytest.raises(RecordNotFound):
        await desk().ask(tool, **dict.fromkeys(arguments, "nothing1"))


async def test_a_user_is_told_by_id_former_ones_too() -> None:
    told = await desk().ask("get_user", user_id="u3", fields="email,is_active")
    assert told["record"] == {"email": "old@example.com", "is_active": False}

    with pytest.raises(RecordNotFound):
        await desk().ask("get_user", user_id="u9")


@pytest.mark.parametrize("row", [row for row in ROWS if row.one_arguments is None], ids=lambda row: row.one)
def test_ids_are_nothing_that_could_be_a_path(row: ReadRow) -> None:
    model, name = one_model(row), f"{row.one}_id"
    for wrong in ("../users", "a/b", "a?b", "a b", "", "x" * 65):
        with pytest.raises(ValidationError):
            model.model_validate({name: wrong})
    with pytest.raises(ValidationError):
        model.model_validate({})
    hyphens = {name: "7B1C0B52-0000-4000-8000-0000000000E1"}
    if row.entity is Entity.ESTIMATES:
        model.model_validate(hyphens)
    else:
        with pytest.raises(ValidationError):
            model.model_validate(hyphens)


async def test_payments_of_an_invoice_are_asked_for_by_what_the_invoice_belongs_to() -> None:
    """JobNimbus is not known to search the invoices that a payment names; what it does not know matches nothing."""
    stocked = desk()
    await stocked.ids("get_payments", invoice_id="i1")

    (asked,) = [read for read in stocked.account.asked if read.entity is Entity.PAYMENTS]
    assert asked.scope == {JOB, CONTACT}
    assert [clause.form() for clause in asked.where] == [["one_of", "related.id", [CONTACT, JOB]]]

    with pytest.raises(RecordNotFound, match="invoice"):
        await stocked.ids("get_payments", invoice_id="nothing1")


@pytest.mark.parametrize(
    ("tool", "arguments", "shape", "scope"),
    [
        ("get_invoices", {}, Shape.BLOCK, set()),
        ("get_invoices", {"job_id": JOB}, Shape.BLOCK, {JOB}),
        ("get_invoices", {"job_id": JOB, "contact_id": CONTACT, "date_from": day(-9)}, Shape.BLOCK, {JOB, CONTACT}),
        # JobNimbus finds single words exactly, and of longer names whatever has their words
        ("get_invoices", {"status": "Open", "due_from": day(0)}, Shape.BLOCK, set()),
        ("get_invoices", {"status": "Open - Partial", "due_from": day(0)}, Shape.SCAN, set()),
        ("get_products", {"item_type": "labor", "date_from": day(-9)}, Shape.SCAN, set()),
        ("get_invoices", {"unpaid": True, "date_from": day(-9), "job_id": JOB}, Shape.SCAN, {JOB}),
        ("search_invoices", {"query": "deposit", "job_id": JOB}, Shape.SCAN, {JOB}),
        ("get_users", {}, Shape.WHOLE, set()),
    ],
)
async def test_rows_are_checked_here_where_jobnimbus_gives_more_than_is_meant(
    tool: str, arguments: dict[str, Any], shape: Shape, scope: set[str]
) -> None:
    stocked = desk()
    await stocked.ask(tool, **arguments)

    read = stocked.account.asked[0]
    assert (read.shape, read.scope) == (shape, scope)


@pytest.mark.parametrize(("due", "late"), [(-1, True), (0, False)])
async def test_what_is_due_today_is_not_overdue_before_tomorrow(due: int, late: bool) -> None:
    midnight = int(NOW) - int(NOW) % DAY_S
    stocked = Desk({Entity.INVOICES: [{"jnid": "i1", "due": 5, "date_due": midnight + due}]})

    assert await stocked.ids("get_invoices", overdue=late) == ["i1"]
    assert await stocked.ids("get_invoices", overdue=not late) == []


@given(
    st.lists(
        st.tuples(
            st.one_of(st.just(0), st.integers(min_value=int(NOW) - 10 * DAY_S, max_value=int(NOW) + 10 * DAY_S)),
            st.sampled_from([0, None, "0.00", 0.004, 5, "12.5", -3]),
        ),
        max_size=8,
    ),
    st.sampled_from(["UTC", "America/Denver", "Asia/Kolkata"]),
)
async def test_an_invoice_is_overdue_from_the_day_after_it_was_due(dues: list[tuple[int, Any]], zone: str) -> None:
    rows = [{"jnid": f"i{n}", "date_due": due, "due": owed, "date_created": n} for n, (due, owed) in enumerate(dues)]
    stocked = Desk({Entity.INVOICES: rows}, zone=zone)
    today = datetime.fromtimestamp(NOW, ZoneInfo(zone)).date()
    late = {
        row["jnid"]
        for row in rows
        if row["date_due"]
        and datetime.fromtimestamp(row["date_due"], ZoneInfo(zone)).date() <= today - timedelta(days=1)
        and float(row["due"] or 0) >= 0.005
    }

    assert set(await stocked.ids("get_invoices", overdue=True)) == late
    assert set(await stocked.ids("get_invoices", overdue=False)) == {row["jnid"] for row in rows} - late


@pytest.mark.parametrize(
    ("tool", "arguments", "field", "said"),
    [
        ("get_work_orders", {"status": "Frozen"}, "status", "It has: Assigned, Done."),
        ("get_work_orders", {"record_type": "Frozen"}, "record_type", "It has: Install, Service."),
        ("get_budgets", {"sales_rep": "Nobody"}, "sales_rep", "Sam Ibarra"),
        ("get_invoices", {"due_from": day(1), "due_to": day(0)}, "due_to", "due_to lies before due_from."),
        ("get_invoices", {"unpaid": "yes"}, "unpaid", "unpaid"),
        ("get_products", {"item_type": "air"}, "item_type", "item_type"),
        ("search_tasks", {"query": " , "}, "query", "no word"),
        ("get_invoices", {"sort_by": "date_payment"}, "sort_by", "sort_by"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    tool: str, arguments: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await desk().ask(tool, **arguments)
    assert refused.value.field == field
    assert said in refused.value.public_message
