"""The worker: every event is acted on, tried again or given up, and nobody waits for somebody else's trouble."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import CacheUnavailable, UpstreamServerError
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.ports import (
    ACT_WITHIN_S,
    ANSWER_MOST,
    ConsumerTrace,
    EventsUnavailable,
    Outcome,
    Settled,
    Subscription,
    Taken,
)
from jobnimbus_mcp.events.routing import routes_of
from jobnimbus_mcp.events.worker import Worker
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

ACCOUNT = "acme"
Act = Callable[[Sequence[Event], Sequence[str]], Awaitable[Sequence[Outcome]]]

_numbers: Iterator[int] = itertools.count(1)


class Scripted:
    """A consumer that keeps what it is given, and does as `does` says."""

    def __init__(
        self,
        name: str = "settle",
        does: Act | None = None,
        *,
        batch_most: int = 1,
        parallel: int = 4,
        within_s: float = 10.0,
        delay_s: float | None = 0.0,
    ) -> None:
        self.name = name
        self.batch_most = batch_most
        self.parallel = parallel
        self.within_s = within_s
        self._delay_s = delay_s
        self._does = does
        self.given: list[tuple[str, ...]] = []
        self.request_ids: list[str] = []
        self.stopped = 0

    @property
    def records(self) -> list[str]:
        return [record_id for batch in self.given for record_id in batch]

    def delay_s(self, event: Event) -> float | None:
        return self._delay_s

    async def act(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        self.given.append(tuple(event.record_id for event in batch))
        self.request_ids += request_ids
        try:
            return [Outcome()] * len(batch) if self._does is None else await self._does(batch, request_ids)
        except asyncio.CancelledError:
            self.stopped += 1
            raise


class Failing:
    """The outcome `error` so many times, then done."""

    def __init__(self, times: int, outcome: Outcome | None = None) -> None:
        self._left = times
        self._outcome = outcome or Outcome("http_500", status=500, answer="broken")

    async def __call__(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        self._left -= 1
        return [self._outcome if self._left >= 0 else Outcome(status=200)] * len(batch)


async def hang(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


class Shaky(MemoryEvents):
    """A log that fails as often as it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, token="shaky")
        self.failing: dict[str, list[Exception]] = defaultdict(list)
        self.asked: list[tuple[str, float]] = []
        self._time = clock

    def trouble(self, what: str) -> None:
        self.asked.append((what, self._time.monotonic()))
        if self.failing[what]:
            raise self.failing[what].pop(0)

    async def open(self, consumers: Sequence[str]) -> None:
        self.trouble("open")
        await super().open(consumers)

    def subscribe(self, consumer: str) -> Subscription:
        return _ShakyHand(self, super().subscribe(consumer))


class _ShakyHand:
    def __init__(self, log: Shaky, hand: Subscription) -> None:
        self._log = log
        self._hand = hand

    async def take(self, most: int, *, wait_s: float) -> Sequence[Taken]:
        self._log.trouble("take")
        return await self._hand.take(most, wait_s=wait_s)

    async def settle(self, results: Sequence[Settled]) -> None:
        self._log.trouble("settle")
        await self._hand.settle(results)

    async def aclose(self) -> None:
        self._log.trouble("aclose")
        await self._hand.aclose()


class Bench:
    """A log, a clock that stands still, and workers over them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.events = Shaky(self.clock)
        self.recorder = InMemoryRecorder()

    def worker(self, *consumers: Scripted) -> Worker:
        return Worker(
            self.events,
            consumers,
            clock=self.clock,
            random01=lambda: 0.5,
            recorder=self.recorder,
            log=structlog.get_logger(),
        )

    async def change(self, *consumers: Scripted, record_id: str = "j1") -> Event:
        now = self.clock.now()
        event = Event(
            event_id=event_id_at(now, f"{next(_numbers):020x}"),
            instance=ACCOUNT,
            name="job.updated",
            entity="jobs",
            record_id=record_id,
            action="updated",
            tags=("jobs",),
            source="webhook",
            received_at=now,
        )
        assert await self.events.append(event, routes_of(event, consumers))
        return event

    async def told(self, event: Event, consumer: Scripted) -> ConsumerTrace:
        traced = await self.events.show(ACCOUNT, event.event_id)
        assert traced is not None
        return traced.consumers[consumer.name]

    async def pass_s(self, seconds: float = 0.0) -> None:
        """Let so much time pass, a tenth of a second after the other, with all that happens in it."""
        for _ in range(round(seconds * 10)):
            await _quiet()
            self.clock.advance(0.1)
        await _quiet()

    def handled(self, consumer: str = "settle") -> dict[str, float]:
        return {
            dict(labels)["outcome"]: count
            for (name, labels), count in self.recorder.counts.items()
            if name == "events_handled" and dict(labels)["consumer"] == consumer
        }


async def _quiet() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_an_event_is_acted_on_once_and_the_trace_tells_it(bench: Bench) -> None:
    consumer = Scripted("relay:crm")
    event = await bench.change(consumer)
    async with bench.worker(consumer).running():
        await bench.pass_s()
        later = await bench.change(consumer, record_id="j2")
        await bench.pass_s()
    assert consumer.records == ["j1", "j2"]
    assert consumer.request_ids == [f"{event.event_id}.relay-crm.1", f"{later.event_id}.relay-crm.1"]
    told = await bench.told(event, consumer)
    assert (told.state, told.attempts) == ("done", 1)
    assert told.tried[0].request_id == consumer.request_ids[0]
    assert bench.handled("relay:crm") == {"done": 2}
    assert len(bench.recorder.observed["event_act_seconds"]) == 2


async def test_one_line_tells_what_came_of_an_event(bench: Bench) -> None:
    consumer = Scripted(does=Failing(1))
    event = await bench.change(consumer)
    with capture_logs() as lines:
        async with bench.worker(consumer).running():
            await bench.pass_s(2.1)
    handled = [line for line in lines if line["event"] == "event handled"]
    assert [(line["outcome"], line["attempt"], line["error"], line["status"]) for line in handled] == [
        ("retry", 1, "http_500", 500),
        ("done", 2, None, 200),
    ]
    assert {line["event_id"] for line in handled} == {event.event_id}
    assert {line["consumer"] for line in handled} == {"settle"}
    assert handled[1]["late_ms"] < 200.0


async def test_what_fails_is_tried_after_two_four_and_eight_seconds_and_then_given_up(bench: Bench) -> None:
    consumer = Scripted(does=Failing(5))
    event = await bench.change(consumer)
    began = bench.clock.now()
    async with bench.worker(consumer).running():
        await bench.pass_s(20.0)
        told = await bench.told(event, consumer)
        assert (told.state, told.reason, told.attempts) == ("dead", "http_500", 4)
        assert [attempt.at - began for attempt in told.tried] == pytest.approx([0.0, 2.0, 6.0, 14.0], abs=0.5)
        assert {(attempt.status, attempt.answer) for attempt in told.tried} == {(500, "broken")}
        assert await bench.events.replay(ACCOUNT, event.event_id) == ("settle",)
        await bench.pass_s(3.0)
    told = await bench.told(event, consumer)
    assert (told.state, told.attempts) == ("done", 6)
    assert bench.handled() == {"retry": 4, "dead": 1, "done": 1}


async def test_what_no_try_would_help_is_given_up_at_once(bench: Bench) -> None:
    consumer = Scripted(does=Failing(1, Outcome("private_address", retry=False)))
    event = await bench.change(consumer)
    async with bench.worker(consumer).running():
        await bench.pass_s()
    told = await bench.told(event, consumer)
    assert (told.state, told.reason, told.attempts) == ("dead", "private_address", 1)


async def test_while_a_store_is_away_nothing_is_given_up_however_long_that_takes(bench: Bench) -> None:
    async def away(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        if bench.clock.now() - began < 60.0:
            raise CacheUnavailable("away")
        return [Outcome()]

    consumer = Scripted(does=away)
    event = await bench.change(consumer)
    began = bench.clock.now()
    async with bench.worker(consumer).running():
        await bench.pass_s(75.0)
    told = await bench.told(event, consumer)
    assert (told.state, told.attempts) == ("done", 10)
    assert {attempt.error for attempt in told.tried[:-1]} == {"cache_unavailable"}


@pytest.mark.parametrize(
    ("error", "logged"), [(RuntimeError("a customer's name"), 1), (UpstreamServerError("JobNimbus failed."), 0)]
)
async def test_an_exception_is_a_failed_try_and_only_a_defect_is_logged(
    bench: Bench, error: Exception, logged: int
) -> None:
    async def fail(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        raise error

    consumer = Scripted(does=fail)
    event = await bench.change(consumer)
    with capture_logs() as lines:
        async with bench.worker(consumer).running():
            await bench.pass_s()
    told = await bench.told(event, consumer)
    assert (told.attempts, told.tried[0].error) == (1, type(error).__name__)
    defects = [line for line in lines if line["event"] == "consumer failed"]
    assert len(defects) == logged
    assert all(line["where"] for line in defects)
    assert "a customer's name" not in str(lines)


@pytest.mark.parametrize("given", [[], [Outcome()] * 3, None])
async def test_a_wrong_number_of_outcomes_is_a_failed_try(bench: Bench, given: Any) -> None:
    async def miscount(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        return given  # type: ignore[no-any-return]  # what a consumer with a defect may give

    consumer = Scripted(does=miscount)
    event = await bench.change(consumer)
    with capture_logs() as lines:
        async with bench.worker(consumer).running():
            await bench.pass_s()
    assert (await bench.told(event, consumer)).tried[0].error in ("wrong_outcomes", "TypeError")
    assert [line["log_level"] for line in lines if line["event"] != "event handled"] == ["error"]


async def test_an_effect_that_hangs_is_stopped_in_time_and_tried_again(bench: Bench) -> None:
    consumer = Scripted(does=hang, within_s=3.0)
    event = await bench.change(consumer)
    async with bench.worker(consumer).running():
        await bench.pass_s(2.8)
        assert (await bench.told(event, consumer)).attempts == 0
        await bench.pass_s(0.4)
        told = await bench.told(event, consumer)
        assert (told.attempts, told.tried[0].error, told.state) == (1, "timeout", "delayed")
        assert told.tried[0].duration_ms == pytest.approx(3_000.0, abs=200.0)
        assert consumer.stopped == 1
        await bench.pass_s(2.0)
        assert consumer.records == ["j1", "j1"]


async def test_no_effect_may_take_longer_than_all_may(bench: Bench) -> None:
    consumer = Scripted(does=hang, within_s=1_000.0)
    event = await bench.change(consumer)
    async with bench.worker(consumer).running():
        await bench.pass_s(ACT_WITHIN_S + 0.2)
        assert (await bench.told(event, consumer)).tried[0].error == "timeout"


async def test_who_hangs_delays_neither_another_consumer_nor_another_record(bench: Bench) -> None:
    async def hang_at_first(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        return await hang(batch, request_ids) if batch[0].record_id == "j1" else [Outcome()]

    hanging, prompt = Scripted("relay:crm", hang_at_first, parallel=2), Scripted("settle")
    async with bench.worker(hanging, prompt).running():
        for record_id in ("j1", "j2", "j3", "j1"):
            await bench.change(hanging, prompt, record_id=record_id)
        await bench.pass_s()
        assert prompt.records == ["j1", "j2", "j3", "j1"]
        assert hanging.records == ["j1", "j2", "j3"]


async def test_no_more_is_under_way_at_once_than_a_consumer_allows(bench: Bench) -> None:
    consumer = Scripted(does=hang, parallel=2, batch_most=3)
    for number in range(10):
        await bench.change(consumer, record_id=f"j{number}")
    async with bench.worker(consumer).running():
        await bench.pass_s(1.0)
        assert consumer.given == [("j0", "j1", "j2"), ("j3", "j4", "j5")]


async def test_each_event_of_a_batch_has_an_outcome_of_its_own(bench: Bench) -> None:
    async def some(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        return [Outcome() if event.record_id == "j2" else Outcome("gone", retry=False) for event in batch]

    consumer = Scripted(does=some, batch_most=10)
    events = [await bench.change(consumer, record_id=f"j{number}") for number in (1, 2, 3)]
    async with bench.worker(consumer).running():
        await bench.pass_s()
    assert [(await bench.told(event, consumer)).state for event in events] == ["dead", "done", "dead"]


async def test_long_answers_are_cut(bench: Bench) -> None:
    consumer = Scripted(does=Failing(1, Outcome("e" * 5_000, retry=False, answer="a" * 5_000)))
    event = await bench.change(consumer)
    async with bench.worker(consumer).running():
        await bench.pass_s()
    told = await bench.told(event, consumer)
    lengths = (len(told.tried[0].answer), len(told.tried[0].error), len(told.reason))
    assert lengths == (ANSWER_MOST,) * 3


async def test_while_the_log_is_away_the_worker_rests_goes_on_by_itself_and_stops_nothing(bench: Bench) -> None:
    release = asyncio.Event()

    async def wait(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        if batch[0].record_id == "j1":
            await release.wait()
        return [Outcome()]

    consumer = Scripted(does=wait)
    first = await bench.change(consumer)
    with capture_logs() as lines:
        async with bench.worker(consumer).running():
            await bench.pass_s()
            bench.events.failing["take"] = [EventsUnavailable("gone") for _ in range(3)]
            await bench.pass_s(5.1)
            second = await bench.change(consumer, record_id="j2")
            await bench.pass_s(2.0)
            release.set()
            await bench.pass_s()
    assert [(await bench.told(event, consumer)).state for event in (first, second)] == ["done", "done"]
    assert consumer.stopped == 0
    told = [line["event"] for line in lines if line["event"] != "event handled"]
    assert told == ["event log unavailable", "event log back"]
    failed_at = [at for what, at in bench.events.asked if what == "take" and at >= 5.0][:4]
    assert [later - earlier for earlier, later in itertools.pairwise(failed_at)] == pytest.approx([0.5] * 3, abs=0.15)


async def test_a_log_that_is_away_at_the_start_is_waited_for(bench: Bench) -> None:
    bench.events.failing["open"] = [EventsUnavailable("gone")] * 3
    consumer = Scripted()
    await bench.change(consumer)
    with capture_logs() as lines:
        async with bench.worker(consumer).running():
            await bench.pass_s(1.0)
            assert consumer.records == []
            await bench.pass_s(1.0)
    assert consumer.records == ["j1"]
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["event log unavailable"]


async def test_what_could_not_be_noted_is_said_to_be_given_back(bench: Bench) -> None:
    bench.events.failing["settle"] = [EventsUnavailable("gone")]
    consumer = Scripted()
    event = await bench.change(consumer)
    async with bench.worker(consumer).running():
        await bench.pass_s()
    assert bench.handled() == {"given_back": 1}
    assert (await bench.told(event, consumer)).attempts == 0


@pytest.mark.parametrize("what", ["open", "take", "settle"])
async def test_a_defect_of_the_log_costs_a_rest_and_loses_nothing(bench: Bench, what: str) -> None:
    bench.events.failing[what] = [RuntimeError("a defect")]
    consumer = Scripted()
    event = await bench.change(consumer)
    with capture_logs() as lines:
        async with bench.worker(consumer).running():
            await bench.pass_s(6.0)
    assert (await bench.told(event, consumer)).state == "done"
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["worker failed"]


async def test_a_worker_that_stops_gives_back_what_it_had_in_hand(bench: Bench) -> None:
    hanging, prompt = Scripted(does=hang), Scripted()
    event = await bench.change(hanging)
    async with bench.worker(hanging).running():
        await bench.pass_s()
        assert hanging.records == ["j1"]
    assert hanging.stopped == 1
    assert bench.handled() == {"given_back": 1}
    async with bench.worker(prompt).running():
        await bench.pass_s()
    told = await bench.told(event, prompt)
    assert (told.state, told.attempts) == ("done", 1)


@pytest.mark.parametrize("trouble", [EventsUnavailable("gone"), RuntimeError("a defect")])
async def test_a_worker_stops_even_when_nothing_can_be_given_back(bench: Bench, trouble: Exception) -> None:
    bench.events.failing["aclose"] = [trouble]
    async with asyncio.timeout(5), bench.worker(Scripted()).running():
        await bench.pass_s()
    asked = len(bench.events.asked)
    await bench.pass_s(10.0)
    assert len(bench.events.asked) == asked


async def test_an_effect_that_cannot_be_stopped_holds_up_the_end_no_longer_than_a_second(bench: Bench) -> None:
    release = asyncio.Event()

    async def stubborn(batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return [Outcome()]

    consumer, other = Scripted(does=stubborn), Scripted()
    await bench.change(consumer)
    began = asyncio.get_running_loop().time()
    with capture_logs() as lines:
        async with bench.worker(consumer).running():
            await bench.pass_s()
    assert asyncio.get_running_loop().time() - began < 1.5
    assert [line["event"] for line in lines] == ["an effect cannot be stopped"]
    # it may still be at work on that record
    async with bench.worker(other).running():
        await bench.pass_s()
    assert other.records == []
    release.set()
    await _quiet()


async def test_until_idle_means_until_nothing_is_due_delayed_or_to_be_tried_again(bench: Bench) -> None:
    failing, delayed, foreign = Scripted("a", Failing(2)), Scripted("b", delay_s=3.0), Scripted("c")
    await bench.change(failing, delayed, foreign)
    running = asyncio.create_task(bench.worker(failing, delayed).run_until_idle([ACCOUNT, "other"]))
    await bench.pass_s(5.5)
    assert not running.done()
    await bench.pass_s(1.5)
    assert running.done()
    assert await running
    assert (len(failing.records), len(delayed.records)) == (3, 1)
    asked = len(bench.events.asked)
    await bench.pass_s(10.0)
    assert len(bench.events.asked) == asked


async def test_until_idle_ends_when_its_time_is_over(bench: Bench) -> None:
    consumer = Scripted(delay_s=100.0)
    await bench.change(consumer)
    running = asyncio.create_task(bench.worker(consumer).run_until_idle([ACCOUNT], within_s=2.0))
    await bench.pass_s(2.5)
    assert running.done()
    assert not await running


def test_two_consumers_of_one_name_are_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="one name"):
        bench.worker(Scripted("a"), Scripted("a"))
