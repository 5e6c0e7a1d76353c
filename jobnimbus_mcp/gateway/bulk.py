"""Bulk: many writes in one run, which may be cut short and gone on with: every row is carried out once.

Each row has an idempotency key of its own, made of the run's id and the row's number, and the rows are kept beside the
receipts. So a run that is repeated, or resumed by its id alone, asks for every row again and sends only what was not
carried out.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from jobnimbus_mcp.call import CALL_DEADLINE_S, Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.writes import Link, Write, WriteResult
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CacheUnavailable,
    InvalidInput,
    ProjectError,
    UpstreamCircuitOpen,
    UpstreamForbidden,
    UpstreamRateLimited,
    UpstreamUnauthorized,
    WriteInProgress,
    WriteOutcomeUnknown,
)
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.receipts import Owner, RowsKept
from jobnimbus_mcp.gateway.repair import CHANGED_MOST

__all__ = ["PARALLEL", "ROWS_MOST", "Bulk", "BulkReport", "Refusal", "Report", "Row", "RowEnd", "RowOutcome"]

ROWS_MOST = 1_000

PARALLEL = 4
"""Rows at once: half of the requests that are under way at most by default, so that readers go on."""

_BYTES_MOST = 4 * 1024 * 1024
_REPORT_EVERY_S = 0.5
_PAUSE_S = 1.0
_ID_MOST = 100

_LISTED_WITHIN_S = 8.0
"""JobNimbus's lists were seen to lag by up to 6 s, and looking takes its time too."""

_IN_OTHER_HANDS = (
    "Another call began this row and has not said how it ended, or was cut off before it could: resume the run in half "
    "a minute to hear what came of it."
)

_WAITED_FOR = (BudgetExhausted, UpstreamRateLimited, UpstreamCircuitOpen, WriteInProgress, CacheUnavailable)
"""What passes, and leaves the row as it was."""

_FOR_ALL_ROWS = (UpstreamUnauthorized, UpstreamForbidden)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that cannot be made a write of; it fails alone. As the error that says why."""

    code: str
    message: str
    field: str | None = None

    @classmethod
    def of(cls, error: ProjectError) -> Refusal:
        return cls(error.code, error.public_message, error.field)


Row = Write | Refusal


class RowEnd(StrEnum):
    """What came of a row. UNCHANGED: the record was so already. UNKNOWN: sent, or begun by another call, and its end
    not seen."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """`row`: its number, from 0. `replayed`: an earlier run had carried it out. `message`: why it failed; a note where
    it did not."""

    row: int
    outcome: RowEnd
    jnid: str = ""
    code: str = ""
    message: str = field(default="", repr=False)
    field: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class BulkReport:
    """Every row's outcome, in order. `stopped`: the code of what ended the run early, "" where nothing did or time was
    up."""

    bulk_id: str
    rows: tuple[RowOutcome, ...]
    stopped: str = ""

    @property
    def counts(self) -> Mapping[str, int]:
        """Outcome -> number of rows; only those there are."""
        counted = Counter(row.outcome.value for row in self.rows)
        return {end.value: counted[end.value] for end in RowEnd if counted[end.value]}

    @property
    def resumable(self) -> bool:
        """Some rows may still be carried out by asking again."""
        return any(row.outcome in (RowEnd.NOT_TRIED, RowEnd.UNKNOWN) for row in self.rows)


Report = Callable[[int, int, str], Awaitable[None]]
"""Told (rows done, of how many, in words)."""


class RowWriter(Protocol):
    """What a bulk run asks of `Writes`."""

    async def write(
        self, write: Write, caller: Caller, call: Call, *, idempotency_key: str | None = None, brief: bool = False
    ) -> WriteResult: ...

    async def listed(
        self, entity: Entity, records: Sequence[Mapping[str, Any]], caller: Caller, call: Call
    ) -> bool: ...


@dataclass(slots=True)
class _Going:
    """One run. `next`: the first row nobody has taken. `aside`: rows that another call has in hand, to be asked for
    again when all others were handed out. `stopped`: why no more are handed out. `latest`: what was written last, and
    `written` how many."""

    rows: Sequence[Row]
    outcomes: list[RowOutcome]
    bulk_id: str
    caller: Caller
    call: Call
    report: Report
    stop_at: float
    next: int = 0
    aside: deque[int] = field(default_factory=deque)
    done: int = 0
    told_at: float = float("-inf")
    stopped: str = ""
    written: int = 0
    latest: deque[WriteResult] = field(default_factory=lambda: deque(maxlen=PARALLEL))


class Bulk:
    """Runs rows through `writes`, `parallel` at once, handed out in order; what another call has in hand, also one that
    has died, keeps nobody from the rest."""

    def __init__(self, writes: RowWriter, kept: RowsKept, *, clock: Clock, parallel: int = PARALLEL) -> None:
        self._writes = writes
        self._kept = kept
        self._clock = clock
        self._parallel = parallel

    async def run(
        self, rows: Sequence[Row], *, bulk_id: str, caller: Caller, call: Call, report: Report, stop_at: float
    ) -> BulkReport:
        """Carry the rows out. `stop_at`: no row is begun from then on, on the monotonic scale; one that was begun may
        take as long as a call may.

        Raises:
            InvalidInput: no rows or too many, or the id stands for other rows.
            CacheUnavailable: they could not be kept, and none was tried.
        """
        if not rows or len(rows) > ROWS_MOST:
            raise InvalidInput(f"A bulk run has 1 to {ROWS_MOST} rows.", field="rows")
        _check_id(bulk_id)
        written = _encoded(rows)
        if len(written) > _BYTES_MOST:
            raise InvalidInput("The rows are too long together: split them into several runs.", field="rows")
        kept = await self._kept.keep(_owner(caller), bulk_id, gzip.compress(written, mtime=0))
        if gzip.decompress(kept) != written:
            raise InvalidInput("This bulk_id stands for other rows: choose a new one.", field="bulk_id")
        return await self._go(_Going(rows, [], bulk_id, caller, call, report, stop_at))

    async def resume(self, bulk_id: str, *, caller: Caller, call: Call, report: Report, stop_at: float) -> BulkReport:
        """Go on with a run of the last 24 hours, by its id alone.

        Raises:
            InvalidInput: there is none of that id.
            CacheUnavailable: it could not be looked up.
        """
        _check_id(bulk_id)
        kept = await self._kept.kept(_owner(caller), bulk_id)
        if kept is None:
            raise InvalidInput(
                "Nothing is known of a bulk run of this id, or no more: it was over 24 hours ago, or the store was "
                "emptied. Look which of its records are there before you send rows again.",
                field="bulk_id",
            )
        try:
            rows = _decoded(gzip.decompress(kept))
        except (KeyError, TypeError, ValueError) as other:
            raise InvalidInput(
                "This bulk run was begun by another release of the server: send its rows again.", field="bulk_id"
            ) from other
        return await self._go(_Going(rows, [], bulk_id, caller, call, report, stop_at))

    async def _go(self, going: _Going) -> BulkReport:
        going.outcomes += [RowOutcome(number, RowEnd.NOT_TRIED) for number in range(len(going.rows))]
        workers = [asyncio.ensure_future(self._work(going)) for _ in range(min(self._parallel, len(going.rows)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        await self._listed(going)
        await self._tell(going, at_the_end=True)
        return BulkReport(going.bulk_id, tuple(going.outcomes), going.stopped)

    async def _listed(self, going: _Going) -> None:
        """Wait, while there is time, until JobNimbus's lists show what was written last, and with it all the rest: more
        records than a kept list is put right by are read from there."""
        within_s = min(_LISTED_WITHIN_S, going.stop_at - self._clock.monotonic())
        if not going.written or within_s <= 0:
            return
        entity = going.latest[-1].entity
        if facts_of(entity).has_detail and going.written <= CHANGED_MOST:
            return
        call = Call.begin(self._clock, going.call.request_id, tool=going.call.tool, within_s=within_s)
        records = [result.record for result in going.latest if result.entity is entity]
        await self._writes.listed(entity, records, going.caller, call)

    async def _work(self, going: _Going) -> None:
        while self._may_begin(going) and (number := _taken(going)) is not None:
            outcome = await self._row(going, number, going.rows[number])
            if outcome is not None:
                going.outcomes[number] = outcome
                going.done += 1
                await self._tell(going)

    async def _row(self, going: _Going, number: int, row: Row) -> RowOutcome | None:
        """What came of a row; None when its turn did not come in time, or it was put aside."""
        if isinstance(row, Refusal):
            return RowOutcome(number, RowEnd.FAILED, code=row.code, message=row.message, field=row.field)
        key = f"bulk:{going.bulk_id}:{number}"
        while self._may_begin(going):
            call = Call.begin(self._clock, going.call.request_id, tool=going.call.tool, within_s=CALL_DEADLINE_S)
            try:
                result = await self._writes.write(row, going.caller, call, idempotency_key=key, brief=True)
            except _WAITED_FOR as passing:
                aside = _in_other_hands(passing)
                if aside:
                    # it may be there by now: nobody may say that it was not tried
                    going.outcomes[number] = RowOutcome(
                        number, RowEnd.UNKNOWN, code=passing.code, message=_IN_OTHER_HANDS
                    )
                    going.aside.append(number)
                if not aside or going.next == len(going.rows):
                    pause_s = passing.retry_after_s or _PAUSE_S
                    await self._clock.sleep(min(pause_s, max(0.0, going.stop_at - self._clock.monotonic())))
                if aside:
                    return None
            except WriteOutcomeUnknown as unseen:
                return RowOutcome(number, RowEnd.UNKNOWN, code=unseen.code, message=unseen.public_message)
            except ProjectError as error:
                if isinstance(error, _FOR_ALL_ROWS):
                    going.stopped = going.stopped or error.code
                return RowOutcome(
                    number, RowEnd.FAILED, code=error.code, message=error.public_message, field=error.field
                )
            else:
                unchanged = result.action is Action.UPDATED and not result.changed
                end = RowEnd.UNCHANGED if unchanged else RowEnd(result.action.value)
                if not unchanged and not result.replayed and result.action is not Action.DELETED:
                    going.written += 1
                    going.latest.append(result)
                return RowOutcome(number, end, result.jnid, message=result.note, replayed=result.replayed)
        return None

    def _may_begin(self, going: _Going) -> bool:
        return not going.stopped and self._clock.monotonic() < going.stop_at

    async def _tell(self, going: _Going, *, at_the_end: bool = False) -> None:
        now = self._clock.monotonic()
        if at_the_end or now - going.told_at >= _REPORT_EVERY_S:
            going.told_at = now
            await going.report(going.done, len(going.rows), f"{going.done} of {len(going.rows)} rows")


def _taken(going: _Going) -> int | None:
    """The row to be carried out next; None when all were taken."""
    if going.next < len(going.rows):
        going.next += 1
        return going.next - 1
    return going.aside.popleft() if going.aside else None


def _in_other_hands(passing: ProjectError) -> bool:
    """Another call has the row's key; who only waits for the turn of its document has sent nothing."""
    return isinstance(passing, WriteInProgress) and passing.field == "idempotency_key"


def _owner(caller: Caller) -> Owner:
    return Owner(caller.instance, caller.partition)


def _check_id(bulk_id: str) -> None:
    if not bulk_id.strip() or len(bulk_id) > _ID_MOST:
        raise InvalidInput(f"A bulk_id has 1 to {_ID_MOST} characters.", field="bulk_id")


def _encoded(rows: Sequence[Row]) -> bytes:
    # not orjson: callers' numbers may be longer than it writes
    return json.dumps([_form(row) for row in rows], separators=(",", ":"), sort_keys=True).encode()


def _form(row: Row) -> dict[str, Any]:
    if isinstance(row, Refusal):
        return {"code": row.code, "message": row.message, "field": row.field}
    return {
        "entity": row.entity.value,
        "action": row.action.value,
        "record_id": row.record_id,
        "fields": list(row.fields.items()),  # as a list, since their order is the one that results name them in
        "links": [[link.jnid, None if link.entity is None else link.entity.value] for link in row.links],
        "part": row.part,
    }


def _decoded(raw: bytes) -> tuple[Row, ...]:
    return tuple(_row_of(form) for form in json.loads(raw))


def _row_of(form: Mapping[str, Any]) -> Row:
    if "code" in form:
        return Refusal(form["code"], form["message"], form["field"])
    links = tuple(Link(jnid, None if kind is None else Entity(kind)) for jnid, kind in form["links"])
    fields = dict(form["fields"])
    return Write(Entity(form["entity"]), Action(form["action"]), form["record_id"], fields, links, form["part"])
