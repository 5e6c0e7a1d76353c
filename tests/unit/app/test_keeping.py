"""Copies of events on the disk: kept until every consumer is done, appended again to a log that forgot, never lost."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
import structlog

from jobnimbus_mcp.app import keeping
from jobnimbus_mcp.app.keeping import Keeper
from jobnimbus_mcp.cache.journal import JournalError, Kept, Line
from jobnimbus_mcp.cache.journal_file import JournalFile
from jobnimbus_mcp.cache.notice import Notice, Parcel
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.events.event import Event, encode, event_id_at
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.ports import Attempt, EventsUnavailable, Fate, Routes, Settled
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

ACCOUNTS = ("stamford", "guilford")
NOW = 1_790_000_000.0


def event(number: int, instance: str = "stamford") -> Event:
    """The later its number, the later it was received; ids of one millisecond are in no order."""
    return Event(
        event_id=event_id_at(NOW, f"{1_000 - number:020x}"),
        instance=instance,
        name="job.updated",
        entity="jobs",
        record_id=f"j{number}",
        action="updated",
        tags=("jobs:list",),
        source="webhook",
        received_at=NOW + number / 1_000_000,
        body=f'{{"jnid": "j{number}"}}',
    )


class Log(MemoryEvents):
    """A log in memory that may be away, or defective, and remembers what was appended to it."""

    def __init__(self, clock: ManualClock, token: str) -> None:
        super().__init__(clock, token=token)
        self.away = False
        self.defects = 0
        self.appended: list[Event] = []

    def _reached(self) -> None:
        if self.defects:
            self.defects -= 1
            raise RuntimeError("a defect")
        if self.away:
            raise EventsUnavailable("away")

    async def append(self, event: Event, routes: Routes) -> bool:
        self._reached()
        self.appended.append(event)
        return await super().append(event, routes)

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, dict[str, bool]]:
        self._reached()
        token, kept = await super().standing(instance, event_ids)
        return token, dict(kept)


class MemoryJournal:
    """Implements `Journal`; `left`: what dead processes have left."""

    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self.left: list[Line] = []
        self.full = self.hangs = False
        self._refs = 0

    async def append(self, line: Line) -> Kept:
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.full:
            raise JournalError("no room")
        self._refs += 1
        self.lines[self._refs] = line
        return Kept(self._refs, line)

    async def adopt(self) -> Sequence[Kept]:
        left, self.left = self.left, []
        return [await self.append(line) for line in left]

    async def drop(self, applied: Sequence[Kept]) -> None:
        for kept in applied:
            del self.lines[kept.ref]

    async def aclose(self) -> None:
        return


class World:
    def __init__(self, journal: MemoryJournal | JournalFile | None = None) -> None:
        self.clock = ManualClock(NOW)
        self.journal = journal or MemoryJournal()
        self.logs: dict[str, Log] = {name: Log(self.clock, f"t-{name}") for name in ACCOUNTS}
        self.recorder = InMemoryRecorder()
        self.keeper = Keeper(
            self.journal, self.logs, clock=self.clock, recorder=self.recorder, log=structlog.get_logger()
        )

    @property
    def log(self) -> Log:
        return self.logs["stamford"]

    def restarted_empty(self) -> None:
        """The log has forgotten everything."""
        self.logs["stamford"] = Log(self.clock, "another token")

    async def arrived(self, event: Event) -> None:
        """In the log, and guarded."""
        await self.log.append(event, {"settle": NOW})
        await self.keeper.guard(event, {"settle": NOW})

    async def handled(self) -> list[Event]:
        """What the consumer is given, and is done with."""
        hand = self.log.subscribe("settle")
        taken = await hand.take(100, wait_s=0.0)
        await hand.settle([Settled(one, Fate.DONE, Attempt(NOW, "", 1.0)) for one in taken])
        await hand.aclose()
        return [one.event for one in taken]

    @property
    def on_disk(self) -> int:
        assert isinstance(self.journal, MemoryJournal)
        return len(self.journal.lines)

    def journalled(self, outcome: str) -> float:
        return self.recorder.counts["journal", (("outcome", outcome),)]


async def test_a_copy_stays_until_the_consumers_are_done_and_goes_then() -> None:
    world = World()
    await world.arrived(event(1))
    await world.keeper.look()
    assert (world.on_disk, world.keeper.counts) == (1, {"ship": 0, "guard": 1})
    assert await world.handled() == [event(1)]
    await world.keeper.look()
    assert (world.on_disk, world.keeper.counts) == (0, {"ship": 0, "guard": 0})
    assert world.log.appended == [event(1)]


async def test_what_was_done_before_anybody_looked_is_not_done_again() -> None:
    world = World()
    await world.arrived(event(1))
    assert await world.handled() == [event(1)]
    await world.keeper.look()
    await world.keeper.look()
    assert await world.handled() == []
    assert world.on_disk == 0


async def test_what_a_log_has_forgotten_is_appended_again_with_its_body_and_its_routes() -> None:
    world = World()
    await world.arrived(event(1))
    await world.keeper.look()
    world.restarted_empty()
    await world.keeper.look()
    assert world.on_disk == 1
    assert await world.handled() == [event(1)]
    assert world.journalled("applied") == 1
    await world.keeper.look()
    assert world.on_disk == 0


async def test_a_log_that_forgot_between_the_append_and_the_copy_is_found_out() -> None:
    """By then other copies have been looked for in it, so that its token is known already."""
    world = World()
    await world.arrived(event(1))
    await world.log.append(event(2), {"settle": NOW})
    world.restarted_empty()
    await world.keeper.look()
    await world.keeper.guard(event(2), {"settle": NOW})
    await world.keeper.look()
    assert sorted(one.received_at for one in await world.handled()) == [event(1).received_at, event(2).received_at]


async def test_a_log_that_has_kept_everything_over_a_restart_gets_nothing_twice() -> None:
    world = World()
    await world.arrived(event(1))
    await world.keeper.look()
    world.log._token = "of the new process"
    await world.keeper.look()
    assert world.log.appended == [event(1)]


async def test_a_duplicate_that_comes_at_the_same_moment_makes_no_second_copy() -> None:
    world = World()
    await world.log.append(event(1), {"settle": NOW})
    await asyncio.gather(*(world.keeper.guard(event(1), {"settle": NOW}) for _ in range(3)))
    await asyncio.gather(*(world.keeper.ship(event(2), {"settle": NOW}) for _ in range(3)))
    assert world.on_disk == 2
    await world.keeper.look()
    assert world.log.appended == [event(1), event(2)]
    await world.handled()
    await world.keeper.look()
    assert world.on_disk == 0


async def test_what_waits_is_shipped_in_the_order_of_its_receipt_when_the_log_is_back() -> None:
    world = World()
    world.log.away = True
    for number in (3, 1, 2):
        await world.keeper.ship(event(number), {"settle": NOW})
    await world.keeper.look()
    assert world.keeper.waits("stamford")
    assert not world.keeper.waits("guilford")
    assert world.on_disk == 3
    world.log.away = False
    await world.keeper.look()
    assert world.log.appended == [event(1), event(2), event(3)]
    assert not world.keeper.waits("stamford")
    assert world.on_disk == 0


async def test_a_log_that_goes_away_half_way_gets_the_rest_later_and_each_once() -> None:
    world = World()
    for number in (1, 2, 3):
        await world.keeper.ship(event(number), {"settle": NOW})

    class Away(Log):
        async def append(self, event: Event, routes: Routes) -> bool:
            self.away = len(self.appended) == 2
            return await super().append(event, routes)

    half_way = Away(world.clock, "t")
    world.logs["stamford"] = half_way
    await world.keeper.look()
    assert half_way.appended == [event(1), event(2)]
    assert world.on_disk == 1
    world.restarted_empty()
    await world.keeper.look()
    assert world.log.appended == [event(3)]


async def test_an_account_whose_log_is_away_holds_up_no_other() -> None:
    world = World()
    world.logs["stamford"].away = True
    await world.keeper.ship(event(1), {"settle": NOW})
    await world.keeper.ship(event(2, "guilford"), {"settle": NOW})
    await world.keeper.look()
    assert world.logs["guilford"].appended == [event(2, "guilford")]
    assert world.keeper.waits("stamford")


@pytest.mark.parametrize("trouble", ["full", "hangs"])
@pytest.mark.parametrize("way", ["ship", "guard"])
async def test_a_disk_that_takes_nothing_is_no_promise(monkeypatch: pytest.MonkeyPatch, way: str, trouble: str) -> None:
    monkeypatch.setattr(keeping, "KEPT_WITHIN_S", 0.05)
    journal = MemoryJournal()
    setattr(journal, trouble, True)
    world = World(journal)
    async with running(world):  # which ends although the disk hangs
        with pytest.raises(EventsUnavailable):
            await getattr(world.keeper, way)(event(1), {"settle": NOW})
        assert world.keeper.counts == {"ship": 0, "guard": 0}
    assert world.journalled("refused") == 1


class SlowJournal(MemoryJournal):
    """Writes when it is let, whether or not anybody waits for it still, as a thread does."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def append(self, line: Line) -> Kept:
        async def write() -> Kept:
            await self.let.wait()
            return await MemoryJournal.append(self, line)

        return await asyncio.shield(asyncio.ensure_future(write()))


@pytest.mark.parametrize("how", ["late", "cancelled"])
async def test_what_a_slow_disk_wrote_after_all_is_known_and_goes_when_it_is_done_with(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(keeping, "KEPT_WITHIN_S", 0.05 if how == "late" else 5.0)
    journal = SlowJournal()
    world = World(journal)
    await world.log.append(event(1), {"settle": NOW})
    guarding = asyncio.create_task(world.keeper.guard(event(1), {"settle": NOW}))
    await until_idle()
    if how == "cancelled":
        guarding.cancel()
    with pytest.raises(EventsUnavailable if how == "late" else asyncio.CancelledError):
        await guarding
    journal.let.set()
    await until(lambda: world.keeper.counts["guard"] == 1)
    assert world.on_disk == 1
    await world.handled()
    await world.keeper.look()
    await world.keeper.look()
    assert (world.on_disk, world.keeper.counts["guard"]) == (0, 0)


def line_of(one: Event, *tags: str, routes: object = None) -> Line:
    args = (encode(one).decode(), one.body, orjson.dumps({"settle": NOW} if routes is None else routes).decode())
    return Line(one.instance, tags, Notice("e", "jobs", "j1", "webhook", NOW, one.event_id, parcel=Parcel((), args)))


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with asyncio.timeout(5), world.keeper.running():
        yield


async def until_idle() -> None:
    """Everything that can go on has gone on."""
    for _ in range(50):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)


async def test_damaged_lines_go_and_those_of_another_release_stay_for_it() -> None:
    world = World()
    assert isinstance(world.journal, MemoryJournal)
    another = [
        line_of(event(2), "ship", routes=[1]),
        line_of(event(3), "ship", routes={"settle": None}),
        line_of(event(4)),
    ]
    world.journal.left = [Line("stamford", (), None), line_of(event(1), "ship", "of old"), *another]
    async with running(world):
        await until(lambda: world.log.appended == [event(1)])
        await until(lambda: sorted(world.journal.lines.values(), key=repr) == sorted(another, key=repr))  # type: ignore[union-attr]
    assert world.journalled("damaged") == 4
    assert world.keeper.counts == {"ship": 0, "guard": 0}


async def test_what_is_shipped_goes_at_once_and_a_defect_of_the_log_does_not_end_it() -> None:
    world = World()
    async with running(world):
        world.log.defects = 1
        await world.keeper.ship(event(1), {"settle": NOW})
        await until_idle()
        assert (world.log.defects, world.log.appended) == (0, [])
        world.clock.advance(keeping.KEEP_EVERY_S)
        await until(lambda: world.log.appended == [event(1)])


async def test_copies_are_looked_at_every_second_of_the_clock() -> None:
    world = World()
    async with running(world):
        await world.arrived(event(1))
        await world.handled()
        await until_idle()
        assert world.on_disk == 1
        for _ in range(2):  # that it is done shows at the second look
            world.clock.advance(keeping.KEEP_EVERY_S)
            await until_idle()
        assert world.on_disk == 0


# -- over files ------------------------------------------------------------------------------------------------------


def journal(directory: Path) -> JournalFile:
    return JournalFile(directory, tenants=ACCOUNTS)


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def damage(directory: Path) -> None:
    (file,) = files(directory)
    file.write_bytes(file.read_bytes() + b"damaged\n")


async def died(world: World) -> None:
    """Its files are anybody's now."""
    await world.journal.aclose()


async def test_what_a_dead_process_has_left_is_adopted_whole_and_taken_care_of(tmp_path: Path) -> None:
    first = World(journal(tmp_path))
    first.log.away = True
    await first.keeper.ship(event(1), {"settle": NOW, "relay:n8n": NOW + 5})
    await first.keeper.ship(event(2, "guilford"), {"settle": NOW})
    await first.keeper.guard(event(3), {"settle": NOW})
    await died(first)

    second = World(journal(tmp_path))
    async with running(second):
        await second.keeper.look()
        assert second.log.appended == [event(1), event(3)]
        assert second.logs["guilford"].appended == [event(2, "guilford")]
        told = await second.log.show("stamford", event(1).event_id)
        assert told is not None
        assert {name: part.due_at for name, part in told.consumers.items()} == {"settle": NOW, "relay:n8n": NOW + 5}
        assert await second.handled() == [event(1), event(3)]
        await second.keeper.look()
        assert second.keeper.counts == {"ship": 0, "guard": 0}
    assert files(tmp_path) == []
    assert second.journalled("adopted") == 3


async def test_copies_that_are_still_needed_at_the_end_are_there_for_the_next_process(tmp_path: Path) -> None:
    first = World(journal(tmp_path))
    async with running(first):
        await first.arrived(event(1))
    assert len(files(tmp_path)) == 1
    second = World(journal(tmp_path))
    async with running(second):
        assert second.keeper.counts == {"ship": 0, "guard": 1}


async def test_a_damaged_line_does_not_keep_what_is_done_with_coming_back(tmp_path: Path) -> None:
    first = World(journal(tmp_path))
    first.log.away = True
    await first.keeper.ship(event(1), {"settle": NOW})
    await died(first)
    damage(tmp_path)
    second = World(journal(tmp_path))
    async with running(second):
        await second.keeper.look()
        assert second.log.appended == [event(1)]
    assert files(tmp_path) == []


@pytest.mark.parametrize("way", ["ship", "guard"])
async def test_a_full_disk_is_refused(tmp_path: Path, way: str) -> None:
    def full(descriptor: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    world = World(JournalFile(tmp_path, tenants=ACCOUNTS, write=full))
    keep: Callable[[Event, Routes], Awaitable[None]] = getattr(world.keeper, way)
    with pytest.raises(EventsUnavailable):
        await keep(event(1), {"settle": NOW})
    assert world.keeper.counts == {"ship": 0, "guard": 0}
    assert files(tmp_path) == []
    await world.journal.aclose()
