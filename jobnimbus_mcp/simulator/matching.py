"""Comparing one value of a record with what a filter clause asks, the way the search index holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jobnimbus_mcp.simulator.datemath import parse_moment
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.text import Analysis, analysis_of, tokens

__all__ = ["any_form", "as_text", "compare", "descend", "equals", "forms", "present", "values_at"]


def values_at(record: Mapping[str, Any], path: str) -> Iterator[Any]:
    """The plain values under a dotted path, through lists of objects; null is no value."""
    yield from descend(record, path.split("."))


def descend(node: Any, path: Sequence[str]) -> Iterator[Any]:
    if isinstance(node, list):
        for element in node:
            yield from descend(element, path)
    elif path:
        if isinstance(node, dict):
            yield from descend(node.get(path[0]), path[1:])
    elif node is not None and not isinstance(node, dict):
        yield node


def present(node: Any, path: Sequence[str]) -> Iterator[Any]:
    """Like `descend`, but an object counts as there."""
    if isinstance(node, list):
        for element in node:
            yield from present(element, path)
    elif path:
        if isinstance(node, dict):
            yield from present(node.get(path[0]), path[1:])
    elif node is not None:
        yield node


def forms(value: str, analysis: Analysis) -> list[str]:
    """The strings the index holds for a value. Keywords also in lower case, for prefix and wildcard."""
    if analysis is Analysis.KEYWORD:
        return [value, value.lower()]
    if analysis is Analysis.WHOLE:
        return [value.lower(), *tokens(value)]
    return tokens(value)


def any_form(path: str, test: Callable[[str], bool]) -> Callable[[Any], bool]:
    analysis = analysis_of(path)
    return lambda value: isinstance(value, str) and any(test(form) for form in forms(value, analysis))


def equals(path: str, wanted: Sequence[Any]) -> Callable[[Any], bool]:
    """Literal comparison with what the index holds: the wanted value is neither tokenised nor lower-cased."""
    analysis = analysis_of(path)
    texts = frozenset(as_text(value) for value in wanted)
    numbers = frozenset(number for number in map(_as_number, wanted) if number is not None)
    truths = frozenset(
        value is True or value == "true" for value in wanted if isinstance(value, bool) or value in ("true", "false")
    )

    def equal(value: Any) -> bool:
        if isinstance(value, str):
            if analysis is Analysis.KEYWORD:
                return value in texts
            return any(form in texts for form in forms(value, analysis))
        if isinstance(value, bool):
            return value in truths
        return value in numbers

    return equal


def compare(path: str, key: str, bound: Any, now: float) -> Callable[[Any], bool]:
    limit: Any
    if isinstance(bound, str) and analysis_of(path) is Analysis.KEYWORD:
        limit = bound
    else:
        moment = parse_moment(bound, now, round_up=key in ("gt", "lte"))
        if moment is None:
            # A range over tokens makes no sense for dates; over names it is the alphabet's order.
            if not isinstance(bound, str) or "date_" in path.rpartition(".")[2]:
                raise Refusal(400, f"parse_exception: failed to parse date field [{bound}] for [{path}]")
            limit = bound
        else:
            limit = moment

    def test(value: Any) -> bool:
        if isinstance(value, str) is not isinstance(limit, str):
            return False
        if key == "gte":
            return bool(value >= limit)
        if key == "gt":
            return bool(value > limit)
        if key == "lte":
            return bool(value <= limit)
        return bool(value < limit)

    return test


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
