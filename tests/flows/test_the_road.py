"""The road of a read and the road of a change, where they meet: kept until changed, and never a moment longer."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from jobnimbus_mcp.clock import SystemClock

Row = dict[str, Any]
both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)


@both_eras
async def test_a_job_is_fetched_once_served_from_memory_and_fetched_anew_after_its_webhook(
    world: Any, agent: Any
) -> None:
    job = world.has("jobs")[0]
    first = await agent.ask("get_job", job_id=job["jnid"])
    assert (first.status, first.cache["tier"]) == ("miss", "upstream")
    asked = world.sim.calls
    world.clock.advance(60)
    second = await agent.ask("get_job", job_id=job["jnid"])
    assert (second.status, second.cache["tier"], second.cache["ageSeconds"]) == ("hit", "l1", 60)
    assert second.data["record"] == first.data["record"]
    assert second.data["as_of"] == first.data["as_of"]
    assert world.sim.calls == asked

    await world.sim.change("stamford", "jobs", job["jnid"], {"description": "changed meanwhile"})
    third = await agent.ask("get_job", job_id=job["jnid"])

    assert (third.status, third.cache["tier"]) == ("miss", "upstream")
    assert third.data["record"]["description"] == "changed meanwhile"
    assert (await agent.ask("get_job", job_id=job["jnid"])).status == "hit"


CHANGES: list[tuple[str, Row, str, Row]] = [
    ("get_jobs", {}, "jobs", {"name": "New name"}),
    ("search_jobs", {"query": "leak"}, "jobs", {"description": "leak leak"}),
    ("get_contacts", {}, "contacts", {"company": "New company"}),
    ("search_contacts", {"query": "an"}, "contacts", {"company": "An Other"}),
    ("get_estimates", {}, "estimates", {"internal_note": "new note"}),
    ("get_activities", {}, "activities", {"note": "new note"}),
    ("get_calendar_activities", {}, "tasks", {"title": "New title"}),
    ("get_calendar_activities", {}, "jobs", {"name": "New name"}),
    ("get_calendar_activities", {}, "workorders", {"name": "New crew"}),
    ("get_tasks", {}, "tasks", {"title": "New title"}),
    ("get_attachments", {}, "files", {"description": "new text"}),
]


@pytest.mark.parametrize(("tool", "question", "kind", "change"), CHANGES, ids=[f"{c[0]}-{c[2]}" for c in CHANGES])
async def test_a_list_is_kept_until_a_record_of_it_changes_appears_or_goes(
    world: Any, agent: Any, tool: str, question: Row, kind: str, change: Row
) -> None:
    question = {"size": 200, "verbosity": "raw", "fields": ["jnid", *change], **question}

    async def told() -> tuple[str, dict[str, Row]]:
        pages = await agent.pages(tool, **question)
        return pages[0].status, {row["jnid"]: row for page in pages for row in page.rows}

    _, before = await told()
    assert (await told())[0] == "hit"
    jnid = next(jnid for jnid in before if jnid in world.ids(kind))

    changed = await world.sim.change("stamford", kind, jnid, change)
    status, after = await told()
    assert status == "miss"
    assert after[jnid] == {"jnid": jnid, **{name: changed[name] for name in change}}
    assert (await told())[0] == "hit"

    stored = next(row for row in world.has(kind) if row["jnid"] == jnid)
    copied = {key: value for key, value in stored.items() if key not in ("number", "date_created")}
    made = await world.sim.create("stamford", kind, {**copied, **change})
    status, after = await told()
    assert status == "miss"
    assert made["jnid"] in after

    await world.sim.delete("stamford", kind, made["jnid"])
    status, after = await told()
    assert status == "miss"
    assert made["jnid"] not in after
    assert jnid in after


async def test_users_and_the_names_they_are_known_by_follow_a_webhook(world: Any, agent: Any) -> None:
    user = world.users()[1]
    full = f"{user['first_name']} {user['last_name']}"
    assert (await agent.ask("get_jobs", sales_rep=full)).data["count"] > 0
    await agent.ask("get_users")

    world.sim.account("stamford").change_user(user["id"], last_name="Newname")
    response = await world.webhook({"event": "user.updated", "resource_type": "user", "resource_id": user["id"]})
    assert response.status_code == 200

    told = await agent.ask("get_users")
    assert told.status == "miss"
    assert "Newname" in {row["last_name"] for row in told.rows}
    assert (await agent.ask("get_jobs", sales_rep=f"{user['first_name']} newname")).data["count"] > 0
    assert "Newname" in await agent.refused("get_jobs", sales_rep=full)


async def test_the_names_in_the_settings_follow_a_webhook(world: Any, agent: Any) -> None:
    assert "sales_rep" in await agent.refused("get_jobs", sales_rep="no such person")
    assert "status" in await agent.refused("get_jobs", status="Waiting for Permit")
    flows = [dict(flow) for flow in world.sim.account("stamford").settings["workflows"]]
    repair = next(flow for flow in flows if flow["name"] == "Repair")
    repair["status"] = [*repair["status"], {**repair["status"][0], "id": 399, "name": "Waiting for Permit"}]
    world.sim.account("stamford").change_settings("workflows", flows)

    body = {"event": "updated", "resource_type": "settings", "resource_id": "settings"}
    assert (await world.webhook(body)).status_code == 200

    assert (await agent.ask("get_jobs", status="waiting for permit")).data["count"] == 0


async def test_one_entry_serves_every_way_of_showing_it(world: Any, agent: Any) -> None:
    await agent.ask("get_jobs")
    job = world.has("jobs")[0]["jnid"]
    await agent.ask("get_job", job_id=job)
    asked = world.sim.calls

    for verbosity, fields, size in itertools.product(
        ("summary", "compact", "detailed", "raw"), (None, "number", "primary.name,jnid"), (1, 7, 25, 100)
    ):
        told = await agent.ask("get_jobs", verbosity=verbosity, size=size, **({"fields": fields} if fields else {}))
        assert told.status == "hit", (verbosity, fields, size)
    for offset in (0, 3, 25, 90):
        assert (await agent.ask("get_jobs", from_=offset, size=10)).status == "hit"
    for verbosity in ("summary", "raw"):
        assert (await agent.ask("get_job", job_id=job, verbosity=verbosity)).status == "hit"
    assert (await agent.ask("get_jobs", order="desc", sort_by="date_created")).status == "hit"
    assert world.sim.calls == asked
    assert (await agent.ask("get_jobs", order="asc")).status == "miss"


async def test_equal_questions_are_one_entry_however_they_are_worded(world: Any, agent: Any) -> None:
    rep = world.users()[1]
    await agent.ask("get_jobs", status="In Production", sales_rep=rep["email"])
    assert (await agent.ask("get_jobs", sales_rep=rep["id"], status="in PRODUCTION")).status == "hit"
    await agent.ask("search_jobs", query="Leak Stamford")
    assert (await agent.ask("search_jobs", query="stamford  LEAK")).status == "hit"
    await agent.ask("get_calendar_activities")
    assert (await agent.ask("get_calendar_activities", owner_id=rep["id"])).status == "hit"


async def test_a_job_that_is_not_there_is_asked_for_once_and_found_when_it_is_made(world: Any, agent: Any) -> None:
    for job_id in ("77-1234", "nosuchjob00000000000000"):
        assert "[not_found," in await agent.refused("get_job", job_id=job_id)
    asked = world.sim.calls
    for job_id in ("77-1234", "nosuchjob00000000000000"):
        assert "[not_found," in await agent.refused("get_job", job_id=job_id)
    assert world.sim.calls == asked

    made = await world.sim.create("stamford", "jobs", {"name": "New", "number": "77-1234"})

    assert (await agent.ask("get_job", job_id="77-1234", fields="jnid")).data["record"] == {"jnid": made["jnid"]}


async def test_a_job_made_without_a_webhook_is_found_within_half_a_minute(world: Any, agent: Any) -> None:
    assert "[not_found," in await agent.refused("get_job", job_id="77-1234")
    await world.sim.create("stamford", "jobs", {"number": "77-1234"}, webhook=False)
    assert "[not_found," in await agent.refused("get_job", job_id="77-1234")
    world.clock.advance(34)
    assert (await agent.ask("get_job", job_id="77-1234")).data["record"]["number"] == "77-1234"


async def test_every_body_a_webhook_may_have_ends_the_life_of_what_it_names(world: Any, agent: Any) -> None:
    job = world.has("jobs")[3]
    bare = {"jnid": job["jnid"], "type": "job", "date_updated": job["date_updated"], "status_name": "Lead"}
    seed = {"event": "job.updated", "resource_type": "job", "resource_id": job["jnid"]}
    bodies: list[Any] = [
        seed,
        {**seed, "event": "updated"},
        {**seed, "event": "job.deleted"},
        {**seed, "event": "modified", "resource_type": "jobs"},
        bare,
        {"jnid": job["jnid"], "type": "job"},
        {"jnid": job["jnid"], "resource_type": "Job", "note": "a template of one's own"},
        {"data": bare},
        {"job": bare},
        [bare],
        {"event": "job.updated", "data": bare},
        {"event": "updated", "job": {"jnid": job["jnid"]}},
        [{"data": seed}],
    ]
    for body in bodies:
        await agent.ask("get_job", job_id=job["jnid"])
        await agent.ask("get_jobs")
        assert (await agent.ask("get_job", job_id=job["jnid"])).status == "hit"
        for _ in range(2):  # the second is a duplicate where the body tells; it invalidates all the same
            response = await world.webhook(body)
            assert (response.status_code, response.json()["received"]) == (200, True), body
            assert (await agent.ask("get_job", job_id=job["jnid"])).status == "miss", body
            assert (await agent.ask("get_jobs")).status == "miss", body
    for kind in ("contact", "estimate", "activity", "note", "task", "attachment", "file", "user", "work order",
                 "Material Order", "invoices", "payment", "product", "budget"):  # fmt: skip
        response = await world.webhook({"event": "updated", "resource_type": kind, "resource_id": "abc123"})
        assert response.status_code == 200, kind
    wagon = {"event": "updated", "resource_type": "wagon", "resource_id": "1"}
    slash = {"jnid": "a/b", "type": "job"}
    for nonsense in ({}, [], "x", {"event": "job.updated"}, slash, {"type": "job"}, [bare, bare], wagon):
        response = await world.webhook(nonsense)
        assert (response.status_code, response.json()["code"]) == (400, "unknown_payload"), nonsense


async def test_a_change_to_one_contacts_files_leaves_anothers_in_place(world: Any, agent: Any) -> None:
    links = [row for row in world.has("files") if len(row["related"]) == 2]
    one, other = links[0], next(row for row in links if row["related"][1]["id"] != links[0]["related"][1]["id"])
    jobs = [one["related"][0]["id"], other["related"][0]["id"]]
    for job in jobs:
        await agent.ask("get_attachments", job_id=job)

    made = await world.sim.create("stamford", "files", {"filename": "a.pdf", "related": [jobs[0]]}, webhook=False)
    body = {"event": "attachment.created", "data": {"jnid": made["jnid"], "type": "attachment",
            "related": made["related"], "primary": None}}  # fmt: skip
    assert (await world.webhook(body)).status_code == 200

    renewed = await agent.ask("get_attachments", job_id=jobs[0])
    assert renewed.status == "miss"
    assert made["jnid"] in renewed.ids
    assert (await agent.ask("get_attachments", job_id=jobs[1])).status == "hit"


async def test_a_read_that_starts_after_a_webhook_is_not_handed_an_answer_asked_for_before(world: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    question = {"job_id": job, "fields": "description"}
    await world.fault(path=f"/jobs/{job}", latencyMs=5_000, times=1)
    early = asyncio.ensure_future(world.call("get_job", **question))
    for _ in range(1_000):
        if world.sim.calls:
            break
        await asyncio.sleep(0)

    await world.sim.change("stamford", "jobs", job, {"description": "after"})
    late = await world.within(world.call("get_job", **question), 2.0)
    assert late.data["record"] == {"description": "after"}

    old = await world.within(early)
    assert old.data["record"] != late.data["record"]
    kept = await world.call("get_job", **question)
    assert (kept.status, kept.data["record"]) == ("hit", {"description": "after"}), "an old answer was kept"


async def test_a_thousand_equal_calls_on_a_cold_key_ask_jobnimbus_once(open_world: Any) -> None:
    limits = {"JOBNIMBUS_MAX_REQUESTS_PER_S": "10", "JOBNIMBUS_MAX_CONCURRENT": "8"}
    async with open_world(limits, clock=SystemClock()) as world:
        job = world.has("jobs")[0]["jnid"]
        await world.fault(latencyMs=300)
        for callers, tool, arguments, path in (
            (1_000, "get_jobs", {"size": 2, "verbosity": "summary"}, "/jobs"),
            (100, "get_job", {"job_id": job, "verbosity": "summary"}, f"/jobs/{job}"),
        ):
            before = world.sim.calls
            told = await asyncio.gather(*(world.call(tool, **arguments) for _ in range(callers)))
            assert world.sim.calls_by_path()[path] == 1
            assert world.sim.calls == before + 1
            assert all(answer.data == told[0].data for answer in told)
            assert Counter(answer.status for answer in told)["miss"] > callers // 10, "they did not come together"
