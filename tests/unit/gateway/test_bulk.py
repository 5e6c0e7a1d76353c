"""Bulk: many writes in one run, each carried out once, however often the run is cut short."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from writes_world import CALLER, AwayReceipts, World

from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Link, Write
from jobnimbus_mcp.errors import CacheUnavailable, InvalidInput
from jobnimbus_mcp.gateway.bulk import ROWS_MOST, Bulk, BulkReport, Refusal, Row, RowEnd, RowOutcome
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.orders import RecordOrder
from jobnimbus_mcp.gateway.receipts import Owner

OWNER = Owner(CALLER.instance, CALLER.partition)


def task(number: int, **fields: Any) -> Write:
    made = {"title": f"Call {number}", "date_start": 1_790_000_000, "record_type_name": "Call", **fields}
    return Write(Entity.TASKS, Action.CREATED, fields=made, links=(Link("mjob1", Entity.JOBS),))


def rows(number: int) -> list[Row]:
    return [task(row) for row in range(number)]


class Running:
    """A world, and runs in it."""

    def __init__(self) -> None:
        self.world = World()
        self.world.jobnimbus.put(Entity.JOBS, "mjob1", name="Whitfield", type="job")
        self.told: list[tuple[int, int, str]] = []
        self.told_at: list[float] = []
        self.bulk = Bulk(self.world.writes, self.world.memory, clock=self.world.clock)

    @property
    def jobnimbus(self) -> Any:
        return self.world.jobnimbus

    async def report(self, done: int, total: int, text: str) -> None:
        self.told.append((done, total, text))
        self.told_at.append(self.world.clock.monotonic())

    async def run(self, rows: list[Row], bulk_id: str = "run", within_s: float = 240.0) -> BulkReport:
        return await self.world.driven(
            self.bulk.run(
                rows,
                bulk_id=bulk_id,
                caller=CALLER,
                call=self.world.call(),
                report=self.report,
                stop_at=self.world.clock.monotonic() + within_s,
            )
        )

    async def resume(self, bulk_id: str = "run", within_s: float = 240.0, caller: Caller = CALLER) -> BulkReport:
        return await self.world.driven(
            self.bulk.resume(
                bulk_id,
                caller=caller,
                call=self.world.call(),
                report=self.report,
                stop_at=self.world.clock.monotonic() + within_s,
            )
        )


@pytest.fixture
def running() -> Running:
    return Running()


def ends(report: BulkReport) -> list[str]:
    return [row.outcome.value for row in report.rows]


async def test_each_row_tells_what_came_of_it(running: Running) -> None:
    running.jobnimbus.put(Entity.JOBS, "mjob2", name="Okafor", type="job")
    given_rows: list[Row] = [
        task(0),
        Write(Entity.JOBS, Action.UPDATED, "mjob1", {"name": "Whitfield - Roof"}),
        Write(Entity.JOBS, Action.UPDATED, "mjob2", {"name": "Okafor"}),
        Write(Entity.JOBS, Action.DELETED, "mjob2"),
        Write(Entity.TASKS, Action.CREATED, fields={"title": "x"}),
        Refusal("invalid_argument", "This account has no status of that name.", "status"),
        Write(Entity.JOBS, Action.UPDATED, "gone", {"name": "x"}),
    ]
    running.bulk = Bulk(running.world.writes, running.world.memory, clock=running.world.clock, parallel=1)
    report = await running.run(given_rows)

    same = "The record was so already; nothing was sent."
    assert report.rows[:4] == (
        RowOutcome(0, RowEnd.CREATED, "tasks1"),
        RowOutcome(1, RowEnd.UPDATED, "mjob1"),
        RowOutcome(2, RowEnd.UNCHANGED, "mjob2", message=same),
        RowOutcome(3, RowEnd.DELETED, "mjob2"),
    )
    assert [(row.outcome, row.code, row.field) for row in report.rows[4:]] == [
        (RowEnd.FAILED, "invalid_argument", "date_start"),
        (RowEnd.FAILED, "invalid_argument", "status"),
        (RowEnd.FAILED, "not_found", None),
    ]
    assert report.counts == {"created": 1, "updated": 1, "deleted": 1, "unchanged": 1, "failed": 3}
    assert (report.bulk_id, report.stopped, report.resumable) == ("run", "", False)


@pytest.mark.parametrize(
    ("number", "lag_s", "within_s", "ends_after_s", "shown"),
    [
        (8, 3.0, 240.0, 3.0, 8),
        # as few as are put into kept lists one by one
        (5, 3.0, 240.0, 0.0, 0),
        # no time is left
        (8, 3.0, 1.0, 0.0, 0),
        # they never show it
        (8, 60.0, 240.0, 6.0, 0),
    ],
)
async def test_a_run_ends_when_the_lists_show_its_last_rows(
    running: Running, number: int, lag_s: float, within_s: float, ends_after_s: float, shown: int
) -> None:
    running.jobnimbus.lag_s = lag_s
    began = running.world.clock.monotonic()
    report = await running.run(rows(number), within_s=within_s)

    assert report.counts == {"created": number}
    assert running.world.clock.monotonic() - began == pytest.approx(ends_after_s, abs=0.5)
    every = Read.scan(Entity.TASKS, ())
    told = await running.jobnimbus.load(every, instance="", credential="", call=running.world.call())
    assert len(told["rows"]) == shown


async def test_four_at_once_in_order(running: Running) -> None:
    running.jobnimbus.slow_s = 1.0
    most = 0
    inner = running.world.writes.write
    at_it = 0

    async def write(*args: Any, **named: Any) -> Any:
        nonlocal at_it, most
        at_it += 1
        most = max(most, at_it)
        try:
            return await inner(*args, **named)
        finally:
            at_it -= 1

    running.world.writes.write = write  # type: ignore[method-assign]  # counts who is at it
    report = await running.run(rows(10))

    assert (most, running.world.clock.monotonic()) == (4, 3.0)
    assert [write.fields["title"] for write in running.jobnimbus.sent] == [f"Call {row}" for row in range(10)]
    assert report.counts == {"created": 10}


async def test_progress_is_told_twice_a_second_at_most_and_at_the_end(running: Running) -> None:
    running.jobnimbus.slow_s = 0.25
    await running.run(rows(20))

    assert running.told[-1] == (20, 20, "20 of 20 rows")
    pauses = [later - sooner for sooner, later in zip(running.told_at, running.told_at[1:-1], strict=False)]
    assert pauses
    assert min(pauses) >= 0.5


async def test_a_run_that_is_repeated_or_resumed_does_nothing_twice(running: Running) -> None:
    first = await running.run(rows(5))
    again, resumed = await running.run(rows(5)), await running.resume()

    assert len(running.jobnimbus.sent) == 5
    assert [row.jnid for row in first.rows] == [row.jnid for row in again.rows] == [row.jnid for row in resumed.rows]
    assert all(row.replayed and row.outcome is RowEnd.CREATED for row in (*again.rows, *resumed.rows))
    assert running.jobnimbus.loads == []  # what was done is not read again, row by row


async def test_when_its_time_is_over_the_rest_waits_to_be_resumed(running: Running) -> None:
    running.jobnimbus.slow_s = 1.0
    report = await running.run(rows(10), within_s=1.5)
    assert ends(report) == ["created"] * 8 + ["not_tried"] * 2
    assert report.resumable

    running.told.clear()
    resumed = await running.resume()
    assert ends(resumed) == ["created"] * 10
    assert len(running.jobnimbus.sent) == 10
    assert running.told[-1] == (10, 10, "10 of 10 rows")


@pytest.mark.parametrize("fate", ["429", "budget"])
async def test_a_used_up_budget_is_waited_for(running: Running, fate: str) -> None:
    running.jobnimbus.script.extend([fate] * 6)
    report = await running.run(rows(4))

    assert ends(report) == ["created"] * 4
    assert len(running.jobnimbus.of(Entity.TASKS)) == 4


async def test_what_is_waited_for_too_long_was_not_tried(running: Running) -> None:
    running.jobnimbus.script.extend(["429"] * 100)
    report = await running.run(rows(2), within_s=3.0)

    assert ends(report) == ["not_tried"] * 2
    assert running.world.clock.monotonic() <= 3.25


@pytest.mark.parametrize(("fate", "code"), [("401", "upstream_unauthorized"), ("403", "upstream_forbidden")])
async def test_a_refused_credential_stops_the_run(running: Running, fate: str, code: str) -> None:
    running.bulk = Bulk(running.world.writes, running.world.memory, clock=running.world.clock, parallel=1)
    running.jobnimbus.script.extend(["ok", fate])
    report = await running.run(rows(4))

    assert ends(report) == ["created", "failed", "not_tried", "not_tried"]
    assert (report.stopped, report.rows[1].code) == (code, code)


async def test_a_row_of_unknown_end_is_looked_for_when_the_run_is_resumed(running: Running) -> None:
    running.jobnimbus.lag_s = 60.0
    running.jobnimbus.script.append("lost")
    report = await running.run(rows(1))
    assert ends(report) == ["unknown"]
    assert (report.rows[0].code, report.resumable) == ("write_outcome_unknown", True)

    running.jobnimbus.lag_s = 0.0
    resumed = await running.resume()
    assert ends(resumed) == ["created"]
    assert len(running.jobnimbus.of(Entity.TASKS)) == 1


async def test_two_who_run_the_same_at_once_share_the_work(running: Running) -> None:
    running.jobnimbus.slow_s = 1.0
    both = await asyncio.gather(running.run(rows(8)), running.run(rows(8)))

    assert [ends(report) for report in both] == [["created"] * 8] * 2
    assert len(running.jobnimbus.of(Entity.TASKS)) == 8


async def died_with(running: Running, writes: Sequence[Write], numbers: Iterable[int]) -> None:
    """These rows are in the hands of a process that is no more, for 34 s."""
    for number in numbers:
        fingerprint = RecordOrder(writes[number]).fingerprint
        now = running.world.clock.now()
        await running.world.memory.begin(OWNER, f"bulk:run:{number}", fingerprint, now, lease_s=34.0)


async def test_rows_in_the_hands_of_the_dead_are_of_unknown_end_and_keep_nobody_from_the_rest(running: Running) -> None:
    writes = [task(row) for row in range(20)]
    await died_with(running, writes, range(4, 8))
    for number in (4, 6):  # these had arrived
        running.jobnimbus._act(writes[number], None)
    report = await running.run(list(writes), within_s=4.0)  # shorter than the pause of who waits for them
    assert ends(report) == ["created"] * 4 + ["unknown"] * 4 + ["created"] * 12
    assert {row.code for row in report.rows[4:8]} == {"write_in_progress"}
    assert all("resume the run" in row.message for row in report.rows[4:8])
    assert (report.resumable, running.told[-1][:2]) == (True, (16, 20))

    resumed = await running.resume(within_s=60.0)
    assert (ends(resumed), resumed.resumable) == (["created"] * 20, False)
    titles = sorted(row["title"] for row in running.jobnimbus.of(Entity.TASKS))
    assert titles == sorted(f"Call {row}" for row in range(20))


@pytest.mark.parametrize("same_words", [False, True])
async def test_what_never_left_the_dead_is_sent_though_it_is_much_like_what_did(
    running: Running, same_words: bool
) -> None:
    """Rows of a run differ by little: what one of them has made is not what another may have made, and as soon as it is
    known whose each record is, the others are certain not to be there."""
    writes = [task(0 if same_words else row) for row in range(6)]
    for number in (0, 2, 3):
        await running.world.write(writes[number], f"bulk:run:{number}")
    await died_with(running, writes, [1, 4])
    running.jobnimbus._act(writes[4], None)
    running.world.clock.advance(60.0)
    running.bulk = Bulk(running.world.another(), running.world.memory, clock=running.world.clock)
    first = await running.run(list(writes))
    assert set(ends(first)) <= {"created", "unknown"}
    assert ends(first)[4] == "created"
    report = await running.resume()

    assert (ends(report), report.resumable) == (["created"] * 6, False)
    made = {row["jnid"]: row["title"] for row in running.jobnimbus.of(Entity.TASKS)}
    assert {row.jnid: writes[row.row].fields["title"] for row in report.rows} == made
    assert len(made) == 6


async def test_a_row_that_waits_for_the_turn_of_its_document_was_not_tried(running: Running) -> None:
    running.jobnimbus.put(Entity.PRODUCTS, "mprd1", name="Shingle", description="-", uoms=[])
    turn = Owner(CALLER.instance, "turns")
    await running.world.memory.begin(turn, "products:mprd1", "turns", running.world.clock.now(), lease_s=60.0)
    report = await running.run([Write(Entity.PRODUCTS, Action.UPDATED, "mprd1", {"name": "Tile"})], within_s=30.0)

    assert (ends(report), running.jobnimbus.sent) == (["not_tried"], [])


async def test_the_rows_of_an_id_do_not_change(running: Running) -> None:
    await running.run(rows(2))
    with pytest.raises(InvalidInput) as refused:
        await running.run(rows(3))

    assert refused.value.field == "bulk_id"
    assert len(running.jobnimbus.sent) == 2


@pytest.mark.parametrize("number", [0, ROWS_MOST + 1])
async def test_a_run_has_rows_and_not_too_many(running: Running, number: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        await running.run(rows(number))
    assert (refused.value.field, running.jobnimbus.sent) == ("rows", [])


async def test_rows_that_are_too_long_together_are_refused(running: Running) -> None:
    with pytest.raises(InvalidInput) as refused:
        await running.run([task(row, description="x" * 1_000_000) for row in range(5)])
    assert (refused.value.field, running.jobnimbus.sent) == ("rows", [])


@pytest.mark.parametrize("bulk_id", ["", "x" * 101])
async def test_an_id_that_is_none_is_refused(running: Running, bulk_id: str) -> None:
    for asked in (running.run(rows(1), bulk_id), running.resume(bulk_id)):
        with pytest.raises(InvalidInput) as refused:
            await asked
        assert refused.value.field == "bulk_id"


async def test_what_nobody_began_cannot_be_resumed(running: Running) -> None:
    await running.run(rows(1))
    other = Caller("stamford", "g" * 16, "q" * 32, own_key=True)
    for asked in (running.resume("other"), running.resume(caller=other)):
        with pytest.raises(InvalidInput) as refused:
            await asked
        assert refused.value.field == "bulk_id"


async def test_what_another_release_kept_has_to_be_sent_again(running: Running) -> None:
    await running.world.memory.keep(OWNER, "run", gzip.compress(b'[{"kind": "task"}]'))
    with pytest.raises(InvalidInput):
        await running.resume()


async def test_without_the_store_nothing_is_begun(running: Running) -> None:
    away: Any = AwayReceipts(running.world.memory)
    running.bulk = Bulk(running.world.writes, away, clock=running.world.clock)
    for asked in (running.run(rows(1)), running.resume()):
        with pytest.raises(CacheUnavailable):
            await asked
    assert running.jobnimbus.sent == []


async def test_who_leaves_leaves_rows_that_were_not_begun(running: Running) -> None:
    running.jobnimbus.slow_s = 1.0
    task = asyncio.ensure_future(
        running.bulk.run(
            rows(10),
            bulk_id="run",
            caller=CALLER,
            call=running.world.call(),
            report=running.report,
            stop_at=100.0,
        )
    )
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(running.jobnimbus.sent) == 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await running.world.driven(running.world.writes.aclose())
    assert len(running.jobnimbus.of(Entity.TASKS)) == 4

    assert ends(await running.resume()) == ["created"] * 10
    assert len(running.jobnimbus.of(Entity.TASKS)) == 10


cuts = st.lists(st.tuples(st.lists(st.sampled_from(["ok", "lost", "429", "unsent"]), max_size=6), st.floats(0.0, 8.0)))


@given(cuts, st.integers(1, 8))
async def test_however_a_run_is_cut_each_row_is_there_once_at_the_end(
    tries: list[tuple[list[str], float]], number: int
) -> None:
    running = Running()
    running.jobnimbus.slow_s = 0.5
    for fates, within_s in tries:
        running.jobnimbus.script.clear()
        running.jobnimbus.script.extend(fates)
        report = await running.run(rows(number), within_s=within_s)
        made = {row.jnid for row in report.rows if row.outcome is RowEnd.CREATED}
        assert made <= {row["jnid"] for row in running.jobnimbus.of(Entity.TASKS)}
    running.jobnimbus.script.clear()
    await running.run(rows(number))

    titles = sorted(row["title"] for row in running.jobnimbus.of(Entity.TASKS))
    assert titles == [f"Call {row}" for row in range(number)]
