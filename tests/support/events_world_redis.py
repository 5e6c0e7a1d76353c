"""The world of the event log in Redis: the session's server, emptied first and with an append-only file meanwhile; a
client of its own for each log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.log_redis import RedisEvents

if TYPE_CHECKING:
    import pytest
    from redis.asyncio import Redis

    from jobnimbus_mcp.events.ports import EventLog

__all__ = ["PACKAGE", "MortalRunner", "RedisWorld", "world"]

PACKAGE = "jobnimbus_mcp.events.scripts"


class MortalRunner:
    """A `RedisRunner` whose process may die: it says nothing more to the server then."""

    def __init__(self, client: Redis) -> None:
        self._scripts = Scripts(client, package=PACKAGE)
        self.dead = False
        self.ran: list[str] = []

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any], *, tenant: str = "") -> Any:
        self._alive()
        self.ran.append(name)
        reply = await self._scripts.run(name, keys, args, tenant=tenant)
        self._alive()
        return reply

    async def blocked(self, command: Sequence[Any], *, tenants: Sequence[str] = (), within_s: float = 5.0) -> Any:
        self._alive()
        return await self._scripts.blocked(command, tenants=tenants, within_s=within_s)

    def _alive(self) -> None:
        if self.dead:
            raise CacheUnavailable("this process is dead")


class RedisWorld:
    """As `events_world.World`. `runners`: of the logs, in their order."""

    instance = "acme"
    limits: frozenset[str] = frozenset()

    def __init__(self, url: str) -> None:
        self.clock = SystemClock()
        self.url = url
        self.runners: list[MortalRunner] = []
        self._opened: list[tuple[RedisEvents, Redis, MortalRunner]] = []

    async def log(self, *, claim_idle_s: float = 30.0, instances: Sequence[str] = (instance,)) -> RedisEvents:
        client = connect(self.url)
        runner = MortalRunner(client)
        log = RedisEvents(runner, clock=self.clock, tenants=instances, claim_idle_s=claim_idle_s)
        self._opened.append((log, client, runner))
        self.runners.append(runner)
        return log

    async def crash(self, log: EventLog) -> None:
        for one, _, runner in self._opened:
            if one is log:
                runner.dead = True

    async def close(self) -> None:
        for log, client, _ in self._opened:
            await log.aclose()
            await client.aclose()


@asynccontextmanager
async def world(request: pytest.FixtureRequest) -> AsyncIterator[RedisWorld]:
    server = request.getfixturevalue("redis_server")
    if server.process.poll() is not None:
        server.restart()
    with server.client() as client:
        client.flushall()
        client.config_set("appendonly", "yes")
    made = RedisWorld(server.url)
    try:
        yield made
    finally:
        await made.close()
        with server.client() as client:
            client.flushall()
            client.config_set("appendonly", "no")
