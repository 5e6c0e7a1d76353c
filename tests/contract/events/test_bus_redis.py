"""The bus in Redis: every process hears what is told while it listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog
from events_world_redis import PACKAGE

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.events.bus_redis import RedisBus
from jobnimbus_mcp.events.ports import EventsUnavailable

ACCOUNTS = ("acme", "stamford")
BOUND_S = 10.0


class Ear:
    """What was heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self._came = asyncio.Event()

    def __call__(self, instance: str, message: str) -> None:
        self.heard.append((instance, message))
        self._came.set()

    async def until(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(BOUND_S):
            while len(self.heard) < count:
                self._came.clear()
                await self._came.wait()
        return self.heard


Start = Callable[..., Awaitable[RedisBus]]


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """A started bus, as each process has one."""
    async with AsyncExitStack() as stack:

        async def begin(url: str = redis_url) -> RedisBus:
            client = connect(url)
            stack.push_async_callback(client.aclose)
            bus = RedisBus(Scripts(client, package=PACKAGE), tenants=ACCOUNTS, clock=SystemClock())
            stack.push_async_callback(bus.aclose)
            await bus.start()
            return bus

        yield begin


async def test_every_process_hears_everything_in_order_also_what_it_said_itself(start: Start) -> None:
    first, second = await start(), await start()
    ears = Ear(), Ear()
    first.listen(ears[0])
    second.listen(ears[1])
    await first.publish("acme", ["one", "two"])
    assert await ears[0].until(2) == await ears[1].until(2) == [("acme", "one"), ("acme", "two")]
    await second.publish("stamford", ["three"])
    assert (await ears[0].until(3))[2] == (await ears[1].until(3))[2] == ("stamford", "three")


async def test_nobody_hears_what_was_said_before_or_after_listening(start: Start) -> None:
    first, ear, other = await start(), Ear(), Ear()
    await first.publish("acme", ["before"])
    second = await start()
    stop = second.listen(ear)
    second.listen(other)
    await first.publish("acme", ["meanwhile"])
    assert await ear.until(1) == [("acme", "meanwhile")]
    stop()
    await first.publish("acme", ["after"])
    assert await other.until(2) == [("acme", "meanwhile"), ("acme", "after")]
    assert len(ear.heard) == 1


async def test_a_listener_that_fails_is_told_of_and_disturbs_no_other(start: Start) -> None:
    bus, ear = await start(), Ear()

    def broken(instance: str, message: str) -> None:
        raise RuntimeError("a defect")

    bus.listen(broken)
    bus.listen(ear)
    with structlog.testing.capture_logs() as lines:
        await bus.publish("acme", ["one", "two"])
        assert len(await ear.until(2)) == 2
    assert [line["event"] for line in lines] == ["a listener of the bus failed"] * 2


async def test_after_a_broken_connection_it_goes_on_where_it_was(start: Start, redis_server: Any) -> None:
    bus, ear = await start(), Ear()
    bus.listen(ear)
    await bus.publish("acme", ["one"])
    await ear.until(1)
    with redis_server.client() as server:
        server.client_kill_filter(_type="normal", skipme=True)
        server.xadd("jobnimbus-sys:{acme}:bus", {"m": "two"})
    assert await ear.until(2) == [("acme", "one"), ("acme", "two")]


async def test_what_was_said_is_forgotten_in_time(start: Start, redis_server: Any) -> None:
    bus = await start()
    for _ in range(11):
        await bus.publish("acme", [str(number) for number in range(2_000)])
    with redis_server.client() as server:
        assert 20_000 <= server.xlen("jobnimbus-sys:{acme}:bus") < 20_200
        assert 0 < server.ttl("jobnimbus-sys:{acme}:bus") <= 3_600


async def test_it_begins_without_a_server_and_says_that_nothing_can_be_told(start: Start, start_redis: Any) -> None:
    server = start_redis()
    server.stop()
    bus = await start(server.url)
    with pytest.raises(EventsUnavailable):
        await bus.publish("acme", ["one"])


async def test_a_backlog_told_at_once_is_heard_whole(start: Start) -> None:
    told = 10_000
    speaker, listener, ear = await start(), await start(), Ear()
    listener.listen(ear)
    said = [str(number) for number in range(told)]
    for begun in range(0, told, 2_500):
        await asyncio.gather(*(speaker.publish("acme", said[at : at + 500]) for at in range(begun, begun + 2_500, 500)))
    assert sorted(await ear.until(told)) == sorted(("acme", message) for message in said)
