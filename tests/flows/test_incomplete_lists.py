"""Lists that cannot be seen whole say so: rows without a date beyond the window, and pages torn by a lost change."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from jobnimbus_mcp.crm import catalog
from jobnimbus_mcp.crm.entities import Entity


async def walked(world: Any, **arguments: Any) -> tuple[set[str], list[dict[str, Any]]]:
    """Every page of get_jobs by its cursor."""
    pages = [(await world.call("get_jobs", size=50, verbosity="summary", **arguments)).data]
    while pages[-1]["next_cursor"]:
        assert len(pages) < 50
        pages.append((await world.call("get_jobs", cursor=pages[-1]["next_cursor"])).data)
    return {row["jnid"] for page in pages for row in page["results"]}, pages


@pytest.fixture
def _narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = replace(catalog.CATALOG[Entity.JOBS], window=200)
    monkeypatch.setattr(catalog, "CATALOG", MappingProxyType({**catalog.CATALOG, Entity.JOBS: jobs}))


@pytest.mark.usefixtures("_narrow_window")
async def test_a_list_longer_than_the_window_is_walked_to_its_end(world: Any) -> None:
    seen, pages = await walked(world)

    assert seen == world.ids("jobs")
    assert all("complete" not in page for page in pages)


@pytest.mark.usefixtures("_narrow_window")
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_rows_that_cannot_be_reached_are_told(world: Any, order: str) -> None:
    seen, pages = await walked(world, sort_by="date_start", order=order)

    assert seen == world.ids("jobs") or pages[-1]["complete"] is False


async def test_a_page_torn_by_a_change_nobody_told_of_says_so(world: Any) -> None:
    await world.call("get_jobs", size=10, verbosity="summary")
    gone = (await world.call("get_jobs", size=10, verbosity="summary")).data["results"][0]["jnid"]
    await world.sim.delete("stamford", "jobs", gone, webhook=False)

    torn = (await world.call("get_jobs", size=200, fields="jnid")).data

    assert torn["complete"] is False
    assert "max_age_s" in torn["incomplete_reason"]
    whole = (await world.call("get_jobs", size=200, fields="jnid", max_age_s=0)).data
    assert "complete" not in whole
    assert gone not in {row["jnid"] for row in whole["results"]}


@pytest.mark.parametrize("calls", [200, pytest.param(1_000, marks=pytest.mark.long)])
async def test_equal_calls_for_two_blocks_ask_twice_and_answer_alike(world: Any, calls: int) -> None:
    before = world.sim.calls_by_path().get("/jobs", 0)
    answers = await asyncio.gather(*(world.call("get_jobs", size=150, fields="jnid") for _ in range(calls)))

    assert world.sim.calls_by_path()["/jobs"] - before == 2
    assert all(answer.data == answers[0].data for answer in answers)
    assert answers[0].data["returned"] == 150
