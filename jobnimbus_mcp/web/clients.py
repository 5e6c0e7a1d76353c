"""Callers known by a token of their own: what each token allows, found in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jobnimbus_mcp.gateway.access import Access

__all__ = ["Client", "KnownTokens", "bearer_of", "client_of_token"]


@dataclass(frozen=True, slots=True)
class Client:
    """One caller of the server: `access` has its name."""

    token: str = field(repr=False)
    access: Access

    @classmethod
    def unnamed(cls, token: str) -> Client:
        """The holder of a token that allows everything."""
        return cls(token, Access(client=client_of_token(token)))


class KnownTokens:
    """The tokens there are. Digests of equal length are compared, all of them: time tells nothing of any token."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._known = tuple((hashlib.sha256(client.token.encode()).digest(), client.access) for client in clients)

    def __bool__(self) -> bool:
        return bool(self._known)

    def access_of(self, token: str) -> Access | None:
        """What the token allows, None when nobody has it. `token` as HTTP libraries decode it (latin-1)."""
        given = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        found: Access | None = None
        for digest, access in self._known:
            found = access if hmac.compare_digest(digest, given) else found
        return found


def client_of_token(token: str) -> str:
    """A name for whoever holds a token without a name: always the same, and it does not lead back to the token."""
    return f"caller-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def bearer_of(authorization: Sequence[str]) -> str | None:
    """The token of the Authorization headers (all of them, as they came): of exactly one `Bearer <token>`, the scheme
    in any case; None of anything else."""
    if len(authorization) != 1:
        return None
    scheme, _, token = authorization[0].strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
