"""Events as they stand in Redis, for whoever looks at them: one, or pages of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.events.asking_redis import Asking, text
from jobnimbus_mcp.events.event import received_ms
from jobnimbus_mcp.events.keys_redis import archive_key, archived_key, event_key, live_key
from jobnimbus_mcp.events.ports import BATCH_MOST, STATES, EventPage, EventQuery, Traced
from jobnimbus_mcp.events.trace_redis import fields_of, milliseconds, traced

__all__ = ["Lookup"]

_ROWS = 500
_LOOKED_AT_MOST = 5_000
"""Events that one page may cost: what a filter of an account's whole archive finds comes in several pages."""


class Lookup:
    def __init__(self, asking: Asking, *, clock: Clock) -> None:
        self._asking = asking
        self._clock = clock

    async def fields(self, tenant: str, event_id: str) -> Mapping[str, bytes] | None:
        """All that is kept of the event, or None."""
        keys = [event_key(tenant, event_id), archive_key(tenant), archived_key(tenant)]
        flat = await self._asking.run("event_show", tenant, keys, (event_id, received_ms(event_id) or 0))
        return fields_of(flat) if flat else None

    async def show(self, tenant: str, event_id: str) -> Traced | None:
        fields = await self.fields(tenant, event_id)
        return None if fields is None else traced(tenant, event_id, fields, milliseconds(self._clock.now()))

    async def find(self, tenant: str, query: EventQuery) -> EventPage:
        """`next_before` may be told although nothing more is found: a page looks at so many events, and no more.

        Raises:
            InvalidInput: `state` is none of STATES.
        """
        if query.state is not None and query.state not in STATES:
            raise InvalidInput(f"state is one of {', '.join(STATES)}.", field="state")
        limit = max(1, min(query.limit, BATCH_MOST))
        found: list[Traced] = []
        before, looked_at = query.before, 0
        while looked_at < _LOOKED_AT_MOST:
            ids = await self._page(tenant, query, before)
            for place, (event_id, one) in enumerate(await self._rows(tenant, query, ids)):
                before = event_id
                if one is not None and (query.state is None or one.state == query.state):
                    found.append(one)
                if len(found) == limit:
                    more = place + 1 < len(ids) or len(ids) == _ROWS
                    return EventPage(tuple(found), before if more else None)
            if len(ids) < _ROWS:
                return EventPage(tuple(found), None)
            looked_at += len(ids)
        return EventPage(tuple(found), before)

    async def _page(self, tenant: str, query: EventQuery, before: str | None) -> list[tuple[str, str]]:
        """The next event ids, the latest first, each with its place in the archive, "" for a live one."""
        latest = "+inf" if before is None else received_ms(before) or 0
        earliest = "-inf" if query.since is None else int(query.since * 1000)  # as ids have it
        # what is in the archive is done, and nothing else is
        archived = "1" if query.state in (None, "done") else "0"
        keys = [live_key(tenant), archived_key(tenant)]
        args = (latest, earliest, before or "", _ROWS, archived)
        live, done = await self._asking.run("event_page", tenant, keys, args)
        ids = [(text(event_id), "") for event_id in live]
        for member in done:
            event_id, _, place = text(member).partition(":")
            ids.append((event_id, place))
        return sorted(ids, reverse=True)[:_ROWS]

    async def _rows(
        self, tenant: str, query: EventQuery, ids: Sequence[tuple[str, str]]
    ) -> list[tuple[str, Traced | None]]:
        """Each id with its event; None where that is not one the query names."""
        # compared in the server as the envelope is written, so that what does not fit is not sent
        wanted = {"entity": query.entity, "record": query.record_id}
        texts = [orjson.dumps({name: value})[1:-1] for name, value in wanted.items() if value is not None]
        keys = [archive_key(tenant), *(event_key(tenant, event_id) for event_id, place in ids if not place)]
        args = ("0", len(texts), *texts, *(place for _, place in ids))
        rows = await self._asking.run("event_rows", tenant, keys, args) if ids else []
        now_ms = milliseconds(self._clock.now())
        told: list[tuple[str, Traced | None]] = []
        for (event_id, _), flat in zip(ids, rows, strict=True):
            one = traced(tenant, event_id, fields_of(flat), now_ms) if flat else None
            if flat is None and (one := await self.show(tenant, event_id)) is not None:  # archived meanwhile
                one = Traced(one.event.without_body(), one.consumers)
            if one is not None and _is_meant(one, query):
                told.append((event_id, one))
            else:
                told.append((event_id, None))
        return told


def _is_meant(one: Traced, query: EventQuery) -> bool:
    """The texts may stand elsewhere in an envelope, and a millisecond is long."""
    return (
        query.entity in (None, one.event.entity)
        and query.record_id in (None, one.event.record_id)
        and (query.since is None or one.event.received_at >= query.since)
    )
