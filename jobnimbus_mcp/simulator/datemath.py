"""Elasticsearch date math (`now-30d`, `now+1h`, `now-1d/d`) in epoch seconds, UTC."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

__all__ = ["parse_moment"]

_EXPRESSION = re.compile(r"now((?:[+-]\d{1,6}[yMwdhHms])*)(?:/([yMwdhHms]))?")
_STEP = re.compile(r"([+-]\d+)([yMwdhHms])")
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "H": 3600, "m": 60, "s": 1}


def parse_moment(bound: object, now: float, *, round_up: bool) -> float | None:
    """A range bound as a number: a number or a numeral as it is, `now...` counted from `now`; None: neither.

    `round_up`: with `/d` and the like, the last second of the unit instead of its first, as `lte` and `gt` ask.
    """
    if isinstance(bound, bool):
        return None
    if isinstance(bound, (int, float)):
        return bound
    if not isinstance(bound, str):
        return None
    try:
        return float(bound)
    except ValueError:
        pass  # not a numeral: it may still be date math
    expression = _EXPRESSION.fullmatch(bound)
    if expression is None:
        return None
    moment = datetime.fromtimestamp(now, UTC)
    try:
        for amount, unit in _STEP.findall(expression[1]):
            moment = _move(moment, int(amount), unit)
        if expression[2]:
            start = _floor(moment, expression[2])
            moment = _move(start, 1, expression[2]) - timedelta(seconds=1) if round_up else start
    except (OverflowError, ValueError):
        return None
    return moment.timestamp()


def _move(moment: datetime, amount: int, unit: str) -> datetime:
    if unit in ("y", "M"):
        months = moment.year * 12 + moment.month - 1 + amount * (12 if unit == "y" else 1)
        year, month = divmod(months, 12)
        last = calendar.monthrange(year, month + 1)[1]
        return moment.replace(year=year, month=month + 1, day=min(moment.day, last))
    return moment + timedelta(seconds=amount * _SECONDS[unit])


def _floor(moment: datetime, unit: str) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "y":
        return day.replace(month=1, day=1)
    if unit == "M":
        return day.replace(day=1)
    if unit == "w":
        return day - timedelta(days=day.weekday())
    step = _SECONDS[unit]
    return datetime.fromtimestamp(moment.timestamp() // step * step, UTC)
