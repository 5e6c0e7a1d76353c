"""Who may come in: callers by a token of the server's own or of an OAuth issuer's, the admin by the admin token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from jobnimbus_mcp.errors import FeatureDisabled, NotAuthenticated
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.web.clients import Client, KnownTokens, bearer_of
from jobnimbus_mcp.web.refusals import IssuerAway, ScopeMissing, TokenRefused

__all__ = ["AdminOnly", "Anyone", "CallersOnly", "Door", "TokenVerifier"]


class Door(Protocol):
    """Decides by the Authorization headers of a request (all of them, as they came)."""

    async def admit(self, authorization: Sequence[str]) -> Access:
        """What the caller may do, who may come in.

        Raises:
            NotAuthenticated: it may not.
            NotAllowed: its token is for something else.
            FeatureDisabled: nobody may.
            IssuerAway: that cannot be told at the time.
        """
        ...


class TokenVerifier(Protocol):
    """Knows the access tokens of an OAuth issuer; `web.resource_server.ResourceServer`."""

    async def verify(self, token: str) -> Access:
        """What the token allows.

        Raises:
            TokenRefused: it does not hold here.
            ScopeMissing: it holds, and is for something else.
            IssuerAway: that cannot be told at the time.
        """
        ...

    def refusal(self, reason: str) -> TokenRefused:
        """What to raise of a request that has no token to verify: `no_token` or `unknown_token`."""
        ...


class Anyone:
    """No token needed here (webhooks bring their own proof)."""

    async def admit(self, authorization: Sequence[str]) -> Access:
        return EVERYTHING


class CallersOnly:
    """Callers of MCP and of /mcp/tools/*: a bearer is needed as soon as tokens are set, or an issuer of them."""

    def __init__(self, clients: Iterable[Client], recorder: Recorder, *, issued: TokenVerifier | None = None) -> None:
        self._known = KnownTokens(clients)
        self._recorder = recorder
        self._issued = issued

    async def admit(self, authorization: Sequence[str]) -> Access:
        if not self._known and self._issued is None:
            return EVERYTHING
        token = bearer_of(authorization)
        access = None if token is None else self._known.access_of(token)
        if access is not None:
            return access
        try:
            return await self._verified(token, missing=not authorization)
        except (TokenRefused, ScopeMissing, IssuerAway) as refused:
            self._recorder.count("auth_refusals", reason=refused.reason)
            raise

    async def _verified(self, token: str | None, *, missing: bool) -> Access:
        if token is not None and self._issued is not None:
            return await self._issued.verify(token)
        reason = "no_token" if missing else "unknown_token"
        if self._issued is not None:
            raise self._issued.refusal(reason)
        said = "Send one of this server's tokens as Authorization: Bearer <token>."
        raise TokenRefused(said if missing else f"This is none of this server's tokens. {said}", reason=reason)


class AdminOnly:
    """The admin's routes; without a token nobody is the admin."""

    def __init__(self, token: str | None) -> None:
        self._known = KnownTokens(() if token is None else (Client.unnamed(token),))

    async def admit(self, authorization: Sequence[str]) -> Access:
        if not self._known:
            raise FeatureDisabled("The admin routes are switched off: set ADMIN_TOKEN.", code="admin_disabled")
        token = bearer_of(authorization)
        if token is None or self._known.access_of(token) is None:
            said = "Send the admin token as Authorization: Bearer <ADMIN_TOKEN>."
            raise NotAuthenticated(f"This is not the admin token. {said}" if authorization else said)
        return EVERYTHING
