"""When something is to happen: days and moments as agents write them, into the fields that JobNimbus keeps of it.

The last day counts in full. What lasts all day carries its days a second time as text, and a calendar goes by that;
so wherever one moves, the other does. Source: JobNimbus API documentation, shared record conventions, time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.dates import first_second, last_second

__all__ = ["SCHEDULE", "scheduled"]

SCHEDULE = ("date_start", "date_end", "all_day")
"""The arguments that say when."""


def scheduled(given: Mapping[str, Any], record: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """What to write for these arguments. `record`: as it is, {} of a new one. "" takes a date away (0 is how JobNimbus
    says none).

    Raises:
        InvalidInput: a date that is none, or an end before the start.
    """
    told: dict[str, Any] = {}
    if given.get("date_start") is not None:
        told["date_start"] = first_second(given["date_start"], zone, field="date_start") if given["date_start"] else 0
    if given.get("date_end") is not None:
        told["date_end"] = last_second(given["date_end"], zone, field="date_end") if given["date_end"] else 0
    if given.get("all_day") is not None:
        told["all_day"] = given["all_day"]
    start, end = (told.get(name, epoch_s(record.get(name)) or 0) for name in ("date_start", "date_end"))
    if start and end and end < start:
        known = "" if "date_end" in told else " Give date_end as well."
        raise InvalidInput(f"date_end lies before date_start.{known}", field="date_end")
    days = {"all_day_start_date": _day(start, zone), "all_day_end_date": _day(end or start, zone)}
    if told.get("all_day", record.get("all_day")) is True:
        moved = {"all_day_start_date": "date_start" in told, "all_day_end_date": "date_end" in told or not end}
        told |= {name: day for name, day in days.items() if moved[name] or not record.get(name)}
    elif "all_day" in told:
        told |= {name: "" for name in days if record.get(name)}
    return told


def _day(seconds: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone).date().isoformat() if seconds else ""
