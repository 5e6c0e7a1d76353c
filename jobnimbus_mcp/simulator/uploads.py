"""Files whose bytes are still to come: announced, sent in one part or several, and then declared complete.

Source: JobNimbus API documentation, file upload. The keys of the multipart answers are not on record and made up here.
Nothing of a file is in any list before it is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobnimbus_mcp.simulator.file_rules import guessed_type, measured
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["MOST_BYTES", "Upload", "Uploads", "etag_of", "parts_of"]

MOST_BYTES = 104_857_600
"""Of one part."""

_MOST_WAITING = 64
_MOST_PARTS = 1000
_BYTES = "application/octet-stream"


@dataclass(slots=True)
class Upload:
    """One file on its way. `actor`: who announced it. `received`: part (from 1) -> its bytes."""

    fields: Record
    actor: str
    parts: int
    content_type: str = _BYTES
    received: dict[int, bytes] = field(default_factory=dict)

    def receive(self, part: int, content: bytes, content_type: str | None) -> str:
        """Take a part, in place of what was sent of it before; returns its ETag."""
        self.received[part] = content
        self.content_type = content_type or _BYTES
        return etag_of(content)

    def whole(self) -> tuple[Record, bytes]:
        """The fields and the content of the file.

        Raises: Refusal 400 while a part is missing.
        """
        missing = [part for part in range(1, self.parts + 1) if part not in self.received]
        if missing:
            raise Refusal(400, f"Nothing was uploaded as part {missing[0]}")
        content = b"".join(self.received[part] for part in range(1, self.parts + 1))
        guessed = guessed_type(str(self.fields["filename"])) if self.content_type == _BYTES else self.content_type
        return {**self.fields, **measured(content), "content_type": guessed}, content


class Uploads:
    """Those of one account that are not complete. Bounded: the oldest make room."""

    def __init__(self) -> None:
        self._waiting: dict[str, Upload] = {}

    def announce(self, jnid: str, upload: Upload) -> None:
        self._waiting[jnid] = upload
        if len(self._waiting) > _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def get(self, jnid: str) -> Upload | None:
        return self._waiting.get(jnid)

    def done(self, jnid: str) -> None:
        self._waiting.pop(jnid, None)

    def clear(self) -> None:
        self._waiting.clear()


def parts_of(body: Mapping[str, Any]) -> int:
    """How many parts a multipart upload is to have.

    Raises: Refusal 400 for no sensible number.
    """
    count = body.get("partCount")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_PARTS:
        raise Refusal(400, f"Invalid partCount - {count}")
    return count


def etag_of(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
