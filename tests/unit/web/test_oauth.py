"""Which access tokens hold: the whole matrix of what can be wrong with one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from oauth_issuer import ISSUER, PRIVATE, RESOURCE, Issuer, public_jwk

from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.web.oauth import LEEWAY_S, REASONS, Bad, Rules, access_of, keys_of, presented

NOW = 1_790_000_000.0
RULES = Rules(
    issuer=ISSUER,
    resource=RESOURCE,
    read_scope="jobnimbus:read",
    write_scope="jobnimbus:write",
    instances=frozenset({"stamford", "guilford"}),
    toolsets=frozenset({"default", "sales"}),
    instances_claim="jobnimbus_instances",
    toolsets_claim="jobnimbus_toolsets",
)
ANA = "oauth:" + hashlib.sha256(f"{ISSUER}\0ana".encode()).hexdigest()[:8]
ALL = frozenset({"jobnimbus:read", "jobnimbus:write"})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(lambda: NOW)


def verified(token: str, jwks: Any = None, rules: Rules = RULES, now: float = NOW) -> tuple[Access, frozenset[str]]:
    jwks = {"keys": [public_jwk(PRIVATE["RS256"], "one")]} if jwks is None else jwks
    return access_of(presented(token), keys_of(jwks), rules, now)


def refused(token: str, jwks: Any = None, now: float = NOW) -> str:
    with pytest.raises(Bad) as caught:
        verified(token, jwks, now=now)
    assert caught.value.reason in REASONS
    return caught.value.reason


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_pem() -> bytes:
    found: bytes = (
        PRIVATE["RS256"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return found


def test_a_good_token_tells_who_it_is_and_what_it_may_do(issuer: Issuer) -> None:
    assert verified(issuer.token()) == (Access(client=ANA, until=NOW + 300 + LEEWAY_S), ALL)


@pytest.mark.parametrize(
    ("alg", "private"), [("RS256", "RS256"), ("PS256", "RS256"), ("ES256", "ES256"), ("EdDSA", "EdDSA")]
)
def test_each_accepted_algorithm_is_verified_with_its_own_kind_of_key(issuer: Issuer, alg: str, private: str) -> None:
    jwks = {"keys": [public_jwk(key, name) for name, key in PRIVATE.items()]}
    token = issuer.token(alg=alg, kid=private, key=PRIVATE[private])
    assert verified(token, jwks) == (Access(client=ANA, until=NOW + 300 + LEEWAY_S), ALL)
    cut = token.split(".")
    signature = bytearray(base64.urlsafe_b64decode(cut[2] + "=="))
    signature[5] ^= 1
    assert refused(".".join((*cut[:2], b64(bytes(signature)))), jwks) == "signature"
    other = orjson.dumps({"iss": ISSUER, "aud": RESOURCE, "sub": "bob", "scope": "jobnimbus:read", "exp": NOW + 300})
    assert refused(".".join((cut[0], b64(other), cut[2])), jwks) == "signature"


def test_a_token_that_nobody_signed_is_refused(issuer: Issuer) -> None:
    claims = issuer.token().split(".")[1]
    for alg in ("none", "None", "NONE", ""):
        header = b64(orjson.dumps({"alg": alg, "kid": "one"}))
        assert refused(f"{header}.{claims}.") == "algorithm"
    assert refused(f"{b64(orjson.dumps({'kid': 'one'}))}.{claims}.") == "algorithm"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_token_signed_with_the_issuer_s_public_key_as_a_secret_is_refused(issuer: Issuer, alg: str) -> None:
    """RFC 8725, section 2.1: the key is public, so anybody can make such a token."""
    claims = issuer.token().split(".")[1]
    signing = f"{b64(orjson.dumps({'alg': alg, 'kid': 'one'}))}.{claims}"
    signature = hmac.new(public_pem(), signing.encode(), f"sha{alg[2:]}").digest()
    octets = {"kty": "oct", "k": b64(public_pem()), "kid": "one", "alg": alg}
    assert refused(f"{signing}.{b64(signature)}", {"keys": [octets]}) == "algorithm"


@pytest.mark.parametrize("alg", ["RS512", "ES384", "ES256K"])
def test_an_algorithm_that_is_not_listed_is_refused_though_the_key_is_the_issuer_s(issuer: Issuer, alg: str) -> None:
    private = {"ES384": ec.generate_private_key(ec.SECP384R1()), "ES256K": ec.generate_private_key(ec.SECP256K1())}
    key = private.get(alg, PRIVATE["RS256"])
    assert refused(issuer.token(alg=alg, key=key), {"keys": [public_jwk(key, "one")]}) == "algorithm"


@pytest.mark.parametrize(
    "changed",
    [
        {"alg": "PS256"},
        {"alg": "HS256"},
        {"use": "enc"},
        {"kid": "two"},
        {"kid": 7},
        {"kty": "EC"},
        {"n": "not base64!"},
        {"e": None},
    ],
)
def test_a_key_that_is_for_something_else_or_cannot_be_read_verifies_nothing(
    issuer: Issuer, changed: dict[str, Any]
) -> None:
    jwk = public_jwk(PRIVATE["RS256"], "one", use="sig", alg="RS256")
    assert verified(issuer.token(), {"keys": [jwk]})[0].client == ANA
    assert refused(issuer.token(), {"keys": [jwk | changed]}) == "unknown_key"
    # and takes nothing from the others
    assert verified(issuer.token(), {"keys": [jwk | changed, None, 7, {}, jwk]})[0].client == ANA


def test_a_curve_goes_with_its_own_algorithm_only(issuer: Issuer) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    jwk = public_jwk(private, "one")
    assert jwk["crv"] == "P-384"
    assert refused(issuer.token(alg="ES256", key=PRIVATE["ES256"]), {"keys": [jwk]}) == "unknown_key"


def test_a_short_rsa_key_verifies_nothing(issuer: Issuer) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token(key=short)
    assert refused(token, {"keys": [public_jwk(short, "one")]}) == "unknown_key"


def test_a_token_without_a_key_id_holds_where_there_is_one_key_of_its_kind(issuer: Issuer) -> None:
    one, other = public_jwk(PRIVATE["RS256"], "one"), public_jwk(PRIVATE["ES256"], "two")
    assert verified(issuer.token(kid=None), {"keys": [one, other]})[0].client == ANA
    assert refused(issuer.token(kid=None), {"keys": [one, one | {"kid": "three"}]}) == "unknown_key"
    assert refused(issuer.token(kid="three", key=PRIVATE["RS256"]), {"keys": [one]}) == "unknown_key"


@pytest.mark.parametrize("iss", [None, f"{ISSUER}/", "https://issuer.example.com.evil", "", 7, [ISSUER]])
def test_another_issuer_is_refused_to_the_letter(issuer: Issuer, iss: Any) -> None:
    # the library refuses to write some of these
    token = signed(issuer, iss=iss)
    assert refused(token) == "issuer"


@pytest.mark.parametrize(
    "aud",
    [
        None,
        "",
        f"{RESOURCE}/",
        RESOURCE.upper(),
        "http://localhost",
        [],
        ["https://other"],
        [[RESOURCE]],
        {RESOURCE: 1},
    ],
)
def test_a_token_for_another_server_is_refused(issuer: Issuer, aud: Any) -> None:
    assert refused(signed(issuer, aud=aud)) == "audience"


def test_a_token_for_several_servers_holds_for_each(issuer: Issuer) -> None:
    assert verified(signed(issuer, aud=["https://other", RESOURCE]))[0].client == ANA


def test_a_token_holds_until_it_expires_give_or_take_the_leeway(issuer: Issuer) -> None:
    token = signed(issuer, exp=NOW, nbf=NOW - 100)
    assert verified(token, now=NOW + LEEWAY_S - 0.1)[0].client == ANA
    assert refused(token, now=NOW + LEEWAY_S) == "expired"
    assert verified(token, now=NOW - 100 - LEEWAY_S)[0].client == ANA
    assert refused(token, now=NOW - 100 - LEEWAY_S - 0.1) == "not_yet"


@pytest.mark.parametrize("exp", [None, "soon", str(NOW + 300), True, [NOW + 300], {}])
def test_a_token_that_does_not_say_until_when_is_refused(issuer: Issuer, exp: Any) -> None:
    assert refused(signed(issuer, exp=exp)) == "claims"
    if exp is not None:
        assert refused(signed(issuer, nbf=exp)) == "claims"


@pytest.mark.parametrize("sub", [None, "", 7, ["ana"]])
def test_a_token_of_nobody_is_refused(issuer: Issuer, sub: Any) -> None:
    assert refused(signed(issuer, sub=sub)) == "claims"


def test_numbers_that_json_does_not_have_are_refused(issuer: Issuer) -> None:
    """Against NaN every comparison is false, so it must not come to one."""
    for written in (b'"exp":NaN', b'"exp":Infinity', b'"exp":1e999'):
        claims = orjson.dumps({"iss": ISSUER, "aud": RESOURCE, "sub": "ana"})[:-1] + b"," + written + b"}"
        assert refused(jwt.PyJWS().encode(claims, PRIVATE["RS256"], "RS256", {"kid": "one"})) == "malformed"


@pytest.mark.parametrize("payload", [b"", b"[]", b'"x"', b"null", b"{", b"\xff"])
def test_a_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    assert refused(jwt.PyJWS().encode(payload, PRIVATE["RS256"], "RS256", {"kid": "one"})) == "malformed"


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"typ": "logout+jwt"},
        {"typ": 7},
    ],
)
def test_a_header_that_asks_for_more_than_is_understood_is_refused(issuer: Issuer, header: dict[str, Any]) -> None:
    assert refused(signed(issuer, header=header)) == "malformed"


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+JWT"])
def test_a_token_may_say_that_it_is_one(issuer: Issuer, typ: str) -> None:
    assert verified(signed(issuer, header={"typ": typ}))[0].client == ANA


@pytest.mark.parametrize(
    ("claims", "scopes", "read_only"),
    [
        ({"scope": "jobnimbus:read"}, {"jobnimbus:read"}, True),
        ({"scope": " jobnimbus:write  jobnimbus:read "}, set(ALL), False),
        ({"scope": None, "scp": ["jobnimbus:read", "jobnimbus:write"]}, set(ALL), False),
        ({"scope": None, "scp": "jobnimbus:read"}, {"jobnimbus:read"}, True),
        ({"scope": "jobnimbus:writer"}, {"jobnimbus:writer"}, True),
        ({"scope": "JOBNIMBUS:WRITE"}, {"JOBNIMBUS:WRITE"}, True),
        ({"scope": ""}, set(), True),
        ({"scope": None}, set(), True),
    ],
)
def test_scopes_are_read_as_issuers_write_them_and_only_the_write_scope_writes(
    issuer: Issuer, claims: dict[str, Any], scopes: set[str], read_only: bool
) -> None:
    access, found = verified(signed(issuer, **claims))
    assert (access, found) == (Access(client=ANA, read_only=read_only, until=NOW + 300 + LEEWAY_S), scopes)


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (["stamford"], {"stamford"}),
        ("stamford guilford", {"stamford", "guilford"}),
        (["stamford", "elsewhere"], {"stamford"}),
        (["elsewhere"], set()),
        ([], set()),
    ],
)
def test_a_claim_bounds_the_accounts_to_those_there_are(issuer: Issuer, told: Any, known: set[str]) -> None:
    assert verified(signed(issuer, jobnimbus_instances=told))[0].instances == known


def test_a_claim_bounds_the_toolsets_and_claims_that_are_switched_off_bound_nothing(issuer: Issuer) -> None:
    token = signed(issuer, jobnimbus_instances="stamford", jobnimbus_toolsets=["sales"])
    access, _ = verified(token)
    assert (access.instances, access.toolsets) == ({"stamford"}, {"sales"})
    unbounded, _ = verified(token, rules=replace(RULES, instances_claim=None, toolsets_claim=None))
    assert unbounded == Access(client=ANA, until=NOW + 300 + LEEWAY_S)


@pytest.mark.parametrize("name", ["scope", "scp", "jobnimbus_instances", "jobnimbus_toolsets"])
@pytest.mark.parametrize("value", [7, True, {"stamford": True}, ["stamford", 7]])
def test_a_claim_that_cannot_be_read_refuses_the_token(issuer: Issuer, name: str, value: Any) -> None:
    claims = {"scope": None} | {name: value}
    assert refused(signed(issuer, **claims)) == "claims"


def test_two_people_are_two_clients_and_one_is_the_same_each_time(issuer: Issuer) -> None:
    names = [verified(signed(issuer, sub=sub))[0].client for sub in ("ana", "bob", "ana")]
    assert len(set(names)) == 2
    assert names[0] == names[2] == ANA
    assert "ana" not in ANA


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": {}}, "x"])
def test_what_is_no_set_of_keys_is_said_to_be_none(document: Any) -> None:
    with pytest.raises(ValueError, match="no JWK set"):
        keys_of(document)


@given(st.one_of(st.text(max_size=60), st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join)))
def test_whatever_is_sent_is_refused_for_a_reason(token: str) -> None:
    assert refused(token) in ("malformed", "algorithm", "unknown_key", "signature")


def test_a_token_longer_than_any_is_not_looked_at(issuer: Issuer) -> None:
    assert refused(signed(issuer, more="x" * 20_000)) == "malformed"


def signed(issuer: Issuer, *, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """A token with any claims at all; the library itself refuses to write some."""
    claims: dict[str, Any] = {
        "iss": issuer.url,
        "aud": issuer.resource,
        "sub": "ana",
        "scope": "jobnimbus:read jobnimbus:write",
        "exp": NOW + 300,
        **changed,
    }
    told = {name: value for name, value in claims.items() if value is not None}
    head = {"alg": "RS256", "kid": "one"} | (header or {})
    signing = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(told).encode())}"
    algorithm = jwt.get_algorithm_by_name("RS256")
    return f"{signing}.{b64(algorithm.sign(signing.encode(), PRIVATE['RS256']))}"
