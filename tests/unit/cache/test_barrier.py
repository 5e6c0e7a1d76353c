"""How long an invalidation waits, for whom, and what it does about those who do not move."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.notice import Told
from jobnimbus_mcp.cache.ports import ANYBODY, L1_LEASE_S, Store, StoreTimeout
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock, SystemClock
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

WHOLE_S = L1_LEASE_S + 0.2


class Fleet:
    """Who is behind, and who was struck. `fails`: it cannot tell."""

    def __init__(self, **behind: bytes) -> None:
        self.laggards = dict(behind)
        self.struck: list[dict[str, bytes | None]] = []
        self.fails = False
        self.polls = 0
        self.register = b""
        self.usable: list[bool] = []

    async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
        assert (tenant, position, register) == ("stamford", "7-0", self.register)
        self.polls += 1
        self.usable.append(call.store_usable)
        if self.fails:
            raise StoreTimeout
        return dict(self.laggards)

    async def strike(self, tenant: str, instances: Mapping[str, bytes | None], call: Call) -> None:
        self.struck.append(dict(instances))


class Wait:
    """A barrier that somebody is at."""

    def __init__(self, fleet: Fleet, told: Told, *, call: Call | None = None) -> None:
        self.clock = ManualClock()
        self.recorder = InMemoryRecorder()
        barrier = Barrier(cast(Store, fleet), clock=self.clock, recorder=self.recorder)
        self.task = asyncio.ensure_future(
            barrier.passed("stamford", told, call or Call.begin(self.clock, "r", within_s=0.01))
        )

    async def goes_on(self, seconds: float, step_s: float = 0.01) -> bool:
        """Let so much time pass; is it over?"""
        for _ in range(round(seconds / step_s)):
            await self.ticks()
            if self.task.done():
                break
            self.clock.advance(step_s)
        await self.ticks()
        return self.task.done()

    async def ticks(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def ended(self) -> None:
        await asyncio.wait_for(self.task, 5)


async def test_with_nobody_registered_nobody_is_waited_for() -> None:
    fleet = Fleet()
    wait = Wait(fleet, Told("7-0", 0))
    assert await wait.goes_on(0)
    assert fleet.polls == 0


async def test_it_is_passed_as_soon_as_all_have_applied() -> None:
    fleet = Fleet(a=b"6-0|1", b=b"6-0|1")
    wait = Wait(fleet, Told("7-0", 2))
    assert not await wait.goes_on(0.5)
    del fleet.laggards["a"]
    assert not await wait.goes_on(0.5)
    del fleet.laggards["b"]
    assert await wait.goes_on(0.03)
    assert fleet.struck == []
    assert len(wait.recorder.observed["cache_barrier_seconds"]) == 1


async def test_who_has_not_moved_for_a_lease_is_struck_and_no_longer_waited_for() -> None:
    fleet = Fleet(dead=b"6-0|1", slow=b"6-0|1")
    wait = Wait(fleet, Told("7-0", 2))
    assert not await wait.goes_on(1.0)
    fleet.laggards["slow"] = b"6-0|2"
    assert not await wait.goes_on(WHOLE_S - 1.0 - 0.05)
    assert await wait.goes_on(0.1)
    assert fleet.struck == [{"dead": b"6-0|1"}]


async def test_when_all_who_are_behind_live_nobody_is_struck() -> None:
    fleet = Fleet(slow=b"6-0|1")
    wait = Wait(fleet, Told("7-0", 1))
    assert not await wait.goes_on(1.0)
    fleet.laggards["slow"] = b"6-0|2"
    assert await wait.goes_on(WHOLE_S)
    assert fleet.struck == []


async def test_who_may_have_renewed_before_a_first_look_that_came_late_is_not_struck_yet() -> None:
    """Struck, nobody would wait for it at the next invalidation, and its lease may not be over."""

    class Crowded(Fleet):
        async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
            if not self.polls:
                await wait.clock.sleep(0.5)
            return await super().behind(tenant, position, call, register=register)

    fleet = Crowded(frozen=b"6-0|1")
    wait = Wait(fleet, Told("7-0", 1))
    assert not await wait.goes_on(WHOLE_S - 0.05)
    assert await wait.goes_on(0.1)
    assert fleet.struck == []


async def test_where_the_store_cannot_tell_who_is_registered_a_whole_lease_is_waited_for() -> None:
    fleet = Fleet()
    wait = Wait(fleet, Told("7-0", 0, unknown=True))
    assert not await wait.goes_on(WHOLE_S - 0.02)
    assert await wait.goes_on(0.04)
    assert fleet.polls == 0


async def test_a_store_that_fails_meanwhile_costs_the_rest_of_the_lease() -> None:
    fleet = Fleet(a=b"6-0|1")
    wait = Wait(fleet, Told("7-0", 1))
    assert not await wait.goes_on(1.0)
    fleet.fails = True
    assert not await wait.goes_on(WHOLE_S - 1.0 - 0.05)
    assert await wait.goes_on(0.1)
    assert wait.recorder.total("cache_coherence_failures") == 1


async def test_a_call_whose_time_is_over_and_that_has_lost_the_store_still_waits() -> None:
    fleet = Fleet(a=b"6-0|1")
    call = Call("r", 0.0, 0.0, store_usable=False)
    wait = Wait(fleet, Told("7-0", 1), call=call)
    assert not await wait.goes_on(1.0)
    fleet.laggards.clear()
    assert await wait.goes_on(0.03)
    assert all(fleet.usable)


async def test_polling_grows_rarer_while_somebody_is_away() -> None:
    fleet = Fleet(a=b"6-0|1")
    wait = Wait(fleet, Told("7-0", 1))
    assert await wait.goes_on(WHOLE_S + 0.1, step_s=0.001)
    assert 50 < fleet.polls < 200


async def test_a_fast_fleet_is_not_waited_for_by_whole_milliseconds() -> None:
    """An event loop's timer takes a millisecond at least, so the first looks go without one."""
    fleet, clock = Fleet(a=b"6-0|1"), SlowToSleep()

    class Applies(Fleet):
        async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
            if self.polls == 5:
                self.laggards.clear()
            return await super().behind(tenant, position, call, register=register)

    fleet = Applies(a=b"6-0|1")
    barrier = Barrier(cast(Store, fleet), clock=clock, recorder=InMemoryRecorder())
    await asyncio.wait_for(barrier.passed("stamford", Told("7-0", 1), Call.begin(clock, "r")), 5)
    assert fleet.polls == 6
    assert clock.slept == []


class SlowToSleep(SystemClock):
    """Tells for how long it was slept for."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)
        await super().sleep(seconds)


async def test_a_register_that_was_lost_meanwhile_costs_the_lease_and_nobody_is_struck() -> None:
    fleet = Fleet(a=b"6-0|1")
    wait = Wait(fleet, Told("7-0", 1))
    assert not await wait.goes_on(0.5)
    fleet.laggards = {ANYBODY: b"7000"}
    assert not await wait.goes_on(WHOLE_S - 0.5 - 0.05)
    assert await wait.goes_on(0.1)
    assert fleet.struck == []


async def test_a_register_that_was_lost_once_is_waited_out_although_the_new_one_says_that_all_is_well() -> None:
    fleet = Fleet(**{ANYBODY: b"1"})
    fleet.register = b"6000"
    wait = Wait(fleet, Told("7-0", 1, register=b"6000"))
    assert not await wait.goes_on(0.1)
    fleet.laggards = {}
    assert not await wait.goes_on(WHOLE_S - 0.1 - 0.05)
    assert await wait.goes_on(0.1)


async def test_a_register_that_was_lost_at_once_is_not_struck_either() -> None:
    fleet = Fleet(**{ANYBODY: b"7000"})
    wait = Wait(fleet, Told("7-0", 1))
    assert await wait.goes_on(WHOLE_S + 0.1)
    assert fleet.struck == []


@pytest.mark.parametrize("registered", [1, 3])
async def test_one_look_is_enough_when_all_had_applied_already(registered: int) -> None:
    fleet = Fleet()
    wait = Wait(fleet, Told("7-0", registered))
    assert await wait.goes_on(0)
    assert fleet.polls == 1
    await wait.ended()
