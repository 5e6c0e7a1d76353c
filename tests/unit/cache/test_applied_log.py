"""What applied lines make dirty, and what a break in their chain does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.applied_log import AppliedLog
from jobnimbus_mcp.cache.ports import START, Logged, Standing

JOBS = ("jobs", "job:j1")


def at(number: int) -> str:
    return f"{number}-0" if number else START


def line(number: int, *tags: str, previous: int | None = None) -> Logged:
    return Logged(at(number), at(number - 1 if previous is None else previous), tags)


def log_at(number: int, *, epoch: bytes = b"e1", most_tags: int = 100) -> AppliedLog:
    log = AppliedLog(most_tags)
    assert log.meet(Standing(epoch, at(number)), None)
    return log


def dirtied(log: AppliedLog, since: int) -> bool:
    return not log.clean(since, JOBS, "p1")


@pytest.mark.parametrize(
    ("tags", "dirty"),
    [
        (("jobs",), True),
        (("contacts", "job:j1"), True),
        (("contacts", "job:j2"), False),
        (("*",), True),
        (("bearer:p1",), True),
        (("bearer:p2",), False),
        ((), False),
    ],
)
def test_a_line_makes_dirty_what_it_names(tags: tuple[str, ...], dirty: bool) -> None:
    log = log_at(5)
    since = log.mark
    log.apply([line(6, *tags)])
    assert dirtied(log, since) is dirty
    assert not dirtied(log, log.mark)
    assert log.position == at(6)


def test_a_value_stays_dirty_when_others_are_told_later() -> None:
    log = log_at(0)
    since = log.mark
    log.apply([line(1, "jobs"), line(2, "contacts")])
    between = log.mark
    log.apply([line(3, "contacts")])
    assert dirtied(log, since)
    assert not dirtied(log, between)


def test_lines_already_applied_are_ignored() -> None:
    log = log_at(5)
    log.apply([line(6, "jobs")])
    since = log.mark
    log.apply([line(5, "*"), line(6, "jobs"), line(6, "*")])
    assert not dirtied(log, since)
    assert (log.position, log.lines) == (at(6), 1)


def test_positions_are_compared_as_numbers() -> None:
    log = log_at(0)
    log.apply([Logged("9-9", START, ()), Logged("9-10", "9-9", ("jobs",)), Logged("10-0", "9-10", ())])
    assert log.position == "10-0"
    assert log.reached("9-11")
    assert not log.reached("10-1")
    assert log.cleared == {"start": 1}


def test_a_line_whose_predecessor_was_not_applied_makes_everything_dirty() -> None:
    log = log_at(5)
    since = log.mark
    log.apply([line(8, "contacts", previous=7), line(9, "contacts")])
    assert dirtied(log, since)
    assert (log.position, log.cleared["gap"]) == (at(9), 1)


def test_nothing_is_applied_before_the_store_has_told_where_its_log_stands() -> None:
    log = AppliedLog()
    log.apply([line(1, "jobs")])
    assert log.position is None
    assert not log.reached(START)


def test_what_was_read_before_the_first_standing_is_dirty() -> None:
    log = AppliedLog()
    since = log.mark
    log.meet(Standing(b"e1", at(5)), None)
    assert dirtied(log, since)


def test_a_store_without_an_epoch_grants_nothing() -> None:
    assert not AppliedLog().meet(Standing(b"", at(5)), None)
    assert not log_at(5).meet(Standing(b"", at(5)), at(5))


@pytest.mark.parametrize("epoch", [b"e2", b""])
def test_another_epoch_or_none_makes_everything_dirty(epoch: bytes) -> None:
    log = log_at(5)
    since = log.mark
    assert log.meet(Standing(epoch, at(5)), at(5)) is (epoch != b"")
    assert dirtied(log, since)
    since = log.mark
    assert log.meet(Standing(b"e3", at(5)), at(5))
    assert dirtied(log, since)


def test_while_there_is_no_epoch_nothing_stays_clean() -> None:
    log = log_at(5)
    log.meet(Standing(b"", at(5)), at(5))
    since = log.mark
    assert not log.meet(Standing(b"", at(5)), at(5))
    assert dirtied(log, since)
    assert log.cleared["epoch"] == 1


def test_the_same_epoch_and_position_leave_all_clean() -> None:
    log = log_at(5)
    since = log.mark
    assert log.meet(Standing(b"e1", at(5)), at(5))
    assert log.meet(Standing(b"e1", at(7)), at(5))
    assert not dirtied(log, since)
    assert log.position == at(5)


def test_a_store_that_stands_behind_has_lost_lines() -> None:
    log = log_at(5)
    since = log.mark
    assert not log.meet(Standing(b"e1", at(3)), at(5))
    assert dirtied(log, since)
    assert log.position == at(3)


def test_an_answer_overtaken_by_a_line_has_lost_nothing() -> None:
    log = log_at(5)
    log.apply([line(6, "contacts")])
    since = log.mark
    assert log.meet(Standing(b"e1", at(5)), at(5))
    assert not dirtied(log, since)
    assert log.position == at(6)


def test_a_store_that_lost_lines_does_not_take_back_what_was_heard_since() -> None:
    log = log_at(5)
    log.apply([line(9, "jobs", previous=0)])
    assert not log.meet(Standing(b"e1", START), at(5))
    assert log.position == at(9)


def test_skipping_makes_everything_dirty() -> None:
    log = log_at(5)
    since = log.mark
    log.skip_to(at(9))
    assert dirtied(log, since)
    assert log.position == at(9)


def test_a_forgotten_tag_makes_what_is_older_than_it_dirty() -> None:
    log = log_at(0, most_tags=2)
    before = log.mark
    log.apply([line(1, "job:j1")])
    after = log.mark
    log.apply([line(2, "a"), line(3, "b")])
    assert not log.clean(before, ("other",), "p1")
    assert log.clean(after, JOBS, "p1")
    assert not log.clean(after, ("a",), "p1")


def test_a_tag_that_is_told_again_is_remembered_longer() -> None:
    log = log_at(0, most_tags=2)
    log.apply([line(1, "a"), line(2, "b")])
    since = log.mark
    log.apply([line(3, "a"), line(4, "c")])
    assert log.clean(since, ("b",), "p1")
    assert not log.clean(since, ("a",), "p1")


TAGS = st.lists(st.sampled_from(["a", "b", "c", "d", "bearer:p1", "bearer:p2", "*"]), max_size=3).map(tuple)


@given(
    before=st.lists(TAGS, max_size=10),
    after=st.lists(TAGS, max_size=10),
    mine=st.lists(st.sampled_from("abcd"), min_size=1, max_size=2, unique=True),
    most_tags=st.integers(1, 8),
)
def test_clean_is_never_said_of_what_a_later_line_names(
    before: list[tuple[str, ...]], after: list[tuple[str, ...]], mine: list[str], most_tags: int
) -> None:
    log = log_at(0, most_tags=most_tags)
    lines = [line(number, *tags) for number, tags in enumerate(before + after, start=1)]
    log.apply(lines[: len(before)])
    since = log.mark
    log.apply(lines[len(before) :])
    named = any({"*", "bearer:p1", *mine} & set(tags) for tags in after)
    clean = log.clean(since, mine, "p1")
    assert not (clean and named)
    if most_tags >= 6:
        assert clean is not named
