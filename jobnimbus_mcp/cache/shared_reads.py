"""Readers of one key share a round trip to the store, if it has not been sent when they come.

A READ that is in the air when a reader starts may have been carried out before an invalidation that was acknowledged
since, so it is not shared; the next one is, by all who come while the first is away. So there is at most one in the air
and one waiting per key, and every reader's READ is sent after the reader started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from jobnimbus_mcp.cache.ports import StoreError

__all__ = ["SharedReads"]

T = TypeVar("T")


class _Slot(Generic[T]):
    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next: tuple[asyncio.Future[T], Callable[[], Awaitable[T]]] | None = None


class SharedReads(Generic[T]):
    """The round trips under way, by key. Whoever constructs this closes it."""

    def __init__(self) -> None:
        self._slots: dict[Hashable, _Slot[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(
        self, key: Hashable, send: Callable[[], Awaitable[T]], send_for_all: Callable[[], Awaitable[T]]
    ) -> T:
        """`send()`'s result, or that of the first waiter's `send_for_all()`, sent after this was called.

        Raises:
            StoreError: as `send` raises it; who waited for a store that failed gets that failure, untried.
        """
        slot = self._slots.get(key)
        if slot is not None:
            if slot.next is None:
                slot.next = (asyncio.get_running_loop().create_future(), send_for_all)
            return await asyncio.shield(slot.next[0])
        slot = self._slots[key] = _Slot()
        failure: StoreError | None = None
        try:
            return await send()
        except StoreError as error:
            failure = error
            raise
        finally:
            self._landed(key, slot, failure)

    async def aclose(self) -> None:
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _landed(self, key: Hashable, slot: _Slot[T], failure: StoreError | None) -> None:
        if slot.next is None:
            del self._slots[key]
            return
        future, send = slot.next
        if failure is not None:
            del self._slots[key]
            _fail(future, failure)
            return
        slot.next = None
        task = asyncio.get_running_loop().create_task(self._send_next(key, slot, future, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_next(
        self, key: Hashable, slot: _Slot[T], future: asyncio.Future[T], send: Callable[[], Awaitable[T]]
    ) -> None:
        failure: StoreError | None = None
        try:
            result = await send()
        except StoreError as error:
            failure = error
            _fail(future, error)
        except asyncio.CancelledError:
            failure = StoreError("stopping")
            _fail(future, failure)
            raise
        except Exception as error:  # the boundary between a shared round trip and its readers: they get what went wrong
            _fail(future, error)
        else:
            if not future.done():
                future.set_result(result)
        finally:
            self._landed(key, slot, failure)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # The waiters may all have left; the loop must not report it as never retrieved.
        future.exception()
