"""What comes in that no tool can mean, and what goes out that may not be kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

BOUND_S = 20.0


async def posted(world: Any, tool: str, arguments: str) -> str:
    """The text of the answer to a call whose arguments are written as they are, JSON or not."""
    message = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}'
    sent = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    headers = {**world.headers(), **sent, "mcp-protocol-version": "2025-06-18"}
    async with asyncio.timeout(BOUND_S):
        response = await world.http.post("/mcp", content=message, headers=headers)
    (data,) = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return str(json.loads(data)["result"]["content"][0]["text"])


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "9223372036854775808"])
async def test_a_number_that_json_has_no_way_to_write_takes_no_value_away(world: Any, number: str) -> None:
    job = world.has("jobs", lambda row: row.get("Shingle Color"))[0]
    before = dict(job)

    text = await posted(
        world, "update_job", f'{{"job_id":"{job["jnid"]}","custom_fields":{{"Shingle Color":{number}}}}}'
    )

    assert "[invalid_argument, request " in text
    assert world.has("jobs", lambda row: row["jnid"] == job["jnid"]) == [before]


async def test_a_number_too_large_for_a_question_is_the_caller_s_mistake_and_no_defect(world: Any) -> None:
    text = await posted(world, "get_payments", '{"method_id": 1000000000000000000000000000000}')

    assert text.startswith("method_id holds a number that is not finite, or too large. (argument: method_id)")
    # the world itself checks at its end that no defect was logged


async def test_a_link_to_a_file_is_asked_for_each_time_since_it_ends_within_minutes(world: Any) -> None:
    photo = world.has("files", lambda row: row["content_type"] == "image/jpeg")[0]["jnid"]

    first = await world.call("get_attachment_content", attachment_id=photo, format="link")
    world.clock.advance(600)
    second = await world.call("get_attachment_content", attachment_id=photo, format="link")

    assert first.data["filename"] == second.data["filename"]
    assert first.data["url"] != second.data["url"]


async def test_a_file_withheld_meanwhile_is_not_answered_from_memory(world: Any) -> None:
    photo = world.has("files", lambda row: row["content_type"] == "image/jpeg")[0]["jnid"]
    for _ in range(2):
        asked = world.sim.calls
        await world.call("get_attachment_content", attachment_id=photo, format="base64")
        assert world.sim.calls > asked, "JobNimbus was not asked whether the caller may have the file"


async def test_nor_does_one_among_many_records(world: Any) -> None:
    tasks = world.has("tasks")[:2]
    before = [dict(task) for task in tasks]
    rows = [{"task_id": tasks[0]["jnid"], "title": "New"}, {"task_id": tasks[1]["jnid"], "title": "New"}]
    written = json.dumps(rows).replace('"New"}]', '"New", "custom_fields": {"Crew": Infinity}}]')

    text = await posted(
        world, "bulk_update_records", f'{{"kind":"task","records":{written},"bulk_id":"run-00001","confirm":true}}'
    )

    assert text.startswith("records holds a number that is not finite, or too large.")
    assert world.has("tasks")[:2] == before
