"""One record as an answer: shown as asked, cut to the budget, with its version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import ReadingArgs
from jobnimbus_mcp.tools.shape import Projection, fit_one, size_bytes
from jobnimbus_mcp.tools.versions import NO_VERSION, versioned

__all__ = ["record_answer"]

_CUT_SLACK_BYTES = 64


async def record_answer(
    ctx: ToolContext,
    entity: Entity,
    record: Mapping[str, Any],
    args: ReadingArgs,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`{"record", "as_of", "version"}` and `extra`, with `"truncated"` and `"omitted_fields"` where the record was cut
    to size; where the caller knows this version, `{"unchanged", "version", "as_of"}`.

    To be called after the reads that the answer is about; `extra` goes beside the record as it is.
    """
    projection = Projection(entity, args.verbosity, tuple(args.fields) if args.fields else None)
    projection = await ctx.people.named(ctx, projection, (record,))
    ctx.about_to_shape()
    provenance = ctx.provenance()
    answer: dict[str, Any] = {"record": {}, "as_of": provenance.as_of}
    if provenance.stale_reason is not None:
        answer |= {"stale": True, "stale_reason": provenance.stale_reason}
    answer |= extra or {}
    room = ctx.answer_max_bytes - size_bytes({**answer, "version": NO_VERSION})
    shown, omitted = fit_one(record, projection, room)
    if omitted:
        answer |= {"truncated": True, "omitted_fields": omitted}
        shown, omitted = fit_one(record, projection, room - size_bytes(omitted) - _CUT_SLACK_BYTES)
        answer["omitted_fields"] = omitted
    answer["record"] = shown
    return versioned(ctx.call.tool, args, answer)
