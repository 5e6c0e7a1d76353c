"""POST /webhooks/jobnimbus: headers, query and raw body to the intake, and what came of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.intake import Delivery
from jobnimbus_mcp.gateway.identity import INSTANCE_HEADER
from jobnimbus_mcp.web.endpoint import request_id_of
from jobnimbus_mcp.web.ports import Receiver
from jobnimbus_mcp.web.replies import json_reply

__all__ = ["Webhooks"]


class Webhooks:
    """Where JobNimbus's automations, and whoever else knows of changes, deliver them."""

    def __init__(self, intake: Receiver, clock: Clock) -> None:
        self._intake = intake
        self._clock = clock

    async def receive(self, request: Request, body: bytes) -> Response:
        """`{"received": true, "eventId", "duplicate"}`, once the invalidation holds; 202 and `"journalled": true` when
        it is durable and will hold as soon as the store can be told."""
        query, headers = request.query_params, request.headers
        delivery = Delivery(
            raw=body,
            headers=dict(reversed(headers.items())),  # of a repeated header the first counts
            tokens=query.getlist("token"),
            instances=[*query.getlist("instance"), *headers.getlist(INSTANCE_HEADER)],
        )
        accepted = await self._intake.receive(delivery, Call.begin(self._clock, request_id_of(request)))
        told = {"eventId": accepted.event_id, "duplicate": accepted.duplicate}
        if accepted.journalled:
            return json_reply({"received": True, "journalled": True} | told, 202)
        return json_reply({"received": True} | told)
