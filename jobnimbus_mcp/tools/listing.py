"""Lists: from a question to one page that fits, with the way to the next.

Two kinds. Where JobNimbus filters and sorts exactly, pages are cut from cached blocks of its own list. Where rows must
be checked here (searches, overdue tasks), every row that may match is read once and pages are cut from that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import NEWEST_FIRST, Between, Sort, Where
from jobnimbus_mcp.crm.reads import BLOCK_ROWS, Operation, Read
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.cursor import Anchor, Cursor
from jobnimbus_mcp.tools.inputs import ListArgs
from jobnimbus_mcp.tools.layout import Layout
from jobnimbus_mcp.tools.shape import Projection, size_bytes
from jobnimbus_mcp.tools.versions import NO_VERSION, Asked, changed_rows, row_digest, unchanged

__all__ = ["Listing", "list_answer"]

_BEYOND_WINDOW = (
    "JobNimbus lists only so many rows in a row and these lie beyond; narrow the question by date, "
    "or follow next_cursor from the first page"
)
_CHANGED_MEANWHILE = "the list changed between two reads of it; ask again, with max_age_s 0, to see it whole"
_SLACK_BYTES = 96
"""Names and quotes of what is not there yet when the records are fitted in."""
_CHANGES_BYTES = 160
"""What tells of changes, apart from the rows that changed and those removed."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list tool asks. `scan`: rows must be checked here; `keep`: a check that depends on the time of asking."""

    entity: Entity
    where: Where = ()
    scope: frozenset[str] = frozenset()
    sort: Sort = NEWEST_FIRST
    scan: bool = False
    operation: Operation = Operation.LIST
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class _Page:
    """`places`: of JobNimbus's list that the page stands for; more than rows where some were left out of it."""

    rows: list[dict[str, Any]]
    count: int
    places: int
    why: str | None = None


async def list_answer(
    ctx: ToolContext, listing: Listing, args: ListArgs, question: Mapping[str, Any], cursor: Cursor | None
) -> dict[str, Any]:
    """One page: `{"results", "count", "returned", "next_cursor", "as_of", "version"}`, with `"complete": false` and
    `"incomplete_reason"` where rows are missing, `"truncated"` and `"omitted_fields"` where a record was cut. As a
    table: `"columns"` and `"table"` instead of `"results"`.

    To a caller who knows an earlier version of the page: that it is unchanged, or, where this process remembers that
    version, the rows that changed with `"unchanged_count"`, `"removed"` and `"changes_since"`; else the whole page.
    """
    offset = cursor.offset if cursor else args.from_ or 0
    anchor = cursor.anchor if cursor else None
    if listing.scan or listing.whole:
        page = await _scanned(ctx, listing, offset, args.size)
    else:
        page = await _from_blocks(ctx, listing, offset, args.size, anchor)
    projection = Projection(listing.entity, args.verbosity, tuple(args.fields) if args.fields else None)
    projection = await ctx.people.named(ctx, projection, page.rows)

    ctx.about_to_shape()
    layout = Layout(args.format, projection.paths)
    results = [projection.apply(row) for row in page.rows]
    tool = ctx.call.tool

    def word(next_offset: int, at: Anchor | None) -> str:
        return Cursor(tool, question, next_offset, at).word()

    answer: dict[str, Any] = {"count": page.count, "returned": 0, "next_cursor": None}
    provenance = ctx.provenance()
    answer |= {"as_of": provenance.as_of, "version": NO_VERSION}
    if provenance.stale_reason is not None:
        answer |= {"stale": True, "stale_reason": provenance.stale_reason}
    longest = word(offset + args.size, anchor or Anchor(2**40, 2**24, 2**24))
    slack = len(longest) + len(page.why or "") + _SLACK_BYTES + (_CHANGES_BYTES if args.known_version else 0)
    room = ctx.answer_max_bytes - size_bytes(answer) - slack
    fitting = layout.fit(results, room)
    if fitting == 0 and results:
        cut, omitted = layout.fit_one(page.rows[0], projection, max(0, room - 400))
        results, fitting = [cut], 1
        answer |= {"truncated": True, "omitted_fields": omitted}
    answer["returned"] = fitting
    shown = results[:fitting]

    # a page that was cut goes on behind its last record, a whole one behind its last place in JobNimbus's list
    next_offset = offset + (fitting if fitting < len(page.rows) else page.places)
    why = page.why
    if next_offset < page.count and (page.rows or why is None):
        reachable = True
        if not (listing.scan or listing.whole):
            last = page.rows[fitting - 1] if fitting else None
            anchor, reachable = await _anchor_for(ctx, listing, next_offset, args.size, anchor, last, page.count)
        if reachable:
            answer["next_cursor"] = word(next_offset, anchor)
        else:
            why = why or _BEYOND_WINDOW
    if why is not None:
        answer |= {"complete": False, "incomplete_reason": why}
    return _told(ctx, args, Asked(tool, args, offset), answer, page.rows[:fitting], shown, layout)


def _told(
    ctx: ToolContext,
    args: ListArgs,
    asked: Asked,
    answer: dict[str, Any],
    rows: list[dict[str, Any]],
    shown: list[dict[str, Any]],
    layout: Layout,
) -> dict[str, Any]:
    """The answer with its records and version, or what changed of it since the version its caller knows."""
    written = [orjson.dumps(row) for row in shown]
    answer["version"] = asked.version(answer, written)
    if args.known_version == answer["version"]:
        return unchanged(answer)
    ids = [str(row.get("jnid") or row.get("id") or "") for row in rows]
    before = ctx.versions.rows(ctx.caller, asked, args.known_version) if args.known_version else None
    if all(ids) and len(set(ids)) == len(ids):
        digests = [row_digest(row) for row in written]
        ctx.versions.remember(ctx.caller, asked, answer["version"], dict(zip(ids, digests, strict=True)))
        if before is not None:
            places, removed = changed_rows(ids, digests, before)
            spared = sum(map(len, written)) - sum(len(written[at]) for at in places)
            if size_bytes(removed) < spared:
                answer |= {"returned": len(places), "unchanged_count": len(ids) - len(places), "removed": removed}
                return layout.body([shown[at] for at in places]) | answer | {"changes_since": args.known_version}
    if args.known_version is not None and before is None:
        answer["known_version_unknown"] = True
    return layout.body(shown) | answer


async def _scanned(ctx: ToolContext, listing: Listing, offset: int, size: int) -> _Page:
    if listing.whole:
        read = Read.whole(listing.entity)
    else:
        read = Read.scan(
            listing.entity, listing.where, sort=listing.sort, operation=listing.operation, scope=listing.scope
        )
    value = await ctx.read(read)
    rows = value["rows"]
    if listing.keep is not None:
        rows = [row for row in rows if listing.keep(row)]
    if not listing.whole:
        rows = sorted(rows, key=lambda row: _place(row, listing.sort), reverse=listing.sort.descending)
    return _Page(rows[offset : offset + size], len(rows), size, value.get("incomplete"))


async def _from_blocks(ctx: ToolContext, listing: Listing, offset: int, size: int, anchor: Anchor | None) -> _Page:
    start = offset - (anchor.rows_before if anchor else 0)
    window = facts_of(listing.entity).window

    async def block(index: int) -> dict[str, Any]:
        begin = index * BLOCK_ROWS
        wanted = max(1, min(BLOCK_ROWS, window - begin))
        value: dict[str, Any] = await ctx.read(
            Read.block(listing.entity, _anchored(listing, anchor), listing.sort, begin, wanted, listing.scope)
        )
        return value

    first = start // BLOCK_ROWS
    blocks = [await block(first)]
    count = blocks[0]["count"]
    last = min(start + size - 1, count - 1, window - 1) // BLOCK_ROWS
    if last > first:
        blocks += await asyncio.gather(*(block(index) for index in range(first + 1, last + 1)))
    seen: set[Any] = set()
    rows: list[dict[str, Any]] = []
    skip = start - first * BLOCK_ROWS
    cut = [row for part in blocks for row in part["rows"]][skip : skip + size]
    for row in cut:
        # rows move between blocks that were fetched at different moments; none is shown twice
        if row.get("jnid") not in seen or row.get("jnid") is None:
            rows.append(row)
        seen.add(row.get("jnid"))
    why = next((part["incomplete"] for part in blocks if "incomplete" in part), None)
    if why is None and (len(rows) < len(cut) or any(part["count"] != count for part in blocks)):
        why = _CHANGED_MEANWHILE
    if anchor is not None and start + size >= count and anchor.rows_before + count < anchor.count:
        # the list without an anchor ends with these, and the anchor's condition leaves them out
        return _Page(rows, anchor.rows_before + count, size, why or _undated(listing.sort.field))
    if start >= count:
        why = None  # asked for what lies behind the end: nothing is missing
    return _Page(rows, anchor.count if anchor else count, max(0, min(size, window - start)), why)


def _undated(field: str) -> str:
    return (
        f"records without {field} lie beyond the rows that JobNimbus lists in a row; sort by date_created to see them"
    )


async def _anchor_for(
    ctx: ToolContext,
    listing: Listing,
    next_offset: int,
    size: int,
    anchor: Anchor | None,
    last_row: Mapping[str, Any] | None,
    count: int,
) -> tuple[Anchor | None, bool]:
    """The anchor the next page needs, and whether it can be reached at all."""
    window = facts_of(listing.entity).window
    start = next_offset - (anchor.rows_before if anchor else 0)
    if start + size + BLOCK_ROWS <= window or count - (anchor.rows_before if anchor else 0) <= window:
        return anchor, True
    at = epoch_s(last_row.get(listing.sort.field)) if last_row is not None else None
    if at is None or at != (last_row or {}).get(listing.sort.field):
        return anchor, start < window  # not dated, or dated in milliseconds: there is no moment to count from
    ahead = (
        Between(listing.sort.field, at_least=at + 1, as_stored=True)
        if listing.sort.descending
        else Between(listing.sort.field, at_most=at - 1, as_stored=True)
    )
    counting = Read.block(listing.entity, (*listing.where, ahead), listing.sort, 0, 1, listing.scope)
    rows_before = (await ctx.look_up(counting)).value()["count"]
    if anchor is not None and rows_before <= anchor.rows_before:
        return anchor, start < window  # a whole window of rows in one second
    if next_offset - rows_before >= window or next_offset < rows_before:
        return anchor, start < window
    return Anchor(at, rows_before, anchor.count if anchor else count), True


def _anchored(listing: Listing, anchor: Anchor | None) -> Where:
    if anchor is None:
        return listing.where
    if listing.sort.descending:
        return (*listing.where, Between(listing.sort.field, at_most=anchor.at, as_stored=True))
    return (*listing.where, Between(listing.sort.field, at_least=anchor.at, as_stored=True))


def _place(row: Mapping[str, Any], sort: Sort) -> tuple[int, int]:
    recid = row.get("recid")
    return epoch_s(row.get(sort.field)) or 0, recid if isinstance(recid, int) else 0
