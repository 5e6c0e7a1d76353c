"""Records as lines of a table: a header, then one line each, cells separated by ` | `.

A pipe within a value is written `\\|` and line breaks are spaces, so that every line is one record and splitting it at
the separator gives its cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobnimbus_mcp.tools.present import is_money

__all__ = ["columns_of", "line_of"]

_SEPARATOR = " | "
_TITLES = ("name", "display_name", "title", "filename", "number", "id", "jnid")
"""What stands for a nested record: the first of these it has."""


def columns_of(rows: Sequence[Mapping[str, Any]], order: Iterable[str] | None = None) -> list[str]:
    """The fields that any of the rows has, in this order (dotted paths too), or else in that of their appearance."""
    present = dict.fromkeys(name for row in rows for name in row)
    if order is None:
        return list(present)
    heads = (name for path in order for name in (path, path.partition(".")[0]))
    return list(dict.fromkeys([*(name for name in heads if name in present), *present]))


def line_of(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The record as a line; a column it has nothing in is empty. The header is the line of the names themselves."""
    return _SEPARATOR.join(_cell(name, row.get(name)) for name in columns)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    text = _text(name, value)
    if "|" in text:
        text = text.replace("|", "\\|")
    # all white space, so that nothing can break the line or look like an empty cell
    return " ".join(text.split())


def _text(name: str, value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _number(value) if is_money(name) else str(value)
        case list():
            return ", ".join([text for item in value if (text := _text(name, item))])
        case dict():
            return _of_object(value)
        case _:
            return str(value)


def _number(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) or value != round(value, 2) else f"{value:,.2f}"


def _of_object(value: Mapping[str, Any]) -> str:
    for name in _TITLES:
        if name in value and (title := _text(name, value[name])):
            return title
    return "; ".join([f"{name}: {text}" for name in value if (text := _text(name, value[name]))])
