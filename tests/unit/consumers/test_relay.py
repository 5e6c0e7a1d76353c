"""What a target is told, and what becomes of its answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.consumers.relay import Answered, Failed, Relay, message_of, outcome_of, relays_of
from jobnimbus_mcp.consumers.relay_targets import RelayTarget
from jobnimbus_mcp.events.event import BODY_MOST, Event
from jobnimbus_mcp.events.ports import ACT_WITHIN_S, ANSWER_MOST, Consumer, Outcome

KEY = b"the key of this target only"
TARGET = RelayTarget("n8n", "https://n8n.example.org/webhook/x", KEY, ("job.*",))


def event(**fields: Any) -> Event:
    told: dict[str, Any] = {
        "event_id": "01a3" * 8,
        "instance": "stamford",
        "name": "job.changed",
        "entity": "jobs",
        "record_id": "j1",
        "action": "unknown",
        "tags": ("jobs", "job:j1"),
        "source": "webhook",
        "received_at": 1_790_000_000.25,
        "occurred_at": 1_789_999_990,
        "body": '{"jnid":"j1","name":"Zoë","number": 12345678901234567890123}',
    }
    return Event(**{**told, **fields})


class Posts:
    """A poster that notes what is posted, and gives what it was told to."""

    def __init__(self, *results: Answered | Failed) -> None:
        self._results = list(results)
        self.posted: list[tuple[str, bytes, Mapping[str, str]]] = []

    async def post(self, target: RelayTarget, body: bytes, headers: Mapping[str, str]) -> Answered | Failed:
        self.posted.append((target.name, body, headers))
        return self._results.pop(0)


def test_the_message_says_what_changed_and_carries_the_record_as_it_came() -> None:
    raw = message_of(event())
    assert b"12345678901234567890123" in raw
    assert json.loads(raw) == {
        "id": "01a3" * 8,
        "type": "job.changed",
        "timestamp": "2026-09-21T14:13:20.250Z",
        "data": {
            "instance": "stamford",
            "entity": "jobs",
            "jnid": "j1",
            "action": "unknown",
            "source": "webhook",
            "occurredAt": "2026-09-21T14:13:10.000Z",
            "record": {"jnid": "j1", "name": "Zoë", "number": 12345678901234567890123},
        },
    }


def test_the_audit_of_a_write_of_ours_is_not_passed_on() -> None:
    told = json.loads(message_of(event(source="write", body='{"by": "desk", "changed": {"name": {"before": "A"}}}')))[
        "data"
    ]
    assert told["record"] is None
    assert told["source"] == "write"


@pytest.mark.parametrize(
    "body",
    ["", "not json", '{"cut": "in the mi', '"' + "é" * (BODY_MOST // 2) + '"', '"\ud800"', "[" * 5000, "NaN"],
    ids=["none", "text", "cut", "too long", "no unicode", "too deep", "nan"],
)
def test_a_body_that_cannot_be_passed_on_whole_is_no_record(body: str) -> None:
    assert json.loads(message_of(event(body=body)))["data"]["record"] is None


def test_a_deep_body_is_passed_on() -> None:
    body = "[" * 500 + "]" * 500
    assert json.loads(message_of(event(body=body)))["data"]["record"] == json.loads(body)


@pytest.mark.parametrize("occurred_at", [None, 10**15, -(10**15)])
def test_a_date_that_is_none_is_left_out(occurred_at: int | None) -> None:
    assert json.loads(message_of(event(occurred_at=occurred_at)))["data"]["occurredAt"] is None


@pytest.fixture
def _away_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_away_from_utc")
async def test_every_try_is_signed_for_its_own_time_under_one_id() -> None:
    clock = ManualClock(1_790_000_000.9)
    posts = Posts(Answered(500), Answered(200))
    relay = Relay(TARGET, posts, clock)
    await relay.act([event()], ["r1"])
    clock.advance(2.0)
    await relay.act([event()], ["r2"])
    (name, first, before), (_, second, after) = posts.posted
    assert name == "n8n"
    assert first == second == message_of(event())
    assert before["webhook-id"] == after["webhook-id"] == "01a3" * 8
    assert (before["webhook-timestamp"], after["webhook-timestamp"]) == ("1790000000", "1790000002")
    assert (before["X-Request-ID"], after["X-Request-ID"]) == ("r1", "r2")
    assert before["webhook-signature"] == _signature(KEY, "1790000000", first)
    assert after["webhook-signature"] == _signature(KEY, "1790000002", second)
    assert before["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Answered(200, b"ok"), Outcome(status=200, answer="ok")),
        (Answered(202), Outcome(status=202)),
        (Answered(299), Outcome(status=299)),
        (Answered(301, b"there"), Outcome("redirect", False, 301, "there")),
        (Answered(304), Outcome("redirect", False, 304)),
        (Answered(307), Outcome("redirect", False, 307)),
        (Answered(400, b"no"), Outcome("http_400", False, 400, "no")),
        (Answered(401), Outcome("http_401", False, 401)),
        (Answered(404), Outcome("http_404", False, 404)),
        (Answered(410), Outcome("http_410", False, 410)),
        (Answered(408), Outcome("http_408", True, 408)),
        (Answered(425), Outcome("http_425", True, 425)),
        (Answered(429), Outcome("http_429", True, 429)),
        (Answered(500, b"oh"), Outcome("http_500", True, 500, "oh")),
        (Answered(503), Outcome("http_503", True, 503)),
        (Answered(599), Outcome("http_599", True, 599)),
        (Answered(101), Outcome("http_101", False, 101)),
        (Failed("timeout"), Outcome("timeout")),
        (Failed("private_address", retry=False), Outcome("private_address", False)),
    ],
)
def test_what_becomes_of_an_answer(result: Answered | Failed, outcome: Outcome) -> None:
    assert outcome_of(result) == outcome
    assert outcome.ok is (outcome.status is not None and 200 <= outcome.status <= 299)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"<p>one</p>\r\n\ttwo\x00\x1b[31m", "<p>one</p> two [31m"),
        ("Zoë \u202eevil\u2028x".encode(), "Zoë evil x"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 9000, "x" * ANSWER_MOST),
        (("ë" * 9000).encode(), "ë" * ANSWER_MOST),
    ],
)
def test_the_trace_keeps_the_beginning_of_an_answer_as_plain_text(body: bytes, answer: str) -> None:
    assert outcome_of(Answered(500, body)).answer == answer


def test_each_target_is_a_consumer_of_its_own() -> None:
    clock, posts = ManualClock(), Posts()
    others = RelayTarget("zapier", "https://hooks.example.com/x", KEY, ("*.deleted",))
    relays: tuple[Consumer, ...] = relays_of([TARGET, others], posts, clock)
    assert [relay.name for relay in relays] == ["relay:n8n", "relay:zapier"]
    assert all(relay.batch_most == 1 and relay.parallel == 8 for relay in relays)
    assert all(10.0 < relay.within_s <= ACT_WITHIN_S for relay in relays)


def test_an_event_is_due_at_once_for_who_chose_it_and_nothing_to_others() -> None:
    relay = Relay(TARGET, Posts(), ManualClock())
    assert relay.delay_s(event()) == 0.0
    assert relay.delay_s(event(is_new=True)) == 0.0
    assert relay.delay_s(event(name="contact.changed")) is None
    assert relay.delay_s(event(record_id="")) is None


def _signature(key: bytes, stamp: str, body: bytes) -> str:
    """By the specification, not by the library."""
    signed = b".".join((b"01a3" * 8, stamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
