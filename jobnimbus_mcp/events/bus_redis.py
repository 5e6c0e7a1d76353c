"""The bus of all processes, over one short stream for each account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.asking_redis import Asking, text
from jobnimbus_mcp.events.keys_redis import bus_key
from jobnimbus_mcp.events.ports import EventsUnavailable, RedisRunner
from jobnimbus_mcp.events.trace_redis import fields_of

__all__ = ["RedisBus"]

_MESSAGES_MOST = 20_000
"""As many as a process may have before it while it is busy or its connection is made anew: a backlog of thousands is
told within a second. About 2 MB of an account's store."""

_LIFE_S = 3_600
_WAIT_S = 5.0
_REST_S = 0.25
_LINES = 500


class RedisBus:
    """A `Bus`. Hears from `start` to `aclose`; after a broken connection it goes on where it was."""

    def __init__(
        self, runner: RedisRunner, *, tenants: Sequence[str], clock: Clock, command_timeout_s: float = 2.0
    ) -> None:
        self._asking = Asking(runner, command_timeout_s)
        self._names = {bus_key(tenant): tenant for tenant in tenants}
        self._clock = clock
        self._positions: dict[str, str] = {}
        self._listeners: dict[object, Callable[[str, str], None]] = {}
        self._hearing: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    async def start(self) -> None:
        """Return when everything that is told from now on will be heard, or the store is away: then from its return."""
        if self._hearing is None and self._names:
            try:
                await self._begin()
            except EventsUnavailable as error:
                self._log.warning("bus away", error=error.detail)
            self._hearing = asyncio.create_task(self._hear())

    async def publish(self, instance: str, messages: Sequence[str]) -> None:
        if messages:
            args = (_MESSAGES_MOST, _LIFE_S, *messages)
            await self._asking.run("bus_tell", instance, [bus_key(instance)], args)

    def listen(self, heard: Callable[[str, str], None]) -> Callable[[], None]:
        token = object()
        self._listeners[token] = heard

        def stop() -> None:
            self._listeners.pop(token, None)

        return stop

    async def aclose(self) -> None:
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _begin(self) -> None:
        for name, tenant in self._names.items():
            if name not in self._positions:
                self._positions[name] = text(await self._asking.run("bus_last", tenant, [name]))

    async def _hear(self) -> None:
        away = False
        while True:
            try:
                await self._begin()
                command = ("XREAD", "COUNT", _LINES, "BLOCK", int(_WAIT_S * 1000), "STREAMS", *self._positions)
                positions = self._positions.values()
                reply = await self._asking.blocked((*command, *positions), tuple(self._names.values()), _WAIT_S)
                away = False
                self._came(reply)
            except EventsUnavailable as error:
                if not away:
                    self._log.warning("bus away", error=error.detail)
                away = True
                await self._clock.sleep(_REST_S)
            except Exception:  # the task's boundary: this process would never hear anything again
                self._log.exception("the bus failed")
                await self._clock.sleep(_REST_S)

    def _came(self, reply: Any) -> None:
        for raw_name, lines in reply.items() if isinstance(reply, dict) else reply or ():
            name = text(raw_name)
            for position, flat in lines:
                self._positions[name] = text(position)
                self._tell(self._names[name], text(fields_of(flat)["m"]))

    def _tell(self, instance: str, message: str) -> None:
        for heard in list(self._listeners.values()):
            try:
                heard(instance, message)
            except Exception:  # the bus's boundary: one listener's defect is nothing to the others
                self._log.exception("a listener of the bus failed", instance=instance)
