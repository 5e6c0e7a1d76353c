"""Pages, fields, verbosity and the byte budget: nothing is lost, nothing comes twice, and every answer fits."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest

Row = dict[str, Any]
both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)

LISTS = {
    "get_jobs": "jobs",
    "get_contacts": "contacts",
    "get_estimates": "estimates",
    "get_activities": "activities",
    "get_tasks": "tasks",
    "get_attachments": "files",
    "search_jobs": "jobs",
    "search_contacts": "contacts",
}


def size_bytes(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


@pytest.mark.parametrize(
    ("agent", "tool", "arguments"),
    [
        ("legacy", "get_jobs", {}),
        ("2026-07-28", "get_jobs", {}),
        ("2026-07-28", "get_tasks", {"order": "asc"}),
        ("2026-07-28", "get_estimates", {"sort_by": "date_status_change"}),
        ("2026-07-28", "get_calendar_activities", {}),
        ("2026-07-28", "search_contacts", {"query": "a"}),
        ("2026-07-28", "get_users", {"active_only": False}),
    ],
    indirect=["agent"],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_pages_of_seven_by_cursor_and_by_offset_are_the_list_cut_in_pieces(
    world: Any, agent: Any, tool: str, arguments: Row
) -> None:
    def name(row: Row) -> str:
        return str(row.get("jnid") or row["id"])

    whole = [name(row) for page in await agent.pages(tool, size=200, verbosity="summary", **arguments)
             for row in page.rows]  # fmt: skip
    pages = await agent.pages(tool, size=7, verbosity="summary", **arguments)
    by_cursor = [name(row) for page in pages for row in page.rows]
    assert by_cursor == whole
    assert len(set(whole)) == len(whole) == pages[0].data["count"]
    assert {page.data["returned"] for page in pages[:-1]} <= {7}
    if tool != "get_users":
        assert len(pages) > 10

    by_offset: list[str] = []
    for offset in itertools.count(0, 7):
        told = await agent.ask(tool, size=7, from_=offset, verbosity="summary", **arguments)
        by_offset += [name(row) for row in told.rows]
        if not told.rows or told.data["next_cursor"] is None:
            break
    assert by_offset == whole


async def test_a_page_beyond_the_end_is_empty(world: Any, agent: Any) -> None:
    for tool in (*LISTS, "get_users", "get_calendar_activities"):
        told = await agent.ask(tool, from_=5_000)
        assert (told.rows, told.data["returned"], told.data["next_cursor"]) == ([], 0, None), tool
        assert told.data["count"] > 0


async def test_every_list_goes_on_where_its_page_ended(world: Any, agent: Any) -> None:
    for tool, kind in LISTS.items():
        first = await agent.ask(tool, size=3)
        second = await agent.ask(tool, cursor=first.data["next_cursor"])
        by_offset = await agent.ask(tool, size=3, from_=3)
        assert second.ids == by_offset.ids, tool
        newest = sorted(world.has(kind), key=lambda row: (row["date_created"], row["recid"]), reverse=True)
        assert first.ids + second.ids == [row["jnid"] for row in newest[:6]], tool


async def test_a_cursor_keeps_its_question_and_lets_the_page_be_shown_otherwise(world: Any, agent: Any) -> None:
    first = await agent.ask("get_jobs", status="scheduled", size=5, sort_by="date_start", order="asc")
    cursor = first.data["next_cursor"]

    told = await agent.ask("get_jobs", cursor=cursor, size=2, fields="number", status="scheduled")
    assert [set(row) for row in told.rows] == [{"number"}] * 2
    assert "status" in await agent.refused("get_jobs", cursor=cursor, status="Lead")
    assert "from" in await agent.refused("get_jobs", cursor=cursor, from_=5)
    for wrong in ("nonsense", cursor[:-4], cursor.swapcase(), "", "ünïcode"):
        text = await agent.refused("get_jobs", cursor=wrong)
        assert "[invalid_argument," in text, wrong
        assert "cursor" in text
    assert "cursor" in await agent.refused("get_contacts", cursor=cursor)
    response = await world.post("get_jobs", {"cursor": cursor, "from": 5})
    assert (response.status_code, response.json()["field"]) == (400, "from")


async def test_pages_stay_whole_beyond_the_window_in_which_jobnimbus_pages(world: Any, agent: Any) -> None:
    """Activities were seen to stop at 1,000 rows."""
    job = world.has("jobs")[0]["jnid"]
    for number in range(400):
        await world.sim.create(
            "stamford", "activities", {"note": f"n{number}", "record_type": 1, "related": [job]}, webhook=False
        )
        world.clock.advance(1 if number % 3 else 0)
    expected = world.ids("activities")
    assert len(expected) > 1_200

    pages = await agent.pages("get_activities", size=200, verbosity="summary")

    found = [jnid for page in pages for jnid in page.ids]
    assert len(found) == len(expected)
    assert set(found) == expected
    assert all(page.data.get("complete", True) for page in pages)

    # a page that reaches over the window's edge goes on behind its last row, not behind its last place
    over = await agent.ask("get_activities", from_=995, size=10, verbosity="summary")
    on = await agent.ask("get_activities", cursor=over.data["next_cursor"])
    assert over.ids == found[995:1000]
    assert on.ids == found[1000:1010]
    beyond = await agent.ask("get_activities", from_=1_100, size=10)
    assert (beyond.rows, beyond.data["complete"], beyond.data["next_cursor"]) == ([], False, None)
    assert "1000" in beyond.data["incomplete_reason"]


# -- what is shown ---------------------------------------------------------------------------------


@both_eras
async def test_fields_show_exactly_what_was_asked_for(world: Any, agent: Any) -> None:
    stored = {row["jnid"]: row for row in world.has("jobs")}
    told = await agent.ask("get_jobs", fields="jnid,number,primary.name,owners.id,related.id", verbosity="raw", size=5)
    for row in told.rows:
        real = stored[row["jnid"]]
        assert row == {
            "jnid": real["jnid"],
            "number": real["number"],
            "primary": {"name": real["primary"]["name"]},
            "owners": [{"id": owner["id"]} for owner in real["owners"]],
            "related": [{"id": link["id"]} for link in real["related"]],
        }
    listed = await agent.ask("get_jobs", fields=["number", "no_such_field"], size=2)
    assert [set(row) for row in listed.rows] == [{"number"}] * 2
    one = await agent.ask("get_job", job_id=told.ids[0], fields="primary.name, number")
    assert one.data["record"] == {key: told.rows[0][key] for key in ("primary", "number")}
    for tool in LISTS:
        assert [set(row) for row in (await agent.ask(tool, fields="jnid", size=2)).rows] == [{"jnid"}] * 2


async def test_each_verbosity_shows_more_than_the_one_before(world: Any, agent: Any) -> None:
    for tool, kind in LISTS.items():
        stored = {row["jnid"]: row for row in world.has(kind)}
        shown = {
            level: (await agent.ask(tool, verbosity=level, size=1)).rows[0]
            for level in ("summary", "compact", "detailed", "raw")
        }
        sizes = [size_bytes(shown[level]) for level in shown]
        assert sizes == sorted(sizes), tool
        assert sizes[0] < sizes[1] < sizes[3], tool
        assert shown["raw"] == stored[shown["raw"]["jnid"]], tool
        real = shown["raw"]["date_created"]
        expected = datetime.fromtimestamp(real, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert shown["detailed"]["date_created"] == expected
        assert (await agent.ask(tool, size=1)).rows[0] == shown["compact"], f"{tool}: compact is the default"
        unset = [field for field, value in shown["detailed"].items() if value in (None, "", [], {})]
        assert unset == []


async def test_detailed_leaves_out_only_what_is_not_set(world: Any, agent: Any) -> None:
    stored = world.has("jobs")[20]
    told = await agent.ask("get_job", job_id=stored["jnid"], verbosity="detailed")

    def is_set(field: str, value: Any) -> bool:
        return value not in (None, "", [], {}) and not (field.startswith(("date_", "cf_date")) and value == 0)

    lasting = {field for field, value in stored.items() if is_set(field, value) and "date_" not in field}
    twice = {"cf_string_3", "cf_boolean_1"}  # custom fields stand under their labels as well, and are shown there
    assert lasting - twice <= set(told.data["record"])
    assert not twice & set(told.data["record"])


async def test_unknown_levels_and_sizes_are_refused_by_name(world: Any, agent: Any) -> None:
    wrong: list[tuple[str, Row]] = [
        ("verbosity", {"verbosity": "loud"}),
        ("size", {"size": 0}),
        ("size", {"size": 201}),
        ("size", {"size": True}),
        ("from", {"from": -1}),
        ("max_age_s", {"max_age_s": -1}),
        ("max_age_s", {"max_age_s": True}),
        ("sort_by", {"sort_by": "name"}),
        ("order", {"order": "up"}),
        ("fields", {"fields": []}),
        ("fields", {"fields": ["x" * 200]}),
        ("owner_id", {"owner_id": "a/b"}),
        ("is_archived", {"is_archived": "perhaps"}),
    ]
    for field, arguments in wrong:
        response = await world.post("get_jobs", arguments)
        assert (response.status_code, response.json()["field"]) == (400, field), arguments
        result = await agent.result("get_jobs", **arguments)
        assert result.is_error, arguments
        assert field in result.content[0].text
    assert world.sim.calls == 0
    assert (await world.post("get_attachments", {"size": 500})).status_code == 200
    assert (await world.post("get_attachments", {"size": 501})).json()["field"] == "size"


# -- the byte budget -------------------------------------------------------------------------------


async def test_an_answer_is_cut_to_its_budget_and_the_cursors_lose_nothing(open_world: Any) -> None:
    async with open_world({"ANSWER_MAX_BYTES": "8192"}) as world, world.agent() as agent:
        recent = datetime.fromtimestamp(world.clock.now() - 60 * 86_400, UTC).date().isoformat()
        questions: dict[str, Row] = {
            "get_jobs": {"date_from": recent},
            "search_contacts": {"query": "an"},
            "get_activities": {"date_from": recent},
            "get_calendar_activities": {},
        }
        for tool, question in questions.items():
            whole = [jnid for page in await agent.pages(tool, size=200, fields="jnid", **question) for jnid in page.ids]
            pages = await agent.pages(tool, size=100, **question)

            assert all(size_bytes(page.data) <= 8_192 for page in pages), tool
            assert len(pages) > 2, tool
            assert all(page.data["returned"] < 100 for page in pages), tool
            assert [jnid for page in pages for jnid in page.ids] == whole, tool
            assert len(whole) == pages[0].data["count"], tool


async def test_the_usual_budget_holds_for_the_largest_page(world: Any, agent: Any) -> None:
    for tool in (*LISTS, "get_calendar_activities"):
        told = await agent.ask(tool, size=200, verbosity="raw")
        assert size_bytes(told.data) <= 24_576, tool
        assert told.data["next_cursor"] is not None


@both_eras
async def test_a_single_record_over_the_budget_is_cut_and_says_what_is_missing(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]
    await world.sim.change(
        "stamford", "jobs", job["jnid"], {"description": "long " * 8_000, "cf_string_9": "x" * 30_000}
    )
    for verbosity in ("raw", "detailed", "compact"):
        one = await agent.ask("get_job", job_id=job["jnid"], verbosity=verbosity)
        listed = await agent.ask("get_jobs", contact_id=job["primary"]["id"], verbosity=verbosity, size=1,
                                 sort_by="date_updated")  # fmt: skip
        for told, record in ((one, one.data["record"]), (listed, listed.rows[0])):
            assert size_bytes(told.data) <= 24_576
            assert told.data["truncated"] is True
            assert record["jnid"] == job["jnid"]
            assert record["number"] == job["number"]
            assert "description" in told.data["omitted_fields"]
            if verbosity != "compact":
                assert "cf_string_9" in told.data["omitted_fields"]
                assert "cf_string_9" not in record
    small = await agent.ask("get_job", job_id=job["jnid"], fields="number")
    assert small.data["record"] == {"number": job["number"]}
    assert "truncated" not in small.data


async def test_after_a_record_that_had_to_be_cut_the_list_goes_on(open_world: Any) -> None:
    async with open_world({"ANSWER_MAX_BYTES": "4096"}) as world, world.agent() as agent:
        for row in world.has("jobs", lambda row: row["record_type_name"] == "Repair")[10:13]:
            await world.sim.change("stamford", "jobs", row["jnid"], {"description": "wide " * 3_000})

        pages = await agent.pages("get_jobs", size=50, sort_by="date_updated", record_type="Repair")

        found = [jnid for page in pages for jnid in page.ids]
        assert len(found) == len(set(found))
        assert set(found) == world.ids("jobs", lambda row: row["record_type_name"] == "Repair")
        assert all(size_bytes(page.data) <= 4_096 for page in pages)
        assert sum(page.data.get("truncated", False) for page in pages) == 3
