"""Whether a webhook delivery comes from somebody who knows a secret of ours.

Two kinds of proof: a token (in the query, as a bearer, in `X-Webhook-Token`), because JobNimbus signs nothing and lets
an admin choose the URL only; and a signature over the raw body, for senders that can. Every candidate is compared with
every secret in constant time, without stopping at the first that fits, and nothing a sender sends can raise.

Source: JobNimbus API documentation, webhooks: no signature is documented. Standard Webhooks specification 1.0.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from jobnimbus_mcp.errors import SettingsError

__all__ = ["TOLERANCE_S", "Rejected", "Verified", "WebhookSecrets", "verify"]

TOLERANCE_S = 300
"""Of Standard Webhooks: a captured delivery can be replayed for so long, a sender's clock may be so wrong."""
_MAX_CANDIDATES = 16
_MIN_KEY_BYTES = 8
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_HEX_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """`shared` opens every account, `per_instance` its own account alone; `signing` are keys of senders that sign.

    Several shared or signing secrets: during a rotation the old and the new one both hold.
    """

    shared: tuple[str, ...] = field(default=(), repr=False)
    per_instance: Mapping[str, str] = field(default_factory=dict, repr=False)
    signing: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not all((*self.shared, *self.per_instance.values(), *self.signing)):
            raise SettingsError("A webhook secret must not be empty: an empty token would open the account.")

    @property
    def any(self) -> bool:
        """Whether webhooks are switched on at all."""
        return bool(self.shared or self.per_instance or self.signing)


@dataclass(frozen=True, slots=True)
class Verified:
    """`instances`: the accounts this proof opens; None: all of them."""

    instances: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """No proof, or a wrong one; which of the checks failed is told to nobody."""


def verify(
    secrets: WebhookSecrets, headers: Mapping[str, str], tokens: Sequence[str], raw: bytes, now: float
) -> Verified | Rejected:
    """What the proofs sent with a delivery open.

    `headers`: names in lower case. `tokens`: every `token` of the query. `raw`: the body as it came. `now`: epoch
    seconds.
    """
    opens_all = False
    opened: set[str] = set()
    for given in _tokens_of(headers, tokens):
        for secret in secrets.shared:
            opens_all |= _same(given, secret)
        for instance, secret in secrets.per_instance.items():
            if _same(given, secret):
                opened.add(instance)
    for secret in secrets.signing:
        opens_all |= _jobnimbus_signature(secret, headers, raw)
        opens_all |= _standard_signature(secret, headers, raw, now)
    if opens_all:
        return Verified(None)
    return Verified(frozenset(opened)) if opened else Rejected()


def _tokens_of(headers: Mapping[str, str], tokens: Sequence[str]) -> list[str]:
    given = [*tokens[:_MAX_CANDIDATES]]
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        given.append(bearer.strip())
    if "x-webhook-token" in headers:
        given.append(headers["x-webhook-token"].strip())
    return given


def _same(given: str, secret: str) -> bool:
    """Equal length whatever is sent, so that the comparison tells nothing of the secret's length."""
    ours, theirs = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (secret, given))
    return hmac.compare_digest(ours, theirs)


def _jobnimbus_signature(secret: str, headers: Mapping[str, str], raw: bytes) -> bool:
    """`X-JobNimbus-Signature: sha256=<hex HMAC-SHA256 of the raw body>`."""
    algorithm, _, hex_digest = headers.get("x-jobnimbus-signature", "").strip().partition("=")
    if algorithm.lower() != "sha256" or not _HEX_DIGEST.fullmatch(hex_digest):
        return False
    return hmac.compare_digest(hmac.new(secret.encode(), raw, hashlib.sha256).digest(), bytes.fromhex(hex_digest))


def _standard_signature(secret: str, headers: Mapping[str, str], raw: bytes, now: float) -> bool:
    """Standard Webhooks; the secret read as base64 (with or without `whsec_`) and as plain text."""
    message_id, stamp, signatures = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not message_id or not signatures or not _TIMESTAMP.fullmatch(stamp) or abs(now - int(stamp)) > TOLERANCE_S:
        return False
    try:
        text = raw.decode()
        message_id.encode()
    except UnicodeError:
        return False
    given = [_v1(candidate) for candidate in signatures.split()[:_MAX_CANDIDATES]]
    sent_at = datetime.fromtimestamp(int(stamp), UTC)
    matches = False
    for signer in _signers(secret):
        ours = base64.b64decode(signer.sign(message_id, sent_at, text).removeprefix("v1,"))
        for theirs in given:
            matches |= hmac.compare_digest(ours, theirs)
    return matches


def _signers(secret: str) -> list[Webhook]:
    signers = [Webhook(secret.encode())]
    try:
        decoded = Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):  # not base64, or nothing left after decoding: it is text alone
        return signers
    # the library skips what is not base64; a passphrase of symbols must not shrink to a key that can be guessed
    key = secret.removeprefix("whsec_")
    if len(re.sub(r"[^A-Za-z0-9+/]", "", key)) * 6 // 8 >= _MIN_KEY_BYTES:
        signers.append(decoded)
    return signers


def _v1(candidate: str) -> bytes:
    """The bytes of one `v1,<base64>`; b"" for anything else, which equals no digest."""
    version, _, encoded = candidate.partition(",")
    if version != "v1":
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
