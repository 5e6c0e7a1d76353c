"""Every kind of record made, changed, deleted and read, and files stored and fetched, on the simulated JobNimbus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.catalog import CATALOG, SETTINGS_PARTS, Deletion
from jobnimbus_mcp.crm.encoding import landed, later_fields, missing, unlinked
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.query import Is, Sort
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Link, Upload, Write
from jobnimbus_mcp.errors import InvalidInput, UpstreamNotFound, UpstreamRejected
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.sender_http import HttpSender

ACCOUNT = "stamford"
NOW = 1_790_000_000
KINDS = [entity for entity, facts in CATALOG.items() if facts.writes.create and entity is not Entity.ATTACHMENTS]


class Way(httpx.AsyncBaseTransport):
    """Into the simulator, noting every request."""

    def __init__(self, sim: Simulator) -> None:
        self.out: list[httpx.Request] = []
        self._inner = httpx.ASGITransport(sim.app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.out.append(request)
        return await self._inner.handle_async_request(request)


class OnSimulator:
    """A client of the simulated JobNimbus, and the way between them."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.sim = Simulator(instances=(ACCOUNT,), clock=self.clock)
        self.way = Way(self.sim)
        recorder = InMemoryRecorder()
        self.sender = HttpSender("http://sim/api1", max_connections=None, file_hosts=("sim",), transport=self.way)
        self.client = JobNimbusClient(
            sender=self.sender,
            budget=LocalBudget(0, [ACCOUNT], self.clock),
            breakers=upstream_breakers([ACCOUNT], self.clock, recorder),
            clock=self.clock,
            random01=lambda: 0.5,
            recorder=recorder,
            on_call=lambda instance, entity: None,
        )

    async def write(self, write: Write, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self.client.write(write, base=base, **self.who())

    async def read(self, read: Read) -> dict[str, Any]:
        return await self.client.load(read, **self.who())

    async def any_of(self, entity: Entity, *clauses: Is) -> dict[str, Any]:
        block = await self.read(Read.block(entity, clauses, Sort(), 0, 1))
        (row,) = block["rows"]
        assert isinstance(row, dict)
        return row

    async def file_of(self, content_type: str) -> dict[str, Any]:
        rows = (await self.read(Read.block(Entity.ATTACHMENTS, (), Sort(), 0)))["rows"]
        found: dict[str, Any] = next(row for row in rows if row["content_type"] == content_type)
        return found

    async def links(self) -> tuple[Link, ...]:
        return (Link((await self.any_of(Entity.JOBS))["jnid"], Entity.JOBS),)

    def who(self) -> dict[str, Any]:
        call = Call.begin(self.clock, "request-1")
        return {"instance": ACCOUNT, "credential": self.sim.keys[ACCOUNT][0], "call": call}


@pytest.fixture
async def world() -> AsyncIterator[OnSimulator]:
    made = OnSimulator()
    yield made
    await made.sender.aclose()
    await made.sim.aclose()


ITEMS = [{"name": "Nail", "uom": "EA", "item_type": "material", "quantity": 2, "price": 3.5, "cost": 1}]
NEW: dict[Entity, dict[str, Any]] = {
    Entity.JOBS: {"name": "Gutter repair 77", "record_type_name": "Roofing", "status_name": "Lead"},
    Entity.CONTACTS: {
        "first_name": "Ines",
        "last_name": "Quill",
        "record_type_name": "Customer",
        "status_name": "Lead",
    },
    Entity.TASKS: {"title": "Call Ines", "date_start": NOW + 3600, "record_type_name": "Task"},
    Entity.ACTIVITIES: {"note": "She called.", "record_type_name": "Note"},
    Entity.ESTIMATES: {"status": 1, "items": ITEMS, "note": "Net 30"},
    Entity.INVOICES: {"status": 1, "items": ITEMS, "note": "Net 30"},
    Entity.PAYMENTS: {"total": 12.5, "date_payment": NOW, "reference": "CHK 1"},
    Entity.PRODUCTS: {
        "name": "Ridge vent",
        "description": "10 ft",
        "item_type": "material",
        "location_id": 1,
        "tax_exempt": False,
        "uoms": [{"uom": "EA", "material": {"cost": 1, "price": 2}}],
    },
    Entity.WORKORDERS: {"name": "Vents", "record_type_name": "Install", "status_name": "Assigned"},
    Entity.MATERIALORDERS: {"items": ITEMS},
}
CHANGED: dict[Entity, dict[str, Any]] = {
    Entity.JOBS: {"description": "North side", "tags": ["b", "a"]},
    Entity.CONTACTS: {"mobile_phone": "5550100777", "email": "ines@example.com"},
    Entity.TASKS: {"is_completed": True},
    Entity.ACTIVITIES: {"note": "She called twice."},
    Entity.ESTIMATES: {"note": "Net 60", "items": [*ITEMS, {"name": "Vent", "quantity": 1, "price": 20}]},
    Entity.INVOICES: {"internal_note": "x", "items": [{"name": "Vent", "quantity": 1, "price": 20}]},
    Entity.PRODUCTS: {"description": "12 ft"},
    Entity.WORKORDERS: {"internal_note": "Dog in yard"},
    Entity.MATERIALORDERS: {"items": [{"name": "Vent", "quantity": 1, "price": 20}]},
}


@pytest.mark.parametrize("entity", KINDS)
async def test_a_record_is_made_changed_and_deleted(world: OnSimulator, entity: Entity) -> None:
    create = Write(entity, Action.CREATED, fields=NEW[entity], links=await world.links())
    assert missing(create) == ()
    made = await world.write(create)
    assert (landed(create, made), unlinked(create, made)) == ((), False)
    read = Read.record(entity, made["jnid"])
    assert landed(create, await world.read(read)) == ()
    facts = CATALOG[entity].writes
    if facts.update:
        change = Write(entity, Action.UPDATED, made["jnid"], fields=CHANGED[entity])
        assert landed(change, made) != ()
        assert landed(change, await world.write(change, made)) == ()
        now = await world.read(read)
        kept = {name: value for name, value in NEW[entity].items() if name not in CHANGED[entity]}
        assert landed(change, now) == ()
        assert landed(Write(entity, Action.UPDATED, made["jnid"], fields=kept, links=create.links), now) == ()
    if facts.delete is Deletion.FLAG:
        delete = Write(entity, Action.DELETED, made["jnid"])
        assert landed(delete, made) == ("is_active",)
        assert landed(delete, await world.write(delete)) == ()
        with pytest.raises(UpstreamNotFound):
            await world.read(read)


async def test_the_rep_of_a_contact_is_set_after_it_was_made(world: OnSimulator) -> None:
    (rep, *_) = (await world.read(Read.whole(Entity.USERS)))["rows"]
    create = Write(Entity.CONTACTS, Action.CREATED, fields=NEW[Entity.CONTACTS] | {"sales_rep": rep["id"]})
    made = await world.write(create)
    assert landed(create, made) == ("sales_rep",)
    after = Write(Entity.CONTACTS, Action.UPDATED, made["jnid"], fields=later_fields(create))
    assert landed(create, await world.write(after)) == ()


async def test_a_name_that_is_taken_is_refused_in_jobnimbuss_words(world: OnSimulator) -> None:
    job = await world.any_of(Entity.JOBS)
    with pytest.raises(UpstreamRejected) as caught:
        await world.write(Write(Entity.JOBS, Action.CREATED, fields=NEW[Entity.JOBS] | {"name": job["name"]}))
    assert caught.value.said == "Duplicate job exists"


async def test_a_payment_that_lacks_its_total_is_refused_though_jobnimbus_fails_on_it(world: OnSimulator) -> None:
    with pytest.raises(UpstreamRejected) as caught:
        await world.write(Write(Entity.PAYMENTS, Action.CREATED, links=await world.links()))
    assert "total" in caught.value.said
    (tried,) = [request for request in world.way.out if request.method == "POST"]
    assert str(tried.url) == "http://sim/api2/v2/payments"


SETTINGS: dict[str, dict[str, Any]] = {
    "workflow": {"name": "Gutters", "object_type": "job"},
    "status": {"name": "On hold"},
    "source": {"SourceName": "Fair"},
    "custom_field": {"title": "Roof age", "object_type": "job", "type": "long"},
    "file_type": {"TypeName": "Survey"},
    "task_type": {"TypeName": "Site visit"},
    "activity_type": {"TypeName": "Text message"},
    "location": {"name": "North"},
}


@pytest.mark.parametrize("part", SETTINGS_PARTS)
async def test_a_piece_of_the_settings_is_added_once(world: OnSimulator, part: str) -> None:
    workflows = (await world.read(Read.whole(Entity.SETTINGS)))["workflows"]
    workflow_id = str(workflows[0]["id"]) if part == "status" else ""
    create = Write(Entity.SETTINGS, Action.CREATED, workflow_id, fields=SETTINGS[part], part=part)
    assert missing(create) == ()
    made = await world.write(create)
    assert landed(create, made) == ()
    assert made[SETTINGS_PARTS[part].id]
    assert (await world.write(create))[SETTINGS_PARTS[part].id] == made[SETTINGS_PARTS[part].id]


@pytest.mark.parametrize("entity", [kind for kind, facts in CATALOG.items() if facts.envelope == "results"])
async def test_every_kind_is_listed_and_found_by_its_id(world: OnSimulator, entity: Entity) -> None:
    row = await world.any_of(entity)
    assert (await world.read(Read.record(entity, row["jnid"])))["jnid"] == row["jnid"]
    scanned = await world.read(Read.scan(entity, (Is("jnid", row["jnid"]),)))
    assert [found["jnid"] for found in scanned["rows"]] == [row["jnid"]]


async def test_an_estimate_of_the_quoting_product_is_read_by_its_guid(world: OnSimulator) -> None:
    row = await world.any_of(Entity.ESTIMATES, Is("source", "sumoquote"))
    assert "-" in row["jnid"]
    assert (await world.read(Read.record(Entity.ESTIMATES, row["jnid"])))["jnid"] == row["jnid"]


async def test_groups_and_units_are_rows(world: OnSimulator) -> None:
    groups = (await world.read(Read.whole(Entity.SETTINGS, "groups")))["rows"]
    units = (await world.read(Read.whole(Entity.PRODUCTS, "uoms")))["rows"]
    assert groups
    assert all(group["name"] for group in groups)
    assert {"name": "SQ"} in units


# ---- files


def photo(links: tuple[Link, ...], **more: Any) -> Upload:
    return Upload("roof.jpg", "image/jpeg", 2, links, **more)


async def metadata(world: OnSimulator, jnid: str) -> dict[str, Any]:
    return await world.read(Read.record(Entity.ATTACHMENTS, jnid))


async def test_a_file_is_stored_listed_fetched_changed_and_deleted(world: OnSimulator) -> None:
    upload = photo(await world.links(), content=b"\xff\xd8 roof", description="After")
    jnid = (await world.client.upload(upload, **world.who()))["jnid"]
    record = await metadata(world, jnid)
    assert {name: record[name] for name in ("filename", "content_type", "size", "record_type", "description")} == {
        "filename": "roof.jpg",
        "content_type": "image/jpeg",
        "size": 7,
        "record_type": 2,
        "description": "After",
    }
    assert not unlinked(upload, record)
    bare = [request for request in world.way.out if "authorization" not in request.headers]
    assert [request.method for request in bare] == ["PUT"]
    assert (await world.client.content(jnid, max_bytes=7, **world.who())).body == b"\xff\xd8 roof"
    with pytest.raises(InvalidInput, match="7 bytes"):
        await world.client.content(jnid, max_bytes=6, **world.who())
    change = Write(Entity.ATTACHMENTS, Action.UPDATED, jnid, fields={"description": "Before"})
    assert landed(change, await world.write(change)) == ()
    world.clock.advance(2)
    assert await world.write(Write(Entity.ATTACHMENTS, Action.DELETED, jnid)) == {}
    with pytest.raises(UpstreamNotFound):
        await metadata(world, jnid)


async def test_an_image_lies_elsewhere_and_is_fetched_without_the_key(world: OnSimulator) -> None:
    image = await world.file_of("image/jpeg")
    place = (await world.client.link(image["jnid"], **world.who())).url
    assert place is not None
    assert place.startswith("http://sim/cdn/")
    got = await world.client.content(image["jnid"], max_bytes=50_000_000, **world.who())
    assert got.content_type == "image/jpeg"
    assert len(got.body) > 0
    (bare,) = [request for request in world.way.out if "authorization" not in request.headers]
    assert bare.url.path.startswith("/cdn/")


async def test_other_files_come_from_jobnimbus_itself(world: OnSimulator) -> None:
    document = await world.file_of("application/pdf")
    assert (await world.client.link(document["jnid"], **world.who())).url is None
    got = await world.client.content(document["jnid"], max_bytes=50_000_000, **world.who())
    assert (got.content_type, len(got.body) > 0) == ("application/pdf", True)


async def test_a_file_is_fetched_by_jobnimbus(world: OnSimulator) -> None:
    upload = photo(await world.links(), source_url="https://files.example/roof.jpg")
    jnid = (await world.client.upload(upload, **world.who()))["jnid"]
    assert not unlinked(upload, await metadata(world, jnid))
