"""Every delivery three times at once: one event, one run of each consumer, no answer before the invalidation holds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from relay_target import Target, relay_target

from jobnimbus_mcp.app import App

ADMIN = "t0ken-of-the-admin-0001"
SECRET = "s3cret-of-the-webhooks-01"
JOBS = 6
TIMES = 3
WITHIN_S = 5.0

Site = Any
OpenSite = Callable[..., Awaitable[Site]]


def record(jnid: str, version: int) -> dict[str, Any]:
    """As JobNimbus sends it: the bare record, without the name of an action."""
    return {"jnid": jnid, "type": "job", "date_updated": 1_790_000_000 + version, "status_name": f"Version {version}"}


async def whole(site: Site, event_id: str) -> dict[str, Any]:
    """The event's trace, once no consumer waits for it any more."""
    until = time.monotonic() + WITHIN_S
    while True:
        told: dict[str, Any] = (await site.get(f"/cache/events/{event_id}")).body
        if told["state"] == "done":
            return told
        assert time.monotonic() < until, told
        await asyncio.sleep(0.02)


def relaying_to(target: Target) -> dict[str, str]:
    return {
        "RELAY_TARGETS": json.dumps([{"name": "crm", "url": target.url()}]),
        "RELAY_ALLOW_PRIVATE": "true",
        "RELAY_SIGNING_SECRET": "s3cret-of-the-relay-target",
    }


def posting(app: App) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://127.0.0.1", timeout=20)


@pytest.fixture
async def url_of(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("redis_url") if request.param == "redis" else None


@pytest.mark.parametrize("url_of", ["memory", "redis"], indirect=True)
async def test_what_is_delivered_three_times_at_once_is_one_event_and_each_answer_means_that_reads_are_new(
    url_of: str | None, open_site: OpenSite
) -> None:
    async with relay_target() as target:
        site = await open_site(
            url_of,
            **relaying_to(target),
            INDEX_SETTLE_S="1",
        )
        jobs = site.jobs[:JOBS]
        for jnid in jobs:
            await site.job(jnid)
        assert {(await site.job(jnid)).cache_status for jnid in jobs} == {"hit"}
        for jnid in jobs:
            await site.change(jnid, "Version 2")

        async with posting(site.app) as http:

            async def deliver(jnid: str) -> dict[str, Any]:
                answer = await http.post(f"/webhooks/jobnimbus?token={SECRET}", json=record(jnid, 2))
                read = await site.job(jnid)
                assert read.body["data"]["record"] == {"status_name": "Version 2"}, "answered before it held"
                assert answer.status_code == 200
                return {"jnid": jnid, **answer.json()}

            answers = await asyncio.gather(*(deliver(jnid) for jnid in jobs for _ in range(TIMES)))

        ids: dict[str, str] = {}
        for jnid in jobs:
            own = [answer for answer in answers if answer["jnid"] == jnid]
            assert sorted(answer["duplicate"] for answer in own) == [False] + [True] * (TIMES - 1)
            (ids[jnid],) = {answer["eventId"] for answer in own}
        await target.arrived(JOBS, within_s=WITHIN_S)
        traces = [await whole(site, event_id) for event_id in ids.values()]
        for told in traces:
            assert set(told["consumers"]) == {"settle", "notify", "relay:crm"}
            assert {part["attempts"] for part in told["consumers"].values()} == {1}
        assert sorted(got.headers["webhook-id"] for got in target.received) == sorted(ids.values())
        listed = (await site.get("/cache/events?limit=50")).body["events"]
        assert sorted(row["eventId"] for row in listed) == sorted(ids.values())

        # once more, now that the event is in the archive; and a newer version, which is another event
        jnid = jobs[0]
        await site.change(jnid, "Version 3")
        async with posting(site.app) as http:
            again = await http.post(f"/webhooks/jobnimbus?token={SECRET}", json=record(jnid, 2))
            read = await site.job(jnid)
            newer = await http.post(f"/webhooks/jobnimbus?token={SECRET}", json=record(jnid, 3))
        assert again.json() == {"received": True, "eventId": ids[jnid], "duplicate": True}
        assert read.body["data"]["record"] == {"status_name": "Version 3"}, "a duplicate did not invalidate"
        assert newer.json()["duplicate"] is False
        await target.arrived(JOBS + 1, within_s=WITHIN_S)
        assert [got.headers["webhook-id"] for got in target.received[JOBS:]] == [newer.json()["eventId"]]
