"""This server as an OAuth resource: which tokens open it, and how a client learns where they come from.

Source: RFC 9728 (the metadata document), RFC 6750 (challenges), MCP specification, authorization.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.web.keyring import FIRST_AGAIN_S, KeyRing
from jobnimbus_mcp.web.oauth import REASONS, Bad, Rules, access_of, presented
from jobnimbus_mcp.web.refusals import IssuerAway, ScopeMissing, TokenRefused
from jobnimbus_mcp.web.replies import json_reply

__all__ = ["METADATA_PATH", "ResourceServer"]

METADATA_PATH = "/.well-known/oauth-protected-resource"


class ResourceServer:
    """Implements `TokenVerifier` for one issuer's tokens."""

    def __init__(self, rules: Rules, ring: KeyRing, clock: Clock) -> None:
        self._rules = rules
        self._ring = ring
        self._clock = clock
        at = urlsplit(rules.resource)
        path = at.path.rstrip("/")
        self._metadata_url = f"{at.scheme}://{at.netloc}{METADATA_PATH}{path}"
        self.metadata_paths = tuple(dict.fromkeys((f"{METADATA_PATH}{path}", f"{METADATA_PATH}/mcp", METADATA_PATH)))

    async def verify(self, token: str) -> Access:
        """As `TokenVerifier.verify`. A token that only lacks the right to write may read."""
        try:
            given = presented(token)
            keys = await self._ring.keys_for(given)
            if keys is None:
                raise IssuerAway(FIRST_AGAIN_S)
            access, scopes = access_of(given, keys, self._rules, self._clock.now())
        except Bad as bad:
            raise self.refusal(bad.reason) from bad
        if self._rules.read_scope not in scopes:
            challenge = self._challenge(error="insufficient_scope", scope=self._rules.read_scope)
            raise ScopeMissing(self._rules.read_scope, challenge=challenge)
        return access

    def refusal(self, reason: str) -> TokenRefused:
        """Why a token does not open this server; one without a token is told no error, as RFC 6750 (3.1) says."""
        said = REASONS[reason]
        if reason == "no_token":
            return TokenRefused(said, reason=reason, challenge=self._challenge())
        return TokenRefused(
            said, reason=reason, challenge=self._challenge(error="invalid_token", error_description=said)
        )

    async def metadata(self, request: Request, body: bytes) -> Response:
        """Who issues tokens for this server, and which scopes there are. A client asks for all of these, so the
        challenge of a missing token names none: it would ask for those alone, and could never write."""
        rules = self._rules
        told = {
            "resource": rules.resource,
            "authorization_servers": [rules.issuer],
            "scopes_supported": [rules.read_scope, rules.write_scope],
            "bearer_methods_supported": ["header"],
            "resource_name": "JobNimbus",
        }
        return json_reply(told)

    def _challenge(self, **fields: str) -> str:
        fields["resource_metadata"] = self._metadata_url
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in fields.items())
