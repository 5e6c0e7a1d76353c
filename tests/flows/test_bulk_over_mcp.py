"""A thousand records at once: over HTTP in several calls, over MCP with progress, and after what cut a run short."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from tool_cases import NOWHERE, Json, Place, moving

from jobnimbus_mcp.clock import SystemClock

SLOW_MS = 100
"""Of a row, on the test's clock: a call of 15 s carries out some hundreds."""
SLOWER_MS = 1_200
"""And here a hundred take as long as that."""


def tasks(place: Place, number: int, name: str) -> list[Json]:
    return [{"job_id": place.job, "title": f"{name} {n}", "date_start": "2026-12-01"} for n in range(number)]


def titles(world: Any, name: str) -> Counter[str]:
    """How often each title begun so occurs in JobNimbus."""
    return Counter(row["title"] for row in world.has("tasks") if row["title"].startswith(f"{name} "))


@pytest.mark.parametrize("many", [300, pytest.param(1_000, marks=pytest.mark.long)])
async def test_many_rows_over_plain_http_take_several_calls_and_are_made_once(
    open_world: Any, stage: Any, many: int
) -> None:
    async with open_world() as world:
        stage.webhooks.to = None  # nothing here is owed to them
        await world.fault(latencyMs=SLOW_MS * 1_000 // many, method="POST")
        rows = [{"name": f"many {n}", "description": "-", "uoms": [{"uom": "SQ"}]} for n in range(many)]
        given = {"kind": "product", "records": rows, "bulk_id": "many-rows", "confirm": True}
        told = (await moving(world, world.call("bulk_create_records", **given), 0.1)).data
        calls = 1
        while not told["finished"]:
            assert told["counts"]["created"] < many
            assert told["next_step"] == "Call resume_bulk_run with this bulk_id to go on; nothing is done twice."
            assert calls < 10
            before = told["counts"]["created"]
            told = (await moving(world, world.call("resume_bulk_run", bulk_id="many-rows"), 0.1)).data
            assert told["counts"]["created"] > before
            calls += 1
        assert calls > 1
        assert told["counts"] == {"created": many}
        made = Counter(row["name"] for row in world.has("products") if row["name"].startswith("many "))
        assert made == {f"many {n}": 1 for n in range(many)}
        seen, rows_from = [], 0
        while rows_from is not None:
            page = (
                await moving(world, world.call("resume_bulk_run", bulk_id="many-rows", rows_from=rows_from), 0.1)
            ).data
            seen += [row["row"] for row in page["rows"]]
            rows_from = page["next_row"]
        assert seen == list(range(many))


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_one_call_over_mcp_carries_out_all_and_tells_how_far_it_got(open_world: Any, mode: str) -> None:
    """Who listens may wait longer: at this speed a call that nobody listens to ends after some forty rows."""
    rows = 80
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(done: float, total: float | None, message: str | None) -> None:
        heard.append((done, total, message))

    async with open_world({"MCP_TOOLSETS": "all"}) as world, world.agent(mode) as agent:
        place = Place(world)
        await world.fault(latencyMs=SLOWER_MS, method="POST")
        given = {"kind": "task", "records": tasks(place, rows, "one call"), "bulk_id": "in-one-call", "confirm": True}
        calling = agent.client.call_tool("bulk_create_records", given, progress_callback=hear)
        began = world.clock.monotonic()
        result = await moving(world, calling, 0.2)
        assert world.clock.monotonic() - began > 20
        assert not result.is_error, result.content
        assert result.structured_content["counts"] == {"created": rows}
        assert result.structured_content["finished"] is True
        assert len(titles(world, "one call")) == rows
    done = [row for row, *_ in heard]
    assert len(done) > 5
    assert done == sorted(done)
    assert heard[-1] == (rows, rows, f"{rows} of {rows} rows")


async def test_rows_fail_singly_and_say_why(world: Any, agent: Any) -> None:
    place = Place(world)
    taken = place.rows["jobs"][4]["name"]
    good = {"record_type": "Repair", "status": "Lead"}
    rows = [
        {**good, "name": "bulk job 0"},
        {**good, "name": taken},
        {**good, "name": "bulk job 2", "status": "No such status"},
        {**good},
        {**good, "name": "bulk job 4", "contact_id": NOWHERE},
        {**good, "name": "bulk job 5", "colour": "red"},
        {**good, "name": "bulk job 6"},
    ]
    given = {"kind": "job", "records": rows, "bulk_id": "some-are-wrong"}
    asked = await agent.refused("bulk_create_records", **given)
    assert asked.startswith("Create 3 job records in JobNimbus at once; 4 other rows are wrong and will be left out?")
    assert "[confirmation_needed, " in asked
    assert world.has("jobs", lambda row: row["name"].startswith("bulk job")) == []

    told = (await world.within(agent.ask("bulk_create_records", **given, confirm=True))).data
    nowhere = next(row for row in told["rows"] if row["row"] == 4)
    assert nowhere.get("field") == "contact_id" or nowhere["code"] == "not_found"
    ends = {
        row["row"]: (row["outcome"], row.get("code"), row.get("field")) for row in told["rows"] if row is not nowhere
    }
    assert ends == {
        0: ("created", None, None),
        1: ("failed", "duplicate_record", "name"),
        2: ("failed", "invalid_argument", "status"),
        3: ("failed", "invalid_argument", "name"),
        5: ("failed", "invalid_argument", "colour"),
        6: ("created", None, None),
    }
    assert [row["outcome"] for row in told["rows"]] == ["failed"] * 5 + ["created"] * 2
    assert (told["counts"], told["finished"]) == ({"created": 2, "failed": 5}, True)
    made = world.has("jobs", lambda row: row["name"].startswith("bulk job"))
    assert {row["name"] for row in made} == {"bulk job 0", "bulk job 6"}
    other = {**given, "records": rows[:1], "confirm": True}
    assert "This bulk_id stands for other rows" in await agent.refused("bulk_create_records", **other)


async def test_fifty_records_change_at_once_and_what_was_so_already_is_left(world: Any, agent: Any) -> None:
    place = Place(world)
    ids = place.ids("contacts")[:50]
    already = place.rows["contacts"][7]["city"]
    rows = [
        {"contact_id": jnid, "city": already if n == 7 else "Ridgefield", "tags": ["reviewed"][: n != 7]}
        for n, jnid in enumerate(ids)
    ]
    del rows[7]["tags"]
    given = {"kind": "contact", "records": rows, "bulk_id": "fifty-cities", "confirm": True}
    for jnid in ids[:3]:
        await agent.ask("get_contact", contact_id=jnid)
    told = (await world.within(agent.ask("bulk_update_records", **given), 60)).data
    assert told["counts"] == {"updated": 49, "unchanged": 1}
    for n, jnid in enumerate(ids):
        record = place.now("contacts", jnid)
        assert record is not None
        assert record["city"] == (already if n == 7 else "Ridgefield")
        assert n == 7 or record["tags"] == ["reviewed"]
    shown = (await agent.ask("get_contact", contact_id=ids[0], fields="city")).data["record"]
    assert shown == {"city": "Ridgefield"}
    sent = world.sim.calls
    again = (await world.within(agent.ask("bulk_update_records", **given), 60)).data
    assert again["counts"] == told["counts"]
    assert all(row["replayed"] for row in again["rows"])
    assert world.sim.calls == sent


class Passing(httpx.AsyncBaseTransport):
    """The way to JobNimbus; tells when so many writes have come back."""

    def __init__(self, inner: httpx.AsyncBaseTransport, until: int) -> None:
        self._inner = inner
        self._left = until
        self.passed = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if request.method == "POST":
            self._left -= 1
            if self._left <= 0:
                self.passed.set()
        return response


@pytest.mark.long
@pytest.mark.timeout(150)
async def test_a_run_whose_server_was_stopped_goes_on_at_another(open_world: Any, stage: Any, redis_url: str) -> None:
    """A row that was begun there, and not ended, is its for half a minute."""
    way = Passing(httpx.ASGITransport(stage.sim.app), until=20)
    settings = {"REDIS_URL": redis_url, "PARTITION_SECRET": "partition-secret-0123456789"}
    async with AsyncExitStack() as stopping:
        one = await stopping.enter_async_context(open_world(settings, clock=SystemClock(), transport=way))
        async with open_world(settings, clock=SystemClock()) as other, asyncio.timeout(120):
            place = Place(other)
            given = {"kind": "task", "records": tasks(place, 60, "moved"), "bulk_id": "moves-over", "confirm": True}
            calling = asyncio.ensure_future(one.call("bulk_create_records", **given))
            await way.passed.wait()
            calling.cancel()
            await asyncio.wait({calling})
            await stopping.aclose()
            assert 20 <= len(titles(other, "moved")) < 60
            told: Json = {"finished": False}
            while not told["finished"]:
                told = (await other.call("resume_bulk_run", bulk_id="moves-over")).data
                assert set(told["counts"]) <= {"created", "unknown", "not_tried"}
            assert told["counts"] == {"created": 60}
            assert titles(other, "moved") == {f"moved {n}": 1 for n in range(60)}


class Cut(httpx.AsyncBaseTransport):
    """The way to JobNimbus, on which after so many writes nothing comes back any more, though it arrives."""

    def __init__(self, inner: httpx.AsyncBaseTransport, after: int) -> None:
        self._inner = inner
        self.left = after
        self.stuck = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.left -= 1
            if self.left < 0:
                if self.left > -3:
                    await self._inner.handle_async_request(request)
                self.stuck.set()
                await asyncio.Event().wait()
        return await self._inner.handle_async_request(request)


async def test_a_run_whose_caller_left_in_the_middle_goes_on_without_doubles(open_world: Any, stage: Any) -> None:
    """Two rows had arrived at JobNimbus and were not answered, two others were on their way."""
    cut = Cut(httpx.ASGITransport(stage.sim.app), after=20)
    async with open_world(transport=cut) as world:
        place = Place(world)
        given = {"kind": "task", "records": tasks(place, 60, "cut"), "bulk_id": "cut-short", "confirm": True}
        calling = asyncio.ensure_future(world.call("bulk_create_records", **given))
        async with asyncio.timeout(20):
            await cut.stuck.wait()
            for _ in range(200):
                await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait({calling})
        assert len(titles(world, "cut")) == 22
        cut.left = 10_000
        told = (await moving(world, world.call("resume_bulk_run", bulk_id="cut-short"), 0.5)).data
        while not told["finished"]:
            world.clock.advance(20)
            told = (await moving(world, world.call("resume_bulk_run", bulk_id="cut-short"), 0.5)).data
        assert told["counts"] == {"created": 60}
        assert titles(world, "cut") == {f"cut {n}": 1 for n in range(60)}
