"""Versions of answers: a short word for what was shown, so that asking again costs only what changed since.

A version stands for a tool, a question and what was shown of the records, not for when they were read. What a page
showed is remembered for a while, row by row as digests, so that a later answer can tell which rows are new or changed.
Only the process that gave an answer remembers it: anywhere else the whole answer is given, which is never wrong.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.inputs import ReadingArgs

__all__ = [
    "NO_VERSION",
    "REMEMBERED_BYTES",
    "Asked",
    "Versions",
    "changed_rows",
    "row_digest",
    "unchanged",
    "versioned",
]

NO_VERSION = "-" * 12
"""Of the length of every version, to be counted before there is one: 72 bits, as text.

Of a million versions of one question two are equal by chance once in ten billion times."""

REMEMBERED_BYTES = 4 * 2**20
"""About a thousand pages of 25 rows."""

_VERSION_BYTES = 9
_ROW_BYTES = 8
_ENTRY_OVERHEAD_BYTES = 500
_ROW_OVERHEAD_BYTES = 150
"""Of one id with its digest in a dictionary, beside their own bytes."""

_OF_THE_CALL = frozenset({"known_version", "max_age_s", "cursor", "from_"})
"""Arguments that say nothing of what is asked; a page's place is told apart."""

_OF_THE_MOMENT = frozenset({"as_of", "stale", "stale_reason", "next_cursor", "version", "known_version_unknown"})
"""Of an answer: when and how fresh it was read, and the way on. The same records read later are the same version."""

_KEPT = ("count", "next_cursor", "as_of", "version", "complete", "incomplete_reason", "stale", "stale_reason")


class Asked:
    """A tool and a question. `place`: of the page's first record in the whole list."""

    def __init__(self, tool: str, args: ReadingArgs, place: int = 0) -> None:
        question = args.model_dump(mode="json", exclude=set(_OF_THE_CALL), exclude_none=True)
        self.words = orjson.dumps([tool, question, place], option=orjson.OPT_SORT_KEYS)

    def version(self, answer: Mapping[str, Any], rows: Iterable[bytes] = ()) -> str:
        """12 URL-safe characters. `rows`: the records shown, each as JSON, where `answer` is to be told without."""
        digest = hashlib.blake2b(self.words, digest_size=_VERSION_BYTES, person=b"jn-version")
        told = {name: value for name, value in answer.items() if name not in _OF_THE_MOMENT}
        for part in (orjson.dumps(told, option=orjson.OPT_SORT_KEYS), *rows):
            digest.update(b"\n")  # which JSON never holds, so no two answers run into the same bytes
            digest.update(part)
        return base64.urlsafe_b64encode(digest.digest()).decode()


class Versions:
    """Which rows each version showed, by id; the least recently used go when `max_bytes` is reached."""

    def __init__(self, max_bytes: int = REMEMBERED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Mapping[str, bytes]] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def rows(self, who: Caller, asked: Asked, version: str) -> Mapping[str, bytes] | None:
        """id -> digest of the row as that version showed it; None where that is not known of this very question."""
        key = _key(who, asked, version)
        rows = self._kept.get(key)
        if rows is not None:
            self._kept.move_to_end(key)
        return rows

    def remember(self, who: Caller, asked: Asked, version: str, rows: Mapping[str, bytes]) -> None:
        key = _key(who, asked, version)
        known = self._kept.pop(key, None)
        if known is not None:
            self._bytes -= _size_bytes(key, known)
        size = _size_bytes(key, rows)
        if size > self._max_bytes:
            return
        self._kept[key] = rows
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= _size_bytes(*self._kept.popitem(last=False))


def row_digest(row: bytes) -> bytes:
    """Of a record as it was shown, as JSON."""
    return hashlib.blake2b(row, digest_size=_ROW_BYTES).digest()


def versioned(tool: str, args: ReadingArgs, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The whole answer with its version, or `unchanged` where that is the one its caller has. For all but lists."""
    version = Asked(tool, args).version(answer)
    told = {**answer, "version": version}
    return unchanged(told) if args.known_version == version else told


def unchanged(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is told instead of an answer whose version the caller has: that, and what may differ all the same."""
    return {"unchanged": True, **{name: answer[name] for name in _KEPT if name in answer}}


def changed_rows(
    ids: Sequence[str], digests: Sequence[bytes], before: Mapping[str, bytes]
) -> tuple[list[int], list[str]]:
    """Places of the rows that are new or changed, and the ids of those that are there no more."""
    changed = [at for at, (jnid, digest) in enumerate(zip(ids, digests, strict=True)) if before.get(jnid) != digest]
    present = set(ids)
    return changed, [jnid for jnid in before if jnid not in present]


def _key(who: Caller, asked: Asked, version: str) -> bytes:
    words = orjson.dumps([who.instance, who.partition, version]) + asked.words
    return hashlib.blake2b(words, digest_size=16).digest()


def _size_bytes(key: bytes, rows: Mapping[str, bytes]) -> int:
    ids = sum(len(jnid) for jnid in rows)
    return len(key) + _ENTRY_OVERHEAD_BYTES + ids + len(rows) * (_ROW_BYTES + _ROW_OVERHEAD_BYTES)
