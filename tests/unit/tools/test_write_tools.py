"""What a tool that writes makes of its arguments: the very change that was meant, of the very record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tool_desk import Desk, Rows

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.writes import Link, Write, WriteResult
from jobnimbus_mcp.errors import ConfirmationNeeded, DuplicateRecord, InvalidInput, RecordNotFound, UpstreamServerError
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.write_table import write_tools

ROOF, GUTTERS = "mjobroof00000001", "mjobgutters00001"
DANA, SAM = "mctcdana00000001", "mctcsam000000001"
TASK, ESTIMATE = "mtsk000000000001", "mest000000000001"
JOBS: Rows = [
    {"jnid": ROOF, "number": "1042", "name": "Roof", "date_updated": 1},
    {"jnid": GUTTERS, "number": "R-7", "name": "Gutters", "date_updated": 2},
    {"jnid": "ab12", "number": "9", "name": "Old account's"},
]


class NoContacts(dict[Entity, Rows]):
    """JobNimbus that fails at lists of contacts."""

    def get(self, kind: Any, default: Any = None) -> Any:
        if kind is Entity.CONTACTS:
            raise UpstreamServerError("down")
        return default


class Noted:
    """Carries out nothing, and notes what was asked. `refused`: what it says instead."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.refused: Exception | None = None

    async def write(
        self, write: Write, caller: Caller, call: Call, *, idempotency_key: str | None = None
    ) -> WriteResult:
        self.writes.append(write)
        if self.refused is not None:
            raise self.refused
        return WriteResult(write.entity, write.action, {"jnid": write.record_id or "new1"}, {}, tuple(write.fields))

    async def upload(self, *_: object, **__: object) -> WriteResult:
        raise AssertionError("nothing is uploaded here")


def desk(records: dict[Entity, Rows] | None = None, zone: str = "America/Denver") -> tuple[Desk, Noted]:
    made = Desk({Entity.JOBS: [*JOBS], **(records or {})}, writes=write_tools(), zone=zone)
    noted = Noted()
    made.toolbox = replace(made.toolbox, writer=noted)
    return made, noted


async def written(tool: str, records: dict[Entity, Rows] | None = None, **arguments: Any) -> Write:
    made, noted = desk(records)
    await made.ask(tool, **arguments)
    (write,) = noted.writes
    return write


# ---- which record


async def test_a_job_is_written_by_its_number() -> None:
    assert (await written("update_job", job_id="r-7", name="Gutters, rear")).record_id == GUTTERS


@pytest.mark.parametrize(
    ("tool", "more"),
    [("delete_job", {"confirm": True}), ("update_job", {"name": "x"}), ("create_activity", {"note": "x"})],
)
@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([{"jnid": "mjobother0000001", "number": "1042"}], "1042"),
        ([{"jnid": "mjobother0000001", "number": "r-7"}], "R-7"),
        ([{"jnid": "mjobother0000001", "number": "AB12"}], "ab12"),  # the number of one, the id of another
    ],
)
async def test_a_number_that_may_mean_two_jobs_changes_neither(
    tool: str, more: dict[str, Any], others: Rows, said: str
) -> None:
    """Source: JobNimbus API documentation, identifiers: a number is unique only by habit."""
    made, noted = desk({Entity.JOBS: [*JOBS, *others]})
    with pytest.raises(InvalidInput, match="may mean 2 jobs") as refused:
        await made.ask(tool, job_id=said, **more)
    assert refused.value.field == "job_id"
    assert noted.writes == []


async def test_a_short_id_is_one_job_and_a_number_nobody_has_is_none() -> None:
    assert (await written("delete_job", job_id="ab12", confirm=True)).record_id == "ab12"
    with pytest.raises(RecordNotFound):
        await written("delete_job", job_id="4711", confirm=True)


async def test_what_is_asked_before_a_deletion_is_read_now_and_names_the_record() -> None:
    made, noted = desk()
    ages: list[float | None] = []
    get = made.toolbox.gateway.get

    async def watched(*args: Any, max_age_s: float | None = None, **named: Any) -> Any:
        ages.append(max_age_s)
        return await get(*args, max_age_s=max_age_s, **named)

    made.toolbox.gateway.get = watched  # type: ignore[method-assign]  # to see how fresh it was asked for
    with pytest.raises(ConfirmationNeeded) as asked:
        await made.ask("use_tool", name="delete_job", arguments={"job_id": ROOF})
    assert asked.value.question == f"Delete the job 'Roof' ({ROOF}) in JobNimbus?"
    assert (ages, noted.writes) == ([0], [])


@pytest.mark.parametrize("link", [{"job_id": "mjobnone00000001"}, {"contact_id": ROOF}])
async def test_nothing_is_hung_on_what_is_not_there(link: dict[str, str]) -> None:
    made, noted = desk()
    with pytest.raises(InvalidInput, match="could belong to") as refused:
        await made.ask("create_activity", note="x", **link)
    assert (refused.value.field, noted.writes) == (next(iter(link)), [])


async def test_a_name_that_is_taken_is_told_although_nobody_can_say_by_whom() -> None:
    made, noted = desk()
    noted.refused = DuplicateRecord("JobNimbus has a contact of this name already.", field="display_name")
    settings = {"workflows": [{"id": 1, "object_type": "contact", "name": "C", "status": [{"id": 1, "name": "S"}]}]}
    made.account.parts = {**made.account.parts, (Entity.SETTINGS, ""): settings}
    made.account.records = {Entity.CONTACTS: [{"jnid": DANA, "display_name": "Dana W"}]}
    given = {"display_name": "Dana W", "record_type": "C", "status": "S"}
    with pytest.raises(DuplicateRecord, match=DANA):
        await made.ask("create_contact", **given)
    made.account.records = NoContacts()
    with pytest.raises(DuplicateRecord, match="of this name already"):
        await made.ask("create_contact", **given)


# ---- which fields


async def test_what_is_not_said_of_a_line_is_not_sent() -> None:
    items = [{"name": "Shingle", "quantity": 3, "product_id": "p1"}, {"name": "Nail", "color": ""}]
    write = await written(
        "update_estimate", {Entity.ESTIMATES: [{"jnid": ESTIMATE}]}, estimate_id=ESTIMATE, items=items
    )
    assert write.fields == {"items": [{"name": "Shingle", "quantity": 3, "jnid": "p1"}, {"name": "Nail", "color": ""}]}


async def test_only_the_prices_that_were_said_of_a_unit_are_sent() -> None:
    product = {Entity.PRODUCTS: [{"jnid": "mprd000000000001"}]}
    uoms = [{"uom": "SQ", "material_price": 5, "labor_cost": 0}, {"uom": "EA"}]
    write = await written("update_product", product, product_id="mprd000000000001", uoms=uoms)
    assert write.fields == {"uoms": [{"uom": "SQ", "material": {"price": 5}, "labor": {"cost": 0}}, {"uom": "EA"}]}


async def test_what_is_emptied_is_sent_and_what_is_null_is_left_out() -> None:
    write = await written("update_job", job_id=ROOF, description="", tags=[], date_start="", is_archived=None)
    assert write.fields == {"description": "", "tags": [], "date_start": 0}


@pytest.mark.parametrize("name", ["sales_rep", "is_archived", "name", "globalPayPayment", "jnid", " "])
async def test_no_field_of_jobnimbus_s_own_is_set_as_a_custom_one(name: str) -> None:
    made, noted = desk()
    with pytest.raises(InvalidInput) as refused:
        await made.ask("update_job", job_id=ROOF, custom_fields={name: "x"})
    assert (refused.value.field, noted.writes) == ("custom_fields", [])


LOSS = {"cf_date_2": 1_787_443_200, "Date of Loss": 1_787_443_200, "cf_string_7": "C-1", "Claim:": "C-1"}


@pytest.mark.parametrize("known", ["the record", "another record"])
async def test_a_custom_date_is_sent_as_jobnimbus_keeps_dates(known: str) -> None:
    told = {"Date of Loss": "2026-11-23", "Claim:": "2026-11-23", "Gone": None, "Insured?": True, "cf_date_9": ""}
    given: Rows = [{"jnid": ROOF, **LOSS}] if known == "the record" else [{"jnid": ROOF}, {"jnid": GUTTERS, **LOSS}]
    write = await written("update_job", {Entity.JOBS: given}, job_id=ROOF, custom_fields=told)
    midnight = 1_795_417_200  # in Denver
    assert write.fields == {**told, "Date of Loss": midnight, "cf_date_9": 0}


async def test_a_custom_date_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="custom_fields must be a date"):
        await written("update_job", job_id=ROOF, custom_fields={"cf_date_9": "soon"})


# ---- when


EIGHT, MIDNIGHT, LAST = 1_795_446_000, 1_795_417_200, 1_795_503_599
"""Of 2026-11-23 in Denver: 8:00, the first second, the last."""
DAY_S = 86_400


@pytest.mark.parametrize(
    ("record", "given", "fields"),
    [
        ({}, {"date_end": "2026-11-23"}, {"date_end": LAST}),
        ({"date_start": EIGHT}, {"date_end": "2026-11-23T08:00:00"}, {"date_end": EIGHT}),
        ({"date_start": EIGHT, "date_end": LAST}, {"date_start": "2026-11-23"}, {"date_start": MIDNIGHT}),
        # what lasts all day says its days twice
        (
            {"all_day": True, "all_day_start_date": "2026-11-22", "all_day_end_date": "2026-11-22", "date_end": 0},
            {"date_start": "2026-11-23"},
            {"date_start": MIDNIGHT, "all_day_start_date": "2026-11-23", "all_day_end_date": "2026-11-23"},
        ),
        (
            {
                "all_day": True,
                "date_start": EIGHT,
                "all_day_start_date": "2026-11-23",
                "all_day_end_date": "2026-11-23",
            },
            {"date_end": "2026-11-24"},
            {"date_end": LAST + DAY_S, "all_day_end_date": "2026-11-24"},
        ),
        (
            {"date_start": EIGHT, "date_end": LAST + DAY_S, "all_day_start_date": ""},
            {"all_day": True},
            {"all_day": True, "all_day_start_date": "2026-11-23", "all_day_end_date": "2026-11-24"},
        ),
        (
            {"all_day": True, "all_day_start_date": "2026-11-23", "all_day_end_date": "2026-11-23"},
            {"all_day": False},
            {"all_day": False, "all_day_start_date": "", "all_day_end_date": ""},
        ),
        ({"all_day": False, "all_day_start_date": ""}, {"all_day": False}, {"all_day": False}),
    ],
)
async def test_days_are_the_accounts_and_the_last_counts_in_full(
    record: dict[str, Any], given: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Source: JobNimbus API documentation, time: epoch seconds, and of all-day items the days as text beside them."""
    write = await written("update_task", {Entity.TASKS: [{"jnid": TASK, **record}]}, task_id=TASK, **given)
    assert write.fields == fields


@pytest.mark.parametrize(
    "given",
    [{"date_start": "2026-11-24"}, {"date_end": "2026-11-22"}, {"date_start": "2026-11-25", "date_end": "2026-11-24"}],
)
async def test_nothing_ends_before_it_starts(given: dict[str, str]) -> None:
    task = {"jnid": TASK, "date_start": EIGHT, "date_end": LAST}
    with pytest.raises(InvalidInput, match="before date_start") as refused:
        await written("update_task", {Entity.TASKS: [task]}, task_id=TASK, **given)
    assert refused.value.field == "date_end"


async def test_a_link_that_is_given_says_its_kind() -> None:
    contacts = {Entity.CONTACTS: [{"jnid": SAM}]}
    write = await written("update_job", contacts, job_id=ROOF, contact_id=SAM)
    assert (write.fields, write.links) == ({}, (Link(SAM, Entity.CONTACTS),))
