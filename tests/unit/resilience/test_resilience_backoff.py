"""How long to wait, and what Retry-After means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.resilience.backoff import BackoffPolicy, delay_s, parse_retry_after

NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT
POLICY = BackoffPolicy(base_s=0.5, cap_s=3.0)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (5, 3.0), (5_000, 3.0)])
def test_the_longest_wait_doubles_up_to_the_cap(attempt: int, longest: float) -> None:
    assert delay_s(attempt, None, 1.0, POLICY) == longest
    assert delay_s(attempt, None, 0.0, POLICY) == 0.0


@given(st.integers(1, 100), st.floats(0, 3_600), st.floats(0, 1))
def test_it_never_comes_back_sooner_than_it_was_asked_to(attempt: int, asked_s: float, random01: float) -> None:
    assert asked_s <= delay_s(attempt, asked_s, random01, POLICY) <= asked_s + POLICY.base_s


@pytest.mark.parametrize(("base_s", "cap_s"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_a_senseless_policy_is_refused(base_s: float, cap_s: float) -> None:
    with pytest.raises(ValueError, match="must hold"):
        BackoffPolicy(base_s, cap_s)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("2", 2.0),
        (" 120 ", 120.0),
        ("0.5", 0.5),
        ("Mon, 21 Sep 2026 14:13:50 GMT", 30.0),
        ("Mon, 21 Sep 2026 14:13:50", 30.0),
        ("Mon, 21 Sep 2026 16:13:50 +0200", 30.0),
        ("Sun, 20 Sep 2026 14:13:20 GMT", 0.0),
        ("", None),
        ("-3", None),
        ("soon", None),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
        ("99999999999999", None),
        ("Mon, 99 Sep 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_nothing_else(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


@given(st.text())
def test_no_header_breaks_it(text: str) -> None:
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or seconds >= 0
