"""Warming without an event: when an admin asks for it, and on a schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.consumers.heat import Heat
from jobnimbus_mcp.consumers.rounds import FETCHED_MOST, Errand, Rounds
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import NEWEST_FIRST, Is, Not
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import BudgetExhausted, CallerError, InvalidInput, ProjectError, Stopping
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.telemetry.defects import defect_fields

__all__ = ["FIRST_READS", "QUERIES_MOST", "CheckTool", "RunTool", "Warming"]

FIRST_READS = (
    # the first 50 and the first 100 jobs are pages of one block
    Read.block(Entity.JOBS, (), NEWEST_FIRST, 0),
    Read.block(Entity.JOBS, (Not(Is("is_archived", True)),), NEWEST_FIRST, 0),
)
"""What get_jobs reads for the newest jobs and for the active ones; for where nobody has asked anything yet."""

QUERIES_MOST = 50

_LOOKED_AT_MOST = 100
"""Questions that the schedule looks at to find those that are not fresh; a look is one round trip to the store."""

_ROUNDS_MOST = 8
"""Asked for and not ended. Each may hold fifty questions, and all draw on the same budget."""

_BEGUN_WITHIN_S = 60.0
_RETRY_AFTER_S = 10.0

RunTool = Callable[[str, Mapping[str, Any], Caller, Call], Awaitable[object]]
"""Runs a tool in a caller's name; raises ProjectError. Its reads must be neither counted as a user's nor noted."""

CheckTool = Callable[[str, Mapping[str, Any]], None]
"""Raises CallerError when there is no such tool, or it does not take these arguments."""


class Warming:
    """Starts rounds and owns them: whoever makes this closes it. `callers`: account -> the server's own credential.

    `instances`: the accounts there are. `every_s`: pause of the schedule in seconds, 0: there is none.
    """

    def __init__(
        self,
        rounds: Rounds,
        heat: Heat,
        *,
        instances: Sequence[str],
        callers: Mapping[str, Caller],
        run_tool: RunTool,
        check_tool: CheckTool,
        every_s: float,
        clock: Clock,
        ids: Callable[[], str],
        log: FilteringBoundLogger,
    ) -> None:
        self._rounds = rounds
        self._heat = heat
        self._instances = tuple(instances)
        self._callers = dict(callers)
        self._run_tool = run_tool
        self._check_tool = check_tool
        self._every_s = every_s
        self._clock = clock
        self._ids = ids
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self, instance: str | None = None, queries: object = None) -> int:
        """Begin, in the background, to read what is hot, or to run `queries`; how many reads or queries that are.

        `instance` None: of every account that the server holds a credential for; of others nothing is read.
        `queries`: a list of {"name": tool, "arguments": {...}}, at most QUERIES_MOST; None for what is hot.

        Raises:
            InvalidInput: no such account, or a query that no tool takes; nothing was begun.
            BudgetExhausted: too much of what was begun before has not ended.
            Stopping: this has been closed.
            CacheUnavailable: it cannot be told what is hot.
        """
        if instance is not None and instance not in self._instances:
            raise InvalidInput("No account of that name is served here.", field="instance")
        asked = None if queries is None else self._checked(queries)
        plans: dict[str, Sequence[Errand]] = {}
        for caller in self._callers.values():
            if instance in (None, caller.instance):
                plans[caller.instance] = (
                    await self._hot(caller, FETCHED_MOST)
                    if asked is None
                    else [self._running(name, arguments, caller) for name, arguments in asked]
                )
        if self._closed:
            raise Stopping("This server is being stopped; try again shortly.")
        if len(self._tasks) + len(plans) > max(_ROUNDS_MOST, len(plans)):
            raise BudgetExhausted(
                "Warming is under way already; try again later.", code="warming_busy", retry_after_s=_RETRY_AFTER_S
            )
        for account, errands in plans.items():
            task = asyncio.get_running_loop().create_task(self._run(account, errands, "admin", len(errands)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return sum(len(errands) for errands in plans.values())

    async def run_schedule(self) -> None:
        """Read what is hot and not fresh, of every account, again and again until cancelled; returns at once when
        there is no schedule. The first round is one pause after the start, when calls have shown what is asked."""
        while self._every_s > 0:
            await self._clock.sleep(self._every_s)
            for caller in self._callers.values():
                try:
                    errands = await self._hot(caller, _LOOKED_AT_MOST)
                except ProjectError as error:
                    self._log.warning("warming failed", instance=caller.instance, reason="schedule", error=error.code)
                except Exception as defect:  # the boundary of a task that nobody waits for, as in `_run`
                    self._log.error(
                        "warming failed", instance=caller.instance, reason="schedule", **defect_fields(defect)
                    )
                else:
                    await self._run(caller.instance, errands, "schedule", FETCHED_MOST)

    async def aclose(self, within_s: float = 1.0) -> None:
        """Begin nothing more; let what is under way end, for so long, then cancel it."""
        self._closed = True
        tasks = set(self._tasks)
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=within_s)
            finally:
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hot(self, caller: Caller, most: int) -> Sequence[Errand]:
        hot = await self._heat.hottest(caller.instance, most=most)
        return [self._rounds.reading(read, caller) for read in ([one.read for one in hot] or FIRST_READS)]

    async def _run(self, instance: str, errands: Sequence[Errand], reason: str, fetched_most: int) -> None:
        try:
            done = await self._rounds.run(
                instance,
                errands,
                request_id=self._ids(),
                reason=reason,
                begun_within_s=_BEGUN_WITHIN_S,
                fetched_most=fetched_most,
            )
        except Exception as defect:  # the boundary of a task that nobody waits for: it must not end unheard
            self._log.error("warming failed", instance=instance, reason=reason, **defect_fields(defect))
            return
        self._log.info(
            "warmed",
            instance=instance,
            reason=reason,
            made=done.made,
            fetched=done.fetched,
            left=done.left,
            failed=sorted({error.code for error in done.failed.values()}),
        )

    def _running(self, name: str, arguments: Mapping[str, Any], caller: Caller) -> Errand:
        async def errand(call: Call) -> bool:
            await self._run_tool(name, arguments, caller, call)
            return True

        return errand

    def _checked(self, queries: object) -> list[tuple[str, Mapping[str, Any]]]:
        if not isinstance(queries, list) or len(queries) > QUERIES_MOST:
            raise _wrong(f"write a list of at most {QUERIES_MOST} objects")
        return [self._checked_one(place, query) for place, query in enumerate(queries)]

    def _checked_one(self, place: int, query: object) -> tuple[str, Mapping[str, Any]]:
        if not isinstance(query, dict) or query.keys() - {"name", "arguments"}:
            raise _wrong(f'number {place + 1} is no object of "name" and "arguments"')
        name, arguments = query.get("name"), query.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise _wrong(f'number {place + 1} needs a tool\'s "name", and "arguments" that are an object')
        try:
            self._check_tool(name, arguments)
        except CallerError as error:
            raise _wrong(f"number {place + 1}: {error.public_message}") from error
        return name, arguments


def _wrong(what: str) -> InvalidInput:
    return InvalidInput(f"queries: {what}", field="queries")
