"""bulk_create_records, bulk_update_records, resume_bulk_run: up to a thousand writes, row by row, seen through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field, ValidationError, create_model

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.errors import InvalidInput, ProjectError
from jobnimbus_mcp.gateway.bulk import PARALLEL, ROWS_MOST, BulkReport, Refusal, Report, Row, RowEnd, RowOutcome
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs, Whole
from jobnimbus_mcp.tools.shape import size_bytes
from jobnimbus_mcp.tools.spec import Effect, ToolSpec
from jobnimbus_mcp.tools.toolbox import refusal_of
from jobnimbus_mcp.tools.write_fields import Argument, argument
from jobnimbus_mcp.tools.write_table import ROWS, ConfirmArg, WriteRow, create_model_of, update_model_of
from jobnimbus_mcp.tools.writing import drafted, revised

__all__ = ["ANSWERED_BEFORE_S", "Runs", "bulk_tools"]

ANSWERED_BEFORE_S = 4.0
"""No row is begun so shortly before the call's deadline: what was begun should end, and the report be written."""

_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "bulk_id": {"type": "string"},
        "counts": {"type": "object", "description": "outcome -> number of rows"},
        "finished": {"type": "boolean"},
        "next_step": {"type": "string"},
        "stopped": {"type": "string", "description": "Code of what ended the run early."},
        "rows": {
            "type": "array",
            "items": {"type": "object"},
            "description": "row (from 0), outcome, jnid or code, field and message; what failed comes first.",
        },
        "next_row": {"type": ["integer", "null"], "description": "rows_from of resume_bulk_run for more rows."},
    },
    "required": ["bulk_id", "counts", "finished", "rows"],
}
_FAILURES_FIRST = {RowEnd.FAILED: 0, RowEnd.UNKNOWN: 0}
_ROOM_KEPT_BYTES = 512

BulkId = Annotated[str, Field(min_length=8, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]


class Runs(Protocol):
    """Carries rows out; `gateway.bulk.Bulk`."""

    async def run(
        self, rows: Sequence[Row], *, bulk_id: str, caller: Caller, call: Call, report: Report, stop_at: float
    ) -> BulkReport: ...

    async def resume(
        self, bulk_id: str, *, caller: Caller, call: Call, report: Report, stop_at: float
    ) -> BulkReport: ...


class ResumeArgs(NoArgs):
    """resume_bulk_run"""

    bulk_id: BulkId
    rows_from: Annotated[Whole, Field(ge=0, le=ROWS_MOST, description="Show rows from this number on.")] = 0


def bulk_tools(runs: Runs, rows: Sequence[WriteRow] = ROWS) -> tuple[ToolSpec, ...]:
    """All three."""
    made = {row.word: row for row in rows if row.create and facts_of(row.entity).writes.create}
    changed = {row.word: row for row in rows if facts_of(row.entity).writes.update}
    creating = {word: create_model_of(row) for word, row in made.items()}
    changing = {word: update_model_of(row) for word, row in changed.items()}

    async def create(ctx: ToolContext, args: Any) -> dict[str, Any]:
        row = made[args.kind]
        drafts = await _side_by_side(
            partial(_draft, ctx, row, creating[args.kind], record, number) for number, record in enumerate(args.records)
        )
        return await _run(ctx, runs, args, drafts, Action.CREATED, row)

    async def update(ctx: ToolContext, args: Any) -> dict[str, Any]:
        row = changed[args.kind]
        drafts = await _side_by_side(
            partial(_revision, ctx, row, changing[args.kind], record, number)
            for number, record in enumerate(args.records)
        )
        return await _run(ctx, runs, args, drafts, Action.UPDATED, row)

    async def resume(ctx: ToolContext, args: ResumeArgs) -> dict[str, Any]:
        report = await runs.resume(
            args.bulk_id,
            caller=ctx.caller,
            call=ctx.call,
            report=ctx.report,
            stop_at=ctx.call.deadline - ANSWERED_BEFORE_S,
        )
        return _told(ctx, report, args.rows_from)

    def tool(name: str, title: str, text: str, model: type[BaseModel], handler: Any) -> ToolSpec:
        return ToolSpec(
            name,
            title,
            text,
            Entity.JOBS,
            model,
            _OUTPUT,
            handler=handler,
            effect=Effect.BULK,
            toolset="bulk",
            default=False,
            long=True,
        )

    return (
        tool(
            "bulk_create_records",
            "Create many records",
            f"Create up to {ROWS_MOST} records of one kind; each row as the arguments of create_<kind>. Asks the "
            "person first, or needs confirm: true. Rows fail singly; a run that was cut short goes on by bulk_id.",
            _model_of("BulkCreateArgs", tuple(made)),
            create,
        ),
        tool(
            "bulk_update_records",
            "Change many records",
            f"Change up to {ROWS_MOST} records of one kind; each row as the arguments of update_<kind>, its id "
            "included. Asks the person first, or needs confirm: true.",
            _model_of("BulkUpdateArgs", tuple(changed)),
            update,
        ),
        tool(
            "resume_bulk_run",
            "Go on with a bulk run",
            "Carry out what is left of a bulk run of the last 24 hours, or show what came of its rows.",
            ResumeArgs,
            resume,
        ),
    )


@cache
def _model_of(name: str, kinds: tuple[str, ...]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        "kind": (Literal[kinds], ...),
        "records": (
            Annotated[
                list[dict[str, Any]],
                Field(min_length=1, max_length=ROWS_MOST, description="Arguments of the single tool, one per row."),
            ],
            ...,
        ),
        "bulk_id": (
            Annotated[
                BulkId | None,
                Field(description="A name of your choice: the same rows under it are never carried out twice."),
            ],
            None,
        ),
        "confirm": (ConfirmArg, False),
    }
    return create_model(name, __base__=NoArgs, **fields)


async def _side_by_side(work: Iterable[Callable[[], Awaitable[Row]]]) -> list[Row]:
    """The rows in order; as many are made at once as are carried out at once.

    Raises:
        ProjectError: what is wrong for all of them.
    """
    slots = asyncio.Semaphore(PARALLEL)

    async def one(make: Callable[[], Awaitable[Row]]) -> Row:
        async with slots:
            return await make()

    try:
        async with asyncio.TaskGroup() as group:
            rows = [group.create_task(one(make)) for make in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [row.result() for row in rows]


async def _draft(ctx: ToolContext, row: WriteRow, model: type[BaseModel], record: Any, number: int) -> Row:
    try:
        args = _checked(model, record)
        return await drafted(ctx, row.entity, args, _arguments(row, row.only_update), row.links, needs=row.needs)
    except ProjectError as wrong:
        return _refused(wrong, number)


async def _revision(ctx: ToolContext, row: WriteRow, model: type[BaseModel], record: Any, number: int) -> Row:
    try:
        args = _checked(model, record)
        arguments = _arguments(row, row.only_create)
        return await revised(ctx, row.entity, getattr(args, row.id_name), args, arguments, row.links, look=False)
    except ProjectError as wrong:
        return _refused(wrong, number)


def _refused(wrong: ProjectError, number: int) -> Refusal:
    """A row that is wrong fails alone; what would be wrong for all (no budget, a refused key) ends the call."""
    if wrong.http_status >= 500 or wrong.http_status in (401, 403, 429):
        raise wrong
    return Refusal.of(wrong)


def _checked(model: type[BaseModel], record: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate(record)
    except ValidationError as invalid:
        raise refusal_of(invalid) from invalid


async def _run(
    ctx: ToolContext, runs: Runs, args: Any, rows: Sequence[Row], action: Action, row: WriteRow
) -> dict[str, Any]:
    good = sum(not isinstance(one, Refusal) for one in rows)
    if not good:
        first = next(one for one in rows if isinstance(one, Refusal))
        raise InvalidInput(f"No row can be carried out. Row 0: {first.message}", field="records")
    verb = "Create" if action is Action.CREATED else "Change"
    wrong = f"; {len(rows) - good} other rows are wrong and will be left out" if good < len(rows) else ""
    ctx.confirm(args.confirm, f"{verb} {good} {row.called} records in JobNimbus at once{wrong}?")
    report = await runs.run(
        rows,
        bulk_id=args.bulk_id or ctx.call.request_id[:100],
        caller=ctx.caller,
        call=ctx.call,
        report=ctx.report,
        stop_at=ctx.call.deadline - ANSWERED_BEFORE_S,
    )
    return _told(ctx, report, 0)


def _told(ctx: ToolContext, report: BulkReport, rows_from: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "bulk_id": report.bulk_id,
        "counts": dict(report.counts),
        "finished": not report.resumable,
        "rows": [],
        "next_row": None,
    }
    if report.stopped:
        answer["stopped"] = report.stopped
    if report.resumable:
        answer["next_step"] = "Call resume_bulk_run with this bulk_id to go on; nothing is done twice."
    rows = [row for row in report.rows if row.row >= rows_from]
    if rows_from == 0:
        rows.sort(key=lambda row: (_FAILURES_FIRST.get(row.outcome, 1), row.row))
    room = ctx.answer_max_bytes - size_bytes(answer) - _ROOM_KEPT_BYTES
    for row in rows:
        shown = _shown(row)
        room -= size_bytes(shown) + 1
        if room < 0:
            answer["next_row"] = min(one.row for one in rows[len(answer["rows"]) :])
            break
        answer["rows"].append(shown)
    return answer


def _shown(row: RowOutcome) -> dict[str, Any]:
    told: dict[str, Any] = {"row": row.row, "outcome": row.outcome.value}
    for name in ("jnid", "code", "field", "message"):
        if value := getattr(row, name):
            told[name] = value
    if row.replayed:
        told["replayed"] = True
    return told


def _arguments(row: WriteRow, without: frozenset[str]) -> tuple[Argument, ...]:
    return tuple(argument(key) for key in row.arguments if key not in without)
