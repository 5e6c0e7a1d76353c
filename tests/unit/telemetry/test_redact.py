"""What never reaches a log line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.telemetry.redact import MASK, Redactor

SECRET = "kq83hf7a0s2mvn5zt6xw"

TEXTS_THAT_HOLD_IT = [
    f"GET /webhooks/jobnimbus?token={SECRET}&instance=stamford",
    f"redis://user:{SECRET}@cache.example.com:6379/0 refused",
    f"redis://:{SECRET}@cache.example.com:6379/0 refused",
    f"Authorization: Bearer {SECRET}",
    f"headers={{'authorization': 'bearer {SECRET}', 'accept': '*/*'}}",
    f'{{"api_key": "{SECRET}"}}',
    f"X-JobNimbus-Api-Key: {SECRET}",
    f"x-webhook-token={SECRET}",
    f"password={SECRET};",
    f"HTTPError for url https://app.jobnimbus.com/api1/jobs?filter=%7B%22must%22%3A%22{SECRET}%22%7D",
    f"signed with whsec_{SECRET}",
    f"X-JobNimbus-Signature=sha256={SECRET}",
]


@pytest.mark.parametrize("text", TEXTS_THAT_HOLD_IT)
def test_a_credential_in_a_text_is_masked(text: str) -> None:
    assert SECRET not in Redactor().text(text)


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "api_key",
        "apiKey",
        "X-JobNimbus-Api-Key",
        "admin_token",
        "webhookSecret",
        "password",
        "cookie",
        "credential",
        "key",
    ],
)
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"a": SECRET}, SECRET.encode()])
def test_a_value_under_a_telling_name_is_masked(name: str, value: object) -> None:
    assert Redactor().event(None, "info", {"event": "asked", name: value}) == {"event": "asked", name: MASK}


def test_known_secrets_are_masked_wherever_they_stand() -> None:
    redactor = Redactor(known=["correct horse", "correct horse battery", "x"])
    assert redactor.value({"note": ["say correct horse battery", "or correct horse"], "x": "x-ray"}) == {
        "note": [f"say {MASK}", f"or {MASK}"],
        "x": "x-ray",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_id", "0193-abc.DEF_9"),
        ("key", "jobnimbus:{stamford}:0a1b:jobs:list:date_created.desc.0.100"),
        ("cache_key", "jobnimbus-sys:{stamford}:g:jobs"),
        ("tokens", 3),
        ("has_key", True),
        ("latency_ms", 0.42),
        ("event", "Cache invalidated"),
        ("tags", ["jobs", "jobs:list"]),
        ("url", "https://app.jobnimbus.com/api1/jobs"),
        ("message", "is this all right?"),
        ("nothing", None),
    ],
)
def test_what_an_operator_needs_is_kept(name: str, value: object) -> None:
    assert Redactor().event(None, "info", {name: value}) == {name: value}


def test_bodies_are_told_by_their_length_only() -> None:
    assert Redactor().value({"body": b'{"first_name":"Dana"}'}) == {"body": "<21 bytes>"}


def test_objects_are_told_by_their_redacted_repr() -> None:
    assert Redactor().value(ValueError(f"token={SECRET}")) == f"ValueError('token={MASK}')"


def test_one_value_cannot_fill_the_log() -> None:
    nested: object = "end"
    for _ in range(50):
        nested = [nested]
    assert len(str(Redactor().value(nested))) < 100
    assert len(Redactor().text("a" * 1_000_000)) < 10_000
    assert len(Redactor().value(list(range(100_000)))) <= 100


@given(st.recursive(st.none() | st.text() | st.binary() | st.floats() | st.integers(), st.lists, max_leaves=20))
def test_redacting_never_raises_and_a_known_secret_never_survives(value: object) -> None:
    told = Redactor(known=[SECRET]).value([value, f"<{SECRET}>"])
    assert SECRET not in repr(told)
