"""How far this process has applied one tenant's log, and what that has made dirty in its L1."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from jobnimbus_mcp.cache.ports import EVERYTHING, START, Logged, Standing, order

__all__ = ["BEARER", "TAGS_REMEMBERED", "AppliedLog"]

TAGS_REMEMBERED = 50_000
"""More than a day's changes touch; some ten megabytes at worst. What is older than a forgotten tag counts as dirty."""

BEARER = "bearer:"
"""What the log puts before the name of a bearer whose acceptance was withdrawn."""


class AppliedLog:
    """Every applied line gives its tags the next number; what was read before that number is dirty.

    One rule is both invalidation and fill guard: a value carries the number that was the last one before its READ was
    sent (`mark`), so it makes no difference whether a line overtakes the READ's answer or comes long after it.

    Each line names the one before it. Who has applied another one than that has missed something (trimmed, flushed,
    failed over), so everything is dirty. `cleared` counts how often that was so, by reason.
    """

    __slots__ = ("_epoch", "_most_tags", "_numbers", "_oldest", "cleared", "lines", "mark", "position")

    def __init__(self, most_tags: int = TAGS_REMEMBERED) -> None:
        self.position: str | None = None
        """The last line applied; None until the store has told where its log stands."""
        self.mark = 0
        self.lines = 0
        self.cleared: dict[str, int] = {}
        self._most_tags = most_tags
        self._epoch = b""
        self._oldest = 0
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def clean(self, since: int, tags: Sequence[str], bearer: str) -> bool:
        """Has no line been applied since the mark that names one of the tags, the bearer or everything?"""
        if since == self.mark:
            return True
        if since < self._oldest:
            return False
        numbers = self._numbers
        return numbers.get(BEARER + bearer, 0) <= since and all(numbers.get(tag, 0) <= since for tag in tags)

    def reached(self, position: str) -> bool:
        """Has the log been applied up to there?"""
        return self.position is not None and order(self.position) >= order(position)

    def apply(self, lines: Iterable[Logged]) -> None:
        """Apply lines, oldest first; those applied before are ignored. Nothing before the first `meet`."""
        for line in lines:
            if self.position is None:
                return
            if self.reached(line.position):
                continue
            if line.previous != self.position:
                self._clear("gap")
            elif EVERYTHING in line.tags:
                self._clear("told")
            else:
                self._number(line.tags)
            self.position = line.position
            self.lines += 1

    def meet(self, standing: Standing, told: str | None) -> bool:
        """Take notice of where the store stands, asked when `told` was the position here; False when the two logs are
        not one any more, and the answer must grant nothing."""
        if self.position is None:
            # Lines of before may have come between a READ that is under way and this answer.
            self._clear("start")
            self.position, self._epoch = standing.position, standing.epoch
            return standing.epoch != b""
        if standing.epoch != self._epoch:
            self._clear("epoch")
            self._epoch = standing.epoch
        elif not standing.epoch:
            # One may have been made and lost meanwhile; not worth counting, an idle account has none for hours.
            self._forget()
        if order(standing.position) < order(told or START):
            self._clear("behind")
            if self.position == told:
                self.position = standing.position
            return False
        return standing.epoch != b""

    def skip_to(self, position: str) -> None:
        """Go on from there; what lies between could not be had."""
        self._clear("gap")
        self.position = position

    def _forget(self) -> None:
        self.mark += 1
        self._oldest = self.mark
        self._numbers.clear()

    def _clear(self, reason: str) -> None:
        self._forget()
        self.cleared[reason] = self.cleared.get(reason, 0) + 1

    def _number(self, tags: Sequence[str]) -> None:
        self.mark += 1
        numbers = self._numbers
        for tag in tags:
            numbers[tag] = self.mark
            numbers.move_to_end(tag)
        while len(numbers) > self._most_tags:
            _, self._oldest = numbers.popitem(last=False)
