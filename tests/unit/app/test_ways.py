"""The ways of an event into its log: what each does when the log answers, may forget, or is away."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.app.changes import Way
from jobnimbus_mcp.app.keeping import Keeper
from jobnimbus_mcp.app.ways import AfterTheStore, Elsewhere, WithTheStore
from jobnimbus_mcp.cache.notice import Parcel
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.ports import EventsUnavailable, Routes

NOW = 1_790_000_000.0
ROUTES: Routes = {"settle": NOW + 6}
EVENT = Event(
    event_id=event_id_at(NOW, "0" * 20),
    instance="stamford",
    name="job.updated",
    entity="jobs",
    record_id="j1",
    action="updated",
    tags=("jobs:list",),
    source="webhook",
    received_at=NOW,
)


class Log(MemoryEvents):
    """`is_durable` None: it does not say."""

    def __init__(self) -> None:
        super().__init__(ManualClock(NOW), token="t")
        self.away = False
        self.is_durable: bool | None = False
        self.appended = 0

    async def append(self, event: Event, routes: Routes) -> bool:
        if self.away:
            raise EventsUnavailable("away")
        self.appended += 1
        return await super().append(event, routes)

    async def durable(self) -> bool:
        if self.is_durable is None:
            raise EventsUnavailable("away")
        return self.is_durable

    def parcel(self, event: Event, routes: Routes) -> tuple[list[str], list[str | bytes | int]]:
        return ["hash", "stream"], [b'{"v":1}', "body", 1_790_000_006_000]


class Copies(Keeper):
    """Only notes what it is asked for."""

    def __init__(self) -> None:
        self.shipped: list[tuple[Event, Routes]] = []
        self.guarded: list[tuple[Event, Routes]] = []
        self.backlog = self.full = False

    def waits(self, instance: str) -> bool:
        assert instance == "stamford"
        return self.backlog

    async def ship(self, event: Event, routes: Routes) -> None:
        self._taken(self.shipped, event, routes)

    async def guard(self, event: Event, routes: Routes) -> None:
        self._taken(self.guarded, event, routes)

    def _taken(self, where: list[tuple[Event, Routes]], event: Event, routes: Routes) -> None:
        if self.full:
            raise EventsUnavailable("no room")
        where.append((event, routes))


@pytest.mark.parametrize(("is_durable", "guards"), [(True, 0), (False, 1), (None, 1)])
async def test_beside_the_store_a_copy_is_kept_unless_the_log_is_known_to_forget_nothing(
    is_durable: bool | None, guards: int
) -> None:
    log, copies = Log(), Copies()
    log.is_durable = is_durable
    assert await WithTheStore(log, copies).appended(EVENT, ROUTES) is True
    assert copies.guarded == [(EVENT, ROUTES)] * guards
    assert (copies.shipped, log.appended) == ([], 0)


async def test_beside_the_store_an_event_that_may_be_forgotten_and_cannot_be_kept_is_not_promised() -> None:
    copies = Copies()
    copies.full = True
    with pytest.raises(EventsUnavailable):
        await WithTheStore(Log(), copies).appended(EVENT, ROUTES)


def test_what_the_store_appends_is_text_so_that_a_journal_can_keep_it() -> None:
    told = WithTheStore(Log(), Copies()).parcel(EVENT, ROUTES)
    assert told == Parcel(("hash", "stream"), ('{"v":1}', "body", "1790000006000"))


async def test_in_this_process_the_log_is_told_after_the_store_and_refuses_when_it_is_full() -> None:
    log = Log()
    way: Way = AfterTheStore(log)
    assert way.parcel(EVENT, ROUTES) is None
    assert await way.appended(EVENT, ROUTES) is True
    assert (await log.lag("stamford"))["settle"].delayed == 1
    log.away = True
    with pytest.raises(EventsUnavailable):
        await way.appended(EVENT, ROUTES)


@pytest.mark.parametrize(
    ("away", "backlog", "in_the_log", "appended", "shipped"),
    [
        (False, False, True, 1, 0),
        (True, False, False, 0, 1),
        (False, True, False, 0, 1),  # it must not overtake those that wait
        (True, True, False, 0, 1),
    ],
)
async def test_elsewhere_the_disk_is_the_way_while_the_log_is_away_and_until_the_backlog_is_gone(
    away: bool, backlog: bool, in_the_log: bool, appended: int, shipped: int
) -> None:
    log, copies = Log(), Copies()
    log.away, copies.backlog = away, backlog
    way: Way = Elsewhere(log, copies)
    assert way.parcel(EVENT, ROUTES) is None
    assert await way.appended(EVENT, ROUTES) is in_the_log
    assert log.appended == appended
    assert copies.shipped == [(EVENT, ROUTES)] * shipped
    assert copies.guarded == []


async def test_elsewhere_an_event_that_neither_log_nor_disk_takes_is_not_promised() -> None:
    log, copies = Log(), Copies()
    log.away = copies.full = True
    with pytest.raises(EventsUnavailable):
        await Elsewhere(log, copies).appended(EVENT, ROUTES)
