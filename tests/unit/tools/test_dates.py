"""Dates as agents write them: whole days in the account's time zone, both ends included."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.dates import first_second, last_second, whole_days

NEW_YORK = ZoneInfo("America/New_York")


def epoch(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-11-21", "2026-11-21T00:00:00-05:00", "2026-11-21T23:59:59-05:00"),
        # the day the clocks go back has 25 hours
        ("2026-11-01", "2026-11-01T00:00:00-04:00", "2026-11-01T23:59:59-05:00"),
        ("2026-11-21T10:30:00Z", "2026-11-21T10:30:00+00:00", "2026-11-21T10:30:00+00:00"),
        ("2026-11-21t10:30:00z", "2026-11-21T10:30:00+00:00", "2026-11-21T10:30:00+00:00"),
        ("2026-11-21T10:30:00+02:00", "2026-11-21T08:30:00+00:00", "2026-11-21T08:30:00+00:00"),
        ("2026-11-21T10:30", "2026-11-21T10:30:00-05:00", "2026-11-21T10:30:00-05:00"),
    ],
)
def test_a_date_means_the_whole_day_and_a_moment_itself(text: str, first: str, last: str) -> None:
    assert first_second(text, NEW_YORK, field="x") == epoch(first)
    assert last_second(text, NEW_YORK, field="x") == epoch(last)


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2026-02-30", "21.11.2026", "1763600000", "2026-11-21T25:00:00Z", "", "9999-12-31", "1969-12-31"],
)
def test_anything_else_is_refused_by_the_name_of_its_argument(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        first_second(text, UTC, field="date_from")
    assert refused.value.field == "date_from"


def test_today_is_the_accounts_day_and_stable_all_day_long() -> None:
    morning, evening = epoch("2026-11-21T06:00:00-05:00"), epoch("2026-11-21T23:30:00-05:00")

    assert whole_days(morning, NEW_YORK, 30) == whole_days(evening, NEW_YORK, 30)
    assert whole_days(morning, NEW_YORK, 30) == (
        epoch("2026-11-21T00:00:00-05:00"),
        epoch("2026-12-21T23:59:59-05:00"),
    )
