"""Where the server is now: asked when there is reason to doubt it, in the background, until somebody answers there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from jobnimbus_mcp.cache.address import Place
from jobnimbus_mcp.cache.locate_redis import Locator, NotLocated

__all__ = ["Whereabouts"]

_AGAIN_S = 0.25
"""Between two questions while nobody answers: a failover takes a second or more, and this is little of it."""

_PATIENT_S = 1.0
_HASTY = 16
"""After so many questions without an answer they come each `_PATIENT_S` only."""

_BOUND_S = 10.0
"""One question, to as many Sentinels or nodes as it takes."""


class Whereabouts:
    """`settled(changed)` is awaited after every answer, and `failed(error)` called after a question in vain while
    nothing is known. Nothing is asked before the first `here`."""

    def __init__(
        self, locator: Locator, settled: Callable[[bool], Awaitable[None]], failed: Callable[[Exception], None]
    ) -> None:
        self._locator = locator
        self._settled = settled
        self._failed = failed
        self._place: Place | None = None
        self._last: Place | None = None
        self._doubted = False
        self._hint: Exception | None = None
        self._watching = False
        self._not_before = 0.0
        self._in_vain = 0
        self._used = False
        self._told = False
        self._hurry = asyncio.Event()
        self._waiting: set[asyncio.Future[Place]] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def place(self) -> Place | None:
        """None while it is not known."""
        return self._place

    def trusted(self) -> bool:
        """May `place` be used without asking again? Notes that it is used."""
        self._used = True
        if self._place is None:
            return False
        return self._watching or self._locator.watch_s is None

    async def here(self) -> Place:
        """Where the server is. To be bounded by the caller.

        Raises:
            NotLocated: nobody could say.
        """
        if self._place is not None and self.trusted():
            return self._place
        waiter: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        self.ask()
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)

    def ask(self) -> None:
        """Ask now, in the background."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._search())
        else:
            self._hurry.set()

    def forget(self, place: Place, hint: Exception) -> bool:
        """The server is not there, or not in charge any more; True when that is news."""
        if place != self._place:
            return False
        self._place, self._hint = None, hint
        self.ask()
        return True

    def doubt(self) -> None:
        """A command there did not end well: ask until another place is named, or that one has answered again."""
        if self._place is not None and not self._doubted:
            self._doubted = True
            self.ask()

    def answered(self) -> None:
        """The server at `place` did as it was asked."""
        self._doubted = False
        self._in_vain = 0

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for waiter in self._waiting:
            waiter.cancel()
        self._place, self._watching = None, False
        await self._locator.aclose()

    async def _search(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._hurry.clear()
            if self._place is None or self._doubted:
                # Also between two tasks: whoever refuses may be named again at once, and again.
                await asyncio.sleep(self._not_before - loop.time())
                self._in_vain += 1
                self._not_before = loop.time() + (_AGAIN_S if self._in_vain < _HASTY else _PATIENT_S)
            await self._ask_once()
            if self._place is None or self._doubted or self._hurry.is_set():
                continue
            watch_s = self._locator.watch_s
            if watch_s is None or not self._used:
                # Not watched any more, it has to be asked for again before it is used again.
                self._watching = False
                return
            self._used = False
            try:
                async with asyncio.timeout(watch_s):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def _ask_once(self) -> None:
        broken, hint, self._hint = self._place is None or self._doubted, self._hint, None
        try:
            async with asyncio.timeout(_BOUND_S):
                place = await self._locator.locate(self._last if broken else None, hint)
        except Exception as error:  # the boundary to the library: whatever it is, nobody said
            self._unanswered(error)
            if self._place is None:
                return
            place = self._place
        else:
            self._told = False
        changed = self._last is not None and place != self._last
        if changed:
            structlog.get_logger().info("store moved", address=f"{place[0]}:{place[1]}")
            self._doubted = False
        self._place = self._last = place
        self._watching = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(place)
        await self._settled(changed)

    def _unanswered(self, error: Exception) -> None:
        """Nobody said where it is. A server that is known goes on being used: not being watched is no failure of it."""
        if not self._told:
            self._told = True
            structlog.get_logger().warning("store not located", error=type(error).__name__)
        if self._place is not None:
            return
        for waiter in self._waiting:
            if not waiter.done():
                failure = NotLocated(type(error).__name__)
                failure.__cause__ = error
                waiter.set_exception(failure)
        self._failed(NotLocated(type(error).__name__))
