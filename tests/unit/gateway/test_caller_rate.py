"""How many requests a caller may make, counted within one process."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.gateway.caller_rate import Allowance, LocalCallerRate


async def test_a_minute_s_requests_may_be_made_at_once_and_then_one_at_a_time() -> None:
    clock = ManualClock()
    rate = LocalCallerRate(clock)
    told = [await rate.spend("desk", 4) for _ in range(5)]
    assert told == [
        Allowance(True, 4, 3, 15.0, 0.0),
        Allowance(True, 4, 2, 30.0, 0.0),
        Allowance(True, 4, 1, 45.0, 0.0),
        Allowance(True, 4, 0, 60.0, 0.0),
        Allowance(False, 4, 0, 60.0, 15.0),
    ]
    clock.advance(14)
    assert await rate.spend("desk", 4) == Allowance(False, 4, 0, 46.0, 1.0)
    clock.advance(1)
    assert await rate.spend("desk", 4) == Allowance(True, 4, 0, 60.0, 0.0)
    clock.advance(3600)
    assert await rate.spend("desk", 4) == Allowance(True, 4, 3, 15.0, 0.0)


async def test_each_caller_has_its_own() -> None:
    rate = LocalCallerRate(ManualClock())
    assert [(await rate.spend(who, 1)).granted for who in ("desk", "field", "desk", "field")] == [
        True,
        True,
        False,
        False,
    ]


async def test_a_caller_whose_number_was_changed_begins_anew() -> None:
    rate = LocalCallerRate(ManualClock())
    assert (await rate.spend("desk", 1)).granted
    assert await rate.spend("desk", 60) == Allowance(True, 60, 59, 1.0, 0.0)


@pytest.mark.parametrize("per_minute", [1, 3, 7, 59, 60, 61, 1000, 1_000_000])
async def test_exactly_so_many_are_granted_at_once_whatever_the_number(per_minute: int) -> None:
    rate = LocalCallerRate(ManualClock(1e9))
    asked = min(per_minute, 2_000)
    told = [await rate.spend("desk", per_minute) for _ in range(asked)]
    assert [one.remaining for one in told] == [per_minute - spent for spent in range(1, asked + 1)]
    if asked == per_minute:
        assert not (await rate.spend("desk", per_minute)).granted


async def test_of_more_callers_than_are_kept_the_one_unseen_longest_is_forgotten() -> None:
    rate = LocalCallerRate(ManualClock(), callers_most=2)
    for who in ("a", "b", "a", "c"):
        await rate.spend(who, 2)
    # b was forgotten, so a is empty still and b is full
    assert [(await rate.spend(who, 2)).remaining for who in ("a", "b")] == [0, 1]


@given(st.integers(1, 200), st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=60))
def test_within_any_time_no_more_than_it_fills_and_holds_is_granted_and_a_wait_told_is_long_enough(
    per_minute: int, pauses: list[float]
) -> None:
    clock = ManualClock(0)
    rate = LocalCallerRate(clock)
    granted: list[float] = []

    async def go() -> None:
        for pause in pauses:
            clock.advance(pause)
            told = await rate.spend("desk", per_minute)
            if not told.granted:
                assert told.wait_s > 0
                clock.advance(told.wait_s + 1e-6)
                told = await rate.spend("desk", per_minute)
            assert told.granted
            assert 0 <= told.remaining < per_minute
            granted.append(clock.monotonic())

    asyncio.run(go())
    for begin, first in enumerate(granted):
        for end in range(begin, len(granted)):
            assert end - begin + 1 <= per_minute * (1 + (granted[end] - first) / 60) + 1e-3
    assert all(later >= earlier for earlier, later in pairwise(granted))
