"""Which pages, what they make, and what is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.query import Is, Sort
from jobnimbus_mcp.upstream.paging import (
    PAGES_MAX,
    Merged,
    Page,
    Row,
    first_page,
    merge,
    pages_after,
    why_block_incomplete,
    why_scan_incomplete,
)


@pytest.mark.parametrize(
    ("offset", "size", "page"),
    [
        (0, 100, Page(0, 100)),
        (9_900, 100, Page(9_900, 100)),
        (9_950, 100, Page(9_950, 50)),
        (10_000, 100, Page(10_000, 0)),
        (20_000, 100, Page(20_000, 0)),
    ],
)
def test_the_first_page_ends_at_the_window(offset: int, size: int, page: Page) -> None:
    assert first_page(offset, size, 10_000) == page


@pytest.mark.parametrize(
    ("got", "count", "window", "limit", "pages"),
    [
        (300, 300, 10_000, 5_000, []),
        (500, 500, 10_000, 5_000, []),
        (500, 501, 10_000, 5_000, [Page(500, 1)]),
        (500, 1_200, 10_000, 5_000, [Page(500, 500), Page(1_000, 200)]),
        (500, 1_200, 1_000, 5_000, [Page(500, 500)]),
        (500, 1_200, 10_000, 700, [Page(500, 200)]),
        (200, 450, 10_000, 5_000, [Page(200, 200), Page(400, 50)]),  # pages silently clamped to 200
        (0, 450, 10_000, 5_000, []),
    ],
)
def test_further_pages_cover_what_is_left(got: int, count: int, window: int, limit: int, pages: list[Page]) -> None:
    assert list(pages_after(Page(0, 500), got, count, window=window, limit=limit)) == pages


@given(st.integers(1, 500), st.integers(0, 20_000), st.integers(1, 12_000), st.integers(1, 12_000))
def test_pages_follow_each_other_without_gap_inside_all_bounds(got: int, count: int, window: int, limit: int) -> None:
    pages = pages_after(Page(0, 500), got, count, window=window, limit=limit)
    end = min(count, window, limit)
    at = got
    for page in pages:
        assert page.offset == at
        assert 0 < page.size <= 500
        at += page.size
    assert len(pages) <= PAGES_MAX
    assert at <= max(end, got)
    if len(pages) < PAGES_MAX:
        assert at >= end


def test_merging_keeps_order_drops_repeats_and_drops_what_does_not_match() -> None:
    pages: list[list[Row]] = [
        [{"jnid": "a", "status": 1}, {"jnid": "b", "status": 2}],
        [{"jnid": "b", "status": 1}, {"jnid": "c", "status": 1}, {"status": 1}],
    ]
    assert merge(pages, (Is("status", 1),)) == Merged(
        [{"jnid": "a", "status": 1}, {"jnid": "c", "status": 1}, {"status": 1}], seen=4, misfits=1
    )


@pytest.mark.parametrize(
    ("seen", "count", "window", "why"),
    [
        (7, 7, 10_000, None),
        (8, 7, 10_000, None),
        (0, 0, 10_000, None),
        (6, 7, 10_000, "JobNimbus counts 7 rows and gave 6"),
        (7, None, 10_000, "JobNimbus did not say how many rows there are"),
        (1_000, 1_001, 1_000, "JobNimbus shows only the first 1000 of 1001 rows of this list"),
        (5_000, 12_000, 10_000, "only 5000 of 12000 rows were looked at, those with the newest date_created"),
    ],
)
def test_a_scan_says_why_it_did_not_see_everything(seen: int, count: int | None, window: int, why: str | None) -> None:
    assert why_scan_incomplete(Merged([], seen, misfits=3), count, window=window, limit=5_000, sort=Sort()) == why


@pytest.mark.parametrize(
    ("sort", "which"),
    [
        (Sort(), "the newest date_created"),
        (Sort(descending=False), "the oldest date_created"),
        (Sort("date_updated"), "the newest date_updated"),
        (Sort("date_end", descending=False), "the oldest date_end"),
    ],
)
def test_a_scan_cut_short_says_which_rows_it_looked_at(sort: Sort, which: str) -> None:
    why = why_scan_incomplete(Merged([], 5_000, misfits=0), 6_000, window=10_000, limit=5_000, sort=sort)
    assert why == f"only 5000 of 6000 rows were looked at, those with {which}"


@pytest.mark.parametrize(
    ("seen", "misfits", "count", "asked", "why"),
    [
        (100, 0, 300, Page(100, 100), None),
        (50, 0, 150, Page(100, 100), None),
        (0, 0, 50, Page(100, 100), None),
        (100, 2, 300, Page(0, 100), "JobNimbus gave 2 rows that do not match, which were left out"),
        (60, 0, 300, Page(0, 100), "JobNimbus counts 100 rows here and gave 60"),
        (50, 0, 12_000, Page(9_950, 50), "JobNimbus shows only the first 10000 of 12000 rows of this list"),
        (30, 0, 9_980, Page(9_950, 50), None),
        (100, 0, None, Page(0, 100), "JobNimbus did not say how many rows there are"),
    ],
)
def test_a_block_says_why_rows_are_missing(
    seen: int, misfits: int, count: int | None, asked: Page, why: str | None
) -> None:
    assert why_block_incomplete(Merged([], seen, misfits), count, asked=asked, size=100, window=10_000) == why
