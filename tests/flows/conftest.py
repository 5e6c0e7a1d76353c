"""The whole of it in one process: an MCP client, the server, a simulated JobNimbus, and webhooks on their way back."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import httpx2
import pytest
import structlog
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from structlog.testing import LogCapture

from jobnimbus_mcp.app import App, Overrides, build
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.clock import Clock, ManualClock
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.tools.server_mcp import CACHE_META

HOOK_SECRET, ADMIN_TOKEN = "hook-secret-0123456789", "admin-token-0123456789"
MODERN, LEGACY = "2026-07-28", "legacy"
CALL_BOUND_S = 20.0
"""Real seconds; nothing here comes near them, and a hanging call fails instead of hanging the run."""

SETTINGS = {
    "JOBNIMBUS_API_BASE_URL": "http://sim/api1",
    "JOBNIMBUS_INSTANCES": "stamford,guilford",
    "WEBHOOK_SECRET": HOOK_SECRET,
    "ADMIN_TOKEN": ADMIN_TOKEN,
    # a clock that stands still fills no bucket; tests of the budget set their own
    "JOBNIMBUS_MAX_REQUESTS_PER_S": "0",
}

T = TypeVar("T")
Row = dict[str, Any]
Json = dict[str, Any]


class RelayClock:
    """The simulator's clock, which is the present test's: making a simulator takes longer than a test."""

    def __init__(self) -> None:
        self.now_of: Clock = ManualClock()

    def now(self) -> float:
        return self.now_of.now()

    def monotonic(self) -> float:
        return self.now_of.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.now_of.sleep(seconds)


class RelayTransport(httpx.AsyncBaseTransport):
    """Delivers webhooks to the present test's server; None: there is none, and deliveries fail."""

    def __init__(self) -> None:
        self.to: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.to is None:
            raise httpx.ConnectError("nobody listens", request=request)
        return await self.to.handle_async_request(request)


@dataclass(frozen=True)
class Stage:
    """One simulator for the session, reset for each test."""

    sim: Simulator
    clock: RelayClock
    webhooks: RelayTransport


@dataclass(frozen=True)
class Told:
    """What a call was answered: the structured result, and the cache's envelope."""

    data: Json
    cache: Json

    @property
    def rows(self) -> list[Row]:
        return list(self.data["results"])

    @property
    def ids(self) -> list[str]:
        return [row["jnid"] for row in self.rows]

    @property
    def status(self) -> str:
        return str(self.cache["status"])


class Agent:
    """A connected MCP client in one of the protocol's two eras."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def result(self, tool: str, **arguments: Any) -> Any:
        """The SDK's own result, error or not. `from` is written `from_`."""
        if "from_" in arguments:
            arguments["from"] = arguments.pop("from_")
        async with asyncio.timeout(CALL_BOUND_S):
            return await self.client.call_tool(tool, arguments)

    async def ask(self, tool: str, **arguments: Any) -> Told:
        """A good answer, whose text must say the same as its structure."""
        result = await self.result(tool, **arguments)
        assert not result.is_error, result.content
        (text,) = result.content
        assert json.loads(text.text) == result.structured_content
        return Told(result.structured_content, result.meta[CACHE_META])

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The text of an answer that must be an error."""
        result = await self.result(tool, **arguments)
        assert result.is_error, result.structured_content
        assert result.structured_content is None
        (text,) = result.content
        return str(text.text)

    async def pages(self, tool: str, **arguments: Any) -> list[Told]:
        """Every page, following cursors with nothing but the cursor."""
        told = [await self.ask(tool, **arguments)]
        while (cursor := told[-1].data["next_cursor"]) is not None:
            assert len(told) < 500, "the cursors lead nowhere"
            told.append(await self.ask(tool, cursor=cursor))
        return told


class World:
    """A running server with its simulated JobNimbus."""

    def __init__(self, sim: Simulator, app: App, clock: Clock, logged: LogCapture) -> None:
        self.sim = sim
        self.app = app
        self.clock = clock
        self.logged = logged
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost")

    # -- what JobNimbus has, past every API --------------------------------------------------------------------------

    def has(self, kind: str, keep: Callable[[Row], bool] = lambda row: True, instance: str = "stamford") -> list[Row]:
        """The records of a kind that satisfy `keep`, straight from the simulated account."""
        return [row for row in self.sim.account(instance).records(kind) if keep(row)]

    def ids(self, kind: str, keep: Callable[[Row], bool] = lambda row: True, instance: str = "stamford") -> set[str]:
        return {row["jnid"] for row in self.has(kind, keep, instance)}

    def users(self, instance: str = "stamford") -> list[Row]:
        rows: list[Row] = self.sim.account(instance).users()["users"]
        return rows

    async def settled(self, instance: str = "stamford") -> None:
        """Return when nothing is due any more of what the clock has come to: the second renewal of a changed list."""
        async with asyncio.timeout(CALL_BOUND_S):
            log = self.app.events
            while any(lag.due for lag in (await log.lag(instance)).values()):  # noqa: ASYNC110  # it is done in these turns
                await asyncio.sleep(0)

    # -- who asks ----------------------------------------------------------------------------------------------------

    def headers(self, key: str | None = None, instance: str = "stamford") -> dict[str, str]:
        key = key if key is not None else self.sim.keys[instance][0]
        return {"X-JobNimbus-Api-Key": key, "X-JobNimbus-Instance": instance}

    @asynccontextmanager
    async def agent(
        self, mode: str = MODERN, key: str | None = None, instance: str = "stamford"
    ) -> AsyncIterator[Agent]:
        """An MCP client over Streamable HTTP, in memory."""
        transport = httpx2.ASGITransport(self.app.asgi)
        async with httpx2.AsyncClient(transport=transport, headers=self.headers(key, instance)) as http:
            reached = streamable_http_client("http://localhost/mcp", http_client=http)
            async with Client(reached, mode=mode) as client:
                yield Agent(client)

    async def post(
        self, tool: str, arguments: Json, *, key: str | None = None, instance: str = "stamford"
    ) -> httpx.Response:
        """POST /mcp/tools/call."""
        async with asyncio.timeout(CALL_BOUND_S):
            return await self.http.post(
                "/mcp/tools/call",
                json={"name": tool, "arguments": arguments},
                headers=self.headers(key, instance),
            )

    async def call(self, tool: str, *, key: str | None = None, instance: str = "stamford", **arguments: Any) -> Told:
        """A good answer over plain HTTP."""
        response = await self.post(tool, arguments, key=key, instance=instance)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["success"] is True
        return Told(body["data"], body["cache"])

    async def webhook(self, body: Any, *, instance: str = "stamford") -> httpx.Response:
        """One delivery, as a sender of any shape would make it."""
        params = {"token": HOOK_SECRET, "instance": instance}
        return await self.http.post("/webhooks/jobnimbus", params=params, json=body)

    async def fault(self, **body: Any) -> None:
        """POST /_sim/faults."""
        transport = httpx.ASGITransport(self.sim.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sim") as client:
            (await client.post("/_sim/faults", json=body)).raise_for_status()

    async def within(self, work: Awaitable[T], bound_s: float = 15.0) -> T:
        """The result of `work`, the manual clock moved on while it waits, `bound_s` at most."""
        assert isinstance(self.clock, ManualClock)
        task = asyncio.ensure_future(work)
        began = self.clock.monotonic()
        try:
            while not task.done():
                for _ in range(100):
                    await asyncio.sleep(0)
                if not task.done():
                    assert self.clock.monotonic() - began < bound_s, f"no answer within {bound_s} s"
                    self.clock.advance(0.5)
        finally:
            task.cancel()
            await asyncio.wait({task})
        return task.result()


@asynccontextmanager
async def in_own_task(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """`manager` entered and left by one task, as cancel scopes want it; fixtures are set up and torn down by two."""
    ready: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        async with manager as value:
            ready.set_result(value)
            await leave.wait()

    task = asyncio.create_task(hold())
    waiting: tuple[asyncio.Future[Any], ...] = (task, ready)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield ready.result()
    finally:
        leave.set()
        await task


async def end_stream_watcher() -> None:
    """End the task by which the event-stream library notices a server's shutdown; it lives as long as its loop."""
    watchers = {task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "_shutdown_watcher"}
    for task in watchers:
        task.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


@pytest.fixture(scope="session")
def stage() -> Stage:
    clock, webhooks = RelayClock(), RelayTransport()
    sim = Simulator(
        clock=clock,
        webhook_url=f"http://localhost/webhooks/jobnimbus?token={HOOK_SECRET}",
        webhook_transport=webhooks,
    )
    return Stage(sim, clock, webhooks)


@pytest.fixture
def logged() -> Iterator[LogCapture]:
    """Everything the server logs; each world checks it at its end."""
    capture = LogCapture()
    structlog.configure(processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield capture
    structlog.reset_defaults()


OpenWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def open_world(stage: Stage, logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> OpenWorld:
    """Opens a world: `settings` over the usual ones; `clock`, `store`, `transport` in place of the usual, `issuer` the
    way to one."""
    # what the server leaves to the collector is for processes that live longer than a test
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(gc, "freeze", lambda: None)

    @asynccontextmanager
    async def opened(
        settings: Mapping[str, str] | None = None,
        *,
        clock: Clock | None = None,
        store: MemoryStore | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        issuer: httpx.AsyncBaseTransport | None = None,
    ) -> AsyncIterator[World]:
        now = clock or ManualClock()
        stage.clock.now_of = now
        stage.sim.reset()
        overrides = Overrides(
            clock=now,
            store=store,
            upstream_transport=transport or httpx.ASGITransport(stage.sim.app),
            issuer_transport=issuer,
            random01=lambda: 0.5,
        )
        app = build(Settings.from_env({**SETTINGS, **(settings or {})}), overrides)
        stage.webhooks.to = httpx.ASGITransport(app.asgi)
        try:
            async with app.running(), app.mcp.http_running():
                world = World(stage.sim, app, now, logged)
                async with world.http:
                    yield world
        finally:
            stage.webhooks.to = None
            await stage.sim.aclose()
            await end_stream_watcher()
        errors = [line for line in logged.entries if line["log_level"] in ("error", "critical")]
        assert errors == [], "the server logged a defect of its own"
        said = repr(logged.entries)
        for key in (key for pair in stage.sim.keys.values() for key in pair):
            assert key not in said, "a credential was logged"

    return lambda *args, **kwargs: in_own_task(opened(*args, **kwargs))


@pytest.fixture
async def world(open_world: OpenWorld) -> AsyncIterator[World]:
    """The usual world: manual clock, embedded store, two accounts, webhooks delivered."""
    async with open_world() as opened:
        yield opened


@pytest.fixture
async def agent(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Agent]:
    """A client with the full-access key of stamford; parametrised indirectly by the protocol's era."""
    async with in_own_task(world.agent(getattr(request, "param", MODERN))) as connected:
        yield connected
