"""How far a consumer is in one partition: everything before its first unfinished message may be committed."""

from __future__ import annotations

__all__ = ["Progress"]


class Progress:
    """Of one partition while it is ours. Messages begin in the order of their offsets and finish in any."""

    def __init__(self) -> None:
        self._unfinished: dict[int, None] = {}
        self._next: int | None = None
        self._committed: int | None = None

    def __len__(self) -> int:
        return len(self._unfinished)

    def begin(self, offset: int) -> bool:
        """A message was read; False when it had been read before."""
        if self._next is not None and offset < self._next:
            return False
        self._unfinished[offset] = None
        self._next = offset + 1
        return True

    def finish(self, offset: int) -> None:
        self._unfinished.pop(offset, None)

    def unfinished(self) -> tuple[int, ...]:
        return tuple(self._unfinished)

    def to_commit(self) -> int | None:
        """The offset to go on from were we to stop now; None when the broker knows it already."""
        first = next(iter(self._unfinished), self._next)
        return None if first == self._committed else first

    def committed(self, offset: int) -> None:
        self._committed = offset
