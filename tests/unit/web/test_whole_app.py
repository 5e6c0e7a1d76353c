"""What takes the whole server to show: patterns against real entries, headers over MCP, a defect's one log line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from structlog.testing import capture_logs

from jobnimbus_mcp.app import App, Overrides, build
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.settings import Settings

KEY, ADMIN = "key-0123456789abcdef", "admin-token-0123456789"
JNID = "jnid1abc"
ENTRIES = {"jobs:list", "jobs:detail", "tasks:list"}
CALLER = {"X-JobNimbus-Api-Key": KEY, "X-JobNimbus-Instance": "stamford"}


class JobNimbus(httpx.AsyncBaseTransport):
    """One job, no tasks; or a defect, with a customer's name in its message."""

    def __init__(self) -> None:
        self.broken = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.broken:
            raise ValueError("Dana Whitfield, 5550100142")
        job = {"jnid": JNID, "number": "1", "type": "job", "date_created": 1_700_000_000}
        if request.url.path.endswith(f"/jobs/{JNID}"):
            return httpx.Response(200, json=job)
        rows = [job] if request.url.path.endswith("/jobs") else []
        return httpx.Response(200, json={"results": rows, "count": len(rows)})


@pytest.fixture
def jobnimbus() -> JobNimbus:
    return JobNimbus()


@pytest.fixture
def app(jobnimbus: JobNimbus) -> App:
    settings = {
        "JOBNIMBUS_API_BASE_URL": "http://crm/api1",
        "JOBNIMBUS_INSTANCES": "stamford,guilford",
        "ADMIN_TOKEN": ADMIN,
        "JOBNIMBUS_MAX_REQUESTS_PER_S": "0",
    }
    clock = ManualClock()
    overrides = Overrides(clock=clock, store=MemoryStore(clock), upstream_transport=jobnimbus, random01=lambda: 0.5)
    return build(Settings.from_env(settings), overrides)


class Server:
    """Plain HTTP to the app."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def call(self, tool: str, **arguments: Any) -> httpx.Response:
        return await self.http.post("/mcp/tools/call", json={"name": tool, "arguments": arguments}, headers=CALLER)

    async def fill(self) -> None:
        for tool, arguments in (("get_jobs", {}), ("get_job", {"job_id": JNID}), ("get_tasks", {})):
            assert (await self.call(tool, **arguments)).status_code == 200

    async def kept(self) -> set[str]:
        """The kinds of read that are kept, as `entity:operation`."""
        told = (await self.http.get("/cache/entries", headers={"authorization": f"Bearer {ADMIN}"})).json()
        return {":".join(row["key"].split(":")[3:5]) for row in told["entries"]} & ENTRIES

    async def invalidate(self, pattern: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {ADMIN}"}
        return await self.http.post("/cache/invalidate", json={"pattern": pattern}, headers=headers)


@pytest.fixture
async def server(app: App) -> AsyncIterator[Server]:
    async with (
        app.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost") as http,
    ):
        yield Server(http)


@pytest.fixture
async def no_stream_watcher() -> AsyncIterator[None]:
    """Ends the task by which the event-stream library notices a server's shutdown; it lives as long as its loop."""
    yield
    watchers = [task for task in asyncio.all_tasks() if "_shutdown_watcher" in str(task.get_coro())]
    for task in watchers:
        task.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("jobnimbus:*list*", {"jobs:detail"}),
        ("jobnimbus:jobs:*abc", {"jobs:list", "tasks:list"}),
        ("jobnimbus:jo?s:list:*", {"jobs:detail", "tasks:list"}),
        ("jobnimbus:*s:list:*", {"jobs:detail"}),
        ("jobnimbus:*:jnid1???", {"jobs:list", "tasks:list"}),
        ("jobnimbus:{st*}:*tasks*", {"jobs:list", "jobs:detail"}),
        ("jobnimbus:jobs:detail:*nid1*", {"jobs:list", "tasks:list"}),
        ("jobnimbus:{guilford}:*list*", ENTRIES),
        ("jobnimbus:widgets:*", ENTRIES),
        ("jobnimbus:jobs", ENTRIES),
    ],
)
async def test_any_glob_invalidates_the_entries_it_matches_and_no_other(
    server: Server, pattern: str, left: set[str]
) -> None:
    await server.fill()
    assert await server.kept() == ENTRIES
    response = await server.invalidate(pattern)
    assert response.status_code == 200, response.text
    for kind, tool, arguments in (
        ("jobs:list", "get_jobs", {}),
        ("jobs:detail", "get_job", {"job_id": JNID}),
        ("tasks:list", "get_tasks", {}),
    ):
        told = (await server.call(tool, **arguments)).json()["cache"]["status"]
        assert told == ("hit" if kind in left else "miss"), kind


async def test_a_defect_in_a_tool_is_logged_once_by_its_place_and_without_its_message(
    server: Server, jobnimbus: JobNimbus
) -> None:
    jobnimbus.broken = True
    with capture_logs() as lines:
        response = await server.call("get_jobs")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "Whitfield" not in response.text
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert (line["error_type"], line["request_id"]) == ("ValueError", response.headers["x-request-id"])
    assert any("test_whole_app.py" in frame for frame in line["where"])
    assert "Whitfield" not in repr(lines)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("name", list(CALLER))
async def test_over_mcp_a_header_sent_twice_is_told_in_the_result_of_the_call(
    app: App, mode: str, name: str, no_stream_watcher: None
) -> None:
    headers = [*CALLER.items(), (name, CALLER[name])]
    transport = httpx2.ASGITransport(app.asgi)
    async with (
        app.running(),
        app.mcp.http_running(),
        httpx2.AsyncClient(transport=transport, headers=headers) as http,
        Client(streamable_http_client("http://localhost/mcp", http_client=http), mode=mode) as client,
    ):
        result = await client.call_tool("get_jobs", {})
    assert result.is_error
    assert f"The header {name} was sent 2 times: send it once." in result.model_dump_json()
