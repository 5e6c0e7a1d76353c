"""Webhooks while Redis is away: durable at once, applied without a call, and nothing read old from then on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.errors import CacheUnavailable

INSTANCE = "stamford"
ADMIN = "t0ken-of-the-admin-0001"
CALLER = "t0ken-of-the-callers-01"
SECRET = "s3cret-of-the-webhooks-01"
HEALED_S = 0.5 + 0.3
"""CACHE_CIRCUIT_RESET_TIMEOUT of the servers here, and a busy machine's share."""
START_BOUND_S = 20.0

Redis = Any
Site = Any
OpenSite = Callable[..., Awaitable[Any]]


@pytest.fixture
def server(start_redis: Callable[..., Redis]) -> Redis:
    return start_redis("--maxmemory-policy", "noeviction")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def journalled(data_dir: Path) -> int:
    """Lines on the disk; a file that is applied and removed while we look has none."""
    lines = 0
    for path in data_dir.glob("journal/*"):
        with contextlib.suppress(FileNotFoundError):
            lines += len(path.read_bytes().splitlines())
    return lines


def freeze(server: Redis) -> None:
    """Redis keeps what it has and says nothing, so that what is old there stays there to be found."""
    os.kill(server.pid, signal.SIGSTOP)


def thaw(server: Redis) -> None:
    os.kill(server.pid, signal.SIGCONT)


def status_of(reply: Any) -> str:
    return str(reply.body["data"]["record"]["status_name"])


def another(status_name: str) -> str:
    return "Final Inspection" if status_name != "Final Inspection" else "In Production"


async def in_the_log(site: Site, event_ids: set[str], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while True:
        told = await site.get("/cache/invalidations")
        if told.status_code == 200 and event_ids <= {row["eventId"] for row in told.body["invalidations"]}:
            return
        assert time.monotonic() < deadline, told.body
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_webhook_is_durable_then_applied_without_a_call_and_reads_are_new_from_the_first(
    server: Redis, open_site: OpenSite, data_dir: Path, how: str
) -> None:
    site = await open_site(server.url, DATA_DIR=str(data_dir))
    jnid = site.jobs[0]
    before = status_of(await site.job(jnid))
    assert (await site.job(jnid)).cache_status == "hit"
    await asyncio.to_thread(server.stop if how == "killed" else lambda: freeze(server))

    await site.change(jnid, another(before))
    answer = await site.webhook(jnid)
    assert answer.status_code == 202
    assert answer.took_s < 1.0
    event_id = answer.body["eventId"]
    assert answer.body == {"received": True, "journalled": True, "eventId": event_id, "duplicate": False}
    assert journalled(data_dir) == 1
    reply = await site.job(jnid)
    assert (reply.cache_status, status_of(reply)) == ("bypass", another(before))

    await asyncio.to_thread(server.restart if how == "killed" else lambda: thaw(server))
    await site.until(lambda: journalled(data_dir) == 0, HEALED_S)
    await site.until(lambda: site.app.accounts.indebted == (), HEALED_S)
    reply = await site.job(jnid)
    assert status_of(reply) == another(before)
    await in_the_log(site, {event_id}, 2.0)
    assert b'journal_total{outcome="applied"} 1.0' in site.app.recorder.exposition()[0]


async def test_an_event_that_came_by_way_of_the_journal_outlives_a_redis_that_forgets_everything_again(
    server: Redis, open_site: OpenSite, data_dir: Path
) -> None:
    site = await open_site(server.url, DATA_DIR=str(data_dir))
    await asyncio.to_thread(server.stop)
    event_id = (await site.webhook(site.jobs[0])).body["eventId"]
    await asyncio.to_thread(server.restart)
    await site.until(lambda: journalled(data_dir) == 0, HEALED_S)
    before = await site.app.events.show(INSTANCE, event_id)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.restart)
    deadline = time.monotonic() + 5.0
    found = None
    while found is None and time.monotonic() < deadline:
        try:
            found = await site.app.events.show(INSTANCE, event_id)
        except CacheUnavailable:
            found = None
        await asyncio.sleep(0.05)
    assert found is not None
    assert (found.event, found.consumers.keys()) == (before.event, before.consumers.keys())


async def test_it_costs_what_it_dirtied_and_not_the_whole_account(
    server: Redis, open_site: OpenSite, data_dir: Path
) -> None:
    site = await open_site(server.url, DATA_DIR=str(data_dir))
    await site.job(site.jobs[0])
    await site.call("get_contacts", {"size": 5})
    assert (await site.call("get_contacts", {"size": 5})).cache_status == "hit"
    freeze(server)
    answers = [await site.webhook(site.jobs[0]) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert journalled(data_dir) == 3
    thaw(server)
    await site.trusts_its_store(HEALED_S)
    await in_the_log(site, {answer.body["eventId"] for answer in answers}, 2.0)
    assert (await site.job(site.jobs[0])).cache_status == "miss"
    assert (await site.call("get_contacts", {"size": 5})).cache_status == "hit"


async def test_what_one_server_left_the_next_applies_before_it_reads(
    server: Redis, open_site: OpenSite, data_dir: Path, start_serving: Callable[..., Any]
) -> None:
    """The first is killed with its journal not applied, and Redis has kept what is old."""
    reader = await open_site(server.url, DATA_DIR=str(data_dir.parent / "elsewhere"))
    jnid = reader.jobs[0]
    before = status_of(await reader.job(jnid))
    first = await asyncio.to_thread(start_serving, REDIS_URL=server.url, DATA_DIR=str(data_dir))
    freeze(server)
    await reader.change(jnid, another(before))
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        answer = await http.post(
            f"{first.url}/webhooks/jobnimbus?token={SECRET}",
            json={"event": "job.updated", "resource_type": "job", "resource_id": jnid},
        )
    assert (answer.status_code, journalled(data_dir)) == (202, 1)
    first.kill()
    thaw(server)

    second = await open_site(server.url, DATA_DIR=str(data_dir))
    assert status_of(await second.job(jnid)) == another(before)
    await in_the_log(second, {answer.json()["eventId"]}, 2.0)
    await second.until(lambda: journalled(data_dir) == 0, HEALED_S)


async def test_a_journal_that_cannot_be_written_leaves_the_sender_to_come_again(
    server: Redis, open_site: OpenSite
) -> None:
    site = await open_site(server.url, DATA_DIR=os.devnull)
    jnid = site.jobs[0]
    before = status_of(await site.job(jnid))
    freeze(server)
    await site.change(jnid, another(before))
    answer = await site.webhook(jnid)
    assert (answer.status_code, answer.body["code"]) == (503, "cache_unavailable")
    assert "retry-after" in answer.headers
    thaw(server)
    await site.trusts_its_store(HEALED_S)
    assert status_of(await site.job(jnid)) == another(before)


async def test_the_embedded_store_keeps_no_journal(open_site: OpenSite, data_dir: Path) -> None:
    site = await open_site(None, DATA_DIR=str(data_dir))
    assert (await site.webhook(site.jobs[0])).status_code == 200
    assert list(data_dir.parent.glob("data*")) == []


class Serving:
    """A server process that answers."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(5)


@pytest.fixture
def start_serving(jobnimbus: str, tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """`start_serving(REDIS_URL=...)`: a server process of its own, which tests may kill."""
    started: list[Serving] = []

    def begin(**variables: str) -> Serving:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
        given = {
            "JOBNIMBUS_INSTANCES": INSTANCE,
            "JOBNIMBUS_API_BASE_URL": jobnimbus,
            "MCP_AUTH_TOKENS": CALLER,
            "ADMIN_TOKEN": ADMIN,
            "WEBHOOK_SECRET": SECRET,
            "LOG_LEVEL": "warning",
        }
        log = tmp_path / f"serve-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobnimbus_mcp", "serve", "--port", str(port)],
                cwd=tmp_path,
                env=kept | given | variables,
                stdout=output,
                stderr=output,
            )
        started.append(Serving(process, f"http://127.0.0.1:{port}"))
        deadline = time.monotonic() + START_BOUND_S
        with httpx.Client(trust_env=False) as client:
            while True:
                try:
                    assert client.get(f"{started[-1].url}/health").status_code == 200
                    return started[-1]
                except httpx.TransportError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)

    yield begin
    for serving in started:
        serving.kill()
