"""Strict reading of query parameters and JSON bodies: what is not known is refused by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from jobnimbus_mcp.errors import InvalidInput

__all__ = ["json_object", "limit_of", "one_of", "query_of", "since_of"]

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
_MAX_SHOWN = 60


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        InvalidInput: it is not JSON, or not an object.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise InvalidInput("The body is not valid JSON.") from fault
    if not isinstance(parsed, dict):
        raise InvalidInput("The body must be a JSON object.")
    return parsed


def query_of(items: Sequence[tuple[str, str]], known: Collection[str]) -> dict[str, str]:
    """The query parameters, each once.

    Raises:
        InvalidInput: an unknown or a repeated one; `field` names it.
    """
    given: dict[str, str] = {}
    for name, value in items:
        if name not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise InvalidInput(f"Unknown query parameter; known: {expected}.", field=name[:_MAX_SHOWN])
        if name in given:
            raise InvalidInput(f"The query parameter {name} is given twice.", field=name)
        given[name] = value
    return given


def one_of(given: Mapping[str, Any], name: str, allowed: Collection[str]) -> str | None:
    """The value of `name` when it is one of `allowed`; None when it is not given.

    Raises:
        InvalidInput: anything else.
    """
    if name not in given:
        return None
    value = given[name]
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInput(f"{name} must be one of: {', '.join(allowed)}.", field=name)
    return value


def limit_of(given: Mapping[str, str]) -> int:
    """`limit`, 1 to 1000, 100 when left out.

    Raises:
        InvalidInput: anything else.
    """
    text = given.get("limit", str(LIMIT_DEFAULT))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidInput(f"limit must be a whole number from 1 to {LIMIT_MAX}.", field="limit")
    return int(text)


def since_of(given: Mapping[str, str]) -> float | None:
    """`since` in epoch seconds, from a number of them or RFC 3339; None when left out.

    Raises:
        InvalidInput: anything else.
    """
    text = given.get("since")
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
        return float(text)
    try:
        # in a query an unescaped + arrives as a blank
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as fault:
        raise InvalidInput("since must be RFC 3339 or epoch seconds.", field="since") from fault
