"""An event as people read it: one row, or everything from its receipt to what came of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.ports import REJECTED_BY, Attempt, ConsumerTrace, Traced
from jobnimbus_mcp.events.trace import summary, whole

AT = 1_790_000_000.25
EVENT = Event(
    event_id=event_id_at(AT, "0" * 20),
    instance="stamford",
    name="job.updated",
    entity="jobs",
    record_id="j1",
    action="updated",
    tags=("jobs:list", "jobs:detail:j1"),
    source="webhook",
    received_at=AT,
    parents=("c1",),
    occurred_at=1_789_999_999,
    request_id="request-7",
    body='{"jnid": "j1"}',
)
TRIED = (
    Attempt(AT + 1, "a.relay-n8n.1", 12.3456, 500, "http_500", "oops"),
    Attempt(AT + 3, "a.relay-n8n.2", 3.0, 200, "", "taken"),
)
TRACED = Traced(
    EVENT,
    {
        "settle": ConsumerTrace("delayed", AT + 6),
        "relay:n8n": ConsumerTrace("done", AT, 2, TRIED, AT + 3.003),
    },
)


def state(*states: str) -> str:
    return Traced(EVENT, {str(n): ConsumerTrace(one, AT) for n, one in enumerate(states)}).state


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("done", "done"), "done"),
        ((), "done"),
        (("done", "dead"), "dead"),
        (("dead", "delayed"), "delayed"),
        (("delayed", "pending", "dead", "done"), "pending"),
        (("done", "pending"), "pending"),
    ],
)
def test_the_state_of_an_event_is_that_of_the_consumer_who_has_most_before_him(
    states: tuple[str, ...], expected: str
) -> None:
    assert state(*states) == expected


def test_a_row_tells_where_it_stands_and_never_what_was_in_it() -> None:
    assert summary(TRACED) == {
        "eventId": EVENT.event_id,
        "state": "delayed",
        "instance": "stamford",
        "entity": "jobs",
        "recordId": "j1",
        "action": "updated",
        "source": "webhook",
        "receivedAt": "2026-09-21T14:13:20.250Z",
        "attempts": 2,
    }


def test_the_whole_tells_every_try_of_every_consumer() -> None:
    told = whole(TRACED)
    assert told.items() >= summary(TRACED).items()
    assert told["body"] == {"jnid": "j1"}
    assert (told["event"], told["requestId"], told["tags"]) == ("job.updated", "request-7", list(EVENT.tags))
    assert (told["parents"], told["occurredAt"]) == (["c1"], "2026-09-21T14:13:19.000Z")
    assert list(told["consumers"]) == ["relay:n8n", "settle"]
    assert told["consumers"]["relay:n8n"] == {
        "state": "done",
        "dueAt": "2026-09-21T14:13:20.250Z",
        "doneAt": "2026-09-21T14:13:23.253Z",
        "attempts": 2,
        "tried": [
            {
                "at": "2026-09-21T14:13:21.250Z",
                "requestId": "a.relay-n8n.1",
                "status": 500,
                "error": "http_500",
                "response": "oops",
                "durationMs": 12.346,
            },
            {
                "at": "2026-09-21T14:13:23.250Z",
                "requestId": "a.relay-n8n.2",
                "status": 200,
                "error": None,
                "response": "taken",
                "durationMs": 3.0,
            },
        ],
    }
    assert told["consumers"]["settle"]["doneAt"] is None
    assert "reason" not in told["consumers"]["settle"]


def test_who_gave_up_says_why() -> None:
    traced = Traced(EVENT, {"relay:n8n": ConsumerTrace("dead", AT, 4, TRIED, None, "http_500")})
    assert whole(traced)["consumers"]["relay:n8n"]["reason"] == "http_500"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("", None),
        ("[1]", [1]),
        ("null", None),
        ("jnid=j1", "jnid=j1"),
        ('{"jnid": "cut at the mo', '{"jnid": "cut at the mo'),
    ],
)
def test_a_body_is_shown_as_json_where_it_is_and_as_text_where_it_is_not(body: str, shown: Any) -> None:
    assert whole(Traced(replace(EVENT, body=body), {}))["body"] == shown


def test_what_is_not_known_is_told_as_unknown() -> None:
    told = whole(Traced(replace(EVENT, parents=None, occurred_at=None, record_id=""), {}))
    assert (told["parents"], told["occurredAt"], told["recordId"]) == (None, None, "")
    assert orjson.loads(orjson.dumps(told)) == told


@pytest.mark.parametrize(
    ("states", "can"),
    [
        ({"relay:n8n": "dead", "settle": "done"}, True),
        ({"relay:n8n": "pending", "settle": "done"}, False),
        ({REJECTED_BY: "dead"}, False),
        ({}, False),
    ],
)
def test_what_a_consumer_gave_up_can_be_replayed_and_what_was_never_understood_cannot(
    states: dict[str, str], can: bool
) -> None:
    traced = Traced(EVENT, {name: ConsumerTrace(state, AT) for name, state in states.items()})
    assert traced.replayable is can
