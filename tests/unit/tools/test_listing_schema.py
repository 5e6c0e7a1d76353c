"""What an agent reads of every tool before it asks anything is kept short."""

from __future__ import annotations

from typing import Any

import orjson

from jobnimbus_mcp.tools.registry import read_tools
from jobnimbus_mcp.tools.spec import LIST_OUTPUT, RECORD_OUTPUT

TWELVE = (
    *("get_jobs", "search_jobs", "get_job", "get_contacts", "search_contacts", "get_estimates", "get_activities"),
    *("get_calendar_activities", "get_tasks", "get_users", "get_attachments", "get_webhooks"),
)
GET_JOBS_BYTES, TWELVE_BYTES = 2_400, 22 * 1024
"""A quarter of a token each: the twelve cost an agent some 5,500 tokens before its first question."""


async def _no_webhooks(ctx: Any, args: Any) -> dict[str, Any]:
    raise AssertionError("only listed here")


def test_the_twelve_read_tools_are_told_in_a_few_bytes() -> None:
    sizes = {spec.name: len(orjson.dumps(spec.listing)) for spec in read_tools(_no_webhooks) if spec.name in TWELVE}

    assert set(sizes) == set(TWELVE)
    assert sizes["get_jobs"] <= GET_JOBS_BYTES, sizes
    assert sum(sizes.values()) <= TWELVE_BYTES, sizes


def test_every_shape_of_answer_is_promised_and_only_what_all_have_is_required() -> None:
    """An unchanged answer holds no records, and clients check answers against this."""
    for output in (LIST_OUTPUT, RECORD_OUTPUT):
        assert output["required"] == ["as_of"]
        assert {"version", "unchanged", "stale", "stale_reason", "truncated", "omitted_fields"} <= set(
            output["properties"]
        )
    assert {"results", "columns", "table", "count", "returned", "next_cursor", "complete", "incomplete_reason"} | {
        *("changes_since", "unchanged_count", "removed", "known_version_unknown"),
    } <= set(LIST_OUTPUT["properties"])
