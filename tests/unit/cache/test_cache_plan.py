"""The decisions behind a read: what is done with what was found, how long what was fetched is kept, when to wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.codec import Entry
from jobnimbus_mcp.cache.early import REACH, worth_refreshing
from jobnimbus_mcp.cache.floors import Life, life
from jobnimbus_mcp.cache.outcome import Loaded, Status, Tier
from jobnimbus_mcp.cache.plan import Course, Found, course, fresh_left_s, origin_failed, served, too_old
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import Floor
from jobnimbus_mcp.cache.throttle import Throttle, throttle_s
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
)

POLICY = Policy(600, jitter=0, stale_s=60, error_s=1800, settle_s=6)


def entry(*, negative: bool = False, fresh_s: float = 600, kept_s: float = 2400) -> Entry:
    return Entry(b"v", negative, 1000.0, "0" * 16, fresh_s, kept_s, 1.0)


@pytest.mark.parametrize(
    ("left_s", "dirty", "negative", "expected"),
    [
        (0.001, False, False, Course.SERVE),
        (600, False, True, Course.SERVE),
        (0, False, False, Course.SERVE_AND_REFRESH),
        (-59.9, False, False, Course.SERVE_AND_REFRESH),
        (-60, False, False, Course.LOAD_OR_SERVE),
        (-1799, False, False, Course.LOAD_OR_SERVE),
        (-1800, False, False, Course.LOAD),
        (0, False, True, Course.LOAD),
        (500, True, False, Course.SERVE_AND_REFRESH),
        (-100, True, False, Course.LOAD_OR_SERVE),
        (500, True, True, Course.LOAD),
    ],
)
def test_what_is_done_with_what_was_found(left_s: float, dirty: bool, negative: bool, expected: Course) -> None:
    found = Found(entry(negative=negative), Tier.L2, left_s, 0.0, dirty)
    assert course(found, POLICY) is expected


def test_without_allowances_what_is_over_is_loaded() -> None:
    bare = Policy(600)
    assert course(Found(entry(), Tier.L2, 0.0, 0.0), bare) is Course.LOAD
    assert course(Found(entry(), Tier.L2, -1.0, 0.0), bare) is Course.LOAD
    assert course(Found(entry(), Tier.L2, 1.0, 0.0, dirty=True), bare) is Course.SERVE_AND_REFRESH


def test_what_remains_fresh_needs_no_clock() -> None:
    assert fresh_left_s(entry(), 2400) == 600
    assert fresh_left_s(entry(), 1801) == 1
    assert fresh_left_s(entry(), 1700) == -100
    assert fresh_left_s(entry(), 2500) == 600  # by a store that keeps it longer than it was told, no longer fresh


@pytest.mark.parametrize(
    ("meanwhile", "dirty", "status", "reason", "ttl_s"),
    [
        ("", False, Status.HIT, None, 40.0),
        ("being fetched anew", False, Status.STALE, "past its lifetime; being fetched anew", 0.0),
        ("being fetched anew", True, Status.STALE, "changed since; being fetched anew", 0.0),
    ],
)
def test_what_is_served_stale_says_so(
    meanwhile: str, dirty: bool, status: Status, reason: str | None, ttl_s: float
) -> None:
    outcome = served(Found(entry(), Tier.L2, 40.0, 0.0, dirty), meanwhile=meanwhile)
    assert (outcome.status, outcome.stale_reason, outcome.ttl_s, outcome.fetched_at) == (status, reason, ttl_s, 1000.0)


@pytest.mark.parametrize(
    ("fetched_at", "max_age_s", "least_age_s", "expected"),
    [(0, None, 1e9, False), (990, 10, 0, False), (989, 10, 0, True), (999, 10, 11, True), (1002, 10, 0, True)],
)
def test_an_age_is_the_larger_of_what_the_clock_and_the_lifetime_tell(
    fetched_at: float, max_age_s: float | None, least_age_s: float, expected: bool
) -> None:
    assert too_old(fetched_at, max_age_s, 1000.0, least_age_s) is expected


@pytest.mark.parametrize(
    ("error", "took_s", "expected"),
    [
        (UpstreamServerError("x"), 0.0, True),
        (UpstreamRateLimited("x"), 0.0, True),
        (BudgetExhausted("x"), 0.0, True),
        (UpstreamTimeout("x"), 2.0, True),
        (UpstreamTimeout("x"), 1.9, False),
        (UpstreamUnauthorized("x"), 9.0, False),
        (UpstreamForbidden("x"), 9.0, False),
        (UpstreamNotFound("x"), 9.0, False),
        (UpstreamRejected("x"), 9.0, False),
        (ValueError("x"), 9.0, False),
    ],
)
def test_which_failures_tell_of_the_origin(error: Exception, took_s: float, expected: bool) -> None:
    assert origin_failed(error, took_s, POLICY) is expected


# -- floors ------------------------------------------------------------------------------------------------------------

ROWS = Loaded(b"rows", versions={"jobs:a": 100, "jobs:b": 200})


@pytest.mark.parametrize(
    ("floors", "expected"),
    [
        ({}, Life(600, 2400)),
        ({"tasks": Floor(0, 0.0), "tasks:a": Floor(999, 0.0)}, Life(600, 2400)),
        ({"jobs": Floor(0, 2.0)}, Life(4, 4)),
        ({"jobs": Floor(0, 5.5)}, Life(1, 1)),
        ({"jobs": Floor(0, 6.0)}, Life(600, 2400)),
        ({"jobs:a": Floor(101, 50.0)}, Life(0, 0, lags=True)),
        ({"jobs:a": Floor(99, 0.0)}, Life(600, 2400)),
        ({"jobs:a": Floor(100, 0.9)}, Life(1, 1)),
        ({"jobs:a": Floor(100, 1.1)}, Life(600, 2400)),
        ({"jobs": Floor(0, 1.0), "jobs:b": Floor(200, 0.5)}, Life(1, 1)),
    ],
)
def test_how_long_is_kept_what_was_fetched_after_a_change(floors: dict[str, Floor], expected: Life) -> None:
    assert life(POLICY, ROWS, ("jobs",), floors, 0.5) == expected


def test_where_floors_are_not_known_what_might_lag_is_kept_no_longer_than_it_may_lag() -> None:
    assert life(POLICY, ROWS, (), None, 0.5) == Life(6, 6)
    assert life(POLICY, Loaded(b""), ("jobs",), None, 0.5) == Life(6, 6)
    assert life(POLICY, Loaded(b""), (), None, 0.5) == Life(600, 2400)


@given(
    st.floats(0, 1),
    st.dictionaries(st.sampled_from(["jobs", "jobs:a"]), st.builds(Floor, st.integers(0, 300), st.floats(0, 60))),
)
def test_a_floor_never_lengthens_a_life(random01: float, floors: dict[str, Floor]) -> None:
    policy = Policy(600, stale_s=60)
    bare, under = (life(policy, ROWS, ("jobs",), known, random01) for known in ({}, floors))
    assert under.fresh_s <= bare.fresh_s
    assert under.fresh_s <= under.kept_s <= bare.kept_s
    assert under.lags == ("jobs:a" in floors and floors["jobs:a"].version_s > 100)


# -- early refresh -----------------------------------------------------------------------------------------------------


def test_the_share_of_hits_that_refresh_early_is_the_published_one() -> None:
    draws = [(number + 0.5) / 10_000 for number in range(10_000)]
    for left_s, cost_s, beta in [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (2.0, 1.0, 2.0), (0.5, 2.0, 1.0)]:
        share = sum(worth_refreshing(left_s, cost_s, beta, draw) for draw in draws) / len(draws)
        assert share == pytest.approx(math.exp(-left_s / (cost_s * beta)), abs=2e-4)


def test_nothing_is_refreshed_early_without_a_beta_or_a_cost() -> None:
    assert not worth_refreshing(0.001, 1.0, 0.0, 0.0)
    assert not worth_refreshing(0.001, 0.0, 1.0, 0.0)
    assert worth_refreshing(0.001, 1.0, 1.0, 0.0)


def test_what_is_out_of_reach_would_not_be_refreshed_anyway() -> None:
    assert not worth_refreshing(REACH * 1.0, 1.0, 2.0, 1e-8)


# -- the pause after a failure -----------------------------------------------------------------------------------------


def test_pauses_double_up_to_five_minutes() -> None:
    assert [throttle_s(failures) for failures in (1, 2, 3, 4, 5, 400)] == [30, 60, 120, 240, 300, 300]


def test_a_pause_holds_until_it_is_over_or_the_origin_answers() -> None:
    throttle = Throttle()
    throttle.failed("k", 0.0)
    assert [throttle.holds("k", now) for now in (0.0, 29.9, 30.0)] == [True, True, False]
    throttle.failed("k", 30.0)
    assert [throttle.holds("k", now) for now in (89.9, 90.0)] == [True, False]
    throttle.told("k", 100.0)
    assert throttle.holds("k", 99.0)
    throttle.worked("k")
    assert not throttle.holds("k", 99.0)
    throttle.failed("k", 100.0)
    assert not throttle.holds("k", 130.0)
    assert not throttle.holds("other", 0.0)
