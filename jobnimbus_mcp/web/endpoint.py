"""From an ASGI request to a handler of (request, body), past the door; and the way to the mounted MCP app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jobnimbus_mcp.web.auth import Door
from jobnimbus_mcp.web.body import json_body, refuse_declared_size, replayed

__all__ = ["Endpoint", "Handler", "McpEndpoint", "request_id_of"]

Handler = Callable[[Request, bytes], Awaitable[Response]]


def request_id_of(request: Request) -> str:
    """The id that the front gave this request."""
    request_id: str = request.state.request_id
    return request_id


class Endpoint:
    """Size as declared, then the door, then the body, then the handler: strangers cost no reading."""

    def __init__(self, handler: Handler, door: Door) -> None:
        self._handler = handler
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        headers = request.headers
        refuse_declared_size(headers)
        self._door.admit(headers.getlist("authorization"))
        body = await json_body(scope, receive, headers)
        response = await self._handler(request, body)
        await response(scope, receive, send)


class McpEndpoint:
    """The same for the MCP app, which then reads the request itself; it answers in the protocol's own way."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Request(scope).headers
        refuse_declared_size(headers)
        self._door.admit(headers.getlist("authorization"))
        receive = replayed(await json_body(scope, receive, headers), receive)
        scope["headers"] = _trimmed(scope["headers"])
        await self._app(scope, receive, send)


def _trimmed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`mcp-*` values without blanks around them: the httptools parser leaves those at the end, and they would differ
    from the body that repeats them."""
    return [(name, value.strip(b" \t")) if name.startswith(b"mcp-") else (name, value) for name, value in headers]
