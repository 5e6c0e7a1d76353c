"""A connection whose command was given up is never used again: its answer would be taken for the next command's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.ports import StoreTimeout, StoreUnreachable, Verdict
from jobnimbus_mcp.cache.scripts_redis import Scripts, translated
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy

CLOCK = SystemClock()


@pytest.mark.parametrize("way", ["script", "library"])
async def test_a_cancelled_commands_answer_is_not_the_next_ones(redis_url: str, way: str) -> None:
    control, client = connect(redis_url), connect(redis_url, max_connections=1)
    scripts = Scripts(client)
    await client.set("jobnimbus:{t}:a", "mine", px=60_000)
    await client.set("jobnimbus:{t}:b", "theirs", px=60_000)
    before = (await control.info("stats"))["total_connections_received"]
    for step in range(16):
        await control.client_pause(20)  # the server takes commands in and answers none of them meanwhile
        slow: asyncio.Future[Any]
        if way == "script":
            slow = asyncio.ensure_future(scripts.run("admission", ["jobnimbus:{t}:a", "jobnimbus:{t}:b"], (60,)))
        else:
            slow = asyncio.ensure_future(client.get("jobnimbus:{t}:a"))
        # Given up at another await each time: before it was sent, while it was away, as its answer came in.
        for _ in range(step % 8):
            await asyncio.sleep(0)
        if step >= 8:
            await asyncio.sleep(0.012 + step / 1_000)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        assert await client.get("jobnimbus:{t}:b") == b"theirs"
        assert await scripts.run("admission", ["jobnimbus:{t}:c", "jobnimbus:{t}:b"], (60,)) == [0, b"theirs"]
    assert (await control.info("stats"))["total_connections_received"] > before + 4
    await client.aclose()
    await control.aclose()


async def test_a_timed_out_read_leaves_nothing_for_the_next_reader(redis_url: str) -> None:
    """The bound of the guarded store cancels; the next call gets its own answer over a new connection."""
    control, client = connect(redis_url), connect(redis_url, max_connections=1)
    breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=60, failures=50), CLOCK)
    keys = [CacheKey("t", "p", "jobs", "detail", identifier) for identifier in ("a", "b")]
    async with GuardedStore(RedisStore(client), breaker, CLOCK, 0.05) as store:
        await store.read(keys[0], ("x",), "", want=True, call=Call.begin(CLOCK, "r"))
        await control.client_pause(100)
        call = Call.begin(CLOCK, "r")
        with pytest.raises(StoreTimeout):
            await store.read(keys[0], ("x",), "", want=True, call=call)
        assert call.store_usable is False
        await control.ping()  # answered when the pause is over
        seen = await store.read(keys[1], ("y", "z"), "", want=True, call=Call.begin(CLOCK, "r"))
        assert (seen.verdict, seen.vector.count(b"\n")) == (Verdict.MISS, 2)
    await client.aclose()
    await control.aclose()


async def test_a_server_on_a_unix_socket_is_reached(start_redis: Callable[..., Any], tmp_path: Path) -> None:
    start_redis("--unixsocket", str(tmp_path / "s"))
    client = connect(f"unix://{tmp_path / 's'}?db=1")
    assert await client.ping() is True
    await client.aclose()


async def test_a_server_given_by_its_parts_is_reached(redis_url: str) -> None:
    port = int(redis_url.rsplit(":", 1)[1].split("/")[0])
    client = connect({"host": "127.0.0.1", "port": port, "password": None, "db": 2, "tls": False})
    assert await client.ping() is True
    await client.aclose()


async def test_no_server_is_unreachable_at_once_and_not_retried() -> None:
    client = connect({"host": "127.0.0.1", "port": 1, "db": 0}, connect_timeout_s=1)
    began = CLOCK.monotonic()
    with pytest.raises(StoreUnreachable):
        await Scripts(client).run("rates", ["jobnimbus-sys:{t}:rates:1"], ())
    assert CLOCK.monotonic() - began < 0.5
    await client.aclose()


async def test_scripts_are_sent_again_after_the_server_forgot_them(redis_url: str) -> None:
    client = connect(redis_url)
    scripts = Scripts(client)
    for _ in range(2):
        assert await scripts.run("admission", ["jobnimbus-sys:{t}:ok:p", "jobnimbus-sys:{t}:fill-guard"], (60,)) != []
        await translated(client.script_flush())
    await client.aclose()


async def test_a_busy_pool_makes_commands_wait_not_fail(redis_url: str) -> None:
    client = connect(redis_url, max_connections=2)
    answers = await asyncio.gather(*(client.ping() for _ in range(50)))
    assert answers == [True] * 50
    await client.aclose()
