"""The events' side of the server: the logs and ways into them, those who act on events, and what looks after both."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.app.accounts import Accounts, StoreOfAccounts
from jobnimbus_mcp.app.changes import Way
from jobnimbus_mcp.app.keeping import Keeper
from jobnimbus_mcp.app.secrets import revealed
from jobnimbus_mcp.app.ways import AfterTheStore, Elsewhere, WithTheStore
from jobnimbus_mcp.cache.journal_file import JournalFile
from jobnimbus_mcp.cache.notice import Parcel
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.bus_memory import MemoryBus
from jobnimbus_mcp.events.bus_redis import RedisBus
from jobnimbus_mcp.events.event import Event, decode, event_id_at
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.log_redis import RedisEvents
from jobnimbus_mcp.events.ports import (
    Bus,
    Consumer,
    EventLog,
    EventPage,
    EventQuery,
    EventsUnavailable,
    Lag,
    Rates,
    Routes,
    Traced,
)
from jobnimbus_mcp.events.routing import routes_of
from jobnimbus_mcp.events.vitals import unwell
from jobnimbus_mcp.events.worker import Worker
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["EventSide", "Events", "LogOfAccounts", "build_logs"]

_GAUGES_EVERY_S = 5.0
_LOOK_WITHIN_S = 0.7
_LEAVE_WITHIN_S = 1.0
_EVENT_SCRIPTS = "jobnimbus_mcp.events.scripts"
_FALLBACK = "settle"
"""Who takes an event that is nothing to anybody, so that it goes through the stream and into the archive like all."""


@dataclass(frozen=True)
class LogOfAccounts:
    """One log, for the accounts in `instances`."""

    name: str
    instances: tuple[str, ...]
    log: EventLog


class Events:
    """Every account's log and bus, found by the account's name; the web's and the command line's view."""

    def __init__(self, logs: Sequence[LogOfAccounts], buses: Mapping[str, Bus]) -> None:
        self.logs = tuple(logs)
        self._buses = dict(buses)
        self._of = {instance: one for one in logs for instance in one.instances}

    @property
    def instances(self) -> tuple[str, ...]:
        return tuple(self._of)

    @property
    def by_account(self) -> Mapping[str, EventLog]:
        return {instance: one.log for instance, one in self._of.items()}

    @property
    def buses(self) -> Sequence[Bus]:
        """Each once."""
        return tuple({id(bus): bus for bus in self._buses.values()}.values())

    def of(self, instance: str) -> EventLog:
        return self._of[instance].log

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        """As `EventLog.find`."""
        return await self.of(instance).find(instance, query)

    async def show(self, instance: str, event_id: str) -> Traced | None:
        """As `EventLog.show`."""
        return await self.of(instance).show(instance, event_id)

    async def replay(self, instance: str, event_id: str, consumer: str | None = None) -> tuple[str, ...]:
        """As `EventLog.replay`."""
        return await self.of(instance).replay(instance, event_id, consumer)

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        """As `EventLog.lag`."""
        return await self.of(instance).lag(instance)

    async def rates(self, instance: str) -> Mapping[str, Rates]:
        """As `EventLog.rates`."""
        return await self.of(instance).rates(instance)

    async def publish(self, instance: str, messages: Sequence[str]) -> None:
        """As `Bus.publish`."""
        await self._buses[instance].publish(instance, messages)

    def listen(self, heard: Callable[[str, str], None]) -> Callable[[], None]:
        """As `Bus.listen`, to every bus."""
        stops = [bus.listen(heard) for bus in self.buses]

        def stop() -> None:
            for each in stops:
                each()

        return stop

    async def facts(self, instance: str) -> Mapping[str, Any]:
        """What each consumer has before it. Raises CacheUnavailable."""
        return {
            name: {
                "due": lag.due,
                "delayed": lag.delayed,
                "oldestSeconds": round(lag.oldest_s, 3),
                "dead": lag.dead,
            }
            for name, lag in sorted((await self.lag(instance)).items())
        }

    async def health(self, instance: str) -> str | None:
        """None when the account's events are handled as they should be, else why not: unreachable, lag, errors or
        latency."""
        try:
            async with asyncio.timeout(_LOOK_WITHIN_S):
                log = self.of(instance)
                await log.ping()
                return unwell(await log.lag(instance), await log.rates(instance))
        except (CacheUnavailable, TimeoutError):
            return "unreachable"


@dataclass
class EventSide:
    """Built, not opened."""

    settings: Settings
    clock: Clock
    recorder: Recorder
    log: FilteringBoundLogger
    random01: Callable[[], float]
    events: Events
    keeper: Keeper | None
    ways: Mapping[str, Way]
    consumers: list[Consumer] = field(default_factory=list)
    """Filled by the composition root: what they need is built with what events are needed for."""
    took_in: Callable[[Event], Awaitable[None]] | None = None
    """Told of each change in a table of the user's own; likewise."""

    def routes_of(self, event: Event) -> Routes:
        """As `events.routing`; an event that is nothing to anybody is `settle`'s, at once."""
        return routes_of(event, self.consumers) or {_FALLBACK: event.received_at}

    def event_id(self) -> str:
        return event_id_at(self.clock.now(), secrets.token_hex(10))

    async def rejected(self, event: Event, reason: str) -> None:
        """Keep it for the trace, as far as that is possible."""
        try:
            await self.events.of(event.instance).reject(event, reason)
        except CacheUnavailable as away:
            self.log.warning("event not kept", event_id=event.event_id, reason=reason, error=away.code)
        self.recorder.count("events", source=event.source, outcome="rejected")

    async def replayed(self, instance: str, parcel: Parcel, event_id: str) -> None:
        """What the store's journal kept is in the log now, under this id. Raises CacheUnavailable: it may be forgotten
        there, and cannot be kept here."""
        try:
            envelope, body, to, *_ = parcel.args
            event = replace(decode(envelope, body), event_id=event_id)
            routes = {consumer: due_ms / 1000 for consumer, due_ms in orjson.loads(to).items()}
        except ValueError:  # another release's; in the log it is all the same
            self.log.error("an event cannot be read", instance=instance, event_id=event_id)
            return
        await self.ways[instance].appended(event, routes)

    def worker(self, one: LogOfAccounts) -> Worker:
        return Worker(
            one.log,
            self.consumers,
            clock=self.clock,
            random01=self.random01,
            recorder=self.recorder,
            log=self.log,
        )

    @asynccontextmanager
    async def opened(self, *, handled: bool = True) -> AsyncIterator[None]:
        """Logs, buses and the keeper at work, and, with `handled`, the consumers; closed in reverse order."""
        async with AsyncExitStack() as stack:
            for one in self.events.logs:
                stack.push_async_callback(_within, one.log.aclose)
            for bus in self.events.buses:
                if isinstance(bus, RedisBus):
                    await bus.start()
                    stack.push_async_callback(_within, bus.aclose)
            if self.keeper is not None:
                await stack.enter_async_context(self.keeper.running())
            tasks = [self._gauges_for_ever(), *self._inboxes()]
            if handled:
                tasks += [self._handled(one) for one in self.events.logs]
                tasks += [self._clean_daily()]
            await stack.enter_async_context(_running([self._heard(body) for body in tasks]))
            yield

    async def _heard(self, body: Awaitable[None]) -> None:
        try:
            await body
        except Exception as defect:  # the boundary of a task that nobody waits for: it must not end unheard
            self.log.error("a task of the events ended", **defect_fields(defect))

    def _inboxes(self) -> Sequence[Awaitable[None]]:
        """What tables of the user's own database tell of, where the log is in such a database."""
        if self.settings.events_transport != "postgres" or self.took_in is None:
            return ()
        from jobnimbus_mcp.events.log_postgres import PostgresEvents

        logs = [one.log for one in self.events.logs if isinstance(one.log, PostgresEvents)]
        return [log.inbox(self.took_in).run() for log in logs]

    async def until_idle(self) -> None:
        """Handle what there is, until nothing is left, also nothing that waits for its time, nor on this disk."""
        if self.keeper is not None:
            await self.keeper.look()
        await asyncio.gather(*(self._until_idle(one) for one in self.events.logs))

    async def _until_idle(self, one: LogOfAccounts) -> None:
        await self.worker(one).run_until_idle(one.instances)

    async def _handled(self, one: LogOfAccounts) -> None:
        """Have the log's events handled until cancelled; it is opened as soon as it can be reached."""
        async with self.worker(one).running():
            await asyncio.Event().wait()

    async def _gauges_for_ever(self) -> None:
        while True:
            await self.clock.sleep(_GAUGES_EVERY_S)
            for instance in self.events.instances:
                try:
                    lags = await self.events.lag(instance)
                except CacheUnavailable:
                    continue  # told by /ready
                for consumer, lag in lags.items():
                    told = {"instance": instance, "consumer": consumer}
                    self.recorder.gauge("events_due", lag.due, **told)
                    self.recorder.gauge("events_delayed", lag.delayed, **told)
                    self.recorder.gauge("events_oldest_seconds", lag.oldest_s, **told)
                    self.recorder.gauge("events_dead", lag.dead, **told)

    async def _clean_daily(self) -> None:
        settings = self.settings
        while True:
            now = self.clock.now()
            await self.clock.sleep(seconds_until(settings.events_clean_hour, now, settings))
            before = self.clock.now() - settings.events_retention_days * 86_400
            for one in self.events.logs:
                try:
                    removed = await one.log.clean(archived_before=before, dead_before=before)
                    retired = await one.log.retire([consumer.name for consumer in self.consumers])
                except CacheUnavailable as away:
                    self.log.warning("events not cleaned", log=one.name, error=away.code)
                    continue
                self.log.info("events cleaned", log=one.name, removed=removed, retired=retired)


def seconds_until(hour: int, now: float, settings: Settings) -> float:
    """Until the next time it is this hour in the account's time zone; more than none."""
    zone = settings.account_timezone
    here = datetime.fromtimestamp(now, zone)
    then = here.replace(hour=hour, minute=0, second=0, microsecond=0)
    if then.timestamp() <= now:
        then = (here + timedelta(days=1)).replace(hour=hour, minute=0, second=0, microsecond=0)
    return max(1.0, then.timestamp() - now)


def build_logs(
    settings: Settings,
    accounts: Accounts,
    *,
    clock: Clock,
    random01: Callable[[], float],
    recorder: Recorder,
    told: FilteringBoundLogger,
) -> EventSide:
    """The logs that the settings ask for, and the ways into them."""
    worker = secrets.token_hex(8)
    logs: list[LogOfAccounts]
    if settings.events_transport == "postgres":
        logs = [LogOfAccounts("events", settings.instances, _in_postgres(settings, clock, recorder))]
    else:
        in_kafka = settings.events_transport == "kafka"
        logs = [
            LogOfAccounts(
                one.name.replace("store", "events"),
                one.tenants,
                _in_kafka(one, settings, clock) if in_kafka else _beside(one, settings, worker, clock),
            )
            for one in accounts.stores
        ]
    buses: dict[str, Bus] = {}
    for one in accounts.stores:
        buses |= dict.fromkeys(one.tenants, _bus(one, clock))
    events = Events(logs, buses)
    keeper = Keeper(
        JournalFile(settings.data_dir / "events", tenants=settings.instances),
        events.by_account,
        clock=clock,
        recorder=recorder,
        log=told,
    )
    ways = {instance: _way(log, keeper) for instance, log in events.by_account.items()}
    embedded = all(isinstance(log, MemoryEvents) for log in events.by_account.values())
    side = EventSide(
        settings=settings,
        clock=clock,
        recorder=recorder,
        log=told,
        random01=random01,
        events=events,
        keeper=None if embedded else keeper,
        ways=ways,
    )
    for one in accounts.stores:
        one.store.tell_replayed(side.replayed)
    return side


def _way(log: EventLog, keeper: Keeper) -> Way:
    if isinstance(log, MemoryEvents):
        return AfterTheStore(log)
    if isinstance(log, RedisEvents):
        return WithTheStore(log, keeper)
    return Elsewhere(log, keeper)


def _bus(one: StoreOfAccounts, clock: Clock) -> Bus:
    if one.redis is None:
        return MemoryBus()
    return RedisBus(Scripts(one.redis, package=_EVENT_SCRIPTS), tenants=one.tenants, clock=clock)


def _beside(one: StoreOfAccounts, settings: Settings, worker: str, clock: Clock) -> EventLog:
    """The log that goes with a store: in the same Redis, or in this process."""
    if one.redis is None:
        return MemoryEvents(clock, token=secrets.token_hex(8))
    return RedisEvents(
        Scripts(one.redis, package=_EVENT_SCRIPTS),
        clock=clock,
        tenants=one.tenants,
        worker=worker,
        claim_idle_s=settings.events_claim_idle_s,
    )


def _in_postgres(settings: Settings, clock: Clock, recorder: Recorder) -> EventLog:
    # its client is an extra
    from jobnimbus_mcp.events.log_postgres import PostgresEvents

    return PostgresEvents(
        revealed(settings.database_url) or "",
        clock=clock,
        instances=settings.instances,
        claim_idle_s=settings.events_claim_idle_s,
        archive_days=settings.events_retention_days,
        recorder=recorder,
    )


def _in_kafka(one: StoreOfAccounts, settings: Settings, clock: Clock) -> EventLog:
    """With the trace in the accounts' Redis, which the settings have been checked for."""
    # its client is an extra
    from jobnimbus_mcp.events.client_kafka import KafkaSecurity, TopicPlan
    from jobnimbus_mcp.events.log_kafka import KafkaEvents
    from jobnimbus_mcp.events.trace_of_kafka_redis import KafkaTraceInRedis

    assert one.redis is not None
    return KafkaEvents(
        ",".join(settings.kafka_bootstrap_servers),
        KafkaTraceInRedis(Scripts(one.redis, package=_EVENT_SCRIPTS), clock=clock, instances=one.tenants),
        clock=clock,
        instances=one.tenants,
        new_holder=lambda: secrets.token_hex(8),
        claim_idle_s=settings.events_claim_idle_s,
        plan=TopicPlan(retention_s=settings.events_retention_days * 86_400),
        security=KafkaSecurity(
            settings.kafka_security_protocol,
            settings.kafka_sasl_mechanism,
            settings.kafka_sasl_username or "",
            revealed(settings.kafka_sasl_password) or "",
        ),
    )


@asynccontextmanager
async def _running(bodies: Sequence[Awaitable[None]]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(body) for body in bodies]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _within(close: Callable[[], Awaitable[None]]) -> None:
    """What has not ended by then ends with the process."""
    try:
        async with asyncio.timeout(_LEAVE_WITHIN_S):
            await close()
    except (TimeoutError, EventsUnavailable):
        return
