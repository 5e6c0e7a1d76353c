"""What Redis gives for a line of a stream, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobnimbus_mcp.cache.ports import Logged, LogRow, Wake

__all__ = ["log_row", "logged", "pairs", "wake"]


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Field, value, field, value, ... as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def logged(position: bytes, fields: Mapping[bytes, bytes]) -> Logged:
    """A line that tells nothing of the one before it follows nothing that anybody has applied."""
    return Logged(position.decode(), _text(fields, b"prev"), _tags(fields))


def log_row(position: bytes, fields: Mapping[bytes, bytes]) -> LogRow:
    return LogRow(
        at=int(position.partition(b"-")[0]) / 1000,
        event_id=_text(fields, b"id"),
        event=_text(fields, b"event"),
        resource=_text(fields, b"resource"),
        resource_id=_text(fields, b"resource_id"),
        source=_text(fields, b"source"),
        latency_ms=float(_text(fields, b"latency_ms") or 0),
        tags=_tags(fields),
    )


def wake(position: bytes, fields: Mapping[bytes, bytes]) -> Wake:
    return Wake(position.decode(), _text(fields, b"key"), _text(fields, b"result"))


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    return fields.get(name, b"").decode("utf-8", "replace")


def _tags(fields: Mapping[bytes, bytes]) -> tuple[str, ...]:
    tags = _text(fields, b"tags")
    return tuple(tags.split("\n")) if tags else ()
