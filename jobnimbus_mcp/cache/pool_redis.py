"""A pool that connects in tasks of its own: a command takes a connected connection, and never connects itself.

Connecting may take longer than a command may (TLS, another zone). Begun within a command's bound it would be cancelled
with the command and begun again for ever; here it goes on, and serves whoever comes next.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["ReadyPool"]

_SPARE = 4
"""Connections kept once one was asked for: a command that is given up costs its own, and the next finds another."""

_BACKOFF_S = 0.05
_BACKOFF_MAX_S = 1.0


class ReadyPool(ConnectionPool):
    """Connected connections, at most `max_connections` with those being connected.

    `connect_timeout_s` bounds one try, handshake included. After a failed try at most `max_retries` more are made,
    with growing pauses that a waiting command cuts short; then the next command begins anew. A failed try is the answer
    of all who wait, unless connections are in use that may come back to them. `timeout`: the longest wait for a
    connection, in seconds, of a command that nobody bounds.
    """

    def __init__(
        self,
        *,
        max_connections: int = 40,
        connect_timeout_s: float = 10.0,
        max_retries: int = 3,
        timeout: float = 10.0,
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
        self._trying = 0
        self._hurry = asyncio.Event()
        self._marks: dict[Any, set[str]] = {}
        self._open = True
        self._told = False

    async def at_hand(self) -> Any:
        """A connected connection with nothing unread in it; None when there is none. Does not wait."""
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
            self._offer(connection)
            return
        await self._drop(connection)
        if self._open:
            self._grow()

    def marks(self, connection: Any) -> set[str]:
        """What its users noted of this connection; forgotten with it."""
        return self._marks[connection]

    async def keep_only(self, connection: Any) -> None:
        """Close all other connections, those in use when they come back."""
        for other in self._busy - {connection}:
            other.mark_for_reconnect()
        while self._idle:
            await self._drop(self._idle.pop())

    async def aclose(self) -> None:
        """Stop connecting and close all connections."""
        self._open = False
        tasks = tuple(self._connecting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._answer(RedisConnectionError("closed"))
        await super().aclose()
        while self._idle:
            await self._drop(self._idle.pop())

    # -- connecting --------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Connect as many as are waited for, and the spare ones."""
        if self._waiting and not self._busy:
            self._hurry.set()
        there = len(self._idle) + len(self._busy) + len(self._connecting)
        wanted = max(_SPARE - there, len(self._waiting) - len(self._connecting))
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
        connection: Any = self.make_connection()  # type: ignore[no-untyped-call]
        self._trying += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.connect()
        except Exception as error:  # the boundary to the library: whatever it is, it is the answer of those who wait
            await connection.disconnect(nowait=True)
            return error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._trying -= 1
        self._connecting.discard(asyncio.current_task())
        self._told = False
        self._marks[connection] = set()
        self._offer(connection)
        self._grow()
        return None

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

    async def _drop(self, connection: Any) -> None:
        self._marks.pop(connection, None)
        await connection.disconnect(nowait=True)

    def _tell(self, failure: Exception) -> None:
        # Once until it is back: in an outage somebody asks every second.
        if not self._told:
            self._told = True
            structlog.get_logger().warning("store not connected", error=type(failure).__name__)
