"""The breaker's table, its two rules, and its box."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.resilience.breaker import Breaker, BreakerBox, BreakerPolicy, Event, State

COUNTED = BreakerPolicy(window_s=120, open_s=60, failures=5)
SHARED = BreakerPolicy(window_s=60, open_s=15, min_calls=20, failure_share=0.5)


def closed() -> Breaker:
    return Breaker()


def opened() -> Breaker:
    return Breaker(State.OPEN, since=0.0)


def probing() -> Breaker:
    return Breaker(State.HALF_OPEN, since=60.0, probe_since=60.0)


@pytest.mark.parametrize(
    ("start", "event", "now", "state"),
    [
        (closed, Event.ASKED, 0, State.CLOSED),
        (closed, Event.SUCCEEDED, 0, State.CLOSED),
        (closed, Event.FAILED, 0, State.CLOSED),
        (closed, Event.ABANDONED, 0, State.CLOSED),
        (closed, Event.REFUSED, 0, State.OPEN),
        (closed, Event.MOVED, 0, State.CLOSED),
        (opened, Event.ASKED, 59, State.OPEN),
        (opened, Event.ASKED, 60, State.HALF_OPEN),
        (opened, Event.SUCCEEDED, 59, State.OPEN),
        (opened, Event.SUCCEEDED, 61, State.OPEN),
        (opened, Event.FAILED, 59, State.OPEN),
        (opened, Event.ABANDONED, 61, State.OPEN),
        (opened, Event.REFUSED, 59, State.OPEN),
        (probing, Event.ASKED, 61, State.HALF_OPEN),
        (probing, Event.SUCCEEDED, 61, State.CLOSED),
        (probing, Event.FAILED, 61, State.OPEN),
        (probing, Event.ABANDONED, 61, State.HALF_OPEN),
        (probing, Event.REFUSED, 61, State.OPEN),
        (probing, Event.MOVED, 61, State.HALF_OPEN),
    ],
)
def test_each_event_leads_where_the_table_says(
    start: Callable[[], Breaker], event: Event, now: float, state: State
) -> None:
    assert start().step(event, now, COUNTED).state is state


@pytest.mark.parametrize(
    ("times", "state"),
    [
        ([0, 1, 2, 3], State.CLOSED),
        ([0, 1, 2, 3, 4], State.OPEN),
        ([0, 1, 2, 3, 119.9], State.OPEN),
        ([0, 1, 2, 3, 120], State.CLOSED),
        ([0, 100, 110, 130, 140, 150], State.OPEN),
    ],
)
def test_it_opens_at_so_many_failures_within_the_window(times: list[float], state: State) -> None:
    breaker = Breaker()
    for at in times:
        breaker = breaker.step(Event.FAILED, at, COUNTED)
        breaker = breaker.step(Event.SUCCEEDED, at, COUNTED)  # successes between do not excuse failures
    assert breaker.state is state


@pytest.mark.parametrize(
    ("succeeded", "failed", "state"),
    [
        (0, 19, State.CLOSED),
        (0, 20, State.OPEN),
        (10, 10, State.CLOSED),
        (10, 11, State.OPEN),
        (200, 150, State.CLOSED),
        (200, 201, State.OPEN),
    ],
)
def test_it_opens_when_more_than_the_share_of_enough_calls_failed(succeeded: int, failed: int, state: State) -> None:
    breaker = Breaker()
    for _ in range(succeeded):
        breaker = breaker.step(Event.SUCCEEDED, 1.0, SHARED)
    for _ in range(failed):
        breaker = breaker.step(Event.FAILED, 2.0, SHARED)
    assert breaker.state is state


def test_failures_older_than_the_window_are_forgotten_by_the_share_rule() -> None:
    breaker = Breaker()
    for _ in range(19):
        breaker = breaker.step(Event.FAILED, 0.0, SHARED)
    assert breaker.step(Event.FAILED, 59.0, SHARED).state is State.OPEN
    assert breaker.step(Event.FAILED, 61.0, SHARED).state is State.CLOSED


@given(st.lists(st.tuples(st.sampled_from(list(Event)), st.floats(0, 40))), st.sampled_from([COUNTED, SHARED]))
def test_memory_stays_bounded_and_at_most_one_probe_is_admitted_at_a_time(
    steps: list[tuple[Event, float]], policy: BreakerPolicy
) -> None:
    breaker, now, probes, probe_at = Breaker(), 0.0, 0, 0.0
    for event, pause in steps:
        now += pause
        if event is Event.ASKED and breaker.state_at(now, policy) is State.HALF_OPEN and breaker.admits(now, policy):
            assert probes == 0 or now >= probe_at + policy.open_s
            probes, probe_at = 1, now
        breaker = breaker.step(event, now, policy)
        if breaker.state is not State.HALF_OPEN or breaker.probe_since is None:
            probes = 0
        assert len(breaker.failed_at) <= policy.failures
        assert len(breaker.buckets) <= 10


@pytest.mark.parametrize(
    "values",
    [
        {"window_s": 0, "open_s": 1, "failures": 1},
        {"window_s": 1, "open_s": 0, "failures": 1},
        {"window_s": 1, "open_s": 1},
        {"window_s": 1, "open_s": 1, "failures": -1},
        {"window_s": 1, "open_s": 1, "min_calls": 1, "failure_share": 1.0},
    ],
)
def test_a_senseless_policy_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        BreakerPolicy(**values)  # type: ignore[arg-type]


def state_of(box: BreakerBox) -> State:
    return box.state


def fail_until_open(box: BreakerBox) -> None:
    for _ in range(COUNTED.failures):
        assert box.admit()
        box.failed()


def test_the_box_opens_refuses_probes_and_closes_again_telling_each_change_once() -> None:
    clock, told = ManualClock(), list[State]()
    box = BreakerBox(COUNTED, clock, told.append)
    fail_until_open(box)
    assert state_of(box) is State.OPEN
    assert not box.admit()
    assert box.retry_in_s == 60
    clock.advance(59)
    assert not box.admit()
    clock.advance(1)
    assert state_of(box) is State.HALF_OPEN
    assert box.retry_in_s == 0
    assert box.admit()
    assert not box.admit()
    box.succeeded()
    assert state_of(box) is State.CLOSED
    assert box.admit()
    assert told == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_failed_probe_opens_it_for_another_whole_time() -> None:
    clock = ManualClock()
    box = BreakerBox(COUNTED, clock)
    fail_until_open(box)
    clock.advance(60)
    assert box.admit()
    clock.advance(5)
    box.failed()
    assert state_of(box) is State.OPEN
    assert box.retry_in_s == 60


def test_an_abandoned_probe_makes_way_for_the_next_at_once() -> None:
    clock = ManualClock()
    box = BreakerBox(COUNTED, clock)
    fail_until_open(box)
    clock.advance(60)
    assert box.admit()
    box.abandoned()
    assert state_of(box) is State.HALF_OPEN
    assert box.admit()


def test_a_probe_that_never_reports_makes_way_after_the_open_time() -> None:
    clock = ManualClock()
    box = BreakerBox(COUNTED, clock)
    fail_until_open(box)
    clock.advance(60)
    assert box.admit()
    clock.advance(59)
    assert not box.admit()
    clock.advance(1)
    assert box.admit()


@pytest.mark.parametrize("report", [BreakerBox.succeeded, BreakerBox.failed, BreakerBox.abandoned])
def test_a_call_admitted_before_it_opened_changes_nothing_when_it_reports_late(
    report: Callable[[BreakerBox, float], None],
) -> None:
    clock = ManualClock()
    box = BreakerBox(COUNTED, clock)
    assert box.admit()
    late = clock.monotonic()
    clock.advance(1)
    fail_until_open(box)
    report(box, late)
    assert state_of(box) is State.OPEN
    clock.advance(60)
    report(box, late)
    assert state_of(box) is State.HALF_OPEN
    assert box.admit()
    report(box, late)
    assert state_of(box) is State.HALF_OPEN
    assert not box.admit()  # the probe is still out
    box.succeeded(clock.monotonic())
    assert state_of(box) is State.CLOSED


def test_failures_of_calls_from_before_it_closed_do_not_count_against_it() -> None:
    clock = ManualClock()
    box = BreakerBox(COUNTED, clock)
    fail_until_open(box)
    clock.advance(60)
    assert box.admit()
    clock.advance(1)
    box.succeeded()
    for _ in range(COUNTED.failures):
        box.failed(began=0.0)
    assert state_of(box) is State.CLOSED


def test_what_has_moved_may_be_probed_at_once_and_not_sat_out() -> None:
    moved = opened().step(Event.MOVED, 10, COUNTED)
    assert (opened().admits(10, COUNTED), moved.admits(10, COUNTED)) == (False, True)
    assert moved.step(Event.ASKED, 10, COUNTED).state is State.HALF_OPEN


def test_a_probe_of_where_it_was_before_says_nothing_of_where_it_is() -> None:
    moved = probing().step(Event.MOVED, 61, COUNTED)
    assert moved.admits(61, COUNTED)
    for result in (Event.FAILED, Event.REFUSED, Event.SUCCEEDED):
        assert moved.step(result, 62, COUNTED, began=60.0) == moved
    again = moved.step(Event.ASKED, 62, COUNTED)
    assert again.step(Event.FAILED, 63, COUNTED, began=60.0) == again
    assert again.step(Event.SUCCEEDED, 63, COUNTED, began=62.0).state is State.CLOSED


def test_failures_of_where_it_was_before_are_forgotten() -> None:
    breaker = Breaker()
    for at in range(4):
        breaker = breaker.step(Event.FAILED, at, COUNTED, began=at)
    breaker = breaker.step(Event.MOVED, 5, COUNTED)
    for at in range(4):
        breaker = breaker.step(Event.FAILED, 6 + at, COUNTED, began=4.5)  # sent before it moved
    assert breaker.step(Event.FAILED, 10, COUNTED, began=10).state is State.CLOSED


def test_a_refusal_of_a_call_from_before_it_closed_opens_nothing() -> None:
    reclosed = probing().step(Event.SUCCEEDED, 61, COUNTED, began=60.0)
    assert reclosed.step(Event.REFUSED, 62, COUNTED, began=59.0).state is State.CLOSED


def test_the_box_opens_when_refused_and_admits_when_moved() -> None:
    clock = ManualClock()
    told: list[State] = []
    box = BreakerBox(COUNTED, clock, told.append)
    assert box.admit()
    box.refused(clock.monotonic())
    assert (box.state, box.admit()) == (State.OPEN, False)
    box.moved()
    assert (box.retry_in_s, box.admit(), box.state) == (0.0, True, State.HALF_OPEN)
    box.succeeded(clock.monotonic())
    assert told == [State.OPEN, State.HALF_OPEN, State.CLOSED]
