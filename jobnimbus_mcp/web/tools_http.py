"""POST /mcp/tools/call and /mcp/tools/list: the tools for callers that speak plain HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from jobnimbus_mcp.call import CALL_DEADLINE_S, Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import InvalidInput, UpstreamTimeout
from jobnimbus_mcp.web.endpoint import access_of, request_id_of
from jobnimbus_mcp.web.named import named_by
from jobnimbus_mcp.web.params import json_object
from jobnimbus_mcp.web.ports import Identify, ToolCaller
from jobnimbus_mcp.web.replies import json_reply

__all__ = ["ToolsOverHttp"]

_LAST_RESORT_S = CALL_DEADLINE_S + 0.5
"""Every wait within a call ends at its deadline; should one not, the caller still hears from us within 15 s."""


class ToolsOverHttp:
    """The same tools, schemas, answers and errors as over MCP, in HTTP's words."""

    def __init__(self, tools: ToolCaller, identities: Identify, clock: Clock) -> None:
        self._tools = tools
        self._identities = identities
        self._clock = clock

    async def listing(self, request: Request, body: bytes) -> Response:
        """`{"tools": [...]}`, as far as the caller may use them; a body is not needed, but must be JSON when there is
        one."""
        named_by(request.headers)
        if body:
            json_object(body)
        return json_reply({"tools": self._tools.listing(access_of(request))})

    async def call(self, request: Request, body: bytes) -> Response:
        """`{"success": true, "data", "cache"}` of `{"name", "arguments"}`."""
        name, arguments = _asked(json_object(body))
        who = self._identities.identify(*named_by(request.headers), access_of(request))
        call = Call.begin(self._clock, request_id_of(request))
        try:
            async with asyncio.timeout(_LAST_RESORT_S):
                answer = await self._tools.call(name, arguments, who, call)
        except TimeoutError as late:
            raise UpstreamTimeout("No answer in time; try again.") from late
        payload = {"success": True, "data": orjson.Fragment(answer.data), "cache": answer.cache}
        return Response(orjson.dumps(payload), media_type="application/json")


def _asked(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInput("name must be the name of a tool.", field="name")
    arguments = body.get("arguments", {})
    if not isinstance(arguments, dict):
        raise InvalidInput("arguments must be a JSON object.", field="arguments")
    return name, arguments
