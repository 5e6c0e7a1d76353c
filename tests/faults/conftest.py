"""Whole servers for fault tests: the app in this process over a simulated JobNimbus, and a proxy that breaks links."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn

from jobnimbus_mcp.app import App, Overrides, build
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator

INSTANCE = "stamford"
ADMIN = "t0ken-of-the-admin-0001"
SECRET = "s3cret-of-the-webhooks-01"


@dataclass(frozen=True)
class Reply:
    """One HTTP answer and how long it took."""

    status_code: int
    body: dict[str, Any]
    headers: httpx.Headers
    took_s: float

    @property
    def cache_status(self) -> str:
        """What the caller was told of the cache, e.g. hit."""
        return str(self.body["cache"]["status"])


class Site:
    """One server process's worth of app, spoken to over ASGI."""

    def __init__(self, app: App, simulator: Simulator, http: httpx.AsyncClient) -> None:
        self.app = app
        self.simulator = simulator
        self._http = http
        self.key: str = simulator.keys[INSTANCE][0]
        self.jobs: list[str] = [str(job["jnid"]) for job in simulator.account(INSTANCE).records("jobs")]

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None, *, key: str | None = None) -> Reply:
        """`POST /mcp/tools/call` under `key`, else under the account's full key."""
        return await self._request(
            "POST",
            "/mcp/tools/call",
            json={"name": tool, "arguments": arguments or {}},
            headers={"X-JobNimbus-Api-Key": key or self.key},
        )

    async def job(self, jnid: str, **arguments: Any) -> Reply:
        return await self.call("get_job", {"job_id": jnid, "fields": "status_name", **arguments})

    async def webhook(self, jnid: str, instance: str = INSTANCE) -> Reply:
        """A delivery that says this job was updated."""
        return await self._request(
            "POST",
            f"/webhooks/jobnimbus?token={SECRET}&instance={instance}",
            json={"event": "job.updated", "resource_type": "job", "resource_id": jnid},
        )

    async def get(self, path: str) -> Reply:
        """An admin's GET."""
        return await self._request("GET", path, headers={"Authorization": f"Bearer {ADMIN}"})

    async def change(self, jnid: str, status_name: str) -> None:
        """Change the job in JobNimbus; nobody is told."""
        await self.simulator.change(INSTANCE, "jobs", jnid, {"status_name": status_name}, webhook=False)

    async def until(self, holds: Callable[[], bool], within_s: float) -> float:
        """Seconds until `holds()`, which asks nothing of the server; fails the test when that is too long."""
        began = time.monotonic()
        while not holds():
            waited_s = time.monotonic() - began
            assert waited_s < within_s, f"still not after {waited_s:.2f} s"
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def trusts_its_store(self, within_s: float) -> float:
        """Seconds until the breaker is closed and nothing is owed, without a call."""
        store = self.app.accounts.stores[0].store
        return await self.until(lambda: store.circuit_state == "CLOSED" and not store.indebted, within_s)

    async def _request(self, method: str, path: str, **more: Any) -> Reply:
        began = time.monotonic()
        answer = await self._http.request(method, path, **more)
        took_s = time.monotonic() - began
        return Reply(answer.status_code, answer.json(), answer.headers, took_s)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A JobNimbus in this process that answers after 50 ms."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # a line per call
    made = Simulator(instances=(INSTANCE,), latency_ms=50)
    yield made
    await made.aclose()
    structlog.reset_defaults()


class _Server(uvicorn.Server):
    """Signals are the test runner's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listening() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


@pytest.fixture
async def jobnimbus(simulator: Simulator) -> AsyncIterator[str]:
    """API root of the simulated JobNimbus, served on a port."""
    listening = _listening()
    server = _Server(uvicorn.Config(simulator.app, log_config=None, access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/api1"
    server.should_exit = server.force_exit = True
    await asyncio.wait_for(serving, 5)
    listening.close()


@pytest.fixture
async def open_site(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await open_site(redis_url, CACHE_TTL_JOBS="60")`: a running `Site`; all of them share one JobNimbus."""
    async with AsyncExitStack() as stack:

        async def begin(redis_url: str | None, *, clock: Clock | None = None, **variables: str) -> Site:
            placed = {"DATA_DIR": str(tmp_path / "data"), **variables}
            return await stack.enter_async_context(_site(simulator, redis_url, clock, placed))

        yield begin


@asynccontextmanager
async def _site(
    simulator: Simulator, redis_url: str | None, clock: Clock | None, variables: Mapping[str, str]
) -> AsyncIterator[Site]:
    settings = Settings.from_env(
        {
            "JOBNIMBUS_INSTANCES": INSTANCE,
            "JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1",
            "JOBNIMBUS_MAX_REQUESTS_PER_S": "1000",
            "ADMIN_TOKEN": ADMIN,
            "WEBHOOK_SECRET": SECRET,
            "CACHE_CIRCUIT_RESET_TIMEOUT": "500",
            **({"REDIS_URL": redis_url} if redis_url else {}),
            **variables,
        }
    )
    upstream = httpx.ASGITransport(simulator.app)
    app = build(settings, Overrides(clock=clock, upstream_transport=upstream, random01=random.Random(7).random))
    async with (
        app.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://127.0.0.1", timeout=20) as http,
    ):
        yield Site(app, simulator, http)


class BrokenLink:
    """A TCP proxy to a server: `refuse` resets every connection there is and every one that comes."""

    def __init__(self, port: int) -> None:
        self._upstream_port = port
        self._refusing = False
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def refuse(self) -> None:
        self._refusing = True
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()

    def mend(self) -> None:
        self._refusing = False

    async def aclose(self) -> None:
        self._server.close()
        self.refuse()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._refusing:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._pairs.discard(pair)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return  # the link is broken, which is what it is for
        finally:
            writer.close()


@pytest.fixture
async def link_to() -> AsyncIterator[Callable[..., Any]]:
    """`await link_to(port)`: a started `BrokenLink`."""
    links: list[BrokenLink] = []

    async def begin(port: int) -> BrokenLink:
        link = BrokenLink(port)
        await link.start()
        links.append(link)
        return link

    yield begin
    for link in links:
        await link.aclose()
