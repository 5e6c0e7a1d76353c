"""Heat: how uses are weighed, and that what is kept is bounded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.consumers.heat import HALVED_EVERY_S, HeatByAccount, Hot, MemoryHeat, score_with, uses_at
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read

NOW = 1_790_000_000.0
FIRST, SECOND, THIRD = (Read.record(Entity.JOBS, f"job{number}") for number in range(3))


def close(found: list[Hot]) -> list[tuple[Read, float]]:
    return [(hot.read, round(hot.uses, 6)) for hot in found]


@given(st.lists(st.tuples(st.floats(0, 30 * 86_400), st.integers(1, 1000)), min_size=1, max_size=20))
def test_a_score_is_worth_its_uses_each_halved_for_every_hour_since(uses: list[tuple[float, int]]) -> None:
    score: float | None = None
    for after_s, number in uses:
        score = score_with(score, number, NOW + after_s)
    asked_at = NOW + max(after_s for after_s, _ in uses)
    assert score is not None

    expected = sum(number * 0.5 ** ((asked_at - NOW - after_s) / HALVED_EVERY_S) for after_s, number in uses)
    assert uses_at(score, asked_at) == pytest.approx(expected, rel=1e-6)


def test_a_clock_set_back_by_years_makes_a_large_number_and_no_error() -> None:
    assert math.isfinite(uses_at(score_with(None, 1, NOW), 0.0))
    assert uses_at(score_with(None, 1, 0.0), NOW) == 0.0


async def test_the_most_used_come_first_and_uses_halve_every_hour() -> None:
    clock = ManualClock(NOW)
    heat = MemoryHeat(clock)
    for _ in range(8):
        heat.note("stamford", FIRST)
    clock.advance(HALVED_EVERY_S)
    for _ in range(5):
        heat.note("stamford", SECOND)
    heat.note("stamford", THIRD)
    heat.note("guilford", THIRD)

    assert close(list(await heat.hottest("stamford"))) == [(SECOND, 5.0), (FIRST, 4.0), (THIRD, 1.0)]
    assert close(list(await heat.hottest("stamford", at_least=3.0))) == [(SECOND, 5.0), (FIRST, 4.0)]
    assert close(list(await heat.hottest("stamford", most=1))) == [(SECOND, 5.0)]
    assert close(list(await heat.hottest("guilford"))) == [(THIRD, 1.0)]
    assert list(await heat.hottest("nowhere")) == []
    clock.advance(HALVED_EVERY_S)
    assert close(list(await heat.hottest("stamford", at_least=2.5))) == [(SECOND, 2.5)]


async def test_of_many_questions_the_most_used_are_kept_and_a_new_one_has_time_to_become_one() -> None:
    heat = MemoryHeat(ManualClock(NOW), kept_most=10)
    for number in range(10):
        for _ in range(5):
            heat.note("stamford", Read.record(Entity.JOBS, f"hot{number}"))
    for number in range(9):
        heat.note("stamford", Read.record(Entity.JOBS, f"once{number}"))
    for _ in range(6):
        heat.note("stamford", FIRST)  # the twentieth: kept beside those that were hot before it
    heat.note("stamford", SECOND)  # one too many: the colder half goes

    found = [hot.read.record_id for hot in await heat.hottest("stamford", most=100)]
    assert len(found) == 10
    assert found[0] == FIRST.record_id
    assert sum(name.startswith("hot") for name in found) == 9


async def test_each_account_s_heat_is_asked_where_it_is_kept() -> None:
    ones, others = MemoryHeat(ManualClock(NOW)), MemoryHeat(ManualClock(NOW))
    heat = HeatByAccount({"stamford": ones, "guilford": others})
    async with heat.running():
        heat.note("stamford", FIRST)
        heat.note("guilford", SECOND)

    assert close(list(await heat.hottest("stamford"))) == close(list(await ones.hottest("stamford"))) == [(FIRST, 1.0)]
    assert close(list(await others.hottest("guilford"))) == [(SECOND, 1.0)]
    assert list(await others.hottest("stamford")) == []
