"""What an access token proves: signature, issuer, audience, time and scopes of a JWT, checked without asking anybody.

Source: RFC 7519 (JWT), 7517 (keys), 8725 (what goes wrong with them), 9068 (as access tokens), 8707 (audience).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson

from jobnimbus_mcp.gateway.access import Access

__all__ = ["ALGORITHMS", "LEEWAY_S", "REASONS", "Bad", "Key", "Presented", "Rules", "access_of", "keys_of", "presented"]

LEEWAY_S = 30.0
"""By so much the issuer's clock and ours may differ."""

REASONS: Mapping[str, str] = {
    "no_token": "Send an access token as Authorization: Bearer <token>; WWW-Authenticate says where they come from.",
    "unknown_token": "The token sent is neither an access token nor one of this server's own.",
    "malformed": "The access token cannot be read as a signed JWT.",
    "algorithm": "The access token is signed in a way that is not accepted.",
    "unknown_key": "The access token is signed with a key that its issuer does not tell.",
    "signature": "The access token's signature is wrong.",
    "issuer": "The access token comes from another issuer.",
    "audience": "The access token is for another server; ask for one with this server as its resource.",
    "expired": "The access token has expired; get a new one.",
    "not_yet": "The access token is not valid yet.",
    "claims": "A claim of the access token is missing or cannot be read.",
}
"""Why a token does not hold, in words for its sender."""

_FITS = {"RS256": ("RSA", None), "PS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
ALGORITHMS = tuple(_FITS)
"""Signatures by a private key. With `none` anybody signs, with HS256 whoever has what the issuer publishes."""

_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""`typ`, where a token has one: others are logout tokens, proofs and the like of the same issuer."""

_TOKEN_MOST = 16_384
_KEYS_MOST = 100
_RSA_BITS_LEAST = 2048


class Bad(Exception):
    """A token that does not hold; `reason` is one of `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Key:
    """One of an issuer's public keys, and the only algorithm it is used with."""

    kid: str | None
    algorithm: str
    public: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Presented:
    """A token's header, of which nothing is proven yet."""

    token: str = field(repr=False)
    algorithm: str
    kid: str | None

    def key_among(self, keys: Iterable[Key]) -> tuple[Key, ...]:
        """The keys it may be signed with. A token that names none is only understood where there is no choice."""
        fitting = tuple(key for key in keys if key.algorithm == self.algorithm and self.kid in (None, key.kid))
        return fitting if self.kid is not None or len(fitting) == 1 else ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What tokens must say. `resource`: this server's URL, which must be in `aud`; `read_scope`, `write_scope`: without
    the latter nothing may be changed. `instances_claim`, `toolsets_claim`: where a token names what it is for, None: it
    does not; `instances`, `toolsets`: those there are."""

    issuer: str
    resource: str
    read_scope: str
    write_scope: str
    instances: frozenset[str]
    toolsets: frozenset[str]
    instances_claim: str | None = None
    toolsets_claim: str | None = None


def keys_of(document: Any) -> tuple[Key, ...]:
    """The keys of a JWK set that a token may be signed with; others are passed over, as RFC 7517 (section 5) says.

    Raises:
        ValueError: it is no JWK set.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no JWK set")
    return tuple(key for one in listed[:_KEYS_MOST] if isinstance(one, dict) for key in _keys(one))


def _keys(told: Mapping[str, Any]) -> Iterable[Key]:
    kid = told.get("kid")
    if told.get("use", "sig") != "sig" or not isinstance(kid, str | None):
        return
    for algorithm, (kind, curve) in _FITS.items():
        if told.get("kty") != kind or told.get("alg", algorithm) != algorithm or curve not in (None, told.get("crv")):
            continue
        try:
            public = jwt.PyJWK(dict(told), algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # one key that cannot be read makes no other one worse
        if kind != "RSA" or public.key_size >= _RSA_BITS_LEAST:
            yield Key(kid, algorithm, public)


def presented(token: str) -> Presented:
    """What the token says of how it is signed.

    Raises:
        Bad: nothing that could be accepted.
    """
    if len(token) > _TOKEN_MOST or not token.isascii():
        raise Bad("malformed")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError) as unreadable:
        raise Bad("malformed") from unreadable
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Bad("algorithm")
    if "crit" in header or not isinstance(kid, str | None) or not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Bad("malformed")
    return Presented(token, algorithm, kid)


def access_of(token: Presented, keys: Iterable[Key], rules: Rules, now: float) -> tuple[Access, frozenset[str]]:
    """What a token signed with one of the keys allows, and its scopes. `now`: epoch seconds.

    Raises:
        Bad: it does not hold.
    """
    claims = _claims(token, keys)
    if claims.get("iss") != rules.issuer:
        raise Bad("issuer")
    audience = claims.get("aud")
    if rules.resource not in (audience if isinstance(audience, list) else [audience]):
        raise Bad("audience")
    until = _time(claims, "exp") + LEEWAY_S
    if not now < until:
        raise Bad("expired")
    if "nbf" in claims and not now >= _time(claims, "nbf") - LEEWAY_S:
        raise Bad("not_yet")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise Bad("claims")
    scopes = _words(claims, "scope") or _words(claims, "scp") or frozenset()
    whose = hashlib.sha256(f"{rules.issuer}\0{subject}".encode()).hexdigest()[:8]
    access = Access(
        client=f"oauth:{whose}",
        instances=_known(claims, rules.instances_claim, rules.instances),
        toolsets=_known(claims, rules.toolsets_claim, rules.toolsets),
        read_only=rules.write_scope not in scopes,
        until=until,
    )
    return access, scopes


def _claims(token: Presented, keys: Iterable[Key]) -> Mapping[str, Any]:
    tried = False
    for key in token.key_among(keys):
        tried = True
        try:
            payload = jwt.PyJWS().decode(token.token, key.public, algorithms=[key.algorithm])
        except jwt.PyJWTError:
            continue
        try:
            claims = orjson.loads(payload)
        except orjson.JSONDecodeError as unreadable:
            raise Bad("malformed") from unreadable
        if not isinstance(claims, dict):
            raise Bad("malformed")
        return claims
    raise Bad("signature" if tried else "unknown_key")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):  # NaN and infinity are no JSON to orjson
        raise Bad("claims")
    return value


def _words(claims: Mapping[str, Any], name: str) -> frozenset[str] | None:
    """A list of words, or words with blanks between them; None where the claim is not there."""
    value = claims.get(name)
    if value is None:
        return None
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Bad("claims")
    return frozenset(words)


def _known(claims: Mapping[str, Any], name: str | None, known: frozenset[str]) -> frozenset[str] | None:
    """Of what a claim names, that which there is; None, no bound, where the token says nothing of it."""
    words = None if name is None else _words(claims, name)
    return None if words is None else words & known
