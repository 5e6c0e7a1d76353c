"""Records as resources: listed by templates, read as the caller may see them, told fresh or old like any answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.tools.server_mcp import CACHE_META

both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)

STORED_AS = {"jobs": "jobs", "contacts": "contacts", "estimates": "estimates", "activities": "activities",
             "tasks": "tasks", "workorders": "workorders", "attachments": "files"}  # fmt: skip
BOUND_S = 10.0


async def read(agent: Any, uri: str) -> Any:
    async with asyncio.timeout(BOUND_S):
        return await agent.client.read_resource(uri, cache_mode="bypass")


async def record(agent: Any, uri: str) -> tuple[Any, Any]:
    result = await read(agent, uri)
    (content,) = result.contents
    assert (content.uri, content.mime_type) == (uri, "application/json")
    return json.loads(content.text), result.meta[CACHE_META]


async def refused(agent: Any, uri: str) -> Any:
    with pytest.raises(MCPError) as caught:
        await read(agent, uri)
    assert caught.value.error.data["uri"] == uri[:200]
    return caught.value.error


@both_eras
async def test_each_kind_has_a_template_and_nothing_is_listed_one_by_one(agent: Any) -> None:
    templates = (await agent.client.list_resource_templates()).resource_templates
    assert [one.uri_template for one in templates] == [
        f"jobnimbus://{{instance}}/{kind}/{{jnid}}"
        for kind in ("jobs", "contacts", "estimates", "activities", "tasks", "workorders", "attachments", "users")
    ]
    for one in templates:
        assert one.mime_type == "application/json"
        assert one.name
        assert one.title
        assert one.description
    assert (await agent.client.list_resources()).resources == []


@both_eras
async def test_a_record_of_every_kind_is_read_as_jobnimbus_has_it(world: Any, agent: Any) -> None:
    for kind, stored in STORED_AS.items():
        expected = world.has(stored)[0]
        told, _ = await record(agent, f"jobnimbus://stamford/{kind}/{expected['jnid']}")
        assert told["jnid"] == expected["jnid"], kind
        assert told["date_updated"] == expected["date_updated"], kind
    user = world.users()[0]
    told, _ = await record(agent, f"jobnimbus://stamford/users/{user['id']}")
    assert told == user


async def test_a_record_is_kept_and_told_with_its_age_and_what_is_left_of_its_life(world: Any, agent: Any) -> None:
    uri = f"jobnimbus://stamford/jobs/{world.has('jobs')[0]['jnid']}"
    first = await read(agent, uri)
    assert first.meta[CACHE_META]["status"] == "miss"
    assert first.cache_scope == "private"
    whole = first.ttl_ms
    assert whole > 0
    world.clock.advance(30)
    again = await read(agent, uri)
    assert again.meta[CACHE_META]["status"] == "hit"
    assert again.meta[CACHE_META]["ageSeconds"] == 30
    assert again.ttl_ms == whole - 30_000
    assert again.contents == first.contents


async def test_a_changed_record_is_read_anew(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    uri = f"jobnimbus://stamford/jobs/{job}"
    await record(agent, uri)
    await world.sim.change("stamford", "jobs", job, {"name": "Changed"})
    told, cache = await record(agent, uri)
    assert (told["name"], cache["status"]) == ("Changed", "miss")


NOTHING = [
    "jobnimbus://stamford/jobs/nosuchrecord000000",
    "jobnimbus://stamford/users/nosuchuser00000000",
    "jobnimbus://stamford/attachments/nosuchfile000000",
    "jobnimbus://stamford/settings/all",
    "jobnimbus://stamford/jobs/..%2Fcontacts",
    "jobnimbus://stamford/jobs/a/b",
    "jobnimbus://stamford/jobs/",
    "jobnimbus://stamford/Jobs/abc123",
    "jobnimbus://stamford/jobs/abc123?x=1",
    "jobnimbus://springfield/jobs/abc123",
    "https://stamford/jobs/abc123",
    "jobnimbus://stamford/jobs/" + "a" * 400,
]


@both_eras
async def test_what_is_not_there_and_what_is_no_uri_is_a_protocol_error(agent: Any) -> None:
    for uri in NOTHING:
        error = await refused(agent, uri)
        assert error.code == INVALID_PARAMS, uri
        assert error.message
        assert error.data["code"] in ("not_found", "invalid_argument"), uri


async def test_the_account_is_the_uris_and_must_be_the_one_the_header_names(world: Any, agent: Any) -> None:
    job = world.has("jobs", instance="guilford")[0]
    uri = f"jobnimbus://guilford/jobs/{job['jnid']}"
    before = world.sim.calls
    assert (await refused(agent, uri)).code == INVALID_PARAMS
    assert world.sim.calls == before
    async with world.agent(instance="guilford") as other:
        assert (await record(other, uri))[0]["jnid"] == job["jnid"]
    assert (await refused(agent, uri)).code == INVALID_PARAMS, "it was served from what another account had cached"


async def test_a_restricted_or_invented_key_reads_nothing_of_others_through_a_warm_cache(
    world: Any, agent: Any
) -> None:
    _, restricted = world.sim.keys["stamford"]
    me = world.users()[1]["id"]
    foreign = next(row for row in world.has("jobs") if row["sales_rep"] != me and {"id": me} not in row["owners"])
    uri = f"jobnimbus://stamford/jobs/{foreign['jnid']}"
    await record(agent, uri)
    async with world.agent(key=restricted) as other:
        error = await refused(other, uri)
        assert (error.code, error.data["code"]) == (INVALID_PARAMS, "not_found")
        assert foreign["name"] not in str(error)
    async with world.agent(key="invented-key-0123456789") as stranger:
        error = await world.within(refused(stranger, uri))
        assert (error.code, error.data["code"]) == (INVALID_REQUEST, "upstream_unauthorized")
    assert (await record(agent, uri))[1]["status"] == "hit"


async def test_without_a_key_a_caller_is_told_which_header_to_send(world: Any) -> None:
    response = await world.http.post(
        "/mcp",
        json={
            "jsonrpc": "2.0",
            "id": 1,
            "method": "resources/read",
            "params": {
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
                "uri": "jobnimbus://stamford/jobs/abc123",
            },
        },
        headers={
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "resources/read",
            "mcp-name": "jobnimbus://stamford/jobs/abc123",
        },
    )
    error = response.json()["error"]
    assert (error["code"], error["data"]["code"]) == (INVALID_REQUEST, "missing_credential")
    assert "X-JobNimbus-Api-Key" in error["message"]
    assert error["data"]["requestId"] == response.headers["x-request-id"]


class Shut(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("down", request=request)


async def test_jobnimbus_being_away_is_not_the_callers_fault(open_world: Any) -> None:
    async with open_world(clock=ManualClock(), transport=Shut()) as world, world.agent() as agent:
        error = await world.within(refused(agent, "jobnimbus://stamford/jobs/abc123"))
        assert (error.code, error.data["code"]) == (INTERNAL_ERROR, "upstream_unreachable")


async def test_reads_of_resources_are_counted_with_the_calls(world: Any, agent: Any) -> None:
    uri = f"jobnimbus://stamford/contacts/{world.has('contacts')[0]['jnid']}"
    await record(agent, uri)
    await record(agent, uri)
    lines = [line for line in world.logged.entries if line.get("tool") == "resources/read"]
    assert [(line["outcome"], line["status"]) for line in lines] == [("ok", "miss"), ("ok", "hit")]
    counted = world.app.tally.since_start("stamford")
    assert counted["hits|entity|contacts"] == 1
    assert counted["misses|tool|resources/read"] == 1
