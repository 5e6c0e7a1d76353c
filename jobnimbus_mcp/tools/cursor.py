"""Where the next page of a list begins, as one opaque word that carries its own question."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from jobnimbus_mcp.errors import InvalidInput

__all__ = ["Anchor", "Cursor", "merged_arguments", "question_of"]

_VERSION = 1
_CHECK_BYTES = 6
_OFFSET_MAX = 100_000_000
_OF_THIS_PAGE = frozenset({"cursor", "from", "size", "fields", "verbosity", "format", "known_version", "max_age_s"})
"""Arguments that may differ from page to page; all others are the question."""
_NOT_CARRIED = frozenset({"cursor", "from", "known_version", "max_age_s"})
"""Arguments that say nothing of the next page."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment in the list's order from which rows are counted anew, so that no page lies beyond JobNimbus's window.

    `at`: the sort field's epoch seconds; `rows_before`: rows of the whole list ahead of that moment; `count`: of the
    whole list when the anchor was set.
    """

    at: int
    rows_before: int
    count: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The tool and question a page belongs to, and its first row's place in the whole list."""

    tool: str
    question: Mapping[str, Any]
    offset: int
    anchor: Anchor | None = None

    def word(self) -> str:
        """URL-safe text."""
        anchor = [self.anchor.at, self.anchor.rows_before, self.anchor.count] if self.anchor else None
        body = orjson.dumps([_VERSION, self.tool, dict(self.question), self.offset, anchor])
        return base64.urlsafe_b64encode(_check(body) + body).rstrip(b"=").decode()

    @classmethod
    def read(cls, word: str, tool: str) -> Cursor:
        """The cursor behind the word.

        Raises:
            InvalidInput: not one of ours, damaged, or of another tool.
        """
        refused = InvalidInput("cursor must be the next_cursor of an earlier answer of this tool.", field="cursor")
        try:
            raw = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as damaged:
            raise refused from damaged
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(body):
            raise refused
        match orjson.loads(body):
            case [version, of_tool, dict() as question, int() as offset, anchor]:
                ours = (version, of_tool) == (_VERSION, tool) and 0 <= offset <= _OFFSET_MAX
                match anchor:
                    case None if ours:
                        return cls(tool, question, offset)
                    case [int() as at, int() as rows_before, int() as count] if ours and 0 <= rows_before <= offset:
                        return cls(tool, question, offset, Anchor(at, rows_before, count))
        raise refused


def merged_arguments(tool: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Cursor | None]:
    """The arguments of this page: those given, and for a next page those its cursor carries.

    Raises:
        InvalidInput: a bad cursor, `cursor` together with `from`, or another question than the cursor's.
    """
    word = arguments.get("cursor")
    if not isinstance(word, str):
        return dict(arguments), None
    if arguments.get("from") is not None:
        raise InvalidInput("Give cursor or from, not both.", field="from")
    cursor = Cursor.read(word, tool)
    for name, value in arguments.items():
        if name not in _OF_THIS_PAGE and value is not None and cursor.question.get(name) != value:
            raise InvalidInput(
                f"{name} differs from the question this cursor continues; leave it out or start without cursor.",
                field=name,
            )
    given = {name: value for name, value in arguments.items() if value is not None}
    return {**cursor.question, **given}, cursor


def question_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a next page has to ask again: every argument given, but the page's own place."""
    return {name: value for name, value in arguments.items() if value is not None and name not in _NOT_CARRIED}


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"jn-cursor").digest()
