"""JSON responses, and the one shape of every error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from jobnimbus_mcp.errors import CacheUnavailable, NotAuthenticated, ProjectError
from jobnimbus_mcp.web.refusals import MethodNotAllowed, ScopeMissing, TokenRefused

__all__ = ["json_reply", "protocol_refusal", "refusal_reply"]

_CACHE_RETRY_S = 5.0
"""How long a sender is asked to wait while the cache is away: a restart of Redis takes about that."""

_NOT_NOW = -32603
"""JSON-RPC's internal error, which of its codes comes nearest: nothing was wrong with the message."""


def json_reply(payload: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is `payload` as JSON."""
    return Response(orjson.dumps(payload), status, headers, media_type="application/json")


def refusal_reply(error: ProjectError, request_id: str) -> Response:
    """`{"error", "code", "requestId"}`, and `"field"` where one argument is at fault; Retry-After in whole seconds."""
    told = {"error": error.public_message, "code": error.code, "requestId": request_id}
    if error.field is not None:
        told["field"] = error.field
    headers = _retry_after(error)
    if isinstance(error, TokenRefused | ScopeMissing):
        headers["www-authenticate"] = error.challenge
    elif isinstance(error, NotAuthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    return json_reply(told, error.http_status, headers)


def protocol_refusal(error: ProjectError, request_id: str, message_id: str | int | None) -> Response:
    """The refusal of a message of MCP before the protocol's server saw it: a JSON-RPC error with the error's status."""
    headers = _retry_after(error)
    data: dict[str, Any] = {"code": error.code, "requestId": request_id}
    said = error.public_message
    if "retry-after" in headers:
        data["retryAfterSeconds"] = int(headers["retry-after"])
        said += f" Try again in {headers['retry-after']} seconds."
    told = {"code": _NOT_NOW, "message": said, "data": data}
    return json_reply({"jsonrpc": "2.0", "id": message_id, "error": told}, error.http_status, headers)


def _retry_after(error: ProjectError) -> dict[str, str]:
    retry_after_s = error.retry_after_s
    if retry_after_s is None and isinstance(error, CacheUnavailable):
        retry_after_s = _CACHE_RETRY_S
    return {} if retry_after_s is None else {"retry-after": str(max(1, math.ceil(retry_after_s)))}
