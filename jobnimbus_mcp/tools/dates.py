"""Dates as an agent writes them -> epoch seconds."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from jobnimbus_mcp.errors import InvalidInput

__all__ = ["first_second", "is_date", "last_second", "whole_days"]

_LATEST = 2**32
"""The year 2106. JobNimbus counts seconds from 1970; nothing that an agent asks for lies outside."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})?")


def first_second(text: str, zone: tzinfo, *, field: str) -> int:
    """The first second that `text` means: a date is midnight in `zone`, a moment is itself.

    Raises:
        InvalidInput: neither `YYYY-MM-DD` nor RFC 3339, or no such day.
    """
    return _read(text, zone, field, end=False)


def last_second(text: str, zone: tzinfo, *, field: str) -> int:
    """The last second that `text` means: a date is a whole day, up to 23:59:59 in `zone`.

    Raises:
        InvalidInput: neither `YYYY-MM-DD` nor RFC 3339, or no such day.
    """
    return _read(text, zone, field, end=True)


def is_date(text: str) -> bool:
    """Whether the text is written as a date or a moment."""
    return any(form.fullmatch(text.strip()) for form in (_DAY, _MOMENT))


def whole_days(now: float, zone: tzinfo, days: int) -> tuple[int, int]:
    """First second of today in `zone`, and last second of the day `days` later: stable all day, so keys are too."""
    today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    return _midnight(today, zone), _midnight(today + timedelta(days=days + 1), zone) - 1


def _read(text: str, zone: tzinfo, field: str, *, end: bool) -> int:
    text = text.strip()
    seconds = -1
    try:
        if _DAY.fullmatch(text):
            day = date.fromisoformat(text)
            seconds = _midnight(day + timedelta(days=1), zone) - 1 if end else _midnight(day, zone)
        elif _MOMENT.fullmatch(text):
            moment = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
            seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError):
        pass  # no such day or hour: said below, like any other text that is no date
    if 0 <= seconds <= _LATEST:
        return seconds
    raise InvalidInput(f"{field} must be a date (2026-11-21) or an RFC 3339 time (2026-11-21T08:30:00Z).", field=field)


def _midnight(day: date, zone: tzinfo) -> int:
    return int(datetime.combine(day, time.min, tzinfo=zone).timestamp())
