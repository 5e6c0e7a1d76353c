"""Turns: one change at a time of each document, which goes back whole and would take another's change back.

Within this process by a lock, between processes by a key in the store that remembers idempotency keys. Without the
store the lock alone is left, and people at JobNimbus's own pages know of neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import EntityRef
from jobnimbus_mcp.errors import CacheUnavailable, WriteInProgress
from jobnimbus_mcp.gateway.receipts import New, Owner, Receipts, Unknown

__all__ = ["Turns"]

_LEASE_MARGIN_S = 10.0
"""A turn that nobody gave back ends so long after its call's deadline."""

_AGAIN_S = 0.25
"""A change of a document takes about as long."""

_ENOUGH_S = 2.0
"""With less of a call's time left the change would hardly come to an end."""

_NOBODY = "turns"
"""No partition, which are digests: the document is the same for everybody."""


class Turns:
    """Hands out turns."""

    def __init__(self, receipts: Receipts, *, clock: Clock, log: FilteringBoundLogger) -> None:
        self._receipts = receipts
        self._clock = clock
        self._log = log
        self._locks: dict[tuple[str, EntityRef], tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, instance: str, ref: EntityRef, call: Call) -> AsyncIterator[None]:
        """Raises WriteInProgress when it does not come within the call's time."""
        name = (instance, ref)
        lock, waiting = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, waiting + 1)
        try:
            try:
                async with asyncio.timeout(max(0.0, call.remaining_s(self._clock))):
                    await lock.acquire()
            except TimeoutError as late:
                raise _under_way() from late
            try:
                async with self._shared(instance, ref, call):
                    yield
            finally:
                lock.release()
        finally:
            lock, waiting = self._locks.pop(name)
            if waiting > 1:
                self._locks[name] = (lock, waiting - 1)

    @asynccontextmanager
    async def _shared(self, instance: str, ref: EntityRef, call: Call) -> AsyncIterator[None]:
        owner, key = Owner(instance, _NOBODY), f"{ref.entity.value}:{ref.jnid}"
        token = await self._token(owner, key, call)
        try:
            yield
        finally:
            if token:
                try:
                    await self._receipts.forget(owner, key, token)
                except CacheUnavailable as away:
                    # it ends by itself
                    self._log.warning("turn not given back", reason=away.code, request_id=call.request_id)

    async def _token(self, owner: Owner, key: str, call: Call) -> str:
        """What the turn is held by; "" without a store."""
        while True:
            lease_s = max(0.0, call.remaining_s(self._clock)) + _LEASE_MARGIN_S
            try:
                standing = await self._receipts.begin(owner, key, _NOBODY, self._clock.now(), lease_s=lease_s)
            except CacheUnavailable as away:
                self._log.warning("turn not taken", reason=away.code, request_id=call.request_id)
                return ""
            if isinstance(standing, (New, Unknown)):  # of whoever had it and died nothing is under way any more
                return standing.token
            if call.remaining_s(self._clock) < _AGAIN_S + _ENOUGH_S:
                raise _under_way()
            await self._clock.sleep(_AGAIN_S)


def _under_way() -> WriteInProgress:
    return WriteInProgress("Another change of this record is under way; try again shortly.", retry_after_s=1.0)
