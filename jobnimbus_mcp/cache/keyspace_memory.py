"""Keys with values and lifetimes in this process, bounded in bytes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from jobnimbus_mcp.clock import Clock

__all__ = ["Kept", "Keyspace"]

_KEY_OVERHEAD_BYTES = 300


class Kept(NamedTuple):
    """`expires`: on the monotonic clock; None never."""

    value: bytes
    expires: float | None


class Keyspace:
    """The least recently used go first when there is more than `max_bytes`."""

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def get(self, key_text: str) -> Kept | None:
        kept = self._kept.get(key_text)
        if kept is None:
            return None
        if kept.expires is not None and kept.expires <= self._clock.monotonic():
            self.drop(key_text)
            return None
        self._kept.move_to_end(key_text)
        return kept

    def peek(self, key_text: str) -> bytes | None:
        kept = self.get(key_text)
        return None if kept is None else kept.value

    def remaining_s(self, key_text: str) -> float:
        """What remains of the key's life; 0 without the key, or where it never ends."""
        kept = self.get(key_text)
        return 0.0 if kept is None or kept.expires is None else kept.expires - self._clock.monotonic()

    def set(self, key_text: str, value: bytes, life_s: float | None) -> None:
        self._put(key_text, Kept(value, None if life_s is None else self._clock.monotonic() + life_s))

    def replace(self, key_text: str, value: bytes) -> None:
        """Another value, and the life that there was."""
        kept = self.get(key_text)
        self._put(key_text, Kept(value, None if kept is None else kept.expires))

    def drop(self, key_text: str) -> bool:
        kept = self._kept.pop(key_text, None)
        if kept is None:
            return False
        self._bytes -= len(key_text) + len(kept.value) + _KEY_OVERHEAD_BYTES
        return True

    def names(self) -> dict[str, float | None]:
        """Every key and when it expires."""
        return {key_text: kept.expires for key_text in list(self._kept) if (kept := self.get(key_text)) is not None}

    def matching(self, glob: str) -> list[str]:
        """`*` and `?` as in Redis; a backslash takes a character as it is."""
        fits = _glob_matcher(glob)
        return [key_text for key_text in list(self._kept) if fits(key_text) and self.get(key_text) is not None]

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _put(self, key_text: str, kept: Kept) -> None:
        self.drop(key_text)
        self._kept[key_text] = kept
        self._bytes += len(key_text) + len(kept.value) + _KEY_OVERHEAD_BYTES
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self.drop(next(iter(self._kept)))


def _glob_matcher(glob: str) -> Callable[[str], Any]:
    pattern, escaped = [], False
    for character in glob:
        if escaped or character not in "*?\\":
            pattern.append(re.escape(character))
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            pattern.append(".*" if character == "*" else ".")
    return re.compile("".join(pattern), re.DOTALL).fullmatch
