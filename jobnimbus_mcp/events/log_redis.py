"""The event log in Redis Streams (7.0 or later): one consumer group for each consumer, all keys on the account's slot.

`keys_redis` names what is kept; `ownership_redis` says which process acts on what; `subscription_redis` hands it out.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence

import orjson

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.asking_redis import Asking, text
from jobnimbus_mcp.events.event import BODY_MOST, Event, encode, partition_of, received_ms
from jobnimbus_mcp.events.keys_redis import (
    archive_key,
    archived_key,
    consumers_key,
    dead_key,
    due_key,
    event_key,
    live_key,
    owners_key,
    stream_key,
    stream_keys,
    token_key,
    tries_key,
)
from jobnimbus_mcp.events.lookup_redis import Lookup
from jobnimbus_mcp.events.ownership_redis import Ownership
from jobnimbus_mcp.events.ports import (
    REJECTED_BY,
    EventPage,
    EventQuery,
    Fate,
    Lag,
    Rates,
    RedisRunner,
    Routes,
    Subscription,
    Traced,
)
from jobnimbus_mcp.events.settling_redis import SettleRow, settle_call
from jobnimbus_mcp.events.subscription_redis import RedisSubscription
from jobnimbus_mcp.events.trace_redis import Became, decoded, fields_of, milliseconds

__all__ = ["RedisEvents"]

_SOME = 200
_RATES_MINUTES = 5
_DURABLE_S = 10.0


class RedisEvents:
    """An `EventLog` of the accounts `tenants`; in a cluster one account's, as the runner is.

    `worker`: this process, another name for each start. `claim_idle_s`: how long a process that tells nothing keeps its
    partitions; effects may take ACT_WITHIN_S where it is 30 or more, two thirds of it where it is less.
    `command_timeout_s` bounds each step.
    """

    def __init__(
        self,
        runner: RedisRunner,
        *,
        clock: Clock,
        tenants: Sequence[str],
        worker: str = "",
        claim_idle_s: float = 30.0,
        command_timeout_s: float = 2.0,
        new_token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._asking = Asking(runner, command_timeout_s)
        self._clock = clock
        self._tenants = tuple(tenants)
        self._new_token = new_token
        self._ownership = Ownership(
            self._asking, clock=clock, tenants=tenants, worker=worker or new_token(), claim_idle_s=claim_idle_s
        )
        self._lookup = Lookup(self._asking, clock=clock)
        self._subscriptions: list[RedisSubscription] = []
        self._known: dict[str, set[str]] = {tenant: set() for tenant in self._tenants}
        self._durable: tuple[float, bool] | None = None

    # -- appending ---------------------------------------------------------------------------------------------------

    def parcel(self, event: Event, routes: Routes) -> tuple[list[str], list[str | bytes | int]]:
        """What appends the event in somebody else's script: keys (a hash, a stream, sorted sets) and arguments (event,
        body, consumers, a score for each set). Unless the hash is there, the stream gets `id`, `e`, `to`, the hash `e`,
        `b`, `to`, its entry `x` and as `left` the number of sets, and each set the event's id.

        The last set is no consumer's: it holds all events that are not in the archive.
        """
        tenant = event.instance
        due_ms = {consumer: milliseconds(due_at) for consumer, due_at in routes.items()}
        self._known.setdefault(tenant, set()).update(routes)
        keys = [event_key(tenant, event.event_id), stream_key(tenant, partition_of(event.record))]
        keys += [*(due_key(tenant, consumer) for consumer in routes), live_key(tenant)]
        received = received_ms(event.event_id) or 0
        return keys, [encode(event), event.body[:BODY_MOST], orjson.dumps(due_ms), *due_ms.values(), received]

    async def append(self, event: Event, routes: Routes) -> bool:
        keys, args = self.parcel(event, routes)
        keys.insert(0, archived_key(event.instance))
        first = (event.event_id, received_ms(event.event_id) or 0)
        return bool(await self._asking.run("event_append", event.instance, keys, (*first, *args)))

    async def reject(self, event: Event, reason: str) -> None:
        tenant, now_ms = event.instance, milliseconds(self._clock.now())
        received = received_ms(event.event_id) or 0
        keys = [event_key(tenant, event.event_id), live_key(tenant), dead_key(tenant)]
        args = (event.event_id, received, encode(event), event.body[:BODY_MOST], orjson.dumps({REJECTED_BY: received}))
        became = Became().gone(reason, now_ms).written
        await self._asking.run("event_reject", tenant, keys, (*args, now_ms, f"c:{REJECTED_BY}", became))

    # -- acting ------------------------------------------------------------------------------------------------------

    def subscribe(self, consumer: str) -> Subscription:
        """Raises ValueError for a consumer that this process has a subscription of already."""
        made = RedisSubscription(consumer, self._asking, self._ownership, clock=self._clock)
        self._subscriptions = [*(one for one in self._subscriptions if not one.closed), made]
        return made

    async def open(self, consumers: Sequence[str]) -> None:
        """Groups are made where they are first read from: a new one begins with the oldest event there is."""
        for tenant in self._tenants:
            await self._consumers(tenant, consumers)

    async def retire(self, consumers: Sequence[str]) -> int:
        """Those that another process serves stay: its settings may be others, or newer ones."""
        retired = 0
        for tenant in self._tenants:
            served = map(text, await self._asking.run("event_served", tenant, [owners_key(tenant)]))
            for consumer in sorted(await self._consumers(tenant) - {*consumers, *served}):
                keys = [consumers_key(tenant), due_key(tenant, consumer), *stream_keys(tenant)]
                while ids := await self._asking.run("event_retire", tenant, keys, (consumer, _SOME)):
                    retired += await self._give_up(tenant, consumer, [text(event_id) for event_id in ids])
                self._known[tenant].discard(consumer)
        return retired

    async def _give_up(self, tenant: str, consumer: str, event_ids: Sequence[str]) -> int:
        now = self._clock.now()
        rows = []
        for event_id in event_ids:
            fields = await self._lookup.fields(tenant, event_id) or {"e": b""}
            partition = partition_of(decoded(tenant, event_id, fields["e"], "").record)
            became = Became.read(fields.get(f"c:{consumer}", b"")).gone("no_such_consumer", milliseconds(now))
            rows.append(SettleRow(partition, "", "", event_id, Fate.DEAD.value, became.written, 0, ""))
        keys, args = settle_call(tenant, consumer, now, rows)
        return len(await self._asking.run("event_settle", tenant, keys, args))

    async def replay(self, instance: str, event_id: str, consumer: str | None = None) -> tuple[str, ...]:
        fields = await self._lookup.fields(instance, event_id)
        if fields is None or "rejected" in fields:
            return ()
        now_ms = milliseconds(self._clock.now())
        partition = partition_of(decoded(instance, event_id, fields["e"], "").record)
        keys = [event_key(instance, event_id), stream_key(instance, partition), dead_key(instance)]
        args: list[str | bytes | int] = [event_id, now_ms]
        for name in orjson.loads(fields["to"]):
            field = fields.get(f"c:{name}", b"")
            became = Became.read(field)
            if became.state == Fate.DEAD.value and consumer in (None, name):
                keys += [due_key(instance, name), dead_key(instance, name)]
                args += [name, field, became.anew(now_ms).written]
        if len(args) == 2:
            return ()
        return tuple(sorted(map(text, await self._asking.run("event_replay", instance, keys, args))))

    # -- looking -----------------------------------------------------------------------------------------------------

    async def show(self, instance: str, event_id: str) -> Traced | None:
        return await self._lookup.show(instance, event_id)

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        return await self._lookup.find(instance, query)

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        consumers = sorted(await self._consumers(instance))
        keys = [key for name in consumers for key in (due_key(instance, name), dead_key(instance, name))]
        if not keys:
            return {}
        now_ms = milliseconds(self._clock.now())
        rows = await self._asking.run("event_lag", instance, keys, (now_ms,))
        return {
            name: Lag(due, delayed, max(0.0, now_ms - float(first)) / 1000 if first else 0.0, dead)
            for name, (due, delayed, first, dead) in zip(consumers, rows, strict=True)
        }

    async def rates(self, instance: str) -> Mapping[str, Rates]:
        minute = int(self._clock.now() // 60)
        keys = [tries_key(instance, minute - ago) for ago in range(_RATES_MINUTES)]
        sums: dict[str, dict[str, int]] = {}
        for flat in await self._asking.run("event_tries", instance, keys):
            for name, number in fields_of(flat).items():
                consumer, _, what = name.rpartition("|")
                of = sums.setdefault(consumer, {"ok": 0, "failed": 0, "ms": 0})
                of[what] += int(number)
        return {
            consumer: Rates(of["ok"], of["failed"], of["ms"] / 1000 / of["ok"] if of["ok"] else 0.0)
            for consumer, of in sums.items()
        }

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, Mapping[str, bool]]:
        """The token is another one for each process of the server: one that has come back may have lost the latest."""
        token, kept = "", dict[str, bool]()
        for first in range(0, max(1, len(event_ids)), _SOME):
            some = event_ids[first : first + _SOME]
            keys = [token_key(instance), *(event_key(instance, event_id) for event_id in some)]
            told, *rows = await self._asking.run("event_standing", instance, keys, (self._new_token(),))
            if token and text(told) != token:
                kept = dict.fromkeys(kept, False)  # what was asked before may be lost by now
            token = text(told)
            kept |= {event_id: bool(row) for event_id, row in zip(some, rows, strict=True)}
        return token, kept

    # -- keeping -----------------------------------------------------------------------------------------------------

    async def clean(self, *, archived_before: float, dead_before: float) -> int:
        forgotten = 0
        for tenant in self._tenants:
            keys = [archive_key(tenant), archived_key(tenant)]
            args = (milliseconds(archived_before), _SOME)
            while number := await self._asking.run("event_clean", tenant, keys, args):
                forgotten += number
                await asyncio.sleep(0)
            forgotten += await self._clean_dead(tenant, milliseconds(dead_before))
        return forgotten

    async def _clean_dead(self, tenant: str, before_ms: int) -> int:
        forgotten = 0
        while ids := await self._asking.run("event_dead", tenant, [dead_key(tenant)], (before_ms, _SOME)):
            for event_id in map(text, ids):
                fields = await self._lookup.fields(tenant, event_id) or {"to": b"{}"}
                keys = [event_key(tenant, event_id), live_key(tenant), dead_key(tenant)]
                keys += [dead_key(tenant, consumer) for consumer in orjson.loads(fields["to"])]
                forgotten += await self._asking.run("event_forget", tenant, keys, (event_id,))
        return forgotten

    async def durable(self) -> bool:
        """Whether the server writes each change to its append-only file; asked at most every ten seconds."""
        now = self._clock.monotonic()
        if self._durable is None or now >= self._durable[0]:
            told = await self._asking.blocked(("INFO", "persistence"), self._tenants[:1])
            self._durable = (now + _DURABLE_S, "aof_enabled:1" in text(told))
        return self._durable[1]

    async def ping(self) -> None:
        for tenant in self._tenants[:1]:
            await self._asking.run("event_standing", tenant, [token_key(tenant)], (self._new_token(),))

    async def aclose(self) -> None:
        """Ends what runs here; the runner is its owner's to close."""
        for subscription in self._subscriptions:
            await subscription.aclose()
        await self._ownership.aclose()

    async def _consumers(self, tenant: str, more: Sequence[str] = ()) -> set[str]:
        """All that were opened, have a worker, or were named by this process."""
        known = self._known.setdefault(tenant, set())
        known |= set(more)
        # each time: the server may have lost them, and another process retired one that this one still routes to
        told = await self._asking.run("event_consumers", tenant, [consumers_key(tenant)], sorted(known))
        return set(fields_of(told)) | known
