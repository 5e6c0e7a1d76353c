"""JobNimbus failing: its breaker opens, callers hear so at once, what is kept is still served, and it closes again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.simulator.faults import Fault

SPEED = 10.0
OPEN_S = 15.0
"""How long the breaker of JobNimbus stays open."""


class HurriedClock:
    """The machine's time, running `SPEED` times as fast: backing off and an open breaker last that much shorter."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic() * SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / SPEED)


async def failing(simulator: Simulator, path: str = "/") -> None:
    """From now on JobNimbus answers 500 there."""
    simulator._faults.add(Fault(path=path, status=500))


async def test_server_errors_open_the_breaker_which_says_so_at_once_and_closes_again(
    simulator: Simulator, open_site: Callable[..., Awaitable[Any]]
) -> None:
    site = await open_site(None, clock=HurriedClock(), JOBNIMBUS_MAX_CONCURRENT="0")
    kept = site.jobs[0]
    assert (await site.job(kept)).cache_status == "miss"
    await failing(simulator)

    refused = await asyncio.gather(*(site.job(jnid) for jnid in site.jobs[1:21]))
    assert {(reply.status_code, reply.body["code"]) for reply in refused} <= {
        (502, "upstream_error"),
        (502, "upstream_circuit_open"),
    }
    ready = await site.get("/ready")
    assert (ready.status_code, ready.body["parts"]["jobnimbus:stamford"]["status"]) == (200, "down")

    asked = simulator.calls
    at_once = await site.job(site.jobs[21])
    assert (at_once.status_code, at_once.body["code"]) == (502, "upstream_circuit_open")
    assert at_once.took_s < 0.15
    assert int(at_once.headers["retry-after"]) >= 1
    assert (await site.job(kept)).cache_status == "hit"
    assert simulator.calls == asked

    simulator._faults.clear()
    await asyncio.sleep(OPEN_S / SPEED)
    assert (await site.job(site.jobs[21])).cache_status == "miss"
    assert [(await site.job(jnid)).status_code for jnid in site.jobs[1:6]] == [200] * 5


async def test_fewer_than_twenty_failures_open_nothing(
    simulator: Simulator, open_site: Callable[..., Awaitable[Any]]
) -> None:
    site = await open_site(None, clock=HurriedClock(), JOBNIMBUS_MAX_CONCURRENT="0")
    await failing(simulator)
    refused = await asyncio.gather(*(site.job(jnid) for jnid in site.jobs[:15]))
    assert {reply.body["code"] for reply in refused} == {"upstream_error"}
    simulator._faults.clear()
    assert (await site.job(site.jobs[0])).status_code == 200
