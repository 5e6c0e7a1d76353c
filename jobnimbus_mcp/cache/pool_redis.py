"""A pool that connects in tasks of its own: a command takes a connected connection, and never connects itself.

Connecting may take longer than a command may (TLS, another zone). Begun within a command's bound it would be cancelled
with the command and begun again for ever; here it goes on, and serves whoever comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import ConnectionPool
from redis.exceptions import AskError, BusyLoadingError, ClusterDownError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobnimbus_mcp.cache.address import Place
from jobnimbus_mcp.cache.locate_redis import Locator
from jobnimbus_mcp.cache.whereabouts_redis import Whereabouts

__all__ = ["ReadyPool"]

_SPARE = 4
"""Connections kept once one was asked for: a command that is given up costs its own, and the next finds another."""

_ELSEWHERE = (AskError, BusyLoadingError, ClusterDownError, ReadOnlyError)
"""What a server answers that is not in charge, or not yet; MOVED and MASTERDOWN are kinds of these."""

_BACKOFF_S = 0.05
_BACKOFF_MAX_S = 1.0


class ReadyPool(ConnectionPool):
    """Connected connections, at most `max_connections` with those being connected.

    `connect_timeout_s` bounds one try, handshake included. After a failed try at most `max_retries` more are made,
    with growing pauses that a waiting command cuts short; then the next command begins anew. A failed try is the answer
    of all who wait, unless connections are in use that may come back to them. `timeout`: the longest wait for a
    connection, in seconds, of a command that nobody bounds.

    `locator` says where the server is, None where that never changes. When it names another one, all connections to
    the one before are closed at once, those in use as well; `on_moved` is called when the new one has answered.
    """

    def __init__(
        self,
        *,
        max_connections: int = 40,
        connect_timeout_s: float = 10.0,
        max_retries: int = 3,
        timeout: float = 10.0,
        locator: Locator | None = None,
        on_moved: Callable[[], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(max_connections=max_connections, **options)
        self._connect_timeout_s = connect_timeout_s
        self._max_retries = max_retries
        self._wait_s = timeout
        self._idle: list[Any] = self._available_connections
        self._busy: set[Any] = self._in_use_connections
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._outdated: set[asyncio.Task[None]] = set()
        self._trying: dict[asyncio.Task[None] | None, Place | None] = {}
        self._where = None if locator is None else Whereabouts(locator, self._settled, self._answer_unless_busy)
        self._on_moved = on_moved
        self._answered_at: Place | None = None
        self._hurry = asyncio.Event()
        self._marks: dict[Any, set[str]] = {}
        self._open = True
        self._told = False
        self.process = ""
        """Which process of the server its users found last, as they call it; for them to note, as is the next."""
        self.confirmed: dict[str, str] = {}
        """By tenant, the last invalidation that was confirmed to them."""

    @property
    def place(self) -> Place | None:
        """Where the locator found the server; None while it has not, and without a locator."""
        return None if self._where is None else self._where.place

    async def at_hand(self) -> Any:
        """A connected connection with nothing unread in it; None when there is none. Does not wait."""
        if self._where is not None and not self._where.trusted():
            return None
        while self._idle:
            connection = self._idle.pop()
            try:
                if connection.is_connected and not await connection.can_read():
                    self._busy.add(connection)
                    return connection
            except (RedisError, OSError):
                pass  # it is gone, which is all that is asked here
            await self._drop(connection)
        return None

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """A connected connection, to be given back with `release`.

        Raises:
            RedisError, OSError: the server could not be reached, or refused.
        """
        self._open = True
        connection = await self.at_hand()
        if connection is not None:
            return connection
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        if self._where is not None and self._where.place is not None and self._idle:
            self._where.ask()  # they serve, if it is still there
        else:
            self._grow()
        try:
            async with asyncio.timeout(self._wait_s):
                try:
                    return await waiter
                except asyncio.CancelledError:
                    if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                        await self.release(waiter.result())
                    raise
        except TimeoutError:
            raise RedisTimeoutError("no connection became free") from None
        finally:
            self._waiting.pop(waiter, None)

    async def release(self, connection: Any) -> None:
        """Take a connection back. One that was closed in mid-command is not used again. Does not wait."""
        self._busy.discard(connection)
        if self._open and connection.is_connected and not connection.should_reconnect():
            if self._where is None:
                self._offer(connection)
                return
            if _place(connection) == self._where.place:
                self._where.answered()
                self._offer(connection)
                return
        elif self._open and self._where is not None and _place(connection) == self._where.place:
            self._where.doubt()
        await self._drop(connection)
        if self._open:
            self._grow()

    async def report(self, connection: Any, error: RedisError) -> None:
        """What a command on this connection was answered; a server that is not in charge is left."""
        if not (isinstance(error, _ELSEWHERE) or str(error).startswith("UNBLOCKED")):
            return
        # One address may lead to another server by now as well, but for new connections only.
        if self._where is None or self._where.forget(_place(connection), error):
            for other in self._busy:
                other.mark_for_reconnect()
            await self._drop_idle()

    def marks(self, connection: Any) -> set[str]:
        """What its users noted of this connection; forgotten with it."""
        return self._marks[connection]

    async def keep_only(self, connection: Any) -> None:
        """Close all other connections, those in use when they come back."""
        for other in self._busy - {connection}:
            other.mark_for_reconnect()
        await self._drop_idle()
        self._grow()

    async def aclose(self) -> None:
        """Stop connecting and close all connections."""
        self._open = False
        tasks = (*self._connecting, *self._outdated)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._where is not None:
            await self._where.aclose()
        self._answer(RedisConnectionError("closed"))
        await super().aclose()
        await self._drop_idle()

    # -- where the server is -----------------------------------------------------------------------------------------

    async def _settled(self, changed: bool) -> None:
        """It is known where the server is: leave any other, serve those who wait, connect where nothing is."""
        if changed:
            await self._leave()
        while self._waiting and (connection := await self.at_hand()) is not None:
            self._busy.discard(connection)
            self._offer(connection)
        if self._waiting or not self._idle:
            self._grow(1)

    async def _leave(self) -> None:
        """Close what leads to where the server is not. An answer from there may be older than an invalidation that was
        acknowledged elsewhere, also one that is under way."""
        where = self._where.place if self._where is not None else None
        for task, place in tuple(self._trying.items()):
            if task is not None and place is not None and place != where:
                self._connecting.discard(task)
                self._outdated.add(task)
                task.add_done_callback(self._outdated.discard)
                task.cancel()
        for connection in [other for other in self._idle if _place(other) != where]:
            self._idle.remove(connection)
            await self._drop(connection)
        for connection in self._busy:
            if _place(connection) != where and connection._writer is not None:
                connection._writer.transport.abort()

    def _answer_unless_busy(self, failure: Exception) -> None:
        if not self._busy:
            self._answer(failure)

    # -- connecting --------------------------------------------------------------------------------------------------

    def _grow(self, spare: int = _SPARE) -> None:
        """Connect as many as are waited for, and the spare ones."""
        if not self._open:
            return
        if self._waiting and not self._busy:
            self._hurry.set()
        there = len(self._idle) + len(self._busy) + len(self._connecting)
        wanted = max(spare - there, len(self._waiting) - len(self._connecting))
        for _ in range(min(wanted, self.max_connections - there)):
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        pause_s = _BACKOFF_S
        for left in range(self._max_retries, -1, -1):
            failure = await self._tried()
            if failure is None:
                return
            if not self._trying and not self._busy:
                self._answer(failure)
            if left == 0 or len(self._connecting) > max(1, len(self._waiting)):
                self._tell(failure)
                break
            self._hurry.clear()
            try:
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()
            except TimeoutError:
                pause_s = min(pause_s * 2, _BACKOFF_MAX_S)
        # Gone before whoever begins to wait now counts who is connecting for them.
        self._connecting.discard(asyncio.current_task())

    async def _tried(self) -> Exception | None:
        """Connect once and offer the connection; what went wrong otherwise."""
        connection: Any = None
        place: Place | None = None
        task = asyncio.current_task()
        self._trying[task] = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                while True:
                    if self._where is None:
                        connection = self.make_connection()  # type: ignore[no-untyped-call]  # redis-py has no types
                    else:
                        place = self._trying[task] = await self._where.here()
                        there: dict[str, Any] = {"host": place[0], "port": place[1]}
                        connection = self.connection_class(**self.connection_kwargs, **there)
                    await connection.connect()
                    if self._where is None or place == self._where.place:
                        break
                    await connection.disconnect(nowait=True)
        except Exception as error:  # the boundary to the library: whatever it is, it is the answer of those who wait
            await self._not_connected(connection, place, error)
            return error
        except BaseException:
            if connection is not None:
                await connection.disconnect(nowait=True)
            raise
        finally:
            del self._trying[task]
        self._arrived(place)
        self._connecting.discard(asyncio.current_task())
        self._told = False
        self._marks[connection] = set()
        self._offer(connection)
        self._grow()
        return None

    async def _not_connected(self, connection: Any, place: Place | None, error: Exception) -> None:
        if connection is not None:
            await connection.disconnect(nowait=True)
        if self._where is not None and place is not None:
            self._where.forget(place, error)

    def _arrived(self, place: Place | None) -> None:
        if self._where is None:
            return
        self._where.answered()
        if self._on_moved is not None and self._answered_at not in (None, place):
            asyncio.get_running_loop().call_soon(self._on_moved)
        self._answered_at = place

    def _offer(self, connection: Any) -> None:
        while self._waiting:
            waiter = self._waiting_longest()
            if not waiter.done():
                self._busy.add(connection)
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _answer(self, failure: Exception) -> None:
        """Tell everyone who waits. Each gets an exception of its own: a shared one would gather all their frames."""
        kind = type(failure) if isinstance(failure, RedisError) else RedisConnectionError
        while self._waiting:
            waiter = self._waiting_longest()
            if not waiter.done():
                error = kind(*failure.args)
                error.__cause__ = failure
                waiter.set_exception(error)

    def _waiting_longest(self) -> asyncio.Future[Any]:
        waiter = next(iter(self._waiting))
        del self._waiting[waiter]
        return waiter

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._drop(self._idle.pop())

    async def _drop(self, connection: Any) -> None:
        self._marks.pop(connection, None)
        await connection.disconnect(nowait=True)

    def _tell(self, failure: Exception) -> None:
        # Once until it is back: in an outage somebody asks every second.
        if not self._told:
            self._told = True
            structlog.get_logger().warning("store not connected", error=type(failure).__name__)


def _place(connection: Any) -> Place:
    return connection.host, connection.port
