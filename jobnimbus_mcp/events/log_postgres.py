"""The event log in PostgreSQL: pgmq's queues, one for each consumer, and tables of what became of every event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events import trace_postgres
from jobnimbus_mcp.events.database_postgres import Database
from jobnimbus_mcp.events.event import BODY_MOST, Event, encode
from jobnimbus_mcp.events.inbox_postgres import PostgresInbox
from jobnimbus_mcp.events.ports import EventPage, EventQuery, EventsUnavailable, Lag, Rates, Routes, Traced
from jobnimbus_mcp.events.subscription_postgres import PostgresSubscription
from jobnimbus_mcp.events.text_postgres import fit
from jobnimbus_mcp.telemetry.recorder import NullRecorder, Recorder

__all__ = ["PostgresEvents"]

_RATES_OF_S = 300.0
_FORGET_AT_ONCE = 1_000
_TIDY_WITHIN_S = 30.0


class PostgresEvents:
    """As `ports.EventLog`; events of one record are in order within their account.

    `claim_idle_s`: what a process took is hidden from the others for so long, unless it says earlier what came of it.
    `archive_days`: for how long at least finished events and their messages stay, whatever `clean` is asked for.
    `instances`: the accounts whose changes are taken out of the inbox. Nothing is opened before it is needed.

    Raises:
        SettingsError: the driver or pgmq is not installed, or the address is none.
    """

    def __init__(
        self,
        dsn: str,
        *,
        clock: Clock,
        instances: Sequence[str],
        claim_idle_s: float = 30.0,
        archive_days: float = 30,
        recorder: Recorder | None = None,
        connections: int = 8,
        command_timeout_s: float = 2.0,
    ) -> None:
        if claim_idle_s <= 0:
            raise SettingsError("What was taken must be hidden from others for some time.")
        self._database = Database(dsn, connections=connections, command_timeout_s=command_timeout_s)
        self._clock = clock
        self._instances = tuple(instances)
        self._claim_idle_s = claim_idle_s
        self._archive_s = archive_days * 86_400.0
        self._recorder = recorder or NullRecorder()

    async def append(self, event: Event, routes: Routes) -> bool:
        started = self._clock.monotonic()
        is_new = await self._database.value(
            "select jobnimbus_mcp.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            *_columns(event),
            list(routes),
            list(routes.values()),
            self._clock.now(),
        )
        self._recorder.observe("store_seconds", self._clock.monotonic() - started, operation="append")
        return bool(is_new)

    def subscribe(self, consumer: str) -> PostgresSubscription:
        return PostgresSubscription(self._database, consumer, clock=self._clock, claim_idle_s=self._claim_idle_s)

    def inbox(self, took_in: Callable[[Event], Awaitable[None]]) -> PostgresInbox:
        """What brings changes of the user's own tables to `took_in`, when it is run."""
        return PostgresInbox(
            self._database, took_in, rejected=self.reject, clock=self._clock, instances=self._instances
        )

    async def open(self, consumers: Sequence[str]) -> None:
        await self._database.prepare()
        for consumer in sorted(consumers):
            await self._database.value("select jobnimbus_mcp.open_consumer($1)", consumer)

    async def show(self, instance: str, event_id: str) -> Traced | None:
        return await trace_postgres.show(self._database, instance, event_id, self._clock.now())

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        return await trace_postgres.find(self._database, instance, query, self._clock.now())

    async def replay(self, instance: str, event_id: str, consumer: str | None = None) -> tuple[str, ...]:
        rows = await self._database.rows(
            "select r from jobnimbus_mcp.replay($1, $2, $3, $4) r order by 1",
            *(instance, event_id, consumer, self._clock.now()),
        )
        return tuple(row[0] for row in rows)

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        now = self._clock.now()
        rows = await self._database.rows(_LAG, instance, now)
        return {
            row["consumer"]: Lag(
                due=row["due"],
                delayed=row["delayed"],
                oldest_s=0.0 if row["oldest"] is None else max(0.0, now - row["oldest"]),
                dead=row["dead"],
            )
            for row in rows
        }

    async def rates(self, instance: str) -> Mapping[str, Rates]:
        rows = await self._database.rows(_RATES, instance, self._clock.now() - _RATES_OF_S)
        return {row["consumer"]: Rates(row["ok"], row["failed"], max(0.0, row["latency_s"])) for row in rows}

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, Mapping[str, bool]]:
        rows = await self._database.rows(
            "select t.token, e.event_id from jobnimbus_mcp.standing_token() as t(token)"
            " left join jobnimbus_mcp.events e on e.event_id = any ($2) and e.instance = $1 and e.unfinished > 0",
            *(instance, list(event_ids)),
        )
        kept = {row["event_id"] for row in rows}
        return rows[0]["token"], {event_id: event_id in kept for event_id in event_ids}

    async def reject(self, event: Event, reason: str) -> None:
        await self._database.value(
            "select jobnimbus_mcp.reject($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            *_columns(event),
            fit(reason),
            self._clock.now(),
        )

    async def clean(self, *, archived_before: float, dead_before: float) -> int:
        keep_from = self._clock.now() - self._archive_s
        archived_before, dead_before = min(archived_before, keep_from), min(dead_before, keep_from)
        forgotten = await self._by_portions("select jobnimbus_mcp.clean($1, $2, $3)", archived_before, dead_before)
        await self._by_portions("select jobnimbus_mcp.clean_archives($1, $2)", archived_before)
        return forgotten

    async def retire(self, consumers: Sequence[str]) -> int:
        return int(
            await self._database.value(
                "select jobnimbus_mcp.retire($1, $2)", list(consumers), self._clock.now(), within_s=_TIDY_WITHIN_S
            )
        )

    async def durable(self) -> bool:
        return bool(
            await self._database.value(
                "select current_setting('fsync') = 'on' and current_setting('full_page_writes') = 'on'"
                " and current_setting('synchronous_commit') <> 'off'"
            )
        )

    async def ping(self) -> None:
        if await self._database.value(
            "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean"
        ):
            raise EventsUnavailable("read only")

    async def aclose(self) -> None:
        await self._database.aclose()

    def cut(self) -> None:
        """Drop every connection and do nothing more, as the end of the process would."""
        self._database.cut()

    async def _by_portions(self, sql: str, *values: float) -> int:
        """Small transactions, so that nobody who works is held up."""
        total = 0
        while forgotten := int(await self._database.value(sql, *values, _FORGET_AT_ONCE, within_s=_TIDY_WITHIN_S)):
            total += forgotten
            if forgotten < _FORGET_AT_ONCE:
                break
            await asyncio.sleep(0)
        return total


_RATES = """
select consumer, count(*) filter (where error = '') as ok, count(*) filter (where error <> '') as failed,
       coalesce(
           avg(extract(epoch from at - due_at) + duration_ms / 1000) filter (where error = ''), 0
       )::float8 as latency_s
from jobnimbus_mcp.attempts where instance = $1 and at >= to_timestamp($2) group by consumer
"""

_LAG = """
with named as (
    select name as consumer from jobnimbus_mcp.consumers where retired_at is null
    union
    select consumer from jobnimbus_mcp.deliveries where instance = $1 and state = 'pending'
    union
    select consumer from jobnimbus_mcp.deliveries where instance = $1 and state = 'dead'
), waiting as (
    select consumer, count(*) filter (where due_at <= to_timestamp($2)) as due,
           count(*) filter (where due_at > to_timestamp($2)) as delayed,
           extract(epoch from min(due_at))::float8 as oldest
    from jobnimbus_mcp.deliveries where instance = $1 and state = 'pending' group by consumer
), given_up as (
    select consumer, count(*) as dead
    from jobnimbus_mcp.deliveries where instance = $1 and state = 'dead' group by consumer
)
select consumer, coalesce(due, 0) as due, coalesce(delayed, 0) as delayed, oldest, coalesce(dead, 0) as dead
from named left join waiting using (consumer) left join given_up using (consumer)
"""


def _columns(event: Event) -> tuple[str | float, ...]:
    return (
        event.event_id,
        event.instance,
        fit(event.name),
        fit(event.entity),
        fit(event.record_id),
        event.source,
        event.received_at,
        encode(event).decode(),
        fit(event.body[:BODY_MOST]),
    )
