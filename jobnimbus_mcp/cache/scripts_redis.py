"""Runs the scripts of `scripts/` by their digest, and translates what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

import hiredis
import structlog
from redis import exceptions as raised
from redis.asyncio import Redis
from redis.exceptions import MovedError, NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError

from jobnimbus_mcp.cache.key import system_key
from jobnimbus_mcp.cache.pool_redis import ReadyPool
from jobnimbus_mcp.cache.ports import (
    LOG_LENGTH,
    START,
    StoreError,
    StoreOutOfMemory,
    StoreReadOnly,
    StoreTimeout,
    StoreUnreachable,
)

__all__ = ["Script", "Scripts", "translated"]

T = TypeVar("T")

_OWN = "jobnimbus_mcp.cache.scripts"
_ANOTHER, _UNTOLD = 2, 3
_NOWHERE = "9999999999999-0"
_READ_ONLY_REPLIES = ("READONLY", "MISCONF", "NOREPLICAS")
_AWAY_REPLIES = ("UNBLOCKED",)
_AWAY = (raised.ConnectionError, OSError, raised.AskError, raised.TryAgainError, raised.ClusterError)
"""Also a server that is not in charge of these keys, or of none at the time."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script's text and the digest the server knows it by."""

    text: str
    digest: str


class Scripts:
    """The scripts by file name without ending, read once at construction. `client` is one of `connect`'s.

    `package`: whose scripts to run; the cache's own are there besides, since the server is verified by them.
    """

    def __init__(
        self,
        client: Redis,
        new_token: Callable[[], str] = lambda: secrets.token_hex(8),
        *,
        package: str = _OWN,
    ) -> None:
        pool = client.connection_pool
        if not isinstance(pool, ReadyPool):
            raise TypeError("the client must be one of connect()'s")
        self._pool = pool
        self._new_token = new_token
        self._warned = False
        texts = {
            item.name.removesuffix(".lua"): item.read_text("utf-8")
            for folder in dict.fromkeys((_OWN, package))
            for item in files(folder).iterdir()
            if item.name.endswith(".lua")
        }
        self._scripts = {
            name: Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
            for name, text in texts.items()
        }

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any], *, tenant: str = "") -> Any:
        """The script's reply.

        `tenant`: whose keys these are; before its first script on each connection the server process is verified, over
        that same connection. A restart or failover breaks all connections, so whatever a server has lost, nothing of
        the tenant is asked of it before everything that may be too old is invalid. Empty: nothing is verified.

        Raises:
            StoreError: whatever went wrong, translated.
        """

        def send(connection: Any) -> Awaitable[Any]:
            return self._execute(connection, name, keys, args)

        tenants = (tenant,) if tenant else ()
        try:
            try:
                return await self._carried(send, tenants)
            except MovedError:
                # Nothing was carried out, and who has the keys now is being asked.
                return await self._carried(send, tenants)
        except (RedisError, OSError) as error:
            raise _translation(error) from error

    def told(self, tenant: str, position: str) -> None:
        """An invalidation of the tenant holds, by this line of its log. To be said at once when `run` has returned: the
        next connection is asked whether it leads to where that line is."""
        self._pool.confirmed[tenant] = _NOWHERE if position == START else position

    async def blocked(self, command: Sequence[Any], *, tenants: Sequence[str] = (), within_s: float = 5.0) -> Any:
        """The reply of a raw command which the server holds back until there is something to say, such as XREAD BLOCK.

        It has a connection to itself meanwhile. Cancelled, failed or without a reply `within_s`, that connection is
        closed, never given back with a reply to come. `tenants`: whose keys these are, verified as by `run`.

        Raises:
            StoreError: whatever went wrong, translated.
        """

        def send(connection: Any) -> Awaitable[Any]:
            return _answer(connection, tuple(command), reply_s=math.inf)

        try:
            async with asyncio.timeout(within_s):
                return await self._carried(send, tenants)
        except TimeoutError as error:
            raise StoreTimeout(type(error).__name__) from error
        except (RedisError, OSError) as error:
            raise _translation(error) from error

    async def _carried(self, send: Callable[[Any], Awaitable[Any]], tenants: Sequence[str]) -> Any:
        """What `send` returns for a connection to a server that is verified for the tenants."""
        connection = await self._pool.at_hand() or await self._pool.get_connection()
        marks = self._pool.marks(connection)
        try:
            for tenant in tenants:
                if tenant not in marks:
                    await self._verify(connection, tenant)
            answer = await send(connection)
        except RedisError as error:
            await self._pool.report(connection, error)
            raise
        finally:
            await self._pool.release(connection)
        if tenants and self._pool.process not in marks:
            # What another process of the server says that was left meanwhile holds nowhere any more.
            raise raised.ConnectionError("the server was left")
        return answer

    async def _verify(self, connection: Any, tenant: str) -> None:
        pool, confirmed = self._pool, self._pool.confirmed
        keys = tuple(system_key(tenant, name) for name in ("epoch", "run", "log", "fleet"))
        while True:
            last = confirmed.get(tenant, "")
            args = (self._new_token(), LOG_LENGTH, last)
            verdict, told = await self._execute(connection, "verify", keys, args)
            run = f"run:{told.decode()}"
            if run == pool.process or confirmed.get(tenant, "") == last:
                break  # else the process before has confirmed one more meanwhile
        if verdict and confirmed.get(tenant) == last:
            del confirmed[tenant]
        if verdict == _UNTOLD and not self._warned:
            self._warned = True
            structlog.get_logger().warning("store does not tell its run id: each new connection empties the cache")
        pool.marks(connection).update((tenant, run))
        before, pool.process = pool.process, run
        if verdict == _ANOTHER or before not in ("", run):
            # The older connections may lead to the process that was there before, where it still runs.
            await pool.keep_only(connection)

    async def _execute(self, connection: Any, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        script = self._scripts[name]
        try:
            return await _answer(connection, ("EVALSHA", script.digest, len(keys), *keys, *args))
        except NoScriptError:
            # A server that was restarted or told to forget; EVAL runs the script and makes the digest known again.
            return await _answer(connection, ("EVAL", script.text, len(keys), *keys, *args))


async def _answer(connection: Any, command: tuple[Any, ...], reply_s: float | None = None) -> Any:
    """One command's answer. `reply_s`: how long it is waited for, None: as long as the client does.

    The library's own way, with its pool, retries and metrics around every command, costs as much as the round trip.
    A connection whose command did not end, by an error or by being cancelled, is closed by `send_packed_command` or
    `read_response`.
    """
    await connection.send_packed_command(hiredis.pack_command(command), check_health=False)
    return await connection.read_response(timeout=reply_s)


async def translated(command: Awaitable[T]) -> T:
    """The command's reply, or a `StoreError`."""
    try:
        return await command
    except (RedisError, OSError) as error:
        raise _translation(error) from error


def _translation(error: RedisError | OSError) -> StoreError:
    # The server's own words may hold keys; only the class and the reply's first word go on.
    name, first = type(error).__name__, str(error).partition(" ")[0]
    if isinstance(error, ReadOnlyError) or first in _READ_ONLY_REPLIES:
        return StoreReadOnly(name)
    if isinstance(error, OutOfMemoryError) or first == "OOM":
        return StoreOutOfMemory(name)
    if isinstance(error, raised.TimeoutError) or first == "BUSY":
        return StoreTimeout(name)
    if isinstance(error, (*_AWAY, raised.NoPermissionError)) or first in _AWAY_REPLIES:
        return StoreUnreachable(name)
    return StoreError(name)
