"""Writes through a real MCP client: what JobNimbus then holds, who sees it when, and what is said when it goes wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tool_cases import KINDS, WRITES, Json, Place, Write, id_argument_of

from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.clock import ManualClock

CREATES = [case for case in WRITES if case.creates]
UPDATES = [case for case in WRITES if case.updates]
DELETES = [case for case in WRITES if case.deletes]
METHODS = ("POST", "PUT", "DELETE")
ADMIN = {"Authorization": "Bearer admin-token-0123456789"}
ALL = {"MCP_TOOLSETS": "all"}
READER = {one.kind: (f"get_{one.one}", one.id_argument) for one in KINDS}
LISTER = {one.kind: f"get_{one.many}" for one in KINDS}


class Findings:
    """What was found wrong, of which tool."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    @contextmanager
    def of(self, tool: str, what: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as wrong:
            self.wrong.append(f"{tool}, {what}: {wrong}")

    def none(self) -> None:
        assert not self.wrong, "\n\n".join(["", *self.wrong])


@pytest.fixture
def found() -> Iterator[Findings]:
    findings = Findings()
    yield findings
    findings.none()


@pytest.fixture
async def world(open_world: Any) -> AsyncIterator[Any]:
    async with open_world(ALL) as opened:
        yield opened


async def answers(world: Any, agent: Any, tool: str, given: Json) -> Json:
    """The structured result of a call that must be good, the clock moved on meanwhile."""
    return dict((await world.within(agent.ask(tool, **given))).data)


async def refusal(world: Any, agent: Any, tool: str, given: Json) -> str:
    return str(await world.within(agent.refused(tool, **given)))


def counted(world: Any) -> dict[str, int]:
    return {one.kind: len(world.has(one.kind)) for one in KINDS}


def held(world: Any) -> list[Any]:
    """Everything of the account that these tools can change."""
    account = world.sim.account("stamford")
    return [{one.kind: world.has(one.kind) for one in KINDS}, dict(account.settings), dict(account._unlisted)]


def without_log(counts: dict[str, int]) -> dict[str, int]:
    """JobNimbus writes down changes as activities of its own."""
    return {kind: number for kind, number in counts.items() if kind != "activities"}


# -- who sees it, when -------------------------------------------------------------------------------


async def test_what_was_written_is_read_at_once_here_and_at_another_server_though_lists_lag(
    open_world: Any, stage: Any, found: Findings
) -> None:
    """Nobody's webhook arrives: what is read is owed to the write alone."""
    clock = ManualClock()
    store = MemoryStore(clock)
    async with open_world(ALL, clock=clock, store=store) as one, open_world(ALL, clock=clock, store=store) as other:
        world = other
        stage.webhooks.to = None
        await world.fault(staleListSeconds=5)
        place = Place(world)
        async with one.agent() as mine, other.agent() as theirs:
            for case in (*UPDATES, *CREATES, *DELETES):
                with found.of(case.tool, "read back"):
                    reader, name = READER[case.kind]
                    given = case.good(place, "zzread01")
                    if not case.creates:
                        for agent in (mine, theirs):
                            await agent.ask(reader, **{name: given[id_argument_of(case)]})
                    told = await answers(world, mine, case.tool, given)
                    for agent in (mine, theirs):
                        if case.deletes:
                            result = await agent.result(reader, **{name: told["jnid"]})
                            gone = result.is_error and "[not_found, " in result.content[0].text
                            assert gone or result.structured_content["record"]["is_active"] is False
                        else:
                            shown = (await agent.ask(reader, **{name: told["jnid"]}, verbosity="raw")).data["record"]
                            expected = case.made(given)
                            assert {key: shown[key] for key in expected} == expected


async def test_lists_show_what_was_written_as_soon_as_jobnimbus_does(
    open_world: Any, stage: Any, found: Findings
) -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    async with open_world(ALL, clock=clock, store=store) as one, open_world(ALL, clock=clock, store=store) as other:
        world = other
        stage.webhooks.to = None
        await world.fault(staleListSeconds=5)
        place = Place(world)
        async with one.agent() as mine, other.agent() as theirs:
            for case in (*CREATES, *DELETES):
                with found.of(case.tool, "listed"):
                    page = {"size": 5, "verbosity": "summary"}
                    for agent in (mine, theirs):
                        await agent.ask(LISTER[case.kind], **page)
                    told = await answers(world, mine, case.tool, case.good(place, "zzlist01"))
                    for agent in (mine, theirs):
                        await agent.ask(LISTER[case.kind], **page)
                    clock.advance(7)
                    await world.settled()
                    for agent in (mine, theirs):
                        ids = (await agent.ask(LISTER[case.kind], **page)).ids
                        assert (told["jnid"] in ids) is case.creates
