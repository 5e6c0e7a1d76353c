"""An issuer of access tokens: its keys, its metadata and what it signs, as an ASGI app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

ISSUER = "https://issuer.example.com"
RESOURCE = "http://localhost/mcp"

# made once: an RSA key takes a tenth of a second
PRIVATE: Mapping[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public_jwk(private: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    public = private.public_key()
    kinds: dict[Any, Any] = {rsa.RSAPublicKey: RSAAlgorithm, ec.EllipticCurvePublicKey: ECAlgorithm}
    algorithm = next((one for kind, one in kinds.items() if isinstance(public, kind)), OKPAlgorithm)
    told: dict[str, Any] = algorithm.to_jwk(public, as_dict=True)
    return told | ({} if kid is None else {"kid": kid}) | more


class Issuer:
    """`now` gives its time. `keys`: kid -> private key; `down`: it answers 503; `asked`: the paths it was asked for."""

    def __init__(self, now: Any, url: str = ISSUER, resource: str = RESOURCE) -> None:
        self.now = now
        self.url = url
        self.resource = resource
        self.keys: dict[str, Any] = {"one": PRIVATE["RS256"]}
        self.down = False
        self.asked: list[str] = []
        self.metadata: dict[str, Any] = {"issuer": url, "jwks_uri": f"{url}/keys"}
        self.transport = httpx.ASGITransport(self.app)

    def token(self, *, kid: str | None = "one", alg: str = "RS256", key: Any = None, **changed: Any) -> str:
        """A good token but for what is `changed`: claims, None to leave one out."""
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": self.resource,
            "sub": "ana",
            "scope": "jobnimbus:read jobnimbus:write",
            "exp": self.now() + 300,
            **changed,
        }
        private = key if key is not None else self.keys[kid or "one"]
        told = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(told, private, algorithm=alg, headers={} if kid is None else {"kid": kid})

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).url.path
        self.asked.append(path)
        body: Any = {"keys": [public_jwk(key, kid) for kid, key in self.keys.items()]}
        if path == "/.well-known/openid-configuration":
            body = self.metadata
        found = path in ("/keys", "/.well-known/openid-configuration")
        status = 503 if self.down else 200 if found else 404
        await Response(orjson.dumps(body), status, media_type="application/json")(scope, receive, send)
