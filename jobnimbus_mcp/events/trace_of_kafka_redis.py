"""What became of the events in Kafka, in Redis; T is the account.

    jobnimbus-sys:{T}:kafka:event:<id>      hash    one event, as `rows_of_kafka_redis` says, until it is cleaned away
    jobnimbus-sys:{T}:kafka:index           zset    ids of all of them, in their order
    jobnimbus-sys:{T}:kafka:due:<c>         zset    ids of what the consumer c has not finished, by when it is due, ms
    jobnimbus-sys:{T}:kafka:dead:<c>        zset    ids of what c gave up, by when, ms
    jobnimbus-sys:{T}:kafka:done            zset    ids of what all are done with, by when, ms
    jobnimbus-sys:{T}:kafka:consumers       hash    consumer -> 1, or 0 when it is no more
    jobnimbus-sys:{T}:kafka:token           string  another one when everything was lost
    jobnimbus-sys:{T}:kafka:forgotten       string  ms: events received before may have been cleaned away
    jobnimbus-sys:{T}:kafka:rates:<minute>  hash    tries of that minute. The only one with an expiry

An event's hash has a name of its own, so that the same event may stand in the Redis log while it is on its way here.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event, encode, received_ms
from jobnimbus_mcp.events.ports import (
    ATTEMPTS_KEPT,
    REJECTED_BY,
    EventPage,
    EventQuery,
    EventsUnavailable,
    Fate,
    Lag,
    Rates,
    RedisRunner,
    Routes,
    Settled,
    Traced,
)
from jobnimbus_mcp.events.ports_kafka import Claim, Claimed, Opened
from jobnimbus_mcp.events.rows_of_kafka_redis import line_of, matches, traced_of

__all__ = ["KafkaTraceInRedis"]

NO_SUCH_CONSUMER = "no_such_consumer"

_RATES_MINUTES = 5
_RATES_LIFE_S = 600
_LOOKED_AT_ONCE = 200
_LOOKED_AT_MOST = 4_000
"""Events looked at for one page; a page may be short, and the next one goes on from there."""

_WAITING_MOST = 5_000
"""Ids of waiting or dead events that are sorted here; with more, all events are gone through."""

_CLEANED_AT_ONCE = 200


class KafkaTraceInRedis:
    """`runner`: finds the scripts of `jobnimbus_mcp.events.scripts`. `instances`: the accounts."""

    def __init__(
        self,
        runner: RedisRunner,
        *,
        clock: Clock,
        instances: Sequence[str],
        command_timeout_s: float = 2.0,
        new_token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._instances = tuple(instances)
        self._timeout_s = command_timeout_s
        self._new_token = new_token

    # -- on the way in -----------------------------------------------------------------------------------------------

    async def begin(self, event: Event, routes: Routes) -> Opened:
        return Opened(await self._begin(event, routes, adopt=False))

    async def adopt(self, event: Event, consumer: str, due_at: float) -> None:
        await self._begin(event, {consumer: due_at}, adopt=True)

    async def _begin(self, event: Event, routes: Routes, *, adopt: bool) -> int:
        tenant = event.instance
        keys = [_event(tenant, event.event_id), *(_key(tenant, name) for name in ("index", "done", "consumers"))]
        keys += [_due(tenant, consumer) for consumer in routes]
        args: list[Any] = [event.event_id, encode(event), event.body, self._now_ms(), "1" if adopt else "0"]
        for consumer, due_at in routes.items():
            args += [consumer, _ms(due_at)]
        return int(await self._run("kafka_begin", tenant, keys, args))

    async def shipped(self, instance: str, event_id: str) -> None:
        await self._run("kafka_shipped", instance, [_event(instance, event_id)])

    async def register(self, consumers: Sequence[str]) -> None:
        for tenant in self._instances:
            if consumers:
                await self._run("kafka_register", tenant, [_key(tenant, "consumers")], consumers)

    # -- acting ------------------------------------------------------------------------------------------------------

    async def claim(
        self, instance: str, consumer: str, event_ids: Sequence[str], *, holder: str, hold_s: float
    ) -> Sequence[Claimed]:
        keys = [_key(instance, "forgotten"), *(_event(instance, event_id) for event_id in event_ids)]
        args = [consumer, holder, int(hold_s * 1000), self._now_ms()]
        received = [received_ms(event_id) or 0 for event_id in event_ids]
        reply = await self._run("kafka_claim", instance, keys, [*args, *received])
        found: list[Claimed] = []
        for verdict, attempts, number in reply:
            told_s = int(number) / 1000
            claim = Claim(verdict)
            found.append(Claimed(claim, attempts, told_s, told_s if claim is Claim.HELD else 0.0))
        return found

    async def release(self, instance: str, consumer: str, event_ids: Sequence[str], *, holder: str) -> None:
        keys = [_event(instance, event_id) for event_id in event_ids]
        await self._run("kafka_release", instance, keys, [consumer, holder])

    async def note(self, instance: str, consumer: str, results: Sequence[Settled], *, holder: str) -> None:
        now = self._clock.now()
        keys = [
            _due(instance, consumer),
            _dead(instance, consumer),
            _key(instance, "done"),
            _rates(instance, int(now // 60)),
            *(_event(instance, settled.taken.event.event_id) for settled in results),
        ]
        args: list[Any] = [consumer, holder, _ms(now), ATTEMPTS_KEPT, _RATES_LIFE_S]
        for settled in results:
            args += [
                settled.taken.event.event_id,
                settled.fate.value,
                _ms(settled.due_at if settled.fate is Fate.RETRY else now),
                settled.reason,
                line_of(settled.attempt),
                max(0, _ms(now - settled.taken.due_at)),
            ]
        await self._run("kafka_note", instance, keys, args)

    async def revive(self, instance: str, event_id: str, consumer: str | None) -> tuple[Event, tuple[str, ...]] | None:
        known = await self._known(instance)
        asked = [name for name in known if consumer in (None, name)]
        keys = [_event(instance, event_id), _key(instance, "done"), *_pairs(instance, asked)]
        reply = await self._run("kafka_revive", instance, keys, [event_id, self._now_ms(), *asked])
        envelope, body, *revived = reply
        if not revived:
            return None
        traced = self._traced({b"e": envelope, b"b": body})
        return None if traced is None else (traced.event, tuple(name.decode() for name in revived))

    # -- looking -----------------------------------------------------------------------------------------------------

    async def show(self, instance: str, event_id: str) -> Traced | None:
        return (await self._look(instance, [event_id], body=True))[0]

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        listed = await self._listed(instance, query)
        narrow = query.state or query.entity or query.record_id
        step = _LOOKED_AT_ONCE if narrow else min(_LOOKED_AT_ONCE, query.limit + 1)
        page: list[Traced] = []
        last, looked = query.before, 0
        while looked < _LOOKED_AT_MOST:
            ids = (
                await self._ids(instance, last, query.since, step) if listed is None else listed[looked : looked + step]
            )
            if not ids:
                return EventPage(tuple(page), None)
            for event_id, traced in zip(ids, await self._look(instance, ids), strict=True):
                if traced is not None and matches(traced, query):
                    if len(page) == query.limit:
                        return EventPage(tuple(page), last)
                    page.append(traced)
                if len(page) < query.limit or (page and page[-1].event.event_id == event_id):
                    last = event_id
            looked += len(ids)
        return EventPage(tuple(page), last)

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        known = await self._known(instance)
        now_ms = self._now_ms()
        rows = await self._run("kafka_lag", instance, _pairs(instance, known), [now_ms])
        found = {
            name: Lag(due, delayed, max(0, now_ms - float(oldest)) / 1000 if oldest else 0.0, dead)
            for name, (due, delayed, oldest, dead) in zip(known, rows, strict=True)
        }
        return {name: lag for name, lag in found.items() if known[name] or lag.due or lag.delayed or lag.dead}

    async def rates(self, instance: str) -> Mapping[str, Rates]:
        minute = int(self._clock.now() // 60)
        keys = [_rates(instance, minute - ago) for ago in range(_RATES_MINUTES + 1)]
        sums: dict[str, dict[str, int]] = {}
        for row in await self._run("kafka_rates", instance, keys):
            for field, number in _fields(row).items():
                consumer, _, what = field.decode().rpartition("|")
                of_consumer = sums.setdefault(consumer, {"ok": 0, "failed": 0, "ms": 0})
                of_consumer[what] += int(number)
        return {
            consumer: Rates(told["ok"], told["failed"], told["ms"] / 1000 / told["ok"] if told["ok"] else 0.0)
            for consumer, told in sums.items()
        }

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, Mapping[str, bool]]:
        keys = [_key(instance, "token"), *(_event(instance, event_id) for event_id in event_ids)]
        token, *kept = await self._run("kafka_standing", instance, keys, [self._new_token()])
        return token.decode(), {event_id: bool(each) for event_id, each in zip(event_ids, kept, strict=True)}

    async def reject(self, event: Event, reason: str) -> None:
        tenant = event.instance
        keys = [_event(tenant, event.event_id), _key(tenant, "index"), _dead(tenant, REJECTED_BY)]
        args = [event.event_id, encode(event), event.body, self._now_ms(), REJECTED_BY, reason]
        await self._run("kafka_reject", tenant, keys, args)

    # -- keeping -----------------------------------------------------------------------------------------------------

    async def clean(self, *, archived_before: float, dead_before: float) -> int:
        forgotten = 0
        for tenant in self._instances:
            dead = [_dead(tenant, name) for name in (*await self._known(tenant), REJECTED_BY)]
            forgotten += await self._forget(tenant, _key(tenant, "done"), _ms(archived_before), dead)
            for key in dead:
                forgotten += await self._forget(tenant, key, _ms(dead_before), dead)
        return forgotten

    async def _forget(self, tenant: str, key: str, before_ms: int, dead: Sequence[str]) -> int:
        """Of one zset, what is older; passes over what has to stay."""
        forgotten = passed = 0
        while ids := await self._old(tenant, key, before_ms, passed):
            keys = [_key(tenant, "forgotten"), _key(tenant, "index"), _key(tenant, "done"), *dead]
            keys += [_event(tenant, event_id) for event_id in ids]
            now = int(await self._run("kafka_forget", tenant, keys, [before_ms, len(dead), *ids]))
            forgotten += now
            passed += len(ids) - now
        return forgotten

    async def retire(self, consumers: Sequence[str]) -> int:
        retired = 0
        for tenant in self._instances:
            for name in await self._known(tenant):
                if name not in consumers:
                    retired += await self._retire(tenant, name)
        return retired

    async def _retire(self, tenant: str, consumer: str) -> int:
        retired = 0
        while True:
            ids = await self._old(tenant, _due(tenant, consumer), None, 0)
            keys = [_key(tenant, "consumers"), _due(tenant, consumer), _dead(tenant, consumer)]
            keys += [_event(tenant, event_id) for event_id in ids]
            args = [consumer, self._now_ms(), NO_SUCH_CONSUMER, *ids]
            retired += int(await self._run("kafka_retire", tenant, keys, args))
            if not ids:
                return retired

    async def ping(self) -> None:
        for tenant in self._instances[:1]:
            await self._run("kafka_ping", tenant, [_key(tenant, "token")], [self._new_token()])

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _known(self, tenant: str) -> dict[str, bool]:
        """Consumer -> whether it still exists."""
        reply = await self._run("kafka_known", tenant, [_key(tenant, "consumers")])
        return {name.decode(): lives == b"1" for name, lives in _fields(reply).items()}

    async def _listed(self, tenant: str, query: EventQuery) -> list[str] | None:
        """Where the query asks for what waits or is dead: ids of all that do, the newest first. None when it does not,
        or when there are too many."""
        if query.state not in ("pending", "delayed", "dead"):
            return None
        known = await self._known(tenant)
        if query.state == "dead":
            keys = [_dead(tenant, name) for name in (*known, REJECTED_BY)]
        else:
            keys = [_due(tenant, name) for name in known]
        few, *found = await self._run("kafka_members", tenant, keys, [_WAITING_MOST])
        if not few:
            return None
        lowest = "" if query.since is None else f"{_ms(query.since):012x}"
        ids = {event_id.decode() for event_id in found[0]}
        some = [each for each in ids if each >= lowest and (query.before is None or each < query.before)]
        return sorted(some, reverse=True)

    async def _ids(self, tenant: str, before: str | None, since: float | None, most: int) -> list[str]:
        highest = "+" if before is None else f"({before}"
        lowest = "-" if since is None else f"[{_ms(since):012x}"
        reply = await self._run("kafka_ids", tenant, [_key(tenant, "index")], [highest, lowest, most])
        return [event_id.decode() for event_id in reply]

    async def _old(self, tenant: str, key: str, before_ms: int | None, passed: int) -> list[str]:
        before = "+inf" if before_ms is None else before_ms
        reply = await self._run("kafka_old", tenant, [key], [before, passed, _CLEANED_AT_ONCE])
        return [event_id.decode() for event_id in reply]

    async def _look(self, tenant: str, event_ids: Sequence[str], *, body: bool = False) -> list[Traced | None]:
        keys = [_event(tenant, event_id) for event_id in event_ids]
        rows = await self._run("kafka_look", tenant, keys, ["1" if body else "0"])
        return [self._traced(_fields(row)) for row in rows]

    def _traced(self, row: Mapping[bytes, bytes]) -> Traced | None:
        if not row:
            return None
        try:
            return traced_of(row, self._clock.now())
        except ValueError as error:
            structlog.get_logger().error("trace of an event cannot be read", reason=str(error))
            return None

    def _now_ms(self) -> int:
        return _ms(self._clock.now())

    async def _run(self, name: str, tenant: str, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._runner.run(name, keys, args, tenant=tenant)
        except CacheUnavailable as error:
            raise EventsUnavailable(getattr(error, "detail", "") or type(error).__name__) from error
        except TimeoutError as error:
            raise EventsUnavailable("TimeoutError") from error


def _key(tenant: str, name: str) -> str:
    return f"jobnimbus-sys:{{{tenant}}}:kafka:{name}"


def _event(tenant: str, event_id: str) -> str:
    return _key(tenant, f"event:{event_id}")


def _due(tenant: str, consumer: str) -> str:
    return _key(tenant, f"due:{consumer}")


def _dead(tenant: str, consumer: str) -> str:
    return _key(tenant, f"dead:{consumer}")


def _rates(tenant: str, minute: int) -> str:
    return _key(tenant, f"rates:{minute}")


def _pairs(tenant: str, consumers: Iterable[str]) -> list[str]:
    return [key for consumer in consumers for key in (_due(tenant, consumer), _dead(tenant, consumer))]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
