"""What a token bounds is bound on every road: over HTTP and over MCP, for tools, resources and subscriptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_REQUEST
from served import served

BOUND_S = 20.0
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])

FULL = "full-token-0123456789"
FIELD, PAIR, LOOK, SLOW = (f"{name}-token-0123456789" for name in ("field", "pair", "look", "slow"))
CLIENTS = [
    {"name": "field", "token": FIELD, "instances": ["stamford"], "toolsets": ["work"]},
    {"name": "pair", "token": PAIR, "tools": ["get_jobs", "get_users"]},
    {"name": "look", "token": LOOK, "toolsets": ["all"], "read_only": True},
    {"name": "slow", "token": SLOW, "toolsets": ["crm"], "requests_per_minute": 3},
]
SETTINGS = {"MCP_AUTH_TOKENS": FULL, "MCP_CLIENTS": json.dumps(CLIENTS)}
META = {"find_tools", "use_tool"}


@pytest.fixture
async def guarded(open_world: Any) -> AsyncIterator[Any]:
    async with open_world(SETTINGS) as world:
        yield world


def headers(world: Any, token: str, instance: str = "stamford") -> dict[str, str]:
    return {**world.headers(None, instance), "Authorization": f"Bearer {token}"}


async def call(world: Any, token: str, tool: str, instance: str = "stamford", **arguments: Any) -> Any:
    body = {"name": tool, "arguments": arguments}
    async with asyncio.timeout(BOUND_S):
        return await world.http.post("/mcp/tools/call", json=body, headers=headers(world, token, instance))


async def over_http(world: Any, token: str) -> list[Any]:
    async with asyncio.timeout(BOUND_S):
        response = await world.http.post("/mcp/tools/list", json={}, headers=headers(world, token))
    assert response.status_code == 200
    tools: list[Any] = response.json()["tools"]
    return tools


@asynccontextmanager
async def connected(
    world: Any, token: str, mode: str = "2026-07-28", instance: str = "stamford"
) -> AsyncIterator[Client]:
    transport = httpx2.ASGITransport(world.app.asgi)
    async with (
        asyncio.timeout(BOUND_S),
        httpx2.AsyncClient(transport=transport, headers=headers(world, token, instance)) as http,
        Client(streamable_http_client("http://localhost/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def expected(world: Any, token: str) -> set[str]:
    """By the settings alone."""
    specs = world.app.toolbox.specs
    if token == FIELD:
        return {spec.name for spec in specs if spec.toolset == "work"} | META
    if token == PAIR:
        return {"get_jobs", "get_users"} | META
    return {spec.name for spec in specs if not spec.effect.writes} | META


@ERAS
async def test_a_client_sees_exactly_its_tools_the_same_over_mcp_and_over_http(guarded: Any, mode: str) -> None:
    for token in (FIELD, PAIR, LOOK):
        async with connected(guarded, token, mode) as client:
            listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == expected(guarded, token)
        assert {tool["name"] for tool in await over_http(guarded, token)} == expected(guarded, token)


async def test_a_client_s_tools_work_and_others_are_a_403_and_so_over_use_tool(guarded: Any) -> None:
    assert (await call(guarded, PAIR, "get_jobs", size=1)).status_code == 200
    for refused in (
        await call(guarded, PAIR, "get_contacts"),
        await call(guarded, PAIR, "use_tool", name="get_contacts", arguments={}),
        await call(guarded, FIELD, "get_jobs"),
    ):
        told = refused.json()
        assert (refused.status_code, told["code"], told["field"]) == (403, "tool_not_allowed", "name")
    assert (await call(guarded, FULL, "get_contacts", size=1)).status_code == 200


@ERAS
async def test_over_mcp_what_is_not_a_client_s_is_an_error_it_can_read(guarded: Any, mode: str) -> None:
    async with connected(guarded, PAIR, mode) as client:
        assert not (await client.call_tool("get_jobs", {"size": 1})).is_error
        for name, arguments in (("get_contacts", {}), ("use_tool", {"name": "get_contacts", "arguments": {}})):
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert "[tool_not_allowed, request " in result.content[0].text
            assert "get_contacts" in result.content[0].text
    before = guarded.sim.calls
    async with connected(guarded, FIELD, mode, "guilford") as client:
        result = await client.call_tool("get_tasks", {})
        assert result.is_error
        assert "[instance_not_allowed, request " in result.content[0].text
    assert guarded.sim.calls == before


async def test_an_account_that_is_not_a_client_s_is_a_403_and_its_only_one_need_not_be_named(guarded: Any) -> None:
    refused = await call(guarded, FIELD, "get_tasks", "guilford")
    assert (refused.status_code, refused.json()["code"]) == (403, "instance_not_allowed")
    assert guarded.sim.calls == 0
    named = headers(guarded, FIELD)
    del named["X-JobNimbus-Instance"]
    body = {"name": "get_tasks", "arguments": {"size": 1}}
    assert (await guarded.http.post("/mcp/tools/call", json=body, headers=named)).status_code == 200


async def test_a_client_that_may_only_read_is_refused_every_tool_that_writes(guarded: Any) -> None:
    writing = [spec.name for spec in guarded.app.toolbox.specs if spec.effect.writes]
    assert writing
    for name in writing:
        refused = await call(guarded, LOOK, name)
        assert (refused.status_code, refused.json()["code"]) == (403, "read_only")
    async with connected(guarded, LOOK) as client:
        result = await client.call_tool("use_tool", {"name": writing[0], "arguments": {}})
    assert "[read_only, request " in result.content[0].text
    assert guarded.sim.calls == 0


@ERAS
async def test_resources_are_read_only_where_the_token_reaches(guarded: Any, mode: str) -> None:
    job, task = guarded.has("jobs")[0]["jnid"], guarded.has("tasks")[0]["jnid"]
    elsewhere = guarded.has("tasks", instance="guilford")[0]["jnid"]
    async with connected(guarded, FIELD, mode) as client:
        (content,) = (await client.read_resource(f"jobnimbus://stamford/tasks/{task}")).contents
        assert json.loads(content.text)["jnid"] == task
        before = guarded.sim.calls
        with pytest.raises(MCPError) as tool:
            await client.read_resource(f"jobnimbus://stamford/jobs/{job}")
        assert (tool.value.error.code, tool.value.error.data["code"]) == (INVALID_REQUEST, "tool_not_allowed")
    async with connected(guarded, FIELD, mode, "guilford") as client:
        with pytest.raises(MCPError) as account:
            await client.read_resource(f"jobnimbus://guilford/tasks/{elsewhere}")
        assert (account.value.error.code, account.value.error.data["code"]) == (INVALID_REQUEST, "instance_not_allowed")
    assert guarded.sim.calls == before


async def test_subscriptions_are_granted_only_where_the_token_reaches(guarded: Any) -> None:
    job, task = guarded.has("jobs")[0]["jnid"], guarded.has("tasks")[0]["jnid"]
    bearing = SimpleNamespace(app=guarded.app, headers=lambda key, instance: headers(guarded, FIELD, instance))
    async with served(bearing) as connect:
        async with connect() as client, asyncio.timeout(BOUND_S):
            granted = f"jobnimbus://stamford/tasks/{task}"
            async with client.listen(resource_subscriptions=[granted]) as subscription:
                assert subscription.honored.resource_subscriptions == [granted]
            with pytest.raises(MCPError) as tool:
                async with client.listen(resource_subscriptions=[f"jobnimbus://stamford/jobs/{job}"]):
                    raise AssertionError("it was granted")
            assert tool.value.error.data["code"] == "tool_not_allowed"
        async with connect(instance="guilford") as client, asyncio.timeout(BOUND_S):
            other = guarded.has("tasks", instance="guilford")[0]["jnid"]
            with pytest.raises(MCPError) as account:
                async with client.listen(resource_subscriptions=[f"jobnimbus://guilford/tasks/{other}"]):
                    raise AssertionError("it was granted")
            assert account.value.error.data["code"] == "instance_not_allowed"


async def test_a_stranger_gets_nothing_on_any_road(guarded: Any) -> None:
    for path in ("/mcp", "/mcp/tools/list", "/mcp/tools/call"):
        for named in (guarded.headers(), headers(guarded, "wrong-token-0123456789")):
            response = await guarded.http.post(path, json={"name": "get_jobs"}, headers=named)
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
    assert guarded.sim.calls == 0


async def test_a_client_over_its_limit_is_told_when_to_come_again_and_others_go_on(guarded: Any) -> None:
    left = [(await call(guarded, SLOW, "get_jobs", size=1)).headers["x-ratelimit-remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    limited = await call(guarded, SLOW, "get_jobs", size=1)
    assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
    told = {name: limited.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")}
    assert (told, limited.headers["retry-after"]) == ({"limit": "3", "remaining": "0", "reset": "60"}, "20")

    other = await call(guarded, PAIR, "get_jobs", size=1)
    assert other.status_code == 200
    assert "x-ratelimit-limit" not in other.headers

    guarded.clock.advance(20)
    assert (await call(guarded, SLOW, "get_jobs", size=1)).status_code == 200
    assert (await call(guarded, SLOW, "get_jobs", size=1)).status_code == 429


async def test_over_mcp_a_client_over_its_limit_gets_an_error_that_says_so(guarded: Any) -> None:
    async with connected(guarded, SLOW) as client:

        async def on_and_on() -> None:
            for _ in range(4):
                await client.call_tool("get_jobs", {"size": 1})

        with pytest.raises(MCPError) as limited:
            await on_and_on()
        error = limited.value.error
        assert (error.code, error.data["code"], error.data["retryAfterSeconds"]) == (INTERNAL_ERROR, "rate_limited", 20)
        assert error.message == "You may make 3 requests a minute, and have made them. Try again in 20 seconds."
        guarded.clock.advance(60)
        assert not (await client.call_tool("get_jobs", {"size": 1})).is_error


async def test_the_server_s_own_limit_is_that_of_callers_without_one(open_world: Any) -> None:
    async with open_world({"CALLER_MAX_REQUESTS_PER_MINUTE": "2"}) as world:
        for key in world.sim.keys["stamford"]:
            asked = [await world.post("get_jobs", {"size": 1}, key=key) for _ in range(3)]
            assert [response.status_code for response in asked] == [200, 200, 429]
        assert (await world.post("get_jobs", {"size": 1}, instance="guilford")).status_code == 200
