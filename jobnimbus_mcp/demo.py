"""The simulator and the server in one process, on the embedded store; `--once` drives them with a real MCP client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from mcp.client import Client
from rich.console import Console
from rich.table import Table

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.tools.server_mcp import CACHE_META

__all__ = ["run"]

INSTANCE = "stamford"
LATENCY_MS = 600.0
"""What JobNimbus's API takes: 500 to 800 ms."""

START_BOUND_S = 15.0
STEP_BOUND_S = 20.0
PORT_MOST = 65_535
STORE_BYTES = 64 * 1024 * 1024


def run(port: int, once: bool) -> int:
    """Serve until told to stop, or drive the five steps of `--once`; the exit code."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_told(_once() if once else _serve(port)))


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    """Run it until it ends or a signal says so; being told to stop is no failure."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(task.cancel))
    try:
        return await task
    except asyncio.CancelledError:
        return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one: what `serve` runs on."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@dataclass(frozen=True)
class _World:
    url: str
    simulator_url: str
    admin_token: str
    job: dict[str, Any]
    store: MemoryStore
    serving: asyncio.Task[None]


async def _serve(port: int) -> int:
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as taken:
        another = f"jobnimbus-mcp demo --port {port + 1 if port < PORT_MOST else PORT_MOST - 1}"
        why = os.strerror(taken.errno or 0)
        print(f"jobnimbus-mcp: port {port} is taken ({why}); choose another: {another}", file=sys.stderr)
        return 2
    async with _world(listening) as world:
        print(_greeting(world), flush=True)
        await asyncio.wait({world.serving})
    return 0


async def _once() -> int:
    async with _world(socket.create_server(("127.0.0.1", 0))) as world:
        steps = [step async for step in _steps(world)]
    table = Table(title="One question, asked five times over MCP")
    for column in ("step", "status", "tier", "age s", "ms", "job status", "as it should be"):
        table.add_column(column, justify="right" if column in ("age s", "ms") else "left")
    for step in steps:
        table.add_row(*step.cells())
    Console(width=120).print(table)
    return 0 if all(step.well for step in steps) else 1


@dataclass(frozen=True)
class _Step:
    name: str
    status: str
    tier: str
    age_s: float
    took_ms: float
    job_status: str
    well: bool

    def cells(self) -> tuple[str, ...]:
        numbers = (f"{self.age_s:.3f}", f"{self.took_ms:.1f}")
        return (self.name, self.status, self.tier, *numbers, self.job_status, "yes" if self.well else "NO")


async def _steps(world: _World) -> AsyncIterator[_Step]:
    before = str(world.job["status_name"])
    after = "Final Inspection" if before != "Final Inspection" else "In Production"
    async with Client(f"{world.url}/mcp") as agent, httpx.AsyncClient(timeout=STEP_BOUND_S) as jobnimbus:

        async def ask(name: str, *, status: str, tiers: tuple[str, ...], value: str) -> _Step:
            began = time.perf_counter()
            async with asyncio.timeout(STEP_BOUND_S):
                arguments = {"job_id": world.job["jnid"], "fields": "number,name,status_name"}
                answer = await agent.call_tool("get_job", arguments)
            took_ms = (time.perf_counter() - began) * 1_000
            if answer.is_error:
                return _Step(name, "error", "-", 0.0, took_ms, str(answer.content), False)
            told = (answer.meta or {})[CACHE_META]
            shown = str(answer.structured_content["record"]["status_name"])
            well = told["status"] == status and told["tier"] in tiers and shown == value
            return _Step(name, told["status"], told["tier"], told["ageSeconds"], took_ms, shown, well)

        kept = ("l1", "l2")
        yield await ask("first call", status="miss", tiers=("upstream",), value=before)
        yield await ask("same call again", status="hit", tiers=kept, value=before)
        changed = await jobnimbus.put(
            f"{world.simulator_url}/_sim/records/jobs/{world.job['jnid']}",
            params={"instance": INSTANCE},
            json={"status_name": after},
        )
        changed.raise_for_status()  # answered once the webhook has been delivered
        yield await ask("changed in JobNimbus, webhook", status="miss", tiers=("upstream",), value=after)
        world.store.fail("refused")
        yield await ask("cache store away", status="bypass", tiers=("upstream",), value=after)
        world.store.fail(None)
        yield await ask("cache store back", status="hit", tiers=kept, value=after)


@asynccontextmanager
async def _world(listening: socket.socket) -> AsyncIterator[_World]:
    """Both servers, running; stopped at the end."""
    upstream = socket.create_server(("127.0.0.1", 0))
    port, upstream_port = listening.getsockname()[1], upstream.getsockname()[1]
    url, simulator_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{upstream_port}"
    admin_token, webhook_secret = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    simulator = Simulator(
        instances=(INSTANCE,),
        latency_ms=LATENCY_MS,
        webhook_url=f"{url}/webhooks/jobnimbus?token={webhook_secret}",
    )
    settings = Settings.from_env(
        {
            "JOBNIMBUS_INSTANCES": INSTANCE,
            "JOBNIMBUS_API_BASE_URL": f"{simulator_url}/api1",
            "JOBNIMBUS_API_KEY": simulator.keys[INSTANCE][0],
            "WEBHOOK_SECRET": webhook_secret,
            "ADMIN_TOKEN": admin_token,
        }
    )
    clock = SystemClock()
    store = MemoryStore(clock, max_bytes=STORE_BYTES)
    app = build(settings, Overrides(clock=clock, store=store))
    server, other = _Server(_config(app.asgi)), _Server(_config(simulator.app))
    serving = [
        asyncio.create_task(server.serve(sockets=[listening])),
        asyncio.create_task(other.serve(sockets=[upstream])),
    ]
    try:
        async with asyncio.timeout(START_BOUND_S):
            while not (server.started and other.started):
                for task in serving:
                    if task.done():
                        await task
                await asyncio.sleep(0.01)
        job = max(simulator.account(INSTANCE).records("jobs"), key=lambda made: made["date_created"])
        yield _World(url, simulator_url, admin_token, dict(job), store, serving[0])
    finally:
        server.should_exit = other.should_exit = True
        await asyncio.gather(*serving, return_exceptions=True)
        await simulator.aclose()


class _Server(uvicorn.Server):
    """One of two servers in one process: signals are the business of whoever runs both."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3)


def _greeting(world: _World) -> str:
    client = {"mcpServers": {"jobnimbus": {"type": "http", "url": f"{world.url}/mcp"}}}
    question = json.dumps({"name": "get_jobs", "arguments": {"verbosity": "summary", "size": 3}})
    change = f"{world.simulator_url}/_sim/records/jobs/{world.job['jnid']}?instance={INSTANCE}"
    return f"""\
jobnimbus-mcp demo: a made-up roofing contractor, nothing to configure, gone when you stop it (Ctrl-C).

  MCP                   {world.url}/mcp
  simulated JobNimbus   {world.simulator_url}/api1   (answers after {LATENCY_MS:.0f} ms, like the real one)
  admin token           {world.admin_token}   (made for this run)

Client configuration:

{json.dumps(client, indent=2)}

Or by hand, twice, and look at "cache" in the answers:

  curl -s {world.url}/mcp/tools/call -H 'content-type: application/json' -d '{question}'

Then change a job in JobNimbus, which sends its webhook, and ask again:

  curl -s -X PUT '{change}' -H 'content-type: application/json' -d '{{"status_name": "Final Inspection"}}'
  curl -s {world.url}/cache/stats -H 'Authorization: Bearer {world.admin_token}'
"""
