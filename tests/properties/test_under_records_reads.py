"""Lists under a record show it as it was told to be, or newer, whatever it was in between.

Two processes over one store and a simulated account whose rows follow the records that they hang on, and whose index
lags. Jobs and their contact change to something else and back; what tells of it comes late, twice and in any order;
lists of several records and of whole kinds are read in between, everything is dropped, and the store is emptied.
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
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, Sort
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.simulator import Account, Simulator
from tests.support.reuse_world import SETTLE_S, SHOWN, ReuseWorld, bare, state_of

KINDS = (Entity.TASKS, Entity.ATTACHMENTS, Entity.ESTIMATES, Entity.ACTIVITIES)
JOBS = 2
FEW = 3

TOLD_WITHIN_S = 40.0
"""What is taken back later is told of by then."""


@pytest.fixture(scope="module")
def small() -> Account:
    account = copy.copy(Simulator(instances=("stamford",), clock=ManualClock()).account("stamford"))
    contact = next(account.records("jobs"))["primary"]["id"]
    jobs = [record["jnid"] for record in account.records("jobs") if record["primary"]["id"] == contact]
    while len(jobs) < JOBS:
        jobs.append(account.create("jobs", {"name": f"Roof {len(jobs)}", "primary": {"id": contact}})[0].record["jnid"])
    kept = {*jobs[:JOBS], contact}
    for kind in ("jobs", "contacts", "tasks", "estimates", "workorders", "invoices", "files", "activities"):
        for record in list(account.records(kind)):
            if record["jnid"] not in kept:
                account.delete(kind, record["jnid"])
    for record in list(account.records("activities")):  # those that the deletions were logged as
        account.delete("activities", record["jnid"])
    links = [{"id": jnid, "type": "job"} for jnid in jobs[:JOBS]] + [{"id": contact, "type": "contact"}]
    for at in range(FEW):
        for link in links:
            account.create("tasks", {"title": f"Task {at}", "related": [link]})
            account.create("estimates", {"status": 1, "items": [], "related": [link]})
            account.create("activities", {"note": f"Note {at}", "primary": link})
            account.create("files", {"filename": f"{at}.pdf", "type": 1, "primary": link, "related": [link]})
    return account


SLOTS = 10
DROPPED = ("all", "store", "kind")
PROCESS = st.sampled_from([0, 0, 0, 1])
MADE = st.one_of(
    st.tuples(st.sampled_from(["owners", "owners", "name", "status"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["task", "task", "entry", "other"]), st.integers(0, 1)),
)
"""What is changed, and to which of two values."""


class Run:
    """`shown`: of each record that others hang on what it was, and when that was told of. `untold`: when each change
    was made, in which slot it is told of, and of what."""

    def __init__(self, small: Account, data: st.DataObject) -> None:
        self.lag_s = data.draw(st.sampled_from([0.0, 0.0, 2.0, 6.0]), label="lag")
        self.world = ReuseWorld(small, lag_s=self.lag_s, living=True)
        account = self.world.account
        self.job, self.other = (record["jnid"] for record in account.records("jobs"))
        self.contact = next(account.records("contacts"))["jnid"]
        self.first = dict(account.find(self.job) or {})
        self.shown: dict[str, list[tuple[Any, float | None]]] = {
            jnid: [(state_of(account.find(jnid)), -1e9)] for jnid in (self.job, self.other, self.contact)
        }
        self.untold: list[tuple[float, int, str, int, Mapping[str, Any]]] = []
        self.last = self.world.clock.now() - 100
        tasks = [record for record in account.records("tasks") if record["related"][0]["id"] == self.job]
        self.task = tasks[0]["jnid"]
        self.record = Read.record(Entity.JOBS, self.job)
        self.unders = [
            Read.block(kind, (Is("related.id", jnid),), Sort(), 0, scope=frozenset({jnid}))
            for jnid in (self.job, self.other, self.contact)
            for kind in (*KINDS, *((Entity.JOBS,) if jnid == self.contact else ()))
        ]
        mine = self.unders[: len(KINDS)]
        self.reads = [
            mine[0],
            *mine,
            mine[0],
            *(read for read in self.unders if read.entity is Entity.TASKS),
            self.record,
            Read.record(Entity.TASKS, self.task),
            Read.scan(Entity.TASKS, ()),
            Read.scan(Entity.JOBS, ()),
            Read.block(Entity.ACTIVITIES, (), Sort(), 0),
        ]

    def change(self, what: str, value: int, *, told: int) -> None:
        account = self.world.account
        if what == "task":
            done = account.update("tasks", self.task, {"description": ("hail", "wind")[value]})
        elif what == "entry":
            done = account.create("activities", {"note": "Called", "primary": {"id": self.job}})
        elif what == "other":
            done = account.update("jobs", self.other, {"name": ("Roof", "Gutter")[value]})
        else:
            away = {"owners": [], "name": "Another", "status": 3}[what]
            done = account.update("jobs", self.job, {what: self.first[what] if value else away})
        for one in done:
            jnid, version = one.record["jnid"], -1
            if jnid in self.shown:
                self.shown[jnid].append((state_of(account.get("jobs", jnid)), None))
                version = len(self.shown[jnid]) - 1
            self.untold.append((self.world.clock.now(), told, jnid, version, one.record))
        self.last = self.world.clock.now()

    async def tell(self, slot: int = SLOTS + 9) -> None:
        """What is due, the last made first."""
        due = [one for one in self.untold if one[1] <= slot]
        self.untold = [one for one in self.untold if one[1] > slot]
        for _, _, jnid, version, record in reversed(due):
            await self.world.tell([record])
            if version >= 0:
                self.shown[jnid][version] = (self.shown[jnid][version][0], self.world.clock.now())
            self.last = self.world.clock.now()

    async def wait(self, seconds: float) -> None:
        late = [told for at, told, *_ in self.untold if self.world.clock.now() + seconds - at > TOLD_WITHIN_S]
        await self.tell(max(late, default=-1))
        await self.world.wait(seconds)
        await self.world.settle()

    async def drop(self, what: str) -> None:
        if what == "all":
            await self.world.renew()
        elif what == "kind":
            await self.world.bump(["tasks:list"])
        elif self.world.clock.now() - self.last > SETTLE_S:
            await self.world.flush()  # what was told a moment ago would be lost with it

    async def read(self, read: Read, process: int) -> None:
        began, asked = self.world.clock.now(), self.world.upstream.requests.copy()
        value, answer = await self.world.get(read, process=process)
        if answer.outcome.status is Status.STALE:
            return
        for jnid in () if value is None else read.scope:
            self._judge(jnid, value["rows"], began)  # type: ignore[index]  # not None
            if (
                answer.outcome.status is Status.MISS
                and not (self.world.upstream.requests - asked)[f"{read.entity}:block"]
            ):
                event("made of what was kept")
        if not self.untold and (self.lag_s == 0 or began - self.last >= SETTLE_S + 1):
            truth = self.world.truth(read)
            assert (None if value is None else bare(read, value)) == (None if truth is None else bare(read, truth))

    def _judge(self, jnid: str, rows: list[Any], began: float) -> None:
        until = began if self.lag_s == 0 else began - SETTLE_S - 1
        states = self.shown[jnid]
        known = max(at for at, (_, told_at) in enumerate(states) if told_at is not None and told_at <= until)
        possible = [state for state, _ in states[known:]]
        for row in rows:
            assert row[SHOWN].get(jnid) in possible


@given(st.data())
def test_no_list_under_a_record_shows_it_older_than_was_told(small: Account, data: st.DataObject) -> None:
    """What happens has times of its own: when it is made, and when that is told of."""
    one = Run(small, data)
    slots = st.integers(1, SLOTS - 1)
    changes = data.draw(st.lists(st.tuples(slots, st.integers(0, 4), MADE), min_size=1, max_size=5), label="changes")
    drops = dict(data.draw(st.lists(st.tuples(slots, st.sampled_from(DROPPED)), max_size=1), label="dropped"))

    async def run() -> None:
        await one.read(one.record, 0)
        await one.wait(SETTLE_S + 2)
        for slot in range(SLOTS):
            for at, told_after, (what, value) in changes:
                if at == slot:
                    one.change(what, value, told=slot + told_after)
            await one.tell(slot)
            if slot in drops:
                await one.drop(drops[slot])
            for read in data.draw(st.lists(st.sampled_from(one.reads), max_size=2), label="reads"):
                await one.read(read, data.draw(PROCESS, label="process"))
            await one.wait(data.draw(st.sampled_from([0.5, 2.0, 8.0, 70.0]), label="seconds"))
        await one.tell()
        for lately in (True, False):
            for read in one.reads[:2] if lately else one.unders:
                await one.read(read, 0)
            await one.world.wait(SETTLE_S + 1)

    asyncio.run(run())
