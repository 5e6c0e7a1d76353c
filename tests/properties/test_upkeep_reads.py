"""Whatever loads are put together from, a read that starts after a change was told of is not older than it.

Two processes over one store and a simulated account whose index lags. Changes, their webhooks, the second renewal, time
and reads come in any order. A record by its id is what JobNimbus has, always; a list is, once the index has had its
time, and at once where there is no lag; and never does a list show a record older than was told, unless it says so.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.outcome import Status
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.catalog import CATALOG
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Between, Is, Not, Sort, Where, Word
from jobnimbus_mcp.crm.reads import Operation, Read, Shape
from jobnimbus_mcp.simulator import Account, Simulator
from tests.support.reuse_world import NAMES, SETTLE_S, ReuseWorld, bare

CHANGED = (Entity.JOBS, Entity.TASKS, Entity.ESTIMATES, Entity.ATTACHMENTS, Entity.ACTIVITIES, Entity.CONTACTS)
FEW = 6


@pytest.fixture(scope="module")
def small() -> Account:
    few = copy.copy(Simulator(instances=("stamford",), clock=ManualClock()).account("stamford"))
    for kind in ("jobs", "contacts", "tasks", "estimates", "workorders", "invoices", "files", "activities"):
        for record in list(few.records(kind))[FEW:]:
            few.delete(kind, record["jnid"])
    for record in list(few.records("activities"))[FEW:]:  # those that the deletions were logged as
        few.delete("activities", record["jnid"])
    return few


def reads_of(account: Account) -> list[Read]:
    """What agents ask of an account: boards, searches, what hangs on a job, single records, the calendar."""
    jobs = list(account.records("jobs"))
    first, second = jobs[0]["jnid"], jobs[1]["jnid"]
    linked = sorted(
        {link["id"] for kind in ("tasks", "files") for row in account.records(kind) for link in row["related"]}
    )
    made = [
        Read.scan(Entity.JOBS, ()),
        Read.scan(Entity.JOBS, (Is("status", jobs[0]["status"]),)),
        Read.scan(Entity.JOBS, (Word("roof", ("name",)),), operation=Operation.SEARCH),
        Read.scan(Entity.CALENDAR, (Between("date_start", 1, 2_000_000_000),), sort=Sort("date_start", False)),
        Read.record(Entity.JOBS, first),
        Read.record(Entity.JOBS, second),
    ]
    for sort in (Sort(), Sort("date_updated")):
        made += [Read.block(Entity.JOBS, (), sort, 0, size) for size in (3, 100)]
        made += [Read.block(kind, (), sort, 0) for kind in CHANGED]
    for kind in (Entity.TASKS, Entity.ATTACHMENTS, Entity.ACTIVITIES, Entity.ESTIMATES):
        for jnid in (first, linked[0], linked[-1]):
            where: Where = (Is("related.id", jnid),)
            made.append(Read.block(kind, where, Sort(), 0, scope=frozenset({jnid})))
        made.append(Read.record(kind, next(account.records(NAMES.get(kind, kind.value)))["jnid"]))
    made.append(Read.block(Entity.TASKS, (Not(Is("is_completed", True)),), Sort(), 0))
    return made


EDITS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.integers(0, 12),
        "name": st.sampled_from(["Roof", "Gutter"]),
        "title": st.sampled_from(["Roof", "Gutter"]),
        "is_completed": st.booleans(),
        "date_start": st.sampled_from([0, 1_790_000_000, 1_790_000_000_000]),
        "description": st.sampled_from(["hail", "wind"]),
    },
)


class Run:
    def __init__(self, small: Account, data: st.DataObject) -> None:
        self.data = data
        self.lag_s = data.draw(st.sampled_from([0.0, 2.0, 6.0]), label="lag")
        self.world = ReuseWorld(small, lag_s=self.lag_s)
        self.reads = reads_of(self.world.account)
        self.untold: list[Mapping[str, Any]] = []
        self.last = self.world.clock.now() - 100
        self.told: dict[str, int] = {}

    def change(self) -> None:
        account, data = self.world.account, self.data
        entity = data.draw(st.sampled_from(CHANGED), label="kind")
        kind = NAMES.get(entity, entity.value)
        live = sorted(record["jnid"] for record in account.records(kind))
        action = data.draw(st.sampled_from(["create", "update", "update", "delete"]), label="action")
        if not live:
            return
        jnid = data.draw(st.sampled_from(live), label="record")
        fields = data.draw(EDITS, label="edits")
        if action == "create":
            unlike = {"jnid", "recid", "number", "date_updated", "date_created"}
            old = account.get(kind, jnid) or {}
            done = account.create(kind, {name: value for name, value in old.items() if name not in unlike} | fields)
        elif action == "update":
            done = account.update(kind, jnid, fields)
        else:
            done = account.delete(kind, jnid)
        self.untold += [one.record for one in done]
        self.last = self.world.clock.now()

    async def tell(self) -> None:
        await self.world.tell(self.untold)
        if self.untold:
            self.last = self.world.clock.now()
        for record in self.untold:
            self.told[record["jnid"]] = max(self.told.get(record["jnid"], 0), record["date_updated"])
        self.untold = []

    async def read(self) -> None:
        read = self.data.draw(st.sampled_from(self.reads), label="read")
        process = self.data.draw(st.integers(0, 1), label="process")
        max_age_s = self.data.draw(st.sampled_from([None, None, None, 0, 30]), label="at most so old")
        asked_at = self.world.clock.now()
        value, answer = await self.world.get(read, process=process, max_age_s=max_age_s)
        labelled = answer.outcome.status is Status.STALE
        if max_age_s is not None:
            assert asked_at - answer.outcome.fetched_at <= max_age_s
        for row in () if value is None or labelled else value.get("rows", [value]):
            assert row["date_updated"] >= self.told.get(row["jnid"], 0)
        by_id = read.shape is Shape.RECORD and CATALOG[read.entity].has_detail
        settled = self.lag_s == 0 or by_id or self.world.clock.now() - self.last >= SETTLE_S + 1
        if settled and not self.untold:
            truth = self.world.truth(read)
            assert not labelled
            assert (None if value is None else bare(read, value)) == (None if truth is None else bare(read, truth))


@given(st.data())
def test_no_read_is_older_than_what_was_told_and_all_agree_when_the_index_has_settled(
    small: Account, data: st.DataObject
) -> None:
    async def run() -> None:
        one = Run(small, data)
        for _ in range(data.draw(st.integers(5, 30), label="steps")):
            match data.draw(st.sampled_from(["read", "read", "read", "change", "tell", "tell", "wait", "settle"])):
                case "read":
                    await one.read()
                case "change":
                    one.change()
                    if data.draw(st.booleans(), label="told at once"):
                        await one.tell()
                case "tell":
                    await one.tell()
                case "wait":
                    await one.world.wait(data.draw(st.sampled_from([0.2, 1.0, 3.0, 7.0, 7.0, 200.0])))
                case "settle":
                    await one.world.settle()
        await one.tell()
        await one.world.wait(SETTLE_S + 1)
        for _ in range(6):
            await one.read()
        for kind in ("repaired", "narrowed", "widened", "together", "detail_from_list", "full"):
            if one.world.reuses(kind):
                event(kind)

    asyncio.run(run())
