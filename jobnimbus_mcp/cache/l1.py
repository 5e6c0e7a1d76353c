"""Values held in this process: bounded by bytes, least recently used first out. Never trusted without the store."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from jobnimbus_mcp.cache.codec import Entry

__all__ = ["ENTRY_OVERHEAD_BYTES", "L1"]

ENTRY_OVERHEAD_BYTES = 400
"""The dict's slot, the link of the order, the tuple, the key's and the value's own headers, etag and float."""


class L1:
    """Entries by key text. `max_bytes` bounds keys, values and overhead together; 0 keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError("max_bytes must not be negative")
        self._max_bytes = max_bytes
        self._bytes = 0
        self._evicted = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def get(self, key_text: str) -> Entry | None:
        """The entry held; the caller validates it against the store before use."""
        entry = self._entries.get(key_text)
        if entry is not None:
            self._entries.move_to_end(key_text)
        return entry

    def put(self, key_text: str, entry: Entry) -> None:
        """Hold the entry, and let go of the least recently used ones while over the bound."""
        self.discard(key_text)
        cost = _cost(key_text, entry)
        if cost > self._max_bytes:
            return
        self._entries[key_text] = entry
        self._bytes += cost
        while self._bytes > self._max_bytes:
            oldest, dropped = self._entries.popitem(last=False)
            self._bytes -= _cost(oldest, dropped)
            self._evicted += 1

    def discard(self, key_text: str) -> None:
        entry = self._entries.pop(key_text, None)
        if entry is not None:
            self._bytes -= _cost(key_text, entry)

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


def _cost(key_text: str, entry: Entry) -> int:
    return len(key_text) + len(entry.value) + ENTRY_OVERHEAD_BYTES
