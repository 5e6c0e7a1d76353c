"""POST /webhooks/jobnimbus: who may deliver, where each proof may stand, and what is answered."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.events.intake import Accepted, Delivery
from jobnimbus_mcp.events.signature import WebhookSecrets

UPDATED = {"event": "job.updated", "resource_type": "job", "resource_id": "j1"}
RECORD = {"jnid": "j1", "type": "job", "date_updated": 1789400215, "name": "Whitfield"}
RAW = orjson.dumps(UPDATED)
JSON = {"content-type": "application/json"}


def url(instance: str | None = "stamford", token: str | None = None) -> str:
    given = {"instance": instance, "token": token}
    return "/webhooks/jobnimbus?" + "&".join(f"{name}={value}" for name, value in given.items() if value is not None)


async def test_a_delivery_is_acknowledged_with_its_event_id(inside: Any, web: Any, hook_secret: str) -> None:
    response = await web.post(url(token=hook_secret), json=UPDATED)
    assert response.status_code == 200
    (event,) = inside.events
    assert response.json() == {"received": True, "eventId": event.event_id, "duplicate": False}
    assert (event.instance, event.name) == ("stamford", "job.updated")


async def test_a_duplicate_invalidates_again_and_answers_the_first_event_id(
    inside: Any, web: Any, hook_secret: str
) -> None:
    first = (await web.post(url(token=hook_secret), json=RECORD)).json()
    second = (await web.post(url(token=hook_secret), json=RECORD)).json()
    assert second == {"received": True, "eventId": first["eventId"], "duplicate": True}
    assert len(inside.events) == 2


async def test_the_same_webhook_id_is_a_duplicate_whatever_the_body(web: Any, hook_secret: str) -> None:
    headers = {"webhook-id": "msg_1"}
    first = (await web.post(url(token=hook_secret), json=UPDATED, headers=headers)).json()
    second = (await web.post(url(token=hook_secret), json=RECORD, headers=headers)).json()
    assert (second["duplicate"], second["eventId"]) == (True, first["eventId"])


def proofs(hook: str, signing: str, now: float) -> dict[str, dict[str, str]]:
    digest = hmac.new(signing.encode(), RAW, hashlib.sha256).hexdigest()
    signature = Webhook(signing.encode()).sign("msg_1", datetime.fromtimestamp(now, UTC), RAW.decode())
    standard = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now)), "webhook-signature": signature}
    return {
        "bearer": {"authorization": f"Bearer {hook}"},
        "token header": {"x-webhook-token": hook},
        "signed": {"x-jobnimbus-signature": f"sha256={digest}"},
        "standard": standard,
        "standard, rotated": standard | {"webhook-signature": "v1,b2xk " + signature},
        "nothing": {},
        "wrong bearer": {"authorization": f"Bearer {hook}x"},
        "wrong header": {"x-webhook-token": "wrong"},
        "tampered": {"x-jobnimbus-signature": "sha256=" + "0" * 64},
        "not hex": {"x-jobnimbus-signature": "sha256=xyz"},
        "stale": standard | {"webhook-timestamp": str(int(now) - 301)},
        "future": standard | {"webhook-timestamp": str(int(now) + 301)},
        "no id": {name: value for name, value in standard.items() if name != "webhook-id"},
        "bad base64": standard | {"webhook-signature": "v1,%%%"},
        "no comma": standard | {"webhook-signature": "v1"},
        "another's id": standard | {"webhook-id": "msg_2"},
    }


@pytest.mark.parametrize("instance_in", ["query", "header"])
@pytest.mark.parametrize("proof", list(proofs("h", "s", 0)))
async def test_each_proof_alone_opens_and_each_wrong_one_is_one_and_the_same_401(
    inside: Any, web: Any, error_of: Any, hook_secret: str, signing_secret: str, proof: str, instance_in: str
) -> None:
    headers = JSON | proofs(hook_secret, signing_secret, inside.clock.now())[proof]
    path = url(None)
    if instance_in == "header":
        headers["x-jobnimbus-instance"] = "stamford"
    else:
        path = url("stamford")
    response = await web.post(path, content=RAW, headers=headers)
    if proof in ("bearer", "token header", "signed", "standard", "standard, rotated"):
        assert response.status_code == 200
        assert len(inside.events) == 1
    else:
        assert error_of(response) == (401, "invalid_signature")
        assert response.json()["error"] == "Invalid signature"
        assert inside.events == []


async def test_a_changed_body_does_not_fit_its_signature(
    inside: Any, web: Any, error_of: Any, hook_secret: str, signing_secret: str
) -> None:
    for proof in ("signed", "standard"):
        headers = JSON | proofs(hook_secret, signing_secret, inside.clock.now())[proof]
        response = await web.post(url(), content=RAW.replace(b"j1", b"j2"), headers=headers)
        assert error_of(response) == (401, "invalid_signature")


@pytest.mark.parametrize(
    ("instance", "token", "expected"),
    [
        ("guilford", "own-secret-0123456789", 200),
        ("stamford", "own-secret-0123456789", 401),
        (None, "own-secret-0123456789", 400),
        (None, "hook-secret-0123456789", 400),
        ("nowhere", "hook-secret-0123456789", 400),
        ("nowhere", "wrong", 401),
    ],
)
async def test_an_account_is_opened_by_its_own_secret_and_the_shared_one(
    web: Any, instance: str | None, token: str, expected: int
) -> None:
    response = await web.post(url(instance, token), json=UPDATED)
    assert response.status_code == expected
    if expected == 400:
        assert response.json()["field"] == "instance"


async def test_query_and_header_must_not_name_two_accounts(web: Any, error_of: Any, hook_secret: str) -> None:
    headers = {"x-jobnimbus-instance": "guilford"}
    response = await web.post(url("stamford", hook_secret), json=UPDATED, headers=headers)
    assert error_of(response) == (400, "invalid_argument")


async def test_without_any_secret_webhooks_are_disabled(inside: Any, error_of: Any) -> None:
    async with inside.client(intake=inside.intake(WebhookSecrets())) as web:
        assert error_of(await web.post(url(token="x" * 20), json=UPDATED)) == (503, "webhooks_disabled")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"hello":"world"}', b'{"jnid":"j1","type":"unicorn"}', b"\xff"]
)
async def test_an_unknown_payload_is_refused_and_counted(
    inside: Any, web: Any, error_of: Any, hook_secret: str, content: bytes
) -> None:
    response = await web.post(url(token=hook_secret), content=content, headers=JSON)
    assert error_of(response) == (400, "unknown_payload")
    counted = inside.recorder.counts["webhooks", (("entity", "unknown"), ("outcome", "unknown_payload"))]
    assert counted == 1
    assert inside.events == []


async def test_while_the_cache_is_away_a_sender_is_asked_to_come_again(
    inside: Any, web: Any, error_of: Any, hook_secret: str
) -> None:
    inside.store_down = True
    response = await web.post(url(token=hook_secret), json=UPDATED)
    assert error_of(response) == (503, "cache_unavailable")
    assert int(response.headers["retry-after"]) >= 1


async def test_what_the_journal_took_over_is_202_and_says_so(inside: Any, hook_secret: str) -> None:
    class Journalling:
        async def receive(self, delivery: Delivery, call: Call) -> Accepted:
            return Accepted("evt_1", duplicate=False, journalled=True)

    async with inside.client(intake=Journalling()) as web:
        response = await web.post(url(token=hook_secret), json=UPDATED)
    assert response.status_code == 202
    assert response.json() == {"received": True, "journalled": True, "eventId": "evt_1", "duplicate": False}
