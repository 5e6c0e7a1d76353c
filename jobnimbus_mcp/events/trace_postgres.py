"""What became of events, out of the tables of PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.events.database_postgres import Database
from jobnimbus_mcp.events.event import decode, event_id_at
from jobnimbus_mcp.events.ports import (
    ATTEMPTS_KEPT,
    REJECTED_BY,
    STATES,
    Attempt,
    ConsumerTrace,
    EventPage,
    EventQuery,
    Traced,
)

__all__ = ["find", "show"]

_DUE = "exists (select 1 from jobnimbus_mcp.deliveries d where d.event_id = e.event_id and d.state = 'pending' and {})"
_STATE: Mapping[str, str] = {
    "pending": "e.unfinished > 0 and " + _DUE.format("d.due_at <= to_timestamp({})"),
    "delayed": "e.unfinished > 0 and not " + _DUE.format("d.due_at <= to_timestamp({})"),
    "dead": "e.unfinished = 0 and e.dead > 0",
    "done": "e.unfinished = 0 and e.dead = 0",
}


async def show(database: Database, instance: str, event_id: str, now: float) -> Traced | None:
    """One event with its body."""
    rows = await database.rows(
        "select event_id, envelope::text, body, rejected, extract(epoch from finished_at)::float8 as finished_at"
        " from jobnimbus_mcp.events where event_id = $1 and instance = $2",
        event_id,
        instance,
    )
    traced = await _traced(database, rows, now)
    return traced[0] if traced else None


async def find(database: Database, instance: str, query: EventQuery, now: float) -> EventPage:
    """A page of events, without their bodies."""
    if query.state is not None and query.state not in STATES:
        raise InvalidInput(f"state is one of {', '.join(STATES)}.", field="state")
    values: list[Any] = [instance]
    conditions = ["e.instance = $1"]

    def where(condition: str, value: Any) -> None:
        values.append(value)
        conditions.append(condition.format(f"${len(values)}"))

    if query.entity is not None:
        where("e.entity = {}", query.entity)
    if query.record_id is not None:
        where("e.record_id = {}", query.record_id)
    if query.since is not None:
        where("e.received_at >= to_timestamp({})", query.since)
        # the same once more, by the index that gives the order: else a few matches are looked for among all events
        where("e.event_id >= {}", event_id_at(max(0.0, query.since - 1.0), ""))
    if query.before is not None:
        where("e.event_id < {}", query.before)
    if query.state in ("pending", "delayed"):
        where(_STATE[query.state], now)
    elif query.state is not None:
        conditions.append(_STATE[query.state])
    values.append(query.limit + 1)
    rows = await database.rows(
        "select e.event_id, e.envelope::text, '' as body, e.rejected,"
        " extract(epoch from e.finished_at)::float8 as finished_at"
        f" from jobnimbus_mcp.events e where {' and '.join(conditions)}"
        f" order by e.event_id desc limit ${len(values)}",
        *values,
    )
    page = rows[: query.limit]
    more = len(rows) > query.limit and page
    return EventPage(await _traced(database, page, now), page[-1]["event_id"] if more else None)


async def _traced(database: Database, rows: Sequence[Any], now: float) -> tuple[Traced, ...]:
    ids = [row["event_id"] for row in rows]
    if not ids:
        return ()
    tried = defaultdict(list)
    for row in await database.rows(
        "select a.event_id, a.consumer, extract(epoch from a.at)::float8 as at, a.request_id, a.duration_ms,"
        " a.status_code, a.error, a.response from jobnimbus_mcp.deliveries d"
        " cross join lateral (select * from jobnimbus_mcp.attempts t"
        " where t.event_id = d.event_id and t.consumer = d.consumer order by t.id desc limit $2) a"
        " where d.event_id = any ($1) order by a.id",
        ids,
        ATTEMPTS_KEPT,
    ):
        tried[row["event_id"], row["consumer"]].append(
            Attempt(row["at"], row["request_id"], row["duration_ms"], row["status_code"], row["error"], row["response"])
        )
    consumers: dict[str, dict[str, ConsumerTrace]] = defaultdict(dict)
    for row in await database.rows(
        "select event_id, consumer, state, extract(epoch from due_at)::float8 as due_at, tries,"
        " extract(epoch from done_at)::float8 as done_at, reason"
        " from jobnimbus_mcp.deliveries where event_id = any ($1) order by event_id, consumer",
        ids,
    ):
        waits = row["state"] == "pending" and row["due_at"] > now
        consumers[row["event_id"]][row["consumer"]] = ConsumerTrace(
            state="delayed" if waits else row["state"],
            due_at=row["due_at"],
            attempts=row["tries"],
            tried=tuple(tried[row["event_id"], row["consumer"]]),
            done_at=row["done_at"],
            reason=row["reason"],
        )
    for row in rows:
        if row["rejected"] is not None:
            refused = ConsumerTrace("dead", due_at=row["finished_at"], reason=row["rejected"])
            consumers[row["event_id"]][REJECTED_BY] = refused
    return tuple(Traced(decode(row["envelope"], row["body"]), consumers[row["event_id"]]) for row in rows)
