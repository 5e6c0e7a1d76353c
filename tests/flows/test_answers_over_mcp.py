"""Answers made for a context window: names beside ids, tables, and versions that spare what the caller has already."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

Row = dict[str, Any]
USERS = "/account/users"


def names_of(world: Any) -> dict[str, str]:
    return {user["id"]: f"{user['first_name']} {user['last_name']}" for user in world.users()}


# -- names -----------------------------------------------------------------------------------------------------------


async def test_owners_are_named_by_one_reading_of_the_users(world: Any, agent: Any) -> None:
    names = names_of(world)
    stored = {row["jnid"]: row for row in world.has("jobs")}

    listed = await agent.ask("get_jobs")
    record = await agent.ask("get_job", job_id=listed.ids[0])
    asked_for = await agent.ask("get_jobs", fields=["owners"], size=3)

    for row in [*listed.rows, record.data["record"]]:
        owners = [{"id": one["id"], "name": names[one["id"]]} for one in stored[row["jnid"]]["owners"]]
        assert row.get("owners", []) == owners
    assert [row["owners"][0]["name"] for row in asked_for.rows] == [row["owners"][0]["name"] for row in listed.rows[:3]]
    assert world.sim.calls_by_path()[USERS] == 1


async def test_nobody_is_asked_for_names_that_are_not_shown(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    await agent.ask("get_jobs", verbosity="raw")
    await agent.ask("get_job", job_id=job, verbosity="raw")
    await agent.ask("get_jobs", verbosity="summary")
    await agent.ask("get_jobs", fields=["name", "owners.id"])
    await agent.ask("get_activities")

    assert USERS not in world.sim.calls_by_path()


async def test_a_new_name_is_told_once_jobnimbus_is_asked_for_its_users_again(world: Any, agent: Any) -> None:
    first = (await agent.ask("get_jobs", size=1)).rows[0]["owners"][0]
    world.sim.account("stamford").change_user(first["id"], last_name="Newname")
    await agent.ask("get_users", max_age_s=0)

    again = (await agent.ask("get_jobs", size=1)).rows[0]["owners"][0]

    assert again["id"] == first["id"]
    assert again["name"] == first["name"].split()[0] + " Newname"


@pytest.mark.parametrize(("status", "asked_again_after_s"), [(403, 301), (500, 31)])
async def test_without_the_users_an_answer_has_ids_alone_and_they_are_asked_for_again_later(
    world: Any, agent: Any, status: int, asked_again_after_s: int
) -> None:
    await world.fault(path=USERS, status=status)
    stored = {row["jnid"]: row for row in world.has("jobs")}

    for _ in range(3):
        told = await world.within(agent.ask("get_jobs"))
        assert [row.get("owners", []) for row in told.rows] == [stored[jnid]["owners"] for jnid in told.ids]
    asked = world.sim.calls_by_path()[USERS]
    await world.within(agent.ask("get_jobs", max_age_s=0))
    assert world.sim.calls_by_path()[USERS] == asked, "asked once, however many answers want names"

    world.clock.advance(asked_again_after_s)
    await world.within(agent.ask("get_jobs", max_age_s=0))
    assert world.sim.calls_by_path()[USERS] > asked


# -- tables ----------------------------------------------------------------------------------------------------------


async def test_a_table_says_what_the_records_say_in_half_the_bytes(world: Any, agent: Any) -> None:
    fields = ["jnid", "number", "name", "owners", "approved_estimate_total"]
    plain = await agent.ask("get_jobs", fields=fields)
    table = await agent.ask("get_jobs", fields=fields, format="table")

    header, *lines = table.data["table"].split("\n")
    assert header.split(" | ") == table.data["columns"] == fields
    expected = [
        [row["jnid"], row["number"], row["name"].replace("|", "\\|"), ", ".join(one["name"] for one in row["owners"])]
        for row in plain.rows
    ]
    cells = [line.split(" | ") for line in lines]
    assert [line[:4] for line in cells] == expected
    for line, row in zip(cells, plain.rows, strict=True):
        assert float(line[4].replace(",", "")) == row["approved_estimate_total"]
    shared = {"count", "returned", "as_of"}
    assert {name: table.data[name] for name in shared} == {name: plain.data[name] for name in shared}
    assert "results" not in table.data
    assert len(orjson.dumps(table.data)) < len(orjson.dumps(plain.data)) * 0.6


async def test_the_pages_of_a_table_follow_one_another_within_the_budget(open_world: Any) -> None:
    async with open_world({"ANSWER_MAX_BYTES": "6000"}) as world, world.agent() as agent:
        seen: list[str] = []
        cursor: dict[str, Any] = {"format": "table", "size": 60}
        pages = 0
        while cursor:
            told = (await agent.ask("get_jobs", **cursor)).data
            assert len(orjson.dumps(told)) <= 6_000
            lines = told["table"].split("\n")[1:]
            assert len(lines) == told["returned"]
            seen += [line.split(" | ")[0] for line in lines]
            cursor = {"cursor": told["next_cursor"]} if told["next_cursor"] else {}
            pages += 1

        newest = sorted(world.has("jobs"), key=lambda row: (row["date_created"], row["recid"]), reverse=True)
        assert seen == [row["jnid"] for row in newest]
        assert pages > len(newest) // 60


# -- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["json", "table"])
async def test_whoever_has_the_present_version_is_told_that_and_no_more(world: Any, agent: Any, format_: str) -> None:
    first = await agent.ask("get_jobs", format=format_)
    version = first.data["version"]

    for arguments in ({}, {}, {"max_age_s": 0}):
        again = await agent.ask("get_jobs", format=format_, known_version=version, **arguments)
        assert again.data == {
            "unchanged": True,
            "version": version,
            "count": first.data["count"],
            "next_cursor": first.data["next_cursor"],
            "as_of": again.cache["asOf"],
        }


async def test_after_a_change_only_what_changed_is_told(world: Any, agent: Any) -> None:
    first = await agent.ask("get_jobs")
    changed, deleted = first.ids[3], first.ids[7]
    await world.sim.change("stamford", "jobs", changed, {"description": "seen again"})
    await world.sim.delete("stamford", "jobs", deleted)

    told = await agent.ask("get_jobs", known_version=first.data["version"])
    whole = await agent.ask("get_jobs")

    newcomer = whole.ids[-1]
    assert told.ids == [changed, newcomer]
    assert told.rows[0]["description"] == "seen again"
    assert told.data["removed"] == [deleted]
    assert told.data["unchanged_count"] == 23
    assert told.data["returned"] == 2
    assert told.data["changes_since"] == first.data["version"]
    assert told.data["version"] == whole.data["version"] != first.data["version"]
    assert told.data["next_cursor"] == whole.data["next_cursor"]
    assert (await agent.ask("get_jobs", known_version=first.data["version"])).data == told.data
    table = await agent.ask("get_jobs", format="table", known_version=first.data["version"])
    assert table.data["known_version_unknown"] is True  # it was a version of another question


async def test_a_table_tells_its_changes_as_a_table(world: Any, agent: Any) -> None:
    first = await agent.ask("get_jobs", format="table", fields=["jnid", "description"])
    changed = first.data["table"].split("\n")[5].split(" | ")[0]
    await world.sim.change("stamford", "jobs", changed, {"description": "seen again"})

    told = await agent.ask(
        "get_jobs", format="table", fields=["jnid", "description"], known_version=first.data["version"]
    )

    assert told.data["table"] == f"jnid | description\n{changed} | seen again"
    assert (told.data["unchanged_count"], told.data["removed"], told.data["returned"]) == (24, [], 1)


async def test_an_unknown_version_is_answered_in_full_and_so_is_another_callers(world: Any, agent: Any) -> None:
    whole = (await agent.ask("get_jobs")).data
    for arguments in ({"known_version": "never-given"}, {"known_version": whole["version"], "size": 24}):
        told = (await agent.ask("get_jobs", **arguments)).data
        assert told["known_version_unknown"] is True
        assert len(told["results"]) == arguments.get("size", 25)
    await world.sim.change("stamford", "jobs", whole["results"][0]["jnid"], {"description": "seen again"})
    restricted = world.sim.keys["stamford"][1]
    other = await world.call("get_jobs", key=restricted, known_version=whole["version"])
    assert other.data["known_version_unknown"] is True
    assert "changes_since" not in other.data


async def test_the_next_page_has_a_version_of_its_own(world: Any, agent: Any) -> None:
    first = (await agent.ask("get_jobs", known_version="never-given")).data
    second = (await agent.ask("get_jobs", cursor=first["next_cursor"])).data

    assert "known_version_unknown" not in second
    assert second["version"] != first["version"]
    again = (await agent.ask("get_jobs", cursor=first["next_cursor"], known_version=second["version"])).data
    assert again["unchanged"] is True
    assert again["next_cursor"] == second["next_cursor"]


async def test_a_single_record_has_a_version_too(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    first = (await agent.ask("get_job", job_id=job)).data
    again = await agent.ask("get_job", job_id=job, known_version=first["version"])
    assert again.data == {"unchanged": True, "version": first["version"], "as_of": again.cache["asOf"]}

    await world.sim.change("stamford", "jobs", job, {"description": "seen again"})
    changed = (await agent.ask("get_job", job_id=job, known_version=first["version"])).data
    assert changed["record"]["description"] == "seen again"
    assert changed["version"] != first["version"]


async def test_where_everything_changed_the_whole_is_told(world: Any, agent: Any) -> None:
    first = await agent.ask("get_jobs", size=3)
    for jnid in first.ids:
        await world.sim.change("stamford", "jobs", jnid, {"description": "seen again"})

    told = (await agent.ask("get_jobs", size=3, known_version=first.data["version"])).data

    assert [row["description"] for row in told["results"]] == ["seen again"] * 3
    assert not {"changes_since", "removed", "known_version_unknown"} & set(told)
