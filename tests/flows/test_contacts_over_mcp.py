"""get_contacts and search_contacts, checked against what the simulated account really holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

Row = dict[str, Any]
both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)
PHONES = ("mobile_phone", "home_phone", "work_phone", "fax_number")
WORDS = ("display_name", "first_name", "last_name", "company", "email")


async def same(agent: Any, expected: set[str], tool: str = "get_contacts", **arguments: Any) -> None:
    pages = await agent.pages(tool, size=200, verbosity="summary", **arguments)
    found = [jnid for page in pages for jnid in page.ids]
    assert len(found) == len(set(found)), arguments
    assert set(found) == expected, arguments
    assert {page.data["count"] for page in pages} == {len(expected)}, arguments


def phone_has(row: Row, digits: str) -> bool:
    return any(digits in re.sub(r"\D", "", row[field] or "").removeprefix("1") for field in PHONES)


def holds(row: Row, *words: str) -> bool:
    texts = [str(row[field] or "").lower() for field in WORDS]
    return all(any(word.lower() in text for text in texts) for word in words)


@both_eras
async def test_contacts_are_listed_newest_first(world: Any, agent: Any) -> None:
    told = await agent.ask("get_contacts", size=10)

    newest = sorted(world.has("contacts"), key=lambda row: (row["date_created"], row["recid"]), reverse=True)
    assert told.ids == [row["jnid"] for row in newest[:10]]
    assert told.data["count"] == len(newest)
    for shown, stored in zip(told.rows, newest, strict=False):
        for field in ("number", "display_name", "status_name", "mobile_phone", "email", "sales_rep"):
            assert shown.get(field, "") == (stored[field] or ""), field


FILTERS: list[tuple[str, Row, Callable[[Row], bool]]] = [
    ("status", {"status": "paid & closed"}, lambda r: r["status_name"] == "Paid & Closed"),
    ("status of another workflow", {"status": "ACTIVE"}, lambda r: r["status_name"] == "Active"),
    ("record_type", {"record_type": "subcontractor"}, lambda r: r["is_sub_contractor"]),
    ("both", {"record_type": "Customer", "status": "Lead"}, lambda r: r["status"] == 1),
    ("a workflow nobody is in", {"record_type": "Commercial"}, lambda r: False),
]


@pytest.mark.parametrize(("arguments", "keep"), [f[1:] for f in FILTERS], ids=[f[0] for f in FILTERS])
async def test_a_filter_keeps_exactly_the_contacts_it_names(
    world: Any, agent: Any, arguments: Row, keep: Callable[[Row], bool]
) -> None:
    expected = world.ids("contacts", keep)
    assert expected or arguments == {"record_type": "Commercial"}
    await same(agent, expected, **arguments)


async def test_people_and_dates_narrow_the_contacts(world: Any, agent: Any) -> None:
    rep = world.users()[1]
    theirs = world.ids("contacts", lambda row: row["sales_rep"] == rep["id"])
    assert theirs
    await same(agent, theirs, sales_rep=f" {rep['first_name']} {rep['last_name']}".lower())
    await same(agent, theirs, sales_rep=rep["email"].upper())
    await same(agent, theirs, sales_rep=rep["id"])
    await same(agent, world.ids("contacts", lambda row: {"id": rep["id"]} in row["owners"]), owner_id=rep["id"])

    stamps = sorted(row["date_created"] for row in world.has("contacts"))
    start, end = stamps[50], stamps[120]
    await same(
        agent,
        world.ids("contacts", lambda row: start <= row["date_created"] <= end),
        date_from=datetime.fromtimestamp(start, UTC).isoformat(),
        date_to=datetime.fromtimestamp(end, UTC).isoformat(),
    )
    since = sorted(row["date_updated"] for row in world.has("contacts"))[-30]
    await same(
        agent,
        world.ids("contacts", lambda row: row["date_updated"] >= since),
        updated_since=datetime.fromtimestamp(since, UTC).isoformat(),
    )


async def test_an_unknown_name_is_answered_with_the_names_there_are(world: Any, agent: Any) -> None:
    text = await agent.refused("get_contacts", status="Scheduled")  # a job's status, and no contact's
    assert "Signed Contract" in text
    assert "On Hold" in text
    assert "In Production" not in text


@both_eras
async def test_every_word_of_a_search_stands_in_name_company_or_address(world: Any, agent: Any) -> None:
    person = next(row for row in world.has("contacts") if row["email"] and " (" not in row["display_name"])
    firm = next(row for row in world.has("contacts") if row["company"].endswith(("Exteriors", "Carpentry", "Crew")))
    queries = (
        person["display_name"],
        person["first_name"].upper(),
        person["last_name"][1:],
        person["email"],
        person["email"].split("@")[0].upper(),
        firm["company"],
        "properties",
        "@example.com",
        "o'brien",
        "(2)",
        "gutters llc",
        "zzz-nobody",
    )
    for query in queries:
        expected = world.ids("contacts", lambda row, q=query: holds(row, *q.split()))
        assert bool(expected) is (query != "zzz-nobody"), query
        await same(agent, expected, "search_contacts", query=query)


async def test_a_comma_or_quotes_around_a_word_do_not_hide_who_is_meant(world: Any, agent: Any) -> None:
    person = next(row for row in world.has("contacts") if row["first_name"] and not row["is_sub_contractor"])
    expected = world.ids("contacts", lambda row: holds(row, person["first_name"], person["last_name"]))

    for query in ("{last_name}, {first_name}", '"{first_name} {last_name}"', "{last_name}; {first_name}"):
        await same(agent, expected, "search_contacts", query=query.format(**person))

    job = next(row for row in world.has("jobs") if row["city"])
    told = await agent.ask("search_jobs", query=f"{job['address_line1']}, {job['city']}, {job['state_text']}")
    assert job["jnid"] in told.ids


@both_eras
async def test_a_phone_number_is_found_in_whatever_format_either_is_written(world: Any, agent: Any) -> None:
    styles = {"plain": r"\d{10}", "brackets": r"\(\d{3}\) \d{3}-\d{4}", "dashes": r"\d{3}-\d{3}-\d{4}",
              "country": r"\+1 \d{3} \d{3} \d{4}"}  # fmt: skip
    for style, pattern in styles.items():
        row = next(row for row in world.has("contacts") if re.fullmatch(pattern, row["mobile_phone"] or ""))
        digits = re.sub(r"\D", "", row["mobile_phone"])[-10:]
        area, office, line = digits[:3], digits[3:6], digits[6:]
        expected = world.ids("contacts", lambda row, d=digits: phone_has(row, d))
        assert row["jnid"] in expected
        for query in (
            row["mobile_phone"],
            digits,
            f"({area}) {office}-{line}",
            f"{area}.{office}.{line}",
            f"{area} {office} {line}",
            f"{area}-{office}-{line}",
            f"{area}\u2013{office}\u2013{line}",  # as word processors write it
            f"+1{digits}",
            f"1-{area}-{office}-{line}",
            f"+1 ({area}) {office}-{line}",
        ):
            told = await agent.ask("search_contacts", query=query, size=200)
            assert set(told.ids) == expected, (style, query)


async def test_a_part_of_a_phone_number_is_enough(world: Any, agent: Any) -> None:
    digits = "2035550142"  # somebody's, written (203) 555-0142
    for part in ("555-0142", "5550142", "0142", "203-555", "203555", "20355501", "203-555-0", "55501", "035550"):
        plain = part.replace("-", "")
        assert plain in digits
        expected = world.ids("contacts", lambda row, d=plain, t=part: phone_has(row, d) or holds(row, t))
        assert any(row["mobile_phone"] == "(203) 555-0142" for row in world.has("contacts") if row["jnid"] in expected)
        await same(agent, expected, "search_contacts", query=part)


async def test_a_number_nobody_has_and_a_home_or_work_phone(world: Any, agent: Any) -> None:
    await same(agent, set(), "search_contacts", query="999 111 2222")
    for field in ("home_phone", "work_phone"):
        row = next(row for row in world.has("contacts") if row[field])
        told = await agent.ask("search_contacts", query=row[field])
        assert row["jnid"] in told.ids


async def test_a_search_takes_the_filters_of_get_contacts(world: Any, agent: Any) -> None:
    every = world.ids("contacts", lambda row: holds(row, "an"))
    leads = world.ids("contacts", lambda row: holds(row, "an") and row["status"] == 1)
    assert leads
    assert leads < every

    await same(agent, leads, "search_contacts", query="an", status="lead")
    await same(agent, world.ids("contacts"), "search_contacts")
