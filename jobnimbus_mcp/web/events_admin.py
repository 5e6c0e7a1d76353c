"""The admin's view of change events: /cache/events, one of them, and /cache/warming."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.events.envelope import record_id
from jobnimbus_mcp.events.event import received_ms
from jobnimbus_mcp.events.ports import STATES, EventPage, EventQuery, Traced
from jobnimbus_mcp.events.trace import summary, whole
from jobnimbus_mcp.web.endpoint import request_id_of
from jobnimbus_mcp.web.params import json_object, limit_of, one_of, query_of, since_of
from jobnimbus_mcp.web.ports import Events, Warm
from jobnimbus_mcp.web.refusals import EventNotFound
from jobnimbus_mcp.web.replies import json_reply
from jobnimbus_mcp.web.targets import ENTITIES

__all__ = ["EventsAdmin", "cursor_of", "merged"]

_QUERY = ("state", "entity", "id", "since", "limit", "cursor", "instance")


class EventsAdmin:
    """A log that is away is 503, never an empty answer."""

    def __init__(self, *, instances: Sequence[str], events: Events, warm: Warm, log: FilteringBoundLogger) -> None:
        self._instances = tuple(instances)
        self._events = events
        self._warm = warm
        self._log = log

    async def listing(self, request: Request, body: bytes) -> Response:
        """Events, newest first, without their bodies."""
        given = query_of(request.query_params.multi_items(), _QUERY)
        wanted = record_id(given["id"]) if "id" in given else None
        if "id" in given and wanted is None:
            raise InvalidInput("id must be a record's jnid: letters and digits, or a GUID.", field="id")
        limit = limit_of(given)
        query = EventQuery(
            state=one_of(given, "state", STATES),
            entity=one_of(given, "entity", (*ENTITIES, "unknown")),
            record_id=wanted,
            since=since_of(given),
            limit=limit,
            before=cursor_of(given),
        )
        pages = [await self._events.find(instance, query) for instance in self._chosen(given)]
        rows, before = merged(pages, limit)
        return json_reply({"events": [summary(row) for row in rows], "nextCursor": _cursor(before)})

    async def one(self, request: Request, body: bytes) -> Response:
        """Everything about one event."""
        given = query_of(request.query_params.multi_items(), ("instance",))
        event_id = str(request.path_params["event_id"])
        if received_ms(event_id) is None:
            raise EventNotFound
        for instance in self._chosen(given):
            traced = await self._events.show(instance, event_id)
            if traced is not None:
                return json_reply(whole(traced))
        raise EventNotFound

    async def warming(self, request: Request, body: bytes) -> Response:
        """Read ahead: what is asked most, or these tool calls; n = reads that were started."""
        query_of(request.query_params.multi_items(), ())
        asked = json_object(body) if body else {}
        for name in asked:
            if name not in ("instance", "queries"):
                raise InvalidInput("Unknown field; known: instance, queries.", field=name[:60])
        instance = one_of(asked, "instance", self._instances)
        queries = asked.get("queries")
        if queries is not None and not isinstance(queries, list):
            raise InvalidInput("queries must be an array of tool calls.", field="queries")
        started = await self._warm(instance, queries)
        self._log.info("Warming started", source="admin", reads=started, request_id=request_id_of(request))
        return json_reply({"started": started})

    def _chosen(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        instance = one_of(given, "instance", self._instances)
        return self._instances if instance is None else (instance,)


def merged(pages: Sequence[EventPage], limit: int) -> tuple[list[Traced], str | None]:
    """One page of several accounts' pages, newest first, and where the next begins.

    A page that ends early (its log looks at so many events a time) ends what may be shown of the others too: older ones
    of its own may be newer than theirs.
    """
    horizon = max((page.next_before for page in pages if page.next_before is not None), default=None)
    rows = sorted((row for page in pages for row in page.events), key=lambda row: row.event.event_id, reverse=True)
    shown = [row for row in rows if horizon is None or row.event.event_id >= horizon][:limit]
    left = len(shown) < len(rows)
    if left and len(shown) == limit:
        return shown, shown[-1].event.event_id
    return shown, horizon


def cursor_of(given: Mapping[str, str]) -> str | None:
    """The event id in a cursor of ours; None without one.

    Raises:
        InvalidInput: it is none of ours.
    """
    text = given.get("cursor")
    if text is None:
        return None
    try:
        event_id = base64.urlsafe_b64decode(text.encode()).decode("ascii")
    except (binascii.Error, ValueError) as fault:
        raise InvalidInput("This is no cursor of ours.", field="cursor") from fault
    if received_ms(event_id) is None:
        raise InvalidInput("This is no cursor of ours.", field="cursor")
    return event_id


def _cursor(event_id: str | None) -> str | None:
    return None if event_id is None else base64.urlsafe_b64encode(event_id.encode()).decode()
