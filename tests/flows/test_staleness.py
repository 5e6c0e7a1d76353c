"""What callers are told when an answer is not the newest: stale by time, dirty by event, lagging, and refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.clock import ManualClock

ADMIN = {"Authorization": "Bearer admin-token-0123456789"}
SERVER_TOKEN = "caller-token-0123456789"
LIFE_S = 1_000
KEPT = {
    "CACHE_TTL_JOBS": str(LIFE_S),
    "CACHE_STALE_WHILE_REVALIDATE_S": "60",
    "CACHE_STALE_IF_ERROR_S": "1800",
    "CACHE_SOFT_TIMEOUT_MS": "2000",
}
"""Lifetimes without surprises; random01 is one half, so nothing is jittered."""

BRIEF = KEPT | {"CACHE_SOFT_TIMEOUT_MS": "40"}
"""The soft time-out is of real time, while the simulator's latency waits for the test's clock."""

WHILE_FETCHED = "past its lifetime; being fetched anew"
FAILED = "past its lifetime; JobNimbus could not be asked"
SLOW = "past its lifetime; JobNimbus has not answered yet"


class Door(httpx.AsyncBaseTransport):
    """The way to JobNimbus: keys can be revoked at it, and it can be made to answer something else for a while."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.revoked: set[str] = set()
        self.instead: tuple[int, str] | None = None
        self.knocks = 0
        self.gate: asyncio.Event | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.knocks += 1
        if self.gate is not None:
            await self.gate.wait()
        if request.headers["authorization"].rpartition(" ")[2] in self.revoked:
            return httpx.Response(401, request=request)
        if self.instead is not None:
            status, body = self.instead
            return httpx.Response(status, text=body, request=request)
        return await self._inner.handle_async_request(request)


async def settled() -> None:
    """What goes on behind an answer has ended, as far as no clock has to move."""
    for _ in range(300):
        await asyncio.sleep(0)


async def passes(world: Any, seconds: float) -> None:
    """Time goes by with everybody awake, so that leases are renewed."""
    till = world.clock.monotonic() + seconds
    step_s = 0.25 if seconds < 20 else seconds / 50
    while world.clock.monotonic() < till - 1e-9:
        world.clock.advance(min(step_s, till - world.clock.monotonic()))
        await settled()


async def stats(world: Any) -> dict[str, Any]:
    response = await world.http.get("/cache/stats", headers=ADMIN)
    assert response.status_code == 200
    metrics: dict[str, Any] = response.json()["metrics"]
    return metrics


async def entries(world: Any, **query: Any) -> Any:
    return await world.http.get("/cache/entries", params={"instance": "stamford", **query}, headers=ADMIN)


def of(world: Any) -> str:
    """The job that lists show first."""
    return str(max(world.has("jobs"), key=lambda row: (row["date_created"], row["recid"]))["jnid"])


async def change_unheard(world: Any, job: str, text: str) -> None:
    await world.sim.change("stamford", "jobs", job, {"description": text}, webhook=False)


async def test_past_its_lifetime_an_answer_comes_at_once_labelled_and_the_next_one_is_new(open_world: Any) -> None:
    async with open_world(KEPT) as world:
        job = of(world)
        question = {"job_id": job, "fields": "description"}
        first = await world.call("get_job", **question)
        await change_unheard(world, job, "new")
        world.clock.advance(LIFE_S + 30)
        await world.fault(path=f"/jobs/{job}", latencyMs=400, times=1)

        old = await world.call("get_job", **question)
        async with world.agent() as agent:
            also_old = await agent.ask("get_job", **question)

        for told in (old, also_old):
            assert told.data["record"] == first.data["record"]
            assert told.status == "stale"
            assert told.cache["tier"] in ("l1", "l2")
            assert told.cache["ageSeconds"] == LIFE_S + 30
            assert told.cache["ttlSeconds"] == 0
            assert told.cache["asOf"] == first.cache["asOf"]
            assert told.cache["consistency"] == "barrier"
            assert told.cache["staleReason"] == WHILE_FETCHED
            assert told.data["stale"] is True
            assert told.data["stale_reason"] == WHILE_FETCHED
            assert told.data["as_of"] == first.data["as_of"]
        asked = world.sim.calls_by_path()[f"/jobs/{job}"]
        await passes(world, 1.0)
        assert world.sim.calls_by_path()[f"/jobs/{job}"] == asked == 2
        new = await world.call("get_job", **question)
        assert (new.status, new.data["record"]) == ("hit", {"description": "new"})
        assert "stale" not in new.data
        assert "staleReason" not in new.cache
        assert new.cache["ageSeconds"] < 5
        assert (await stats(world))["staleHits"] == 2


async def test_no_answer_is_stale_for_who_says_how_old_it_may_be(open_world: Any) -> None:
    async with open_world(KEPT) as world:
        job = of(world)
        await world.call("get_job", job_id=job)
        await change_unheard(world, job, "new")
        world.clock.advance(LIFE_S + 30)
        young = await world.call("get_job", job_id=job, fields="description", max_age_s=LIFE_S)
        assert (young.status, young.data["record"]) == ("miss", {"description": "new"})
        world.clock.advance(LIFE_S + 30)
        await world.fault(status=500)
        response = await world.within(world.post("get_job", {"job_id": job, "max_age_s": 10}))
        assert response.status_code == 502
        assert "data" not in response.json()
        response = await world.within(world.post("get_job", {"job_id": job, "max_age_s": 0}))
        assert response.status_code == 502


@pytest.mark.parametrize(("status", "body"), [(500, ""), (503, ""), (200, '{"jnid": '), (429, "")])
async def test_an_answer_of_a_while_ago_stands_in_for_a_jobnimbus_that_fails(
    open_world: Any, stage: Any, status: int, body: str
) -> None:
    door = Door(httpx.ASGITransport(stage.sim.app))
    async with open_world(KEPT, transport=door) as world:
        job = of(world)
        first = await world.call("get_job", job_id=job)
        world.clock.advance(LIFE_S + 100)
        door.instead = (status, body)
        old = await world.within(world.call("get_job", job_id=job))
        assert old.data["record"] == first.data["record"]
        assert (old.status, old.cache["staleReason"]) in (("stale", FAILED), ("stale", SLOW))
        assert old.cache["ageSeconds"] >= LIFE_S + 100
        assert old.data["stale"] is True
        await passes(world, 14.0)

        knocked = door.knocks
        for _ in range(5):
            told = await world.call("get_job", job_id=job)
            assert (told.status, told.cache["staleReason"]) == ("stale", FAILED)
        assert door.knocks == knocked, "an origin that has just failed was asked again"

        door.instead = None
        await passes(world, 31.0)
        back = await world.within(world.call("get_job", job_id=job))
        assert back.status == "miss"
        assert "stale" not in back.data
        assert (await stats(world))["hits"] == 6


async def test_a_slow_jobnimbus_is_waited_for_briefly_and_its_answer_kept(open_world: Any) -> None:
    async with open_world(BRIEF) as world:
        job = of(world)
        question = {"job_id": job, "fields": "description"}
        await world.call("get_job", **question)
        await change_unheard(world, job, "new")
        world.clock.advance(LIFE_S + 100)
        await world.fault(path=f"/jobs/{job}", latencyMs=5_000, times=1)
        old = await world.call("get_job", **question)
        assert (old.status, old.cache["staleReason"]) == ("stale", SLOW)
        assert (await world.call("get_job", **question)).status == "stale"
        await passes(world, 6.0)
        new = await world.call("get_job", **question)
        assert (new.status, new.data["record"]) == ("hit", {"description": "new"})
        assert world.sim.calls_by_path()[f"/jobs/{job}"] == 2


async def test_a_late_answer_is_not_kept_when_a_webhook_overtook_it(open_world: Any) -> None:
    async with open_world(BRIEF) as world:
        job = of(world)
        question = {"job_id": job, "fields": "description"}
        await world.call("get_job", **question)
        world.clock.advance(LIFE_S + 100)
        await world.fault(path=f"/jobs/{job}", latencyMs=5_000, times=1)
        assert (await world.call("get_job", **question)).status == "stale"
        await world.sim.change("stamford", "jobs", job, {"description": "after"})
        new = await world.call("get_job", **question)
        assert (new.status, new.data["record"]) == ("miss", {"description": "after"})
        await passes(world, 6.0)
        kept = await world.call("get_job", **question)
        assert (kept.status, kept.data["record"]) == ("hit", {"description": "after"})


@pytest.mark.parametrize("mode", ["strict", "barrier", "bounded"])
async def test_what_a_webhook_made_dirty_stands_in_for_nothing(open_world: Any, mode: str) -> None:
    async with open_world(KEPT | {"CACHE_CONSISTENCY": mode}) as world:
        job = of(world)
        await world.call("get_job", job_id=job)
        await world.sim.change("stamford", "jobs", job, {"description": "after"})
        if mode == "bounded":
            await passes(world, 3.0)
        await world.fault(status=500)
        for _ in range(2):
            response = await world.within(world.post("get_job", {"job_id": job}))
            assert response.status_code == 502
            assert "data" not in response.json()
        async with world.agent() as agent:
            assert "upstream" in await world.within(agent.refused("get_job", job_id=job))


async def test_only_the_kind_of_read_that_may_be_dirty_is_and_it_says_so(open_world: Any) -> None:
    async with open_world(KEPT | {"CACHE_CONSISTENCY_JOBS_DETAIL": "any"}) as world:
        job = of(world)
        detail, listed = {"job_id": job, "fields": "description"}, {"fields": "jnid,description", "size": 200}
        first = await world.call("get_job", **detail)
        await world.call("get_jobs", **listed)
        await world.sim.change("stamford", "jobs", job, {"description": "after"})
        await world.fault(path=f"/jobs/{job}", latencyMs=400, times=1)

        old = await world.call("get_job", **detail)
        assert (old.status, old.cache["consistency"]) == ("stale", "any")
        assert old.data["record"] == first.data["record"]
        assert old.cache["staleReason"] == old.data["stale_reason"] == "changed since; being fetched anew"
        assert old.cache["ttlSeconds"] == 0
        rows = await world.within(world.call("get_jobs", **listed))
        assert (rows.status, rows.cache["consistency"]) == ("miss", "barrier")
        await passes(world, 1.0)
        new = await world.call("get_job", **detail)
        assert (new.status, new.data["record"]) == ("hit", {"description": "after"})

        await world.sim.change("stamford", "jobs", job, {"description": "later"})
        await world.fault(status=500)
        assert (await world.call("get_job", **detail)).status == "stale"
        await passes(world, 14.0)
        told = await world.within(world.call("get_job", **detail))
        assert told.cache["staleReason"] == "changed since; JobNimbus could not be asked"
        response = await world.within(world.post("get_job", {"job_id": job, "max_age_s": 1}))
        assert response.status_code == 502


@pytest.mark.parametrize("after_s", [10, LIFE_S + 30, LIFE_S + 400], ids=["fresh", "just stale", "long stale"])
@pytest.mark.parametrize("mode", ["strict", "barrier", "bounded", "any"])
async def test_a_refused_key_gets_its_refusal_and_nothing_of_what_is_kept(
    open_world: Any, stage: Any, mode: str, after_s: int
) -> None:
    door = Door(httpx.ASGITransport(stage.sim.app))
    settings = KEPT | {"CACHE_CONSISTENCY": mode, "CREDENTIAL_RECHECK_S": "5"}
    async with open_world(settings, transport=door) as world:
        job = of(world)
        await world.call("get_job", job_id=job)
        if mode == "any":
            await world.sim.change("stamford", "jobs", job, {"description": "after"})
        door.revoked.add(world.sim.keys["stamford"][0])
        await passes(world, after_s)
        for _ in range(2):
            response = await world.within(world.post("get_job", {"job_id": job}))
            assert (response.status_code, response.json()["code"]) == (401, "upstream_unauthorized")
            assert "data" not in response.json()
        async with world.agent() as agent:
            assert "[upstream_unauthorized," in await world.within(agent.refused("get_job", job_id=job))
        await world.fault(status=500)
        door.revoked.clear()
        response = await world.within(world.post("get_job", {"job_id": job}))
        assert response.status_code != 200, "an origin that cannot say is no leave to serve a refused key"


async def test_who_insists_in_an_outage_does_not_keep_the_others_waiting_after_it(open_world: Any, stage: Any) -> None:
    clock, door = ManualClock(), Door(httpx.ASGITransport(stage.sim.app))
    store = MemoryStore(clock)
    async with (
        open_world(KEPT, clock=clock, store=store, transport=door) as one,
        open_world(KEPT, clock=clock, store=store, transport=door) as other,
    ):
        job = of(one)
        await one.call("get_job", job_id=job)
        await passes(one, LIFE_S + 100)
        door.instead = (500, "")
        for _ in range(5):
            response = await one.within(one.post("get_job", {"job_id": job, "max_age_s": 1}))
            assert response.status_code == 502
        assert (await other.call("get_job", job_id=job)).cache["staleReason"] == FAILED
        door.instead = None
        await passes(one, 31)
        for world in (other, one):
            told = await world.within(world.call("get_job", job_id=job))
            assert told.status in ("miss", "hit")


async def test_replicas_share_a_fetch_and_the_pause_after_one_that_failed(open_world: Any, stage: Any) -> None:
    clock, door = ManualClock(), Door(httpx.ASGITransport(stage.sim.app))
    store = MemoryStore(clock)
    settings = KEPT | {"CREDENTIAL_RECHECK_S": "10000"}
    async with (
        open_world(settings, clock=clock, store=store, transport=door) as one,
        open_world(settings, clock=clock, store=store, transport=door) as other,
    ):
        job = of(one)
        await one.fault(path=f"/jobs/{job}", latencyMs=1_000)
        calls = [asyncio.ensure_future(world.call("get_job", job_id=job)) for world in (one, other) for _ in range(20)]
        told = await one.within(asyncio.gather(*calls))
        assert one.sim.calls_by_path()[f"/jobs/{job}"] == 1
        assert {answer.status for answer in told} == {"miss"}
        assert {answer.cache["tier"] for answer in told} == {"upstream"}
        assert len({answer.cache["asOf"] for answer in told}) == 1
        await passes(one, 3)
        counted = await stats(one)
        assert (counted["misses"], counted["coalesced"], counted["hits"], counted["writes"]) == (40, 39, 0, 1)

        await passes(one, LIFE_S + 100)
        door.instead = (500, "")
        assert (await one.within(one.call("get_job", job_id=job))).status == "stale"
        await passes(one, 14)
        knocked = door.knocks
        assert (await other.call("get_job", job_id=job)).cache["staleReason"] == FAILED
        assert door.knocks == knocked


@pytest.mark.parametrize("server", [True, False], ids=["the server's key", "a caller's key"])
async def test_what_is_asked_often_is_renewed_before_its_time_with_the_servers_own_key_only(
    open_world: Any, stage: Any, server: bool
) -> None:
    clock = ManualClock()
    key = stage.sim.keys["stamford"][0]
    settings = KEPT | {"JOBNIMBUS_API_KEY_STAMFORD": key, "MCP_AUTH_TOKENS": SERVER_TOKEN}
    async with open_world(settings, clock=clock) as world:
        job = of(world)
        headers = {"X-JobNimbus-Instance": "stamford", "Authorization": f"Bearer {SERVER_TOKEN}"}
        if not server:
            headers["X-JobNimbus-Api-Key"] = key
        await world.fault(path=f"/jobs/{job}", latencyMs=1_000)

        async def ask() -> dict[str, Any]:
            body = {"name": "get_job", "arguments": {"job_id": job}}
            response = await world.within(world.http.post("/mcp/tools/call", json=body, headers=headers))
            assert response.status_code == 200
            told: dict[str, Any] = response.json()["cache"]
            return told

        assert (await ask())["status"] == "miss"
        await passes(world, LIFE_S - 1)
        for _ in range(4):
            told = await ask()
            assert told["status"] == "hit"
        await passes(world, 3)
        assert world.sim.calls_by_path()[f"/jobs/{job}"] == (2 if server else 1)
        after = await ask()
        assert after["status"] == ("hit" if server else "stale")


async def test_a_list_of_jobs_is_right_while_the_index_lags(open_world: Any) -> None:
    """JobNimbus's list still has what was before; the job itself is asked for by its id."""
    async with open_world(KEPT) as world:
        job = of(world)
        question = {"fields": "jnid,description", "size": 200}
        await world.call("get_jobs", **question)
        await passes(world, 100)
        await world.fault(path="/jobs", staleListSeconds=30)
        await world.sim.change("stamford", "jobs", job, {"description": "after"})

        for status in ("miss", "hit"):
            told = await world.call("get_jobs", **question)
            assert {row["jnid"]: row.get("description") for row in told.rows}[job] == "after"
            assert (told.status, "stale" in told.data) == (status, False)
        detail = await world.call("get_job", job_id=job, fields="description")
        assert (detail.status, detail.data["record"]) == ("hit", {"description": "after"})


async def test_a_list_that_lags_behind_a_webhook_is_flagged_and_not_kept(open_world: Any) -> None:
    """A file can only be had by a list, and every list lags."""
    async with open_world(KEPT) as world:
        question = {"fields": "jnid,description", "size": 200}
        file = (await world.call("get_attachments", **question)).ids[0]
        await passes(world, 100)
        await world.fault(path="/files", staleListSeconds=30)
        await world.sim.change("stamford", "files", file, {"description": "after"})

        for _ in range(2):
            lagging = await world.call("get_attachments", **question)
            assert "after" not in {row.get("description") for row in lagging.rows}
            assert (lagging.status, lagging.cache["tier"], lagging.cache["ttlSeconds"]) == ("stale", "upstream", 0)
            assert lagging.cache["staleReason"] == "JobNimbus's list lags behind a change"
            assert lagging.data["stale"] is True
        async with world.agent() as agent:
            told = await agent.ask("get_attachments", **question)
            assert told.data["stale_reason"] == "JobNimbus's list lags behind a change"
        counted = await stats(world)
        assert (counted["hits"], counted["misses"]) == (0, 4)

        await passes(world, 35)
        caught_up = await world.call("get_attachments", **question)
        assert caught_up.status == "miss"
        assert "after" in {row.get("description") for row in caught_up.rows}
        assert (await world.call("get_attachments", **question)).status == "hit"


async def test_for_a_moment_after_a_change_lists_of_its_kind_are_kept_only_briefly(open_world: Any) -> None:
    async with open_world(KEPT) as world:
        file = (await world.call("get_attachments", fields="jnid")).ids[0]
        await passes(world, 100)
        await world.fault(path="/files", staleListSeconds=4)
        made = await world.sim.create("stamford", "files", {"filename": "just made.jpg"})
        told = await world.call("get_attachments", fields="jnid", size=200)
        assert made["jnid"] not in told.ids
        assert told.cache["ttlSeconds"] <= 6
        await passes(world, 7)
        told = await world.call("get_attachments", fields="jnid", size=200)
        assert (told.status, made["jnid"] in told.ids) == ("miss", True)

        await passes(world, 100)
        assert file in (await world.call("get_attachments", fields="jnid", size=200)).ids
        await world.sim.delete("stamford", "files", file)
        told = await world.call("get_attachments", fields="jnid", size=200)
        assert file in told.ids
        assert told.cache["ttlSeconds"] <= 6
        await passes(world, 7)
        told = await world.call("get_attachments", fields="jnid", size=200)
        assert file not in told.ids


async def test_a_webhook_with_a_date_from_the_future_stops_the_keeping_of_nothing_for_long(open_world: Any) -> None:
    async with open_world(KEPT) as world:
        record = world.has("jobs")[0]
        body = {**record, "type": "job", "date_updated": int(world.clock.now()) + 10_000_000}
        assert (await world.webhook(body)).status_code == 200
        await passes(world, 1)
        assert (await world.call("get_jobs", size=200)).status in ("stale", "miss")
        await passes(world, 62)
        assert (await world.call("get_jobs", size=200)).status == "miss"
        assert (await world.call("get_jobs", size=200)).status == "hit"


async def test_an_entry_explains_why_it_is_no_answer_any_more(open_world: Any) -> None:
    async with open_world(KEPT) as world:
        job = of(world)
        await world.call("get_job", job_id=job)
        await passes(world, 1)
        await world.call("get_job", job_id=job)
        rows = (await entries(world, entity="jobs", operation="detail")).json()["entries"]
        (key,) = [row["key"] for row in rows]

        fresh = (await entries(world, key=key)).json()["entry"]
        assert (fresh["key"], fresh["state"], fresh["dirtiedBy"]) == (key, "fresh", [])
        assert not any(tag["changed"] for tag in fresh["tags"])
        assert fresh["l1"] == {"held": True, "clean": True}

        await passes(world, 5)
        delivered = await world.webhook({"event": "job.updated", "resource_type": "job", "resource_id": job})
        dirty = (await entries(world, key=key)).json()["entry"]
        assert dirty["state"] == "dirty"
        changed = {tag["tag"]: tag for tag in dirty["tags"] if tag["changed"]}
        assert set(changed) == {f"jobs:detail:{job}"}
        assert all(tag["thenGeneration"] != tag["nowGeneration"] for tag in changed.values())
        (why,) = dirty["dirtiedBy"]
        assert (why["eventId"], why["source"], why["resourceId"]) == (delivered.json()["eventId"], "webhook", job)
        assert why["at"].endswith("Z")
        assert dirty["l1"]["clean"] is False

        await world.call("get_job", job_id=job)
        await passes(world, LIFE_S + 1)
        assert (await entries(world, key=key)).json()["entry"]["state"] == "stale"
        cleared = await world.http.post("/cache/clear", json={"instance": "stamford"}, headers=ADMIN)
        assert cleared.status_code == 200
        cleared_entry = (await entries(world, key=key)).json()["entry"]
        assert (cleared_entry["state"], cleared_entry["epoch"]["changed"]) == ("dirty", True)

        for query, status in (
            ({"key": key + "x"}, 404),
            ({"key": "jobnimbus:nonsense"}, 400),
            ({"key": key, "limit": 3}, 400),
            ({"key": key.replace("{stamford}", "{guilford}")}, 400),
        ):
            response = await entries(world, **query)
            assert response.status_code == status, query
        assert (await world.http.get("/cache/entries", params={"key": key})).status_code == 401


async def test_hits_misses_and_what_is_neither_are_counted_as_they_are_told(open_world: Any) -> None:
    async with open_world(KEPT) as world:
        job = of(world)
        question = {"job_id": job}
        told = [await world.call("get_job", **question)]
        told += [await world.call("get_job", **question) for _ in range(3)]
        told.append(await world.call("get_job", **question, max_age_s=0))
        await passes(world, 2)
        told.append(await world.call("get_job", **question, max_age_s=1))
        await passes(world, LIFE_S + 30)
        told.append(await world.call("get_job", **question))
        await passes(world, 2)
        told.append(await world.call("get_job", **question))
        assert [answer.status for answer in told] == ["miss", "hit", "hit", "hit", "bypass", "miss", "stale", "hit"]
        counted = await stats(world)
        assert (counted["hits"], counted["misses"], counted["staleHits"], counted["coalesced"]) == (5, 2, 1, 0)
        assert counted["l1Hits"] + counted["l2Hits"] == counted["hits"]
        assert counted["hitRate"] == "71.43%"


async def test_lifetimes_follow_the_changes_of_the_last_hour(open_world: Any) -> None:
    async with open_world({"CACHE_TTL_CONTACTS": "1234"}) as world:
        job, contact = of(world), world.has("contacts")[0]["jnid"]
        assert (await world.call("get_job", job_id=job)).cache["ttlSeconds"] == 3600
        for number in range(11):
            await world.sim.change("stamford", "jobs", job, {"description": f"change {number}"})
            await world.sim.change("stamford", "contacts", contact, {"company": f"change {number}"})
        await passes(world, 61)
        assert (await world.call("get_job", job_id=job)).cache["ttlSeconds"] == 600
        assert (await world.call("get_contacts")).cache["ttlSeconds"] == 1234
        await passes(world, 2 * 3600 + 60)
        assert (await world.call("get_jobs")).cache["ttlSeconds"] == 3600, "silence where webhooks arrive"
        assert (await world.call("get_tasks")).cache["ttlSeconds"] == 600, "silence that says nothing"


async def test_a_caller_who_leaves_takes_the_fetch_from_nobody(open_world: Any) -> None:
    async with open_world(KEPT) as world:
        job = of(world)
        await world.fault(path=f"/jobs/{job}", latencyMs=1_000)
        calls = [asyncio.ensure_future(world.call("get_job", job_id=job)) for _ in range(5)]
        await settled()
        for call in calls[:3]:
            call.cancel()
        await settled()
        told = await world.within(asyncio.gather(*calls[3:]))
        assert {answer.status for answer in told} == {"miss"}
        assert world.sim.calls_by_path()[f"/jobs/{job}"] == 1
        assert (await world.call("get_job", job_id=job)).status == "hit"


async def test_a_refused_key_that_leads_does_not_refuse_the_one_that_follows(open_world: Any, stage: Any) -> None:
    clock, door = ManualClock(), Door(httpx.ASGITransport(stage.sim.app))
    store = MemoryStore(clock)
    async with open_world(clock=clock) as world:
        keys = world.sim.keys["stamford"]
        digests = [world.app.partitions.digest("stamford", key) for key in keys]
    settings = KEPT | {"JOBNIMBUS_SHARED_PARTITIONS": "+".join(digests)}
    async with (
        open_world(settings, clock=clock, store=store, transport=door) as one,
        open_world(settings, clock=clock, store=store, transport=door) as other,
    ):
        job = next(row for row in one.has("jobs"))["jnid"]
        for key in keys:
            await one.within(one.post("get_users", {}, key=key))
        door.revoked.add(keys[1])
        door.gate = asyncio.Event()
        refused = asyncio.ensure_future(one.post("get_job", {"job_id": job}, key=keys[1]))
        await settled()
        good = [asyncio.ensure_future(world.call("get_job", job_id=job, key=keys[0])) for world in (one, other)]
        await settled()
        door.gate.set()
        response = await one.within(refused)
        assert (response.status_code, response.json()["code"]) == (401, "upstream_unauthorized")
        told = await one.within(asyncio.gather(*good))
        assert {answer.status for answer in told} == {"miss"}
        response = await one.within(one.post("get_job", {"job_id": job}, key=keys[1]))
        assert response.status_code == 401
        for world in (one, other):
            assert (await world.within(world.call("get_job", job_id=job, key=keys[0]))).status == "hit"
            response = await world.within(world.post("get_job", {"job_id": job}, key=keys[1]))
            assert response.status_code == 401
