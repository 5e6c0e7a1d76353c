"""JSON responses, and the one shape of every error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from jobnimbus_mcp.errors import CacheUnavailable, NotAuthenticated, ProjectError
from jobnimbus_mcp.web.refusals import MethodNotAllowed

__all__ = ["json_reply", "refusal_reply"]

_CACHE_RETRY_S = 5.0
"""How long a sender is asked to wait while the cache is away: a restart of Redis takes about that."""


def json_reply(payload: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is `payload` as JSON."""
    return Response(orjson.dumps(payload), status, headers, media_type="application/json")


def refusal_reply(error: ProjectError, request_id: str) -> Response:
    """`{"error", "code", "requestId"}`, and `"field"` where one argument is at fault; Retry-After in whole seconds."""
    told = {"error": error.public_message, "code": error.code, "requestId": request_id}
    if error.field is not None:
        told["field"] = error.field
    headers: dict[str, str] = {}
    retry_after_s = error.retry_after_s
    if retry_after_s is None and isinstance(error, CacheUnavailable):
        retry_after_s = _CACHE_RETRY_S
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    if isinstance(error, NotAuthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    return json_reply(told, error.http_status, headers)
