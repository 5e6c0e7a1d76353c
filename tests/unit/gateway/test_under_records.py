"""Lists under a record that changes: what may go on, where changes are taken back, told late, or in another order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, Sort
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.simulator import Account, Simulator
from tests.support.reuse_world import SETTLE_S, ReuseWorld, bare

LATER_S = 100.0
"""So much that a change of before would have been told of."""

WHOLE = Read.scan(Entity.TASKS, ())


@pytest.fixture(scope="module")
def seeded() -> Account:
    account = Simulator(instances=("stamford",), clock=ManualClock()).account("stamford")
    for kind in ("tasks", "activities"):
        for record in list(account.records(kind)):
            account.delete(kind, record["jnid"])
    for record in list(account.records("activities")):
        account.delete("activities", record["jnid"])
    job = next(account.records("jobs"))
    for title in ("Call", "Measure"):
        account.create("tasks", {"title": title, "related": [{"id": job["jnid"], "type": "job"}]})
    return account


class Under:
    """A job, its tasks, and rows that show of it what it is now."""

    def __init__(self, seeded: Account, lag_s: float = 0.0) -> None:
        self.world = ReuseWorld(seeded, lag_s=lag_s, living=True)
        self.job = next(self.world.account.records("jobs"))
        self.jnid = self.job["jnid"]
        self.tasks = Read.block(Entity.TASKS, (Is("related.id", self.jnid),), Sort(), 0, scope=frozenset({self.jnid}))
        self.record = Read.record(Entity.JOBS, self.jnid)

    def task(self, at: int = 0) -> str:
        return str([record["jnid"] for record in self.world.account.records("tasks")][at])

    def change(self, **fields: Any) -> Mapping[str, Any]:
        return self.world.account.update("jobs", self.jnid, fields)[0].record

    def back(self) -> Mapping[str, Any]:
        return self.change(owners=self.job["owners"], name=self.job["name"])

    def change_task(self, title: str, at: int = 0) -> Mapping[str, Any]:
        return self.world.account.update("tasks", self.task(at), {"title": title})[0].record

    async def agrees(self, read: Read | None = None, process: int = 0) -> bool:
        asked = read or self.tasks
        value, _ = await self.world.get(asked, process=process)
        truth = self.world.truth(asked)
        assert value is not None
        assert truth is not None
        return bare(asked, value) == bare(asked, truth)

    async def seen_before(self) -> None:
        """The job is seen, and the index has caught up with whatever had changed by then."""
        await self.world.get(self.record)
        await self.world.wait(SETTLE_S + 2)


AWAY = {"owners": []}


async def test_a_change_from_before_the_list_told_of_after_it_counts_when_it_is_taken_back_much_later(
    seeded: Account,
) -> None:
    under = Under(seeded)
    await under.seen_before()
    there = under.change(**AWAY)
    await under.world.wait(1)
    await under.world.get(under.tasks)
    await under.world.wait(1)
    await under.world.tell([there])
    await under.world.wait(LATER_S)
    await under.world.tell([under.back()])

    assert await under.agrees()


async def test_a_change_that_is_told_of_before_the_one_it_takes_back_is_not_taken_for_none(seeded: Account) -> None:
    under = Under(seeded)
    await under.seen_before()
    there = under.change(**AWAY)
    await under.world.wait(1)
    await under.world.get(under.tasks)
    back = under.back()
    await under.world.tell([back])

    assert await under.agrees()
    await under.world.tell([there])
    assert await under.agrees()


async def test_a_list_that_was_fetched_right_before_a_change_goes_on_once_no_other_can_be_on_its_way(
    seeded: Account,
) -> None:
    under = Under(seeded)
    await under.seen_before()
    await under.world.get(under.tasks)
    await under.world.wait(1)
    await under.world.tell([under.change(status=3)])
    await under.world.wait(LATER_S)

    asked = under.world.upstream.requests["tasks:block"]
    assert await under.agrees()
    assert under.world.upstream.requests["tasks:block"] == asked


@pytest.mark.parametrize("fields", [AWAY, {"name": "Another"}])
async def test_a_row_that_was_read_while_the_record_was_another_is_read_again(
    seeded: Account, fields: dict[str, Any]
) -> None:
    under = Under(seeded)
    await under.seen_before()
    await under.world.get(under.tasks)
    await under.world.wait(LATER_S)
    await under.world.tell([under.change(**fields)])
    await under.world.tell([under.change_task("Another title")])
    await under.world.get(Read.record(Entity.TASKS, under.task()))
    await under.world.wait(LATER_S)
    await under.world.tell([under.back()])

    assert await under.agrees()


async def test_a_row_that_was_put_in_while_the_record_was_another_is_not_shown_for_ever(seeded: Account) -> None:
    """By then nobody had been told that it was."""
    under = Under(seeded)
    await under.seen_before()
    await under.world.get(under.tasks)
    await under.world.wait(LATER_S)
    there = under.change(**AWAY)
    await under.world.tell([under.change_task("Another title")])
    await under.world.get(under.tasks)
    await under.world.tell([there])
    await under.world.wait(LATER_S)
    await under.world.tell([under.back()])

    assert await under.agrees()


async def test_a_row_that_was_put_into_the_whole_kind_while_the_record_was_another_is_not_cut_out_of_it(
    seeded: Account,
) -> None:
    under = Under(seeded)
    await under.seen_before()
    await under.world.get(WHOLE)
    await under.world.wait(LATER_S)
    await under.world.tell([under.change_task("Another title")])
    await under.world.tell([under.change(**AWAY)])
    await under.world.get(WHOLE)
    await under.world.wait(LATER_S)
    await under.world.tell([under.back()])

    assert await under.agrees()


async def test_what_was_seen_before_the_store_was_emptied_counts_for_nothing_after(seeded: Account) -> None:
    under = Under(seeded)
    await under.seen_before()
    await under.world.tell([under.change(**AWAY)])
    await under.world.wait(LATER_S)
    await under.world.flush()
    await under.world.get(under.tasks)
    await under.world.wait(LATER_S)
    await under.world.tell([under.back()])

    assert await under.agrees()


async def test_a_list_read_while_the_index_lags_shows_the_record_as_it_is_once_it_has_caught_up(
    seeded: Account,
) -> None:
    under = Under(seeded, lag_s=SETTLE_S)
    await under.seen_before()
    there = under.change(**AWAY)
    await under.world.wait(2)
    back = under.back()
    await under.world.tell([back, under.change_task("Another title")])
    await under.world.wait(5)
    value, _ = await under.world.get(under.tasks)
    assert value is not None
    assert "Another title" in [row["title"] for row in value["rows"]]
    await under.world.wait(SETTLE_S + 1)

    assert await under.agrees()
    await under.world.tell([there])
    assert await under.agrees()


async def test_a_record_that_was_deleted_leaves_no_list_as_it_was(seeded: Account) -> None:
    under = Under(seeded)
    await under.seen_before()
    await under.world.get(under.tasks)
    await under.world.wait(LATER_S)
    await under.world.tell([under.world.account.delete("jobs", under.jnid)[0].record])

    assert await under.agrees()
