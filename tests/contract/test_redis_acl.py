"""A Redis user with the least rights: everything works, and what is not needed is refused."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import pytest
from redis.exceptions import ResponseError

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.ports import Store
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.doctor_redis import store_facts
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.budget_redis import RedisBudget

CLOCK = SystemClock()


async def test_all_of_a_store_works_for_a_user_with_the_least_rights(
    redis_acl_url: str, exercise: Callable[[Store, str], Awaitable[None]]
) -> None:
    client = connect(redis_acl_url)
    await exercise(RedisStore(client), "stamford")
    recorder = InMemoryRecorder()
    budget = RedisBudget(client, LocalBudget(10, ["stamford"], CLOCK), rate_per_s=10, clock=CLOCK, recorder=recorder)
    assert await budget.take("stamford", Call.begin(CLOCK, "r")) == 0
    assert recorder.total("cache_errors") == 0
    await client.aclose()


async def test_scripts_that_were_forgotten_are_within_the_rights(redis_acl_url: str, redis_server: Any) -> None:
    client = connect(redis_acl_url)
    for _ in range(2):
        await RedisStore(client).ping(Call.begin(CLOCK, "r"))
        with redis_server.client() as operator:
            operator.script_flush()
    await client.aclose()


async def test_doctor_tells_the_user_and_what_it_may_be_told(redis_acl_url: str) -> None:
    facts = await store_facts(redis_acl_url)
    assert (facts.user, facts.tls, facts.found) == ("jobnimbus", False, "")
    assert facts.eviction is not None


def test_the_rights_are_the_commands_of_the_scripts_and_no_others(least_rights: tuple[str, str]) -> None:
    called = {"eval", "evalsha", "xread"}
    for package in ("cache", "consumers", "events", "resilience"):
        for script in files(f"jobnimbus_mcp.{package}.scripts").iterdir():
            if script.name.endswith(".lua"):
                called |= {name.lower() for name in re.findall(r"redis\.p?call\(\s*'([A-Z]+)'", script.read_text())}
    granted = set(re.findall(r"\+([a-z]+)(?!\S)", least_rights[0]))
    assert granted - {"ping", "select"} == called


async def test_in_a_cluster_one_right_more_is_needed(
    start_redis: Callable[..., Any],
    least_rights: tuple[str, str],
    exercise: Callable[[Store, str], Awaitable[None]],
) -> None:
    node = start_redis("--cluster-enabled", "yes")
    node.own_all_slots()
    with node.client() as operator:
        operator.execute_command("ACL", "SETUSER", "jobnimbus", "on", ">pw", *" ".join(least_rights).split())
    url = f"redis+cluster://jobnimbus:pw@127.0.0.1:{node.port}"
    client = connect(url, tenant="stamford")
    await exercise(RedisStore(client, probe="stamford"), "stamford")
    await client.aclose()
    assert (await store_facts(url)).user == "jobnimbus"


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "another:key"),
        ("XREAD", "STREAMS", "another:key", "0"),
        ("EVAL", "return redis.call('GET', 'another:key')", "0"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("SUBSCRIBE", "channel"),
    ],
)
async def test_what_is_not_needed_is_refused(redis_acl_url: str, command: tuple[str, ...]) -> None:
    client = connect(redis_acl_url)
    with pytest.raises(ResponseError) as refused:
        await client.execute_command(*command)
    assert any(word in str(refused.value) for word in ("permission", "can't run this command", "can't access"))
    await client.aclose()
