"""The world of the event log in PostgreSQL: one server for the session, a database that is emptied after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from postgres_server import PostgresServer, server

from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.events.log_postgres import PostgresEvents

if TYPE_CHECKING:
    from jobnimbus_mcp.events.ports import EventLog

__all__ = ["PostgresWorld", "session_server", "world"]

_SERVER = pytest.StashKey[PostgresServer]()
_DATABASE = pytest.StashKey[str]()

_EMPTY = """
do $$
declare one text;
begin
    for one in select queue_name from pgmq.meta loop
        execute format('delete from pgmq.%I', 'q_' || one);
        execute format('delete from pgmq.%I', 'a_' || one);
    end loop;
    delete from jobnimbus_mcp.events;
    delete from jobnimbus_mcp.inbox;
    delete from jobnimbus_mcp.consumers;
    perform jobnimbus_mcp.renew_token();
end
$$
"""
"""A tenth of the time that a new database takes, even one made from a template."""


def session_server(request: pytest.FixtureRequest) -> PostgresServer:
    """The session's server, started when first asked for."""
    stash = request.session.stash
    if _SERVER not in stash:
        stack = ExitStack()
        stash[_SERVER] = stack.enter_context(server())
        request.config.add_cleanup(stack.close)
    return stash[_SERVER]


class PostgresWorld:
    """As `events_world.World`; `dsn`: of the test's database."""

    instance = "acme"
    limits: frozenset[str] = frozenset()

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.clock = SystemClock()
        self.server = server
        self.database = database
        self.dsn = server.dsn(database)
        self._logs: list[PostgresEvents] = []

    async def log(
        self, *, claim_idle_s: float = 30.0, instances: Sequence[str] = (instance,), archive_days: float = 0
    ) -> PostgresEvents:
        log = PostgresEvents(
            self.dsn, clock=self.clock, instances=instances, claim_idle_s=claim_idle_s, archive_days=archive_days
        )
        self._logs.append(log)
        return log

    async def crash(self, log: EventLog) -> None:
        assert isinstance(log, PostgresEvents)
        log.cut()

    async def close(self) -> None:
        for log in self._logs:
            await log.aclose()


@asynccontextmanager
async def world(request: pytest.FixtureRequest) -> AsyncIterator[PostgresWorld]:
    started = session_server(request)
    stash = request.session.stash
    if _DATABASE in stash:
        database = stash[_DATABASE]
        del stash[_DATABASE]
    else:
        database = started.database()
    made = PostgresWorld(started, database)
    try:
        yield made
    finally:
        await made.close()
    # emptied before it is used again, and only when all went well: what a failure leaves is nobody else's
    connection = await asyncpg.connect(made.dsn)
    if await connection.fetchval("select to_regclass('jobnimbus_mcp.inbox') is not null"):
        await connection.execute(_EMPTY)
        stash[_DATABASE] = database
    await connection.close()
