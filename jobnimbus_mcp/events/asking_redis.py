"""Every question to Redis, bounded in time, with one kind of error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.ports import EventsUnavailable, RedisRunner

__all__ = ["Asking", "text"]


class Asking:
    """A `RedisRunner`'s scripts and waits; each script takes at most `command_timeout_s`."""

    def __init__(self, runner: RedisRunner, command_timeout_s: float) -> None:
        self._runner = runner
        self._command_timeout_s = command_timeout_s

    async def run(self, name: str, tenant: str, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        """The script's reply.

        Raises:
            EventsUnavailable: it could not be run, or not in time; whether it was is not known.
        """
        try:
            async with asyncio.timeout(self._command_timeout_s):
                return await self._runner.run(name, keys, args, tenant=tenant)
        except (CacheUnavailable, TimeoutError) as error:
            raise EventsUnavailable(type(error).__name__) from error

    async def blocked(self, command: Sequence[Any], tenants: Sequence[str], within_s: float = 0.0) -> Any:
        """The reply of a command that the server may hold back for `within_s`.

        Raises:
            EventsUnavailable: it was refused, or is overdue.
        """
        try:
            bound_s = within_s + self._command_timeout_s
            return await self._runner.blocked(command, tenants=tenants, within_s=bound_s)
        except (CacheUnavailable, TimeoutError) as error:
            raise EventsUnavailable(type(error).__name__) from error


def text(raw: bytes | str) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
