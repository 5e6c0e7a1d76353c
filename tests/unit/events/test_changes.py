"""Where changes meet the cache: what the store is told, and what becomes of what it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from jobnimbus_mcp.app.changes import AppendAndBump, CountedInvalidations
from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.cache.ports import StoreTimeout
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.relations import floors_of_change, tags_of_change
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.ports import Appended, Event
from jobnimbus_mcp.telemetry.tally import Tally

CHANGE = Change(EntityRef(Entity.JOBS, "j1"), Action.UPDATED, occurred_at=1_789_999_999)
EVENT = Event("evt_1", "stamford", "job.updated", CHANGE, tags_of_change(CHANGE), "webhook", 1_790_000_000.0, "d1")
NOTICE = Notice("job.updated", "jobs", "j1", "webhook", 1_790_000_000.0, "evt_1", "d1", floors=floors_of_change(CHANGE))


class Accounts:
    """The accounts' invalidations; `away` and `full` as the store and the journal may be."""

    def __init__(self) -> None:
        self.away = False
        self.full = False
        self.done: list[tuple[Any, ...]] = []

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        if self.away:
            raise StoreTimeout
        self.done.append(("told", tenant, tags, notice, notice.floors))
        return Applied("evt_0", True, 1.5, len(tags))

    async def defer(self, tenant: str, tags: Sequence[str], notice: Notice) -> bool:
        if not self.full:
            self.done.append(("deferred", tenant, tags, notice, notice.floors))
        return not self.full

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


def call() -> Call:
    return Call.begin(ManualClock(), "r")


async def test_the_store_is_told_of_the_event_its_tags_and_its_floors() -> None:
    accounts, tally = Accounts(), Tally()
    assert await AppendAndBump(accounts, tally)(EVENT, call()) == Appended("evt_0", True, 1.5)
    assert accounts.done == [("told", "stamford", EVENT.tags, NOTICE, floors_of_change(CHANGE))]
    assert floors_of_change(CHANGE)["jobs:j1"] == 1_789_999_999
    assert tally.since_start("stamford")["invalidations"] == 1


async def test_what_the_store_cannot_be_told_the_journal_takes_over_as_it_was() -> None:
    accounts, tally = Accounts(), Tally()
    accounts.away = True
    assert await AppendAndBump(accounts, tally)(EVENT, call()) == Appended("evt_1", False, 0.0, journalled=True)
    assert accounts.done == [("deferred", "stamford", EVENT.tags, NOTICE, floors_of_change(CHANGE))]
    assert tally.since_start("stamford")["invalidations"] == 1


async def test_without_a_journal_that_takes_it_the_store_is_unavailable() -> None:
    accounts, tally = Accounts(), Tally()
    accounts.away = accounts.full = True
    with pytest.raises(CacheUnavailable):
        await AppendAndBump(accounts, tally)(EVENT, call())
    assert tally.since_start("stamford") == {}


async def test_an_admins_invalidation_is_counted_and_never_deferred() -> None:
    accounts, tally = Accounts(), Tally()
    admins = CountedInvalidations(accounts, tally)
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
