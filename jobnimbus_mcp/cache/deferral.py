"""The journal's part in what is owed: it takes failed invalidations over, and those that dead processes have left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from jobnimbus_mcp.cache.debts import Debts
from jobnimbus_mcp.cache.journal import Journal, JournalError, Kept, Line
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import EVERYTHING
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["ADOPT_EVERY_S", "JOURNAL_WITHIN_S", "Deferral"]

ADOPT_EVERY_S = 0.5
"""How often to look for what dead processes have left; a living one applies its own. As often as debts are paid, since
whoever else lives here may trust the store meanwhile."""

JOURNAL_WITHIN_S = 2.0
"""A disk that takes longer is no better than none: the sender is asked to come again."""

_END_WITHIN_S = 0.5
"""Of each step at the end: a disk that hangs must not keep a process from ending."""


class Deferral:
    """Brings lines to the journal and from there to `debts`, and sets `wake` when there is something to pay.

    What has been asked of the journal goes on although nobody waits for it any more: what is on the disk must be known
    here, to be applied.
    """

    def __init__(self, journal: Journal, debts: Debts, clock: Clock, recorder: Recorder, wake: asyncio.Event) -> None:
        self._journal = journal
        self._debts = debts
        self._clock = clock
        self._recorder = recorder
        self._wake = wake
        self._working: set[asyncio.Task[bool]] = set()

    async def defer(self, tenant: str, tags: Sequence[str], notice: Notice) -> bool:
        """Take over the failed invalidation of this notice; True when it is on the disk.

        To be awaited as soon as it has failed: from the first step on it is not paid for otherwise.
        """
        line = Line(tenant, tuple(dict.fromkeys(tags)), notice)
        self._debts.defer(tenant, notice.event_id)
        return await self._bounded(self._deferred(line, notice.event_id))

    async def adopt(self) -> bool:
        """Claim what dead processes have left; False when it is not known what that is."""
        return await self._bounded(self._adopted())

    async def adopt_for_ever(self) -> None:
        while True:
            await self._clock.sleep(ADOPT_EVERY_S)
            await self._adopted()

    async def leave(self, tenant: str) -> bool:
        """Write down, for whoever adopts it, that the tenant owes a renewal."""
        return await self._bounded(self._left(tenant), _END_WITHIN_S)

    def forget(self, applied: Sequence[Kept]) -> None:
        """These lines hold now."""
        if applied:
            self._begun(self._forgotten(applied))

    async def finish(self) -> None:
        """Wait for what is under way."""
        if self._working:
            await asyncio.wait(tuple(self._working), timeout=_END_WITHIN_S)

    async def aclose(self) -> None:
        await self.finish()
        await self._bounded(self._closed(), _END_WITHIN_S)

    async def _deferred(self, line: Line, cause: str) -> bool:
        kept: Kept | None = None
        try:
            kept = await self._journal.append(line)
        except JournalError as error:
            structlog.get_logger().error("journal cannot be written", instance=line.tenant, reason=error.detail)
        finally:
            self._recorder.count("journal", outcome="refused" if kept is None else "kept")
            self._debts.deferred(line.tenant, cause, kept)
            self._wake.set()
        return kept is not None

    async def _adopted(self) -> bool:
        try:
            found = await self._journal.adopt()
        except JournalError as error:
            structlog.get_logger().error("journal cannot be read", reason=error.detail)
            return False
        for kept in found:
            damaged = kept.line.notice is None and not kept.line.tags
            self._recorder.count("journal", outcome="damaged" if damaged else "adopted")
            self._debts.keep(kept)
        if found:
            structlog.get_logger().warning("journal adopted", lines=len(found))
            self._wake.set()
        return True

    async def _left(self, tenant: str) -> bool:
        try:
            await self._journal.append(Line(tenant, (EVERYTHING,), None))
        except JournalError as error:
            structlog.get_logger().error("journal cannot be written", instance=tenant, reason=error.detail)
            return False
        return True

    async def _forgotten(self, applied: Sequence[Kept]) -> bool:
        try:
            await self._journal.drop(applied)
        except JournalError as error:
            structlog.get_logger().warning("journal cannot be emptied", reason=error.detail)
            return False
        return True

    async def _closed(self) -> bool:
        try:
            await self._journal.aclose()
        except JournalError as error:
            structlog.get_logger().warning("journal cannot be closed", reason=error.detail)
            return False
        return True

    def _begun(self, work: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _bounded(self, work: Coroutine[Any, Any, bool], within_s: float | None = None) -> bool:
        """The work's result; False when it takes longer than it may, and goes on."""
        task = self._begun(work)
        await asyncio.wait({task}, timeout=JOURNAL_WITHIN_S if within_s is None else within_s)
        return task.done() and task.result()
