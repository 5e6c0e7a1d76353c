"""Runs the scripts of `scripts/` by their digest, and translates what goes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

import hiredis
from redis import exceptions as raised
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError

from jobnimbus_mcp.cache.ports import StoreError, StoreOutOfMemory, StoreReadOnly, StoreTimeout, StoreUnreachable

__all__ = ["Script", "Scripts", "translated"]

T = TypeVar("T")

_IDLE_MOST = 8
_READ_ONLY_REPLIES = ("READONLY", "MISCONF", "NOREPLICAS")
_AWAY_REPLIES = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "NOPERM", "WRONGPASS")


@dataclass(frozen=True, slots=True)
class Script:
    """One script's text and the digest the server knows it by."""

    text: str
    digest: str


class Scripts:
    """The scripts by file name without ending, read once at construction."""

    def __init__(self, client: Redis) -> None:
        self._pool: Any = client.connection_pool
        self._idle: list[Any] = []
        # A part of the pool only: whoever else uses the client waits for a connection that nobody here gives back.
        self._idle_most = min(_IDLE_MOST, self._pool.max_connections // 4)
        folder = files("jobnimbus_mcp.cache.scripts")
        texts = {
            item.name.removesuffix(".lua"): item.read_text("utf-8")
            for item in folder.iterdir()
            if item.name.endswith(".lua")
        }
        self._scripts = {
            name: Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
            for name, text in texts.items()
        }

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's reply.

        Raises:
            StoreError: whatever went wrong, translated.
        """
        script = self._scripts[name]
        try:
            return await self._execute(("EVALSHA", script.digest, len(keys), *keys, *args))
        except NoScriptError:
            # A server that was restarted or told to forget; EVAL runs the script and makes the digest known again.
            return await translated(self._execute(("EVAL", script.text, len(keys), *keys, *args)))
        except (RedisError, OSError) as error:
            raise _translation(error) from error

    async def _execute(self, command: tuple[Any, ...]) -> Any:
        """One command over a connection kept at hand, or one of the pool's.

        The library's own way, with its pool, retries and metrics around every command, costs as much as the round trip.
        A connection whose command did not end, by an error or by being cancelled, has been closed by
        `send_packed_command` or `read_response`; it goes back to the pool, which connects it anew.
        """
        connection = await self._at_hand() or await self._pool.get_connection()
        try:
            await connection.send_packed_command(hiredis.pack_command(command), check_health=False)
            return await connection.read_response()
        finally:
            if connection.is_connected and len(self._idle) < self._idle_most:
                self._idle.append(connection)
            else:
                await self._pool.release(connection)

    async def _at_hand(self) -> Any:
        """A connected connection with nothing unread in it; None when there is none."""
        while self._idle:
            connection = self._idle.pop()
            try:
                if connection.is_connected and not await connection.can_read():
                    return connection
            except (RedisError, OSError):
                pass  # it is gone, which is all that is asked here
            try:
                await connection.disconnect(nowait=True)
            finally:
                await self._pool.release(connection)
        return None


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
    if isinstance(error, raised.ConnectionError | OSError) or first in _AWAY_REPLIES:
        return StoreUnreachable(name)
    return StoreError(name)
