"""A record as people read it: what is set, said once, in words and amounts instead of codes and noise.

Applied to every answer but `raw` ones, which are JobNimbus's own. Fields keep their names; nothing is made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import orjson

from jobnimbus_mcp.crm.payloads import epoch_s, is_date_field, rfc3339
from jobnimbus_mcp.tools.plain_text import plain_text

__all__ = ["PEOPLE", "date_labels", "has_labels", "is_money", "readable", "without_twins"]

PEOPLE = ("owners", "subcontractors")
"""Lists of `{"id"}` to which JobNimbus adds no names. Source: JobNimbus API documentation, links."""

_LINK = ("id", "type", "name")
"""Of a linked record, what tells which it is."""

_TEXTS = frozenset({"note", "description", "internal_note", "customer_note", "terms"})
"""Fields that may hold HTML. Source: JobNimbus API documentation, notes and documents."""

_PER_UNIT = frozenset({"price", "cost", "preSurchargePrice"})
_MONEY = re.compile(
    r"(?:sub)?total|tax|amount|due|credit|surcharge|revenue|margin|(?:parent_)?last_(?:estimate|invoice)"
    r"|(?:.*_)?(?:total|due|paid|amount|revenue|profit|margin|price|cost|commissions)"
    r"|total_line_item_(?:cost|price)|price|cost|preSurchargePrice"
)
_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,20})?")
_CENTS, _PER_UNIT_PLACES = 2, 4
"""Things sold by the square foot cost parts of a cent each."""
_NOISE = 1e-9
"""Relative; what is nearer than this to a whole cent was meant to be one. Doubles err by about 1e-16 per operation."""

_WHOLE_MOST = 2.0**53
"""Beyond it a double is no count of anything, and beyond 2**64 the whole number cannot be written as JSON."""

_STORED = re.compile(r"cf_(?:string|date|long|double|boolean)_[0-9]+")
_JOBNIMBUS_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*|[a-z]+(?:[A-Z][a-z0-9]*)+|PaymentSource")
"""How JobNimbus spells its own fields; custom labels are what people typed. One typed just so is shown twice."""

_NOTHING = object()
_Twins = list[tuple[list[str], list[str]]]


class _Sense(Enum):
    """What a field of some name holds."""

    PLAIN = "plain"
    DATE = "date"
    MONEY = "money"
    PER_UNIT = "per unit"
    TEXT = "text"
    PEOPLE = "people"
    LINKS = "links"


@lru_cache(maxsize=8192)  # an account has some hundred names of fields
def _sense(name: str) -> _Sense:
    if is_date_field(name):
        return _Sense.DATE
    if name in _TEXTS:
        return _Sense.TEXT
    if name in PEOPLE:
        return _Sense.PEOPLE
    if name in ("primary", "related"):
        return _Sense.LINKS
    if name in _PER_UNIT:
        return _Sense.PER_UNIT
    return _Sense.MONEY if _MONEY.fullmatch(name) else _Sense.PLAIN


def is_money(name: str) -> bool:
    """Whether a field of this name holds dollars."""
    return _sense(name) in (_Sense.MONEY, _Sense.PER_UNIT)


def readable(
    row: Mapping[str, Any],
    people: Mapping[str, str],
    *,
    brief_links: bool = False,
    dated: Collection[str] = (),
) -> dict[str, Any]:
    """A new object without what is not set. Zero money and `false` stay: they say something.

    `people`: user id -> name. `brief_links`: of linked records only id, type and name, and each once: what
    `primary` says, `related` does not repeat. `dated`: fields that hold dates though their names do not say so.
    """
    if brief_links and "related" in row and "primary" in row:
        row = {**row, "related": _others(row["related"], row["primary"])}
    shown: dict[str, Any] = {}
    for name, value in row.items():
        sense = _Sense.DATE if name in dated else _sense(name)
        seen = _seen(sense, value, people, brief_links)
        if seen is not _NOTHING:
            shown[name] = seen
    return shown


def _seen(sense: _Sense, value: Any, people: Mapping[str, str], brief_links: bool) -> Any:
    if value is None or value == "" or value == [] or value == {}:
        return _NOTHING
    if isinstance(value, str):
        return _SAID[sense](value) if sense in _SAID else value
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return _number(sense, value)
    if isinstance(value, dict):
        if sense is _Sense.LINKS and brief_links:
            value = {name: value[name] for name in _LINK if name in value}
        return readable(value, people, brief_links=brief_links) or _NOTHING
    if isinstance(value, list):
        items = [_item(sense, item, people, brief_links) if isinstance(item, dict) else item for item in value]
        return items or _NOTHING
    return value


def _others(related: Any, primary: Any) -> Any:
    """What a record is related to, apart from its primary."""
    if not isinstance(related, list) or not isinstance(primary, Mapping) or not primary.get("id"):
        return related
    return [link for link in related if not isinstance(link, Mapping) or link.get("id") != primary["id"]]


def _item(sense: _Sense, item: Mapping[str, Any], people: Mapping[str, str], brief_links: bool) -> dict[str, Any]:
    if sense is _Sense.LINKS and brief_links:
        item = {name: item[name] for name in _LINK if name in item}
    shown = readable(item, people, brief_links=brief_links)
    if sense is _Sense.PEOPLE and "name" not in shown and (name := people.get(str(shown.get("id")))):
        shown["name"] = name
    return shown


def _number(sense: _Sense, value: int | float) -> Any:
    if sense is _Sense.DATE:
        return _moment(value)
    if not isinstance(value, float):
        return value
    if sense is _Sense.MONEY or sense is _Sense.PER_UNIT:
        return _amount(value, _CENTS if sense is _Sense.MONEY else _PER_UNIT_PLACES)
    cents = round(value, _CENTS)
    return cents if abs(value - cents) <= _NOISE * max(1.0, abs(value)) else value


def _amount(value: float, places: int) -> int | float:
    rounded = round(value, places)
    return int(rounded) if rounded.is_integer() and abs(rounded) <= _WHOLE_MOST else rounded


@lru_cache(maxsize=16384)  # the records of a page were made and changed together; writing a date costs most of all
def _moment(value: int | float) -> Any:
    seconds = epoch_s(value)
    if seconds is None:
        return _NOTHING
    try:
        return rfc3339(seconds)
    except (OverflowError, ValueError, OSError):
        return value  # beyond the year 9999: what an integration wrote there is no date


def _said_of_date(text: str) -> Any:
    return _moment(int(text)) if text.isascii() and text.isdigit() and len(text) <= 15 else text


def _said_of_money(text: str, places: int = _CENTS) -> Any:
    return _amount(float(text), places) if _NUMBER.fullmatch(text) else text


_SAID: Mapping[_Sense, Callable[[str], Any]] = {
    _Sense.DATE: _said_of_date,
    _Sense.MONEY: _said_of_money,
    _Sense.PER_UNIT: lambda text: _said_of_money(text, _PER_UNIT_PLACES),
    _Sense.TEXT: lambda text: plain_text(text) or _NOTHING,
}


# -- custom fields: under their label, and under the key they are stored by ------------------------------------------


def has_labels(names: Sequence[str]) -> bool:
    """Whether one of these may be the label of a custom field."""
    return any(_is_label(name) for name in names)


def without_twins(row: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The record without the `cf_*` fields that it holds a second time under their labels; and which labels are dates.

    Records do not say which label is whose: they are told by equal values. Where a value stands under more stored
    keys than labels, nobody can say which of them has no label, and all stay.
    """
    twins = _twins(row)
    hidden = {name for stored, labels in twins if len(labels) >= len(stored) for name in stored}
    return {name: value for name, value in row.items() if name not in hidden}, _dated(twins)


def date_labels(row: Mapping[str, Any]) -> frozenset[str]:
    """Labels of custom dates."""
    return _dated(_twins(row))


def _dated(twins: _Twins) -> frozenset[str]:
    return frozenset(
        label for stored, labels in twins if all(name.startswith("cf_date_") for name in stored) for label in labels
    )


def _twins(row: Mapping[str, Any]) -> _Twins:
    """(stored keys, labels) of each value that stands under both."""
    by_value: dict[bytes, tuple[list[str], list[str]]] = {}
    for name in row:
        if _is_stored(name):
            by_value.setdefault(orjson.dumps(row[name]), ([], []))[0].append(name)
    if not by_value:
        return []
    for name in row:
        if _is_label(name) and (twins := by_value.get(orjson.dumps(row[name]))) is not None:
            twins[1].append(name)
    return [twins for twins in by_value.values() if twins[1]]


@lru_cache(maxsize=8192)
def _is_stored(name: str) -> bool:
    return _STORED.fullmatch(name) is not None


@lru_cache(maxsize=8192)
def _is_label(name: str) -> bool:
    return _JOBNIMBUS_NAME.fullmatch(name) is None
