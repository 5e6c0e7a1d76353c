"""Where changes meet the cache: what the store is told, and what becomes of what it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from jobnimbus_mcp.app.changes import AppendAndBump, CountedInvalidations
from jobnimbus_mcp.cache.notice import Applied, Notice, Parcel
from jobnimbus_mcp.cache.ports import StoreTimeout
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.relations import floors_of_change, tags_of_change
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import Appended, EventsUnavailable, Routes
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.telemetry.tally import Tally

CHANGE = Change(EntityRef(Entity.JOBS, "j1"), Action.UPDATED, occurred_at=1_789_999_999)
EVENT = Event.of_change(
    CHANGE,
    event_id="evt_1",
    instance="stamford",
    name="job.updated",
    tags=tags_of_change(CHANGE),
    source="webhook",
    received_at=1_790_000_000.0,
    dedupe_key="d1",
    version_key="v1",
)
PARCEL = Parcel(("hash", "stream", "due"), ("e", "b", "to", "1790000000000"))
NOTICE = Notice(
    "job.updated",
    "jobs",
    "j1",
    "webhook",
    1_790_000_000.0,
    "evt_1",
    "d1",
    floors=floors_of_change(CHANGE),
    version_key="v1",
    parcel=PARCEL,
)


class Way:
    """An event's way into its log: `parcelled` when the store appends it; `lost` when it can be kept nowhere."""

    def __init__(self, *, parcelled: bool = True) -> None:
        self.parcelled = parcelled
        self.logged = True
        self.lost = False
        self.appends: list[tuple[str, Routes]] = []

    def parcel(self, event: Event, routes: Routes) -> Parcel | None:
        return PARCEL if self.parcelled else None

    async def appended(self, event: Event, routes: Routes) -> bool:
        if self.lost:
            raise EventsUnavailable("no room")
        self.appends.append((event.event_id, routes))
        return self.logged


class Accounts:
    """The accounts' invalidations; `away` and `full` as the store and the journal may be."""

    def __init__(self) -> None:
        self.away = False
        self.full = False
        self.done: list[tuple[Any, ...]] = []
        self.waits: list[str] = []

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        if self.away:
            raise StoreTimeout
        self.done.append(("told", tenant, tags, notice, notice.floors))
        return Applied("evt_0", True, 1.5, len(tags))

    async def defer(self, tenant: str, tags: Sequence[str], notice: Notice) -> bool:
        if not self.full:
            self.done.append(("deferred", tenant, tags, notice, notice.floors))
        return not self.full

    async def caught_up(self, tenant: str, within_s: float) -> None:
        self.waits.append(tenant)

    async def renew_epoch(self, tenant: str, call: Call, *, reason: str) -> None:
        self.done.append(("renewed", tenant))

    async def invalidate_pattern(self, tenant: str, pattern: str, notice: Notice, call: Call) -> int:
        return 3

    async def recent(
        self, tenant: str, *, limit: int, since: float | None, call: Call | None = None
    ) -> list[dict[str, Any]]:
        return [{"eventId": "evt_0"}]

    async def rates(self, tenant: str, hours: int = 24, *, call: Call | None = None) -> dict[str, Any]:
        return {"total": hours}


def appending(accounts: Accounts, tally: Tally, way: Way | None = None) -> AppendAndBump:
    ways = {"stamford": way or Way()}
    return AppendAndBump(
        accounts, ways, lambda event: {"settle": event.received_at + 6}, tally=tally, recorder=InMemoryRecorder()
    )


def call() -> Call:
    return Call.begin(ManualClock(), "r")


async def test_the_store_is_told_of_the_event_its_tags_and_its_floors() -> None:
    accounts, tally = Accounts(), Tally()
    assert await appending(accounts, tally)(EVENT, call()) == Appended("evt_0", True, 1.5)
    assert accounts.done == [("told", "stamford", EVENT.tags, NOTICE, floors_of_change(CHANGE))]
    assert floors_of_change(CHANGE)["jobs:j1"] == 1_789_999_999
    assert tally.since_start("stamford")["invalidations"] == 1


async def test_what_the_store_cannot_be_told_the_journal_takes_over_as_it_was() -> None:
    accounts, tally = Accounts(), Tally()
    accounts.away = True
    assert await appending(accounts, tally)(EVENT, call()) == Appended("evt_1", False, 0.0, journalled=True)
    assert accounts.done == [("deferred", "stamford", EVENT.tags, NOTICE, floors_of_change(CHANGE))]
    assert tally.since_start("stamford")["invalidations"] == 1


async def test_without_a_journal_that_takes_it_the_store_is_unavailable() -> None:
    accounts, tally = Accounts(), Tally()
    accounts.away = accounts.full = True
    with pytest.raises(CacheUnavailable):
        await appending(accounts, tally)(EVENT, call())
    assert tally.since_start("stamford") == {}


async def test_an_admins_invalidation_is_counted_and_never_deferred() -> None:
    accounts, tally = Accounts(), Tally()
    way = Way()
    admins = CountedInvalidations(accounts, tally, appending(accounts, tally, way), lambda: "evt_9")
    await admins.append_and_bump("stamford", ("jobs",), NOTICE, call())
    assert await admins.invalidate_pattern("stamford", pattern="*", notice=NOTICE, call=call()) == 3
    assert tally.since_start("stamford")["invalidations"] == 2
    await admins.renew_epoch("stamford", call(), reason="admin")
    assert (await admins.recent("stamford", limit=1, since=None, call=call()), await admins.rates("stamford", 5)) == (
        [{"eventId": "evt_0"}],
        {"total": 5},
    )
    accounts.away = True
    with pytest.raises(CacheUnavailable):
        await admins.append_and_bump("stamford", ("jobs",), NOTICE, call())
    assert [done[0] for done in accounts.done] == ["told", "renewed"]
    assert [event_id for event_id, _ in way.appends] == ["evt_0"]


async def test_the_event_goes_into_its_log_once_the_invalidation_holds_under_the_first_ones_id() -> None:
    way = Way()
    await appending(Accounts(), Tally(), way)(EVENT, call())
    assert way.appends == [("evt_0", {"settle": 1_790_000_006.0})]


async def test_an_event_that_waits_on_the_disk_for_its_log_is_journalled() -> None:
    way = Way(parcelled=False)
    way.logged = False
    appended = await appending(Accounts(), Tally(), way)(EVENT, call())
    assert appended == Appended("evt_0", True, 1.5, journalled=True)


async def test_an_event_that_can_be_kept_nowhere_is_refused() -> None:
    way = Way(parcelled=False)
    way.lost = True
    with pytest.raises(EventsUnavailable):
        await appending(Accounts(), Tally(), way)(EVENT, call())


@pytest.mark.parametrize("parcelled", [True, False])
async def test_with_the_store_away_the_journal_has_the_event_or_its_log_is_told_besides(parcelled: bool) -> None:
    accounts, way = Accounts(), Way(parcelled=parcelled)
    accounts.away = True
    appended = await appending(accounts, Tally(), way)(EVENT, call())
    assert appended.journalled
    assert [event_id for event_id, _ in way.appends] == ([] if parcelled else ["evt_1"])


async def test_an_event_waits_for_those_in_the_journal_and_its_sender_for_it_when_it_went_there() -> None:
    accounts = Accounts()
    await appending(accounts, Tally())(EVENT, call())
    assert accounts.waits == ["stamford"]
    accounts.away = True
    await appending(accounts, Tally())(EVENT, call())
    assert accounts.waits == ["stamford"] * 3
