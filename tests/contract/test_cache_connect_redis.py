"""Connections: one whose command was given up is never used again, since its answer would be taken for the next
command's; and connecting is nobody's wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.pool_redis import ReadyPool
from jobnimbus_mcp.cache.ports import StoreError, StoreTimeout, StoreUnreachable, Verdict
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


class Door:
    """A proxy to a server that lets a connection in after `delay_s`; None: never. `shut`: it resets all that come."""

    def __init__(self, redis_url: str, delay_s: float | None) -> None:
        self._port = int(redis_url.rsplit(":", 1)[1].split("/")[0])
        self.delay_s = delay_s
        self._tasks: set[asyncio.Task[Any]] = set()
        self.knocks, self.let_in, self.shut = 0, 0, False
        self.url = ""

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Door]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks += 1
        try:
            if self.shut:
                return
            if self.delay_s is None:
                await asyncio.Event().wait()
            await asyncio.sleep(self.delay_s or 0)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            self.let_in += 1
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return  # the other end has gone
    finally:
        writer.close()


def pool_of(client: Redis) -> ReadyPool:
    pool = client.connection_pool
    assert isinstance(pool, ReadyPool)
    return pool


async def until(met: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not met():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.01)


async def test_a_cache_works_though_connecting_takes_longer_than_a_command_may(redis_url: str) -> None:
    """Not started, the guard has no background that could connect under a wider bound."""
    async with Door(redis_url, 0.15).standing() as door:
        client = connect(door.url)
        breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=60, failures=50), CLOCK)
        store = GuardedStore(RedisStore(client), breaker, CLOCK, 0.1)
        key = CacheKey("t", "p", "jobs", "detail", "a")
        failed = 0

        async def read() -> Verdict:
            return (await store.read(key, ("x",), "", want=True, call=Call.begin(CLOCK, "r"))).verdict

        async with asyncio.timeout(2):
            while True:
                try:
                    await read()
                    break
                except StoreError:
                    failed += 1
        assert failed <= 3
        for _ in range(5):
            assert set(await asyncio.gather(*(read() for _ in range(30)))) == {Verdict.MISS}
        notice = Notice("job.updated", "job", "a", "webhook", CLOCK.now(), "e")
        applied = await store.append_and_bump("t", ("x",), notice, Call.begin(CLOCK, "w"))
        assert applied.bumped == 1
        await client.aclose()


async def test_given_up_commands_leave_their_connections_to_the_next(redis_url: str) -> None:
    async with Door(redis_url, 0.15).standing() as door:
        client = connect(door.url, max_connections=1)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await client.ping()
        assert await client.ping() is True
        assert door.knocks == 1
        await client.aclose()


async def test_a_command_given_up_costs_a_connection_and_the_next_has_another(redis_url: str) -> None:
    async with Door(redis_url, 0.15).standing() as door:
        control, client = connect(redis_url), connect(door.url)
        assert await client.ping() is True
        await until(lambda: len(pool_of(client)._available_connections) >= 2)
        door.delay_s = None  # whoever would have to connect now waits for ever
        await control.client_pause(100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.ping()
        async with asyncio.timeout(10):
            assert await client.ping() is True
        await client.aclose()
        await control.aclose()


async def test_after_a_failure_connecting_goes_on_without_a_command(redis_url: str) -> None:
    async with Door(redis_url, 0).standing() as door:
        client = connect(door.url, max_connections=1, max_retries=3)
        door.shut = True
        with pytest.raises(RedisConnectionError):
            await client.ping()
        door.shut = False
        await until(lambda: door.let_in == 1)
        await client.aclose()


@pytest.mark.parametrize("max_retries", [0, 2])
async def test_connecting_is_tried_again_only_so_often_and_anew_with_the_next_command(
    redis_url: str, max_retries: int
) -> None:
    async with Door(redis_url, 0).standing() as door:
        client = connect(door.url, max_connections=1, max_retries=max_retries)
        door.shut = True
        for asked in (1, 2):
            with pytest.raises(RedisConnectionError):
                await client.ping()
            await until(lambda: not pool_of(client)._connecting)
            assert door.knocks == asked * (1 + max_retries)
        door.shut = False
        assert await client.ping() is True
        await client.aclose()


async def test_a_server_that_takes_connections_and_says_nothing_is_given_up(redis_url: str) -> None:
    async with Door(redis_url, None).standing() as door:
        client = connect(door.url, max_connections=1, connect_timeout_s=0.1, max_retries=0)
        with pytest.raises((RedisTimeoutError, RedisConnectionError)):
            await client.ping()
        door.delay_s = 0
        await until(lambda: not pool_of(client)._connecting)
        assert await client.ping() is True
        await client.aclose()


async def test_a_closed_client_has_no_connection_left_and_none_under_way(redis_url: str) -> None:
    async with Door(redis_url, 0.1).standing() as door:
        client = connect(door.url)
        pinging: asyncio.Future[Any] = asyncio.ensure_future(client.ping())
        await until(lambda: door.knocks > 0)
        await client.aclose()
        with pytest.raises(RedisConnectionError):
            await asyncio.wait_for(pinging, 1)
        await until(lambda: not door._tasks)


async def test_another_server_process_costs_the_connections_that_may_lead_to_the_one_before(redis_url: str) -> None:
    """A failover that leaves the old primary running: its connections are not broken by themselves."""
    control, client = connect(redis_url), connect(redis_url)
    scripts, pool = Scripts(client), pool_of(client)
    keys = ("jobnimbus-sys:{t}:rates:1",)
    await scripts.run("rates", keys, (), tenant="t")
    epoch = await control.get("jobnimbus-sys:{t}:epoch")
    await until(lambda: len(pool._available_connections) == 4)
    before = [await pool.get_connection() for _ in range(4)]
    await control.set("jobnimbus-sys:{t}:run", "another")
    await scripts.run("rates", keys, (), tenant="t")
    assert await control.get("jobnimbus-sys:{t}:epoch") != epoch
    for connection in before:
        await pool.release(connection)
    assert [connection for connection in before if connection.is_connected] == []
    await client.aclose()
    await control.aclose()


async def test_a_server_is_verified_once_per_connection(redis_url: str) -> None:
    control, client = connect(redis_url), connect(redis_url, max_connections=1)
    scripts = Scripts(client)
    epochs = set()
    for _ in range(5):
        await scripts.run("rates", ("jobnimbus-sys:{t}:rates:1",), (), tenant="t")
        epochs.add(await control.get("jobnimbus-sys:{t}:epoch"))
        await control.delete("jobnimbus-sys:{t}:run")
    assert len(epochs) == 1
    await client.aclose()
    await control.aclose()


def wait_for_lines(block_ms: int) -> tuple[Any, ...]:
    return ("XREAD", "BLOCK", block_ms, "STREAMS", "jobnimbus-sys:{t}:log", "$")


async def test_a_blocked_command_is_answered_when_there_is_something_to_say(redis_url: str) -> None:
    control, client = connect(redis_url), connect(redis_url, read_timeout_s=0.05)
    scripts = Scripts(client)
    listening = asyncio.ensure_future(scripts.blocked(wait_for_lines(2_000), tenants=["t"]))
    await until_blocked(control)
    await control.xadd("jobnimbus-sys:{t}:log", {"tags": "x"})
    reply = await listening
    assert [fields for _, fields in reply[b"jobnimbus-sys:{t}:log"]] == [[b"tags", b"x"]]
    assert await control.exists("jobnimbus-sys:{t}:run") == 1
    assert await scripts.blocked(wait_for_lines(10), tenants=["t"]) is None
    await client.aclose()
    await control.aclose()


async def test_a_blocked_command_given_up_costs_its_connection(redis_url: str) -> None:
    control, client = connect(redis_url), connect(redis_url, max_connections=1)
    scripts = Scripts(client)
    await control.set("jobnimbus:{t}:b", "theirs", px=60_000)
    for within_s in (0.05, 5.0):
        listening = asyncio.ensure_future(scripts.blocked(wait_for_lines(60_000), within_s=within_s))
        await until_blocked(control)
        if within_s == 5.0:
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
        else:
            with pytest.raises(StoreTimeout):
                await listening
        await control.xadd("jobnimbus-sys:{t}:log", {"tags": "x"})
        assert await client.get("jobnimbus:{t}:b") == b"theirs"
    await client.aclose()
    await control.aclose()


async def until_blocked(control: Redis) -> None:
    async with asyncio.timeout(5):
        while not (await control.info("clients"))["blocked_clients"]:  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.005)
