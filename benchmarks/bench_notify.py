#!/usr/bin/env python
"""From a change in JobNimbus to the MCP client that watches the record: `resources/updated`, and its next read.

A simulated JobNimbus sends its webhook to one `jobnimbus-mcp serve`; the client, which is the SDK's own, subscribes at
that process in the first round and at another one on the same Redis (appendonly on) in the second. Timed from before
the change is made until the client has been told, and until its next read, which must be new, has been answered.

    .venv/bin/python benchmarks/bench_notify.py --changes 200
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from rig import Goals, free_port, machine, percentile, redis_process, server_process
from servers import INSTANCE, SECRET, TOKEN, Simulated, command_of, settings_of

P99_MS = 250.0
TOLD_WITHIN_S = 10.0
STARTED_WITHIN_S = 30.0

SETTLED_S = 4.0
"""A fleet that is younger than an L1 lease cannot be known whole, so that every invalidation waits one out."""


@dataclass
class Round:
    """What one client saw. Milliseconds from the change; `old`: reads after the notification that were not new;
    `unheard`: changes of which nothing was told within TOLD_WITHIN_S."""

    told_ms: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    old: int = 0
    unheard: int = 0


async def watched(port: int, simulator: Simulated, jobs: list[str], changes: int, first_version: int) -> Round:
    """Subscribe at the server of this port, then change one job after the other."""
    seen = Round()
    uris = {job: f"jobnimbus://{INSTANCE}/jobs/{job}" for job in jobs}
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=STARTED_WITHIN_S, trust_env=False) as http,
        Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http), mode="2026-07-28") as client,
        client.listen(resource_subscriptions=list(uris.values())) as subscription,
    ):

        async def told_of(uri: str) -> None:
            while str((await anext(subscription)).uri) != uri:  # a repetition of an earlier one
                pass

        for number in range(changes):
            job, version = jobs[number % len(jobs)], first_version + number
            began = time.perf_counter()
            changing = asyncio.create_task(asyncio.to_thread(change, simulator, job, version))
            try:
                await asyncio.wait_for(told_of(uris[job]), TOLD_WITHIN_S)
            except TimeoutError:
                seen.unheard += 1
                await changing
                continue
            seen.told_ms.append((time.perf_counter() - began) * 1e3)
            record = await read(client, uris[job])
            seen.read_ms.append((time.perf_counter() - began) * 1e3)
            seen.old += record["description"] != f"version {version}"
            await changing
    return seen


async def read(client: Client, uri: str) -> dict[str, Any]:
    result = await client.read_resource(uri, cache_mode="bypass")
    record: dict[str, Any] = json.loads(result.contents[0].text)
    return record


def change(simulator: Simulated, job: str, version: int) -> None:
    """Change the job in JobNimbus, which sends its webhook; returns when that was answered."""
    simulator.control("PUT", f"records/jobs/{job}", {"description": f"version {version}"})


def settle(simulator: Simulated, job: str) -> None:
    """Let the servers get to know each other, over some changes that nobody watches."""
    until = time.monotonic() + SETTLED_S
    while time.monotonic() < until:
        change(simulator, job, 0)
        time.sleep(0.1)


def judge(goals: Goals, name: str, seen: Round, changes: int) -> None:
    def told(values: list[float]) -> str:
        return f"p50 {percentile(values, 0.5):.1f} ms, p99 {percentile(values, 0.99):.1f} ms"

    print(f"{name}: told {told(seen.told_ms)}; read anew {told(seen.read_ms)}")
    goals.check(f"{name}: every change is told", seen.unheard == 0, f"{changes - seen.unheard} of {changes}")
    goals.check(f"{name}: the next read is new", seen.old == 0, f"{seen.old} old")
    p99 = percentile(seen.read_ms, 0.99)
    goals.check(f"{name}: told and read anew, p99 <= {P99_MS:.0f} ms", p99 <= P99_MS, f"{p99:.1f} ms")


def measure(changes: int, records: int) -> int:
    goals = Goals()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-bench-")))
        store = stack.enter_context(redis_process("--appendonly", "yes"))
        upstream, here, there = free_port(), free_port(), free_port()
        hook = f"http://127.0.0.1:{here}/webhooks/jobnimbus?token={SECRET}"
        simulate = [sys.executable, "-m", "jobnimbus_mcp", "simulate", "--instances", INSTANCE]
        simulate += ["--port", str(upstream), "--webhook-url", hook]
        stack.enter_context(server_process(simulate, upstream, {}))
        keyless = Simulated(f"http://127.0.0.1:{upstream}", "")
        simulator = Simulated(keyless.url, keyless.control("GET", "keys")[INSTANCE][0])
        for port in (here, there):
            data = directory / str(port)
            data.mkdir()
            settings = settings_of(simulator, data, REDIS_URL=store.url)
            stack.enter_context(server_process(command_of(port), port, settings, directory / f"{port}.log"))
        jobs = simulator.jobs(records)
        settle(simulator, jobs[0])
        for number, (name, port) in enumerate((("the same process", here), ("another process", there))):
            seen = asyncio.run(watched(port, simulator, jobs, changes, 1 + number * changes))
            judge(goals, name, seen, changes)
        complaints = [line for port in (here, there) for line in (directory / f"{port}.log").read_text().splitlines()]
        goals.check("the servers had nothing to complain of", not complaints, "; ".join(complaints[:3]) or "nothing")
    return goals.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=200, help="in each round, one after the other")
    parser.add_argument("--records", type=int, default=50, help="watched at once, 100 at most")
    given = parser.parse_args()
    print(machine())
    raise SystemExit(measure(given.changes, given.records))


if __name__ == "__main__":
    main()
