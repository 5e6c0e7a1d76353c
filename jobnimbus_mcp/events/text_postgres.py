"""Text as PostgreSQL takes it: without NUL and without halves of surrogate pairs."""

from __future__ import annotations

__all__ = ["fit"]


def fit(text: str) -> str:
    """`text`, with U+FFFD for what the database cannot keep."""
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
