"""Who may come in: bearer tokens of MCP callers and of the admin, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Protocol

from jobnimbus_mcp.errors import FeatureDisabled, NotAuthenticated

__all__ = ["AdminOnly", "Anyone", "Bearers", "CallersOnly", "Door"]


class Door(Protocol):
    """Decides by the Authorization headers of a request (all of them, as they came)."""

    def admit(self, authorization: Sequence[str]) -> None:
        """Return when the caller may come in.

        Raises:
            NotAuthenticated: it may not.
            FeatureDisabled: nobody may.
        """
        ...


class Bearers:
    """A set of tokens. Digests of equal length are compared, all of them: time tells nothing of any token."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._digests = tuple(hashlib.sha256(token.encode()).digest() for token in tokens)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admits(self, authorization: Sequence[str]) -> bool:
        """Whether exactly one header was sent, `Bearer <one of the tokens>`; the scheme in any case.

        `authorization`: values as HTTP libraries decode them (latin-1), so any bytes may be in them.
        """
        if len(authorization) != 1:
            return False
        scheme, _, token = authorization[0].strip().partition(" ")
        if scheme.lower() != "bearer":
            return False
        given = hashlib.sha256(token.strip().encode("latin-1", "replace")).digest()
        fits = False
        for digest in self._digests:
            fits |= hmac.compare_digest(digest, given)
        return fits


class Anyone:
    """No token needed here (webhooks bring their own proof)."""

    def admit(self, authorization: Sequence[str]) -> None:
        return


class CallersOnly:
    """Callers of MCP and of /mcp/tools/*: a bearer is needed as soon as tokens are set."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._bearers = Bearers(tokens)

    def admit(self, authorization: Sequence[str]) -> None:
        if self._bearers and not self._bearers.admits(authorization):
            raise NotAuthenticated("Send one of this server's tokens as Authorization: Bearer <token>.")


class AdminOnly:
    """The admin's routes; without a token nobody is the admin."""

    def __init__(self, token: str | None) -> None:
        self._bearers = Bearers(() if token is None else (token,))

    def admit(self, authorization: Sequence[str]) -> None:
        if not self._bearers:
            raise FeatureDisabled("The admin routes are switched off: set ADMIN_TOKEN.", code="admin_disabled")
        if not self._bearers.admits(authorization):
            raise NotAuthenticated("Send the admin token as Authorization: Bearer <ADMIN_TOKEN>.")
