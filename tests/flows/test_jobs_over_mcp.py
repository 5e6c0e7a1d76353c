"""get_jobs, search_jobs and get_job, checked against what the simulated account really holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

Row = dict[str, Any]
ALL = 200
both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)

CREATION_ENDS = [
    ("2026-03-07T23:59:59-05:00", False),
    ("2026-03-08T00:00:00-05:00", True),  # the day the clocks go forward has 23 hours
    ("2026-03-08T23:59:59-04:00", True),
    ("2026-03-09T00:00:00-04:00", False),
]


def seconds(value: Any) -> int:
    """Epoch seconds of a stored date, 0 for none; integrations left some in milliseconds."""
    moment = int(value or 0)
    return moment // 1000 if moment > 10**11 else moment


def epoch(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


async def everything(agent: Any, tool: str, **arguments: Any) -> tuple[list[str], int]:
    pages = await agent.pages(tool, size=ALL, verbosity="summary", **arguments)
    assert all(page.data.get("complete", True) for page in pages)
    return [jnid for page in pages for jnid in page.ids], pages[0].data["count"]


async def same(agent: Any, expected: set[str], tool: str = "get_jobs", **arguments: Any) -> None:
    found, count = await everything(agent, tool, **arguments)
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert count == len(expected)


@both_eras
async def test_the_jobs_of_an_account_are_listed_as_jobnimbus_has_them(world: Any, agent: Any) -> None:
    told = await agent.ask("get_jobs")

    newest = sorted(world.has("jobs"), key=lambda row: (row["date_created"], row["recid"]), reverse=True)
    assert told.data["count"] == len(newest)
    assert told.data["returned"] == 25
    assert told.ids == [row["jnid"] for row in newest[:25]]
    first, stored = told.rows[0], newest[0]
    for field in ("number", "name", "status_name", "sales_rep", "sales_rep_name", "is_archived"):
        assert first[field] == stored[field], field
    assert [owner["id"] for owner in first["owners"]] == [owner["id"] for owner in stored["owners"]]
    assert first["primary"].items() <= stored["primary"].items()  # without what is not set
    assert first["primary"]["id"] == stored["primary"]["id"]
    assert first["date_created"] == datetime.fromtimestamp(stored["date_created"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert told.status == "miss"
    assert told.cache["tier"] == "upstream"
    assert told.data["as_of"] == told.cache["asOf"]


FILTERS: list[tuple[str, dict[str, Any], Callable[[Row], bool]]] = [
    ("status", {"status": "Scheduled"}, lambda r: r["status"] in (354, 373)),
    ("status in another case", {"status": "iN pRODUCTION"}, lambda r: r["status"] == 355),
    ("record_type", {"record_type": "repair"}, lambda r: r["record_type_name"] == "Repair"),
    ("has_schedule", {"has_schedule": True}, lambda r: seconds(r["date_start"]) > 0),
    ("no schedule", {"has_schedule": False}, lambda r: seconds(r["date_start"]) == 0),
    ("archived", {"is_archived": True}, lambda r: r["is_archived"]),
    ("not archived", {"is_archived": False}, lambda r: not r["is_archived"]),
    (
        "several at once",
        {"status": "Paid & Closed", "record_type": "ROOFING", "is_archived": False},
        lambda r: r["status"] == 359 and not r["is_archived"],
    ),
]


@pytest.mark.parametrize(("arguments", "keep"), [f[1:] for f in FILTERS], ids=[f[0] for f in FILTERS])
async def test_a_filter_keeps_exactly_the_jobs_it_names(
    world: Any, agent: Any, arguments: Row, keep: Callable[[Row], bool]
) -> None:
    expected = world.ids("jobs", keep)
    assert expected
    assert expected != world.ids("jobs")
    await same(agent, expected, **arguments)


async def test_a_sales_rep_is_named_by_name_address_or_id_and_all_their_ids_count(world: Any, agent: Any) -> None:
    twice = world.users()[2]  # one human under two ids
    ids = {user["id"] for user in world.users() if user["email"] == twice["email"]}
    assert len(ids) == 2
    theirs = world.ids("jobs", lambda row: row["sales_rep"] in ids)
    assert theirs

    await same(agent, theirs, sales_rep=f"{twice['first_name']} {twice['last_name']}".upper())
    await same(agent, theirs, sales_rep=twice["email"].title())
    await same(agent, world.ids("jobs", lambda row: row["sales_rep"] == twice["id"]), sales_rep=twice["id"])


async def test_a_renamed_rep_is_found_by_the_present_name_on_old_jobs_too(world: Any, agent: Any) -> None:
    rep = world.users()[3]
    theirs = world.ids("jobs", lambda row: row["sales_rep"] == rep["id"])
    assert any(
        row["sales_rep_name"] != f"{rep['first_name']} {rep['last_name']}"
        for row in world.has("jobs")
        if row["jnid"] in theirs
    )

    await same(agent, theirs, sales_rep=f"{rep['first_name']} {rep['last_name']}")


async def test_owner_and_contact_filters_go_by_id(world: Any, agent: Any) -> None:
    owner = world.users()[1]["id"]
    contact = world.has("jobs")[0]["primary"]["id"]

    await same(agent, world.ids("jobs", lambda row: {"id": owner} in row["owners"]), owner_id=owner)
    await same(agent, world.ids("jobs", lambda row: row["primary"]["id"] == contact), contact_id=contact)
    await same(agent, set(), owner_id="nobody0000000000000000")
    await same(agent, set(), contact_id="nobody0000000000000000")


async def test_a_contact_that_a_job_is_only_related_to_counts(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]
    other = next(row for row in world.has("contacts") if row["jnid"] != job["primary"]["id"])
    link = {"id": other["jnid"], "type": "contact", "name": other["display_name"]}
    await world.sim.change("stamford", "jobs", job["jnid"], {"related": [*job["related"], link]})

    found, _ = await everything(agent, "get_jobs", contact_id=other["jnid"])

    assert job["jnid"] in found


async def test_dates_of_creation_and_change_include_both_ends(world: Any, agent: Any) -> None:
    middle = sorted(world.has("jobs"), key=lambda row: row["date_created"])[100:160]
    start, end = middle[0]["date_created"], middle[-1]["date_created"]
    stamps = [datetime.fromtimestamp(at, UTC).isoformat() for at in (start, end)]

    await same(
        agent,
        world.ids("jobs", lambda row: start <= row["date_created"] <= end),
        date_from=stamps[0],
        date_to=stamps[1],
    )
    days = (epoch(f"{day(start)}T00:00:00+00:00"), epoch(f"{day(end)}T23:59:59+00:00"))
    await same(
        agent,
        world.ids("jobs", lambda row: days[0] <= row["date_created"] <= days[1]),
        date_from=day(start),
        date_to=day(end),
    )
    since = sorted(row["date_updated"] for row in world.has("jobs"))[-40]
    await same(
        agent,
        world.ids("jobs", lambda row: row["date_updated"] >= since),
        updated_since=datetime.fromtimestamp(since, UTC).isoformat(),
    )


async def test_a_day_is_the_accounts_own_day_from_its_first_to_its_last_second(open_world: Any) -> None:
    async with open_world({"ACCOUNT_TIMEZONE": "America/New_York"}) as world, world.agent() as agent:
        inside = set()
        for text, counts in CREATION_ENDS:
            made = await world.sim.create("stamford", "jobs", {"name": text, "date_created": epoch(text)})
            if counts:
                inside.add(made["jnid"])
        ours = {row["jnid"] for row in world.has("jobs") if row["name"] in dict(CREATION_ENDS)}

        found, _ = await everything(agent, "get_jobs", date_from="2026-03-08", date_to="2026-03-08")

        assert ours & set(found) == inside


async def test_scheduled_days_include_both_ends_and_dates_in_milliseconds(world: Any, agent: Any) -> None:
    odd = next(row for row in world.has("jobs") if row["date_start"] and row["date_start"] > 10**11)
    start = seconds(odd["date_start"])
    first, last = epoch(f"{day(start)}T00:00:00+00:00"), epoch(f"{day(start)}T23:59:59+00:00")

    expected = world.ids("jobs", lambda row: first <= seconds(row["date_start"]) <= last)
    assert odd["jnid"] in expected
    await same(agent, expected, scheduled_from=day(start), scheduled_to=day(start))
    await same(agent, world.ids("jobs", lambda row: seconds(row["date_start"]) >= first), scheduled_from=day(start))
    await same(agent, world.ids("jobs", lambda row: 0 < seconds(row["date_start"]) <= last), scheduled_to=day(start))


@pytest.mark.parametrize("argument", ["status", "record_type", "sales_rep"])
async def test_a_name_the_account_does_not_have_is_answered_with_those_it_has(
    world: Any, agent: Any, argument: str
) -> None:
    rep = world.users()[1]
    known = {
        "status": ["In Production", "Paid & Closed", "Assessed"],
        "record_type": ["Roofing", "Repair"],
        "sales_rep": [f"{rep['first_name']} {rep['last_name']}"],
    }[argument]

    text = await agent.refused("get_jobs", **{argument: "No Such Thing"})

    assert "invalid_argument" in text
    assert argument in text
    assert all(name in text for name in known)
    response = await world.post("get_jobs", {argument: "No Such Thing"})
    assert (response.status_code, response.json()["field"]) == (400, argument)


@pytest.mark.parametrize("sort_by", ["date_created", "date_updated", "date_start", "date_end", "date_status_change"])
async def test_jobs_are_sorted_by_the_date_asked_for_in_either_direction(world: Any, agent: Any, sort_by: str) -> None:
    stored = {row["jnid"]: row[sort_by] or 0 for row in world.has("jobs")}

    falling, _ = await everything(agent, "get_jobs", sort_by=sort_by)
    rising, _ = await everything(agent, "get_jobs", sort_by=sort_by, order="asc")

    assert set(falling) == set(rising) == set(stored)
    dated = [jnid for jnid in falling if stored[jnid]]
    assert [stored[jnid] for jnid in dated] == sorted((stored[jnid] for jnid in dated), reverse=True)
    dated = [jnid for jnid in rising if stored[jnid]]
    assert [stored[jnid] for jnid in dated] == sorted(stored[jnid] for jnid in dated)


# -- search_jobs -----------------------------------------------------------------------------------


def holds(row: Row, *words: str) -> bool:
    fields = ("name", "number", "description", "address_line1", "address_line2", "city", "state_text", "zip")
    texts = [str(row[field] or "").lower() for field in fields]
    return all(any(word.lower() in text for text in texts) for word in words)


SEARCHES = (
    "leak",  # name and description
    "GUTTERS",
    "stamford",  # city
    "larkspur",  # street
    "06902",  # ZIP, also as 06902-2114
    "shingl",  # a part of a word
    "o'brien",
    "re-roof",
    "repair guilford",
    "hail rear ct",
    "unit 2",
    "no-such-word-anywhere",
)


@both_eras
async def test_every_word_of_a_search_stands_in_some_promised_field(world: Any, agent: Any) -> None:
    found_by = {query: world.ids("jobs", lambda row, q=query: holds(row, *q.split())) for query in SEARCHES}
    assert [query for query, found in found_by.items() if not found] == ["no-such-word-anywhere"]

    for query, expected in found_by.items():
        found, count = await everything(agent, "search_jobs", query=query)
        assert (set(found), count) == (expected, len(expected)), query


async def test_a_search_by_number_finds_the_job_and_nothing_else(world: Any, agent: Any) -> None:
    for number in ("22-1275", "R-20417", "r-20417"):
        (expected,) = world.ids("jobs", lambda row, number=number: row["number"].lower() == number.lower())
        found, count = await everything(agent, "search_jobs", query=number)
        assert (found, count) == ([expected], 1)


async def test_a_search_takes_the_filters_of_get_jobs(world: Any, agent: Any) -> None:
    expected = world.ids("jobs", lambda row: holds(row, "leak") and row["record_type_name"] == "Repair")
    assert expected != world.ids("jobs", lambda row: holds(row, "leak"))

    await same(agent, expected, "search_jobs", query="leak", record_type="Repair")


async def test_a_search_without_words_lists_the_account(world: Any, agent: Any) -> None:
    await same(agent, world.ids("jobs"), "search_jobs")


NO_WORDS = ('"', "\\", "*", "?", "{", "}}", "🏠", "[]", "%", "'", "_", "<>", "-- -", " \t ")
ODD_WORDS = (
    *(
        "a*",
        "?eak",
        'le"ak',
        "le\\ak",
        "{leak}",
        "leak 🏠",
        "ß",
        "İ",
        "\x00x",
        "NOT",
        "a OR b",
        "[1 TO 2]",
        "<b>",
        "a_b",
    ),
    *("x" * 200, "é", "leak\nroof", "\u202eabc", "'; drop", "$where:1", "${leak}", "\ud7ff\ue000a"),
)


@pytest.mark.parametrize(("tool", "kind"), [("search_jobs", "jobs"), ("search_contacts", "contacts")])
async def test_no_query_breaks_a_search(world: Any, agent: Any, tool: str, kind: str) -> None:
    stored = {row["jnid"]: repr(list(row.values())).lower() for row in world.has(kind)}
    for query in NO_WORDS:
        text = await agent.refused(tool, query=query)
        assert "[invalid_argument," in text, query
        assert "query" in text, query
    for query in ODD_WORDS:
        told = await agent.ask(tool, query=query)
        plain = [word for word in query.lower().split() if word.isascii() and word.isalnum()]
        assert all(word in stored[jnid] for jnid in told.ids for word in plain), query
        if any(mark in query for mark in '*?{}"\\$'):
            assert told.data["count"] == 0, f"{query!r}: they stand for themselves, and no record holds them"


# -- get_job ---------------------------------------------------------------------------------------


@both_eras
async def test_a_job_is_read_by_id_or_by_number(world: Any, agent: Any) -> None:
    for number in ("22-1275", "r-20417", "1150"):
        stored = next(row for row in world.has("jobs") if row["number"].lower() == number)
        for job_id in (number, stored["jnid"]):
            told = await agent.ask("get_job", job_id=job_id, verbosity="raw")
            assert told.data["record"] == stored
            assert told.data["as_of"] == told.cache["asOf"]


async def test_a_number_that_several_jobs_carry_gives_the_one_changed_last_and_names_the_others(
    world: Any, agent: Any
) -> None:
    older, newer = (row["jnid"] for row in world.has("jobs")[40:42])
    await world.sim.change("stamford", "jobs", older, {"number": "TWICE-1"})
    world.clock.advance(60)
    await world.sim.change("stamford", "jobs", newer, {"number": "TWICE-1"})

    told = await agent.ask("get_job", job_id="TWICE-1", fields="jnid")

    assert told.data["record"] == {"jnid": newer}
    assert told.data["other_jobs_with_this_number"] == [older]


async def test_an_unknown_job_is_not_found(world: Any, agent: Any) -> None:
    for job_id in ("nope", "99999", "22-9999", "doesnotexist0000000000", "a job's number", "é", "22-127"):
        assert "[not_found," in await agent.refused("get_job", job_id=job_id), job_id
        response = await world.post("get_job", {"job_id": job_id})
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), job_id


NO_IDS = ("../contacts", "a/b", "a?b=1", "a#b", "%2e%2e", "a\nb", "a\x00b", "\x7f", "", "x" * 65, 5, None, ["1"], True)


async def test_an_id_that_could_leave_its_place_in_a_path_is_refused_unasked(world: Any, agent: Any) -> None:
    for job_id in NO_IDS:
        text = await agent.refused("get_job", job_id=job_id)
        assert "[invalid_argument," in text, job_id
        assert "job_id" in text, job_id
        response = await world.post("get_job", {"job_id": job_id})
        assert (response.status_code, response.json()["field"]) == (400, "job_id"), job_id
    assert world.sim.calls == 0


@pytest.mark.parametrize("job_id", ["..", "."])
async def test_dots_are_a_number_like_any_other_and_go_nowhere(world: Any, agent: Any, job_id: str) -> None:
    text = await agent.refused("get_job", job_id=job_id)
    assert "[not_found," in text
    assert set(world.sim.calls_by_path()) == {"/jobs"}


async def test_get_job_needs_its_job_id(world: Any, agent: Any) -> None:
    assert "job_id" in await agent.refused("get_job")
    response = await world.post("get_job", {})
    assert (response.status_code, response.json()["field"]) == (400, "job_id")
