"""The token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.resilience.budget import Bucket


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    bucket, waits = Bucket(rate_per_s=10, burst=3), []
    for _ in range(6):
        bucket, wait_s = bucket.take(100.0)
        waits.append(round(wait_s, 6))
    assert waits == [0, 0, 0, 0.1, 0.2, 0.3]


def test_tokens_come_back_with_time() -> None:
    bucket = Bucket(rate_per_s=1, burst=2)
    for _ in range(2):
        bucket, _ = bucket.take(0.0)
    assert bucket.take(0.0)[1] == 1.0
    assert bucket.take(1.0)[1] == 0.0


def test_who_does_not_keep_the_new_bucket_has_taken_nothing() -> None:
    bucket, _ = Bucket(rate_per_s=1).take(0.0)
    assert [bucket.take(0.0)[1] for _ in range(3)] == [1.0, 1.0, 1.0]


def test_rate_zero_is_no_limit() -> None:
    bucket = Bucket.per_second(0)
    for _ in range(1_000):
        bucket, wait_s = bucket.take(0.0)
        assert wait_s == 0


def test_the_share_left_falls_with_each_token_and_comes_back_with_time() -> None:
    bucket = Bucket(rate_per_s=2, burst=4)
    shares = [bucket.share_left(0.0)]
    for _ in range(6):
        bucket, _ = bucket.take(0.0)
        shares.append(bucket.share_left(0.0))
    assert shares == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]
    assert [bucket.share_left(now) for now in (1.0, 2.0, 3.0, 60.0)] == [0.0, 0.5, 1.0, 1.0]


def test_without_a_limit_everything_is_always_left() -> None:
    bucket, _ = Bucket.per_second(0).take(0.0)
    assert bucket.share_left(0.0) == 1.0


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (1, 0), (1, 0.5)])
def test_a_senseless_bucket_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="must"):
        Bucket(rate, burst)


@given(
    st.floats(0.5, 100),
    st.floats(1, 20),
    st.lists(st.floats(0, 2), min_size=1, max_size=80),
    st.floats(0.1, 10),
)
def test_no_span_of_time_spends_more_than_burst_and_rate_allow(
    rate: float, burst: float, pauses: list[float], span_s: float
) -> None:
    bucket, now, spent_at = Bucket(rate, burst), 0.0, list[float]()
    for pause in pauses:
        now += pause
        bucket, wait_s = bucket.take(now)
        spent_at.append(now + wait_s)
    for start in spent_at:
        within = sum(start <= at < start + span_s for at in spent_at)
        assert within <= burst + rate * span_s + 1e-6
