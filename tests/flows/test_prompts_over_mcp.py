"""Prompts with their data, and completions of what is typed into them and into resource templates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, PromptReference, ResourceTemplateReference

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.tools.completions import VALUES_MOST, Completions
from jobnimbus_mcp.tools.prompt_table import PROMPTS
from jobnimbus_mcp.tools.prompts import Prompts

both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)
BOUND_S = 10.0
DAY_S = 86_400


async def prompt(agent: Any, name: str, **arguments: str) -> list[str]:
    """The texts of its messages: what to do, then the data."""
    async with asyncio.timeout(BOUND_S):
        result = await agent.client.get_prompt(name, arguments)
    assert result.description
    assert {message.role for message in result.messages} == {"user"}
    return [message.content.text for message in result.messages]


def data(text: str) -> Any:
    return json.loads(text.partition("\n")[2])


async def refused(work: Any) -> Any:
    with pytest.raises(MCPError) as caught:
        async with asyncio.timeout(BOUND_S):
            await work
    return caught.value.error


async def complete(agent: Any, ref: Any, name: str, value: str, **known: str) -> Any:
    async with asyncio.timeout(BOUND_S):
        result = await agent.client.complete(ref, {"name": name, "value": value}, context_arguments=known or None)
    return result.completion


def of_prompt(name: str) -> PromptReference:
    return PromptReference(type="ref/prompt", name=name)


def of_template(form: str) -> ResourceTemplateReference:
    return ResourceTemplateReference(type="ref/resource", uri=f"jobnimbus://{{instance}}/{form}")


@both_eras
async def test_prompts_are_listed_with_what_they_take(agent: Any) -> None:
    listed = (await agent.client.list_prompts()).prompts
    assert {one.name: [argument.name for argument in one.arguments] for one in listed} == {
        "daily_pipeline_review": ["sales_rep", "record_type"],
        "job_briefing": ["job"],
        "overdue_followups": ["owner"],
        "receivables_review": ["min_days_overdue", "sales_rep"],
    }
    for one in listed:
        assert one.title
        assert one.description
        for argument in one.arguments:
            assert argument.title
            assert argument.description
    required = [(one.name, argument.name) for one in listed for argument in one.arguments if argument.required]
    assert required == [("job_briefing", "job")]


@both_eras
async def test_a_briefing_brings_the_job_and_what_hangs_on_it(world: Any, agent: Any) -> None:
    job = next(row for row in world.has("jobs") if row["number"])
    for spelled in (job["number"], job["jnid"]):
        todo, *parts = await prompt(agent, "job_briefing", job=spelled)
        assert f"job {spelled}" in todo
        assert data(parts[0])["record"]["jnid"] == job["jnid"]
        under = [data(part)["results"] for part in parts[1:]]
        for kind, rows in zip(("activities", "tasks", "estimates", "invoices", "files"), under, strict=True):
            linked = world.ids(kind, lambda row: any(link["id"] == job["jnid"] for link in row["related"]))
            assert {row["jnid"] for row in rows} <= linked, kind
        assert all("(as of " in part for part in parts)
        assert sum(map(len, parts)) < world.app.toolbox.answer_max_bytes + 2_000


async def test_every_tool_that_a_prompt_names_is_there(world: Any, agent: Any) -> None:
    names = {spec.name for spec in world.app.toolbox.specs}
    asked = {"job_briefing": {"job": world.has("jobs")[0]["jnid"]}}
    for one in PROMPTS:
        todo, *parts = await prompt(agent, one.name, **asked.get(one.name, {}))
        words = {word.strip(".,:()") for word in todo.split()}
        tools = {word for word in words if word.startswith(("get_", "search_"))}
        assert tools
        assert tools <= names
        assert set(one.needs) <= names
        assert parts
        assert "Answer " in todo
        assert sum(len(part.encode()) for part in parts) < world.app.toolbox.answer_max_bytes + 2_000, one.name


async def test_a_review_of_the_pipeline_is_of_one_rep_and_workflow_where_they_are_named(world: Any, agent: Any) -> None:
    user = world.users()[1]
    name = f"{user['first_name']} {user['last_name']}"
    kind = world.has("jobs")[0]["record_type_name"]
    todo, jobs, flows, tasks, calendar = await prompt(
        agent, "daily_pipeline_review", sales_rep=name.upper(), record_type=kind
    )
    assert name.upper() in todo
    since = world.clock.now() // DAY_S * DAY_S - DAY_S
    expected = world.ids(
        "jobs",
        lambda row: row["sales_rep"] == user["id"] and row["record_type_name"] == kind and row["date_updated"] >= since,
    )
    assert data(jobs)["count"] == len(expected)
    assert set(data(flows)["workflows"]) == {"job", "contact", "workorder"}
    for part in (tasks, calendar):
        assert f'"owner_id":"{user["id"]}"' in part


async def test_follow_ups_are_the_overdue_tasks_the_longest_first(world: Any, agent: Any) -> None:
    todo, tasks, estimates = await prompt(agent, "overdue_followups")
    assert todo
    now = world.clock.now()
    overdue = world.ids(
        "tasks",
        lambda row: not row["is_completed"] and 0 < (row["date_end"] or row["date_start"]) < now,
    )
    assert data(tasks)["count"] == len(overdue) > 0
    assert {row["status_name"] for row in data(estimates)["results"]} <= {"Sent"}
    user = next(row for row in world.users() if any({"id": row["id"]} in one["owners"] for one in world.has("tasks")))
    _, of_one, _ = await prompt(agent, "overdue_followups", owner=user["email"])
    assert data(of_one)["count"] <= len(overdue)
    assert f'"owner_id":"{user["id"]}"' in of_one


async def test_receivables_are_those_of_one_rep_and_of_so_many_days(world: Any, agent: Any) -> None:
    def owing(days: int, rep: str | None = None) -> set[str]:
        latest = (world.clock.now() // DAY_S - days + 1) * DAY_S
        return world.ids(  # type: ignore[no-any-return]  # the world is untyped
            "invoices",
            lambda row: (
                float(row["due"] or 0) > 0 and 0 < row["date_due"] < latest and (rep is None or row["sales_rep"] == rep)
            ),
        )

    _, told = await prompt(agent, "receivables_review")
    assert data(told)["count"] == len(owing(1)) > 0
    dues = [row["date_due"] for row in data(told)["results"]]
    assert dues == sorted(dues)
    _, told = await prompt(agent, "receivables_review", min_days_overdue="60")
    assert data(told)["count"] == len(owing(60)) < len(owing(1))
    rep = next(row for row in world.users() if owing(1, row["id"]))
    _, told = await prompt(agent, "receivables_review", sales_rep=rep["email"])
    shown = data(told)
    assert {row["jnid"] for row in shown["results"]} <= owing(1, rep["id"])
    assert shown["matching"] == len(owing(1, rep["id"]) & {row["jnid"] for row in shown["results"]})
    assert shown["looked_at"] <= len(owing(1))


@both_eras
async def test_what_a_prompt_cannot_be_made_of_is_a_protocol_error(world: Any, agent: Any) -> None:
    wrong: list[tuple[str, Mapping[str, str], str]] = [
        ("no_such_prompt", {}, "invalid_argument"),
        ("job_briefing", {}, "invalid_argument"),
        ("job_briefing", {"job": "   "}, "invalid_argument"),
        ("job_briefing", {"job": "nosuchrecord000000"}, "not_found"),
        ("job_briefing", {"job": "x" * 121}, "invalid_argument"),
        ("job_briefing", {"job": "1", "colour": "red"}, "invalid_argument"),
        ("overdue_followups", {"owner": "Nobody At All"}, "invalid_argument"),
        ("receivables_review", {"min_days_overdue": "many"}, "invalid_argument"),
        ("receivables_review", {"min_days_overdue": "-1"}, "invalid_argument"),
        ("daily_pipeline_review", {"record_type": "No Such Workflow"}, "invalid_argument"),
    ]
    for name, arguments, code in wrong:
        error = await refused(agent.client.get_prompt(name, dict(arguments)))
        assert (error.code, error.data["code"]) == (INVALID_PARAMS, code), (name, arguments)
        assert error.message
    async with world.agent(key="invented-key-0123456789") as stranger:
        error = await world.within(refused(stranger.client.get_prompt("overdue_followups", {})))
        assert (error.code, error.data["code"]) == (INVALID_REQUEST, "upstream_unauthorized")


async def test_a_part_that_the_key_may_not_see_does_not_keep_the_rest(world: Any, agent: Any) -> None:
    await world.fault(status=403, path="/v2/invoices")
    _, *parts = await prompt(agent, "job_briefing", job=world.has("jobs")[0]["jnid"])
    assert [part.partition(",")[0].partition(":")[0] for part in parts] == [
        *("The job", "Its latest activities", "Its open tasks", "Its estimates", "Its invoices", "Its newest files"),
    ]
    assert "not for this caller" in parts[4]
    await world.fault(status=500, path="/v2/estimates")
    world.clock.advance(3_600)
    error = await world.within(refused(agent.client.get_prompt("job_briefing", {"job": world.has("jobs")[1]["jnid"]})))
    assert (error.code, error.data["code"]) == (INTERNAL_ERROR, "upstream_error")


async def test_a_token_sees_the_prompts_whose_tools_it_may_use(world: Any) -> None:
    prompts = Prompts(world.app.toolbox, PROMPTS)
    assert [one.name for one in prompts.listed(Access(tools=frozenset({"get_tasks"})))] == ["overdue_followups"]
    with pytest.raises(InvalidInput, match="overdue_followups"):
        prompts.named("job_briefing", Access(tools=frozenset({"get_tasks"})))
    who = world.app.identities.identify(world.sim.keys["stamford"][0], "stamford", Access(tools=frozenset({"get_job"})))
    made = await prompts.get("job_briefing", {"job": world.has("jobs")[0]["jnid"]}, who, Call.begin(world.clock, "r"))
    assert ["not for this caller" in text for text in made.messages] == [False, False, True, True, True, True, True]


# -- completions -----------------------------------------------------------------------------------


@both_eras
async def test_names_are_completed_whatever_their_case(world: Any, agent: Any) -> None:
    flows = [flow for flow in world.sim.account("stamford").settings["workflows"] if flow["object_type"] == "job"]
    statuses = {status["name"] for flow in flows for status in flow["status"] if status.get("is_active") is not False}
    told = await complete(agent, of_template("jobs/status/{status}"), "status", "", instance="stamford")
    assert set(told.values) == statuses
    assert (told.total, told.has_more) == (len(statuses), False)
    told = await complete(agent, of_template("jobs/status/{status}"), "status", "IN ", instance="stamford")
    assert set(told.values) == {name for name in statuses if name.lower().startswith("in ")} != set()
    users = {f"{user['first_name']} {user['last_name']}" for user in world.users() if user["is_active"]}
    for ref, name in ((of_prompt("overdue_followups"), "owner"), (of_template("jobs/owner/{user}"), "user")):
        assert set((await complete(agent, ref, name, "")).values) == users
    told = await complete(agent, of_prompt("daily_pipeline_review"), "record_type", "")
    assert set(told.values) == {flow["name"] for flow in flows if flow.get("is_active") is not False}
    for kind in ("jobs", "contacts"):
        told = await complete(agent, of_template(f"{kind}/tag/{{tag}}"), "tag", "INS")
        assert list(told.values) == ["insurance"]
    assert list((await complete(agent, of_prompt("receivables_review"), "min_days_overdue", "3")).values) == ["30"]
    assert list((await complete(agent, of_template("jobs/{jnid}"), "jnid", "a")).values) == []


async def test_job_numbers_are_completed_from_the_newest_and_then_by_asking(world: Any, agent: Any) -> None:
    newest = sorted(world.has("jobs"), key=lambda row: (row["date_created"], row["recid"]), reverse=True)
    before = world.sim.calls
    told = await complete(agent, of_prompt("job_briefing"), "job", "")
    assert list(told.values) == [row["number"] for row in newest[:VALUES_MOST]]
    assert (told.total, world.sim.calls - before) == (None, 1)
    oldest = newest[-1]["number"]
    told = await complete(agent, of_prompt("job_briefing"), "job", oldest)
    assert oldest in told.values
    assert world.sim.calls - before <= 2
    assert list((await complete(agent, of_prompt("job_briefing"), "job", "no such number")).values) == []


async def test_accounts_are_completed_without_asking_and_only_those_of_the_caller(world: Any, agent: Any) -> None:
    told = await complete(agent, of_template("jobs/{jnid}"), "instance", "")
    assert list(told.values) == ["stamford", "guilford"]
    assert list((await complete(agent, of_template("jobs/{jnid}"), "instance", "GU")).values) == ["guilford"]
    assert world.sim.calls == 0
    bound = Completions(world.app.toolbox).instances(
        "", ["stamford", "guilford"], Access(instances=frozenset({"guilford"}))
    )
    assert (list(bound.values), bound.total) == (["guilford"], 1)


async def test_at_most_a_hundred_values_are_told_and_that_there_are_more(world: Any) -> None:
    names = [f"name {number}" for number in range(VALUES_MOST + 1)]
    told = Completions(world.app.toolbox).instances("name", names, Access())
    assert (len(told.values), told.total, told.has_more) == (VALUES_MOST, VALUES_MOST + 1, True)


@both_eras
async def test_what_cannot_be_completed_is_refused_and_what_may_not_be_read_is_not_told(world: Any, agent: Any) -> None:
    for ref, name in (
        (of_prompt("no_such_prompt"), "job"),
        (of_prompt("job_briefing"), "colour"),
        (of_template("jobs/{jnid}/cousins"), "jnid"),
        (of_template("jobs/status/{status}"), "colour"),
    ):
        error = await refused(complete(agent, ref, name, ""))
        assert (error.code, error.data["code"]) == (INVALID_PARAMS, "invalid_argument")
    error = await refused(complete(agent, of_prompt("overdue_followups"), "owner", "", instance="springfield"))
    assert (error.code, error.data["code"]) == (INVALID_PARAMS, "invalid_argument")
    who = world.app.identities.identify(
        world.sim.keys["stamford"][0], "stamford", Access(tools=frozenset({"get_tasks"}))
    )
    told = await Completions(world.app.toolbox).complete("jobs.status", "", who, Call.begin(world.clock, "r"))
    assert (list(told.values), told.total, told.has_more) == ([], 0, False)
    async with world.agent(key="invented-key-0123456789") as stranger:
        error = await world.within(refused(complete(stranger, of_prompt("overdue_followups"), "owner", "")))
        assert (error.code, error.data["code"]) == (INVALID_REQUEST, "upstream_unauthorized")


async def test_the_parts_of_a_prompt_share_one_answers_budget_and_leave_nothing_cut_behind(
    world: Any, agent: Any
) -> None:
    most = 2_400
    small = replace(world.app.toolbox, answer_max_bytes=most)
    who = world.app.identities.identify(world.sim.keys["stamford"][0], "stamford")
    made = await Prompts(small, PROMPTS).get("overdue_followups", {}, who, Call.begin(world.clock, "r"))
    parts = made.messages[1:]
    assert most // 2 < sum(len(part.partition("\n")[2].encode()) for part in parts) <= most
    assert all(data(part)["returned"] < data(part)["count"] for part in parts)
    asked = json.loads(parts[1].partition(" answers ")[2].partition(" (as of ")[0])
    whole = await agent.ask("get_estimates", **asked)
    assert whole.data["returned"] > data(parts[1])["returned"]
