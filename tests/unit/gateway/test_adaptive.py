"""Lifetimes by the rate of changes: the rule, the rate, and when silence proves something."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.ports import StoreTimeout
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.gateway.adaptive import REFRESH_EVERY_S, AdaptiveBounds, AdaptiveLifetimes, adapted_s

HOUR = 497_222
BOUNDS = AdaptiveBounds(busy_per_h=10, calm_per_h=2, min_s=600, max_s=3600)


class Counted:
    """What the store has counted, by hour; and whether it answers."""

    def __init__(self, hours: Mapping[int, Mapping[str, int]]) -> None:
        self.hours = dict(hours)
        self.away = False
        self.asked: list[str] = []

    async def __call__(self, instance: str, hours: Sequence[int], call: Call) -> Mapping[int, Mapping[str, int]]:
        self.asked.append(instance)
        if self.away:
            raise StoreTimeout
        return {hour: self.hours[hour] for hour in hours if hour in self.hours}


def lifetimes(
    counted: Counted, *, minute: float = 30, instances: Sequence[str] = ("stamford",), hears: bool = True
) -> tuple[AdaptiveLifetimes, ManualClock]:
    clock = ManualClock(HOUR * 3600 + minute * 60)
    made = AdaptiveLifetimes(counted, clock=clock, instances=instances, hears_of_changes=lambda _: hears, bounds=BOUNDS)
    return made, clock


async def lifetime_after(
    hours: Mapping[int, Mapping[str, int]], entity: Entity, base_s: int, *, minute: float = 30, hears: bool = True
) -> int:
    made, _ = lifetimes(Counted(hours), minute=minute, hears=hears)
    await made.refresh("stamford")
    return made.lifetime_s("stamford", entity, base_s)


@pytest.mark.parametrize(
    ("base_s", "per_h", "hears", "expected"),
    [
        (1800, 10.1, True, 600),
        (1800, 10.1, False, 600),
        (1800, 10, True, 1800),
        (1800, 2, True, 1800),
        (1800, 1.9, True, 3600),
        (1800, 1.9, False, 1800),
        (7200, 0, True, 7200),
        (300, 11, True, 300),
    ],
)
def test_busy_shortens_and_calm_lengthens_where_changes_are_heard_of(
    base_s: int, per_h: float, hears: bool, expected: int
) -> None:
    assert adapted_s(base_s, per_h, hears=hears, bounds=BOUNDS) == expected


@given(st.integers(1, 86_400), st.floats(0, 1000), st.floats(0, 1000), st.booleans())
def test_more_changes_never_make_a_longer_lifetime(base_s: int, one: float, other: float, hears: bool) -> None:
    calmer, busier = sorted((one, other))
    assert adapted_s(base_s, busier, hears=hears, bounds=BOUNDS) <= adapted_s(
        base_s, calmer, hears=hears, bounds=BOUNDS
    )


@pytest.mark.parametrize("bounds", [{"calm_per_h": 11}, {"min_s": 3601}, {"min_s": 0}])
def test_bounds_that_cross_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="above"):
        AdaptiveBounds(**bounds)


@pytest.mark.parametrize(("minute", "expected"), [(0, 600), (32, 600), (33, 1800)])
async def test_of_the_hour_before_counts_the_share_that_is_not_an_hour_old(minute: float, expected: int) -> None:
    hours = {HOUR: {"jobs|webhook": 4}, HOUR - 1: {"jobs|webhook": 10, "jobs|write": 3}}
    assert await lifetime_after(hours, Entity.JOBS, 1800, minute=minute) == expected


async def test_kinds_are_busy_or_calm_each_for_itself() -> None:
    hours = {HOUR: {"jobs|webhook": 11}, HOUR - 2: {"contacts|webhook": 50}}
    assert await lifetime_after(hours, Entity.JOBS, 1800) == 600
    assert await lifetime_after(hours, Entity.CONTACTS, 1800) == 3600


async def test_every_change_is_one_of_the_activity_log_and_a_dated_kind_s_one_of_the_calendar() -> None:
    hours = {HOUR: {"tasks|webhook": 6, "jobs|webhook": 5, "contacts|webhook": 1}}
    assert await lifetime_after(hours, Entity.CALENDAR, 900) == 600
    assert await lifetime_after(hours, Entity.ACTIVITIES, 900) == 600
    assert await lifetime_after({HOUR: {"contacts|webhook": 20}}, Entity.CALENDAR, 900) == 900


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ({HOUR - 2: {"contacts|webhook": 1}}, 3600),
        ({HOUR - 23: {"contacts|webhook": 1}}, 3600),
        ({HOUR - 24: {"contacts|webhook": 1}}, 1800),  # nobody has told anything for a day
        ({HOUR - 2: {"jobs|webhook": 1}}, 1800),  # of jobs, but of contacts nobody tells
        ({HOUR - 2: {"contacts|admin": 1}}, 1800),  # an admin is no webhook
        ({HOUR - 2: {"contacts|webhook": 0}}, 1800),
        ({}, 1800),
        ({HOUR: {"contacts|webhook": 1}}, 1800),  # counted from just now on: silence before that proves nothing
        ({HOUR - 1: {"contacts|webhook": 1}}, 1800),
        ({HOUR: {"contacts|webhook": 1}, HOUR - 30: {"contacts|admin": 1}}, 3600),
    ],
)
async def test_silence_counts_only_where_webhooks_are_known_to_arrive(
    hours: dict[int, dict[str, int]], expected: int
) -> None:
    assert await lifetime_after(hours, Entity.CONTACTS, 1800) == expected
    assert await lifetime_after(hours, Entity.CONTACTS, 1800, hears=False) == 1800


async def test_a_calendar_is_heard_of_where_all_that_it_is_made_of_is() -> None:
    told = {"jobs|webhook": 1, "tasks|webhook": 1}
    assert await lifetime_after({HOUR - 2: told}, Entity.CALENDAR, 900) == 900
    assert await lifetime_after({HOUR - 2: told | {"workorders|webhook": 1}}, Entity.CALENDAR, 900) == 3600


async def test_before_an_account_was_asked_about_its_lifetimes_are_as_they_are() -> None:
    made, _ = lifetimes(Counted({HOUR: {"jobs|webhook": 99}}))
    assert made.lifetime_s("stamford", Entity.JOBS, 1800) == 1800


async def test_while_the_store_is_away_what_was_known_stays() -> None:
    counted = Counted({HOUR: {"jobs|webhook": 99}})
    made, _ = lifetimes(counted)
    await made.refresh("stamford")
    counted.away = True
    await made.refresh("stamford")
    assert made.lifetime_s("stamford", Entity.JOBS, 1800) == 600


async def test_the_loop_asks_about_every_account_each_minute_and_ends_when_cancelled() -> None:
    counted = Counted({})
    made, clock = lifetimes(counted, instances=("stamford", "guilford"))
    running = asyncio.create_task(made.run())
    await settled()
    assert counted.asked == ["stamford", "guilford"]
    counted.hours[HOUR] = {"jobs|webhook": 11}
    clock.advance(REFRESH_EVERY_S - 1)
    await settled()
    assert len(counted.asked) == 2
    clock.advance(1)
    await settled()
    assert len(counted.asked) == 4
    assert made.lifetime_s("guilford", Entity.JOBS, 1800) == 600
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
