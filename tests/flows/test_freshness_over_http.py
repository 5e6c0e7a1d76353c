"""Readers and a writer at once, on a real Redis, with two servers: the whole history is checked afterwards.

The law: no read that started after a webhook was answered is told of an older version than that webhook's.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.clock import SystemClock

READERS, READS_EACH, WRITES, JOBS = 12, 100, 60, 4
LONGEST_WAY_S = 0.006
BOUND_S = 50.0


class Slow(httpx.AsyncBaseTransport):
    """A way to JobNimbus on which every request and every answer takes its own time, so that they overtake."""

    def __init__(self, inner: httpx.AsyncBaseTransport, rng: random.Random) -> None:
        self._inner = inner
        self._rng = rng

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(self._rng.random() * LONGEST_WAY_S)
        response = await self._inner.handle_async_request(request)
        await asyncio.sleep(self._rng.random() * LONGEST_WAY_S)
        return response


@dataclass(frozen=True)
class Seen:
    """One read: what it was told, and what had been acknowledged when it started."""

    tool: str
    status: str
    tier: str
    consistency: str
    job: str
    floor: int
    version: int


def version_of(record: dict[str, Any]) -> int:
    found = re.fullmatch(r"freshness version (\d+)", record["description"])
    assert found is not None, record
    return int(found[1])


@pytest.mark.parametrize("mode", ["barrier", pytest.param("strict", marks=pytest.mark.long)])
async def test_no_read_that_started_after_a_webhook_was_answered_is_older_than_it(
    open_world: Any, stage: Any, redis_url: str, mode: str
) -> None:
    rng = random.Random(11)
    settings = {
        "REDIS_URL": redis_url,
        "CACHE_CONSISTENCY": mode,
        "JOBNIMBUS_MAX_CONCURRENT": "0",
        "REDIS_COMMAND_TIMEOUT_MS": "2000",
    }
    way = Slow(httpx.ASGITransport(stage.sim.app), rng)
    async with (
        open_world(settings, clock=SystemClock(), transport=way) as first,
        open_world(settings, clock=SystemClock(), transport=way) as second,
    ):
        newest = sorted(first.has("jobs"), key=lambda row: (row["date_created"], row["recid"]))[-JOBS:]
        jobs = {row["jnid"]: row for row in newest}
        contact = newest[0]["primary"]["id"]
        acknowledged = dict.fromkeys(jobs, 0)
        noon = int(first.clock.now()) // 86_400 * 86_400 + 43_200
        for jnid in jobs:
            change = {"description": "freshness version 0", "date_start": noon, "sales_rep": newest[0]["sales_rep"]}
            await first.sim.change("stamford", "jobs", jnid, change)
        history: list[Seen] = []
        writing = True

        async def write() -> None:
            nonlocal writing
            for version in range(1, WRITES + 1):
                jnid = rng.choice(list(jobs))
                failed = first.sim.call_report()["webhooks"]["failed"]
                await first.sim.change("stamford", "jobs", jnid, {"description": f"freshness version {version}"})
                assert first.sim.call_report()["webhooks"]["failed"] == failed, "a webhook was not answered 200"
                acknowledged[jnid] = version
                await asyncio.sleep(rng.random() * 4 * LONGEST_WAY_S)
            writing = False

        page = {"fields": "jnid,description", "size": 50}
        questions: list[tuple[str, dict[str, Any]]] = [
            ("get_job", {"job_id": "jnid", "fields": "jnid,description"}),
            ("get_job", {"job_id": "number", "fields": "jnid,description"}),
            ("get_jobs", {**page, "size": JOBS}),
            ("get_jobs", {**page, "sort_by": "date_updated"}),
            ("get_jobs", {**page, "contact_id": contact}),
            ("search_jobs", {**page, "query": "freshness version"}),
            ("get_calendar_activities", page),
        ]

        async def read(number: int) -> None:
            choose = random.Random(number)
            done = 0
            while done < READS_EACH or writing:
                done += 1
                server = choose.choice((first, second))
                tool, arguments = choose.choice(questions)
                if "job_id" in arguments:
                    arguments = {**arguments, "job_id": jobs[choose.choice(list(jobs))][arguments["job_id"]]}
                floor = dict(acknowledged)
                told = await server.call(tool, **arguments)
                shown = [told.data["record"]] if tool == "get_job" else told.rows
                for row in shown:
                    if row["jnid"] in jobs:
                        how = (tool, told.status, told.cache["tier"], told.cache["consistency"])
                        history.append(Seen(*how, row["jnid"], floor[row["jnid"]], version_of(row)))
                if (tool == "get_jobs" and arguments.get("contact_id") is None) or tool == "search_jobs":
                    assert {row["jnid"] for row in shown} >= set(jobs), tool

        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            group.create_task(write())
            for number in range(READERS):
                group.create_task(read(number))

    stale = [seen for seen in history if seen.version < seen.floor]
    assert stale == []
    counted = Counter(seen.status for seen in history)
    assert counted["hit"] > 50, counted
    assert counted["miss"] > 50, counted
    assert {seen.tier for seen in history if seen.status == "hit"} == {"l1", "l2"}
    assert {seen.consistency for seen in history} == {mode}
    assert {seen.tool for seen in history} == {tool for tool, _ in questions}
    assert max(seen.version for seen in history) == WRITES
