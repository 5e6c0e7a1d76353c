"""Which pages to ask for, what they make together, and what is missing from it.

JobNimbus refuses pages that end beyond a window (Elasticsearch's 10,000 rows; 1,000 were seen on activities) and may
give fewer rows than asked for. Source: JobNimbus API documentation, list parameters; production notes of its users.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.crm.query import Sort, Where, matches

__all__ = [
    "PAGES_MAX",
    "Merged",
    "Page",
    "Row",
    "first_page",
    "merge",
    "pages_after",
    "why_block_incomplete",
    "why_scan_incomplete",
    "window_note",
]

Row = dict[str, Any]

PAGES_MAX = 100
"""Most pages that follow a first one: ten times what a full scan needs, should JobNimbus give tiny pages."""


@dataclass(frozen=True, slots=True)
class Page:
    """`size` rows from `offset`; size 0 is no page."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Merged:
    """`rows` that satisfy the conditions, each once; `seen`: different rows looked at; `misfits`: left out of them."""

    rows: list[Row]
    seen: int
    misfits: int


def first_page(offset: int, size: int, window: int) -> Page:
    """The part of the rows asked for that lies inside the window."""
    return Page(offset, max(0, min(size, window - offset)))


def pages_after(first: Page, got: int, count: int, *, window: int, limit: int) -> tuple[Page, ...]:
    """The pages that follow `first`, which gave `got` rows of `count`; none end beyond `window` or `limit`.

    A server that gives fewer rows than asked for, though there are more, clamps its pages: the further ones are as
    large as what it gave.
    """
    end = min(count, window, limit)
    start = first.offset + got
    if got == 0 or start >= end:
        return ()
    size = min(first.size, got)
    return tuple(Page(offset, min(size, end - offset)) for offset in range(start, end, size))[:PAGES_MAX]


def merge(pages: Iterable[Sequence[Row]], where: Where) -> Merged:
    """All pages as one list in their order: the first of rows with equal jnid, without those that do not match.

    Rows shift between pages when records are made meanwhile, and JobNimbus ignores filters it does not understand.
    """
    seen: set[str] = set()
    rows: list[Row] = []
    looked_at = misfits = 0
    for page in pages:
        for row in page:
            jnid = row.get("jnid")
            if isinstance(jnid, str):
                if jnid in seen:
                    continue
                seen.add(jnid)
            looked_at += 1
            if matches(where, row):
                rows.append(row)
            else:
                misfits += 1
    return Merged(rows, looked_at, misfits)


def window_note(count: int | None, window: int) -> str:
    """Why rows beyond the paging window are missing; `count` is None where JobNimbus did not say."""
    total = "all" if count is None else str(count)
    return f"JobNimbus shows only the first {window} of {total} rows of this list"


def why_scan_incomplete(merged: Merged, count: int | None, *, window: int, limit: int, sort: Sort) -> str | None:
    """Why a scan did not see every row, or None when it did. `count`: the highest that JobNimbus named."""
    if count is None:
        return "JobNimbus did not say how many rows there are"
    if count > window and window <= limit:
        return window_note(count, window)
    if count > limit:
        first = "newest" if sort.descending else "oldest"
        return f"only {limit} of {count} rows were looked at, those with the {first} {sort.field}"
    if merged.seen < count:
        return f"JobNimbus counts {count} rows and gave {merged.seen}"
    return None


def why_block_incomplete(merged: Merged, count: int | None, *, asked: Page, size: int, window: int) -> str | None:
    """Why a block lacks rows it should have, or None when it lacks none. `size`: what the block asked for at first."""
    reasons = []
    if merged.misfits:
        reasons.append(f"JobNimbus gave {merged.misfits} rows that do not match, which were left out")
    if count is None:
        reasons.append("JobNimbus did not say how many rows there are")
    else:
        if asked.size < size and count > window:
            reasons.append(window_note(count, window))
        due = max(0, min(asked.size, count - asked.offset))
        if merged.seen < due:
            reasons.append(f"JobNimbus counts {due} rows here and gave {merged.seen}")
    return "; ".join(reasons) or None
