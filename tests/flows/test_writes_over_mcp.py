"""Writes through a real MCP client: what JobNimbus then holds, who sees it when, and what is said if it goes wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tool_cases import KINDS, WRITES, Findings, Json, Place, Write, id_argument_of, moving

from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.clock import ManualClock

CREATES = [case for case in WRITES if case.creates]
UPDATES = [case for case in WRITES if case.updates]
DELETES = [case for case in WRITES if case.deletes]
METHODS = ("POST", "PUT", "DELETE")
ADMIN = {"Authorization": "Bearer admin-token-0123456789"}
ALL = {"MCP_TOOLSETS": "all"}
READER = {one.kind: (f"get_{one.one}", one.id_argument) for one in KINDS}
LISTER = {one.kind: f"get_{one.many}" for one in KINDS}


@pytest.fixture
def found() -> Iterator[Findings]:
    findings = Findings()
    yield findings
    findings.none()


@pytest.fixture
async def world(open_world: Any) -> AsyncIterator[Any]:
    async with open_world(ALL) as opened:
        yield opened


async def answers(world: Any, agent: Any, tool: str, given: Json) -> Json:
    """The structured result of a call that must be good, the clock moved on meanwhile."""
    return dict((await moving(world, agent.ask(tool, **given))).data)


async def refusal(world: Any, agent: Any, tool: str, given: Json) -> str:
    return str(await moving(world, agent.refused(tool, **given)))


def counted(world: Any) -> dict[str, int]:
    return {one.kind: len(world.has(one.kind)) for one in KINDS}


def held(world: Any) -> list[Any]:
    """Everything of the account that these tools can change."""
    account = world.sim.account("stamford")
    return [{one.kind: world.has(one.kind) for one in KINDS}, dict(account.settings), dict(account._unlisted)]


def without_log(counts: dict[str, int]) -> dict[str, int]:
    """JobNimbus writes down changes as activities of its own."""
    return {kind: number for kind, number in counts.items() if kind != "activities"}


# -- who sees it, when -------------------------------------------------------------------------------


async def test_what_was_written_is_read_at_once_here_and_at_another_server_though_lists_lag(
    open_world: Any, stage: Any, found: Findings
) -> None:
    """Nobody's webhook arrives: what is read is owed to the write alone."""
    clock = ManualClock()
    store = MemoryStore(clock)
    async with open_world(ALL, clock=clock, store=store) as one, open_world(ALL, clock=clock, store=store) as other:
        world = other
        stage.webhooks.to = None
        await world.fault(staleListSeconds=5)
        place = Place(world)
        async with one.agent() as mine, other.agent() as theirs:
            for case in (*UPDATES, *CREATES, *DELETES):
                with found.of(case.tool, "read back"):
                    reader, name = READER[case.kind]
                    given = case.good(place, "zzread01")
                    if not case.creates:
                        for agent in (mine, theirs):
                            await agent.ask(reader, **{name: given[id_argument_of(case)]})
                    told = await answers(world, mine, case.tool, given)
                    for agent in (mine, theirs):
                        result = await agent.result(reader, **{name: told["jnid"]}, verbosity="raw")
                        if case.deletes and result.is_error:
                            assert "[not_found, " in result.content[0].text
                            continue
                        assert not result.is_error, result.content
                        shown = result.structured_content["record"]
                        expected = {"is_active": False} if case.deletes else case.made(given)
                        assert {key: shown[key] for key in expected} == expected


async def test_lists_show_what_was_written_at_once_though_those_of_jobnimbus_lag(
    open_world: Any, stage: Any, found: Findings
) -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    async with open_world(ALL, clock=clock, store=store) as one, open_world(ALL, clock=clock, store=store) as other:
        world = other
        stage.webhooks.to = None
        await world.fault(staleListSeconds=5)
        place = Place(world)
        async with one.agent() as mine, other.agent() as theirs:
            for case in (*CREATES, *DELETES):
                with found.of(case.tool, "listed"):
                    page = {"size": 5, "verbosity": "summary"}
                    for agent in (mine, theirs):
                        await agent.ask(LISTER[case.kind], **page)
                    told = await answers(world, mine, case.tool, case.good(place, "zzlist01"))
                    for later_s in (0, 7):
                        clock.advance(later_s)
                        await world.settled()
                        for agent in (mine, theirs):
                            ids = (await agent.ask(LISTER[case.kind], **page)).ids
                            assert (told["jnid"] in ids) is case.creates, f"{later_s} s later"


# -- what JobNimbus refuses, and what fails on the way ----------------------------------------------


WRITE_FAULTS: list[tuple[Json, str]] = [
    ({"status": 400}, ": Error Mend what it says and call again; nothing was changed. [write_refused, "),
    ({"status": 401}, "JobNimbus refused the API key"),
    ({"status": 429, "retryAfter": 30}, "Try again in 30 seconds. [upstream_rate_limited, "),
    ({"status": 500}, "[write_outcome_unknown, "),
]


async def test_a_write_that_failed_says_so_and_nothing_has_changed(open_world: Any, found: Findings) -> None:
    async with open_world(ALL) as world, world.agent() as agent:
        place, before = Place(world), held(world)
        for fault, says in WRITE_FAULTS:
            for method in METHODS:
                await world.fault(**fault, method=method)
            for case in WRITES:
                with found.of(case.tool, str(fault)):
                    text = await refusal(world, agent, case.tool, case.good(place, "zzfails1"))
                    assert says in text
                if fault["status"] == 500:
                    world.clock.advance(20)  # the breaker has half-opened by then
            assert held(world) == before, fault
            world.sim.reset()


async def test_a_write_that_was_put_off_is_carried_out_once(world: Any, agent: Any, found: Findings) -> None:
    place = Place(world)
    for case in WRITES:
        with found.of(case.tool, "429 once"):
            began, given = world.clock.monotonic(), case.good(place, "zzputoff")
            await world.fault(status=429, retryAfter=1, times=1, method=sent_by(case))
            told = await answers(world, agent, case.tool, given)
            assert "note" not in told
            assert world.clock.monotonic() - began >= 1
            check_once(place, case, given, told)


def sent_by(case: Write) -> str:
    if case.creates or case.part[0]:
        return "POST"
    return "DELETE" if case.tool == "delete_attachment" else "PUT"


def check_once(place: Place, case: Write, given: Json, told: Json) -> None:
    """JobNimbus holds what was asked for, and no more than once."""
    if case.part[0]:
        assert told["done"] == "created"
    elif case.deletes:
        record = place.now(case.kind, told["jnid"])
        assert record is None or record["is_active"] is False
    else:
        expected = case.made(given)
        assert place.now(case.kind, told["jnid"]).items() >= expected.items()  # type: ignore[union-attr]  # a missing one fails the test as well
    if case.creates:
        same = place.world.has(case.kind, lambda row: expected.items() <= row.items())
        assert [row["jnid"] for row in same] == [told["jnid"]]


async def test_what_jobnimbus_did_without_answering_is_found_and_not_done_twice(
    world: Any, agent: Any, found: Findings
) -> None:
    place = Place(world)
    for case in (*CREATES, *UPDATES, *DELETES):
        if case.tool == "create_attachment":
            continue  # several requests, of which the first makes nothing yet
        with found.of(case.tool, "504 after it was done"):
            await world.fault(status=504, after=True, times=1, method=sent_by(case))
            given = case.good(place, "zzafter1")
            check_once(place, case, given, await answers(world, agent, case.tool, given))


async def test_the_same_idempotency_key_makes_one_record_and_another_change_needs_another_key(
    world: Any, agent: Any, found: Findings
) -> None:
    place = Place(world)
    for case in CREATES:
        with found.of(case.tool, "twice"):
            key = f"key-of-{case.tool}"
            given = {**case.good(place, "zzkeyed1"), "idempotency_key": key}
            first = await answers(world, agent, case.tool, given)
            again = await answers(world, agent, case.tool, given)
            check_once(place, case, given, first)
            assert again["jnid"] == first["jnid"]
            assert (first.get("replayed", False), again["replayed"]) == (False, True)
            other = {**case.good(place, "zzkeyed2"), "idempotency_key": key}
            text = await refusal(
                world, agent, case.tool, {**other, **({"date_start": "2026-12-02"} if "date_start" in other else {})}
            )
            assert "was used for another change" in text
            assert "(argument: idempotency_key) [invalid_argument, " in text


async def test_a_name_that_is_taken_is_told_with_the_record_that_has_it(world: Any, agent: Any) -> None:
    place, before = Place(world), counted(world)
    job, contact = place.rows["jobs"][5], place.rows["contacts"][5]
    asked = {
        "create_job": ({"name": job["name"].upper(), "record_type": "Repair", "status": "Lead"}, job),
        "create_contact": (
            {"display_name": contact["display_name"], "record_type": "Customer", "status": "Lead"},
            contact,
        ),
    }
    for tool, (given, there) in asked.items():
        text = await refusal(world, agent, tool, given)
        assert "(Duplicate " in text
        assert f"It is {there['jnid']}: use that one, or choose another name." in text
        assert " [duplicate_record, " in text
    assert counted(world) == before


async def test_jobnimbus_s_own_words_reach_who_sent_the_record(world: Any, agent: Any) -> None:
    place = Place(world)
    email = {"contact_id": place.contact, "email": "a@b.c d"}
    assert "(argument: email) [invalid_argument, " in await refusal(world, agent, "update_contact", email)
    paid = {"job_id": place.job, "total": 1.0, "date_payment": "2026-11-20"}
    nobody = [{"invoice_id": "nosuchinvoice00000000000", "amount": 1.0}]
    text = await refusal(world, agent, "create_payment", {**paid, "invoices": nobody})
    assert "Invalid invoice_id - nosuchinvoice00000000000" in text
    assert " [write_refused, " in text


# -- who may, and who is asked ----------------------------------------------------------------------


async def test_nothing_is_deleted_without_a_yes(world: Any, agent: Any, found: Findings) -> None:
    place, before = Place(world), held(world)
    for case in DELETES:
        given = case.good(place, "")
        del given["confirm"]
        for answer in ({}, {"confirm": False}):
            with found.of(case.tool, f"without a yes {answer}"):
                text = await refusal(world, agent, case.tool, {**given, **answer})
                assert text.startswith("Delete the ")
                assert given[id_argument_of(case)] in text
                assert "Nothing was done yet" in text
                assert "[confirmation_needed, " in text
    assert held(world) == before


async def test_a_server_that_only_reads_has_no_tool_that_writes(open_world: Any, found: Findings) -> None:
    async with open_world({**ALL, "MCP_READ_ONLY": "true"}) as world, world.agent() as agent:
        place, before = Place(world), held(world)
        writing = {spec.name for spec in world.app.toolbox.specs if spec.effect.writes}
        assert {case.tool for case in WRITES} <= writing
        listed = {tool.name for tool in (await agent.client.list_tools()).tools}
        assert listed == {spec.name for spec in world.app.toolbox.specs} - writing
        for case in WRITES:
            given = case.good(place, "zzread-only")
            for tool, arguments in ((case.tool, given), ("use_tool", {"name": case.tool, "arguments": given})):
                with found.of(case.tool, f"as {tool}"):
                    text = await agent.refused(tool, **arguments)
                    assert "this connection may only read" in text
                    assert "[read_only, " in text
        told = (await agent.ask("find_tools", query="create update delete")).data
        assert not any(tool["writes"] for tool in told["tools"])
        assert held(world) == before


# -- the audit --------------------------------------------------------------------------------------


async def test_every_write_leaves_who_did_what_from_what_to_what_for_the_admin_alone(
    world: Any, agent: Any, logged: Any, found: Findings
) -> None:
    place = Place(world)
    for case in (*UPDATES, *CREATES, *DELETES):
        with found.of(case.tool, "audit"):
            given = case.good(place, "zzaudited")
            told = await answers(world, agent, case.tool, given)
            audit = await audit_of(world, told["jnid"], case.tool)
            assert (audit["tool"], audit["outcome"]) == (case.tool, "done")
            assert audit["by"].startswith("partition:")
            assert audit["action"] == told["done"]
            if case.updates:
                changed = {name: [one["before"], one["after"]] for name, one in audit["changed"].items()}
                for name, (was, now) in told["changed"].items():
                    if name != "items":  # told in brief where they are many
                        assert changed[name] == [was, now]
    said = repr(logged.entries)
    for value in ("zzaudited", "Gate on the left", "tessa@example.com", "Ladder at the back", "Checked."):
        assert value not in said
    assert len([line for line in logged.entries if line["event"] == "write"]) == len(UPDATES + CREATES + DELETES)


async def audit_of(world: Any, jnid: str, tool: str) -> Json:
    """Of the latest write of a record, as the admin sees it."""
    page = await world.http.get("/cache/events", params={"id": jnid, "instance": "stamford"}, headers=ADMIN)
    assert page.status_code == 200, page.text
    for event in page.json()["events"]:
        if event["source"] == "write":
            whole = await world.http.get(f"/cache/events/{event['eventId']}", headers=ADMIN)
            assert (await world.http.get(f"/cache/events/{event['eventId']}")).status_code == 401
            body = whole.json()["body"]
            found: Json = json.loads(body) if isinstance(body, str) else body
            return found
    raise AssertionError("no event of the write")
