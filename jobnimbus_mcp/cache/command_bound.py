"""A bound on one command that does not blame the store for the time this process was not running.

When the event loop was held up, the timer fires late and the answer may already lie in the socket, unread. So a late
timer is set once more, for a moment in which the loop can read what has come.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["CommandBound", "CommandExpired"]

_EXTENSIONS = 3


class CommandExpired(Exception):
    """The bound passed. `stalled`: the event loop was held up meanwhile, so it says nothing about the store."""

    def __init__(self, *, stalled: bool) -> None:
        super().__init__("no answer within the bound")
        self.stalled = stalled


class CommandBound:
    """`with CommandBound(seconds):` around awaiting one command; raises `CommandExpired` when it takes longer."""

    __slots__ = ("_cancelling", "_due", "_expired", "_handle", "_left", "_loop", "_seconds", "_stalled", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False
        self._stalled = False
        self._left = _EXTENSIONS

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a command is bounded within a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._set(self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if (
            self._expired
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise CommandExpired(stalled=self._stalled) from error

    def _set(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        self._handle = self._loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        late_s = self._loop.time() - self._due
        if late_s > max(0.02, self._seconds / 4):
            self._stalled = True
            if self._left:
                self._left -= 1
                self._set(min(0.02, self._seconds))
                return
        self._expired = True
        self._task.cancel()
