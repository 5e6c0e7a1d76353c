"""/cache/events, one event, and /cache/warming: what admins are shown of changes and may have read ahead."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.ports import Attempt, ConsumerTrace, Traced

ADMIN = {"authorization": "Bearer admin-token-0123456789"}
AT = 1_790_000_000.0


def traced(number: int, *, instance: str = "stamford", state: str = "done", body: str = "") -> Traced:
    event = Event(
        event_id=event_id_at(AT + number, f"{number:020x}"),
        instance=instance,
        name="job.updated",
        entity="jobs",
        record_id=f"j{number}",
        action="updated",
        tags=("jobs:list",),
        source="webhook",
        received_at=AT + number,
        request_id="request-7",
        body=body,
    )
    tried = (Attempt(AT + number + 1, "a.relay.1", 12.5, 500, "http_500", "oops"), Attempt(AT + number + 3, "a.2", 3.0))
    return Traced(
        event,
        {
            "settle": ConsumerTrace("done", AT + number + 6, 1, (), AT + number + 6.1),
            "relay:n8n": ConsumerTrace(state, AT + number, 2, tried, None, "http_500" if state == "dead" else ""),
        },
    )


async def listed(web: httpx.AsyncClient, query: str = "") -> tuple[list[str], str | None]:
    answer = await web.get(f"/cache/events{query}", headers=ADMIN)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return [event["recordId"] for event in told["events"]], told["nextCursor"]


async def test_a_listing_shows_each_event_in_one_row_without_its_body(web: httpx.AsyncClient, inside: Any) -> None:
    inside.trace.kept["stamford"] = [traced(1, state="dead", body='{"name": "Whitfield"}')]
    answer = await web.get("/cache/events", headers=ADMIN)
    assert answer.json() == {
        "events": [
            {
                "eventId": event_id_at(AT + 1, f"{1:020x}"),
                "state": "dead",
                "instance": "stamford",
                "entity": "jobs",
                "recordId": "j1",
                "action": "updated",
                "source": "webhook",
                "receivedAt": "2026-09-21T14:13:21.000Z",
                "attempts": 3,
            }
        ],
        "nextCursor": None,
    }
    assert "Whitfield" not in answer.text


async def test_pages_of_several_accounts_are_merged_newest_first_and_lose_nothing(
    web: httpx.AsyncClient, inside: Any
) -> None:
    inside.trace.kept["stamford"] = [traced(number) for number in (1, 4, 5, 8)]
    inside.trace.kept["guilford"] = [traced(number, instance="guilford") for number in (2, 3, 6, 7)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page, cursor = await listed(web, "?limit=3" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page) <= 3
        seen += page
        if cursor is None:
            break
    assert seen == [f"j{number}" for number in (8, 7, 6, 5, 4, 3, 2, 1)]


async def test_filters_go_to_the_log_as_they_were_given(web: httpx.AsyncClient, inside: Any) -> None:
    await listed(web, "?state=pending&entity=jobs&id=j1&since=1790000000&limit=7&instance=guilford")
    ((instance, query),) = inside.trace.asked
    assert instance == "guilford"
    assert (query.state, query.entity, query.record_id, query.since, query.limit) == ("pending", "jobs", "j1", AT, 7)


async def test_a_record_whose_id_is_a_guid_can_be_asked_for(web: httpx.AsyncClient, inside: Any) -> None:
    guid = "6F9619FF-8B86-D011-B42D-00C04FC964FF"
    await listed(web, f"?id={guid}&instance=guilford")
    assert inside.trace.asked[0][1].record_id == guid


async def test_a_body_nested_deeper_than_json_is_written_here_is_shown_as_text(
    web: httpx.AsyncClient, inside: Any
) -> None:
    deep = '{"jnid": "j1", "x": ' + "[" * 300 + "]" * 300 + "}"
    inside.trace.kept["stamford"] = [kept := traced(1, body=deep)]
    answer = await web.get(f"/cache/events/{kept.event.event_id}", headers=ADMIN)
    assert (answer.status_code, answer.json()["body"]) == (200, deep)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?state=lost", "state"),
        ("?entity=houses", "entity"),
        ("?id=../x", "id"),
        ("?cursor=abc", "cursor"),
        ("?cursor=AAAA", "cursor"),
        ("?limit=0", "limit"),
        ("?instance=nowhere", "instance"),
        ("?colour=red", "colour"),
        (f"?cursor={base64.urlsafe_b64encode(b'-1' + b'0' * 30).decode()}", "cursor"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(web: httpx.AsyncClient, query: str, field: str) -> None:
    answer = await web.get(f"/cache/events{query}", headers=ADMIN)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_one_event_tells_everything_from_its_receipt_to_each_try(web: httpx.AsyncClient, inside: Any) -> None:
    kept = traced(1, instance="guilford", state="dead", body='{"jnid": "j1"}')
    inside.trace.kept["guilford"] = [kept]
    told = (await web.get(f"/cache/events/{kept.event.event_id}", headers=ADMIN)).json()
    assert told["body"] == {"jnid": "j1"}
    assert (told["event"], told["requestId"], told["tags"]) == ("job.updated", "request-7", ["jobs:list"])
    assert told["consumers"]["settle"]["doneAt"] == "2026-09-21T14:13:27.100Z"
    relay = told["consumers"]["relay:n8n"]
    assert (relay["state"], relay["reason"], relay["attempts"]) == ("dead", "http_500", 2)
    assert relay["tried"][0] == {
        "at": "2026-09-21T14:13:22.000Z",
        "requestId": "a.relay.1",
        "status": 500,
        "error": "http_500",
        "response": "oops",
        "durationMs": 12.5,
    }
    assert relay["tried"][1]["error"] is None


@pytest.mark.parametrize("event_id", ["x", "0" * 32, "..%2f..", "g" * 32])
async def test_an_event_nobody_has_is_404(web: httpx.AsyncClient, event_id: str) -> None:
    answer = await web.get(f"/cache/events/{event_id}", headers=ADMIN)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_log_that_is_away_is_503_and_never_an_empty_answer(web: httpx.AsyncClient, inside: Any) -> None:
    inside.trace.down = True
    assert (await web.get("/cache/events", headers=ADMIN)).status_code == 503


@pytest.mark.parametrize("path", ["/cache/events", f"/cache/events/{'0' * 32}"])
async def test_only_admins_see_events(web: httpx.AsyncClient, path: str) -> None:
    assert (await web.get(path)).status_code == 401


async def test_warming_starts_what_is_asked_for_and_tells_how_many(web: httpx.AsyncClient, inside: Any) -> None:
    queries = [{"name": "get_jobs", "arguments": {"size": 50}}]
    answer = await web.post("/cache/warming", headers=ADMIN, json={"instance": "guilford", "queries": queries})
    assert (answer.status_code, answer.json()) == (200, {"started": 3})
    await web.post("/cache/warming", headers=ADMIN, json={})
    assert inside.warmed == [("guilford", queries), (None, None)]


@pytest.mark.parametrize(
    ("body", "field"),
    [({"instance": "nowhere"}, "instance"), ({"queries": "all"}, "queries"), ({"colour": 1}, "colour")],
)
async def test_warming_refuses_what_it_does_not_understand_and_starts_nothing(
    web: httpx.AsyncClient, inside: Any, body: dict[str, Any], field: str
) -> None:
    answer = await web.post("/cache/warming", headers=ADMIN, json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert inside.warmed == []
