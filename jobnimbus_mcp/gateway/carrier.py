"""Carrier: takes one write to JobNimbus and sees to what became of it, checked and told.

look        the record as it is, for what changes and for the audit; a document goes back as a whole
send        from here on it may be carried out
look out    no answer, or none that can be read: it is looked for, never sent again blindly
check       links, second steps, fields that JobNimbus ignored
tell        the event renews every list and record that shows it, also where the end was not seen
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import Deletion, facts_of
from jobnimbus_mcp.crm.encoding import landed, left_out
from jobnimbus_mcp.crm.entities import Action, Entity, EntityRef
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Upload, Write, WriteResult
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CacheUnavailable,
    DuplicateRecord,
    ProjectError,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUnreadable,
    WriteOutcomeUnknown,
    WriteRefused,
)
from jobnimbus_mcp.gateway.answers import Answer
from jobnimbus_mcp.gateway.audit import audit_of, bounded, values_of
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.lookout import Loads, Lookout, Others, Seen
from jobnimbus_mcp.gateway.orders import Order, RecordOrder, UploadOrder, kind_name
from jobnimbus_mcp.gateway.reads import not_found
from jobnimbus_mcp.gateway.receipts import Owner
from jobnimbus_mcp.gateway.turns import Turns

__all__ = ["SETTINGS_ID", "Carrier", "Records", "Run", "Tell", "UpstreamWrites", "Written", "not_seen"]

SETTINGS_ID = "all"
"""The account's settings have no id; this is the last segment of their key in the cache."""

_RESERVED_S = 3.0
"""Of a call's time, kept back from sending: for looking, when no answer comes."""

_TELL_WITHIN_S = 5.0

_ORPHAN_PAUSE_S = 2.0
"""A file that was just stored is not deleted sooner: within about a second JobNimbus was seen to answer and do nothing.
Source: JobNimbus API documentation, consistency."""

_UNSEEN = (UpstreamTimeout, UpstreamServerError, UpstreamUnreadable, UpstreamUnreachable)
"""After these a write may have been carried out, unless they say that nothing was sent."""


class UpstreamWrites(Loads, Protocol):
    """What writing asks of the JobNimbus client."""

    async def write(
        self, write: Write, *, base: Mapping[str, Any] | None, instance: str, credential: str, call: Call
    ) -> dict[str, Any]:
        """One request, and the record it was answered with ({} where the answer holds none). `base`: the document as
        it is, for those that go back whole.

        Raises:
            UpstreamRejected: JobNimbus does not take it; `said` quotes it.
            UpstreamNotFound: there is no such record.
            UpstreamError: as of reads; `sent` False: JobNimbus has certainly not seen it.
            BudgetExhausted: our own request budget is used up.
        """
        ...

    async def upload(self, upload: Upload, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        """Store a file; at least its `jnid`. Raises as `write`."""
        ...


class Records(Protocol):
    """What writing asks of the gateway: see `Gateway`."""

    async def get(
        self, read: Read, caller: Caller, call: Call, *, max_age_s: float | None = None, internal: bool = False
    ) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Written:
    """What every cache is to be told. `ref.jnid` is "" where a record may have been made that nobody has seen.
    `record`: as it is now. `audit`: who did what, as JSON; it holds customers' data, like the record."""

    instance: str
    ref: EntityRef
    action: Action
    record: Mapping[str, Any] = field(repr=False, hash=False)
    audit: str = field(repr=False)


Tell = Callable[[Written, Call], Awaitable[None]]
"""When it returns, no read that starts later gets older data. Raises CacheUnavailable when that cannot be had."""


@dataclass(slots=True)
class Run:
    """One write on its way. `began`: when it was first tried under its key, epoch seconds. `doubtful`: an earlier try
    may have been carried out. `sent`: this one may be, from now on. `taken`: it was. `brief`: what was done before is
    not read again, nor what has no page by id waited for. `mark`: what tells its records from those of another write of
    the same words. `listed`: that JobNimbus's lists show it was waited for. `notes`: for the result."""

    order: Order
    caller: Caller
    call: Call
    key: str | None
    brief: bool
    began: float
    token: str = ""
    doubtful: bool = False
    sent: bool = False
    taken: bool = False
    outcome: str = ""
    before: Mapping[str, Any] | None = field(default=None, repr=False)
    record_id: str = ""
    changed: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    mark: Hashable = None
    listed: bool = False

    @property
    def owner(self) -> Owner:
        return Owner(self.caller.instance, self.caller.partition)


class Carrier:
    """Carries writes out; changes of a document one at a time (`gateway.turns`)."""

    def __init__(
        self,
        upstream: UpstreamWrites,
        records: Records,
        tell: Tell,
        turns: Turns,
        others: Others,
        *,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._upstream = upstream
        self._records = records
        self._tell = tell
        self._clock = clock
        self._log = log
        self._lookout = Lookout(upstream, others, clock)
        self._turns = turns

    async def look(self, run: Run) -> Seen:
        """One look for what an earlier try may have done. Raises UpstreamError, BudgetExhausted."""
        return await self._lookout.look(run.order, run.began, run.caller, run.call, run.mark, run.key)

    async def listed(self, entity: Entity, records: Sequence[Mapping[str, Any]], caller: Caller, call: Call) -> bool:
        """Wait until JobNimbus's lists show these records as they were written; False when they do not in time."""
        return await self._lookout.listed(entity, {str(one["jnid"]): one for one in records}, caller, call)

    async def carry_out(self, run: Run) -> WriteResult:
        """Send it, unless the record is so already. Raises as `Writer.write`."""
        order = run.order
        if order.action is Action.CREATED or order.entity is Entity.SETTINGS:
            return await self.finish(run, await self._sent(run, None))
        async with self._turn(run):
            await self._look_before(run)
            assert run.before is not None
            if order.action is Action.UPDATED and not order.unlike(run.before):
                note = "The record was so already; nothing was sent."
                return WriteResult(order.entity, order.action, run.before, run.before, note=note)
            return await self.finish(run, await self._sent(run, run.before if order.whole else None))

    def _turn(self, run: Run) -> AbstractAsyncContextManager[None]:
        order = run.order
        if not order.whole:
            return nullcontext()
        return self._turns.turn(run.caller.instance, EntityRef(order.entity, order.record_id), run.call)

    async def _look_before(self, run: Run) -> None:
        order = run.order
        read = Read.record(order.entity, order.record_id)
        answer = await self._records.get(
            read, run.caller, run.call, max_age_s=0 if order.whole else None, internal=True
        )
        run.before = answer.value()
        if order.action is Action.UPDATED and not order.whole and not order.unlike(answer.value()):
            # what is kept may be older than a change that nobody told of; nothing is left out on its word
            answer = await self._records.get(read, run.caller, run.call, max_age_s=0, internal=True)
            run.before = answer.value()

    async def _sent(self, run: Run, base: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The record as JobNimbus answered it, or as it was found."""
        order, call = run.order, run.call
        reserved_s = min(_RESERVED_S, max(0.0, call.remaining_s(self._clock)) / 3)
        sending = replace(call, deadline=call.deadline - reserved_s)
        run.sent = True
        try:
            record = await self._send(run, base, sending)
            made = order.action is Action.CREATED and order.entity is not Entity.SETTINGS
            if made and not record.get("jnid"):
                raise UpstreamUnreadable("JobNimbus answered without the record.")
            return record
        except UpstreamRejected as error:
            refusal = _refusal(order, error)
            if run.doubtful and isinstance(refusal, DuplicateRecord):
                # what stands in the way may be what the first try has made
                seen = await self._lookout.look_out(order, run.began, run.caller, call, run.mark, run.key)
                if seen.record is not None:
                    return seen.record
            raise refusal from error
        except UpstreamNotFound as error:
            raise not_found(order.entity) from error
        except _UNSEEN as error:
            if not error.sent:
                raise
            seen = await self._lookout.look_out(order, run.began, run.caller, call, run.mark, run.key)
            if seen.record is None:
                raise await self.unseen(run) from error
            run.notes.append("JobNimbus did not say that it was done, but it was seen to be.")
            return seen.record

    async def _send(self, run: Run, base: Mapping[str, Any] | None, call: Call) -> Mapping[str, Any]:
        instance, credential = run.caller.instance, run.caller.credential
        if isinstance(run.order, UploadOrder):
            return await self._upstream.upload(run.order.upload, instance=instance, credential=credential, call=call)
        return await self._upstream.write(
            run.order.write, base=base, instance=instance, credential=credential, call=call
        )

    async def finish(self, run: Run, record: Mapping[str, Any]) -> WriteResult:
        """What JobNimbus has now, checked and told."""
        order, run.taken = run.order, True
        if order.entity is Entity.SETTINGS:
            return await self._told(run, record, SETTINGS_ID, order.names)
        if order.action is Action.CREATED:
            return await self._made(run, record)
        if order.action is Action.DELETED:
            by_flag = facts_of(order.entity).writes.delete is Deletion.FLAG
            if order.unlike(record):
                run.notes.append("JobNimbus took the deletion, and still shows the record. Read it with max_age_s 0.")
            return await self._told(run, record, order.record_id, ("is_active",) if by_flag else ("filename",))
        record = await self._filled(run, record, order.record_id)
        absent = self._remarked(run, record)
        changed = tuple(name for name in order.unlike(run.before or {}) if name not in absent)
        return await self._told(run, record, order.record_id, changed)

    async def _filled(self, run: Run, record: Mapping[str, Any], jnid: str) -> Mapping[str, Any]:
        """The record; read again where the answer holds less than was sent."""
        if record.get("jnid") and all(name in record for name in run.order.unlike(record)):
            return record
        try:
            return await self._lookout.record(run.order.entity, jnid, run.caller, run.call)
        except (UpstreamError, BudgetExhausted):
            return {**(run.before or {}), **record, "jnid": jnid}

    def _remarked(self, run: Run, record: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of what the record does not show as it was sent, also said in a note."""
        absent = run.order.unlike(record)
        if absent:
            run.notes.append(
                f"JobNimbus took it, and does not show {', '.join(absent)} as sent: it may have ignored or rewritten "
                "that. Read the record."
            )
        return absent

    async def _made(self, run: Run, record: Mapping[str, Any]) -> WriteResult:
        order, jnid = run.order, str(record["jnid"])
        run.record_id = jnid
        self._lookout.note_made(run.caller.instance, jnid, run.mark)
        if isinstance(order, UploadOrder):
            record = await self._hung(run, order, record, jnid)
        else:
            record = await self._filled(run, record, jnid)
            if left := () if self._remarked(run, record) else left_out(order.write, record):
                kind, others = kind_name(order.entity), ", ".join(left)
                run.notes.append(f"JobNimbus keeps the first link of a {kind} alone; it does not hang on {others}.")
            record = await self._completed(run, order, record, jnid)
        return await self._told(run, record, jnid, order.names)

    async def _completed(self, run: Run, order: RecordOrder, record: Mapping[str, Any], jnid: str) -> Mapping[str, Any]:
        """What the new record could not be made with, set by a second step."""
        step = Write(order.entity, Action.UPDATED, jnid, order.later())
        if not landed(step, record):
            return record
        try:
            return {**record, **await self._send(replace(run, order=RecordOrder(step)), None, run.call)}
        except (UpstreamError, BudgetExhausted) as error:
            names = ", ".join(step.fields)
            run.notes.append(f"It was made, but {names} could not be set ({error.code}): set it by an update.")
            return record

    async def _hung(self, run: Run, order: UploadOrder, record: Mapping[str, Any], jnid: str) -> Mapping[str, Any]:
        """The stored file as JobNimbus shows it; it is deleted again when it hangs on nothing.

        Raises:
            WriteRefused: JobNimbus stored it without its link.
        """
        if "related" not in record:
            shown = await self._lookout.stored(order, jnid, run.caller, run.call)
            run.listed = True  # or waited for as long as it would be
            if shown is None:
                run.notes.append("The file is stored; JobNimbus's list does not show yet what it hangs on.")
                size = None if order.upload.content is None else len(order.upload.content)
                return {"filename": order.upload.filename, "size": size, **record}
            record = shown
        if not order.unlinked(record):
            return record
        orphan = Write(Entity.ATTACHMENTS, Action.DELETED, jnid)
        left = "It was deleted again."
        try:
            await self._clock.sleep(_ORPHAN_PAUSE_S)
            await self._send(replace(run, order=RecordOrder(orphan)), None, run.call)
        except (UpstreamError, BudgetExhausted) as error:
            left = f"Deleting it failed ({error.code}): it is still there, with the id {jnid}."
        await self._tell_of(run, EntityRef(Entity.ATTACHMENTS, jnid), Action.UNKNOWN, {}, {}, "refused")
        raise WriteRefused(
            f"JobNimbus stored the file without linking it to the record. {left} Check that the record exists.",
            field="related",
        )

    async def _told(self, run: Run, record: Mapping[str, Any], jnid: str, names: Sequence[str]) -> WriteResult:
        """The result, once every cache knows of it."""
        order, before = run.order, run.before
        action = Action.UPDATED if order.entity is Entity.SETTINGS else order.action
        shown = record
        if order.action is Action.DELETED:
            shown = {"is_active": False} if "is_active" in names else {}
        values = values_of(names, before, shown)
        if isinstance(order, UploadOrder):
            values = values_of(("filename", "size"), None, record)
        if not await self._tell_of(run, EntityRef(order.entity, jnid), action, record, values, "done"):
            run.notes.append("It is done, but the cache could not be told: for a while, read with max_age_s 0.")
        deleted = order.action is Action.DELETED
        if not (facts_of(order.entity).has_detail or order.entity is Entity.SETTINGS or run.listed or run.brief):
            # what no page by id shows is read from the lists, by this caller too
            written = {jnid: None if deleted else record}
            if not await self._lookout.listed(order.entity, written, run.caller, run.call):
                run.notes.append("JobNimbus's lists do not show it yet; they may take some seconds more.")
        kept = (before if before is not None else {"jnid": jnid}) if deleted else record
        return WriteResult(order.entity, order.action, kept, before, tuple(names), note=" ".join(run.notes))

    async def unseen(self, run: Run) -> WriteOutcomeUnknown:
        """The error for a write that was sent and not seen again, once everything it may have changed is renewed."""
        order = run.order
        jnid = SETTINGS_ID if order.entity is Entity.SETTINGS else run.record_id
        fields = order.write.fields if isinstance(order, RecordOrder) else {"filename": order.upload.filename}
        values = values_of(tuple(fields), run.before, fields)
        await self._tell_of(run, EntityRef(order.entity, jnid), Action.UNKNOWN, {}, values, "unknown")
        return not_seen(run)

    async def _tell_of(
        self,
        run: Run,
        ref: EntityRef,
        action: Action,
        record: Mapping[str, Any],
        values: Mapping[str, Mapping[str, Any]],
        outcome: str,
    ) -> bool:
        audit = bounded(audit_of(run.caller, run.call, action=run.order.action.value, outcome=outcome, changed=values))
        call = Call.begin(self._clock, run.call.request_id, tool=run.call.tool, within_s=_TELL_WITHIN_S)
        try:
            await self._tell(Written(run.caller.instance, ref, action, record, audit), call)
        except CacheUnavailable as away:
            self._log.error(
                "a write could not be told",
                instance=run.caller.instance,
                entity=ref.entity.value,
                record_id=ref.jnid,
                reason=away.code,
                request_id=run.call.request_id,
            )
            return False
        return True


def not_seen(run: Run, *, retry_after_s: float | None = None) -> WriteOutcomeUnknown:
    """The error for a write whose end nobody can tell."""
    kind = kind_name(run.order.entity)
    if run.order.entity is Entity.SETTINGS:
        text = f"JobNimbus did not say whether it took the {kind}. To send it again does no harm."
    elif run.order.action is Action.CREATED:
        text = (
            f"JobNimbus did not say whether it made the {kind}, and it could not be seen. Do not just send it "
            f"again: look first whether there is one like it among the newest (its lists lag by some seconds)."
        )
    else:
        text = (
            f"JobNimbus did not say whether the {kind} was {run.order.action.value}, and it could not be seen. "
            "Read it with max_age_s 0 to see how it is."
        )
    if run.key is not None:
        text += " The same call with the same idempotency_key is safe: it looks before it sends."
    return WriteOutcomeUnknown(text, retry_after_s=retry_after_s)


def _refusal(order: Order, error: UpstreamRejected) -> ProjectError:
    kind, said = kind_name(order.entity), error.said or "no reason given"
    if "duplicate" in said.casefold():
        unique = facts_of(order.entity).writes.unique
        return DuplicateRecord(
            f"JobNimbus has a {kind} of this name already ({said}). Search for it and use that one, or choose "
            "another name.",
            field=unique or None,
        )
    return WriteRefused(f"JobNimbus does not take this {kind}: {said}")
