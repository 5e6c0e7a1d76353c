"""Loads that nobody waits for: one per key, bounded in number, let end when the engine is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from jobnimbus_mcp.cache.early import worth_refreshing
from jobnimbus_mcp.cache.flight_lease import Throttled
from jobnimbus_mcp.cache.loads import Loads
from jobnimbus_mcp.cache.looks import Looks
from jobnimbus_mcp.cache.ports import StoreError
from jobnimbus_mcp.cache.question import Errand
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import ProjectError
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["MOST_REFRESHES", "Refreshes"]

MOST_REFRESHES = 32
"""At once in a process. Each asks the origin, whose budget the calls need too; a stale answer that finds them all busy
is served without one, and the next one tries again."""


class Refreshes:
    """The refreshes under way. Whoever constructs this closes it.

    `early_beta(tenant)`: how eagerly entries are refreshed before their lifetime is over; 0 never.
    """

    def __init__(
        self,
        loads: Loads,
        looks: Looks,
        *,
        clock: Clock,
        random01: Callable[[], float],
        recorder: Recorder,
        early_beta: Callable[[str], float],
        most: int = MOST_REFRESHES,
    ) -> None:
        self._loads = loads
        self._looks = looks
        self._clock = clock
        self._random01 = random01
        self._recorder = recorder
        self._early_beta = early_beta
        self._most = most
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def due_early(self, tenant: str, fresh_left_s: float, cost_s: float) -> bool:
        """Is this hit the one that refreshes? To be asked of hits with less than `REACH` fetches' time left."""
        return worth_refreshing(fresh_left_s, cost_s, self._early_beta(tenant), self._random01())

    def begin(self, errand: Errand, reason: str) -> None:
        """Load in the background, unless that key is or too many are. `reason`: early, stale or dirty."""
        if errand.key_text in self._tasks or self._closed:
            return
        if len(self._tasks) >= self._most:
            self._recorder.count("cache_refreshes", reason=reason, result="crowded")
            return
        # A call of its own: the reader's may be near its deadline, and its answer is given already.
        call = Call.begin(self._clock, errand.call.request_id, tool=errand.call.tool)
        call.admitted = errand.call.admitted
        errand = replace(errand, call=call, patient=True, max_age_s=None, oldest=None)
        task = asyncio.get_running_loop().create_task(self._run(errand, reason))
        self._tasks[errand.key_text] = task
        task.add_done_callback(lambda _: self._tasks.pop(errand.key_text, None))

    async def aclose(self, within_s: float = 2.0) -> None:
        """Begin no more; let what is under way end, for so long, or until this is cancelled itself; then cancel it."""
        self._closed = True
        tasks = set(self._tasks.values())
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=within_s)
            finally:
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, errand: Errand, reason: str) -> None:
        result = "cancelled"
        try:
            if errand.look is None:
                look = await self._looks.look(errand.question, errand.key_text, errand.replaces, errand.call)
                errand = replace(errand, look=look)
            await self._loads.load(errand)
            result = "done"
        except Throttled:
            result = "throttled"
        except StoreError:
            result = "no_store"
        except ProjectError:
            result = "failed"
        except Exception as defect:  # the boundary of a task that nobody waits for: it must not end unheard
            result = "defect"
            structlog.get_logger().error("refresh failed", reason=reason, **defect_fields(defect))
        finally:
            self._recorder.count("cache_refreshes", reason=reason, result=result)
