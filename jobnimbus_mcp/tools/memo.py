"""Answers as they were last shown, to be shown again while every read they were made of still gives the same.

An answer is a pure function of the arguments, the day and the values read, unless it looked at the clock. So when a
call comes again, its reads are made again (each validated by its round trip, as ever), and where all of them give what
they gave before, the finished bytes are handed on: nothing is parsed, picked, shaped or serialised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.gateway.identity import Caller

__all__ = ["AnswerMemo", "Recalled", "Remembered", "Used", "memo_key"]

_OVERHEAD_BYTES = 600
"""Of an entry beside its key and answer: dictionary, tuples and the reads' own fields."""


@dataclass(frozen=True, slots=True)
class Used:
    """A read an answer was made of, and which value it gave. `internal`: a look-up on the side.

    `stale_reason`: the answer says it, so the same value, stale for another reason or no more, makes another answer;
    None for a look-up, of which the answer does not speak.
    """

    read: Read
    etag: str
    internal: bool
    stale_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """`data`: the structured result as JSON."""

    used: tuple[Used, ...]
    data: bytes


class Recalled(Exception):
    """Not an error: the call's answer is at hand, and nothing of it needs to be made again. Never leaves the tools."""

    def __init__(self, data: bytes) -> None:
        super().__init__("recalled")
        self.data = data


class AnswerMemo:
    """The least recently used go when `max_bytes` is reached; 0 remembers nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Remembered] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def get(self, key: bytes) -> Remembered | None:
        """What was remembered; the caller makes its reads again before use."""
        remembered = self._kept.get(key)
        if remembered is not None:
            self._kept.move_to_end(key)
        return remembered

    def put(self, key: bytes, remembered: Remembered) -> None:
        self.discard(key)
        size = _size_bytes(key, remembered)
        if size > self._max_bytes:
            return
        self._kept[key] = remembered
        self._bytes += size
        while self._bytes > self._max_bytes:
            old_key, old = self._kept.popitem(last=False)
            self._bytes -= _size_bytes(old_key, old)

    def discard(self, key: bytes) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._bytes -= _size_bytes(key, old)


def memo_key(tool: str, who: Caller, arguments: Mapping[str, Any], today: int) -> bytes:
    """Equal for equal questions of one partition on one day (`today` is any number for it: "the next 30 days" are
    others tomorrow). `max_age_s` is no part of it: each read is asked with its own."""
    asked = {name: value for name, value in arguments.items() if name != "max_age_s"}
    return orjson.dumps([tool, who.instance, who.partition, today, asked], option=orjson.OPT_SORT_KEYS)


def _size_bytes(key: bytes, remembered: Remembered) -> int:
    return len(key) + len(remembered.data) + _OVERHEAD_BYTES * (1 + len(remembered.used))
