"""Tolerant reading of JobNimbus's values: dates in seconds or milliseconds, dotted paths, "none" in four spellings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["MILLISECONDS_FROM", "digits_of", "epoch_s", "is_date_field", "rfc3339", "values_at"]

MILLISECONDS_FROM = 10**11
"""Above this a number is milliseconds: as seconds it would be the year 5138.

Source: JobNimbus stores what integrations sent, and some sent JavaScript's milliseconds.
"""
_DIGITS_MOST = 20
"""What is longer is no date, and may be too large to be reckoned with."""
_DATE_FIELD = re.compile(r"(^|_)date(_|$)")
_NOT_DATES = frozenset({"stage_dates_overrides", "all_day_start_date", "all_day_end_date"})


def epoch_s(value: Any) -> int | None:
    """Epoch seconds of a JobNimbus date, or None for its ways to say none (0, null, "", absent)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = int(value) if len(value) <= _DIGITS_MOST else None
        except ValueError:
            return None
    if not isinstance(value, (int, float)) or value <= 0:
        return None
    return int(value / 1000) if value > MILLISECONDS_FROM else int(value)


def rfc3339(seconds: float) -> str:
    """`2026-11-21T22:48:44Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_date_field(name: str) -> bool:
    """Whether a field of this name holds epoch seconds (`date_created`, `cf_date_5`, `last_invoice_date_created`)."""
    return name not in _NOT_DATES and _DATE_FIELD.search(name) is not None


def values_at(row: Mapping[str, Any], path: str) -> Iterator[Any]:
    """Every value at a dotted path, through lists: `related.id` gives the id of each related record."""
    head, _, rest = path.partition(".")
    value = row.get(head)
    if not rest:
        if isinstance(value, list):
            yield from value
        elif value is not None:
            yield value
        return
    for item in value if isinstance(value, list) else (value,):
        if isinstance(item, Mapping):
            yield from values_at(item, rest)


def digits_of(text: str) -> str:
    """The digits of a phone number, without the leading 1 of an eleven-digit one: equal numbers, equal digits."""
    digits = re.sub(r"\D", "", text)
    return digits[1:] if len(digits) == 11 and digits.startswith("1") else digits
