"""Catch-up: JobNimbus is asked what has changed since the last time, and what nobody told of enters the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Entity
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
from jobnimbus_mcp.events.envelope import version_key
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.found import POLLED, Found, event_of, found_in, kind_event, logged_deletion
from jobnimbus_mcp.events.ports import AppendAndBump
from jobnimbus_mcp.events.watermark import (
    CALM_ROUNDS,
    Loss,
    Mark,
    interval_s,
    is_young,
    loss_hours,
)
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["PAGES_MOST", "REFUSED_S", "ROWS", "CatchUp", "Round"]

ROWS = 100
PAGES_MOST = 10
"""Pages of one kind that one round reads: a thousand changes. With more, the kind is renewed as a whole, and the next
round goes on from there."""

_AT_ONCE = 8
_HOLDS = "catch-up"
REFUSED_S = 600.0
"""A key that JobNimbus refuses is not shown to it again for so long."""

_KIND_REFUSED = (UpstreamForbidden, UpstreamNotFound, UpstreamRejected, UpstreamUnreadable)
"""Answers about one kind, where others are answered: its rights, its path, a filter that is refused or ignored."""


class Round(NamedTuple):
    """What one round has found. `told`: events that were appended and are no duplicates; `loss` of what was seen for
    the first time; `behind`: there is more than it could read."""

    told: int
    loss: Loss
    behind: bool


class _Read(NamedTuple):
    """Rows of one kind, oldest change first. `cut_at`: where reading stopped though there is more, else None."""

    rows: list[Mapping[str, Any]]
    cut_at: int | None


class CatchUp:
    """Polls the accounts for which the server has a credential of its own, one process at a time.

    `longest_s`: between two rounds at most; 0 switches polling off. `ids`: makes event and request ids. `random01`:
    numbers in [0, 1).
    """

    def __init__(
        self,
        *,
        ask: Ask,
        tell: AppendAndBump,
        known: Known,
        keeper: Keeper,
        instances: Sequence[str],
        longest_s: float,
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
        self._instances = tuple(instance for instance in instances if longest_s > 0 and ask.serves(instance))
        self._longest_s = longest_s
        self._clock = clock
        self._ids = ids
        self._random01 = random01
        self._recorder = recorder
        self._log = log
        self._kinds = tuple(kinds)
        self._token = ids()
        self._started_at = clock.now()
        self._calm_rounds = dict.fromkeys(self._instances, CALM_ROUNDS)
        self._last_at: dict[str, float] = {}
        self._reached: dict[tuple[str, Entity], float] = {}
        self._health = Health(log, "catch-up")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll in the background; at the end let another process go on at once."""
        self._started_at = self._clock.now()
        tasks = [asyncio.create_task(self._for_ever(instance)) for instance in self._instances]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            given_back = (self._keeper.let_go(instance, _HOLDS, self._token) for instance in self._instances)
            for failed in await asyncio.gather(*given_back, return_exceptions=True):
                if isinstance(failed, BaseException):
                    self._log.info("catch-up not given back", reason=type(failed).__name__)

    def status(self, instance: str) -> Mapping[str, Any]:
        """`{"state", "lastAt" (epoch seconds of the last whole round, None before it), "refused" (kinds)}`. State: off,
        idle (nothing done yet), polling, elsewhere (another process does), refused (the key), upstream_away,
        store_away, failed."""
        return {
            "state": self._health.state(instance) if instance in self._instances else "off",
            "lastAt": self._last_at.get(instance),
            "refused": self._health.parts(instance, "refused"),
        }

    async def loss(self, instance: str) -> dict[str, float]:
        """`{"missed": n, "heard": n, "rate": x}`: versions of the last 24 hours first heard of by polling, and by
        webhook. Raises CacheUnavailable."""
        return (await self._keeper.losses(instance, loss_hours(self._clock.now()))).told()

    async def poll(self, instance: str) -> Round | None:
        """One round now; None while another process polls this account.

        Raises:
            UpstreamError, BudgetExhausted: JobNimbus could not be asked. Nothing is lost: the next round asks again.
            CacheUnavailable: what was found could not be told, or who polls not be settled; likewise.
        """
        try:
            await self._hold(instance)
            done = await self._round(instance)
        except NotTheHolder:
            return None
        self._calm_rounds[instance] = 0 if done.loss.missed else self._calm_rounds[instance] + 1
        self._last_at[instance] = self._clock.now()
        return done

    async def _for_ever(self, instance: str) -> None:
        step = self._begin
        while True:
            began = self._clock.monotonic()
            pause_s = await self._guarded(instance, step)
            step = self._turn
            # What changes right after a question is told once the next round has ended: that one begins sooner by what
            # this one took. A round that takes long is followed by a pause all the same.
            await self._clock.sleep(max(pause_s / 4, pause_s - 2 * (self._clock.monotonic() - began)))

    async def _begin(self, instance: str) -> float:
        """Soon, where somebody has polled this account before; else what changes from now on counts."""
        if await self._keeper.marks(instance):
            return min(self._longest_s, 1 + 2 * self._random01())
        if await self._keeper.hold(instance, _HOLDS, self._token, 2 * self._longest_s):
            first = {kind.value: Mark.first(self._started_at) for kind in self._kinds}
            await self._advance(instance, first, Loss(0, 0))
        return self._longest_s

    async def _turn(self, instance: str) -> float:
        done = await self.poll(instance)
        outcome = "polling" if done is not None else "elsewhere"
        self._recorder.count("catch_up_rounds", outcome=outcome)
        self._health.note(instance, outcome, good=True)
        if done is None:
            return self._longest_s
        return interval_s(self._longest_s, calm_rounds=self._calm_rounds[instance], behind=done.behind)

    async def _guarded(self, instance: str, step: Callable[[str], Awaitable[float]]) -> float:
        """What `step` says: the seconds from its begin to the end of the next. Whatever goes wrong is tried again."""
        fields: dict[str, object] = {}
        try:
            return await step(instance)
        except UpstreamUnauthorized:
            outcome = "refused"
        except (UpstreamError, BudgetExhausted) as error:
            outcome, fields = "upstream_away", {"reason": error.code}
        except CacheUnavailable as error:
            outcome, fields = "store_away", {"reason": type(error).__name__}
        except NotTheHolder:
            return self._longest_s
        except Exception as defect:  # boundary of a background task: a defect must not end polling for good
            outcome, fields = "failed", defect_fields(defect)
        self._recorder.count("catch_up_rounds", outcome=outcome)
        self._health.note(instance, outcome, fields=fields)
        return max(REFUSED_S, self._longest_s) if outcome == "refused" else self._longest_s

    async def _round(self, instance: str) -> Round:
        marks = await self._keeper.marks(instance)
        told, loss, behind = 0, Loss(0, 0), False
        asked, refused = 0, None
        for kind in self._kinds:
            mark = marks.get(kind.value)
            if mark is None:  # a kind that was not polled before, or a store that has lost everything
                mark = Mark.first(self._reached.get((instance, kind), self._started_at))
                await self._advance(instance, {kind.value: mark}, Loss(0, 0))
            await self._hold(instance)
            try:
                one = await self._catch_up_with(instance, kind, mark)
            except _KIND_REFUSED as refusal:
                self._health.note(instance, "refused", part=kind.value, fields={"reason": refusal.code})
                refused = refusal
                continue
            self._health.note(instance, "polling", part=kind.value, good=True)
            asked += 1
            told, behind = told + one.told, behind or one.behind
            loss = Loss(loss.missed + one.loss.missed, loss.heard + one.loss.heard)
        if refused is not None and asked == 0:
            raise refused
        return Round(told, loss, behind)

    async def _catch_up_with(self, instance: str, kind: Entity, mark: Mark) -> Round:
        """Everything of one kind that has changed since its mark: told, and only then the mark moved."""
        asked_at = self._clock.now()
        read = await self._read(instance, kind, mark.since(asked_at))
        found = [one for row in read.rows if (one := found_in(kind, row)) is not None]
        if len(found) < len(read.rows):
            self._health.note(instance, "rows_unreadable", part=f"{kind} rows")
        gone = [
            (deleted, told_at) for row in read.rows if (deleted := logged_deletion(row)) and (told_at := _updated(row))
        ]
        keys = [one.key(instance) for one in found]
        gone_keys = [one.key(instance) for one, _ in gone]
        heard_keys = [version_key(instance, one.change.ref.entity, one.change.ref.jnid, at) for one, at in gone]
        known = await self._known_of(instance, (*keys, *gone_keys, *heard_keys))

        counted = _Counted()
        # A webhook tells of a deletion as of any change, so it is known by its time; it is told once as a deletion too.
        # Who was deleted, restored and deleted within a day is known as deleted, and renewed once more.
        deletions = [
            (one, known[heard])
            for (one, at), key, heard in zip(gone, gone_keys, heard_keys, strict=True)
            if not known[key] or mark.is_first_seen(at, asked_at)
        ]
        for (one, was_heard), new in zip(
            deletions, await self._told(instance, [(one, True) for one, _ in deletions]), strict=True
        ):
            counted.add(new, heard=was_heard)
            self._count(one, "told" if new else "duplicate")
        fresh = []
        for one, key in zip(found, keys, strict=True):
            final = not is_young(one.version_s, asked_at)
            if not known[key]:
                fresh.append((one, final))
            elif final and mark.is_first_seen(one.version_s, asked_at):
                counted.heard += 1
        for (one, final), new in zip(fresh, await self._told(instance, fresh), strict=True):
            counted.add(new, heard=not final)
            self._count(one, "young" if not final else "told" if new else "duplicate")
        if read.cut_at is not None:
            await self._tell_all_of(instance, kind)
        loss = Loss(counted.missed, counted.heard)
        following = mark.after(asked_at, read_to=read.cut_at)
        await self._advance(instance, {kind.value: following}, loss)
        self._reached[instance, kind] = following.watermark
        return Round(counted.told, loss, read.cut_at is not None)

    async def _read(self, instance: str, kind: Entity, since_s: int) -> _Read:
        """The rows changed at `since_s` or later, each once, as it was last.

        The next page begins at the last row's time rather than at an offset: a record that is changed meanwhile moves
        to the end, and whatever came after it would move up, past a page's edge.
        """
        rows: dict[object, Mapping[str, Any]] = {}
        offset = 0
        for _ in range(PAGES_MOST):
            page, count = await self._ask.changed(instance, kind, since_s=since_s, offset=offset, size=ROWS)
            for row in page:
                rows.pop(row.get("jnid"), None)
                rows[row.get("jnid")] = row
            if not page or (offset + len(page) >= count if count is not None else len(page) < ROWS):
                return _Read(list(rows.values()), None)
            dates = [_updated(row) or 0 for row in page]
            last = dates[-1]
            if dates != sorted(dates) or last < since_s:  # behind the last there might be any
                raise UpstreamUnreadable(f"JobNimbus gave {kind.value} out of order.")
            since_s, offset = (last, 0) if last > since_s else (since_s, offset + len(page))
        return _Read(list(rows.values()), since_s)

    async def _told(self, instance: str, found: Sequence[tuple[Found, bool]]) -> list[bool]:
        """Each found version (and whether it is final) appended, some at once; which were no duplicates."""
        new: list[bool] = []
        for start in range(0, len(found), _AT_ONCE):
            some = found[start : start + _AT_ONCE]
            results = await asyncio.gather(
                *(self._tell_one(instance, one, final=final) for one, final in some), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                new.append(result)
        return new

    async def _tell_one(self, instance: str, found: Found, *, final: bool) -> bool:
        event_id, request_id, at = self._ids(), self._ids(), self._clock.now()
        event = event_of(found, instance=instance, event_id=event_id, at=at, request_id=request_id, final=final)
        return await self._append(event)

    async def _tell_all_of(self, instance: str, kind: Entity) -> None:
        event_id, request_id, at = self._ids(), self._ids(), self._clock.now()
        await self._append(kind_event(kind, instance=instance, event_id=event_id, at=at, request_id=request_id))
        self._recorder.count("catch_up_changes", entity=kind.value, outcome="too_many")
        self._log.warning("catch-up: too many changes to tell one by one", instance=instance, resource=kind.value)

    async def _append(self, event: Event) -> bool:
        appended = await self._tell(event, Call.begin(self._clock, event.request_id))
        return not appended.duplicate

    async def _known_of(self, instance: str, keys: Sequence[str]) -> Mapping[str, bool]:
        if not keys:
            return {}
        return dict(zip(keys, await self._known.known(instance, keys), strict=True))

    async def _advance(self, instance: str, marks: Mapping[str, Mark], loss: Loss) -> None:
        # what took longer than the lease counts all the same, unless another process has begun meanwhile
        await self._hold(instance)
        hour = int(self._clock.now() // 3600)
        if not await self._keeper.advance(instance, _HOLDS, self._token, marks, loss=loss, hour=hour):
            raise NotTheHolder

    async def _hold(self, instance: str) -> None:
        if not await self._keeper.hold(instance, _HOLDS, self._token, 2 * self._longest_s):
            raise NotTheHolder

    def _count(self, found: Found, outcome: str) -> None:
        change = found.change
        deleted = change.action is Action.DELETED and outcome == "told"
        outcome = "deleted" if deleted else outcome
        self._recorder.count("catch_up_changes", entity=change.ref.entity.value, outcome=outcome)


class _Counted:
    """Sums over one kind in one round."""

    def __init__(self) -> None:
        self.told = self.missed = self.heard = 0

    def add(self, new: bool, *, heard: bool) -> None:
        """`heard`: it says nothing about webhooks."""
        self.told += new
        self.missed += new and not heard


def _updated(row: Mapping[str, Any]) -> int | None:
    try:
        return epoch_s(row.get("date_updated"))
    except (OverflowError, ValueError):  # no date has such a number
        return None
