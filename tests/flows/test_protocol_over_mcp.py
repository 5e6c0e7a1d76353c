"""What every tool has in common: how tools are listed, what is refused, and how JobNimbus's failures are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import httpx2
import pytest
from faces import Doorkeeper, face_of
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.tools.server_mcp import INSTRUCTIONS, INSTRUCTIONS_UNHEARD

Row = dict[str, Any]
both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)

TOOLS = (
    *("get_jobs", "search_jobs", "get_job", "get_contacts", "search_contacts", "get_estimates", "get_activities"),
    *("get_calendar_activities", "get_tasks", "get_users", "get_attachments", "get_webhooks"),
)
COMMON = {"size", "cursor", "from", "fields", "verbosity", "format", "known_version", "max_age_s"}
SORT = {"sort_by", "order"}
ARGUMENTS = {
    "get_jobs": COMMON | SORT | {"status", "record_type", "sales_rep", "owner_id", "contact_id", "date_from", "date_to",
                                 "updated_since", "scheduled_from", "scheduled_to", "has_schedule", "is_archived"},
    "get_job": {"job_id", "fields", "verbosity", "known_version", "max_age_s"},
    "get_contacts": COMMON | SORT | {"status", "record_type", "sales_rep", "owner_id", "date_from", "date_to",
                                     "updated_since"},
    "get_estimates": COMMON | SORT | {"job_id", "contact_id", "status", "date_from", "date_to", "sent_from", "sent_to",
                                      "approved_from", "approved_to"},
    "get_activities": COMMON | SORT | {"job_id", "contact_id", "related_to", "activity_type", "created_by", "date_from",
                                       "date_to"},
    "get_calendar_activities": COMMON | {"date_from", "date_to", "owner_id"},
    "get_tasks": COMMON | SORT | {"job_id", "contact_id", "related_to", "owner_id", "is_completed", "overdue",
                                  "priority", "record_type", "date_from", "date_to"},
    "get_users": COMMON | SORT | {"active_only"},
    "get_attachments": COMMON | SORT | {"job_id", "contact_id", "related_to", "file_type", "date_from", "date_to"},
    "get_webhooks": set(),
}  # fmt: skip
ARGUMENTS["search_jobs"] = ARGUMENTS["get_jobs"] | {"query"}
ARGUMENTS["search_contacts"] = ARGUMENTS["get_contacts"] | {"query"}


@both_eras
async def test_the_same_few_tools_are_listed_over_mcp_and_over_http(world: Any, agent: Any) -> None:
    result = await agent.client.list_tools()
    over_mcp = {tool.name: tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in result.tools}
    plain = (await world.http.post("/mcp/tools/list", json={}, headers=world.headers())).json()["tools"]
    over_http = {tool["name"]: tool for tool in plain}

    assert [tool.name for tool in result.tools] == [tool["name"] for tool in plain]
    assert over_mcp == over_http
    assert set(TOOLS) <= set(over_http)
    assert len(over_http) < 25
    assert len(json.dumps(plain, separators=(",", ":"))) < 48_000
    for name, tool in over_http.items():
        assert tool["title"]
        assert tool["description"]
        schema = tool["inputSchema"]
        assert set(schema["properties"]) >= ARGUMENTS.get(name, set()), name
        assert name not in ARGUMENTS or schema.get("required", []) == (["job_id"] if name == "get_job" else []), name
        assert schema["additionalProperties"] is False
        hints = tool["annotations"]
        assert hints["title"] == tool["title"]
        effect = world.app.toolbox.spec(name).effect.value
        assert hints["readOnlyHint"] is (effect == "read" and name != "use_tool"), name
        assert hints["readOnlyHint"] or name.partition("_")[0] not in ("get", "search", "find"), name
        if hints["readOnlyHint"]:
            assert (hints["destructiveHint"], hints["idempotentHint"]) == (False, True)


@both_eras
async def test_tools_that_are_not_listed_can_be_called_by_name_or_through_use_tool(world: Any, agent: Any) -> None:
    listed = {tool.name for tool in (await agent.client.list_tools()).tools}
    name = next(spec.name for spec in world.app.toolbox.specs if spec.name not in listed and spec.plan is not None)
    direct = await agent.ask(name)
    used = await agent.ask("use_tool", name=name, arguments={})
    assert {**used.data, "as_of": ""} == {**direct.data, "as_of": ""}
    text = await agent.refused("use_tool", name="get_nothing", arguments={})
    assert "[unknown_tool, request " in text
    assert "find_tools" in text
    assert "[invalid_argument, request " in await agent.refused("use_tool", name="use_tool", arguments={})


@asynccontextmanager
async def let_in(world: Any, access: Access, mode: str = "2026-07-28") -> AsyncIterator[Client]:
    face = face_of(world.app)
    door = Doorkeeper(face.http_app(max_body_bytes=1_000_000), access)
    headers = {"X-JobNimbus-Api-Key": world.sim.keys["stamford"][0]}
    async with (
        face.http_running(),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(door), headers=headers) as http,
        Client(streamable_http_client("http://localhost/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def test_what_came_in_by_no_door_is_told_nothing(world: Any) -> None:
    face = face_of(world.app)
    app = face.http_app(max_body_bytes=1_000_000)
    async with (
        face.http_running(),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http,
        Client(streamable_http_client("http://localhost/mcp", http_client=http), mode="2026-07-28") as client,
    ):
        with pytest.raises(MCPError):
            await client.list_tools()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_token_sees_and_uses_its_own_tools_and_accounts(world: Any, mode: str) -> None:
    access = Access(client="desk", instances=frozenset({"stamford"}), tools=frozenset({"get_jobs"}), read_only=True)
    async with let_in(world, access, mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "get_jobs" in names
        assert names <= {"get_jobs", "find_tools", "use_tool"}
        told = await client.call_tool("get_jobs", {})
        assert told.structured_content["count"] == len(world.has("jobs")), "its only account is meant"
        for name, arguments in (
            ("get_users", {}),
            ("use_tool", {"name": "get_users", "arguments": {}}),
        ):
            refused = await client.call_tool(name, arguments)
            assert refused.is_error
            assert "[tool_not_allowed, request " in refused.content[0].text
        with pytest.raises(MCPError) as caught:
            await client.read_resource("jobnimbus://guilford/users")
        assert (caught.value.error.code, caught.value.error.data["code"]) == (-32600, "instance_not_allowed")
        assert [one.name for one in (await client.list_prompts()).prompts] == ["daily_pipeline_review"]


async def test_lists_of_what_is_offered_may_be_shared_by_those_who_see_the_same(world: Any) -> None:
    for access, scope in (
        (EVERYTHING, "public"),
        (Access(client="desk"), "public"),
        (Access(read_only=True), "private"),
    ):
        async with let_in(world, access) as client:
            for result in (
                await client.list_tools(),
                await client.list_prompts(),
                await client.list_resource_templates(),
            ):
                assert (result.cache_scope, result.ttl_ms) == (scope, 3_600_000)
            assert (await client.list_resources()).cache_scope == "private"


@pytest.mark.parametrize(
    ("agent", "told"), [("legacy", INSTRUCTIONS_UNHEARD), ("auto", INSTRUCTIONS)], indirect=["agent"]
)
async def test_instructions_say_in_short_how_to_find_read_and_write(agent: Any, told: str) -> None:
    text = agent.client.instructions
    assert text == told
    assert len(text) <= 1_500
    # nobody is told to subscribe who is offered no subscriptions
    assert ("subscribe" in text) is bool(agent.client.server_capabilities.resources.subscribe)
    for word in ("find_tools", "use_tool", "max_age_s", "next_cursor", "confirm: true", "idempotency_key"):
        assert word in text


@both_eras
async def test_an_unknown_tool_is_a_protocol_error_and_over_http_not_found(world: Any, agent: Any) -> None:
    with pytest.raises(MCPError) as refused:
        await agent.result("get_nothing")
    assert refused.value.error.code == -32602
    response = await world.post("get_nothing", {})
    assert (response.status_code, response.json()["code"]) == (404, "unknown_tool")
    assert world.sim.calls == 0


@both_eras
async def test_an_unknown_argument_is_refused_by_name_with_those_there_are(world: Any, agent: Any) -> None:
    for tool in TOOLS:
        text = await agent.refused(tool, colour="red")
        assert "colour" in text, tool
        assert all(name in text for name in ARGUMENTS[tool]), tool
        response = await world.post(tool, {"colour": "red"})
        told = response.json()
        assert (response.status_code, told["code"], told["field"]) == (400, "invalid_argument", "colour"), tool
    assert world.sim.calls == 0


@both_eras
async def test_every_tool_answers_and_says_how_fresh_it_is(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    for tool in TOOLS:
        told = await agent.ask(tool, **({"job_id": job} if tool == "get_job" else {}))
        assert {"status", "tier", "ageSeconds", "ttlSeconds", "asOf", "consistency"} <= set(told.cache), tool
        assert told.cache["consistency"] == "barrier"
        assert told.data["as_of"]
        expected = {"get_webhooks": "bypass"}.get(tool)
        if tool in ("search_jobs", "search_contacts", "get_users"):
            expected = "hit"  # without a query they are the lists already read; the users named the owners of others
        assert told.status == (expected or "miss"), tool
        plain = await world.call(tool, **({"job_id": job} if tool == "get_job" else {}))
        as_of = {key: value for key, value in plain.data.items() if key != "as_of"}
        assert as_of == {key: value for key, value in told.data.items() if key != "as_of"}, tool
        assert plain.status == ("bypass" if tool == "get_webhooks" else "hit"), tool


async def test_an_argument_that_is_null_is_one_left_out(world: Any, agent: Any) -> None:
    for tool in TOOLS:
        if tool in ("get_job", "get_webhooks"):
            continue
        plain = await agent.ask(tool)
        schema = next(told for told in world.app.toolbox.listing() if told["name"] == tool)["inputSchema"]
        optional = {name for name, told in schema["properties"].items() if told.get("default") is None}
        assert {"cursor", "from", "fields", "max_age_s"} <= optional
        assert (await agent.ask(tool, **dict.fromkeys(optional))).data == plain.data, tool
    job = {"job_id": world.has("jobs")[0]["jnid"]}
    assert (await agent.ask("get_job", **job)).data == (
        await agent.ask("get_job", max_age_s=None, fields=None, **job)
    ).data


async def test_max_age_zero_asks_jobnimbus_now_and_keeps_its_answer_for_others(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    reads: list[tuple[str, Row]] = [
        ("get_job", {"job_id": job}), ("get_jobs", {}), ("search_jobs", {"query": "leak"}), ("get_contacts", {}),
        ("search_contacts", {"query": "an"}), ("get_estimates", {}), ("get_activities", {}),
        ("get_calendar_activities", {}), ("get_tasks", {}), ("get_users", {}), ("get_attachments", {}),
    ]  # fmt: skip
    for tool, arguments in reads:
        await agent.ask(tool, **arguments)
        world.clock.advance(5)
        before = world.sim.calls
        now = await agent.ask(tool, max_age_s=0, **arguments)
        assert (now.status, now.cache["tier"], now.cache["ageSeconds"]) == ("bypass", "upstream", 0), tool
        assert world.sim.calls > before, tool
        asked = world.sim.calls
        world.clock.advance(5)
        kept = await agent.ask(tool, **arguments)
        assert (kept.status, kept.cache["ageSeconds"]) == ("hit", 5), tool
        assert (await agent.ask(tool, max_age_s=5, **arguments)).status == "hit", tool
        assert world.sim.calls == asked, tool
        assert (await agent.ask(tool, max_age_s=4, **arguments)).status == "miss", tool


async def test_a_malformed_call_over_http_is_refused_by_name(world: Any) -> None:
    for body, field in (
        ({"arguments": {}}, "name"),
        ({"name": "", "arguments": {}}, "name"),
        ({"name": 5}, "name"),
        ({"name": "get_jobs", "arguments": []}, "arguments"),
        ({"name": "get_jobs", "arguments": "x"}, "arguments"),
    ):
        response = await world.http.post("/mcp/tools/call", json=body, headers=world.headers())
        assert (response.status_code, response.json()["field"]) == (400, field), body
    assert (await world.http.post("/mcp/tools/call", json={"name": "get_users"}, headers=world.headers())).is_success


# -- what JobNimbus's failures become --------------------------------------------------------------

FAILURES: list[tuple[str, Row, int, str]] = [
    ("401", {"status": 401}, 401, "upstream_unauthorized"),
    ("403", {"status": 403}, 403, "upstream_forbidden"),
    ("404", {"status": 404}, 404, "not_found"),
    ("429", {"status": 429}, 429, "upstream_rate_limited"),
    ("429 with a date to come back", {"retryAfter": 2}, 429, "upstream_rate_limited"),
    ("429 with one beyond the call's time", {"retryAfter": 120}, 429, "upstream_rate_limited"),
    ("400", {"status": 400}, 502, "upstream_rejected"),
    ("500", {"status": 500}, 502, "upstream_error"),
    ("503", {"status": 503}, 502, "upstream_error"),
    ("too slow", {"latencyMs": 60_000}, 502, "upstream_timeout"),
    ("the web app's page", {"status": 200}, 502, "upstream_unreadable"),
    ("half an answer", {"truncate": True}, 502, "upstream_unreadable"),
]


@pytest.mark.parametrize(("fault", "status", "code"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
async def test_a_failure_of_jobnimbus_is_told_in_time_and_never_kept(
    world: Any, agent: Any, fault: Row, status: int, code: str
) -> None:
    job = world.has("jobs")[0]["jnid"]
    for tool, arguments in (("get_jobs", {}), ("get_job", {"job_id": job}), ("search_contacts", {"query": "an"})):
        await world.fault(**fault)
        response = await world.within(world.post(tool, arguments))
        told = response.json()
        assert (response.status_code, told["code"]) == (status, code), tool
        assert set(told) == {"error", "code", "requestId"}
        assert ("retry-after" in response.headers) is (status == 429)
        if fault.get("retryAfter") == 120:
            assert float(response.headers["retry-after"]) == 120

        text = await world.within(agent.refused(tool, **arguments))
        assert f"[{code}, request " in text
        assert told["error"] in text

        world.sim.reset()
        if status == 404:
            world.clock.advance(31)  # that a record is not there is an answer, kept for half a minute
        good = await world.within(agent.ask(tool, **arguments))
        assert good.status == "miss", "a failure was kept"


async def test_a_failure_that_passes_is_not_told_at_all(world: Any, agent: Any) -> None:
    for fault in ({"status": 500}, {"status": 429}, {"retryAfter": 2}, {"truncate": True}, {"status": 200}):
        await world.fault(times=2, **fault)
        told = await world.within(agent.ask("get_jobs", max_age_s=0, verbosity="raw"))
        assert told.data["count"] == len(world.has("jobs"))
        assert world.sim.calls == 3
        world.sim.reset()


class Unreachable(httpx.AsyncBaseTransport):
    """A network without JobNimbus in it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route to host", request=request)


async def test_no_way_to_jobnimbus_is_a_bad_gateway(open_world: Any) -> None:
    async with open_world(transport=Unreachable()) as world:
        response = await world.within(world.post("get_jobs", {}))
        assert (response.status_code, response.json()["code"]) == (502, "upstream_unreachable")
        assert "no route" not in response.text


async def test_a_used_up_request_budget_is_429_with_a_time_to_come_back(open_world: Any) -> None:
    async with open_world({"JOBNIMBUS_MAX_REQUESTS_PER_S": "1"}) as world:
        refused = []
        for number in range(30):
            response = await world.within(world.post("get_jobs", {"from": number * 100, "max_age_s": 0}))
            if response.status_code != 200:
                refused.append(response)
        assert refused == [], "one by one the budget is only waited for"

        async with asyncio.TaskGroup() as group:
            posts = [group.create_task(world.post("get_jobs", {"max_age_s": 0})) for _ in range(20)]
            await world.within(asyncio.gather(*posts))
        answers = [post.result() for post in posts]
        refused = [response for response in answers if response.status_code == 429]
        assert refused
        assert {response.json()["code"] for response in refused} == {"request_budget_exhausted"}
        assert all(float(response.headers["retry-after"]) >= 1 for response in refused)
        assert any(response.status_code == 200 for response in answers)


@both_eras
async def test_credentials_are_asked_for_and_checked_the_same_by_both_doors(world: Any, agent: Any) -> None:
    cases: list[tuple[dict[str, str], int, str]] = [
        ({"X-JobNimbus-Instance": "stamford"}, 401, "missing_credential"),
        ({"X-JobNimbus-Api-Key": "short", "X-JobNimbus-Instance": "stamford"}, 400, "invalid_argument"),
        ({"X-JobNimbus-Api-Key": "k" * 40, "X-JobNimbus-Instance": "springfield"}, 400, "invalid_argument"),
        ({"X-JobNimbus-Api-Key": "k" * 40}, 400, "invalid_argument"),
    ]
    for headers, status, code in cases:
        response = await world.http.post("/mcp/tools/call", json={"name": "get_users"}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (status, code), headers
    assert world.sim.calls == 0
    async with world.agent(key="invented-key-0123456789") as stranger:
        assert "[upstream_unauthorized," in await stranger.refused("get_users")


# -- get_webhooks ----------------------------------------------------------------------------------

KINDS = {"Contact", "Job", "Task", "Work Order", "Material Order", "Attachment", "Activity", "Estimate", "Invoice",
         "Payment"}  # fmt: skip


@both_eras
async def test_get_webhooks_tells_one_url_per_kind_and_scenario_without_the_secret(world: Any, agent: Any) -> None:
    told = await agent.ask("get_webhooks")

    hooks = told.data["webhooks"]
    pairs = [(hook["record_kind"], hook["scenario"]) for hook in hooks]
    assert len(pairs) == len(set(pairs)) == 30
    assert {kind for kind, _ in pairs} == KINDS
    assert {scenario for _, scenario in pairs} == {"Created", "Modified", "Deleted"}
    for hook in hooks:
        url = httpx.URL(hook["url"])
        assert (url.path, url.params["instance"]) == ("/webhooks/jobnimbus", "stamford")
        assert hook["method"] == "POST"
    assert told.data["enabled"] is True
    assert "hook-secret" not in json.dumps(told.data)
    assert "<WEBHOOK_SECRET>" in hooks[0]["url"]


async def test_get_webhooks_counts_what_arrived_when(world: Any, agent: Any) -> None:
    def heard(told: Any) -> dict[str, set[tuple[int, Any]]]:
        found: dict[str, set[tuple[int, Any]]] = {}
        for hook in told.data["webhooks"]:
            at = hook["last_received_at"]
            moment = None if at is None else datetime.fromisoformat(at).timestamp()
            found.setdefault(hook["record_kind"], set()).add((hook["received_of_this_kind"], moment))
        return found

    assert heard(await agent.ask("get_webhooks")) == {kind: {(0, None)} for kind in KINDS}
    job = world.has("jobs")[0]["jnid"]
    for _ in range(2):
        world.clock.advance(10)
        response = await world.webhook({"event": "job.updated", "resource_type": "job", "resource_id": job})
        assert response.status_code == 200

    told = heard(await agent.ask("get_webhooks"))

    assert told.pop("Job") == {(2, world.clock.now())}
    assert told == {kind: {(0, None)} for kind in KINDS - {"Job"}}
    async with world.agent(instance="guilford") as other:
        assert heard(await other.ask("get_webhooks"))["Job"] == {(0, None)}, "another account's deliveries were counted"


async def test_get_webhooks_checks_the_credential_and_remembers_it_for_a_while(open_world: Any) -> None:
    async with open_world({"CREDENTIAL_RECHECK_S": "100"}) as world, world.agent() as agent:
        for _ in range(3):
            await agent.ask("get_webhooks")
        assert world.sim.calls == 1
        world.clock.advance(101)
        await agent.ask("get_webhooks")
        assert world.sim.calls == 2
        async with world.agent(key="invented-key-0123456789") as stranger:
            assert "[upstream_unauthorized," in await stranger.refused("get_webhooks")
        response = await world.post("get_webhooks", {}, key="invented-key-0123456789")
        assert (response.status_code, response.json()["code"]) == (401, "upstream_unauthorized")


async def test_get_webhooks_names_the_host_this_server_is_reached_by(open_world: Any) -> None:
    async with (
        open_world({"ALLOWED_HOSTS": "localhost,crm.example.com", "WEBHOOK_SECRET": ""}) as world,
        world.agent() as agent,
    ):
        told = await agent.ask("get_webhooks")
        assert {httpx.URL(hook["url"]).host for hook in told.data["webhooks"]} == {"crm.example.com"}
        assert told.data["enabled"] is False
        assert told.cache["consistency"] == "ttl"
