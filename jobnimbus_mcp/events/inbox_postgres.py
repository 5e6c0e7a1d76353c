"""Changes that triggers on the user's own tables noted, on their way to become events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Change, EntityRef, entity_named
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.database_postgres import INBOX, Database
from jobnimbus_mcp.events.envelope import event_name, record_id
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.text_postgres import fit

__all__ = ["PostgresInbox"]

_AT_ONCE = 50
_WITHIN_S = 20.0
_LOOK_AGAIN_S = 5.0
_REST_S = 1.0

_OLDEST_OF_THEIR_RECORDS = """
select i.id, i.token::text, i.instance, i.entity, i.record_id, i.operation,
       extract(epoch from i.changed_at)::float8 as changed_at
from jobnimbus_mcp.inbox i
where i.instance = any ($1) and not exists (
    select 1 from jobnimbus_mcp.inbox o
    where o.instance = i.instance and o.entity = i.entity and o.record_id = i.record_id and o.id < i.id
)
order by i.id limit $2 for update of i skip locked
"""


class PostgresInbox:
    """Takes changes of `instances` out of the inbox and hands each to `took_in`, in order per record.

    A change leaves the inbox when `took_in` has returned; when it raises CacheUnavailable it stays, and comes again
    under the same event id. What cannot be understood goes to `rejected(event, reason)`. Changes of other accounts are
    left for the processes that serve those. Any number of processes may run it.
    """

    def __init__(
        self,
        database: Database,
        took_in: Callable[[Event], Awaitable[None]],
        *,
        rejected: Callable[[Event, str], Awaitable[None]],
        clock: Clock,
        instances: Sequence[str],
    ) -> None:
        self._database = database
        self._took_in = took_in
        self._rejected = rejected
        self._clock = clock
        self._instances = list(instances)

    async def run(self) -> None:
        """Until cancelled; while the database or the cache is away it rests and comes again."""
        wake = asyncio.Event()
        stop = self._database.listen(INBOX, wake.set)
        try:
            while True:
                wake.clear()
                try:
                    await self._database.hearing()
                    if await self.take_in():
                        continue
                except CacheUnavailable:
                    await self._clock.sleep(_REST_S)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await wake.wait()
        finally:
            stop()

    async def take_in(self) -> int:
        """One portion; how many left the inbox.

        Raises:
            CacheUnavailable: of the first that could not be taken in; those before it are.
        """
        failure: CacheUnavailable | None = None
        done: list[int] = []
        async with (
            self._database.connection(within_s=_WITHIN_S) as connection,
            connection.transaction(),  # holds the rows: another process passes over what is locked
        ):
            for row in await connection.fetch(_OLDEST_OF_THEIR_RECORDS, self._instances, _AT_ONCE):
                try:
                    await self._hand_over(row)
                except CacheUnavailable as error:
                    failure = error
                    break
                done.append(row["id"])
            await connection.execute("delete from jobnimbus_mcp.inbox where id = any ($1)", done)
        if failure is not None:
            raise failure
        return len(done)

    async def _hand_over(self, row: Any) -> None:
        entity = entity_named(row["entity"])
        jnid = record_id(row["record_id"], entity)
        # of the row, not new: what was handed over before a crash comes again as the same event
        event_id = event_id_at(row["changed_at"], row["token"].replace("-", "")[:20])
        if entity is None or jnid is None:
            await self._rejected(
                Event(
                    event_id=event_id,
                    instance=row["instance"],
                    name="unknown.changed",
                    entity=row["entity"],
                    record_id=fit(row["record_id"]),
                    action=Action.UNKNOWN.value,
                    tags=(),
                    source="write",
                    received_at=row["changed_at"],
                ),
                "unknown_entity" if entity is None else "unknown_record_id",
            )
            return
        change = Change(EntityRef(entity, jnid), _ACTIONS.get(row["operation"], Action.UNKNOWN))
        await self._took_in(
            Event.of_change(
                change,
                event_id=event_id,
                instance=row["instance"],
                name=event_name(change),
                tags=tags_of_change(change),
                source="write",
                received_at=row["changed_at"],
                dedupe_key=f"inbox:{row['token']}",
                request_id=f"inbox-{row['id']}",
            )
        )


_ACTIONS = {"insert": Action.CREATED, "update": Action.UPDATED, "delete": Action.DELETED}
