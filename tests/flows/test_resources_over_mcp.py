"""Records as resources: listed by templates, read as the caller may see them, told fresh or old like any answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import NotAllowed
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.tools.resources import Proof, Resources
from jobnimbus_mcp.tools.server_mcp import CACHE_META

both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)

STORED_AS = {"attachments": "files"}
KINDS = ("jobs", "contacts", "estimates", "invoices", "payments", "products", "activities", "tasks", "workorders",
         "materialorders", "budgets", "attachments", "users")  # fmt: skip
UNDER_A_JOB = ("attachments", "activities", "tasks", "estimates", "invoices", "payments", "workorders",
               "materialorders", "budgets")  # fmt: skip
LISTS = ("jobs/status/{status}", "jobs/owner/{user}", "jobs/tag/{tag}", "contacts/status/{status}",
         "contacts/tag/{tag}")  # fmt: skip
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
async def test_each_kind_and_each_list_has_a_template(agent: Any) -> None:
    templates = (await agent.client.list_resource_templates()).resource_templates
    assert [one.uri_template for one in templates] == [
        *(f"jobnimbus://{{instance}}/{kind}/{{jnid}}" for kind in KINDS),
        *(f"jobnimbus://{{instance}}/jobs/{{jnid}}/{kind}" for kind in UNDER_A_JOB),
        *(f"jobnimbus://{{instance}}/contacts/{{jnid}}/{kind}" for kind in (*UNDER_A_JOB, "jobs")),
        *(f"jobnimbus://{{instance}}/{form}" for form in LISTS),
    ]
    assert len({one.name for one in templates}) == len(templates)
    for one in templates:
        assert one.mime_type == "application/json"
        assert one.name
        assert one.title
        assert one.description


@both_eras
async def test_what_is_there_once_is_listed_for_the_accounts_of_the_caller(world: Any, agent: Any) -> None:
    assert [one.uri for one in (await agent.client.list_resources()).resources] == [
        "jobnimbus://stamford/users",
        "jobnimbus://stamford/settings",
    ]
    users, cache = await record(agent, "jobnimbus://stamford/users")
    assert users["count"] == len([user for user in world.users() if user["is_active"]])
    assert cache["status"] == "miss"
    settings, _ = await record(agent, "jobnimbus://stamford/settings")
    assert {flow["name"] for flow in settings["workflows"]["job"]} <= {
        flow["name"] for flow in world.sim.account("stamford").settings["workflows"]
    }


@both_eras
async def test_a_record_of_every_kind_is_read_as_jobnimbus_has_it(world: Any, agent: Any) -> None:
    for kind in KINDS[:-1]:
        expected = world.has(STORED_AS.get(kind, kind))[0]
        told, _ = await record(agent, f"jobnimbus://stamford/{kind}/{expected['jnid']}")
        assert told["jnid"] == expected["jnid"], kind
        assert told["date_updated"] == expected["date_updated"], kind
    user = world.users()[0]
    told, _ = await record(agent, f"jobnimbus://stamford/users/{user['id']}")
    assert told == user


def hang_on(world: Any, kind: str, jnid: str) -> set[str]:
    return world.ids(STORED_AS.get(kind, kind), lambda row: any(link["id"] == jnid for link in row["related"]))  # type: ignore[no-any-return]  # the world is untyped


async def test_what_hangs_on_a_job_or_contact_is_listed_by_the_tools(world: Any, agent: Any) -> None:
    job = max(world.has("jobs"), key=lambda row: len(hang_on(world, "payments", row["jnid"])))
    contact = job["primary"]["id"]
    for parent, kinds in ((f"jobs/{job['jnid']}", UNDER_A_JOB), (f"contacts/{contact}", (*UNDER_A_JOB, "jobs"))):
        for kind in kinds:
            told, cache = await record(agent, f"jobnimbus://stamford/{parent}/{kind}")
            expected = hang_on(world, kind, parent.partition("/")[2])
            assert {row["jnid"] for row in told["results"]} == expected, (parent, kind)
            assert told["count"] == len(expected)
            assert cache["status"] in ("hit", "miss")
    assert hang_on(world, "payments", job["jnid"]), "nothing was shown"


async def test_a_list_has_what_is_left_of_its_life_and_is_the_tools_own_answer(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    uri = f"jobnimbus://stamford/jobs/{job}/tasks"
    first = await read(agent, uri)
    whole = first.ttl_ms
    assert (first.cache_scope, first.meta[CACHE_META]["status"]) == ("private", "miss")
    world.clock.advance(30)
    again = await read(agent, uri)
    assert (again.ttl_ms, again.meta[CACHE_META]["status"]) == (whole - 30_000, "hit")
    told = await agent.ask("get_tasks", related_to=job, size=100)
    assert told.data == json.loads(again.contents[0].text)
    assert told.status == "hit"


async def test_reads_that_go_side_by_side_in_one_call_keep_their_own_names(world: Any) -> None:
    """A cursor names the tool of the call it was made in."""
    resources = Resources(world.app.toolbox, world.app.identities)
    proof = Proof(world.sim.keys["stamford"][0], "stamford")
    job = world.has("jobs")[0]["jnid"]
    call = Call.begin(world.clock, "r", tool="subscriptions/listen")
    uris = [f"jobnimbus://stamford/jobs/{job}/{kind}" for kind in ("tasks", "activities")]
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(*(resources.read(uri, resources.caller(uri, proof), call) for uri in uris))
    assert call.tool == "subscriptions/listen"


async def test_nothing_hangs_on_what_is_not_there_or_not_to_be_seen(world: Any, agent: Any) -> None:
    assert (await refused(agent, "jobnimbus://stamford/jobs/nosuchrecord000000/tasks")).data["code"] == "not_found"
    _, restricted = world.sim.keys["stamford"]
    me = world.users()[1]["id"]
    foreign = next(row for row in world.has("jobs") if row["sales_rep"] != me and {"id": me} not in row["owners"])
    async with world.agent(key=restricted) as other:
        error = await refused(other, f"jobnimbus://stamford/jobs/{foreign['jnid']}/activities")
    assert (error.code, error.data["code"]) == (INVALID_PARAMS, "not_found")


async def test_lists_by_status_owner_and_tag_hold_what_they_say(world: Any, agent: Any) -> None:
    def told_by(by: str, value: str) -> Any:
        return record(agent, f"jobnimbus://stamford/{by}/{quote(value, safe='')}")

    status = "In Production"
    jobs, _ = await told_by("jobs/status", status.lower())
    meant = world.ids("jobs", lambda row: row["status_name"].casefold() == status.casefold())
    assert jobs["count"] == len(meant) > 0
    assert {row["jnid"] for row in jobs["results"]} <= meant
    user = world.users()[1]
    owned = world.ids("jobs", lambda row: {"id": user["id"]} in row["owners"])
    for spelled in (user["id"], user["email"], f"{user['first_name']} {user['last_name']}"):
        jobs, _ = await told_by("jobs/owner", spelled)
        assert jobs["count"] == len(owned)
        assert {row["jnid"] for row in jobs["results"]} <= owned
    for kind in ("jobs", "contacts"):
        tagged = world.ids(kind, lambda row: "insurance" in row["tags"])
        rows, _ = await told_by(f"{kind}/tag", "Insurance")
        assert rows["count"] == len(tagged) > 0
        assert {row["jnid"] for row in rows["results"]} <= tagged
    error = await refused(agent, "jobnimbus://stamford/jobs/status/Nowhere")
    assert (error.code, error.data["code"]) == (INVALID_PARAMS, "invalid_argument")
    assert status in error.message


async def test_a_token_for_some_tools_reads_no_other_kinds(world: Any) -> None:
    access = Access(tools=frozenset({"get_tasks", "get_users"}))
    toolbox = world.app.toolbox
    resources = Resources(toolbox, world.app.identities)
    assert {one.uri_template.split("/")[3] for one in resources.templates(access)} == {"tasks", "users"}
    proof = Proof(world.sim.keys["stamford"][0], "stamford", access)
    assert [one.uri for one in resources.listed(proof)] == ["jobnimbus://stamford/users"]
    for kind in ("jobs", "tasks"):
        uri = f"jobnimbus://stamford/{kind}/{world.has(kind)[0]['jnid']}"
        call = Call.begin(world.clock, "r")
        if kind == "tasks":
            assert (await resources.read(uri, resources.caller(uri, proof), call)).structured["type"] == "task"
            continue
        with pytest.raises(NotAllowed) as refusal:
            await resources.read(uri, resources.caller(uri, proof), call)
        assert refusal.value.code == "tool_not_allowed"
    elsewhere = replace(proof, access=Access(instances=frozenset({"guilford"})))
    assert [one.uri for one in resources.listed(elsewhere)] == []
    with pytest.raises(NotAllowed):
        resources.caller("jobnimbus://stamford/users", elsewhere)


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
