"""Leaving an origin alone: how pauses grow, whose deadline a shared load has, and what a stop leaves of it."""

from __future__ import annotations

import asyncio

import pytest

from jobnimbus_mcp.cache.single_flight import JOIN_LEFT_S, Flight, SingleFlight
from jobnimbus_mcp.cache.throttle import THROTTLE_LONGEST_S, THROTTLE_S, Throttle
from jobnimbus_mcp.call import CALL_DEADLINE_S, Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import Stopping, UpstreamTimeout


def test_each_failure_after_a_pause_doubles_the_next_one() -> None:
    throttle, now = Throttle(), 100.0
    for pause_s in (THROTTLE_S, 2 * THROTTLE_S, 4 * THROTTLE_S, 8 * THROTTLE_S, THROTTLE_LONGEST_S, THROTTLE_LONGEST_S):
        throttle.failed("k", now)
        assert throttle.holds("k", now + pause_s - 0.1)
        now += pause_s
        assert not throttle.holds("k", now)


def test_who_fails_during_a_pause_makes_it_no_longer_than_it_is() -> None:
    throttle = Throttle()
    for _ in range(10):
        throttle.failed("k", 100.0)
    assert throttle.holds("k", 100.0 + THROTTLE_S - 0.1)
    assert not throttle.holds("k", 100.0 + THROTTLE_S)
    throttle.told("other", 130.0)
    throttle.failed("other", 100.0)
    assert not throttle.holds("other", 100.0 + THROTTLE_S)


def test_an_answer_that_was_late_and_then_failed_counts_as_the_next_failure() -> None:
    throttle = Throttle()
    throttle.failed("k", 100.0)
    throttle.told("k", 202.0, slow=True)
    throttle.failed("k", 201.0)
    assert throttle.holds("k", 201.0 + 2 * THROTTLE_S - 0.1)
    assert not throttle.holds("k", 201.0 + 2 * THROTTLE_S)


def test_what_worked_is_forgotten() -> None:
    throttle = Throttle()
    throttle.failed("k", 100.0)
    throttle.worked("k")
    assert not throttle.holds("k", 100.0)
    throttle.failed("k", 200.0)
    assert not throttle.holds("k", 200.0 + THROTTLE_S)


@pytest.mark.parametrize(
    ("first_left_s", "second_left_s", "joins"),
    [
        (0.05, CALL_DEADLINE_S, False),  # it has made other reads before this one
        (JOIN_LEFT_S - 0.1, CALL_DEADLINE_S, False),
        (JOIN_LEFT_S, CALL_DEADLINE_S, True),
        (0.05, 0.5, True),  # hardly better off by itself
        (CALL_DEADLINE_S, CALL_DEADLINE_S, True),
    ],
)
async def test_a_load_of_a_call_that_is_about_to_end_is_not_joined(
    first_left_s: float, second_left_s: float, joins: bool
) -> None:
    clock, begun = ManualClock(), 0
    flights: SingleFlight[int] = SingleFlight(clock)
    go = asyncio.Event()

    def call(left_s: float) -> Call:
        return Call("r", clock.monotonic(), clock.monotonic() + left_s)

    async def body(flight: Flight[int]) -> None:
        nonlocal begun
        begun += 1
        await go.wait()
        flight.answer(1)

    async def fly(left_s: float) -> None:
        await flights.fly("k", body, call=call(left_s))

    tasks = [asyncio.ensure_future(fly(left_s)) for left_s in (first_left_s, second_left_s)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert begun == (1 if joins else 2)
    go.set()
    for told in await asyncio.gather(*tasks, return_exceptions=True):
        assert told is None or isinstance(told, UpstreamTimeout)
    await flights.aclose()


async def test_a_closing_that_is_cut_short_leaves_no_load_running() -> None:
    flights: SingleFlight[int] = SingleFlight(ManualClock())
    ended: list[str] = []

    async def body(flight: Flight[int]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("given up")

    waiting = asyncio.ensure_future(flights.fly("k", body, call=Call("r", 0.0, 1e9)))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await flights.aclose(within_s=60.0)
    await asyncio.wait({waiting}, timeout=1.0)
    assert ended == ["given up"]
    assert isinstance(waiting.exception(), Stopping)
