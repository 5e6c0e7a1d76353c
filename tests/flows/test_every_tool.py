"""Every tool through a real MCP client: the good call, and every way in which a call can go wrong.

One row per tool says what its calls are (`tool_cases`); each test is one kind of call, made of every tool. What went
wrong is told for all of them together.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest
from tool_cases import BY_TOOL, CASES, KINDS, NOWHERE, Case, Findings, Json, Place, Write, id_argument_of, moving

both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)
NOT_A_VALUE = {"a": []}
"""What no argument takes, but one that takes any object."""
TAKES_ANYTHING = {("use_tool", "arguments")}


@pytest.fixture
async def world(open_world: Any) -> AsyncIterator[Any]:
    """Every tool is listed, so that the client checks every answer against what its tool promised."""
    async with open_world({"MCP_TOOLSETS": "all"}) as opened:
        yield opened


@pytest.fixture
def found() -> Iterator[Findings]:
    findings = Findings()
    yield findings
    findings.none()


def in_settings(world: Any, case: Write, name: str) -> int:
    """How often the account's settings hold what a tool adds to them."""
    part, key = case.part
    account = world.sim.account("stamford")
    rows = account.settings.get(part) or account._unlisted[part]  # the rest is in no answer of JobNimbus's
    if key == "status":
        return sum(status["name"] == name for flow in rows for status in flow["status"])
    return sum(row[key] == name for row in rows)


def check(place: Place, case: Case, given: Json, told: Json) -> None:
    """The answer and the simulated account agree."""
    if isinstance(case, Write):
        check_write(place, case, given, told)
    else:
        check_read(place, case, given, told)


def check_write(place: Place, case: Write, given: Json, told: Json) -> str:
    """The simulated account holds what the call said; the record's id."""
    if case.part[0]:
        assert in_settings(place.world, case, given["name"]) == 1
        assert told["done"] == "created"
        return ""
    record = place.now(case.kind, told["jnid"])
    if case.deletes:
        assert told["done"] == "deleted"
        assert record is None or record["is_active"] is False
        return str(told["jnid"])
    assert told["done"] == ("created" if case.creates else "updated")
    assert record is not None
    expected = case.made(given)
    assert {name: record[name] for name in expected} == expected
    if "items" in given:
        ours = [{name: line[name] for name in given["items"][0]} for line in record["items"]]
        assert ours == given["items"]
    links = {link["id"] for link in record.get("related") or ()} | {(record.get("primary") or {}).get("id")}
    for name in ("job_id", "contact_id"):
        if case.creates and name in given:
            assert given[name] in links
    if case.updates:
        assert set(told["changed"]) >= {name for name in given if name in told["record"]} - {id_argument_of(case)}
    return str(told["jnid"])


def having_word(place: Place, kind: str, word: str) -> list[str]:
    (one,) = [one for one in KINDS if one.kind == kind]
    return [row["jnid"] for row in place.rows[kind] if word in one.words(row)]


def scheduled(place: Place, first: str, last: str) -> int:
    """How many tasks, jobs and work orders start on these days."""
    start = datetime.fromisoformat(f"{first}T00:00:00Z").timestamp()
    end = datetime.fromisoformat(f"{last}T23:59:59Z").timestamp()
    rows = [row for kind in ("tasks", "jobs", "workorders") for row in place.rows[kind]]
    moments = [row["date_start"] or 0 for row in rows if not row.get("hide_from_calendarview")]
    # integrations left some in milliseconds
    return sum(start <= (moment / 1000 if moment > 10**11 else moment) <= end for moment in moments)


def check_read(place: Place, case: Case, given: Json, told: Json) -> None:
    """The answer is what the simulated account holds."""
    if case.tool.startswith("search_") and case.kind != "users":
        having = having_word(place, case.kind, given["query"])
        assert told["count"] >= len(having) > 0
        assert having[0] in [row["jnid"] for row in told["results"]]
    elif case.kind == "calendar":
        assert told["count"] == scheduled(place, given["date_from"], given["date_to"])
        assert told["returned"] == 5
    elif case.tool == "get_users":
        active = [user["id"] for user in place.users if user["is_active"]]
        assert ([row["id"] for row in told["results"]], told["count"]) == (active[:5], len(active))
    elif case.tool == "search_users":
        assert [row["email"] for row in told["results"]] == [given["query"]]
    elif case.tool == "get_user":
        assert told["record"]["email"] == place.users[0]["email"]
    elif case.tool == "get_attachment_content":
        assert told["text"] == f"simulated content of {given['attachment_id']}\n"
    elif id_argument_of(case):
        assert told["record"]["jnid"] == given[id_argument_of(case)]
    elif case.kind:
        assert [row["jnid"] for row in told["results"]] == place.ids(case.kind)[:5]
        assert told["count"] == len(place.ids(case.kind))
    else:
        check_other(place, case, given, told)


def check_other(place: Place, case: Case, given: Json, told: Json) -> None:
    account = place.world.sim.account("stamford")
    match case.tool:
        case "get_units":
            assert {"SQ", "LF"} <= set(told["units"])
        case "get_settings":
            flows = sorted(account.settings["workflows"], key=lambda flow: flow["order"])
            known = [flow["name"] for flow in flows if flow["object_type"] == "job"]
            assert [flow["name"] for flow in told["workflows"]["job"]] == known
        case "get_webhooks":
            assert told["enabled"] is True
            assert len(told["webhooks"]) == 30
        case "bulk_create_records" | "resume_bulk_run":
            assert told["counts"] == {"created": 2}
            titles = [place.now("tasks", row["jnid"])["title"] for row in told["rows"]]  # type: ignore[index]  # a missing one fails the test as well
            assert [title.rsplit(" ", 1)[1] for title in titles] == ["1", "2"]
        case "bulk_update_records":
            assert told["counts"] == {"updated": 1}
            record = place.now("tasks", told["rows"][0]["jnid"])
            assert record is not None
            assert record["description"] == given["records"][0]["description"]
        case "find_tools":
            assert told["tools"][0]["name"] == "create_activity"
        case "use_tool":
            assert told["record"]["jnid"] == given["arguments"]["product_id"]
        case _:
            raise AssertionError("nothing says what a good answer is")


async def test_every_tool_has_one_row(world: Any) -> None:
    assert sorted(spec.name for spec in world.app.toolbox.specs) == sorted(case.tool for case in CASES)


@both_eras
async def test_the_good_call(world: Any, agent: Any, found: Findings) -> None:
    place = Place(world)
    for case in CASES:
        with found.of(case.tool, "good"):
            given = case.good(place, "zzgood01")
            told = (await agent.ask(case.tool, **given)).data
            check(place, case, given, told)


async def test_an_argument_that_is_none_is_named_and_nothing_is_asked(world: Any, agent: Any, found: Findings) -> None:
    """Arguments that many tools share are tried with the first of these; everything else with every tool."""
    place, tried = Place(world), set()
    schemas = {spec.name: spec.input_schema for spec in world.app.toolbox.specs}
    for case in CASES:
        given, schema = case.good(place, "zzwrong1"), schemas[case.tool]
        bad = [("nonsense", {**given, "nonsense": 1})]
        bad += [
            (name, {key: value for key, value in given.items() if key != name}) for name in schema.get("required", ())
        ]
        for name, shape in schema["properties"].items():
            if (same := (name, json.dumps(shape))) not in tried and (case.tool, name) not in TAKES_ANYTHING:
                tried.add(same)
                bad.append((name, {**given, name: NOT_A_VALUE}))
        for name, arguments in bad:
            with found.of(case.tool, f"bad {name}"):
                text = await agent.refused(case.tool, **arguments)
                assert f"(argument: {name}" in text
                assert " [invalid_argument, " in text
    assert world.sim.calls == 0


async def test_an_id_that_no_record_has_is_told_and_nothing_is_changed(world: Any, agent: Any, found: Findings) -> None:
    place = Place(world)
    for case in CASES:
        given = case.good(place, "zznone01")
        if name := id_argument_of(case):
            with found.of(case.tool, f"unknown {name}"):
                text = await agent.refused(case.tool, **{**given, name: NOWHERE})
                assert " [not_found, " in text
        for name in case.unknown:
            with found.of(case.tool, f"unknown {name}"):
                text = await moving(world, agent.refused(case.tool, **{**given, name: NOWHERE}))
                assert f"(argument: {name}) [invalid_argument, " in text or " [not_found, " in text
    with found.of("resume_bulk_run", "unknown bulk_id"):
        text = await agent.refused("resume_bulk_run", bulk_id=NOWHERE)
        assert text.startswith("Nothing is known of a bulk run of this id")
    for kind, rows in place.rows.items():
        assert len(world.has(kind)) == len(rows), kind


FAULTS: list[tuple[Json, list[str]]] = [
    ({"status": 401}, ["JobNimbus refused the API key", "[upstream_unauthorized, "]),
    ({"status": 429, "retryAfter": 30}, ["too many requests", "Try again in 30 seconds. [upstream_rate_limited, "]),
    ({"status": 429}, ["too many requests", "Try again in 5 seconds. [upstream_rate_limited, "]),
    ({"status": 500}, ["JobNimbus failed with status 500", "[upstream_error, "]),
    ({"status": 404}, ["[not_found, "]),
]
OF_WRITES = {404: "(argument: ", 500: "[write_outcome_unknown, "}
"""What else is said of such a failure where something is written."""


async def test_failures_of_jobnimbus_are_told_and_not_kept(world: Any, agent: Any, found: Findings) -> None:
    """Were one kept, or anything else, the next failure would not be told as it is."""
    place = Place(world)
    for fault, says in FAULTS:
        world.sim.reset()
        await world.fault(**fault)
        for case in CASES:
            if fault["status"] == 500:
                world.clock.advance(20)  # the breaker has half-opened by then
            if not case.asks or (case.only_key and fault["status"] == 404):
                continue
            with found.of(case.tool, str(fault)):
                arguments = case.good(place, "zzfault1")
                result = await moving(world, agent.result(case.tool, **arguments))
                text = result.content[0].text
                if case.singly:
                    assert result.is_error or set(json.loads(text)["counts"]) <= {"failed", "not_tried"}
                else:
                    assert result.is_error
                    other = isinstance(case, Write) and OF_WRITES.get(fault["status"], "-") in text
                    assert other or [part for part in says if part not in text] == [], text
    world.sim.reset()
    world.clock.advance(60)
    for case in CASES:
        given = case.good(place, "zzafter1")
        with found.of(case.tool, "after JobNimbus failed"):
            check(place, case, given, (await moving(world, agent.ask(case.tool, **given))).data)


async def test_a_list_without_rows_says_so(world: Any, agent: Any, found: Findings) -> None:
    for case in CASES:
        if case.empty is not None:
            with found.of(case.tool, "empty"):
                told = (await agent.ask(case.tool, **case.empty)).data
                assert (told["results"], told["count"], told["returned"]) == ([], 0, 0)
                assert told["next_cursor"] is None
    lists = {spec.name for spec in world.app.toolbox.specs if spec.plan is not None}
    assert {case.tool for case in CASES if case.empty is not None} == lists - {"get_users"}


async def test_page_two_goes_on_where_page_one_ended(world: Any, agent: Any, found: Findings) -> None:
    place = Place(world)
    for spec in world.app.toolbox.specs:
        if spec.plan is None:
            continue
        given = BY_TOOL[spec.name].good(place, "")
        if spec.name == "search_users":
            given = {}
        with found.of(spec.name, "page two"):
            whole = (await agent.ask(spec.name, **{**given, "size": 6})).data["results"]
            size = len(whole) // 2
            assert size
            one = (await agent.ask(spec.name, **{**given, "size": size})).data
            two = (await agent.ask(spec.name, cursor=one["next_cursor"])).data
            assert [*one["results"], *two["results"]] == whole[: 2 * size]
            key = "id" if BY_TOOL[spec.name].kind == "users" else "jnid"
            assert len({row[key] for row in whole}) == len(whole)


async def test_fields_and_verbosity_say_how_much_is_shown(world: Any, agent: Any, found: Findings) -> None:
    place = Place(world)
    for spec in world.app.toolbox.specs:
        if "verbosity" not in spec.argument_names:
            continue
        given = {**BY_TOOL[spec.name].good(place, ""), **({"size": 2} if spec.plan else {})}
        key = "id" if BY_TOOL[spec.name].kind == "users" else "jnid"
        with found.of(spec.name, "fields and verbosity"):
            told = {
                how: rows_of((await agent.ask(spec.name, **given, verbosity=how)).data) for how in ("summary", "raw")
            }
            some = rows_of((await agent.ask(spec.name, **given, fields=[key, "date_created"])).data)
            assert [set(row) - {"date_created"} for row in some] == [{key}] * len(some)
            ids = [row[key] for row in told["raw"]]
            assert all([row[key] for row in rows] == ids for rows in told.values())
            assert all(len(json.dumps(a)) < len(json.dumps(b)) for a, b in zip(*told.values(), strict=True))
            if spec.plan is None and key == "jnid":
                assert told["raw"] == [place.now(BY_TOOL[spec.name].kind, jnid) for jnid in ids]


def rows_of(told: Json) -> list[Json]:
    return list(told["results"]) if "results" in told else [told["record"]]
