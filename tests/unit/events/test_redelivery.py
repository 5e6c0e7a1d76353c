"""What follows a try."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.events.ports import Outcome
from jobnimbus_mcp.events.redelivery import Dead, Done, NextStep, Retry, next_step

OK = Outcome()
FAILED = Outcome("http_500", status=500)
HOPELESS = Outcome("private_address", retry=False)
AWAY = Outcome("cache_unavailable", away=True)


@pytest.mark.parametrize(
    ("outcome", "attempts", "random01", "expected"),
    [
        (OK, 0, 0.5, Done()),
        (OK, 3, 0.5, Done()),
        (OK, 99, 0.5, Done()),
        (FAILED, 0, 0.5, Retry(2.0)),
        (FAILED, 1, 0.5, Retry(4.0)),
        (FAILED, 2, 0.5, Retry(8.0)),
        (FAILED, 3, 0.5, Dead("http_500")),
        (FAILED, 99, 0.5, Dead("http_500")),
        (FAILED, 0, 0.0, Retry(1.6)),
        (FAILED, 0, 1.0, Retry(2.4)),
        (FAILED, 2, 0.0, Retry(6.4)),
        (FAILED, 2, 1.0, Retry(9.6)),
        (HOPELESS, 0, 0.5, Dead("private_address")),
        (HOPELESS, 2, 0.5, Dead("private_address")),
        (AWAY, 0, 0.5, Retry(2.0)),
        (AWAY, 3, 0.5, Retry(8.0)),
        (AWAY, 99, 1.0, Retry(9.6)),
    ],
)
def test_a_failed_try_waits_longer_each_time_and_the_fourth_is_the_last_unless_what_acts_is_away(
    outcome: Outcome, attempts: int, random01: float, expected: NextStep
) -> None:
    step = next_step(outcome, attempts, random01)
    if isinstance(expected, Retry):
        assert isinstance(step, Retry)
        assert step.after_s == pytest.approx(expected.after_s)
    else:
        assert step == expected
