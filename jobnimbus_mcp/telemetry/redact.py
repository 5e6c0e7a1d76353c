"""What may never reach a log line: credentials, query strings, bodies. Pure: a value in, a value fit to print out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["MASK", "Redactor"]

MASK = "[redacted]"

_DEPTH_MAX = 6
_ITEMS_MAX = 100
_TEXT_MAX = 8_000
"""Bounds of one logged value: a record that was logged by mistake must not fill the disk, or be there whole."""

_CREDENTIAL_NAME = re.compile(r"authorization|token|secret|key|password|passwd|credential|cookie|signature", re.I)
_STORE_KEY = re.compile(r"jobnimbus(-sys)?:\{")
"""Keys of the store hold digests only, and are what one looks for when an entry behaves oddly."""

_USER_IN_URL = re.compile(r"(?<=://)[^/\s@'\"]*@")
_QUERY = re.compile(r"\?[^\s'\"<>]*=[^\s'\"<>]*")
_SCHEMED = re.compile(r"\b(bearer|basic)\s+[^\s'\",;]+", re.I)
_ASSIGNED = re.compile(
    r"\b([\w-]*(?:authorization|token|secret|api[_-]?key|password|signature)[\w-]*['\"]?\s*[=:]\s*)"
    r"(?!\s|\[redacted\])(?:'[^']*'|\"[^\"]*\"|[^\s'\",;&)}]+)",
    re.I,
)
_WHSEC = re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+")


class Redactor:
    """Masks what looks like a credential, and every value of `known`, wherever it stands.

    `known`: this server's own secrets. A caller's key is not known here; no code hands one to a log line, and under a
    telling name, in a URL or behind "bearer" it is masked all the same.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        # longest first, so that a secret that contains another goes whole; a trivial one would mask half the text
        ordered = sorted((secret for secret in known if len(secret) >= 6), key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(secret) for secret in ordered)) if ordered else None

    def event(self, _logger: object, _method: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of one log line, redacted; has the form of a structlog processor."""
        # names with an underscore are structlog's own and removed before the line is written
        return {name: value if name[:1] == "_" else self.field(name, value) for name, value in event.items()}

    def field(self, name: str, value: Any, *, depth: int = 0) -> Any:
        """`value` as it may be logged under `name`; numbers and yes/no are kept under any name: they are counts."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if _CREDENTIAL_NAME.search(name) and not (isinstance(value, str) and _STORE_KEY.match(value)):
            return MASK
        return self.value(value, depth=depth)

    def value(self, value: Any, *, depth: int = 0) -> Any:
        """`value` with every text in it redacted; bytes become their length, unknown objects their redacted repr."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        if depth >= _DEPTH_MAX:
            return "..."
        if isinstance(value, Mapping):
            items = list(value.items())[:_ITEMS_MAX]
            return {self.text(str(name)): self.field(str(name), inner, depth=depth + 1) for name, inner in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(inner, depth=depth + 1) for inner in list(value)[:_ITEMS_MAX]]
        return self.text(repr(value))

    def text(self, text: str) -> str:
        """`text` without query strings, users in URLs, bearer tokens, assigned credentials and known secrets."""
        if len(text) > _TEXT_MAX:
            text = text[:_TEXT_MAX] + "..."
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if "://" in text:
            text = _USER_IN_URL.sub("", text)
        if "?" in text:
            text = _QUERY.sub("?" + MASK, text)
        text = _SCHEMED.sub(rf"\1 {MASK}", text)
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
        return _WHSEC.sub(MASK, text)
