"""Who may deliver a webhook: the table of proofs, right and wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events.signature import TOLERANCE_S, Rejected, Verified, WebhookSecrets, verify

NOW = 1_790_000_000.0
SHARED, STAMFORD, GUILFORD = "shared-secret-0123456789", "stamford-secret-012345", "guilford-secret-012345"
SIGNING = "a plain signing passphrase"
BASE64_KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
RAW = '{"jnid":"j1","type":"job","name":"Zoë"}'.encode()
SECRETS = WebhookSecrets(
    shared=(SHARED,), per_instance={"stamford": STAMFORD, "guilford": GUILFORD}, signing=(SIGNING,)
)
EVERY = Verified(None)


def sha256_header(secret: str, raw: bytes = RAW) -> dict[str, str]:
    return {"x-jobnimbus-signature": "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()}


def standard_headers(
    signer: Webhook, *, at: float = NOW, raw: bytes = RAW, message_id: str = "msg_1"
) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": signer.sign(message_id, datetime.fromtimestamp(at, UTC), raw.decode()),
    }


PLAIN = Webhook(SIGNING.encode())


@pytest.mark.parametrize(
    ("headers", "tokens", "expected"),
    [
        ({}, [SHARED], EVERY),
        ({"authorization": f"Bearer {SHARED}"}, [], EVERY),
        ({"authorization": f"bearer  {SHARED}"}, [], EVERY),
        ({"x-webhook-token": SHARED}, [], EVERY),
        ({}, [STAMFORD], Verified(frozenset({"stamford"}))),
        ({"x-webhook-token": GUILFORD}, [STAMFORD], Verified(frozenset({"stamford", "guilford"}))),
        ({"x-webhook-token": "wrong"}, [SHARED], EVERY),
        (sha256_header(SIGNING), [], EVERY),
        (standard_headers(PLAIN), [], EVERY),
        (standard_headers(PLAIN, at=NOW - TOLERANCE_S), [], EVERY),
        (standard_headers(PLAIN, at=NOW + TOLERANCE_S), [], EVERY),
        (sha256_header("another key that is wrong"), ["wrong", SHARED], EVERY),
        ({}, [], Rejected()),
        ({}, [""], Rejected()),
        ({}, [SHARED + "x"], Rejected()),
        ({}, [SHARED[:-1]], Rejected()),
        ({}, [SHARED.upper()], Rejected()),
        ({}, [SIGNING], Rejected()),
        ({"authorization": SHARED}, [], Rejected()),
        ({"authorization": f"Basic {SHARED}"}, [], Rejected()),
        ({"authorization": "Bearer é\x80"}, ["é\ud800"], Rejected()),
        (sha256_header(SIGNING, RAW + b" "), [], Rejected()),
        (sha256_header(SHARED), [], Rejected()),
        ({"x-jobnimbus-signature": sha256_header(SIGNING)["x-jobnimbus-signature"][7:]}, [], Rejected()),
        ({"x-jobnimbus-signature": "sha256="}, [], Rejected()),
        ({"x-jobnimbus-signature": "sha256=" + "é" * 64}, [], Rejected()),
        (standard_headers(PLAIN, raw=RAW + b" "), [], Rejected()),
        (standard_headers(PLAIN, at=NOW - TOLERANCE_S - 1), [], Rejected()),
        (standard_headers(PLAIN, at=NOW + TOLERANCE_S + 1), [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-id": "msg_2"}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-timestamp": str(int(NOW) + 1)}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-timestamp": "soon"}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-timestamp": "nan"}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-signature": "v1"}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-signature": "v1,"}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-signature": "v1,not*base64"}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-signature": "v1,é"}, [], Rejected()),
        (standard_headers(PLAIN) | {"webhook-signature": ",,, v1a,b"}, [], Rejected()),
        (
            standard_headers(PLAIN)
            | {"webhook-signature": standard_headers(PLAIN)["webhook-signature"].replace("v1,", "v2,")},
            [],
            Rejected(),
        ),
    ],
)
def test_a_proof_opens_what_its_secret_opens_and_nothing_else(
    headers: dict[str, str], tokens: list[str], expected: Verified | Rejected
) -> None:
    assert verify(SECRETS, headers, tokens, RAW, NOW) == expected


@pytest.mark.parametrize("absent", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_standard_signature_needs_all_three_headers(absent: str) -> None:
    headers = standard_headers(PLAIN)
    del headers[absent]
    assert verify(SECRETS, headers, [], RAW, NOW) == Rejected()


def test_one_good_signature_among_several_is_enough_while_the_sender_rotates() -> None:
    headers = standard_headers(PLAIN)
    headers["webhook-signature"] = "v1,AAAA v1a,xyz " + headers["webhook-signature"]
    assert verify(SECRETS, headers, [], RAW, NOW) == EVERY


@pytest.mark.parametrize("secret", ["the old signing passphrase", "the new signing passphrase"])
def test_the_old_and_the_new_secret_both_hold_while_we_rotate(secret: str) -> None:
    secrets = WebhookSecrets(signing=("the old signing passphrase", "the new signing passphrase"))
    assert verify(secrets, standard_headers(Webhook(secret.encode())), [], RAW, NOW) == EVERY
    assert verify(secrets, sha256_header(secret), [], RAW, NOW) == EVERY


@pytest.mark.parametrize("configured", [BASE64_KEY, "whsec_" + BASE64_KEY, BASE64_KEY.rstrip("=")])
@pytest.mark.parametrize("reading", ["base64", "text"])
def test_a_secret_holds_in_either_reading(configured: str, reading: str) -> None:
    signer = Webhook(configured) if reading == "base64" else Webhook(configured.encode())
    assert verify(WebhookSecrets(signing=(configured,)), standard_headers(signer), [], RAW, NOW) == EVERY


def test_a_passphrase_of_symbols_is_not_shrunk_to_the_few_letters_in_it() -> None:
    secrets = WebhookSecrets(signing=("!!!!!!!!!!!!!!!!ab==",))
    assert verify(secrets, standard_headers(Webhook("ab==")), [], RAW, NOW) == Rejected()


@pytest.mark.parametrize("secret", ["x" * 17, "################", "schlüssel-der-unterschrift"])
def test_a_secret_that_cannot_be_base64_holds_as_text(secret: str) -> None:
    secrets = WebhookSecrets(signing=(secret,))
    assert verify(secrets, standard_headers(Webhook(secret.encode())), [], RAW, NOW) == EVERY
    assert verify(secrets, standard_headers(PLAIN), [], RAW, NOW) == Rejected()


def test_a_body_that_is_not_utf8_is_rejected_by_standard_webhooks_and_never_raises() -> None:
    assert verify(SECRETS, standard_headers(PLAIN), [], b"\xff", NOW) == Rejected()
    assert verify(SECRETS, sha256_header(SIGNING, b"\xff"), [], b"\xff", NOW) == EVERY


def test_no_secret_configured_opens_nothing() -> None:
    assert not WebhookSecrets().any
    assert verify(WebhookSecrets(), {"authorization": "Bearer "}, [""], RAW, NOW) == Rejected()


@pytest.mark.parametrize("empty", [{"shared": ("",)}, {"signing": ("",)}, {"per_instance": {"stamford": ""}}])
def test_an_empty_secret_is_refused_at_construction(empty: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        WebhookSecrets(**empty)


def test_secrets_do_not_show_in_a_repr() -> None:
    assert not any(secret in repr(SECRETS) for secret in (SHARED, STAMFORD, SIGNING))


_NAME = st.sampled_from(
    [
        "authorization",
        "x-webhook-token",
        "x-jobnimbus-signature",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
)
_VALUE = (
    st.text(st.characters(max_codepoint=255), max_size=60)
    | st.sampled_from(["Bearer ", "sha256=", "v1,", "v1,é", str(int(NOW)), "9" * 400])
    | st.from_regex(r"\A(sha256=[0-9a-f]{64}|v1,[A-Za-z0-9+/=]{0,44}|Bearer \S{0,20})\Z")
)


@given(st.dictionaries(_NAME, _VALUE), st.lists(st.text(max_size=20), max_size=20), st.binary(max_size=40))
def test_nothing_that_is_sent_raises_or_opens(headers: dict[str, str], tokens: list[str], raw: bytes) -> None:
    assert verify(SECRETS, headers, tokens, raw, NOW) == Rejected()
