"""Who may see what: cached data belongs to an account and a credential, and to nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.clock import ManualClock

Row = dict[str, Any]
both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)
INVENTED = "invented-key-0123456789"

READS: list[tuple[str, Row]] = [
    ("get_jobs", {}),
    ("search_jobs", {"query": "leak"}),
    ("get_contacts", {}),
    ("search_contacts", {"query": "an"}),
    ("get_estimates", {}),
    ("get_activities", {}),
    ("get_calendar_activities", {}),
    ("get_tasks", {}),
    ("get_users", {}),
    ("get_attachments", {}),
    ("get_webhooks", {}),
]


class Door(httpx.AsyncBaseTransport):
    """The way to the simulator, at which keys can be turned away and the whole of it shut."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.revoked: set[str] = set()
        self.shut = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.shut:
            raise httpx.ConnectError("down", request=request)
        if request.headers["authorization"].removeprefix("bearer ") in self.revoked:
            return httpx.Response(401, json={"status": 401, "body": "Authentication required"})
        return await self._inner.handle_async_request(request)


@both_eras
async def test_a_key_that_sees_only_its_own_records_sees_no_others_through_a_warm_cache(world: Any, agent: Any) -> None:
    _, restricted = world.sim.keys["stamford"]
    me = world.users()[1]["id"]  # whom the restricted profile acts for

    def own(row: Row) -> bool:
        return row["sales_rep"] == me or {"id": me} in row["owners"]

    async with world.agent(key=restricted) as other:
        for tool, kind in (("get_jobs", "jobs"), ("get_contacts", "contacts"), ("get_estimates", "estimates"),
                           ("get_activities", "activities"), ("get_attachments", "files"),
                           ("get_tasks", "tasks")):  # fmt: skip
            everything = await agent.ask(tool)
            mine = [jnid for page in await other.pages(tool, size=200, fields="jnid") for jnid in page.ids]
            assert set(mine) == world.ids(kind, own), tool
            assert 0 < len(mine) < everything.data["count"] == len(world.has(kind)), tool
            assert (await agent.ask(tool)).data == everything.data, "the narrower view replaced the wider one"
        foreign = next(row for row in world.has("jobs") if not own(row))
        assert (await agent.ask("get_job", job_id=foreign["jnid"])).status == "miss"
        for job_id in (foreign["jnid"], foreign["number"]):
            assert "[not_found," in await other.refused("get_job", job_id=job_id)
        assert (await agent.ask("get_job", job_id=foreign["jnid"])).status == "hit"


async def test_an_invented_key_is_refused_however_warm_the_cache_is(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]["jnid"]
    reads = [*READS, ("get_job", {"job_id": job})]
    for tool, arguments in reads:
        await agent.ask(tool, **arguments)
    async with world.agent(key=INVENTED) as stranger:
        for tool, arguments in reads:
            response = await world.within(world.post(tool, arguments, key=INVENTED))
            assert (response.status_code, response.json()["code"]) == (401, "upstream_unauthorized"), tool
            assert "data" not in response.json()
            assert "[upstream_unauthorized," in await world.within(stranger.refused(tool, **arguments)), tool
    for tool, arguments in reads:
        assert (await agent.ask(tool, **arguments)).status in ("hit", "bypass"), "a stranger cost the owner a hit"


async def test_a_revoked_key_is_refused_after_the_recheck_and_what_it_had_is_gone(open_world: Any, stage: Any) -> None:
    clock, door = ManualClock(), Door(httpx.ASGITransport(stage.sim.app))
    store = MemoryStore(clock)
    async with open_world({"CREDENTIAL_RECHECK_S": "300"}, clock=clock, store=store, transport=door) as world:
        full, restricted = world.sim.keys["stamford"]
        partition = world.app.partitions.of("stamford", full)
        for key in (full, restricted):
            await world.call("get_jobs", key=key)
        await world.call("get_job", job_id="22-1275")
        assert any(partition in key for key in store.names())
        door.revoked.add(full)

        clock.advance(299)
        assert (await world.call("get_jobs")).status == "hit"
        clock.advance(2)
        for _ in range(2):
            response = await world.within(world.post("get_jobs", {}))
            assert (response.status_code, response.json()["code"]) == (401, "upstream_unauthorized")
        assert [key for key in store.names() if partition in key] == []
        assert (await world.call("get_jobs", key=restricted)).status == "hit"

        door.revoked.clear()
        assert (await world.call("get_jobs")).status == "miss"


async def test_a_read_that_had_to_ask_and_was_refused_drops_what_the_key_had(open_world: Any, stage: Any) -> None:
    clock, door = ManualClock(), Door(httpx.ASGITransport(stage.sim.app))
    async with open_world(clock=clock, transport=door) as world:
        await world.call("get_jobs")
        door.revoked.add(world.sim.keys["stamford"][0])
        assert (await world.within(world.post("get_contacts", {}))).status_code == 401
        assert (await world.within(world.post("get_jobs", {}))).status_code == 401


async def test_jobnimbus_being_down_at_the_recheck_refuses_nobody(open_world: Any, stage: Any) -> None:
    clock, door = ManualClock(), Door(httpx.ASGITransport(stage.sim.app))
    async with open_world({"CREDENTIAL_RECHECK_S": "300"}, clock=clock, transport=door) as world:
        kept = await world.call("get_jobs")
        door.shut = True
        clock.advance(301)
        for _ in range(3):
            told = await world.within(world.call("get_jobs"))
            assert (told.status, told.data) == ("hit", kept.data)
        door.shut = False
        door.revoked.add(world.sim.keys["stamford"][0])
        clock.advance(31)
        assert (await world.within(world.post("get_jobs", {}))).status_code == 401


@both_eras
async def test_two_accounts_never_mix_even_under_one_id(world: Any, agent: Any) -> None:
    job = world.has("jobs")[0]
    twin = {**job, "name": "Another account's", "number": "G-1"}
    world.sim.account("guilford")._put("jobs", twin)  # no API makes two accounts give one id

    async with world.agent(instance="guilford") as other:
        for _ in range(2):
            assert (await agent.ask("get_job", job_id=job["jnid"])).data["record"]["name"] == job["name"]
            assert (await other.ask("get_job", job_id=job["jnid"])).data["record"]["name"] == "Another account's"
        await world.sim.change("stamford", "jobs", job["jnid"], {"name": "Changed"})
        assert (await other.ask("get_job", job_id=job["jnid"])).status == "hit"
        assert (await agent.ask("get_job", job_id=job["jnid"])).data["record"]["name"] == "Changed"
        for tool, arguments in READS[:-1]:
            here = {row.get("jnid") or row["id"] for row in (await agent.ask(tool, **arguments)).rows}
            there = {row.get("jnid") or row["id"] for row in (await other.ask(tool, **arguments)).rows}
            assert here.isdisjoint(there), tool


async def test_nothing_grows_with_the_number_of_invented_keys(open_world: Any) -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    async with open_world(clock=clock, store=store) as world:
        questions: list[tuple[str, Row]] = [("get_jobs", {}), ("get_users", {}), ("get_webhooks", {})]
        for tool, arguments in questions:
            await world.call(tool, **arguments)
        keys, held = set(store.names()), world.app.accounts.l1_stats()

        async def try_key(number: int) -> None:
            for tool, arguments in questions:
                response = await world.post(tool, arguments, key=f"invented-key-{number:010}")
                assert response.status_code == 401

        for start in range(0, 200, 50):
            await world.within(asyncio.gather(*(try_key(number) for number in range(start, start + 50))))

        assert set(store.names()) == keys
        assert world.app.accounts.l1_stats() == held


async def test_the_servers_own_key_and_a_callers_are_two_views(open_world: Any, stage: Any) -> None:
    full, restricted = stage.sim.keys["stamford"]
    only = {"JOBNIMBUS_INSTANCES": "stamford", "JOBNIMBUS_API_KEY": full}
    async with open_world({**only, "MCP_AUTH_TOKENS": "t" * 24}) as world:
        body = {"name": "get_jobs", "arguments": {"size": 1}}
        bearer = {"Authorization": f"Bearer {'t' * 24}"}
        count = len(world.has("jobs"))

        async def told(headers: dict[str, str]) -> tuple[int, Any]:
            response = await world.http.post("/mcp/tools/call", json=body, headers=headers)
            return response.status_code, response.json().get("data", {}).get("count")

        assert await told(bearer) == (200, count)
        status, fewer = await told({**bearer, "X-JobNimbus-Api-Key": restricted})
        assert status == 200
        assert fewer < count
        assert await told(bearer) == (200, count)
        assert (await told({}))[0] == 401
        assert (await told({"X-JobNimbus-Api-Key": full}))[0] == 401, "the caller's token is needed as well"
