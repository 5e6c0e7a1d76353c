"""The sweep: the ids there are, compared with those of the last time, find the deletions that nobody told of.

JobNimbus never lists what was deleted, and who loses a right sees the same: records vanish. So too many at once are
believed by nobody, and each of the others is asked for by its id; only a plain "there is none" counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CacheUnavailable,
    UpstreamError,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamUnauthorized,
    UpstreamUnreadable,
)
from jobnimbus_mcp.events.background import Ask, Health, Keeper, Known, NotTheHolder
from jobnimbus_mcp.events.envelope import record_id
from jobnimbus_mcp.events.found import POLLED, deletion, deletion_key, event_of
from jobnimbus_mcp.events.ports import AppendAndBump
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["ROWS", "SUSPECTS_LEAST", "SUSPECTS_SHARE", "Sweep", "SweptKind", "most_suspects"]

ROWS = 1_000
"""Of one page: JobNimbus's own default, and with two fields each a few tens of kilobytes."""

SUSPECTS_LEAST = 20
SUSPECTS_SHARE = 0.02

_HOLDS = "sweep"
_HOLD_S = 300.0
_AGAIN_S = 600.0
"""After a sweep that could not be ended."""

_SOON_S = 10.0
_LOOK_S = 3_600.0
"""How often a process that is not sweeping looks whether a sweep is due: what is kept may be lost, or another's."""

_WINDOWS_MOST = 4_096
_KIND_REFUSED = (UpstreamForbidden, UpstreamNotFound, UpstreamRejected, UpstreamUnreadable)


class SweptKind(NamedTuple):
    """What came of one kind. `deleted`: how many were told. `ids`: how many there are now. `outcome`:

    stored      there was nothing to compare with
    compared    and what had vanished was asked for
    stopped     too many have vanished; the ids of before are kept, until they expire
    miscounted  JobNimbus gave more or fewer ids than it counts
    refused     JobNimbus does not list them for this key, or not in a way that can be read
    """

    outcome: str
    deleted: int = 0
    ids: int = 0


class _Miscounted(Exception):
    """The ids of a kind cannot be known whole now."""


class Sweep:
    """Sweeps the accounts for which the server has a credential of its own, one process at a time.

    `every_s`: from the end of one sweep to the next; 0 switches it off. `ids`: makes event and request ids.
    """

    def __init__(
        self,
        *,
        ask: Ask,
        tell: AppendAndBump,
        known: Known,
        keeper: Keeper,
        instances: Sequence[str],
        every_s: float,
        clock: Clock,
        ids: Callable[[], str],
        random01: Callable[[], float],
        recorder: Recorder,
        log: FilteringBoundLogger,
        kinds: Sequence[Entity] = POLLED,
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._known = known
        self._keeper = keeper
        self._instances = tuple(instance for instance in instances if ask.serves(instance))
        self._every_s = every_s
        self._clock = clock
        self._ids = ids
        self._random01 = random01
        self._recorder = recorder
        self._log = log
        self._kinds = tuple(kinds)
        self._token = ids()
        self._waited: set[str] = set()
        self._health = Health(log, "sweep")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep in the background when it is due; at the end let another process go on at once."""
        instances = self._instances if self._every_s > 0 else ()
        tasks = [asyncio.create_task(self._for_ever(instance)) for instance in instances]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            given_back = (self._keeper.let_go(instance, _HOLDS, self._token) for instance in instances)
            for failed in await asyncio.gather(*given_back, return_exceptions=True):
                if isinstance(failed, BaseException):
                    self._log.info("sweep not given back", reason=type(failed).__name__)

    def status(self, instance: str) -> Mapping[str, Any]:
        """`{"state", "stopped" (kinds of which too many vanished), "miscounted", "refused"}`. State: off, idle (none
        was due yet), swept, elsewhere, refused (the key), upstream_away, store_away, failed."""
        is_on = self._every_s > 0 and instance in self._instances
        parts = {outcome: self._health.parts(instance, outcome) for outcome in ("stopped", "miscounted", "refused")}
        return {"state": self._health.state(instance) if is_on else "off", **parts}

    async def sweep(self, instance: str, *, however_many: bool = False) -> Mapping[Entity, SweptKind] | None:
        """One sweep now; None while another process sweeps this account.

        `however_many`: no number of vanished records is too high; each is asked for all the same.

        Raises:
            UpstreamError, BudgetExhausted: JobNimbus could not be asked; kinds that were done before are done.
            CacheUnavailable: what was found could not be told or kept; likewise.
        """
        if not await self._keeper.hold(instance, _HOLDS, self._token, _HOLD_S):
            return None
        swept: dict[Entity, SweptKind] = {}
        try:
            for kind in self._kinds:
                swept[kind] = await self._sweep_kind(instance, kind, however_many=however_many)
                outcome = swept[kind].outcome
                self._recorder.count("sweep_kinds", entity=kind.value, outcome=outcome)
                good = outcome in ("stored", "compared")
                self._health.note(instance, "compared" if good else outcome, part=kind.value, good=good)
            if not await self._keeper.note_sweep(instance, _HOLDS, self._token, self._clock.now()):
                return None
        except NotTheHolder:
            return None
        except (UpstreamError, BudgetExhausted, CacheUnavailable):
            await self._let_go(instance)
            raise
        await self._let_go(instance)
        self._log.info(
            "swept",
            instance=instance,
            deleted={kind.value: one.deleted for kind, one in swept.items() if one.deleted},
            ids=sum(one.ids for one in swept.values()),
        )
        self._health.note(instance, "swept", good=True)
        return swept

    # -- when --------------------------------------------------------------------------------------------------------

    async def _for_ever(self, instance: str) -> None:
        while True:
            await self._clock.sleep(await self._guarded(instance, self._turn))

    async def _turn(self, instance: str) -> float:
        """Sweep if it is due; the seconds until there is something to do."""
        now = self._clock.now()
        swept_at = await self._keeper.swept_at(instance)
        if swept_at is None or swept_at > now:  # none yet, or planned by a clock that has been set back since
            if await self._keeper.hold(instance, _HOLDS, self._token, _HOLD_S):
                await self._keeper.note_sweep(instance, _HOLDS, self._token, now)
                await self._keeper.let_go(instance, _HOLDS, self._token)
            return min(self._every_s, _LOOK_S)
        wait_s = swept_at + self._every_s - now
        if wait_s > 0:
            return min(wait_s, _LOOK_S)
        if instance not in self._waited:
            # not in the first seconds, when everything starts at once
            self._waited.add(instance)
            return min(self._every_s, _SOON_S * (1 + self._random01()))
        if await self.sweep(instance) is None:
            self._health.note(instance, "elsewhere", good=True)
            return min(_AGAIN_S, self._every_s)
        return min(self._every_s, _LOOK_S)

    async def _guarded(self, instance: str, step: Callable[[str], Awaitable[float]]) -> float:
        """What `step` says; whatever goes wrong is tried again."""
        fields: dict[str, object] = {}
        try:
            return await step(instance)
        except UpstreamUnauthorized:
            outcome = "refused"
        except (UpstreamError, BudgetExhausted) as error:
            outcome, fields = "upstream_away", {"reason": error.code}
        except CacheUnavailable as error:
            outcome, fields = "store_away", {"reason": type(error).__name__}
        except Exception as defect:  # boundary of a background task: a defect must not end sweeping for good
            outcome, fields = "failed", defect_fields(defect)
        self._health.note(instance, outcome, fields=fields)
        return min(_AGAIN_S, self._every_s)

    # -- what --------------------------------------------------------------------------------------------------------

    async def _sweep_kind(self, instance: str, kind: Entity, *, however_many: bool) -> SweptKind:
        try:
            there = await self._ids_of(instance, kind)
        except _Miscounted:
            return SweptKind("miscounted")
        except _KIND_REFUSED:
            return SweptKind("refused")
        before = await self._keeper.ids(instance, kind.value)
        if before is None:
            await self._keep(instance, kind, there)
            return SweptKind("stored", ids=len(there))
        vanished = sorted(before - there)
        keys = [deletion_key(instance, kind, jnid) for jnid in vanished]
        told = await self._known.known(instance, keys) if keys else ()
        suspects = [jnid for jnid, is_told in zip(vanished, told, strict=True) if not is_told]
        if len(suspects) > most_suspects(len(before)) and not however_many:
            self._log.warning(
                "sweep: too many records have vanished to be deletions; is the server's key still allowed to see them?",
                instance=instance,
                resource=kind.value,
                vanished=len(suspects),
                of=len(before),
            )
            return SweptKind("stopped", ids=len(there))
        alive: set[str] = set()
        deleted = 0
        for jnid in suspects:
            await self._hold(instance)
            if await self._is_gone(instance, kind, jnid):
                deleted += await self._tell_deleted(instance, kind, jnid)
            else:
                alive.add(jnid)
        await self._keep(instance, kind, there | alive)
        return SweptKind("compared", deleted, len(there) + len(alive))

    async def _is_gone(self, instance: str, kind: Entity, jnid: str) -> bool:
        try:
            return await self._ask.is_gone(instance, kind, jnid)
        except _KIND_REFUSED:  # no answer to the question; it is asked again by the next sweep
            return False

    async def _tell_deleted(self, instance: str, kind: Entity, jnid: str) -> bool:
        request_id, at = self._ids(), self._clock.now()
        found = deletion(EntityRef(kind, jnid))
        event = event_of(found, instance=instance, event_id=self._ids(), at=at, request_id=request_id, final=True)
        appended = await self._tell(event, Call.begin(self._clock, request_id))
        self._recorder.count("catch_up_changes", entity=kind.value, outcome="swept")
        return not appended.duplicate

    async def _ids_of(self, instance: str, kind: Entity) -> set[str]:
        """Every id of a kind, as many as JobNimbus counts.

        Where there are more than its lists show, each window of `date_created` is halved until it shows all.
        """
        window = facts_of(kind).window
        total = await self._count(instance, kind, None, None)
        if total <= window:
            return await self._ids_between(instance, kind, None, None)
        first, _ = await self._ask.made(instance, kind, from_s=None, to_s=None, offset=0, size=1)
        low, high = (_created(first[0]) or 0) if first else 0, int(self._clock.now())
        ids: set[str] = set()
        # the first and the last window are open, so that odd dates are in one of them
        waiting: list[tuple[int | None, int | None]] = [(None, None)]
        for _ in range(_WINDOWS_MOST):
            if not waiting:
                break
            from_s, to_s = waiting.pop()
            if await self._count(instance, kind, from_s, to_s) <= window:
                ids |= await self._ids_between(instance, kind, from_s, to_s)
                continue
            start, end = low if from_s is None else from_s, high if to_s is None else to_s
            if start >= end:
                raise _Miscounted
            middle = (start + end) // 2
            waiting += [(middle + 1, to_s), (from_s, middle)]
        # records without a date are in no window
        after = await self._count(instance, kind, None, None)
        if waiting or not min(total, after) <= len(ids) <= max(total, after):
            raise _Miscounted
        return ids

    async def _ids_between(self, instance: str, kind: Entity, from_s: int | None, to_s: int | None) -> set[str]:
        ids: set[str] = set()
        offset, window = 0, facts_of(kind).window
        while True:
            await self._hold(instance)
            size = min(ROWS, window - offset)
            if size <= 0:
                raise _Miscounted
            rows, count = await self._ask.made(instance, kind, from_s=from_s, to_s=to_s, offset=offset, size=size)
            ids |= {record_id(jnid, kind) or jnid for row in rows if isinstance(jnid := row.get("jnid"), str)}
            offset += len(rows)
            if count is None or not rows or offset >= count:
                break
        if len(ids) != count:
            raise _Miscounted
        return ids

    async def _count(self, instance: str, kind: Entity, from_s: int | None, to_s: int | None) -> int:
        await self._hold(instance)
        _, count = await self._ask.made(instance, kind, from_s=from_s, to_s=to_s, offset=0, size=1)
        if count is None:
            raise _Miscounted
        return count

    async def _hold(self, instance: str) -> None:
        if not await self._keeper.hold(instance, _HOLDS, self._token, _HOLD_S):
            raise NotTheHolder

    async def _keep(self, instance: str, kind: Entity, ids: Collection[str]) -> None:
        if not await self._keeper.keep_ids(instance, _HOLDS, self._token, kind.value, ids):
            raise NotTheHolder

    async def _let_go(self, instance: str) -> None:
        try:
            await self._keeper.let_go(instance, _HOLDS, self._token)
        except CacheUnavailable as error:  # it ends by itself
            self._log.info("sweep not given back", instance=instance, reason=type(error).__name__)


def most_suspects(of: int) -> float:
    """How many of so many records may vanish between two sweeps and still be deletions."""
    return max(SUSPECTS_LEAST, SUSPECTS_SHARE * of)


def _created(row: Mapping[str, Any]) -> int | None:
    try:
        return epoch_s(row.get("date_created"))
    except (OverflowError, ValueError):  # no date has such a number
        return None
