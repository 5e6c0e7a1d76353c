"""The events' side of the server, opened and closed: what looks after the logs, and what it does when they are away."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.app.events import Events, EventSide, LogOfAccounts, seconds_until
from jobnimbus_mcp.app.keeping import Keeper
from jobnimbus_mcp.app.ways import AfterTheStore, Elsewhere, WithTheStore
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.events.bus_memory import MemoryBus
from jobnimbus_mcp.events.event import Event, event_id_at, received_ms
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.ports import EventsUnavailable, Lag, Outcome, Routes
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

NOW = 1_790_000_000.0


def settings(**variables: str) -> Settings:
    return Settings.from_env({"JOBNIMBUS_INSTANCES": "stamford,guilford", **variables})


def event(number: int = 1) -> Event:
    return Event(
        event_id=event_id_at(NOW, f"{number:020x}"),
        instance="stamford",
        name="job.updated",
        entity="jobs",
        record_id=f"j{number}",
        action="updated",
        tags=("jobs:list",),
        source="webhook",
        received_at=NOW,
    )


class Noting:
    """A consumer that notes what it is given. `wants` False: nothing is anything to it."""

    batch_most, parallel, within_s = 10, 1, 5.0

    def __init__(self, name: str, *, wants: bool = True) -> None:
        self.name = name
        self.wants = wants
        self.given: list[Event] = []

    def delay_s(self, event: Event) -> float | None:
        return 0.0 if self.wants else None

    async def act(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        self.given += batch
        return [Outcome()] * len(batch)


class Log(MemoryEvents):
    """`away`: nothing can be asked of it. `hangs`: nothing is answered."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, token="t")
        self.away = self.hangs = self.closed = False
        self.cleaned: list[tuple[float, float]] = []
        self.retired: list[Sequence[str]] = []

    async def _reached(self) -> None:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.away:
            raise EventsUnavailable("away")

    async def open(self, consumers: Sequence[str]) -> None:
        await self._reached()
        await super().open(consumers)

    async def ping(self) -> None:
        await self._reached()

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        await self._reached()
        return await super().lag(instance)

    async def reject(self, event: Event, reason: str) -> None:
        await self._reached()
        await super().reject(event, reason)

    async def clean(self, *, archived_before: float, dead_before: float) -> int:
        await self._reached()
        self.cleaned.append((archived_before, dead_before))
        return 0

    async def retire(self, consumers: Sequence[str]) -> int:
        self.retired.append(consumers)
        return 0

    async def aclose(self) -> None:
        self.closed = True


class World:
    def __init__(self, *consumers: Noting, **variables: str) -> None:
        self.clock = ManualClock(NOW)
        self.log = Log(self.clock)
        self.recorder = InMemoryRecorder()
        instances = ("stamford", "guilford")
        self.events = Events([LogOfAccounts("events", instances, self.log)], dict.fromkeys(instances, MemoryBus()))
        self.side = EventSide(
            settings=settings(**variables),
            clock=self.clock,
            recorder=self.recorder,
            log=structlog.get_logger(),
            random01=lambda: 0.5,
            events=self.events,
            keeper=None,
            ways={},
            consumers=list(consumers),
        )

    def opened(self, *, handled: bool = True) -> AbstractAsyncContextManager[None]:
        return self.side.opened(handled=handled)

    async def passes(self, seconds: float, step_s: float = 0.25) -> None:
        """So much of the clock's time, with whatever that starts."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            await settled()
        await settled()


async def settled() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


# -- routes, rejections, health ----------------------------------------------------------------------------------------


def test_an_event_goes_to_those_who_want_it() -> None:
    world = World(Noting("settle", wants=False), Noting("relay:n8n"))
    assert world.side.routes_of(event()) == {"relay:n8n": NOW}


def test_an_event_that_is_nothing_to_anybody_goes_through_the_stream_all_the_same() -> None:
    world = World(Noting("settle", wants=False), Noting("relay:n8n", wants=False))
    assert world.side.routes_of(event()) == {"settle": NOW}


def test_ids_tell_the_time_and_are_never_the_same_twice() -> None:
    side = World().side
    ids = {side.event_id() for _ in range(100)}
    assert len(ids) == 100
    assert {received_ms(one) for one in ids} == {round(NOW * 1000)}


@pytest.mark.parametrize("away", [False, True])
async def test_what_was_rejected_is_kept_where_that_is_possible_and_counted_always(away: bool) -> None:
    world = World()
    world.log.away = away
    await world.side.rejected(event(), "no_json")
    world.log.away = False
    told = await world.events.show("stamford", event().event_id)
    assert (None if told is None else told.state) == (None if away else "dead")
    assert world.recorder.counts["events", (("outcome", "rejected"), ("source", "webhook"))] == 1


async def test_an_account_s_events_are_well_behind_or_out_of_reach() -> None:
    world = World()
    assert await world.events.health("stamford") is None
    for number in range(101):
        await world.log.append(event(number), {"settle": NOW})
    assert await world.events.health("stamford") == "lag"
    assert await world.events.health("guilford") is None
    world.log.away = True
    assert await world.events.health("stamford") == "unreachable"


async def test_a_log_that_does_not_answer_is_out_of_reach_before_whoever_asks_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobnimbus_mcp.app.events._LOOK_WITHIN_S", 0.05)
    world = World()
    world.log.hangs = True
    async with asyncio.timeout(2):
        assert await world.events.health("stamford") == "unreachable"


async def test_what_is_told_on_a_bus_is_heard_once_until_nobody_listens_any_more() -> None:
    world = World()
    heard: list[tuple[str, str]] = []
    stop = world.events.listen(lambda instance, message: heard.append((instance, message)))
    await world.events.publish("guilford", ["a"])
    await settled()
    assert heard == [("guilford", "a")]
    stop()
    await world.events.publish("guilford", ["b"])
    await settled()
    assert heard == [("guilford", "a")]


# -- opened ------------------------------------------------------------------------------------------------------------


async def test_a_log_that_is_away_is_tried_again_until_it_is_there_and_its_events_are_handled_then() -> None:
    consumer = Noting("settle")
    world = World(consumer)
    world.log.away = True
    async with world.opened():
        await world.passes(3)
        await world.log.append(event(), {"settle": NOW})
        await world.passes(1)
        assert consumer.given == []
        world.log.away = False
        await world.passes(2)
        assert consumer.given == [event()]
    assert world.log.closed


async def test_a_process_that_is_not_to_act_leaves_events_to_others() -> None:
    consumer = Noting("settle")
    world = World(consumer)
    await world.log.append(event(), {"settle": NOW})
    async with world.opened(handled=False):
        await world.passes(3)
        assert consumer.given == []


async def test_until_idle_ends_when_nothing_is_left_also_nothing_that_waits_for_its_time() -> None:
    consumer = Noting("settle")
    world = World(consumer)
    await world.log.append(event(1), {"settle": NOW})
    await world.log.append(event(2), {"settle": NOW + 10})
    working = asyncio.create_task(world.side.until_idle())
    await world.passes(8)
    assert (consumer.given, working.done()) == ([event(1)], False)
    await world.passes(4)
    assert consumer.given == [event(1), event(2)]
    async with asyncio.timeout(2):
        await working


class Left(Keeper):
    """What a dead process has left on the disk: one event, which gets into the log when somebody looks."""

    def __init__(self, log: Log) -> None:
        self._into = log

    async def look(self) -> None:
        await self._into.append(event(), {"settle": NOW})


async def test_until_idle_first_takes_up_what_is_on_the_disk() -> None:
    consumer = Noting("settle")
    world = World(consumer)
    world.side.keeper = Left(world.log)
    working = asyncio.create_task(world.side.until_idle())
    await world.passes(1)
    assert consumer.given == [event()]
    async with asyncio.timeout(2):
        await working


async def test_how_far_behind_each_consumer_is_is_measured_every_few_seconds_also_after_an_outage() -> None:
    world = World()
    await world.log.append(event(1), {"settle": NOW, "warm": NOW + 600})

    def gauge(name: str, consumer: str) -> float | None:
        return world.recorder.gauges.get((name, (("consumer", consumer), ("instance", "stamford"))))

    async with world.opened(handled=False):
        world.log.away = True
        await world.passes(6)
        assert gauge("events_due", "settle") is None
        world.log.away = False
        await world.passes(6)
        assert (gauge("events_due", "settle"), gauge("events_delayed", "settle")) == (1, 0)
        assert (gauge("events_due", "warm"), gauge("events_delayed", "warm")) == (0, 1)
        assert gauge("events_oldest_seconds", "settle") == pytest.approx(10, abs=1)
        assert gauge("events_dead", "settle") == 0


async def test_a_task_that_ends_by_a_defect_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def defective(instance: str) -> Mapping[str, Lag]:
        raise RuntimeError("a defect")

    monkeypatch.setattr(world.log, "lag", defective)
    with structlog.testing.capture_logs() as logs:
        async with world.opened():
            await world.passes(6)
    assert [one["event"] for one in logs if one["log_level"] == "error"] == ["a task of the events ended"]


async def test_old_events_are_forgotten_every_day_at_the_hour_that_is_set() -> None:
    world = World(Noting("settle"), ACCOUNT_TIMEZONE="UTC", EVENTS_CLEAN_HOUR="3", EVENTS_RETENTION_DAYS="7")
    at = datetime.fromtimestamp(NOW, ZoneInfo("UTC"))
    first_s = seconds_until(3, NOW, world.side.settings)
    assert (at + timedelta(seconds=first_s)).strftime("%H:%M:%S") == "03:00:00"
    async with world.opened():
        await settled()
        world.clock.advance(first_s - 1)
        await settled()
        assert world.log.cleaned == []
        world.clock.advance(1)
        await settled()
        before = NOW + first_s - 7 * 86_400
        ((archived_before, dead_before),) = world.log.cleaned
        assert (archived_before, dead_before) == pytest.approx((before, before))
        assert world.log.retired == [["settle"]]
        world.log.away = True
        world.clock.advance(86_400)
        await settled()
        world.log.away = False
        world.clock.advance(86_400)
        await settled()
        assert len(world.log.cleaned) == 2


# -- the hour of the day -----------------------------------------------------------------------------------------------

NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("here", "hour", "hours"),
    [
        ("2026-09-21T01:00", 3, 2.0),
        ("2026-09-21T03:00", 3, 24.0),
        ("2026-09-21T03:01", 3, 24 - 1 / 60),
        ("2026-03-08T01:00", 3, 1.0),  # clocks go from 2 to 3 in between
        ("2026-03-07T03:00", 3, 23.0),
        ("2026-03-08T01:30", 2, 0.5),  # an hour that this day does not have: when it would have begun
        ("2026-03-08T03:00", 2, 23.0),
        ("2026-10-31T03:00", 3, 25.0),  # clocks go from 2 to 1 in between
        ("2026-11-01T00:30", 1, 0.5),  # an hour that this day has twice: the first
        ("2026-11-01T01:00", 1, 25.0),
        ("2026-11-01T00:30", 3, 3.5),
    ],
)
def test_the_hour_is_that_of_the_account_over_changes_of_its_clocks(here: str, hour: int, hours: float) -> None:
    now = datetime.fromisoformat(here).replace(tzinfo=NEW_YORK).timestamp()
    assert seconds_until(hour, now, settings(ACCOUNT_TIMEZONE="America/New_York")) == pytest.approx(hours * 3_600)


ZONED = {
    zone: settings(ACCOUNT_TIMEZONE=zone)
    for zone in ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu")
}


@given(
    now=st.floats(min_value=1_700_000_000, max_value=1_900_000_000, allow_nan=False),
    hour=st.integers(0, 23),
    zone=st.sampled_from(sorted(ZONED)),
)
def test_the_next_cleaning_is_always_ahead_within_a_day_and_an_hour_and_at_that_hour(
    now: float, hour: int, zone: str
) -> None:
    wait_s = seconds_until(hour, now, ZONED[zone])
    assert 1.0 <= wait_s <= 25 * 3_600 + 1
    then = datetime.fromtimestamp(now + wait_s, ZoneInfo(zone))
    # an hour that a day does not have is told as the one after it, in both
    meant = datetime(then.year, then.month, then.day, hour, tzinfo=ZoneInfo(zone))
    assert now + wait_s - 1.0 <= meant.timestamp() <= now + wait_s + 0.001


# -- composed ----------------------------------------------------------------------------------------------------------

REDIS = {"REDIS_URL": "redis://127.0.0.1:1"}
POSTGRES = {"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": "postgresql://127.0.0.1:1/x"}
KAFKA = {"EVENTS_TRANSPORT": "kafka", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"} | REDIS
OWN = {"REDIS_URL_GUILFORD": "redis://127.0.0.1:2"}


@pytest.mark.parametrize(
    ("variables", "logs", "kind", "way", "copies"),
    [
        ({}, {"events": ("stamford", "guilford")}, "MemoryEvents", AfterTheStore, False),
        (REDIS, {"events": ("stamford", "guilford")}, "RedisEvents", WithTheStore, True),
        (
            REDIS | OWN,
            {"events:stamford": ("stamford",), "events:guilford": ("guilford",)},
            "RedisEvents",
            WithTheStore,
            True,
        ),
        (POSTGRES, {"events": ("stamford", "guilford")}, "PostgresEvents", Elsewhere, True),
        (POSTGRES | REDIS | OWN, {"events": ("stamford", "guilford")}, "PostgresEvents", Elsewhere, True),
        (KAFKA, {"events": ("stamford", "guilford")}, "KafkaEvents", Elsewhere, True),
    ],
)
async def test_switching_the_transport_is_a_matter_of_settings(
    variables: dict[str, str], logs: dict[str, tuple[str, ...]], kind: str, way: type[Any], copies: bool
) -> None:
    app = build(settings(**variables), Overrides(clock=ManualClock(NOW)))
    assert {one.name: one.instances for one in app.events.logs} == logs
    assert {type(one.log).__name__ for one in app.events.logs} == {kind}
    assert {type(one) for one in app.event_side.ways.values()} == {way}
    assert (app.event_side.keeper is not None) is copies
    names = [consumer.name for consumer in app.event_side.consumers]
    assert names[:3] == ["settle", "warm", "notify"]
    del app
    gc.collect()


async def test_an_account_with_the_embedded_store_beside_one_with_a_redis_has_a_log_and_a_way_of_its_own() -> None:
    app = build(settings(REDIS_URL_GUILFORD="redis://127.0.0.1:2"), Overrides(clock=ManualClock(NOW)))
    assert {name: type(way) for name, way in app.event_side.ways.items()} == {
        "stamford": AfterTheStore,
        "guilford": WithTheStore,
    }
    assert app.event_side.keeper is not None


def test_routes_of_the_whole_server_name_settle_for_every_change() -> None:
    app = build(settings(), Overrides(clock=ManualClock(NOW)))
    routes: Routes = app.event_side.routes_of(event())
    assert routes["settle"] == NOW + app.settings.index_settle_s
    assert routes["notify"] == NOW
