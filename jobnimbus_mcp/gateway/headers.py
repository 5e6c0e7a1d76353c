"""Headers that say who is calling, as every way in takes them: once or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from jobnimbus_mcp.errors import InvalidInput

__all__ = ["sole_value"]


def sole_value(name: str, values: Sequence[str]) -> str | None:
    """The value of a header, None where it was not sent.

    Raises:
        InvalidInput: it was sent more than once, so that nobody can say which one is meant.
    """
    if len(values) > 1:
        raise InvalidInput(f"The header {name} was sent {len(values)} times: send it once.", field=name)
    return values[0] if values else None
