"""Addresses that open one thing for a while, to whoever has them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.simulator.refusal import Refusal

__all__ = ["Signer"]


class Signer:
    """Makes and checks them. Source: JobNimbus API documentation, hosts: the query of a CDN address names when it
    expires, whose key signed it, and the signature."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self._secret = secret.encode()
        self._clock = clock

    def url(self, host: str, method: str, path: str, *, lasts_s: float) -> str:
        """`host` with its scheme and without a path; good for `method` alone, and for `lasts_s` from now."""
        expires = int(self._clock.now() + lasts_s)
        signature = self._signature(method, path, str(expires))
        return f"{host}{quote(path)}?Expires={expires}&Key-Pair-Id=SIMULATED&Signature={signature}"

    def check(self, method: str, path: str, params: Mapping[str, str]) -> None:
        """Raises: Refusal 403 for an address that was changed or has expired."""
        expires = params.get("Expires", "")
        expected = self._signature(method, path, expires)
        if not hmac.compare_digest(expected.encode(), params.get("Signature", "").encode()):
            raise Refusal(403, "SignatureDoesNotMatch")
        if self._clock.now() > int(expires):
            raise Refusal(403, "Request has expired")

    def _signature(self, method: str, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{method} {path} {expires}".encode(), hashlib.sha256).hexdigest()
