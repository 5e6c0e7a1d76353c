"""Accounts with a Redis of their own: what befalls one leaves the others alone, and everybody is told which it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator

ADMIN, SECRET = "t0ken-of-the-admin-0001", "s3cret-of-the-webhooks-01"
ACCOUNTS = ("stamford", "guilford")


class Served:
    """One server for both accounts, spoken to over ASGI."""

    def __init__(self, simulator: Simulator, http: httpx.AsyncClient) -> None:
        self.simulator = simulator
        self.http = http

    async def job(self, account: str, number: int = 0) -> tuple[str, Any]:
        """How the cache took part in reading a job, and its status."""
        jnid = list(self.simulator.account(account).records("jobs"))[number]["jnid"]
        headers = {"X-JobNimbus-Instance": account, "X-JobNimbus-Api-Key": self.simulator.keys[account][0]}
        asked = {"name": "get_job", "arguments": {"job_id": jnid, "fields": "status_name"}}
        answer = await self.http.post("/mcp/tools/call", json=asked, headers=headers)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return told["cache"]["status"], told["data"]["record"]["status_name"]

    async def change(self, account: str, status_name: str) -> tuple[int, dict[str, Any]]:
        """A change of the account's first job, and what its webhook was answered."""
        jnid = next(iter(self.simulator.account(account).records("jobs")))["jnid"]
        await self.simulator.change(account, "jobs", jnid, {"status_name": status_name}, webhook=False)
        body = {"event": "job.updated", "resource_type": "job", "resource_id": jnid}
        answer = await self.http.post(f"/webhooks/jobnimbus?token={SECRET}&instance={account}", json=body)
        return answer.status_code, answer.json()

    async def admin(self, path: str) -> dict[str, Any]:
        return dict((await self.http.get(path, headers={"Authorization": f"Bearer {ADMIN}"})).json())


@pytest.fixture
def servers(start_redis: Callable[..., Any]) -> dict[str, Any]:
    return {account: start_redis() for account in ACCOUNTS}


@pytest.fixture
async def served(servers: dict[str, Any], tmp_path: Path) -> AsyncIterator[Served]:
    simulator = Simulator(instances=ACCOUNTS)
    settings = Settings.from_env(
        {
            "JOBNIMBUS_INSTANCES": ",".join(ACCOUNTS),
            "JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1",
            "JOBNIMBUS_MAX_REQUESTS_PER_S": "1000",
            "ADMIN_TOKEN": ADMIN,
            "WEBHOOK_SECRET": SECRET,
            "CACHE_CIRCUIT_RESET_TIMEOUT": "500",
            "DATA_DIR": str(tmp_path),
            "REDIS_URL": servers["stamford"].url,
            "REDIS_URL_GUILFORD": servers["guilford"].url,
        }
    )
    upstream = httpx.ASGITransport(simulator.app)
    app = build(settings, Overrides(upstream_transport=upstream, random01=random.Random(7).random))
    async with (
        app.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://127.0.0.1", timeout=20) as http,
    ):
        yield Served(simulator, http)
    await simulator.aclose()


async def test_an_account_whose_redis_fails_leaves_the_others_their_cache(
    served: Served, servers: dict[str, Any]
) -> None:
    for account in ACCOUNTS:
        assert [(await served.job(account))[0] for _ in range(2)] == ["miss", "hit"]
        with servers[account].client() as client:
            assert {key.partition(b"{")[2].partition(b"}")[0].decode() for key in client.keys("jobnimbus:*")} == {
                account
            }

    await asyncio.to_thread(servers["guilford"].stop)
    for _ in range(8):
        assert (await served.job("guilford"))[0] == "bypass"
        assert (await served.job("stamford"))[0] == "hit"
    assert (await served.change("stamford", "Final Inspection"))[0] == 200
    assert (await served.job("stamford")) == ("miss", "Final Inspection")
    status, told = await served.change("guilford", "Final Inspection")
    assert (status, told["journalled"]) == (202, True)

    stats = await served.admin("/cache/stats?scope=process")
    assert stats["circuitBreaker"]["stores"] == {"store:stamford": "CLOSED", "store:guilford": "OPEN"}
    assert stats["circuitBreaker"]["owedInvalidations"] == ["guilford"]
    parts = (await served.admin("/ready"))["parts"]
    assert (parts["store:stamford"]["status"], parts["store:guilford"]["status"]) == ("up", "down")

    await asyncio.to_thread(servers["guilford"].restart)
    async with asyncio.timeout(10):
        while (await served.job("guilford"))[0] == "bypass":  # noqa: ASYNC110 - healing tells nobody of its end
            await asyncio.sleep(0.02)
    assert (await served.job("guilford"))[1] == "Final Inspection"
    assert (await served.admin("/cache/stats?scope=process"))["circuitBreaker"]["owedInvalidations"] == []


async def test_counts_of_an_account_are_kept_although_anothers_redis_is_away(
    served: Served, servers: dict[str, Any]
) -> None:
    await asyncio.to_thread(servers["guilford"].stop)
    for account in ACCOUNTS:
        await served.job(account)
    async with asyncio.timeout(10):
        with servers["stamford"].client() as client:
            while not client.hget("jobnimbus-sys:{stamford}:stats", "misses"):  # noqa: ASYNC110 - nor does a flush
                await asyncio.sleep(0.05)
