"""Date math of range bounds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobnimbus_mcp.simulator.datemath import parse_moment

NOW = datetime(2026, 3, 31, 10, 20, 30, tzinfo=UTC)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("bound", "down", "up"),
    [
        (1_700_000_000, 1_700_000_000, 1_700_000_000),
        ("1700000000", 1_700_000_000, 1_700_000_000),
        ("now", at("2026-03-31T10:20:30"), at("2026-03-31T10:20:30")),
        ("now-30d", at("2026-03-01T10:20:30"), at("2026-03-01T10:20:30")),
        ("now+1h-20m-30s", at("2026-03-31T11:00:00"), at("2026-03-31T11:00:00")),
        ("now-1M", at("2026-02-28T10:20:30"), at("2026-02-28T10:20:30")),
        ("now-2y", at("2024-03-31T10:20:30"), at("2024-03-31T10:20:30")),
        ("now-1w", at("2026-03-24T10:20:30"), at("2026-03-24T10:20:30")),
        ("now/h", at("2026-03-31T10:00:00"), at("2026-03-31T10:59:59")),
        ("now-1d/d", at("2026-03-30T00:00:00"), at("2026-03-30T23:59:59")),
        ("now/w", at("2026-03-30T00:00:00"), at("2026-04-05T23:59:59")),
        ("now/M", at("2026-03-01T00:00:00"), at("2026-03-31T23:59:59")),
        ("now/y", at("2026-01-01T00:00:00"), at("2026-12-31T23:59:59")),
    ],
)
def test_a_bound_is_read_and_rounded_either_way(bound: object, down: float, up: float) -> None:
    read = [parse_moment(bound, NOW.timestamp(), round_up=round_up) for round_up in (False, True)]

    assert read == [down, up]


@pytest.mark.parametrize("bound", [None, True, [], "", "now-", "now-1x", "now - 1d", "2026-03-31", "now-999999y"])
def test_what_is_no_bound_is_none(bound: object) -> None:
    assert parse_moment(bound, NOW.timestamp(), round_up=False) is None
