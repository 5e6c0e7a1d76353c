"""From an ASGI request to a handler of (request, body), past door and limit; and the way to the mounted MCP app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jobnimbus_mcp.errors import RateLimited
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.web.auth import Door
from jobnimbus_mcp.web.body import json_body, refuse_declared_size, replayed
from jobnimbus_mcp.web.limits import Limits
from jobnimbus_mcp.web.replies import protocol_refusal

__all__ = ["Endpoint", "Handler", "McpEndpoint", "access_of", "request_id_of"]

Handler = Callable[[Request, bytes], Awaitable[Response]]


def request_id_of(request: Request) -> str:
    """The id that the front gave this request."""
    request_id: str = request.state.request_id
    return request_id


def access_of(request: Request) -> Access:
    """What the door found that this caller may do."""
    access: Access = request.state.access
    return access


class Endpoint:
    """Size as declared, then the door, then the body, then the limit, then the handler: strangers cost no reading."""

    def __init__(self, handler: Handler, door: Door, limits: Limits | None = None) -> None:
        self._handler = handler
        self._door = door
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        headers = request.headers
        refuse_declared_size(headers)
        scope["state"]["access"] = access = await self._door.admit(headers.getlist("authorization"))
        body = await json_body(scope, receive, headers)
        if self._limits is not None:
            await self._limits.spend(access, headers, scope["state"])
        response = await self._handler(request, body)
        await response(scope, receive, send)


class McpEndpoint:
    """The same for the MCP app, which then reads the request itself; it answers in the protocol's own way, and so is a
    request over the limit: clients show nothing of an answer in any other."""

    def __init__(self, app: ASGIApp, door: Door, limits: Limits) -> None:
        self._app = app
        self._door = door
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        headers = request.headers
        refuse_declared_size(headers)
        scope["state"]["access"] = access = await self._door.admit(headers.getlist("authorization"))
        body = await json_body(scope, receive, headers)
        try:
            await self._limits.spend(access, headers, scope["state"])
        except RateLimited as limited:
            await protocol_refusal(limited, request_id_of(request), _message_id(body))(scope, receive, send)
            return
        receive = replayed(body, receive)
        scope["headers"] = _trimmed(scope["headers"])
        await self._app(scope, receive, send)


def _message_id(body: bytes) -> str | int | None:
    """Of the message that is refused; None where it has none or cannot be read."""
    try:
        message: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    found = message.get("id") if isinstance(message, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def _trimmed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`mcp-*` values without blanks around them: the httptools parser leaves those at the end, and they would differ
    from the body that repeats them."""
    return [(name, value.strip(b" \t")) if name.startswith(b"mcp-") else (name, value) for name, value in headers]
