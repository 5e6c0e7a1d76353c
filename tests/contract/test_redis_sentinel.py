"""A store behind Sentinels: found by their word, and never anything else."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.ports import Store, StoreUnreachable
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.doctor_redis import store_facts

Exercise = Callable[[Store, str], Awaitable[None]]


async def test_all_of_a_store_works_behind_sentinels(redis_sentinel: Any, exercise: Exercise) -> None:
    client = connect(redis_sentinel.url)
    for tenant in ("stamford", "guilford"):
        await exercise(RedisStore(client), tenant)
    with redis_sentinel.primary.client() as primary:
        assert primary.exists("jobnimbus-sys:{guilford}:run") == 1
    await client.aclose()


async def test_the_database_of_the_url_is_used(redis_sentinel: Any) -> None:
    client = connect(redis_sentinel.url + "/3")
    await client.set("here", "1", px=5_000)
    await client.aclose()
    with redis_sentinel.primary.client() as primary:
        assert primary.exists("here") == 0
        primary.select(3)
        assert primary.exists("here") == 1


async def test_a_name_that_no_sentinel_knows_is_unreachable(redis_sentinel: Any) -> None:
    client = connect(redis_sentinel.url.replace("/jobs", "/another"), max_retries=0)
    with pytest.raises(StoreUnreachable):
        await Scripts(client).run("rates", ("jobnimbus-sys:{t}:rates:1",), ())
    await client.aclose()


async def test_a_sentinel_that_is_away_and_one_that_is_frozen_cost_a_moment(
    start_sentinels: Callable[[], Any],
) -> None:
    sentinels = start_sentinels()
    sentinels.sentinels[0].kill()
    sentinels.sentinels[1].send_signal(signal.SIGSTOP)
    client = connect(sentinels.url)
    assert await client.ping() is True
    await client.aclose()


async def test_doctor_says_who_the_master_is(redis_sentinel: Any) -> None:
    facts = await store_facts(redis_sentinel.url)
    assert f"127.0.0.1:{redis_sentinel.primary.port}" in facts.found
    assert facts.version.startswith("7.")
