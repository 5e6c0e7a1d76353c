"""When events are not handled as they should be: lag, errors or latency, and how much is too much."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.events.ports import Lag, Rates
from jobnimbus_mcp.events.vitals import ERRORS_MOST, LAG_MOST, LATENCY_MOST_S, TRIES_LEAST, unwell

CALM = Lag(due=0, delayed=0, oldest_s=0.0, dead=0)


def test_the_bounds_are_those_that_are_promised() -> None:
    assert (LAG_MOST, ERRORS_MOST, LATENCY_MOST_S) == (100, 0.05, 5.0)


@pytest.mark.parametrize(
    ("lag", "rate", "verdict"),
    [
        (CALM, None, None),
        (CALM._replace(due=100), None, None),
        (CALM._replace(due=101), None, "lag"),
        (CALM._replace(delayed=100_000), None, None),
        (CALM._replace(dead=100_000), None, None),
        (CALM._replace(due=1, oldest_s=5.0), None, None),
        (CALM._replace(due=1, oldest_s=5.1), None, "latency"),
        (CALM, Rates(ok=95, failed=5, latency_s=0.1), None),
        (CALM, Rates(ok=94, failed=6, latency_s=0.1), "errors"),
        (CALM, Rates(ok=0, failed=TRIES_LEAST - 1, latency_s=0.0), None),
        (CALM, Rates(ok=0, failed=TRIES_LEAST, latency_s=0.0), "errors"),
        (CALM, Rates(ok=1, failed=0, latency_s=5.0), None),
        (CALM, Rates(ok=1, failed=0, latency_s=5.1), "latency"),
        (CALM, Rates(ok=0, failed=1, latency_s=9.0), None),  # nothing was done, so nothing was done late
        (CALM._replace(due=101, oldest_s=60.0), Rates(ok=1, failed=99, latency_s=60.0), "lag"),
        (CALM._replace(due=1, oldest_s=60.0), Rates(ok=1, failed=99, latency_s=60.0), "errors"),
    ],
)
def test_the_worst_of_a_consumer_is_what_is_told(lag: Lag, rate: Rates | None, verdict: str | None) -> None:
    assert unwell({"settle": lag}, {} if rate is None else {"settle": rate}) == verdict


def test_one_consumer_that_is_behind_is_not_outweighed_by_the_others() -> None:
    lags = {f"relay:{n}": CALM for n in range(30)} | {"warm": CALM._replace(due=500)}
    assert unwell(lags, {}) == "lag"
    rates = {f"relay:{n}": Rates(1_000, 0, 0.1) for n in range(30)} | {"warm": Rates(9, 1, 0.1)}
    assert unwell(dict.fromkeys(lags, CALM), rates) == "errors"


def test_nothing_known_is_nothing_wrong() -> None:
    assert unwell({}, {}) is None
