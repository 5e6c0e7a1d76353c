"""Values held in this process: bounded by bytes, least recently used first out. Never trusted by itself: either the
store validates it, or the applied log says that nothing has made it dirty."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from jobnimbus_mcp.cache.codec import Entry

__all__ = ["ENTRY_OVERHEAD_BYTES", "L1", "Held"]

ENTRY_OVERHEAD_BYTES = 600
"""The dict's slot, the link of the order, two tuples, the key's and the value's own headers, etag and five numbers."""

_TAG_OVERHEAD_BYTES = 60


class Held(NamedTuple):
    """An entry, and what it takes to serve it without asking the store.

    `since`: the coherence mark of before the READ that brought it was sent. `bearer`: for whom `admitted_until` counts.
    The three times are on the monotonic clock.
    """

    entry: Entry
    tags: tuple[str, ...]
    bearer: str
    since: int
    fresh_until: float
    kept_until: float
    admitted_until: float


class L1:
    """Entries by key text. `max_bytes` bounds keys, values, tags and overhead together; 0 keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError("max_bytes must not be negative")
        self._max_bytes = max_bytes
        self._bytes = 0
        self._evicted = 0
        self._entries: OrderedDict[str, Held] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def get(self, key_text: str) -> Held | None:
        """What is held, dirty or not; the caller decides whether it may be used."""
        held = self._entries.get(key_text)
        if held is not None:
            self._entries.move_to_end(key_text)
        return held

    def put(self, key_text: str, held: Held) -> None:
        """Hold it, and let go of the least recently used ones while over the bound."""
        self.discard(key_text)
        cost = _cost(key_text, held)
        if cost > self._max_bytes:
            return
        self._entries[key_text] = held
        self._bytes += cost
        while self._bytes > self._max_bytes:
            oldest, dropped = self._entries.popitem(last=False)
            self._bytes -= _cost(oldest, dropped)
            self._evicted += 1

    def discard(self, key_text: str) -> None:
        held = self._entries.pop(key_text, None)
        if held is not None:
            self._bytes -= _cost(key_text, held)

    def discard_prefix(self, prefix: str) -> int:
        """Let go of every key that starts so; how many there were."""
        doomed = [key_text for key_text in self._entries if key_text.startswith(prefix)]
        for key_text in doomed:
            self.discard(key_text)
        return len(doomed)

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def stats(self) -> dict[str, Any]:
        return {
            "entries": len(self._entries),
            "bytes": self._bytes,
            "maxBytes": self._max_bytes,
            "evictions": self._evicted,
        }


def _cost(key_text: str, held: Held) -> int:
    tags = sum(map(len, held.tags)) + _TAG_OVERHEAD_BYTES * len(held.tags)
    return len(key_text) + len(held.entry.value) + tags + ENTRY_OVERHEAD_BYTES
