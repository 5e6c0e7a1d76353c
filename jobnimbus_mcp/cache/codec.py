"""A value and what must be known of it <-> the bytes kept in the store.

    offset  size  field
    0       1     format version, 3
    1       1     flags: 1 negative, 2 gzip, 4 with a position
    2       2     length of the vector
    4       8     fetched_at, IEEE double, wall seconds
    12      4     size of the value before compression
    16      4     CRC-32 over the key's text, this header (with zeros here) and all that follows
    20      16    etag, ASCII
    36      4     for how long it is fresh after its fill, in ms
    40      4     for how long it is kept after its fill, in ms
    44      4     what its fetch took, in ms
    48      n     vector: epoch and generations, one a line
    48+n    2     length of the tags
    50+n    m     tags in the vector's order, one a line
    50+n+m  16    with a position: of the log, milliseconds and number; what came after may not be in the value
    ...           payload

Integers are big-endian. The scripts that look entries up read version, length, etag and vector at these offsets. The
key is part of the checksum, so a value under another key, or another command's reply, is not taken for this one's. The
tags are compared when the entry is read: a generation says nothing about any tag but its own.

The version stays where it is in every format: programs of two releases share one store while one replaces the other,
and each takes the other's entries for missing ones.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "COMPRESS_ABOVE_BYTES",
    "ETAG_AT",
    "HEADER_BYTES",
    "VERSION",
    "CorruptEntry",
    "Entry",
    "ForeignEntry",
    "Head",
    "decode",
    "encode",
    "peek",
]

VERSION = 3
COMPRESS_ABOVE_BYTES = 1024
_HEADER = struct.Struct(">BBHdII16sIII")
_LENGTH = struct.Struct(">H")
_POSITION = struct.Struct(">QQ")
_NO_CHECKSUM = bytes(4)
HEADER_BYTES = _HEADER.size
ETAG_AT = slice(20, 36)
_NEGATIVE, _GZIP, _PLACED = 1, 2, 4
_LENGTH_MAX = 0xFFFF
_MS_MAX = 0xFFFFFFFF


class CorruptEntry(Exception):
    """These bytes are not an entry of this key."""


class ForeignEntry(CorruptEntry):
    """These bytes are of another release's format, or of nobody's: nothing is broken, there just is no entry."""


class Entry(NamedTuple):
    """What was kept. `fresh_s` and `kept_s`: for how long after its fill it is fresh, and kept; what remains fresh is
    `fresh_s - (kept_s - remaining life)`, whatever any clock says. `cost_s`: what its fetch took. `position`: of the
    log; changes after it may not be in the value, all before it are. Empty: that is not known."""

    value: bytes
    negative: bool
    fetched_at: float
    etag: str
    fresh_s: float = 0.0
    kept_s: float = 0.0
    cost_s: float = 0.0
    position: str = ""


class Head(NamedTuple):
    """What a listing tells of an entry; the vector is that of its fill."""

    fetched_at: float
    size_bytes: int
    tags: tuple[str, ...]
    fresh_s: float = 0.0
    kept_s: float = 0.0
    vector: bytes = b""


def encode(entry: Entry, *, key_text: str, vector: bytes, tags: Sequence[str], compress: bool) -> bytes:
    """The bytes to keep.

    Raises:
        ValueError: more tags than the format can name, a lifetime that is no number, or a position that is none.
    """
    tags_text = "\n".join(tags).encode()
    if len(vector) > _LENGTH_MAX or len(tags_text) > _LENGTH_MAX:
        raise ValueError("too many tags")
    payload, flags = entry.value, _NEGATIVE if entry.negative else 0
    if compress and len(payload) > COMPRESS_ABOVE_BYTES:
        # mtime=0: equal values give equal bytes. Level 1: within a tenth of level 6 on records, four times as fast.
        payload, flags = gzip.compress(payload, 1, mtime=0), flags | _GZIP
    placed = b""
    if entry.position:
        placed, flags = _placed(entry.position), flags | _PLACED
    header = _HEADER.pack(
        VERSION,
        flags,
        len(vector),
        entry.fetched_at,
        len(entry.value),
        0,
        entry.etag.encode("ascii"),
        _milliseconds(entry.fresh_s),
        _milliseconds(entry.kept_s),
        _milliseconds(entry.cost_s),
    )
    body = b"".join((vector, _LENGTH.pack(len(tags_text)), tags_text, placed, payload))
    checksum = zlib.crc32(body, zlib.crc32(header, zlib.crc32(key_text.encode())))
    return b"".join((header[:16], checksum.to_bytes(4, "big"), header[20:], body))


def decode(stored: bytes, *, key_text: str, tags: Sequence[str]) -> Entry:
    """What was kept under this key and these tags.

    Raises:
        ForeignEntry: another format.
        CorruptEntry: another key's value, other tags, cut or changed bytes.
    """
    if not stored or stored[0] != VERSION:
        raise ForeignEntry("another format")
    if len(stored) < HEADER_BYTES:
        raise CorruptEntry("cut")
    _, flags, vector_bytes, fetched_at, size, checksum, etag, *lives_ms = _HEADER.unpack_from(stored)
    seen = zlib.crc32(stored[:16], zlib.crc32(key_text.encode()))
    if zlib.crc32(memoryview(stored)[20:], zlib.crc32(_NO_CHECKSUM, seen)) != checksum:
        raise CorruptEntry("bad checksum")
    # The checksum holds, so the lengths are those that were written.
    start = HEADER_BYTES + vector_bytes + 2
    (tags_bytes,) = _LENGTH.unpack_from(stored, start - 2)
    if stored[start : start + tags_bytes] != "\n".join(tags).encode():
        raise CorruptEntry("other tags")
    start += tags_bytes
    position = ""
    if flags & _PLACED:
        milliseconds, number = _POSITION.unpack_from(stored, start)
        position, start = f"{milliseconds}-{number}", start + _POSITION.size
    payload = stored[start:]
    value = _unpacked(payload, size) if flags & _GZIP else payload
    if len(value) != size:
        raise CorruptEntry("bad length")
    fresh_s, kept_s, cost_s = (life_ms / 1000 for life_ms in lives_ms)
    return Entry(value, bool(flags & _NEGATIVE), fetched_at, etag.decode("ascii"), fresh_s, kept_s, cost_s, position)


def peek(head: bytes) -> Head | None:
    """What the start of a stored value tells; None when it is not of this format. Checks no checksum."""
    if len(head) < HEADER_BYTES or head[0] != VERSION:
        return None
    _, _, vector_bytes, fetched_at, size, _, _, fresh_ms, kept_ms, _ = _HEADER.unpack_from(head)
    start = HEADER_BYTES + vector_bytes + 2
    tags = ""
    if len(head) >= start:
        tags = head[start : start + _LENGTH.unpack_from(head, start - 2)[0]].decode("utf-8", "replace")
    return Head(
        fetched_at,
        size,
        tuple(tags.split("\n")) if tags else (),
        fresh_ms / 1000,
        kept_ms / 1000,
        head[HEADER_BYTES : HEADER_BYTES + vector_bytes],
    )


def _placed(position: str) -> bytes:
    milliseconds, _, number = position.partition("-")
    try:
        return _POSITION.pack(int(milliseconds), int(number))
    except (ValueError, struct.error) as error:
        raise ValueError("this is no position") from error


def _milliseconds(seconds: float) -> int:
    return round(min(_MS_MAX, max(0.0, seconds * 1000)))


def _unpacked(payload: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        # One byte more than promised, so that a longer stream is noticed and never unpacked whole.
        return unpacker.decompress(payload, size + 1)
    except zlib.error as error:
        raise CorruptEntry("bad gzip stream") from error
