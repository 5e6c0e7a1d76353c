"""Questions of the background: how they are put, and which answers are believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import UpstreamError, UpstreamNotFound, UpstreamUnreadable
from jobnimbus_mcp.gateway.changes_poll import ChangesPoll
from jobnimbus_mcp.gateway.identity import Identities, Partitions
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Request

KEY = "k3yk3yk3yk3yk3yk"
GUID = "0f343b09-3112-6a20-f133-d67c2b018a3b"
JSON = {"content-type": "application/json"}


class World:
    """A poll over answers made by a function of path and parameters; a status stands for an answer without a body."""

    def __init__(self, answer: Callable[[str, dict[str, str]], Any]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.keys: set[str] = set()
        clock, recorder = ManualClock(), InMemoryRecorder()
        budget = LocalBudget(0, ["stamford"], clock)
        client = JobNimbusClient(
            sender=self,
            budget=budget,
            breakers=upstream_breakers(["stamford"], clock, recorder),
            clock=clock,
            random01=lambda: 0.0,
            recorder=recorder,
            on_call=lambda instance, entity: None,
        )
        identities = Identities(["stamford", "guilford"], {"stamford": KEY}, Partitions())
        self.poll = ChangesPoll(client, identities, budget, clock=clock, ids=lambda: "request")

    async def send(self, request: Request, credential: str, timeout_s: float) -> RawAnswer:
        self.asked.append((request.path, dict(request.params)))
        self.keys.add(credential)
        answer = self._answer(request.path, dict(request.params))
        if isinstance(answer, int):
            return RawAnswer(answer, JSON, b"{}")
        return RawAnswer(200, JSON, orjson.dumps(answer))


def rows(*found: dict[str, Any], count: int | None = None) -> dict[str, Any]:
    return {"count": len(found) if count is None else count, "results": list(found)}


def test_only_accounts_with_a_key_of_the_servers_are_served() -> None:
    poll = World(lambda path, params: rows()).poll
    assert poll.serves("stamford")
    assert not poll.serves("guilford")


async def test_changes_are_asked_for_in_their_order_and_trimmed() -> None:
    one = {"jnid": "j1", "date_updated": 1_790_000_000}
    world = World(lambda path, params: rows(one, count=7))
    found = await world.poll.changed("stamford", Entity.JOBS, since_s=1_790_000_000, offset=3, size=100)
    assert found == ([one], 7)
    ((path, params),) = world.asked
    assert path == "/jobs"
    assert (params["sort_field"], params["sort_direction"], params["from"], params["size"]) == (
        *("date_updated", "asc"),
        *("3", "100"),
    )
    assert json.loads(params["filter"]) == {"must": [{"range": {"date_updated": {"gte": 1_790_000_000}}}]}
    assert params["fields"] == "jnid,date_created,date_updated,type,related,primary,record_type_name"
    assert world.keys == {KEY}


async def test_ids_are_asked_for_by_when_they_were_made() -> None:
    world = World(lambda path, params: rows({"jnid": "a1", "date_created": 15}))
    await world.poll.made("stamford", Entity.ACTIVITIES, from_s=10, to_s=20, offset=0, size=1_000)
    ((path, params),) = world.asked
    assert path == "/activities"
    assert json.loads(params["filter"]) == {"must": [{"range": {"date_created": {"gte": 10, "lte": 20}}}]}
    assert params["fields"] == "jnid,date_created"


async def test_a_filter_that_was_ignored_is_no_answer() -> None:
    world = World(lambda path, params: rows({"jnid": "j1", "date_updated": 5}, {"jnid": "j2", "date_updated": 500}))
    with pytest.raises(UpstreamUnreadable):
        await world.poll.changed("stamford", Entity.JOBS, since_s=100, offset=0, size=100)


async def test_rows_that_were_left_out_with_their_fields_are_asked_for_whole() -> None:
    one = {"jnid": "j1", "date_updated": 500, "name": "Re-roof"}
    world = World(lambda path, params: rows(count=1) if "fields" in params else rows(one))
    found = await world.poll.changed("stamford", Entity.JOBS, since_s=100, offset=0, size=100)
    assert found == ([one], 1)


async def test_rows_that_are_counted_and_never_given_are_no_answer() -> None:
    world = World(lambda path, params: rows(count=1))
    with pytest.raises(UpstreamUnreadable):
        await world.poll.changed("stamford", Entity.JOBS, since_s=100, offset=0, size=100)


@pytest.mark.parametrize(("status", "gone"), [(404, True), (200, False)])
async def test_a_record_is_gone_when_its_page_is_not_found(status: int, gone: bool) -> None:
    world = World(lambda path, params: {"jnid": "j1"} if status == 200 else status)
    assert await world.poll.is_gone("stamford", Entity.JOBS, "j1") is gone
    assert [path for path, _ in world.asked] == ["/jobs/j1"]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 410])
async def test_no_other_refusal_says_that_a_record_is_gone(status: int) -> None:
    with pytest.raises(UpstreamError):
        await World(lambda path, params: status).poll.is_gone("stamford", Entity.JOBS, "j1")


@pytest.mark.parametrize(("kind", "jnid"), [(Entity.ATTACHMENTS, "f1"), (Entity.ESTIMATES, GUID)])
async def test_what_has_no_page_is_gone_when_a_list_of_it_is_empty(kind: Entity, jnid: str) -> None:
    there = World(lambda path, params: rows({"jnid": jnid}))
    assert not await there.poll.is_gone("stamford", kind, jnid)
    assert await World(lambda path, params: rows()).poll.is_gone("stamford", kind, jnid)
    uncounted = World(lambda path, params: {"results": []})
    assert not await uncounted.poll.is_gone("stamford", kind, jnid)
    ((path, params),) = there.asked
    assert jnid not in path
    assert json.loads(params["filter"]) == {"must": [{"term": {"jnid": jnid}}]}


async def test_a_list_that_is_not_found_says_nothing_of_its_records() -> None:
    world = World(lambda path, params: 404)
    with pytest.raises(UpstreamNotFound):
        await world.poll.is_gone("stamford", Entity.ATTACHMENTS, "f1")
