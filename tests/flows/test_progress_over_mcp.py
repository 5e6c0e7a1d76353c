"""Progress is told to who wants to hear it, who hears it may wait longer, and who hangs up stops the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from faces import face_of, over_http
from mcp.client import Client
from served import BOUND_S, served, until

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.tools import requests_mcp
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs
from jobnimbus_mcp.tools.requests_mcp import progress_of
from jobnimbus_mcp.tools.server_mcp import McpFace
from jobnimbus_mcp.tools.spec import ToolSpec

MODERN, LEGACY = "2026-07-28", "legacy"
TOLD = [(1.0, 2.0, "row 1"), (2.0, 2.0, "row 2")]


async def counting(ctx: ToolContext, args: NoArgs) -> dict[str, Any]:
    for number in (1, 2):
        await ctx.report(number, 2, f"row {number}")
    return {"has_s": round(ctx.call.remaining_s(ctx.clock))}


def tool(name: str, *, long: bool) -> ToolSpec:
    return ToolSpec(name, "Count", "Counts to two.", Entity.JOBS, NoArgs, handler=counting, long=long)


class Heard:
    def __init__(self) -> None:
        self.told: list[tuple[float, float | None, str | None]] = []

    async def __call__(self, done: float, total: float | None, message: str | None) -> None:
        self.told.append((done, total, message))


async def counted(client: Client, name: str, heard: Heard | None = None) -> Any:
    async with asyncio.timeout(BOUND_S):
        return (await client.call_tool(name, {}, progress_callback=heard)).structured_content


@pytest.fixture
async def app(open_world: Any, stage: Any) -> AsyncIterator[Any]:
    only = {"JOBNIMBUS_INSTANCES": "stamford", "JOBNIMBUS_API_KEY": stage.sim.keys["stamford"][0]}
    async with open_world(only) as world:
        yield world.app


def reached(face: McpFace, way: str) -> AbstractAsyncContextManager[Client]:
    return Client(face.server, mode=LEGACY) if way == "in memory" else over_http(face, mode=way)


@pytest.mark.parametrize("way", [MODERN, LEGACY, "in memory"])
async def test_progress_comes_in_order_and_only_a_long_tool_that_is_listened_to_has_long(app: Any, way: str) -> None:
    async with reached(face_of(app, tool("long", long=True), tool("short", long=False)), way) as client:
        for name, has_s in (("long", 600), ("short", 14)):
            heard = Heard()
            assert await counted(client, name, heard) == {"has_s": has_s}
            assert heard.told == TOLD
        assert await counted(client, "long") == {"has_s": 14}, "who hears nothing gives up before that"


async def test_a_client_that_takes_no_progress_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_mcp, "_PROGRESS_WITHIN_S", 0.01)
    begun: list[float] = []

    async def stuck(done: float, total: float | None, message: str) -> None:
        begun.append(done)
        await asyncio.Event().wait()

    ctx: Any = SimpleNamespace(meta={"progress_token": 7}, session=SimpleNamespace(report_progress=stuck))
    tell = progress_of(ctx)
    assert tell is not None
    async with asyncio.timeout(BOUND_S):
        for number in range(1_000):
            await tell(number, 1_000, "row")
    assert begun == [0]
    ctx.meta = {}
    assert progress_of(ctx) is None


# -- hanging up ------------------------------------------------------------------------------------


class Hanging(httpx.AsyncBaseTransport):
    """The way to JobNimbus; while `held`, single jobs are not answered. Counts what was asked and given up so."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.open = asyncio.Event()
        self.asked = self.given_up = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "/jobs/" in request.url.path:
            self.asked += 1
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        return await self._inner.handle_async_request(request)


@pytest.fixture
def hanging(stage: Any) -> Hanging:
    return Hanging(httpx.ASGITransport(stage.sim.app))


async def ends(task: asyncio.Task[Any]) -> None:
    task.cancel()
    async with asyncio.timeout(BOUND_S):
        await asyncio.wait({task})
    assert task.cancelled()


async def test_who_hangs_up_stops_the_request_to_jobnimbus(open_world: Any, hanging: Hanging) -> None:
    async with open_world(clock=ManualClock(), transport=hanging) as world, served(world) as connect:
        job = world.has("jobs")[0]["jnid"]
        async with connect() as client:
            call = asyncio.create_task(client.call_tool("get_job", {"job_id": job}))
            await until(lambda: hanging.asked == 1)
            await ends(call)
            await until(lambda: hanging.given_up == 1)
        assert hanging.asked == 1


async def test_who_hangs_up_takes_nothing_from_another_who_asked_the_same(open_world: Any, hanging: Hanging) -> None:
    async with open_world(clock=ManualClock(), transport=hanging) as world, served(world) as connect:
        job = world.has("jobs")[0]["jnid"]
        async with connect() as one, connect() as other:
            first = asyncio.create_task(one.call_tool("get_job", {"job_id": job}))
            await until(lambda: hanging.asked == 1)
            second = asyncio.create_task(other.call_tool("get_job", {"job_id": job}))
            calls = world.app.tally.since_start("stamford")
            assert calls.get("hits|tool|get_job", 0) == 0
            await asyncio.sleep(0.05)  # the second has come to wait as well: nothing tells a test so
            await ends(first)
            hanging.open.set()
            async with asyncio.timeout(BOUND_S):
                result = await second
        assert result.structured_content["record"]["jnid"] == job
        assert (hanging.asked, hanging.given_up) == (1, 0)


async def test_a_call_cancelled_in_its_connection_stops_too(open_world: Any, stage: Any, hanging: Hanging) -> None:
    only = {"JOBNIMBUS_INSTANCES": "stamford", "JOBNIMBUS_API_KEY": stage.sim.keys["stamford"][0]}
    reading = ToolSpec("one", "One", "One job.", Entity.JOBS, NoArgs, handler=lambda ctx, args: _one(ctx))
    for mode in (MODERN, LEGACY):
        hanging.asked = hanging.given_up = 0
        async with (
            open_world(only, clock=ManualClock(), transport=hanging) as world,
            Client(face_of(world.app, reading).server, mode=mode) as client,
        ):
            call = asyncio.create_task(client.call_tool("one", {}))
            await until(lambda: hanging.asked == 1)
            await ends(call)
            await until(lambda: hanging.given_up == 1)


async def _one(ctx: ToolContext) -> dict[str, Any]:
    record: dict[str, Any] = await ctx.read(Read.record(Entity.JOBS, "abc123def456ghi"))
    return record
