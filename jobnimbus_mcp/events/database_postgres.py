"""One process's connections to the PostgreSQL that keeps the events: few, bounded in time, opened when first needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events.migrate_postgres import migrate, queue_sql
from jobnimbus_mcp.events.ports import EventsUnavailable

if TYPE_CHECKING:
    import asyncpg

__all__ = ["CHANNEL", "EVENTS", "INBOX", "Database"]

CHANNEL = "jobnimbus_mcp"
EVENTS, INBOX = "events", "inbox"
"""What is told on the channel: something was appended, settled or given back; something is in the inbox."""

_MIGRATE_WITHIN_S = 30.0
_RELEASE_WITHIN_S = 0.5
"""For a statement that was given up to be stopped by the server; a connection that does not hear of it is dropped."""
_CLOSE_WITHIN_S = 2.0


class Database:
    """`connections`: at most so many at once, and one more that listens. `command_timeout_s`: bound on one statement,
    and on getting a connection for it.

    Every method raises EventsUnavailable for whatever goes wrong on the way.
    """

    def __init__(self, dsn: str, *, connections: int = 8, command_timeout_s: float = 2.0) -> None:
        try:
            import asyncpg
        except ImportError as missing:
            raise SettingsError(
                "Events in PostgreSQL need asyncpg: pip install '.[postgres]' in the clone."
            ) from missing
        if not _is_address(dsn):
            raise SettingsError(
                "DATABASE_URL must be postgresql://role:password@host:port/database, with %XX for what means something"
                " in a URL, such as / # or ? in the password"
            )
        queue_sql()  # that it is there is better known now than at the first event
        self._driver = asyncpg
        self._faults = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, EOFError)
        self._outdated = (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError)
        self._dsn = dsn
        self._connections = connections
        self._timeout_s = command_timeout_s
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._migrated = False
        self._closed = False
        self._listening: asyncpg.Connection | None = None
        self._listeners: dict[int, tuple[str, Callable[[], None]]] = {}
        self._listener_ids = 0

    async def rows(self, sql: str, *values: Any) -> list[Any]:
        async with self.connection() as connection:
            found: list[Any] = await connection.fetch(sql, *values)
            return found

    async def value(self, sql: str, *values: Any, within_s: float | None = None) -> Any:
        async with self.connection(within_s=within_s) as connection:
            return await connection.fetchval(sql, *values, timeout=within_s)

    async def prepare(self) -> None:
        """Make the tables, with more time than a statement has; whatever comes first makes them otherwise."""
        with self._translated():
            async with asyncio.timeout(_MIGRATE_WITHIN_S):
                await self._ready()

    @asynccontextmanager
    async def connection(self, *, within_s: float | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the pool; `within_s`: bound on all that is done with it, without one twice a statement's."""
        with self._translated():
            async with asyncio.timeout(within_s or 2 * self._timeout_s):
                pool = await self._ready()
                connection = await pool.acquire(timeout=self._timeout_s)
                try:
                    yield connection
                finally:
                    await pool.release(connection, timeout=_RELEASE_WITHIN_S)

    def listen(self, message: str, heard: Callable[[], None]) -> Callable[[], None]:
        """`heard` is called when `message` is told, and when the connection that hears it is lost; the result ends
        that. Heard only after `hearing`."""
        self._listener_ids += 1
        mine = self._listener_ids
        self._listeners[mine] = (message, heard)

        def stop() -> None:
            self._listeners.pop(mine, None)

        return stop

    async def hearing(self) -> None:
        """What is told from now on will be heard."""
        if self._listening is not None and not self._listening.is_closed():
            return
        with self._translated():
            async with asyncio.timeout(2 * self._timeout_s):
                await self._ready()
                async with self._opening:
                    if self._listening is not None and not self._listening.is_closed():
                        return
                    connection = await self._driver.connect(
                        self._dsn, timeout=self._timeout_s, command_timeout=self._timeout_s
                    )
                    connection.add_termination_listener(self._lost)
                    try:
                        await connection.add_listener(CHANNEL, self._told)
                    except BaseException:
                        connection.terminate()
                        raise
                    self._listening = connection
                    if self._closed:
                        connection.terminate()

    async def aclose(self) -> None:
        """Close what is open, politely for a while."""
        self._closed = True
        listening, self._listening = self._listening, None
        pool, self._pool = self._pool, None
        try:
            with suppress(*self._faults):
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    if listening is not None:
                        await listening.close()
                    if pool is not None:
                        await pool.close()
        finally:
            self._cut(listening, pool)

    def cut(self) -> None:
        """Drop every connection at once, as the end of the process would."""
        self._closed = True
        listening, self._listening = self._listening, None
        pool, self._pool = self._pool, None
        self._cut(listening, pool)

    def _cut(self, listening: asyncpg.Connection | None, pool: asyncpg.Pool | None) -> None:
        if listening is not None and not listening.is_closed():
            listening.terminate()
        if pool is not None:
            pool.terminate()

    async def _ready(self) -> asyncpg.Pool:
        """The pool, of a database that is as this release needs it."""
        if self._closed:
            raise EventsUnavailable("closed")
        if self._pool is not None and self._migrated:
            return self._pool
        async with self._opening:
            if self._pool is None:
                self._pool = await self._driver.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._connections,
                    command_timeout=self._timeout_s,
                    timeout=self._timeout_s,
                    server_settings={"application_name": "jobnimbus-mcp"},
                )
            if not self._migrated:
                connection = await self._driver.connect(
                    self._dsn, timeout=self._timeout_s, command_timeout=_MIGRATE_WITHIN_S
                )
                try:
                    await migrate(connection)
                finally:
                    await connection.close(timeout=_CLOSE_WITHIN_S)
                self._migrated = True
            return self._pool

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SettingsError as error:  # of the database, which can be put right while this goes on
            raise EventsUnavailable(error.public_message) from error
        except self._outdated as error:
            self._migrated = False  # somebody has emptied the database: the next use makes it anew
            raise EventsUnavailable(type(error).__name__) from error
        except self._faults as error:
            # the class alone: messages of the server may hold what was to be written
            raise EventsUnavailable(type(error).__name__) from error

    def _told(self, _connection: Any, _pid: int, _channel: str, message: object) -> None:
        for wanted, heard in tuple(self._listeners.values()):
            if wanted == message:
                heard()

    def _lost(self, _connection: Any) -> None:
        for _, heard in tuple(self._listeners.values()):
            heard()


def _is_address(dsn: str) -> bool:
    """The driver would say otherwise only when it is used, and repeat part of the password."""
    try:
        parts = urlsplit(dsn)
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        return False
    return parts.scheme in ("postgresql", "postgres")
