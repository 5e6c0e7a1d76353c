"""What a stored file gives: its bytes, or the address where JobNimbus keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["FileContent", "FileLink"]


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes, all of them unless `truncated`. `content_type`: as told with them, without parameters."""

    body: bytes = field(repr=False)
    content_type: str
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class FileLink:
    """`url`: where the file can be fetched by anybody for a short while, so it stays out of every repr; None where
    JobNimbus gives the file itself and no address."""

    url: str | None = field(repr=False)
