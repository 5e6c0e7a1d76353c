"""Events that were acknowledged, and then Redis forgets, or the server dies, or both: they are handled all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.app import App, Overrides, build
from jobnimbus_mcp.app.entry import run_worker
from jobnimbus_mcp.cache.system_keys import fleet_key
from jobnimbus_mcp.events.ports import Traced
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator

INSTANCE = "stamford"
ADMIN = "t0ken-of-the-admin-0001"
SECRET = "s3cret-of-the-webhooks-01"

Redis = Any
Site = Any


@pytest.fixture
def server(start_redis: Callable[..., Redis]) -> Redis:
    """Forgets everything when it ends."""
    return start_redis()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def copies(data_dir: Path) -> int:
    """Lines on the disk, of events that are in the log and of those that wait for it."""
    return sum(len(path.read_bytes().splitlines()) for path in data_dir.glob("events/*"))


async def until(asked: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not await asked():  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.02)


async def test_a_redis_that_forgets_before_the_consumers_ran_is_given_the_event_again(
    server: Redis, open_site: Callable[..., Any], data_dir: Path
) -> None:
    site = await open_site(server.url, DATA_DIR=str(data_dir), INDEX_SETTLE_S="2")
    with server.client() as client:
        # else the first webhooks take two seconds, for what servers may hold that a new store does not know of
        client.hset(fleet_key(INSTANCE), "_", 1)
    answer = await site.webhook(site.jobs[0])
    assert answer.status_code == 200
    event_id = answer.body["eventId"]
    assert copies(data_dir) == 1
    assert (await site.get(f"/cache/events/{event_id}")).body["consumers"]["settle"]["state"] == "delayed"

    await asyncio.to_thread(server.restart)

    async def done() -> bool:
        told = await site.get(f"/cache/events/{event_id}")
        return bool(told.status_code == 200 and told.body["state"] == "done")

    await until(done)
    told = (await site.get(f"/cache/events/{event_id}")).body
    assert {name: part["state"] for name, part in told["consumers"].items()} == {"settle": "done", "notify": "done"}
    assert (told["recordId"], told["body"]["resource_id"]) == (site.jobs[0], site.jobs[0])

    async def no_longer_needed() -> bool:
        return copies(data_dir) == 0

    await until(no_longer_needed)


@pytest.mark.long
async def test_a_redis_with_an_append_only_file_needs_no_copies(
    start_redis: Callable[..., Redis], open_site: Callable[..., Any], data_dir: Path
) -> None:
    site = await open_site(start_redis("--appendonly", "yes").url, DATA_DIR=str(data_dir))
    assert (await site.webhook(site.jobs[0])).status_code == 200
    assert copies(data_dir) == 0


@pytest.mark.long
async def test_an_event_that_can_be_kept_nowhere_safe_is_not_acknowledged(
    server: Redis, open_site: Callable[..., Any], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    site = await open_site(server.url, DATA_DIR=str(in_the_way / "data"))
    answer = await site.webhook(site.jobs[0])
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


# -- a server that is no more, and a worker for what it left -----------------------------------------------------------


def settings(url: str, data_dir: Path) -> Settings:
    return Settings.from_env(
        {
            "JOBNIMBUS_INSTANCES": INSTANCE,
            "JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1",
            "ADMIN_TOKEN": ADMIN,
            "WEBHOOK_SECRET": SECRET,
            "CACHE_CIRCUIT_RESET_TIMEOUT": "500",
            "INDEX_SETTLE_S": "1",
            "REDIS_URL": url,
            "DATA_DIR": str(data_dir),
        }
    )


@asynccontextmanager
async def taking_in(told: Settings, simulator: Simulator) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    """A server that takes webhooks and acts on none."""
    app = build(told, Overrides(upstream_transport=httpx.ASGITransport(simulator.app), handled=False))
    web = httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://127.0.0.1", timeout=20)
    async with app.running(), web:
        yield app, web


async def delivered(web: httpx.AsyncClient) -> httpx.Response:
    body = {"event": "job.updated", "resource_type": "job", "resource_id": "mjob0000000000000000j1"}
    return await web.post(f"/webhooks/jobnimbus?token={SECRET}&instance={INSTANCE}", json=body)


async def shown(told: Settings, simulator: Simulator, event_id: str) -> Traced | None:
    async with taking_in(told, simulator) as (app, _):
        return await app.events.show(INSTANCE, event_id)


@pytest.mark.long
async def test_a_worker_that_is_to_end_when_idle_first_takes_up_what_dead_servers_kept_of_a_log_that_forgot(
    server: Redis, simulator: Simulator, data_dir: Path
) -> None:
    told = settings(server.url, data_dir)
    async with taking_in(told, simulator) as (_, web):
        answer = await delivered(web)
        assert answer.status_code == 200
    assert copies(data_dir) == 1
    await asyncio.to_thread(server.restart)
    async with asyncio.timeout(15):
        await run_worker(told, until_idle=True)
    traced = await shown(told, simulator, answer.json()["eventId"])
    assert traced is not None
    assert traced.state == "done"


@pytest.mark.long
async def test_a_worker_that_is_to_end_when_idle_first_takes_up_what_was_journalled_while_redis_was_away(
    server: Redis, simulator: Simulator, data_dir: Path
) -> None:
    told = settings(server.url, data_dir)
    async with taking_in(told, simulator) as (_, web):
        await asyncio.to_thread(server.stop)
        answer = await delivered(web)
        assert (answer.status_code, answer.json()["journalled"]) == (202, True)
    await asyncio.to_thread(server.restart)
    async with asyncio.timeout(15):
        await run_worker(told, until_idle=True)
    traced = await shown(told, simulator, answer.json()["eventId"])
    assert traced is not None
    assert traced.state == "done"
