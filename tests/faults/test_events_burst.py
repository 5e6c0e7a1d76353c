"""Relay targets that fail in every way, which the trace shows and nobody else feels; and a burst while processes die.

The burst is `benchmarks/bench_burst.py`: real servers, workers and Redis, webhooks from a sender of its own process.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from relay_target import HANG, Answer, Target, refusing_url, relay_target

from jobnimbus_mcp.clock import ManualClock

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_burst.py"
INSTANCE = "stamford"
SECRET = "s3cret-of-the-webhooks-01"
COMMAND_BOUND_S = 30.0
WITHIN_S = 10.0
LONGEST_TRY_S = 15.0
"""Of a delivery that is not answered, by the clock of the server."""

Site = Any
OpenSite = Callable[..., Awaitable[Site]]
OpenTarget = Callable[..., Awaitable[Target]]


@pytest.fixture
async def open_target() -> AsyncIterator[OpenTarget]:
    """`await open_target([500])`: a `Target`; to be asked for before `open_site`, so that it outlives the server."""
    async with AsyncExitStack() as stack:

        async def begin(answers: Sequence[Answer | int] = ()) -> Target:
            return await stack.enter_async_context(relay_target(answers))

        yield begin


def relaying(**urls: str) -> dict[str, str]:
    return {
        "RELAY_TARGETS": json.dumps([{"name": name, "url": url} for name, url in urls.items()]),
        "RELAY_ALLOW_PRIVATE": "true",
        "RELAY_SIGNING_SECRET": "s3cret-of-the-relay-target",
        "INDEX_SETTLE_S": "0",
    }


async def trace_of(site: Site, event_id: str) -> dict[str, Any]:
    told: dict[str, Any] = (await site.get(f"/cache/events/{event_id}")).body["consumers"]
    return told


async def until(holds: Callable[[], Awaitable[bool]], what: str, clock: ManualClock | None = None) -> None:
    """Return when it is so; the server's clock stands still meanwhile, unless it is given: then it creeps, for a worker
    that began to rest just after it was moved on."""
    end = time.monotonic() + WITHIN_S
    while not await holds():
        assert time.monotonic() < end, f"not within {WITHIN_S} s: {what}"
        if clock is not None:
            clock.advance(0.01)
        await asyncio.sleep(0.005)


async def tried(site: Site, event_id: str, times: int, *consumers: str, clock: ManualClock | None = None) -> None:
    async def enough() -> bool:
        told = await trace_of(site, event_id)
        return all(len(told[name]["tried"]) >= times for name in consumers)

    await until(enough, f"{times} tries for {consumers}", clock)


async def test_targets_that_fail_hang_refuse_or_redirect_are_traced_and_delay_nobody_else(
    open_target: OpenTarget, open_site: OpenSite
) -> None:
    clock = ManualClock()
    good, inside = await open_target(), await open_target()
    failing, hanging = await open_target([500] * 5), await open_target([HANG] * 100)
    redirecting = await open_target([Answer(302, headers=(("Location", inside.url("/secret")),))] * 100)
    site = await open_site(
        None,
        clock=clock,
        **relaying(
            good=good.url(),
            failing=failing.url(),
            hanging=hanging.url(),
            refusing=refusing_url(),
            redirecting=redirecting.url(),
        ),
    )
    jobs = site.jobs[:12]  # more than one target is sent at once
    ids = [(await site.webhook(jnid)).body["eventId"] for jnid in jobs]
    await good.arrived(len(jobs), within_s=WITHIN_S)
    for event_id in ids[:5]:
        await tried(site, event_id, 1, "relay:good", "notify", "relay:redirecting", "relay:failing")
    for event_id in ids[:5]:
        told = await trace_of(site, event_id)
        for name in ("relay:good", "notify"):
            assert (told[name]["state"], told[name]["doneAt"]) == ("done", told[name]["dueAt"]), "was delayed"
        assert (told["relay:redirecting"]["state"], told["relay:redirecting"]["reason"]) == ("dead", "redirect")
        assert [row["status"] for row in told["relay:redirecting"]["tried"]] == [302]
        assert told["relay:failing"]["state"] == "delayed"
        assert told["relay:failing"]["tried"][0]["error"] == "http_500"
    assert inside.received == []
    assert len(hanging.received) == 8

    # tries are 2, 4 and 8 s apart
    first = ids[0]
    for number in range(2, 5):
        clock.advance(10.0)
        await tried(site, first, number, "relay:refusing")
    told = await trace_of(site, first)
    assert (told["relay:refusing"]["state"], told["relay:refusing"]["reason"]) == ("dead", "unreachable")
    clock.advance(LONGEST_TRY_S)
    await tried(site, first, 1, "relay:hanging")
    told = await trace_of(site, first)
    assert told["relay:hanging"]["tried"][0]["error"] == "timeout"
    assert told["relay:hanging"]["state"] in ("pending", "delayed")

    late = (await site.webhook(site.jobs[12])).body["eventId"]
    await tried(site, late, 1, "relay:good", "notify")
    told = await trace_of(site, late)
    for name in ("relay:good", "notify"):
        assert told[name]["doneAt"] == told[name]["dueAt"], "was delayed by those that fail"
    assert {row["eventId"] for row in (await site.get("/cache/events?limit=100")).body["events"]} == {*ids, late}


async def test_a_target_that_fails_five_times_is_given_up_after_four_and_reached_by_a_replay(
    open_target: OpenTarget, open_site: OpenSite
) -> None:
    clock = ManualClock()
    target = await open_target([500] * 5)
    site = await open_site(None, clock=clock, **relaying(crm=target.url()))
    event_id = (await site.webhook(site.jobs[0])).body["eventId"]
    for tries, wait_s in enumerate((2.0, 4.0, 8.0), 1):
        await tried(site, event_id, tries, "relay:crm", clock=clock)
        clock.advance(wait_s * 1.2)
    await tried(site, event_id, 4, "relay:crm", clock=clock)
    part = (await trace_of(site, event_id))["relay:crm"]
    assert (part["state"], part["reason"], part["attempts"]) == ("dead", "http_500", 4)
    (listed,) = (await site.get("/cache/events?state=dead")).body["events"]
    assert (listed["eventId"], listed["state"]) == (event_id, "dead")

    assert await site.app.events.replay(INSTANCE, event_id) == ("relay:crm",)
    await tried(site, event_id, 5, "relay:crm", clock=clock)
    assert (await trace_of(site, event_id))["relay:crm"]["state"] == "delayed"
    clock.advance(2.4)
    await tried(site, event_id, 6, "relay:crm", clock=clock)

    told = (await site.get(f"/cache/events/{event_id}")).body
    part = told["consumers"]["relay:crm"]
    assert (told["state"], part["state"]) == ("done", "done")
    assert [row["status"] for row in part["tried"]] == [500, 500, 500, 500, 500, 200]
    assert [row["error"] for row in part["tried"]] == ["http_500"] * 5 + [None]
    assert [row["requestId"] for row in part["tried"]] == [got.headers["x-request-id"] for got in target.received]
    assert {got.headers["webhook-id"] for got in target.received} == {event_id}


async def test_the_command_line_shows_a_dead_letter_with_its_reason_and_brings_it_through(
    redis_url: str, open_target: OpenTarget, open_site: OpenSite, tmp_path: Path
) -> None:
    target = await open_target([410])
    settings = relaying(crm=target.url())
    site = await open_site(redis_url, CACHE_CONSISTENCY="strict", **settings)
    event_id = (await site.webhook(site.jobs[0])).body["eventId"]
    await tried(site, event_id, 1, "relay:crm")

    async def command(*words: str) -> str:
        variables = {"JOBNIMBUS_INSTANCES": INSTANCE, "REDIS_URL": redis_url, "DATA_DIR": str(tmp_path), **settings}
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
        run = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "jobnimbus_mcp", "events", *words,
            env=kept | variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(COMMAND_BOUND_S):
            said, _ = await run.communicate()
        assert run.returncode == 0, said
        return said.decode()

    dead = await command("dead")
    assert f"{event_id}  " in dead
    assert "relay:crm: http_410 after 1 tries" in dead
    assert "1 dead" in dead
    assert await command("replay", event_id) == f"{event_id}: due again for relay:crm\n"
    await target.arrived(2, within_s=WITHIN_S)
    await tried(site, event_id, 2, "relay:crm")

    part = (await trace_of(site, event_id))["relay:crm"]
    assert part["state"] == "done"
    assert [row["status"] for row in part["tried"]] == [410, 200]
    assert [got.headers["webhook-id"] for got in target.received] == [event_id] * 2


def _run(*arguments: str, bound_s: float) -> None:
    run = subprocess.run(
        [sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=bound_s, check=False
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.long
@pytest.mark.alone
def test_a_burst_of_webhooks_is_answered_in_time_and_handled_whole_and_in_order() -> None:
    _run("--only", "burst", bound_s=180)


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_burst_loses_nothing_and_keeps_its_order_while_servers_workers_and_redis_are_killed(seed: int) -> None:
    _run("--only", "faults", "--seed", str(seed), bound_s=400)
