"""What the journal takes over: by whom it is applied, when the store is trusted again, and what a failing disk does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import structlog

from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.debts import CAUSES_MAX
from jobnimbus_mcp.cache.deferral import JOURNAL_WITHIN_S
from jobnimbus_mcp.cache.guarded import DEBT_RETRY_S, GuardedStore
from jobnimbus_mcp.cache.journal import JournalError, Kept, Line
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Applied, Notice, Parcel, Told
from jobnimbus_mcp.cache.ports import EVERYTHING, Seen, StoreError, StoreNotTried, StoreUnreachable, Verdict
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy, State
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

T = "stamford"
KEY = CacheKey(T, "p1", "jobs", "detail", "j1")
OTHER = CacheKey(T, "p1", "contacts", "detail", "c1")
OPEN_S = 60.0


class Disk:
    """The journal in memory; it stays when the process it belonged to goes."""

    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self.orphans: list[Line] = []
        self.error: str | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.closed = False
        self._last = 0

    async def append(self, line: Line) -> Kept:
        await self.writable.wait()
        if self.error is not None:
            raise JournalError(self.error)
        return self._kept(line)

    async def adopt(self) -> Sequence[Kept]:
        if self.error is not None:
            raise JournalError(self.error)
        found, self.orphans = self.orphans, []
        return [self._kept(line) for line in found]

    async def drop(self, applied: Sequence[Kept]) -> None:
        if self.error is not None:
            raise JournalError(self.error)
        for ref, _ in applied:
            del self.lines[ref]

    async def aclose(self) -> None:
        self.closed = True
        self.orphans += self.lines.values()
        self.lines.clear()

    def _kept(self, line: Line) -> Kept:
        self._last += 1
        self.lines[self._last] = line
        return Kept(self._last, line)


class Listening(MemoryStore):
    """Remembers what it was told, and can be deaf to it (blind: to renewals alone) while all else goes on, or fail at
    some tags for good."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.deaf = False
        self.blind = False
        self.unfit = ""
        self.takes_s = 0.0
        self.bumps: list[tuple[tuple[str, ...], Notice]] = []
        self.renewals = 0

    async def append_and_bump(
        self, tenant: str, tags: Sequence[str], notice: Notice, call: Call, *, tells: Sequence[str] = ()
    ) -> Applied:
        await asyncio.sleep(self.takes_s)
        if self.deaf:
            raise StoreUnreachable("deaf")
        if self.unfit in tags:
            raise StoreError("another reply than expected")
        applied = await super().append_and_bump(tenant, tags, notice, call, tells=tells)
        self.bumps.append((tuple(tags), notice))
        return applied

    async def renew_epoch(self, tenant: str, call: Call) -> Told:
        if self.deaf or self.blind:
            raise StoreUnreachable("deaf")
        self.renewals += 1
        return await super().renew_epoch(tenant, call)


class World:
    def __init__(self, disk: Disk | None = None, store: Listening | None = None) -> None:
        self.clock = ManualClock()
        self.disk = disk or Disk()
        self.store = store or Listening(self.clock)
        self.recorder = InMemoryRecorder()
        self.breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=OPEN_S, failures=5), self.clock)
        self.guarded = GuardedStore(
            self.store, self.breaker, self.clock, 0.05, self.recorder, tenants=(T,), journal=self.disk
        )
        self._events = 0

    def call(self) -> Call:
        return Call.begin(self.clock, "r")

    def notice(self, **changed: Any) -> Notice:
        self._events += 1
        told: dict[str, Any] = {
            "event": "job.updated",
            "resource": "jobs",
            "resource_id": "j1",
            "source": "webhook",
            "received_at": self.clock.now(),
            "event_id": f"e{self._events}",
            "dedupe_key": f"d{self._events}",
            "floors": {"jobs:j1": 7},
        }
        return Notice(**told | changed)

    async def read(self, key: CacheKey = KEY) -> Seen:
        return await self.guarded.read(key, (key.entity,), "", want=True, call=self.call())

    async def kept(self, key: CacheKey) -> None:
        """Have an entry in the store, and see it there."""
        seen, tags = await self.read(key), (key.entity,)
        entry = Entry(b"old", False, 0.0, "0123456789abcdef", 600.0, 600.0)
        value = encode(entry, key_text=key.text, vector=seen.vector, tags=tags, compress=False)
        assert await self.guarded.fill(key, tags, seen, value, ttl_s=600, admission_s=600, call=self.call())
        assert (await self.read(key)).verdict is Verdict.HIT

    async def told(self, notice: Notice | None = None, tags: Sequence[str] = ("jobs",)) -> bool:
        """As the intake does: False when it could neither be told nor journalled."""
        notice = notice or self.notice()
        try:
            await self.guarded.append_and_bump(T, tags, notice, self.call())
        except StoreError:
            return await self.guarded.defer(T, tags, notice)
        return True

    def counted(self, outcome: str) -> float:
        return self.recorder.counts["journal", (("outcome", outcome),)]


async def ticks(number: int = 40) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def later(world: World, seconds: float) -> None:
    """Let everybody come to rest, then time pass."""
    await ticks()
    world.clock.advance(seconds)
    await ticks()


async def test_what_the_journal_took_over_is_told_as_it_was_and_costs_no_more_than_its_tags() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        await world.kept(OTHER)
        world.store.deaf = True
        notice = world.notice()
        assert await world.told(notice, ("jobs", "jobs:detail:j1", "jobs"))
        assert [line.tags for line in world.disk.lines.values()] == [("jobs", "jobs:detail:j1")]
        await ticks()
        world.store.deaf = False
        await later(world, DEBT_RETRY_S)
        assert world.guarded.indebted == ()
        assert world.store.bumps == [(("jobs", "jobs:detail:j1"), replace(notice, late=True))]
        assert world.store.renewals == 0
        assert (await world.read(OTHER)).verdict is Verdict.HIT
        assert world.disk.lines == {}
        assert (world.counted("kept"), world.counted("applied")) == (1, 1)
        (row,) = await world.guarded.log(T, limit=5, since=None, call=world.call())
        assert (row.event_id, row.resource_id, row.latency_ms) == (notice.event_id, "j1", DEBT_RETRY_S * 1000)


async def test_until_it_has_been_told_nothing_of_the_tenant_is_read_or_filled() -> None:
    world = World()
    await world.kept(KEY)
    seen = await world.read(OTHER)
    world.store.deaf = True
    assert await world.told()
    assert world.guarded.owes(T)
    with pytest.raises(StoreNotTried):
        await world.read()
    with pytest.raises(StoreNotTried):
        await world.guarded.fill(OTHER, ("contacts",), seen, b"x", ttl_s=1, admission_s=1, call=world.call())
    world.store.deaf = False
    world.clock.advance(DEBT_RETRY_S)
    assert (await world.read()).verdict is Verdict.MISS  # the first reader pays
    assert len(world.store.bumps) == 1


async def test_it_is_told_without_a_call_though_the_breaker_stays_open() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        world.store.fail("refused")
        for _ in range(6):
            assert await world.told()
        assert world.guarded.circuit_state == "OPEN"
        await later(world, DEBT_RETRY_S)
        assert list(world.guarded.indebted) == [T]
        world.store.fail(None)
        await later(world, DEBT_RETRY_S)
        assert (list(world.guarded.indebted), world.guarded.circuit_state) == ([], "OPEN")
        assert [notice.event_id for _, notice in world.store.bumps] == ["e1", "e2", "e3", "e4", "e5", "e6"]
        assert world.store.renewals == 0
        assert world.disk.lines == {}


async def test_a_long_journal_is_told_in_the_half_open_state_too_and_the_first_line_closes_the_breaker() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        world.store.fail("refused")
        for _ in range(50):
            assert await world.told()
        world.store.fail(None)
        world.clock.advance(OPEN_S)
        await ticks(400)
        assert (world.guarded.indebted, world.breaker.state) == ((), State.CLOSED)
        assert len(world.store.bumps) == 50


async def test_a_store_that_fails_again_in_the_middle_of_the_journal_is_not_trusted() -> None:
    world = World()
    world.store.deaf = True
    for _ in range(3):
        assert await world.told()
    bump, left = world.store.append_and_bump, 2

    async def some(*args: Any, **options: Any) -> Applied:
        nonlocal left
        left -= 1
        if left < 0:
            raise StoreUnreachable("again")
        return await bump(*args, **options)

    world.store.deaf = False
    world.store.append_and_bump = some  # type: ignore[method-assign]  # one step replaced
    with pytest.raises(StoreNotTried):
        await world.read()
    await ticks()
    assert [line.notice.event_id for line in world.disk.lines.values() if line.notice] == ["e3"]
    assert world.guarded.indebted == (T,)


async def test_a_reader_does_not_wait_for_a_long_journal_which_is_told_all_the_same() -> None:
    world = World()
    world.store.deaf = True
    for number in range(4):
        assert await world.told(world.notice(resource_id=f"told{number}"))
    for number in range(20):
        notice = world.notice(event_id=f"more{number}", resource_id=f"more{number}")
        assert await world.guarded.defer(T, ("jobs",), notice)
    world.store.deaf, world.store.takes_s = False, 0.03
    began = time.monotonic()
    with pytest.raises(StoreNotTried):
        await world.read()
    assert time.monotonic() - began < 0.12  # of a command's 0.05; all of it takes 0.18
    async with asyncio.timeout(5):
        while world.guarded.indebted:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert len(world.store.bumps) == 24


@pytest.mark.parametrize("how", ["cancelled", "admin", "epoch"])
async def test_what_the_journal_was_not_asked_to_take_over_renews_the_epoch(how: str) -> None:
    world = World()
    await world.kept(OTHER)
    world.store.deaf = True
    assert await world.told()
    if how == "cancelled":
        never = asyncio.Event()

        async def stuck(*args: Any, **options: Any) -> Applied:
            await never.wait()
            raise AssertionError

        bump, world.store.append_and_bump = world.store.append_and_bump, stuck  # type: ignore[method-assign]  # one step replaced
        telling = asyncio.create_task(world.told())
        await ticks(3)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        world.store.append_and_bump = bump  # type: ignore[method-assign]  # one step replaced
    elif how == "admin":
        with pytest.raises(StoreError):
            await world.guarded.append_and_bump(T, ("jobs",), world.notice(source="admin"), world.call())
    else:
        with pytest.raises(StoreError):
            await world.guarded.renew_epoch(T, world.call())
    world.store.deaf = False
    assert (await world.read(OTHER)).verdict is Verdict.MISS
    assert (world.store.renewals, [notice.event_id for _, notice in world.store.bumps]) == (1, ["e1"])


async def test_an_admins_renewal_leaves_the_journals_lines_to_be_told() -> None:
    """It covers what they invalidate, and not that they are events."""
    world = World()
    world.store.deaf = True
    assert await world.told()
    world.store.deaf = False
    await world.guarded.renew_epoch(T, world.call())
    assert world.guarded.indebted == (T,)
    await world.read()
    assert len(world.store.bumps) == 1


async def test_a_line_being_written_is_not_paid_for_by_a_renewal_meanwhile() -> None:
    """A store that was away for a moment would lose all it keeps of the tenant."""
    world = World()
    async with world.guarded:
        await ticks()
        world.disk.writable.clear()
        world.store.deaf = True
        telling = asyncio.create_task(world.told())
        await ticks()
        world.store.deaf = False
        for _ in range(3):
            await later(world, DEBT_RETRY_S)
        assert (world.guarded.indebted, world.store.renewals) == ((T,), 0)
        with pytest.raises(StoreNotTried):
            await world.read()
        world.disk.writable.set()
        assert await telling
        await later(world, DEBT_RETRY_S)
        assert (world.guarded.indebted, world.store.renewals, len(world.store.bumps)) == ((), 0, 1)


async def test_with_a_disk_that_cannot_be_written_the_invalidation_is_owed_as_ever() -> None:
    world = World()
    world.disk.error = "No space left on device"
    world.store.deaf = True
    with structlog.testing.capture_logs() as logged:
        assert not await world.told()
    assert [(line["event"], line["reason"]) for line in logged if line["log_level"] == "error"] == [
        ("journal cannot be written", "No space left on device")
    ]
    assert (world.guarded.indebted, world.counted("refused")) == ((T,), 1)
    world.store.deaf = False
    await world.read()
    assert (world.store.renewals, world.store.bumps) == (1, [])


async def test_a_disk_that_takes_too_long_is_not_waited_for_and_what_it_wrote_all_the_same_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobnimbus_mcp.cache.deferral.JOURNAL_WITHIN_S", 0.02)
    assert JOURNAL_WITHIN_S == 2.0
    world = World()
    world.disk.writable.clear()
    world.store.deaf = True
    assert not await world.told()
    world.disk.writable.set()
    await ticks()
    assert len(world.disk.lines) == 1
    world.store.deaf = False
    await world.read()
    assert (len(world.store.bumps), world.store.renewals) == (1, 0)


async def test_a_sender_that_hangs_up_does_not_stop_what_is_being_written() -> None:
    world = World()
    world.disk.writable.clear()
    world.store.deaf = True
    telling = asyncio.create_task(world.told())
    await ticks(10)
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    world.disk.writable.set()
    await ticks()
    world.store.deaf = False
    await world.read()
    assert (len(world.store.bumps), world.store.renewals) == (1, 0)


async def test_without_a_journal_nothing_is_deferred() -> None:
    world = World()
    plain = GuardedStore(world.store, world.breaker, world.clock)
    assert not await plain.defer(T, ("jobs",), world.notice())


async def test_what_a_dead_process_left_is_owed_before_anything_is_read() -> None:
    first = World()
    async with first.guarded:
        await ticks()
        await first.kept(KEY)
        first.store.deaf = True
        assert await first.told()
    assert first.disk.closed
    second = World(first.disk, first.store)
    second.clock.advance(first.clock.monotonic())
    await second.guarded.start()
    assert second.guarded.indebted == (T,)
    with pytest.raises(StoreNotTried):
        await second.read()
    second.store.deaf = False
    await later(second, DEBT_RETRY_S)
    assert (await second.read()).verdict is Verdict.MISS
    assert [notice.event_id for _, notice in second.store.bumps] == ["e1"]
    assert second.counted("adopted") == 1
    await second.guarded.aclose()


async def test_what_is_left_later_is_adopted_by_a_process_that_is_running() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        await world.kept(KEY)
        world.disk.orphans = [Line(T, ("jobs",), world.notice())]
        # As soon as debts are paid: this process reads what the dead one knew to be old.
        await later(world, DEBT_RETRY_S)
        assert len(world.store.bumps) == 1
        assert (await world.read()).verdict is Verdict.MISS


@pytest.mark.parametrize(("tags", "outcome"), [((), "damaged"), ((EVERYTHING,), "adopted")])
async def test_a_line_that_says_no_more_than_whose_it_is_renews_the_epoch(tags: tuple[str, ...], outcome: str) -> None:
    world = World()
    await world.kept(OTHER)
    world.disk.orphans = [Line(T, tags, None)]
    async with world.guarded:
        await ticks()
        assert (world.store.renewals, world.counted(outcome)) == (1, 1)
        assert (await world.read(OTHER)).verdict is Verdict.MISS
        assert world.disk.lines == {}


async def test_a_journal_that_cannot_be_read_at_the_start_makes_everybody_owe() -> None:
    world = World()
    world.disk.error = "Permission denied"
    async with world.guarded:
        assert world.guarded.indebted == (T,)
        await ticks()
        assert world.store.renewals == 1


async def test_at_the_end_the_journal_is_told_once_more_or_else_left_with_all_that_is_owed() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        world.store.deaf = True
        assert await world.told()
        world.store.deaf = False
    assert (len(world.store.bumps), world.disk.orphans) == (1, [])

    world = World()
    with structlog.testing.capture_logs() as logged:
        async with world.guarded:
            await ticks()
            world.store.deaf = True
            assert await world.told()
            with pytest.raises(StoreError):
                await world.guarded.renew_epoch(T, world.call())
    assert [line.tags for line in world.disk.orphans] == [("jobs",), (EVERYTHING,)]
    assert [line.notice is None for line in world.disk.orphans] == [False, True]
    assert not [line for line in logged if line["event"] == "invalidation owed and lost"]


async def test_restarts_while_the_store_is_away_leave_one_renewal_and_not_one_each() -> None:
    disk, orphans = Disk(), []
    for _ in range(3):
        world = World(disk)
        world.store.deaf = True
        async with world.guarded:
            await ticks()
            with pytest.raises(StoreError):
                await world.guarded.renew_epoch(T, world.call())
        orphans.append(list(disk.orphans))
    assert orphans == [[Line(T, (EVERYTHING,), None)]] * 3


async def test_a_line_that_could_not_be_applied_is_no_renewal_on_the_disk() -> None:
    world = World()
    world.store.unfit = "senseless"
    async with world.guarded:
        await ticks()
        world.store.deaf = True
        assert await world.told(tags=("senseless",))
        world.store.deaf, world.store.blind = False, True
        for _ in range(4):
            await later(world, DEBT_RETRY_S)
        with pytest.raises(StoreError):
            await world.guarded.renew_epoch(T, world.call())
    assert [line.notice is None for line in world.disk.orphans] == [False, True]


async def test_what_is_being_written_at_the_end_is_still_told_to_a_store_that_is_back() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        world.disk.writable.clear()
        world.store.deaf = True
        telling = asyncio.create_task(world.told())
        await ticks()
        world.store.deaf = False
        asyncio.get_running_loop().call_later(0.05, world.disk.writable.set)
    assert await telling
    assert (len(world.store.bumps), world.disk.orphans) == (1, [])


async def test_a_disk_that_hangs_does_not_keep_the_process_from_ending() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        world.disk.writable.clear()
        world.store.deaf = True
        telling = asyncio.create_task(world.told())
        await ticks()
        began = time.monotonic()
    assert time.monotonic() - began < 3
    world.disk.writable.set()
    assert await telling


async def test_a_parcel_s_line_stays_until_whoever_looks_after_the_parcel_knows_that_it_is_in_the_store() -> None:
    world, told, refusing = World(), list[tuple[str, Parcel, str]](), True

    async def replayed(tenant: str, parcel: Parcel, event_id: str) -> None:
        told.append((tenant, parcel, event_id))
        if refusing:
            raise CacheUnavailable("no room on the disk")

    world.guarded.tell_replayed(replayed)
    first, second = (Parcel(("hash", "stream"), ("{}", body, "{}")) for body in "12")
    world.store.deaf = True
    for notice in (world.notice(), world.notice(parcel=first), world.notice(parcel=second, dedupe_key="d2")):
        assert await world.told(notice)
    world.store.deaf = False
    async with world.guarded:
        for _ in range(4):
            await later(world, DEBT_RETRY_S)
        assert [line.notice.event_id for line in world.disk.lines.values() if line.notice] == ["e2", "e3"]
        assert set(told) == {(T, first, "e2")}
        refusing = False
        await later(world, DEBT_RETRY_S)
        assert told[-1] == (T, second, "e2")
        assert not world.disk.lines


async def test_a_line_the_store_cannot_take_does_not_block_the_others_for_good() -> None:
    world = World()
    async with world.guarded:
        await ticks()
        world.store.deaf = True
        assert await world.told(tags=("senseless",))
        assert await world.told()
        world.store.deaf, world.store.unfit = False, "senseless"
        for _ in range(4):
            await later(world, DEBT_RETRY_S)
        assert (world.guarded.indebted, world.store.renewals) == ((), 1)
        assert [notice.event_id for _, notice in world.store.bumps] == ["e2"]
        assert world.disk.lines == {}


async def test_a_disk_that_cannot_forget_does_not_keep_the_store_from_being_trusted() -> None:
    world = World()
    world.store.deaf = True
    assert await world.told()
    world.store.deaf, world.disk.error = False, "Read-only file system"
    assert (await world.read()).verdict is Verdict.MISS
    await ticks()
    assert world.guarded.indebted == ()


async def test_more_causes_than_are_told_apart_are_covered_by_a_renewal() -> None:
    world = World()
    world.store.fail("refused")
    for _ in range(CAUSES_MAX):
        with pytest.raises(StoreError):
            await world.guarded.append_and_bump(T, ("jobs",), world.notice(), world.call())
    assert await world.told()
    world.store.fail(None)
    async with world.guarded:
        world.clock.advance(OPEN_S)
        await ticks()
        assert (world.guarded.indebted, world.store.renewals, len(world.store.bumps)) == ((), 1, 1)
