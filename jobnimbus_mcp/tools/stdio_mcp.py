"""Standard input and output as a connection: what was asked before the client hung up is still answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self, cast

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

__all__ = ["STDIO_GRACE_S", "serve_stdio"]

STDIO_GRACE_S = 3.0
"""How long calls may still take after stdin has ended."""


async def serve_stdio(server: Server[Any], *, at_end: Callable[[], None]) -> None:
    """Serve until the client hangs up, then call `at_end`; what it asked before is answered, within STDIO_GRACE_S."""
    try:
        async with stdio_server() as (incoming, outgoing):
            unanswered = _Unanswered()
            await server.run(
                _Incoming(incoming, unanswered, at_end=at_end),
                _Outgoing(outgoing, unanswered),
                server.create_initialization_options(),
            )
    except* BrokenPipeError:
        at_end()  # the client left before it took its answer, which is an end like any other


class _Unanswered:
    """The requests of one connection that wait for their answers, by id."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._none = asyncio.Event()
        self._none.set()

    def asked(self, message: object) -> None:
        """Note what the client sent; one that it cancels gets no answer."""
        if isinstance(message, JSONRPCRequest):
            self._ids.add(str(message.id))
            self._none.clear()
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._settle((message.params or {}).get("requestId"))

    def answered(self, message: object) -> None:
        """Note what went to the client."""
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            self._settle(message.id)

    async def none_left(self, bound_s: float) -> None:
        """Wait until all are answered, `bound_s` at most."""
        try:
            async with asyncio.timeout(bound_s):
                await self._none.wait()
        except TimeoutError:
            return  # what is not answered by now is cancelled, and the client told so

    def _settle(self, request_id: object) -> None:
        self._ids.discard(str(request_id))
        if not self._ids:
            self._none.set()


class _Incoming:
    """The SDK's stream of messages; its end is held back while requests are unanswered, because it cancels them."""

    def __init__(self, stream: Any, unanswered: _Unanswered, *, at_end: Callable[[], None]) -> None:
        self._stream = stream
        self._unanswered = unanswered
        self._at_end = at_end

    async def receive(self) -> SessionMessage | Exception:
        async for item in self:
            return item
        return cast("SessionMessage", await self._stream.receive())  # which says in its own way that it has ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            item: SessionMessage | Exception = await anext(self._stream)
        except StopAsyncIteration:
            self._at_end()
            await self._unanswered.none_left(STDIO_GRACE_S)
            raise
        if isinstance(item, SessionMessage):
            self._unanswered.asked(item.message)
        return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()


class _Outgoing:
    """The SDK's stream of answers, which are noted as they leave."""

    def __init__(self, stream: Any, unanswered: _Unanswered) -> None:
        self._stream = stream
        self._unanswered = unanswered

    async def send(self, item: SessionMessage, /) -> None:
        await self._stream.send(item)
        self._unanswered.answered(item.message)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()
