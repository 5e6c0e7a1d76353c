"""Numbers of a call's arguments: those that JSON can write again.

Parsers take NaN, Infinity and 1e400, and whole numbers of any length. Written again the former are null, which takes a
field's value away, and the latter are not written at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from jobnimbus_mcp.errors import InvalidInput

__all__ = ["refuse_unwritable"]

_LEAST, _MOST = -(2**63), 2**63 - 1


def refuse_unwritable(arguments: Mapping[str, Any]) -> None:
    """Return when every number in them can be written again, however deep it lies.

    Raises:
        InvalidInput: one cannot; it names the argument.
    """
    for name, value in arguments.items():
        if not _writable(value):
            raise InvalidInput(f"{name[:60]} holds a number that is not finite, or too large.", field=name[:60])


def _writable(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, int):
        return _LEAST <= value <= _MOST
    if isinstance(value, Mapping):
        return all(map(_writable, value.values()))
    return all(map(_writable, value)) if isinstance(value, list) else True
