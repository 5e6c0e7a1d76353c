"""Writes: carries each change out once, however often it is called for, and sees it through when its caller leaves.

check       what JobNimbus would miss is refused before anything is sent
begin       the idempotency key: done before, under way, or sent without a known end
carry out   `gateway.carrier`; once sent, nothing stops half-way
note        the key is done, unknown, or free again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Upload, Write, WriteResult
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CacheUnavailable,
    InvalidInput,
    ProjectError,
    RecordNotFound,
    Stopping,
    UpstreamError,
    UpstreamForbidden,
    UpstreamUnauthorized,
    WriteInProgress,
    WriteOutcomeUnknown,
    WriteRefused,
)
from jobnimbus_mcp.gateway.audit import author
from jobnimbus_mcp.gateway.carrier import Carrier, Records, Run, Tell, UpstreamWrites, not_seen
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.orders import Order, RecordOrder, UploadOrder
from jobnimbus_mcp.gateway.receipts import Another, Done, Kept, New, Receipts, Running, Standing, Unknown
from jobnimbus_mcp.gateway.turns import Turns
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Writes"]

_LEASE_MARGIN_S = 20.0
"""A key is somebody's until this long after the call's deadline: telling takes its time too."""

_LOOK_AND_SEND_S = 3.0
"""With less time than this left after a pause, neither would come to an end."""

_ASK_AGAIN_S = 5.0
"""Most calls have ended by then, whatever their lease."""

_KEY_MOST = 200


class Writes:
    """Implements `gateway.writes.Writer`. `settle_s`: how far JobNimbus's lists lag; only what is not in them by then
    was not made. `running()`, or `aclose()`, sees through what callers have left."""

    def __init__(
        self,
        upstream: UpstreamWrites,
        records: Records,
        receipts: Receipts,
        tell: Tell,
        *,
        clock: Clock,
        recorder: Recorder,
        log: FilteringBoundLogger,
        settle_s: float,
    ) -> None:
        turns = Turns(receipts, clock=clock, log=log)
        self._carrier = Carrier(upstream, records, tell, turns, receipts, clock=clock, log=log)
        self._records = records
        self._receipts = receipts
        self._clock = clock
        self._recorder = recorder
        self._log = log
        self._settle_s = settle_s
        self._tasks: set[asyncio.Task[WriteResult]] = set()

    async def write(
        self, write: Write, caller: Caller, call: Call, *, idempotency_key: str | None = None, brief: bool = False
    ) -> WriteResult:
        """As `Writer.write`. `brief`: of what was carried out before, the record's id is enough."""
        return await self._seen_through(RecordOrder(write), caller, call, idempotency_key, brief)

    async def upload(
        self, upload: Upload, caller: Caller, call: Call, *, idempotency_key: str | None = None
    ) -> WriteResult:
        """As `Writer.upload`."""
        return await self._seen_through(UploadOrder(upload), caller, call, idempotency_key, False)

    async def listed(self, entity: Entity, records: Sequence[Mapping[str, Any]], caller: Caller, call: Call) -> bool:
        """As `Carrier.listed`, for who has had many of them written."""
        return await self._carrier.listed(entity, records, caller, call)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.aclose()

    async def aclose(self, within_s: float = 5.0) -> None:
        """What is under way gets so long to end; what has not ended then is told as a change that may have been."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=within_s)
        left = tuple(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _seen_through(
        self, order: Order, caller: Caller, call: Call, key: str | None, brief: bool
    ) -> WriteResult:
        run = Run(order, caller, call, key, brief, began=self._clock.now(), record_id=order.record_id)
        run.mark = object() if key is None else (run.owner, key)
        task = asyncio.ensure_future(self._logged(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by `aclose`, while nobody had left
                raise Stopping("The server is being stopped; call again to hear what became of the change.") from None
            if not run.sent:
                task.cancel()
                await asyncio.wait((task,))
            raise

    async def _logged(self, run: Run) -> WriteResult:
        started, order = self._clock.monotonic(), run.order
        entity, action = order.entity.value, order.action.value
        run.outcome = "internal_error"
        try:
            result = await self._once(run)
            run.record_id, run.changed = run.record_id or result.jnid, result.changed
            unchanged = order.action is Action.UPDATED and not result.changed
            run.outcome = "replayed" if result.replayed else "unchanged" if unchanged else "done"
            return result
        except ProjectError as error:
            run.outcome = error.code
            raise
        except asyncio.CancelledError:
            run.outcome = "cancelled"
            raise
        finally:
            took_s = self._clock.monotonic() - started
            self._recorder.count("writes", entity=entity, action=action, outcome=run.outcome)
            self._recorder.observe("write_seconds", took_s, entity=entity, action=action)
            self._log.info(
                "write",
                by=author(run.caller),
                tool=run.call.tool,
                instance=run.caller.instance,
                entity=entity,
                record_id=run.record_id,
                action=action,
                outcome=run.outcome,
                changed=list(run.changed),
                ms=round(took_s * 1000, 3),
                request_id=run.call.request_id,
            )

    async def _once(self, run: Run) -> WriteResult:
        run.order.check()
        age_s: float | None = None
        if run.key is not None:
            standing = await self._begun(run, run.key)
            match standing:
                case Another():
                    raise InvalidInput(
                        "This idempotency_key was used for another change: use a new one for each.",
                        field="idempotency_key",
                    )
                case Running():
                    raise WriteInProgress(
                        "The call with this idempotency_key has not ended yet; call again to hear how it did.",
                        field="idempotency_key",
                        retry_after_s=min(standing.retry_after_s, _ASK_AGAIN_S),
                    )
                case Done():
                    return await self._replayed(run, standing.kept)
                case New():
                    run.token = standing.token
                case Unknown():
                    run.token, run.began, run.doubtful = standing.token, standing.began, True
                    age_s = standing.age_s
        try:
            if age_s is None:
                result = await self._carrier.carry_out(run)
            else:
                result = await self._looked_for(run, age_s) or await self._carrier.carry_out(run)
        except asyncio.CancelledError:
            # by `aclose`, or by a caller who left before anything was sent
            error: ProjectError = Stopping("The server is being stopped; nothing was sent to JobNimbus.")
            if run.sent:
                error = await self._carrier.unseen(run)
            await self._released(run, error)
            raise error from None
        except BaseException as failed:
            await self._released(run, failed)
            raise
        await self._noted(run, result)
        return result

    async def _begun(self, run: Run, key: str) -> Standing:
        if not key.strip() or len(key) > _KEY_MOST:
            raise InvalidInput(f"An idempotency_key has 1 to {_KEY_MOST} characters.", field="idempotency_key")
        lease_s = max(0.0, run.call.remaining_s(self._clock)) + _LEASE_MARGIN_S
        try:
            return await self._receipts.begin(run.owner, key, run.order.fingerprint, run.began, lease_s=lease_s)
        except CacheUnavailable as away:
            raise CacheUnavailable(
                "The store that remembers idempotency keys is away, and nothing was sent. Try again shortly, or leave "
                "idempotency_key out to write without that protection.",
                retry_after_s=away.retry_after_s,
            ) from away

    async def _released(self, run: Run, failed: BaseException) -> None:
        """The key of a write that failed: free again where it certainly was not carried out."""
        if run.key is None or not run.token:
            return
        unseen = isinstance(failed, WriteOutcomeUnknown) or (run.sent and not isinstance(failed, ProjectError))
        # what JobNimbus took is there, whatever went wrong afterwards; a file that it took and we refused is not
        unseen = unseen or (run.taken and not isinstance(failed, WriteRefused))
        try:
            if unseen or run.doubtful:
                await self._receipts.unknown(run.owner, run.key, run.token, sent=run.sent)
            else:
                await self._receipts.forget(run.owner, run.key, run.token)
        except CacheUnavailable as away:
            # the lease ends by itself, and whoever comes then looks first
            self._log.warning("receipt not released", reason=away.code, request_id=run.call.request_id)

    async def _noted(self, run: Run, result: WriteResult) -> None:
        if run.key is None:
            return
        part = dict(result.record) if result.entity is Entity.SETTINGS else None
        kept = Kept(result.entity, result.action, result.jnid, result.changed, result.note, part)
        try:
            await self._receipts.done(run.owner, run.key, run.token, kept)
        except CacheUnavailable as away:
            # the lease ends by itself, and whoever comes then finds what was made
            self._log.warning("receipt not kept", reason=away.code, request_id=run.call.request_id)

    async def _replayed(self, run: Run, kept: Kept) -> WriteResult:
        record: Mapping[str, Any] = {"jnid": kept.jnid} if kept.part is None else kept.part
        notes = [kept.note, "This call had been carried out before; nothing was sent."]
        if kept.jnid and kept.action is not Action.DELETED and not run.brief:
            try:
                read = Read.record(kept.entity, kept.jnid)
                answer = await self._records.get(read, run.caller, run.call, internal=True)
                record = answer.value()
            except (RecordNotFound, UpstreamError, BudgetExhausted) as error:
                notes.append(f"The record could not be read now ({error.code}).")
        note = " ".join(filter(None, notes))
        return WriteResult(kept.entity, kept.action, record, None, kept.changed, replayed=True, note=note)

    async def _looked_for(self, run: Run, age_s: float) -> WriteResult | None:
        """What an earlier try has made; None when it certainly made nothing, or when to repeat it does no harm."""
        if run.order.entity is Entity.SETTINGS:
            return None
        waited_s = 0.0
        while True:
            try:
                seen = await self._carrier.look(run)
            except (UpstreamUnauthorized, UpstreamForbidden):
                raise
            except (UpstreamError, BudgetExhausted) as error:
                raise not_seen(run, retry_after_s=error.retry_after_s) from error
            if seen.record is not None:
                result = await self._carrier.finish(run, seen.record)
                return replace(result, replayed=True, note=result.note or "An earlier call had carried it out.")
            if run.order.action is not Action.CREATED:
                return None
            left_s = self._settle_s - age_s - waited_s
            if left_s <= 0:
                if seen.doubtful:
                    raise not_seen(run)
                return None
            pause_s = min(left_s, 2.0)
            if pause_s + _LOOK_AND_SEND_S > run.call.remaining_s(self._clock):
                raise not_seen(run, retry_after_s=left_s)
            await self._clock.sleep(pause_s)
            waited_s += pause_s
