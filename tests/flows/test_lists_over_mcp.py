"""Estimates, activities, the calendar, tasks, users and attachments, checked against the simulated account itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

Row = dict[str, Any]
DAY_S = 86_400
both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)
LISTS = [
    ("get_estimates", "estimates"),
    ("get_activities", "activities"),
    ("get_tasks", "tasks"),
    ("get_attachments", "files"),
]


def seconds(value: Any) -> int:
    """Epoch seconds of a stored date, 0 for none; integrations left some in milliseconds."""
    moment = int(value or 0)
    return moment // 1000 if moment > 10**11 else moment


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def linked(row: Row, *parents: str) -> bool:
    return {*parents} <= {link["id"] for link in row["related"]}


async def same(agent: Any, tool: str, expected: set[str], **arguments: Any) -> None:
    pages = await agent.pages(tool, size=200, verbosity="summary", **arguments)
    found = [jnid for page in pages for jnid in page.ids]
    assert len(found) == len(set(found)), arguments
    assert set(found) == expected, arguments
    assert {page.data["count"] for page in pages} == {len(expected)}, arguments


@both_eras
async def test_without_arguments_a_list_is_the_whole_account(world: Any, agent: Any) -> None:
    for tool, kind in LISTS:
        told = await agent.ask(tool)

        newest = sorted(world.has(kind), key=lambda row: (row["date_created"], row["recid"]), reverse=True)
        page = 100 if tool == "get_attachments" else 25
        assert told.data["count"] == len(newest)
        assert told.ids == [row["jnid"] for row in newest[: told.data["returned"]]]
        assert told.data["returned"] in (page, len(told.rows))
        assert told.data["next_cursor"] is not None
        await same(agent, tool, world.ids(kind))


@pytest.mark.parametrize(("tool", "kind"), LISTS)
async def test_a_list_is_limited_to_a_job_a_contact_or_both(world: Any, agent: Any, tool: str, kind: str) -> None:
    rows = world.has(kind)
    jobs = world.ids("jobs")
    job = next(link["id"] for row in rows for link in row["related"] if link["id"] in jobs)
    number = next(row["number"] for row in world.has("jobs") if row["jnid"] == job)
    contact = next(link["id"] for row in rows for link in row["related"] if link["id"] not in jobs)

    await same(agent, tool, world.ids(kind, lambda row: linked(row, job)), job_id=job)
    await same(agent, tool, world.ids(kind, lambda row: linked(row, job)), job_id=number)
    await same(agent, tool, world.ids(kind, lambda row: linked(row, contact)), contact_id=contact)
    await same(agent, tool, world.ids(kind, lambda r: linked(r, job, contact)), job_id=number, contact_id=contact)
    await same(agent, tool, set(), contact_id="nobody0000000000000000")
    assert "[not_found," in await agent.refused(tool, job_id="no such number")
    if tool != "get_estimates":
        await same(agent, tool, world.ids(kind, lambda row: linked(row, job)), related_to=job)


@pytest.mark.parametrize(("tool", "kind"), LISTS)
async def test_dates_of_creation_include_both_ends(world: Any, agent: Any, tool: str, kind: str) -> None:
    stamps = sorted(row["date_created"] for row in world.has(kind))
    start, end = stamps[len(stamps) // 3], stamps[len(stamps) // 2]

    expected = world.ids(kind, lambda row: start <= row["date_created"] <= end)
    await same(agent, tool, expected, date_from=stamp(start), date_to=stamp(end))
    midnight, last = start // DAY_S * DAY_S, end // DAY_S * DAY_S + DAY_S - 1
    expected = world.ids(kind, lambda row: midnight <= row["date_created"] <= last)
    await same(agent, tool, expected, date_from=day(start), date_to=day(end))
    await same(agent, tool, set(), date_from="2031-01-01")


async def test_dates_the_wrong_way_round_or_senseless_are_refused_by_name(world: Any, agent: Any) -> None:
    for tool in (*(tool for tool, _ in LISTS), "get_jobs", "get_contacts", "get_calendar_activities"):
        text = await agent.refused(tool, date_from="2026-02-02", date_to="2026-02-01")
        assert "date_to" in text, tool
        for wrong in ("yesterday", "2026-02-30", "02/02/2026 10:00", "1790000000"):
            text = await agent.refused(tool, date_from=wrong)
            assert "[invalid_argument," in text, tool
            assert "date_from" in text, tool
    assert world.sim.calls == 0


# -- estimates -------------------------------------------------------------------------------------


@both_eras
async def test_estimates_of_a_status_whatever_its_case(world: Any, agent: Any) -> None:
    for status in ("Draft", "sent", "VIEWED", "approved", "Invoiced", "declined", "Denied"):
        expected = world.ids("estimates", lambda row, name=status: row["status_name"].lower() == name.lower())
        assert expected or status == "Denied"
        await same(agent, "get_estimates", expected, status=status)


async def test_an_estimate_status_that_does_not_exist_is_answered_with_those_that_do(agent: Any) -> None:
    text = await agent.refused("get_estimates", status="Won")
    assert all(name in text for name in ("Draft", "Sent", "Viewed", "Approved", "Invoiced", "Declined"))


async def test_estimates_sent_or_approved_in_a_window(world: Any, agent: Any) -> None:
    for word, field in (("sent", "date_sign_requested"), ("approved", "date_signed")):
        stamps = sorted(row[field] for row in world.has("estimates") if row[field])
        start, end = stamps[20], stamps[-20]
        expected = world.ids("estimates", lambda row, f=field, a=start, b=end: a <= row[f] <= b)
        window = {f"{word}_from": stamp(start), f"{word}_to": stamp(end)}
        await same(agent, "get_estimates", expected, **window)
        midnight = start // DAY_S * DAY_S
        await same(
            agent,
            "get_estimates",
            world.ids("estimates", lambda row, f=field, a=midnight: row[f] >= a),
            **{f"{word}_from": day(start)},
        )
        last = end // DAY_S * DAY_S + DAY_S - 1
        expected = world.ids("estimates", lambda row, f=field, b=last: 0 < row[f] <= b)
        await same(agent, "get_estimates", expected, **{f"{word}_to": day(end)})
    approved = world.ids("estimates", lambda row: row["date_signed"] > 0 and row["status"] == 4)
    await same(agent, "get_estimates", approved, approved_from="2000-01-01", status="Approved")


async def test_an_approved_estimate_without_a_signature_counts_by_its_status_change(world: Any, agent: Any) -> None:
    made = await world.sim.create(
        "stamford", "estimates", {"status": 4, "date_signed": 0, "date_status_change": 1_600_000_000}
    )
    window = {"approved_from": "2020-09-13", "approved_to": "2020-09-13"}
    await same(agent, "get_estimates", {made["jnid"]}, **window)


# -- activities ------------------------------------------------------------------------------------


@both_eras
async def test_activities_of_a_type_whatever_its_case(world: Any, agent: Any) -> None:
    for name in ("Note", "phone call", "EMAIL", "Meeting", "status changed", "Job Created"):
        expected = world.ids("activities", lambda row, n=name: row["record_type_name"].lower() == n.lower())
        assert expected
        await same(agent, "get_activities", expected, activity_type=name)


async def test_activities_by_author(world: Any, agent: Any) -> None:
    author = world.users()[1]
    theirs = world.ids("activities", lambda row: row["created_by"] == author["id"])
    assert theirs
    for name in (f"{author['first_name']} {author['last_name']}".upper(), author["email"], author["id"]):
        await same(agent, "get_activities", theirs, created_by=name)
    machine = "system_automation_job"
    expected = world.ids("activities", lambda row: row["created_by"] == machine)
    assert expected
    await same(agent, "get_activities", expected, created_by=machine)


@pytest.mark.parametrize(
    ("tool", "argument", "known"),
    [
        ("get_activities", "activity_type", ("Note", "Status Changed", "Meeting")),
        ("get_activities", "created_by", ()),
        ("get_tasks", "record_type", ("Task", "Phone Call", "Appointment")),
    ],
)
async def test_a_name_nobody_has_is_answered_with_the_names_there_are(
    world: Any, agent: Any, tool: str, argument: str, known: tuple[str, ...]
) -> None:
    text = await agent.refused(tool, **{argument: "No Such Thing"})
    names = known or tuple(f"{user['first_name']} {user['last_name']}" for user in world.users())
    assert all(name in text for name in names)
    response = await world.post(tool, {argument: "No Such Thing"})
    assert (response.status_code, response.json()["field"]) == (400, argument)


# -- tasks -----------------------------------------------------------------------------------------


def overdue(row: Row, now: float) -> bool:
    due = seconds(row["date_end"]) or seconds(row["date_start"])
    return not row["is_completed"] and 0 < due < now


@both_eras
async def test_tasks_by_state_owner_type_and_priority(world: Any, agent: Any) -> None:
    owner = world.users()[2]["id"]
    tables: list[tuple[Row, Callable[[Row], bool]]] = [
        ({"is_completed": True}, lambda row: row["is_completed"]),
        ({"is_completed": False}, lambda row: not row["is_completed"]),
        ({"owner_id": owner}, lambda row: {"id": owner} in row["owners"]),
        ({"record_type": "APPOINTMENT"}, lambda row: row["record_type"] == 3),
        ({"priority": 0}, lambda row: row["priority"] == 0),
        ({"priority": 5}, lambda row: row["priority"] == 5),
        ({"priority": 4}, lambda row: row["priority"] == 4),
        ({"overdue": True}, lambda row: overdue(row, world.clock.now())),
        ({"overdue": False}, lambda row: not overdue(row, world.clock.now())),
        (
            {"overdue": True, "owner_id": owner},
            lambda r: overdue(r, world.clock.now()) and {"id": owner} in r["owners"],
        ),
    ]
    for arguments, keep in tables:
        expected = world.ids("tasks", keep)
        assert bool(expected) is (arguments != {"priority": 4}), arguments
        await same(agent, "get_tasks", expected, **arguments)


async def test_a_task_becomes_overdue_the_second_after_it_was_due_without_being_read_anew(
    world: Any, agent: Any
) -> None:
    due = int(world.clock.now()) + 60
    made = await world.sim.create("stamford", "tasks", {"title": "Call", "date_start": due - 600, "date_end": due})
    late = {"overdue": True, "size": 200, "verbosity": "summary"}
    world.clock.advance(10)  # JobNimbus's index has caught up with the new task by then, so its list is kept
    await world.settled()

    assert made["jnid"] not in {jnid for page in await agent.pages("get_tasks", **late) for jnid in page.ids}
    world.clock.advance(51)
    pages = await agent.pages("get_tasks", **late)

    assert made["jnid"] in {jnid for page in pages for jnid in page.ids}
    assert pages[0].status == "hit"


# -- the calendar ----------------------------------------------------------------------------------


def scheduled(world: Any, start: float, end: float) -> dict[str, int]:
    """jnid -> start, of what is on the calendar from `start` to `end`."""
    rows = world.has("jobs") + world.has("workorders")
    rows += world.has("tasks", lambda row: not row["hide_from_calendarview"])
    return {row["jnid"]: at for row in rows if start <= (at := seconds(row["date_start"])) <= end}


@both_eras
async def test_the_calendar_is_today_and_the_next_thirty_days_in_time_order(world: Any, agent: Any) -> None:
    midnight = int(world.clock.now()) // DAY_S * DAY_S
    expected = scheduled(world, midnight, midnight + 31 * DAY_S - 1)
    kinds = {row["type"] for kind in ("jobs", "workorders", "tasks") for row in world.has(kind)
             if row["jnid"] in expected}  # fmt: skip
    assert kinds == {"job", "workorder", "task"}

    pages = await agent.pages("get_calendar_activities", size=40)

    found = [jnid for page in pages for jnid in page.ids]
    assert len(found) == len(expected) == pages[0].data["count"]
    assert set(found) == set(expected)
    starts = [expected[jnid] for jnid in found]
    assert starts == sorted(starts)


async def test_the_calendar_of_chosen_days_and_of_one_person(world: Any, agent: Any) -> None:
    midnight = int(world.clock.now()) // DAY_S * DAY_S
    start, end = midnight - 20 * DAY_S, midnight - 5 * DAY_S
    expected = scheduled(world, start, end + DAY_S - 1)
    assert expected
    days = {"date_from": day(start), "date_to": day(end)}

    await same(agent, "get_calendar_activities", set(expected), **days)

    owner = next(row["owners"][0]["id"] for row in world.has("tasks") if row["jnid"] in expected)
    owned = {
        row["jnid"]
        for kind in ("jobs", "workorders", "tasks")
        for row in world.has(kind)
        if row["jnid"] in expected and {"id": owner} in row["owners"]
    }
    assert owned < set(expected)
    await same(agent, "get_calendar_activities", owned, owner_id=owner, **days)
    await same(agent, "get_calendar_activities", set(), date_from="2031-01-01", date_to="2031-01-31")


async def test_the_calendar_has_one_order_only(agent: Any) -> None:
    for argument, value in (("sort_by", "date_created"), ("order", "desc")):
        text = await agent.refused("get_calendar_activities", **{argument: value})
        assert argument in text
        assert "date_from" in text


# -- users -----------------------------------------------------------------------------------------


@both_eras
async def test_users_are_the_active_ones_unless_all_are_asked_for(world: Any, agent: Any) -> None:
    everybody = {user["id"]: user for user in world.users()}
    active = {jnid for jnid, user in everybody.items() if user["is_active"]}
    assert active < set(everybody)

    told = await agent.ask("get_users")
    assert {row["id"] for row in told.rows} == active
    assert told.data["count"] == len(active)
    for row in told.rows:
        stored = everybody[row["id"]]
        assert {name: row[name] for name in ("first_name", "last_name", "email")}.items() <= stored.items()
    told = await agent.ask("get_users", active_only=False)
    assert {row["id"] for row in told.rows} == set(everybody)


# -- attachments -----------------------------------------------------------------------------------


FILE_TYPES = {
    "pdf": ".pdf",
    ".PDF": ".pdf",
    "jpg": ".jpg",
    "jpeg": ".jpg",
    "image/jpeg": ".jpg",
    "IMAGE/*": ".jpg",
    "application/pdf": ".pdf",
    "mp4": ".mp4",
    "video/*": ".mp4",
    "docx": ".docx",
}


@both_eras
async def test_attachments_of_a_type(world: Any, agent: Any) -> None:
    for file_type, ending in FILE_TYPES.items():
        expected = world.ids("files", lambda row, end=ending: row["filename"].endswith(end))
        assert bool(expected) is (ending != ".docx")
        await same(agent, "get_attachments", expected, file_type=file_type)


async def test_a_type_within_a_job(world: Any, agent: Any) -> None:
    job = next(row["related"][0]["id"] for row in world.has("files") if row["filename"].endswith(".pdf")
               and row["related"] and row["related"][0]["type"] == "job")  # fmt: skip
    expected = world.ids("files", lambda row: linked(row, job) and row["filename"].endswith(".pdf"))
    assert expected
    await same(agent, "get_attachments", expected, job_id=job, file_type="pdf")
