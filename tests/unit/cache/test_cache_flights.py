"""Who shares whose load, and who shares whose round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from jobnimbus_mcp.cache.ports import StoreError, StoreTimeout
from jobnimbus_mcp.cache.shared_reads import SharedReads
from jobnimbus_mcp.cache.single_flight import (
    GATHER_S,
    JOIN_WITHIN_S,
    LINGER_S,
    SPACING_S,
    Flight,
    Joining,
    SingleFlight,
)
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock, SystemClock
from jobnimbus_mcp.errors import UpstreamServerError, UpstreamTimeout


class Loads:
    """A body for flights that counts, waits for `go`, and answers the number of the load."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    def body(self) -> Callable[[Flight[int]], Coroutine[Any, Any, None]]:
        async def load(flight: Flight[int]) -> None:
            self.begun += 1
            number = self.begun
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if self.error is not None:
                raise self.error
            flight.answer(number)

        return load


async def ticks(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def begun(loads: Loads, number: int) -> None:
    async with asyncio.timeout(2):
        while loads.begun < number:  # noqa: ASYNC110 - the flights begin by the loop's own clock
            await asyncio.sleep(0.001)


def call(clock: SystemClock | ManualClock, within_s: float = 5.0) -> Call:
    return Call.begin(clock, "r", within_s=within_s)


async def test_all_who_ask_under_one_key_share_one_load() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    waiting = [asyncio.create_task(flights.fly("k", loads.body(), call=call(clock))) for _ in range(50)]
    other = asyncio.create_task(flights.fly("other", loads.body(), call=call(clock)))
    await ticks()
    loads.go.set()
    answers = await asyncio.gather(*waiting)
    assert (loads.begun, (await other)[1]) == (2, False)
    assert {value for value, _ in answers} == {1}
    assert sorted(joined for _, joined in answers) == [False] + [True] * 49


async def test_a_waiters_leaving_does_not_end_the_load_of_the_others() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    leader, follower = (asyncio.create_task(flights.fly("k", loads.body(), call=call(clock))) for _ in range(2))
    await ticks()
    leader.cancel()
    await ticks()
    loads.go.set()
    assert await follower == (1, True)
    assert loads.cancelled == 0


async def test_when_the_last_waiter_leaves_the_load_ends_and_the_next_reader_starts_anew() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    both = [asyncio.create_task(flights.fly("k", loads.body(), call=call(clock))) for _ in range(2)]
    await ticks()
    for task in both:
        task.cancel()
    await asyncio.gather(*both, return_exceptions=True)
    later = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock)))
    await ticks()
    loads.go.set()
    assert await later == (2, False)
    assert loads.cancelled == 1


async def test_an_error_reaches_every_waiter_and_is_not_kept() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    loads.error = UpstreamServerError("down")
    loads.go.set()
    tasks = [flights.fly("k", loads.body(), call=call(clock)) for _ in range(3)]
    assert [str(e) for e in await asyncio.gather(*tasks, return_exceptions=True)] == ["down"] * 3
    loads.error = None
    assert await flights.fly("k", loads.body(), call=call(clock)) == (2, False)


async def test_a_waiter_is_not_kept_beyond_its_own_deadline() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    patient = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock)))
    await ticks()
    with pytest.raises(UpstreamTimeout):
        await flights.fly("k", loads.body(), call=call(clock, within_s=0.01))
    loads.go.set()
    assert await patient == (1, False)


async def test_only_a_young_enough_flight_is_joined() -> None:
    clock, loads = ManualClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    old = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock)))
    await ticks()
    clock.advance(2)
    young = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock), begun_within_s=1))
    same = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock), begun_within_s=3))
    await ticks()
    loads.go.set()
    assert [await old, await young, await same] == [(1, False), (2, False), (2, True)]


async def test_a_flight_alone_is_neither_joined_nor_joins() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    tasks = [
        asyncio.create_task(flights.fly("k", loads.body(), call=call(clock), joining=joining))
        for joining in (Joining.BEGUN, Joining.NONE, Joining.BEGUN, Joining.NONE)
    ]
    await ticks()
    loads.go.set()
    assert [joined for _, joined in await asyncio.gather(*tasks)] == [False, False, True, False]
    assert loads.begun == 3


async def test_where_nothing_is_known_a_burst_shares_one_load_and_who_comes_later_gets_another() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)

    def fly() -> asyncio.Task[tuple[int, bool]]:
        return asyncio.create_task(flights.fly("k", loads.body(), call=call(clock), joining=Joining.UNBEGUN))

    burst = [fly() for _ in range(20)]
    await begun(loads, 1)
    late = [fly() for _ in range(20)]
    await asyncio.sleep(0.02)
    assert loads.begun == 1  # the second waits for the first
    loads.go.set()
    assert {value for value, _ in await asyncio.gather(*burst)} == {1}
    assert {value for value, _ in await asyncio.gather(*late)} == {2}


async def test_where_nothing_is_known_a_slow_load_delays_the_next_for_a_moment_only() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    slow = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock), joining=Joining.UNBEGUN))
    await begun(loads, 1)
    second = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock), joining=Joining.UNBEGUN))
    await begun(loads, 2)
    loads.go.set()
    assert [await slow, await second] == [(1, False), (2, False)]


async def test_a_call_waits_once_for_its_turn_however_many_reads_it_makes() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    one = call(clock)

    def fly(key: str, by: Call) -> asyncio.Task[tuple[int, bool]]:
        return asyncio.create_task(flights.fly(key, loads.body(), call=by, joining=Joining.UNBEGUN))

    tasks = [fly(key, call(clock)) for key in ("a", "b", "c")]
    await begun(loads, 3)
    before = one.spaced
    tasks.append(fly("a", one))
    await begun(loads, 4)
    assert (before, one.spaced) == (False, True)
    tasks.append(fly("c", call(clock)))  # waits for its turn, and the spaced call does not wait with it
    await ticks()
    asked = clock.monotonic()
    tasks += [fly("b", one), fly("c", one)]
    await begun(loads, 6)
    assert clock.monotonic() - asked < SPACING_S - GATHER_S
    loads.go.set()
    assert [joined for _, joined in await asyncio.gather(*tasks)] == [False] * 7


async def test_a_load_begun_so_long_ago_that_its_deadline_is_near_is_not_joined() -> None:
    clock, loads = ManualClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)

    def fly() -> asyncio.Task[tuple[int, bool]]:
        return asyncio.create_task(flights.fly("k", loads.body(), call=call(clock, 14.0)))

    first = fly()
    await ticks()
    clock.advance(JOIN_WITHIN_S)
    second = fly()
    await ticks()
    clock.advance(1)
    third, fourth = fly(), fly()
    await ticks()
    loads.go.set()
    assert [await task for task in (first, second, third, fourth)] == [(1, False), (1, True), (2, False), (2, True)]


async def test_a_landed_flight_is_remembered_for_as_long_as_a_burst_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, loads, later_s = SystemClock(), Loads(), 0.0
    flights: SingleFlight[int] = SingleFlight(clock)
    loop = asyncio.get_running_loop()
    time_of = loop.time
    monkeypatch.setattr(loop, "time", lambda: time_of() + later_s)
    loads.go.set()
    assert await flights.fly("k", loads.body(), call=call(clock)) == (1, False)
    await ticks()
    later_s = 1.5  # a thousand readers on a busy machine
    await ticks()
    assert await flights.fly("k", loads.body(), call=call(clock), looked=0) == (1, True)
    later_s = LINGER_S + 0.1
    await ticks()
    assert await flights.fly("k", loads.body(), call=call(clock), looked=0) == (2, False)


async def test_closing_lets_loads_end_and_cancels_those_that_do_not() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    waiting = asyncio.create_task(flights.fly("k", loads.body(), call=call(clock)))
    await ticks()
    await flights.aclose(within_s=0.01)
    with pytest.raises(Exception, match="stopping"):
        await waiting
    assert loads.cancelled == 1


class Trips:
    """Round trips that wait for `go` and answer their number."""

    def __init__(self) -> None:
        self.sent = 0
        self.go = asyncio.Event()
        self.error: StoreError | None = None

    async def send(self) -> int:
        self.sent += 1
        number = self.sent
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return number


async def test_readers_share_the_trip_not_yet_sent_and_never_the_one_in_the_air() -> None:
    trips: Trips = Trips()
    reads: SharedReads[int] = SharedReads()
    first = asyncio.create_task(reads.read("k", trips.send, trips.send))
    await ticks()
    others = [asyncio.create_task(reads.read("k", trips.send, trips.send)) for _ in range(100)]
    await ticks()
    assert trips.sent == 1
    trips.go.set()
    assert await first == 1
    assert set(await asyncio.gather(*others)) == {2}


async def test_who_waits_for_a_store_that_fails_shares_the_failure() -> None:
    trips, reads = Trips(), SharedReads[int]()
    trips.error = StoreTimeout()
    tasks = [asyncio.create_task(reads.read("k", trips.send, trips.send)) for _ in range(5)]
    await ticks()
    trips.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [StoreTimeout] * 5
    assert trips.sent == 1


async def test_when_the_reader_in_the_air_leaves_the_others_are_sent_for() -> None:
    trips, reads = Trips(), SharedReads[int]()
    first = asyncio.create_task(reads.read("k", trips.send, trips.send))
    await ticks()
    second, third = (asyncio.create_task(reads.read("k", trips.send, trips.send)) for _ in range(2))
    await ticks()
    first.cancel()
    second.cancel()
    await ticks()
    trips.go.set()
    assert await third == 2
    await asyncio.gather(first, second, return_exceptions=True)
    await reads.aclose()


async def test_who_looked_before_a_flight_landed_joins_it_and_who_looked_after_does_not() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    loads.go.set()
    before = flights.landings
    assert await flights.fly("k", loads.body(), call=call(clock)) == (1, False)
    await ticks()
    assert await flights.fly("k", loads.body(), call=call(clock), looked=before) == (1, True)
    assert await flights.fly("k", loads.body(), call=call(clock), looked=flights.landings) == (2, False)
    assert await flights.fly("k", loads.body(), call=call(clock)) == (3, False)


async def test_a_flight_that_failed_is_not_joined_afterwards() -> None:
    clock, loads = SystemClock(), Loads()
    flights: SingleFlight[int] = SingleFlight(clock)
    loads.go.set()
    loads.error = UpstreamServerError("down")
    with pytest.raises(UpstreamServerError):
        await flights.fly("k", loads.body(), call=call(clock))
    loads.error = None
    assert await flights.fly("k", loads.body(), call=call(clock), looked=0) == (2, False)
