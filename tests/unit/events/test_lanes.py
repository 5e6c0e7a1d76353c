"""Lanes: one record's events one after another, and nobody else's behind them."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.events.lanes import Lanes


def test_the_longest_due_comes_first_and_what_is_not_due_stays() -> None:
    lanes: Lanes[str] = Lanes()
    for record, key, due_at in (("a", "a1", 3.0), ("b", "b1", 1.0), ("c", "c1", 2.0), ("d", "d1", 9.0)):
        assert lanes.add(record, key, due_at)
    assert lanes.ready(5.0, 2) == ["b1", "c1"]
    assert lanes.ready(5.0, 2) == ["a1"]
    assert lanes.ready(5.0, 2) == []
    assert lanes.next_due() == 9.0
    assert len(lanes) == 4


def test_of_one_record_one_is_out_at_a_time() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add("a", "a1", 1.0)
    lanes.add("a", "a2", 0.0)
    assert lanes.next_due() == 1.0
    assert lanes.ready(5.0, 10) == ["a1"]
    assert lanes.is_out("a1")
    assert not lanes.is_out("a2")
    assert lanes.next_due() is None
    assert lanes.finish("a1")
    assert lanes.ready(5.0, 10) == ["a2"]
    assert lanes.finish("a2")
    assert len(lanes) == 0


def test_what_is_put_back_stays_the_head_of_its_record() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add("a", "a1", 0.0)
    lanes.add("a", "a2", 0.0)
    lanes.add("b", "b1", 0.0)
    assert lanes.ready(1.0, 1) == ["a1"]
    assert lanes.put_back("a1", 4.0)
    assert lanes.ready(1.0, 10) == ["b1"]
    assert lanes.next_due() == 4.0
    assert lanes.ready(4.0, 10) == ["a1"]


def test_a_head_that_waits_can_be_due_sooner() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add("a", "a1", 50.0)
    lanes.put_back("a1", 2.0)
    assert lanes.ready(2.0, 10) == ["a1"]
    assert lanes.ready(60.0, 10) == []


def test_a_key_is_there_once_and_the_unknown_is_passed_over() -> None:
    lanes: Lanes[str] = Lanes()
    assert lanes.add("a", "a1", 0.0)
    assert not lanes.add("b", "a1", 0.0)
    assert not lanes.finish("x")
    assert not lanes.put_back("x", 1.0)
    assert lanes.forget(["x", "a1"]) == 1
    assert "a1" not in lanes
    assert lanes.next_due() is None


def test_a_forgotten_head_lets_the_next_one_out() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add("a", "a1", 0.0)
    lanes.add("a", "a2", 0.0)
    lanes.add("a", "a3", 0.0)
    assert lanes.ready(0.0, 1) == ["a1"]
    lanes.forget(["a1", "a2"])
    assert lanes.ready(0.0, 5) == ["a3"]


def test_what_is_forgotten_ahead_of_its_time_takes_no_room() -> None:
    lanes: Lanes[int] = Lanes()
    for number in range(5_000):
        lanes.add("a", number, 1e9)
        lanes.finish(number)
    assert len(lanes._heads) < 500


def test_a_long_lane_costs_no_more_per_key_than_a_short_one() -> None:
    lanes: Lanes[int] = Lanes()
    for number in range(50_000):
        lanes.add("a", number, 0.0)
    began = time.monotonic()
    for number in range(50_000):
        assert lanes.ready(0.0, 10) == [number]
        lanes.finish(number)
    assert time.monotonic() - began < 5.0


class _Naive:
    """The same by looking at everything each time."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, float]] = []
        self.out: set[int] = set()

    def heads(self) -> list[tuple[float, int]]:
        seen: set[str] = set()
        found = []
        for record, key, due_at in self.rows:
            if record not in seen and key not in self.out:
                found.append((due_at, key))
            seen.add(record)
        return sorted(found)

    def knows(self, key: int) -> bool:
        return any(key == known for _, known, _ in self.rows)

    def ready(self, now: float, most: int) -> list[int]:
        found = [key for due_at, key in self.heads() if due_at <= now][:most]
        self.out.update(found)
        return found

    def put_back(self, key: int, due_at: float) -> bool:
        self.out.discard(key)
        found = self.knows(key)
        self.rows = [(record, known, due_at if known == key else due) for record, known, due in self.rows]
        return found

    def finish(self, key: int) -> bool:
        found = self.knows(key)
        self.out.discard(key)
        self.rows = [row for row in self.rows if row[1] != key]
        return found


_TIMES = st.integers(0, 6).map(float)
_KEYS = st.integers(0, 30)
_STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abc"), _TIMES),
    st.tuples(st.just("ready"), _TIMES, st.integers(1, 3)),
    st.tuples(st.just("put_back"), _KEYS, _TIMES),
    st.tuples(st.just("finish"), _KEYS),
    st.tuples(st.just("forget"), st.lists(_KEYS, max_size=4)),
)


@given(st.lists(_STEPS, max_size=10) | st.lists(_STEPS, min_size=40, max_size=80))
def test_lanes_do_what_looking_at_everything_would_do(steps: list[tuple[Any, ...]]) -> None:
    lanes: Lanes[int] = Lanes()
    naive = _Naive()
    added = 0
    for step in steps:
        match step:
            case ("add", record, due_at):
                assert lanes.add(record, added, due_at)
                naive.rows.append((record, added, due_at))
                added += 1
            case ("ready", now, most):
                assert lanes.ready(now, most) == naive.ready(now, most)
            case ("put_back", key, due_at):
                assert lanes.put_back(key, due_at) == naive.put_back(key, due_at)
            case ("finish", key):
                assert lanes.finish(key) == naive.finish(key)
            case ("forget", keys):
                assert lanes.forget(keys) == sum([naive.finish(key) for key in keys])
        heads = naive.heads()
        assert lanes.next_due() == (heads[0][0] if heads else None)
        assert len(lanes) == len(naive.rows)
        assert all(lanes.is_out(key) == (key in naive.out) for key in range(added))


def test_what_is_late_comes_before_what_is_of_a_later_time_and_not_out() -> None:
    lanes: Lanes[str] = Lanes()
    for key, of in (("second", 2.0), ("third", 3.0)):
        lanes.add("r", key, 0.0, of=of)
    lanes.add("r", "first", 0.0, of=1.0, late=True)
    assert in_order(lanes) == ["first", "second", "third"]


def test_what_is_late_stays_behind_what_is_out_and_before_the_rest() -> None:
    lanes: Lanes[str] = Lanes()
    for key, of in (("second", 2.0), ("third", 3.0)):
        lanes.add("r", key, 0.0, of=of)
    assert lanes.ready(0.0, 1) == ["second"]
    lanes.add("r", "first", 0.0, of=1.0, late=True)
    lanes.finish("second")
    assert in_order(lanes) == ["first", "third"]


def test_several_late_ones_keep_the_order_of_their_times_and_equal_ones_that_of_their_coming() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add("r", "fourth", 0.0, of=4.0)
    for key, of in (("first", 1.0), ("second", 2.0), ("also second", 2.0), ("third", 3.0)):
        lanes.add("r", key, 0.0, of=of, late=True)
    assert in_order(lanes) == ["first", "second", "also second", "third", "fourth"]


def test_what_is_not_late_comes_last_whatever_its_time() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add("r", "a", 0.0, of=9.0)
    lanes.add("r", "b", 0.0, of=1.0)
    assert in_order(lanes) == ["a", "b"]


def test_a_late_head_that_is_not_due_holds_back_what_has_overtaken_it() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.add("r", "second", 0.0, of=2.0)
    lanes.add("r", "first", 5.0, of=1.0, late=True)
    assert lanes.ready(1.0, 9) == []
    assert lanes.next_due() == 5.0
    assert in_order(lanes, now=5.0) == ["first", "second"]


def in_order(lanes: Lanes[str], now: float = 0.0) -> list[str]:
    """All of one record's keys, each finished before the next."""
    found: list[str] = []
    while ready := lanes.ready(now, 9):
        (key,) = ready
        found.append(key)
        lanes.finish(key)
    return found
