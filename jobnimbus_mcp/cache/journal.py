"""Invalidations the store could not be told, as lines of a local journal, and the port to where those are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import orjson

from jobnimbus_mcp.cache.notice import Notice, Parcel
from jobnimbus_mcp.errors import CacheUnavailable

__all__ = ["Found", "Journal", "JournalError", "Kept", "Line", "decode", "encode", "found_in"]

_HEAD = b'{"crc":"'
_BODY = b'","line":'
_BODY_AT = len(_HEAD) + 8 + len(_BODY)


class JournalError(CacheUnavailable):
    """The journal could not be written or read; `detail` says why, for the log."""

    def __init__(self, detail: str) -> None:
        super().__init__("The cache is unavailable; try again shortly.", retry_after_s=1.0)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class Line:
    """One invalidation to be made up for. `notice` None: everything of the tenant, because more is not known."""

    tenant: str
    tags: tuple[str, ...]
    notice: Notice | None


class Kept(NamedTuple):
    """A line that is on the disk; `ref` names it within this process."""

    ref: int
    line: Line


class Found(NamedTuple):
    """What a file held: its lines, how many more could not be read, and whether the last was cut short.

    A line that was cut short had not been promised to anybody: its process died while writing it.
    """

    lines: tuple[Line, ...]
    damaged: int
    cut: bool


class Journal(Protocol):
    """Lines that outlive this process. Every method may raise `JournalError`; the waiting is the caller's to bound."""

    async def append(self, line: Line) -> Kept:
        """Returns when the line is on the disk."""
        ...

    async def adopt(self) -> Sequence[Kept]:
        """Claim what processes that have ended left behind; nobody else has it from then on.

        For what could not be read there is one line with notice None.
        """
        ...

    async def drop(self, applied: Sequence[Kept]) -> None:
        """Forget lines that hold now. Some may come back after a crash."""
        ...

    async def aclose(self) -> None:
        """Leave what is kept to whoever adopts it."""
        ...


def encode(line: Line) -> bytes:
    """One line of JSON with its checksum.

    Raises:
        TypeError: it holds something JSON cannot.
    """
    told: dict[str, Any] = {"tenant": line.tenant, "tags": line.tags, "notice": None}
    if line.notice is not None:
        notice = line.notice
        told["notice"] = {
            "event": notice.event,
            "resource": notice.resource,
            "resource_id": notice.resource_id,
            "source": notice.source,
            "received_at": notice.received_at,
            "event_id": notice.event_id,
            "dedupe_key": notice.dedupe_key,
            "floors": dict(notice.floors),
        }
        # left out where there is none, so that an earlier release reads the line too
        if notice.version_key:
            told["notice"]["version_key"] = notice.version_key
        if notice.parcel is not None:
            told["notice"]["parcel"] = [notice.parcel.keys, notice.parcel.args]
        if notice.quiet:
            told["notice"]["quiet"] = True
    body = orjson.dumps(told)
    return b"%s%08x%s%s}\n" % (_HEAD, crc32(body), _BODY, body)


def decode(raw: bytes) -> Line:
    """The line of `encode`, with or without its line feed.

    Raises:
        ValueError: it is damaged, or of another format.
    """
    text = raw.removesuffix(b"\n")
    body = text[_BODY_AT:-1]
    if text != b"%s%08x%s%s}" % (_HEAD, crc32(body), _BODY, body):
        raise ValueError("the checksum differs")
    try:
        told = orjson.loads(body)
        notice = told["notice"]
        return Line(str(told["tenant"]), tuple(map(str, told["tags"])), None if notice is None else _notice(notice))
    except (KeyError, TypeError) as error:
        raise ValueError("another format") from error


def found_in(content: bytes, tenant: str) -> Found:
    """What the journal of `tenant` holds; another tenant's line in it counts as damaged."""
    *whole, last = content.split(b"\n")
    lines: list[Line] = []
    damaged = 0
    for raw in whole:
        try:
            line = decode(raw)
        except ValueError:
            damaged += 1
            continue
        if line.tenant == tenant:
            lines.append(line)
        else:
            damaged += 1
    return Found(tuple(lines), damaged, bool(last))


def _notice(told: Mapping[str, Any]) -> Notice:
    return Notice(
        event=str(told["event"]),
        resource=str(told["resource"]),
        resource_id=str(told["resource_id"]),
        source=str(told["source"]),
        received_at=float(told["received_at"]),
        event_id=str(told["event_id"]),
        dedupe_key=str(told["dedupe_key"]),
        floors={str(name): int(version) for name, version in told["floors"].items()},
        # a line that an earlier release left behind tells of none of these
        version_key=str(told.get("version_key", "")),
        parcel=_parcel(told.get("parcel")),
        quiet=bool(told.get("quiet", False)),
    )


def _parcel(told: Any) -> Parcel | None:
    if told is None:
        return None
    keys, args = told
    return Parcel(tuple(map(str, keys)), tuple(map(str, args)))
