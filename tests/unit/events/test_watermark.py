"""Where polling resumes, how soon it comes again, and the share of changes no webhook told of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.events.watermark import (
    CALM_ROUNDS,
    INDEX_LAG_S,
    OVERLAP_S,
    YOUNG_S,
    Loss,
    Mark,
    interval_s,
    is_young,
    loss_hours,
)

NOW = 1_790_000_000


@pytest.mark.parametrize(
    ("longest_s", "calm_rounds", "behind", "expected"),
    [
        (60, CALM_ROUNDS, False, 60),
        (60, CALM_ROUNDS + 5, False, 60),
        (60, CALM_ROUNDS - 1, False, 15),
        (60, 0, False, 15),
        (60, CALM_ROUNDS, True, 15),
        (600, 0, False, 150),
        (12, 0, False, 5),
        (5, 0, False, 5),
        (2, 0, False, 2),
        (2, CALM_ROUNDS, False, 2),
    ],
)
def test_the_interval_is_a_quarter_while_webhooks_seem_to_be_missing(
    longest_s: float, calm_rounds: int, behind: bool, expected: float
) -> None:
    assert interval_s(longest_s, calm_rounds=calm_rounds, behind=behind) == expected


@given(longest_s=st.floats(0.5, 86_400), calm_rounds=st.integers(0, 9), behind=st.booleans())
def test_the_interval_is_never_longer_than_the_longest(longest_s: float, calm_rounds: int, behind: bool) -> None:
    assert 0 < interval_s(longest_s, calm_rounds=calm_rounds, behind=behind) <= longest_s


def test_a_question_reaches_back_by_the_overlap() -> None:
    assert Mark(NOW).since(NOW + 60) == NOW - OVERLAP_S


def test_a_first_mark_asks_for_nothing_older_than_the_index_may_lag() -> None:
    assert Mark.first(NOW + 0.9).since(NOW + 60) == NOW - INDEX_LAG_S


def test_a_mark_set_by_a_clock_that_was_ahead_does_not_skip_what_happens_now() -> None:
    ahead = Mark(NOW + 86_400, NOW + 86_000)
    assert ahead.since(NOW) == NOW - OVERLAP_S


def test_a_mark_after_everything_was_read_is_when_it_was_asked() -> None:
    assert Mark(NOW, 5).after(NOW + 60.7) == Mark(NOW + 60, 5)


def test_a_mark_after_a_cut_resumes_where_reading_stopped() -> None:
    resumed = Mark(NOW).after(NOW + 60, read_to=NOW - 100)
    assert resumed.since(NOW + 75) == NOW - 100 - INDEX_LAG_S


@given(
    watermark=st.integers(0, NOW),
    floor=st.integers(0, NOW),
    ahead_s=st.integers(0, 400),
)
def test_each_cut_gets_further_however_many_share_one_second(watermark: int, floor: int, ahead_s: int) -> None:
    mark, asked_at = Mark(watermark, floor), NOW + 60.0
    since = mark.since(asked_at)
    following = mark.after(asked_at, read_to=since + ahead_s)
    assert following.since(asked_at + 15) > since
    assert mark.after(asked_at, read_to=since).since(asked_at + 15) == since + 1


@given(updated_at=st.integers(NOW - 400, NOW + 400), asked_at=st.floats(NOW, NOW + 60), later_s=st.floats(1, 60))
def test_every_version_is_first_seen_by_exactly_one_final_round(
    updated_at: int, asked_at: float, later_s: float
) -> None:
    """Of two rounds that follow each other, whichever looks at a version for good is the one that counts it."""
    mark = Mark(int(asked_at))
    seen_before = updated_at <= int(asked_at) - YOUNG_S
    assert mark.is_first_seen(updated_at, asked_at + later_s) is (
        not seen_before and updated_at <= asked_at + later_s + OVERLAP_S
    )


@pytest.mark.parametrize(
    ("age_s", "young"),
    [(0, True), (YOUNG_S - 0.5, True), (YOUNG_S, False), (60, False), (-OVERLAP_S, True), (-OVERLAP_S - 1, False)],
)
def test_a_version_is_young_while_its_second_may_still_hold_another(age_s: float, young: bool) -> None:
    assert is_young(NOW, NOW + age_s) is young


@pytest.mark.parametrize(
    ("missed", "heard", "rate"), [(0, 0, 0.0), (0, 9, 0.0), (1, 3, 0.25), (4, 0, 1.0), (1, 2, 0.3333)]
)
def test_the_rate_is_the_share_that_was_missed(missed: int, heard: int, rate: float) -> None:
    assert Loss(missed, heard).told() == {"missed": missed, "heard": heard, "rate": rate}


def test_losses_are_of_the_last_day() -> None:
    hours = loss_hours(NOW)
    assert len(hours) == 24
    assert hours[-1] == NOW // 3600
