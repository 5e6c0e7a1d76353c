"""find_tools and use_tool: what is not listed is found by words, used by name, and no more of it than one may use."""

from __future__ import annotations

from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_desk import Desk

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import InvalidInput, NotAllowed, UnknownTool
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.finding import Toolset, ranked
from jobnimbus_mcp.tools.inputs import NoArgs
from jobnimbus_mcp.tools.spec import TOOLSETS, Effect, ToolSpec


async def nothing(ctx: ToolContext, args: NoArgs) -> dict[str, Any]:
    return {"done": "created"}


def writing(name: str, title: str, entity: Entity, toolset: str, effect: Effect = Effect.CREATE) -> ToolSpec:
    text = f"{title} in JobNimbus. Ask a person first."
    return ToolSpec(name, title, text, entity, NoArgs, handler=nothing, effect=effect, toolset=toolset, default=False)


WRITES = (
    writing("create_activity", "Write a note", Entity.ACTIVITIES, "work"),
    writing("create_contact", "Create a contact", Entity.CONTACTS, "crm"),
    writing("update_job", "Change a job", Entity.JOBS, "crm", Effect.UPDATE),
    writing("delete_task", "Delete a task", Entity.TASKS, "work", Effect.DELETE),
)


class Unwritten:
    """A writer that is there, so that tools that write may be used."""


def desk(**more: Any) -> Desk:
    made = Desk(writes=WRITES, **more)
    object.__setattr__(made.toolbox, "writer", Unwritten())
    return made


ALL = desk().specs


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("search invoices", "search_invoices"),
        ("list invoices of a job", "get_invoices"),
        ("unpaid bills", "get_invoices"),
        ("add a note to a job", "create_activity"),
        ("find photos", "search_attachments"),
        ("documents of a contact", "get_attachments"),
        ("get one payment", "get_payment"),
        ("crew", "get_work_orders"),
        ("new customer", "create_contact"),
        ("edit job", "update_job"),
        ("remove an appointment", "delete_task"),
        ("what is on the calendar", "get_calendar_activities"),
        ("sales rep", "get_users"),
        ("employees", "get_users"),
        ("workflow statuses", "get_settings"),
        ("units of measure", "get_units"),
        ("search material orders", "search_material_orders"),
        ("price of a product", "get_products"),
        ("profit and margin", "get_budget"),
        ("webhooks", "get_webhooks"),
        ("SEARCH_TASKS", "search_tasks"),
    ],
)
async def test_a_tool_is_found_by_what_people_call_what_it_does(query: str, first: str) -> None:
    told = await desk().ask("find_tools", query=query, limit=3)
    assert told["tools"][0]["name"] == first


async def test_a_found_tool_is_told_with_all_that_its_use_needs() -> None:
    told = await desk().ask("find_tools", query="create activity", limit=1)

    assert told["tools"] == [
        {
            "name": "create_activity",
            "title": "Write a note",
            "description": "Write a note in JobNimbus.",
            "inputSchema": {"type": "object", "properties": {}, "additionalProperties": False},
            "toolset": "work",
            "writes": True,
        }
    ]
    assert told["found"] > 1
    (read,) = (await desk().ask("find_tools", query="get_budget", limit=1))["tools"]
    assert read["writes"] is False
    assert read["inputSchema"]["required"] == ["budget_id"]


async def test_without_a_query_the_groups_are_told_with_their_tools() -> None:
    told = (await desk().ask("find_tools"))["toolsets"]

    assert {group: about["about"] for group, about in told.items()} == {
        group: TOOLSETS[group] for group in ("crm", "work", "sales", "files", "account")
    }
    names = [name for about in told.values() for name in about["tools"]]
    assert sorted(names) == sorted(spec.name for spec in ALL if spec.toolset != "meta")
    assert (await desk().ask("find_tools", toolset="files"))["toolsets"] == {"files": told["files"]}


async def test_words_that_nothing_has_lead_to_the_groups() -> None:
    told = await desk().ask("find_tools", query="zebra")
    assert (told["tools"], told["found"]) == ([], 0)
    assert list(told["toolsets"]) == ["crm", "work", "sales", "files", "account"]


async def test_a_group_bounds_what_is_found() -> None:
    told = await desk().ask("find_tools", query="search", toolset="sales", limit=20)
    assert {tool["toolset"] for tool in told["tools"]} == {"sales"}
    assert told["found"] == len(told["tools"]) == 5


@pytest.mark.parametrize(
    ("access", "there", "not_there"),
    [
        (Access(read_only=True), "get_task", "delete_task"),
        (Access(toolsets=frozenset({"work"})), "delete_task", "get_invoice"),
        (Access(tools=frozenset({"get_task"})), "get_task", "search_tasks"),
    ],
)
async def test_nobody_is_told_of_a_tool_that_is_not_theirs(access: Access, there: str, not_there: str) -> None:
    told = await desk().ask("find_tools", access)
    names = {name for about in told["toolsets"].values() for name in about["tools"]}
    assert there in names
    assert not_there not in names
    for name in (there, not_there):
        found = await desk().ask("find_tools", access, query=name, limit=20)
        assert (name in [tool["name"] for tool in found["tools"]]) is (name == there)


async def test_what_is_found_fits_into_an_answer() -> None:
    small = desk(answer_max_bytes=4_000)
    told = await small.ask("find_tools", query="search", limit=20)

    assert told["truncated"] is True
    assert 0 < len(told["tools"]) < 20
    assert len(orjson.dumps(told)) <= 4_000
    assert "truncated" not in await desk().ask("find_tools", query="webhooks", limit=20)


async def test_a_tool_is_used_through_use_tool_as_if_it_were_listed() -> None:
    asked = desk()
    assert await asked.ask("use_tool", name="create_contact", arguments={}) == {"done": "created"}
    assert (await asked.ask("use_tool", name="get_users"))["results"] == []
    with pytest.raises(NotAllowed):
        await asked.ask("use_tool", Access(read_only=True), name="create_contact")
    with pytest.raises(UnknownTool):
        await asked.ask("use_tool", name="create_castle")
    with pytest.raises(InvalidInput):
        await asked.ask("use_tool", name="use_tool")


def test_hosts_are_told_that_use_tool_may_write_where_it_may() -> None:
    def hints(specs: tuple[ToolSpec, ...]) -> dict[str, Any]:
        (use,) = [spec for spec in specs if spec.name == "use_tool"]
        told: dict[str, Any] = use.listing["annotations"]
        return told

    assert hints(ALL) == {
        "title": "Use a found tool",
        "readOnlyHint": False,
        "destructiveHint": True,
        "idempotentHint": False,
        "openWorldHint": True,
    }
    assert hints(Desk().specs)["readOnlyHint"] is True
    (find,) = [spec for spec in ALL if spec.name == "find_tools"]
    assert find.listing["annotations"]["readOnlyHint"] is True


def test_a_tools_own_word_counts_more_than_what_people_say_for_it() -> None:
    by_synonym = writing("create_activity", "Log", Entity.ACTIVITIES, "work")
    by_name = writing("create_note", "Log", Entity.ACTIVITIES, "work")

    assert ranked([by_synonym, by_name], "note") == [by_name, by_synonym]


def test_arguments_that_every_list_takes_find_nothing() -> None:
    assert ranked(ALL, "cursor verbosity") == []
    assert [spec.name for spec in ranked(ALL, "priority")] == ["get_tasks", "search_tasks"]


def test_every_group_can_be_asked_for() -> None:
    assert set(get_args(Toolset)) == set(TOOLSETS)


@given(st.text(max_size=60))
def test_any_words_give_each_tool_at_most_once_and_always_in_the_same_order(query: str) -> None:
    found = ranked(ALL, query)

    assert len({spec.name for spec in found}) == len(found)
    assert ranked(tuple(ALL), query) == found


@given(st.sampled_from([spec for spec in ALL if spec.toolset != "meta"]))
def test_a_tools_own_name_finds_it_first(spec: ToolSpec) -> None:
    assert ranked(ALL, spec.name)[0] is spec
