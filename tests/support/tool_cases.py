"""One row per tool: what a good call of it is, what comes of it, and how each kind of bad call of it is made."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

Json = dict[str, Any]
T = TypeVar("T")

NOWHERE = "nosuchrecord000000000000"
"""An id that no record has."""
FAR = "2099-01-01"
"""A day on which nothing happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Of records: `one` and `many` in the names of tools, `kind` in the simulated account's; `word`: the field
    whose words a search finds a record by."""

    one: str
    many: str
    kind: str
    word: str
    empty: Json = field(default_factory=lambda: {"date_from": FAR})

    @property
    def id_argument(self) -> str:
        return f"{self.one}_id"

    def words(self, row: Mapping[str, Any]) -> set[str]:
        """Of a record, those that a search finds it by."""
        if self.word != "related.name":
            return set(re.findall(r"\w+", str(row[self.word] or "")))
        return {word for link in row["related"] for word in re.findall(r"\w+", str(link["name"]))}


KINDS = (
    Kind(one="job", many="jobs", kind="jobs", word="name"),
    Kind(one="contact", many="contacts", kind="contacts", word="display_name"),
    Kind(one="task", many="tasks", kind="tasks", word="title"),
    Kind(one="activity", many="activities", kind="activities", word="note"),
    Kind(one="work_order", many="work_orders", kind="workorders", word="name"),
    Kind(one="material_order", many="material_orders", kind="materialorders", word="related.name"),
    Kind(one="estimate", many="estimates", kind="estimates", word="related.name"),
    Kind(one="invoice", many="invoices", kind="invoices", word="related.name"),
    Kind(one="payment", many="payments", kind="payments", word="related.name"),
    Kind(one="product", many="products", kind="products", word="name"),
    Kind(one="budget", many="budgets", kind="budgets", word="related.name"),
    Kind(one="attachment", many="attachments", kind="files", word="related.name"),
)


class Place:
    """What a world's account holds that calls are about; the same in every world, as long as nothing was changed."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.rows: dict[str, list[Json]] = {}
        for one in KINDS:
            there = world.has(one.kind)
            self.rows[one.kind] = sorted(there, key=lambda row: (row["date_created"], row["recid"]), reverse=True)
        self.users = world.users()
        self.job = self.rows["jobs"][0]["jnid"]
        self.contact = self.rows["contacts"][0]["jnid"]

    def ids(self, kind: str) -> list[str]:
        """The newest first, as lists have them."""
        return [row["jnid"] for row in self.rows[kind]]

    def mine(self, kind: str) -> str:
        """The record that is read and updated."""
        return str(self.ids(kind)[1])

    def doomed(self, kind: str) -> str:
        """The record that is deleted."""
        return str(self.ids(kind)[3])

    def text_file(self) -> str:
        return str(next(row["jnid"] for row in self.rows["files"] if not row["content_type"].startswith("image/")))

    def photo(self) -> str:
        return str(next(row["jnid"] for row in self.rows["files"] if row["content_type"].startswith("image/")))

    def word_of_many(self, one: Kind) -> str:
        """A word that as many records as possible have."""
        said = Counter(word for row in self.rows[one.kind] for word in one.words(row) if len(word) > 3)
        return said.most_common(1)[0][0]

    def now(self, kind: str, jnid: str) -> Json | None:
        """The record as the simulated account has it at this moment."""
        found: Json | None = self.world.sim.account("stamford").get(kind, jnid)
        return found


Good = Callable[[Place, str], Json]
"""Arguments of a good call; the text is new with every call, for names that nobody may share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`asks`: the call asks JobNimbus something. `empty`: arguments with which a list has no rows, None where it always
    has some. `kind`: the simulated account's name of what is read or written. `id_argument`: "" where none is taken.
    `unknown`: other arguments that can name a record which is not there. `singly`: what goes wrong is told
    of each row, not of the call."""

    tool: str
    good: Good
    asks: bool = True
    kind: str = ""
    id_argument: str = ""
    unknown: tuple[str, ...] = ()
    only_key: bool = False
    singly: bool = False
    empty: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Case):
    """`made`: what the simulated record shows after the good call, given its arguments. `links`: the record hangs on
    the job or contact that was named. `part`: the list of the settings it adds to, and the name's field there."""

    made: Callable[[Json], Json] = lambda given: {}
    part: tuple[str, str] = ("", "")

    @property
    def creates(self) -> bool:
        return self.tool.startswith("create_") and not self.part[0]

    @property
    def deletes(self) -> bool:
        return self.tool.startswith("delete_")

    @property
    def updates(self) -> bool:
        return self.tool.startswith("update_")


def _readers(one: Kind) -> tuple[Case, ...]:
    return (
        Case(tool=f"get_{one.many}", kind=one.kind, good=lambda place, new: {"size": 5}, empty=one.empty),
        Case(
            tool=f"search_{one.many}",
            kind=one.kind,
            good=lambda place, new: {"query": place.word_of_many(one), "size": 5},
            empty={"query": "zzqx"},
        ),
        Case(
            tool=f"get_{one.one}",
            kind=one.kind,
            good=lambda place, new: {one.id_argument: place.mine(one.kind)},
            id_argument=one.id_argument,
        ),
    )


def _on_job(**more: Any) -> Good:
    return lambda place, new: {"job_id": place.job, **more}


def _of(one: str, kind: str, **more: Any) -> Good:
    """An update of the record that is there for it."""
    return lambda place, new: {f"{one}_id": place.mine(kind), **more}


LINE = {"name": "Architectural shingle", "quantity": 3, "price": 385, "cost": 210, "uom": "SQ"}


def _line_of(given: Json) -> Json:
    line = given["items"][0]
    return {"name": line["name"], "quantity": line["quantity"], "price": line["price"]}


_LINKS = ("job_id", "contact_id")

WRITES: tuple[Write, ...] = (
    Write(
        tool="create_contact",
        kind="contacts",
        good=lambda place, new: {
            "first_name": "Tessa",
            "last_name": new,
            "record_type": "customer",
            "status": "lead",
            "email": "tessa@example.com",
            "tags": ["storm"],
            "sales_rep": place.users[0]["email"],
        },
        made=lambda given: {
            "display_name": f"Tessa {given['last_name']}",
            "record_type_name": "Customer",
            "status_name": "Lead",
            "email": "tessa@example.com",
            "tags": ["storm"],
        },
    ),
    Write(
        tool="update_contact",
        kind="contacts",
        good=_of("contact", "contacts", description="Gate on the left.", city="Madison"),
        made=lambda given: {"description": "Gate on the left.", "city": "Madison"},
    ),
    Write(
        tool="create_job",
        kind="jobs",
        good=lambda place, new: {
            "name": new,
            "record_type": "Repair",
            "status": "lead",
            "contact_id": place.contact,
            "date_start": "2026-12-01",
            "custom_fields": {"Shingle Color": "Slate"},
        },
        unknown=("contact_id",),
        made=lambda given: {
            "name": given["name"],
            "record_type_name": "Repair",
            "status_name": "Lead",
            "Shingle Color": "Slate",
        },
    ),
    Write(
        tool="update_job",
        kind="jobs",
        good=_of("job", "jobs", description="Two layers to tear off."),
        made=lambda given: {"description": "Two layers to tear off."},
    ),
    Write(
        tool="create_task",
        kind="tasks",
        good=lambda place, new: {
            "job_id": place.job,
            "title": new,
            "record_type": "phone call",
            "date_start": "2026-12-01",
            "priority": 3,
            "owners": [place.users[0]["id"]],
        },
        unknown=_LINKS,
        made=lambda given: {"title": given["title"], "record_type_name": "Phone Call", "priority": 3},
    ),
    Write(
        tool="update_task",
        kind="tasks",
        good=_of("task", "tasks", title="Call again on Friday"),
        made=lambda given: {"title": "Call again on Friday"},
    ),
    Write(
        tool="create_activity",
        kind="activities",
        good=lambda place, new: {"job_id": place.job, "note": f"Spoke with them: {new}", "activity_type": "phone call"},
        unknown=_LINKS,
        made=lambda given: {"note": given["note"], "record_type_name": "Phone Call"},
    ),
    Write(
        tool="update_activity",
        kind="activities",
        good=_of("activity", "activities", note="As it really was."),
        made=lambda given: {"note": "As it really was."},
    ),
    Write(
        tool="create_estimate",
        kind="estimates",
        good=lambda place, new: {"job_id": place.job, "items": [LINE], "note": new},
        unknown=_LINKS,
        made=lambda given: {"note": given["note"], "status_name": "Draft", "total": 1155},
    ),
    Write(
        tool="update_estimate",
        kind="estimates",
        good=_of("estimate", "estimates", items=[LINE], internal_note="Checked."),
        made=lambda given: {"internal_note": "Checked.", "total": 1155},
    ),
    Write(
        tool="create_invoice",
        kind="invoices",
        good=lambda place, new: {
            "job_id": place.job,
            "items": [LINE],
            "note": new,
            "date_invoice": "2026-11-23",
            "date_due": "2026-12-23",
        },
        unknown=_LINKS,
        made=lambda given: {"note": given["note"], "status_name": "Draft", "total": 1155},
    ),
    Write(
        tool="update_invoice",
        kind="invoices",
        good=_of("invoice", "invoices", internal_note="Checked."),
        made=lambda given: {"internal_note": "Checked."},
    ),
    Write(
        tool="create_payment",
        kind="payments",
        good=lambda place, new: {
            "job_id": place.job,
            "total": 250.5,
            "date_payment": "2026-11-20",
            "reference": new,
            "invoices": [{"invoice_id": place.mine("invoices"), "amount": 250.5}],
        },
        unknown=_LINKS,
        made=lambda given: {"reference": given["reference"], "total": 250.5},
    ),
    Write(
        tool="create_product",
        kind="products",
        good=lambda place, new: {
            "name": new,
            "description": "Per bundle",
            "uoms": [{"uom": "SQ", "material_price": 99}],
        },
        made=lambda given: {"name": given["name"], "description": "Per bundle", "item_type": "material"},
    ),
    Write(
        tool="update_product",
        kind="products",
        good=_of("product", "products", description="Now per square"),
        made=lambda given: {"description": "Now per square"},
    ),
    Write(
        tool="create_work_order",
        kind="workorders",
        good=lambda place, new: {
            "job_id": place.job,
            "name": new,
            "record_type": "install",
            "status": "assigned",
            "items": [LINE],
        },
        unknown=_LINKS,
        made=lambda given: {"name": given["name"], "record_type_name": "Install", "status_name": "Assigned"},
    ),
    Write(
        tool="update_work_order",
        kind="workorders",
        good=_of("work_order", "workorders", customer_note="Park on the street."),
        made=lambda given: {"customer_note": "Park on the street."},
    ),
    Write(
        tool="create_material_order",
        kind="materialorders",
        good=lambda place, new: {"job_id": place.job, "items": [LINE], "number": new},
        unknown=_LINKS,
        made=lambda given: {"number": given["number"]},
    ),
    Write(
        tool="update_material_order",
        kind="materialorders",
        good=_of("material_order", "materialorders", items=[LINE]),
        made=lambda given: {},
    ),
    Write(
        tool="update_attachment",
        kind="files",
        good=_of("attachment", "files", description="The north side"),
        made=lambda given: {"description": "The north side"},
    ),
    Write(
        tool="create_attachment",
        kind="files",
        good=lambda place, new: {"job_id": place.job, "filename": f"{new}.txt", "text": "Ladder at the back."},
        unknown=_LINKS,
        made=lambda given: {"filename": given["filename"], "size": 19, "content_type": "text/plain"},
    ),
    *(
        Write(
            tool=f"delete_{one.one}",
            kind=one.kind,
            good=lambda place, new, one=one: {one.id_argument: place.doomed(one.kind), "confirm": True},  # type: ignore[misc]  # the default binds the row
        )
        for one in KINDS
        if one.one not in ("activity", "payment", "budget")
    ),
    Write(
        tool="create_workflow",
        good=lambda place, new: {"name": new, "object_type": "job"},
        part=("workflows", "name"),
    ),
    Write(
        tool="create_status",
        good=lambda place, new: {"name": new, "workflow": "Roofing", "is_closed": True},
        part=("workflows", "status"),
    ),
    Write(tool="create_source", good=lambda place, new: {"name": new}, part=("sources", "SourceName")),
    Write(
        tool="create_custom_field",
        good=lambda place, new: {"name": new, "object_type": "job", "type": "dropdown", "options": ["Yes", "No"]},
        part=("customFields", "title"),
    ),
    Write(tool="create_file_type", good=lambda place, new: {"name": new}, part=("fileTypes", "TypeName")),
    Write(tool="create_task_type", good=lambda place, new: {"name": new}, part=("taskTypes", "TypeName")),
    Write(tool="create_activity_type", good=lambda place, new: {"name": new}, part=("activityTypes", "TypeName")),
    Write(
        tool="create_location",
        good=lambda place, new: {"name": new, "city": "Madison"},
        part=("locations", "name"),
    ),
)

READS: tuple[Case, ...] = (
    *(case for one in KINDS for case in _readers(one)),
    # an account has people, whatever is asked
    Case(tool="get_users", kind="users", good=lambda place, new: {"size": 5}),
    Case(
        tool="search_users",
        kind="users",
        good=lambda place, new: {"query": place.users[0]["email"]},
        empty={"query": "zzqx"},
    ),
    Case(
        tool="get_user",
        kind="users",
        good=lambda place, new: {"user_id": place.users[0]["id"]},
        id_argument="user_id",
    ),
    Case(
        tool="get_calendar_activities",
        kind="calendar",
        good=lambda place, new: {"size": 5, "date_from": "2026-01-01", "date_to": "2026-12-31"},
        empty={"date_from": FAR, "date_to": FAR},
    ),
    Case(tool="get_units", good=lambda place, new: {}),
    Case(tool="get_settings", good=lambda place, new: {"part": "workflows"}),
    Case(tool="get_webhooks", good=lambda place, new: {}, only_key=True),
    Case(
        tool="get_attachment_content",
        kind="files",
        good=lambda place, new: {"attachment_id": place.text_file(), "format": "text"},
        id_argument="attachment_id",
    ),
    Case(tool="find_tools", good=lambda place, new: {"query": "add a note to a job"}, asks=False),
    Case(
        tool="use_tool",
        good=lambda place, new: {"name": "get_product", "arguments": {"product_id": place.ids("products")[4]}},
    ),
)

BULK: tuple[Case, ...] = (
    Case(
        tool="bulk_create_records",
        singly=True,
        good=lambda place, new: {
            "kind": "task",
            "records": [{"title": f"{new} {n}", "date_start": "2026-12-01", "job_id": place.job} for n in (1, 2)],
            "bulk_id": f"run-{new}",
            "confirm": True,
        },
    ),
    Case(
        tool="bulk_update_records",
        singly=True,
        good=lambda place, new: {
            "kind": "task",
            "records": [{"task_id": place.mine("tasks"), "description": new}],
            "bulk_id": f"change-{new}",
            "confirm": True,
        },
    ),
    # of the run that the first of them made
    Case(tool="resume_bulk_run", good=lambda place, new: {"bulk_id": f"run-{new}"}, asks=False),
)

WITH_IDS: Mapping[str, str] = {
    f"{verb}_{one.one}": one.id_argument for one in KINDS for verb in ("get", "update", "delete")
}

CASES: tuple[Case, ...] = (*READS, *WRITES, *BULK)
BY_TOOL: Mapping[str, Case] = {case.tool: case for case in CASES}


def id_argument_of(case: Case) -> str:
    """The argument that names the record the tool is about; "" where it names none."""
    return case.id_argument or WITH_IDS.get(case.tool, "")


class Findings:
    """What was found wrong, of which tool: told together at the end."""

    def __init__(self) -> None:
        self._wrong: list[str] = []

    @contextmanager
    def of(self, tool: str, what: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as wrong:
            self._wrong.append(f"{tool}, {what}: {wrong}")

    def none(self) -> None:
        assert not self._wrong, "\n\n".join(["", *self._wrong])


async def moving(world: Any, work: Awaitable[T], step_s: float = 1.0) -> T:
    """The result of `work`; the world's clock is moved on by `step_s` whenever it has had its turns."""
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(30):
            while not task.done():
                for _ in range(100 if step_s >= 0.5 else 25):
                    await asyncio.sleep(0)
                if not task.done():
                    world.clock.advance(step_s)
    finally:
        task.cancel()
        await asyncio.wait({task})
    return task.result()
