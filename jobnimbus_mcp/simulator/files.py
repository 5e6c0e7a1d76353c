"""Contents of files: what was uploaded, as long as it is kept, else a small body made up from the record."""

from __future__ import annotations

from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["FileContents"]

_MOST_BYTES = 67_108_864
_JPEG_HEAD = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"


class FileContents:
    """Keeps the latest uploads, 64 MB of them. Seeded files have no stored content, whatever their `size` says."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def keep(self, jnid: str, content: bytes) -> None:
        self._kept.pop(jnid, None)
        self._kept[jnid] = content
        while sum(map(len, self._kept.values())) > _MOST_BYTES:
            del self._kept[next(iter(self._kept))]

    def read(self, record: Record) -> bytes:
        kept = self._kept.get(record["jnid"])
        if kept is not None:
            return kept
        text = f"simulated content of {record['jnid']}\n".encode()
        return _JPEG_HEAD + text if record["content_type"] == "image/jpeg" else text

    def clear(self) -> None:
        self._kept.clear()
