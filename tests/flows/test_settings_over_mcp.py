"""Additions to the account's settings through a real MCP client: what is told of a name that was there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tool_cases import WRITES, Json, Place, Write, moving


@pytest.fixture
async def world(open_world: Any) -> AsyncIterator[Any]:
    async with open_world({"MCP_TOOLSETS": "all"}) as opened:
        yield opened


async def answers(world: Any, agent: Any, tool: str, given: Json) -> Json:
    """The structured result of a call that must be good, the clock moved on meanwhile."""
    return dict((await moving(world, agent.ask(tool, **given))).data)


@pytest.mark.parametrize("case", [case for case in WRITES if case.part[0]], ids=lambda case: case.tool)
async def test_a_setting_that_was_there_is_told_as_that_where_jobnimbus_lists_it(
    world: Any, agent: Any, case: Write
) -> None:
    given = case.good(Place(world), "Zz new")
    made = await answers(world, agent, case.tool, given)
    again = await answers(world, agent, case.tool, {**given, "name": "ZZ NEW"})
    listed = case.part[0] not in ("customFields", "locations")
    assert (made["done"], again["done"]) == ("created", "unchanged" if listed else "created")
    assert again["setting"] == made["setting"]
    (tool,) = [one for one in (await agent.client.list_tools()).tools if one.name == case.tool]
    assert ("answered as created too" in tool.description) is not listed


async def test_a_setting_is_added_where_those_there_are_cannot_be_read(world: Any, agent: Any) -> None:
    await world.fault(status=500, method="GET", path="/account/settings")
    made = await answers(world, agent, "create_source", {"name": "Zz new"})
    assert made["done"] == "created"
