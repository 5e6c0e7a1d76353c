"""What HTTP itself refuses, as errors of the project: request and route, never a tool or a record."""

from __future__ import annotations

from collections.abc import Collection

from jobnimbus_mcp.errors import CallerError, NotAllowed, NotAuthenticated, OwnError

__all__ = [
    "BodyTimeout",
    "EntryNotFound",
    "EventNotFound",
    "ForeignOrigin",
    "HostNotAllowed",
    "IssuerAway",
    "MethodNotAllowed",
    "NoSuchPath",
    "PayloadTooLarge",
    "ScopeMissing",
    "TokenRefused",
    "UnsupportedMediaType",
]


class NoSuchPath(CallerError):
    """There is no such path."""

    code, http_status = "not_found", 404

    def __init__(self) -> None:
        super().__init__("There is no such path.")


class EntryNotFound(CallerError):
    """Nothing is kept under this key."""

    code, http_status = "not_found", 404

    def __init__(self) -> None:
        super().__init__("Nothing is kept under this key: it was never fetched, has expired or was deleted.")


class EventNotFound(CallerError):
    """There is no event of this id."""

    code, http_status = "not_found", 404

    def __init__(self) -> None:
        super().__init__("There is no event of this id: it was never received, or has been removed from the archive.")


class MethodNotAllowed(CallerError):
    """The path is there, the method is not; `allowed` goes into the Allow header."""

    code, http_status = "method_not_allowed", 405

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"This path takes {self.allowed}.")


class BodyTimeout(CallerError):
    """The body did not arrive in time."""

    code, http_status, retryable = "request_timeout", 408, True

    def __init__(self) -> None:
        super().__init__("The body did not arrive in time.")


class PayloadTooLarge(CallerError):
    """The body is above the limit, by its declared or by its real length."""

    code, http_status = "payload_too_large", 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than {limit_bytes} bytes.")


class UnsupportedMediaType(CallerError):
    """A body that is not declared as JSON."""

    code, http_status = "unsupported_media_type", 415

    def __init__(self) -> None:
        super().__init__("Send the body as application/json.")


class HostNotAllowed(CallerError):
    """The Host header names none of our hosts: a page may have pointed its own name at this server."""

    code, http_status = "host_not_allowed", 421

    def __init__(self) -> None:
        super().__init__("This server does not answer for that host; ALLOWED_HOSTS lists those it does.")


class ForeignOrigin(CallerError):
    """A browser sent this on behalf of a page from elsewhere."""

    code, http_status = "origin_not_allowed", 403

    def __init__(self) -> None:
        super().__init__("Requests from pages of another origin are refused.")


class TokenRefused(NotAuthenticated):
    """No token, or one that does not hold here. `reason`: why, from a closed list; `challenge`: the WWW-Authenticate
    header of the answer."""

    def __init__(self, message: str, *, reason: str, challenge: str = "Bearer") -> None:
        super().__init__(message)
        self.reason = reason
        self.challenge = challenge


class ScopeMissing(NotAllowed):
    """An access token that holds, but not for this server's tools; `challenge` names the scope to ask for."""

    code, reason = "insufficient_scope", "scope"

    def __init__(self, scope: str, *, challenge: str) -> None:
        super().__init__(f"The access token lacks the scope {scope}; ask for it where the token came from.")
        self.challenge = challenge


class IssuerAway(OwnError):
    """An access token cannot be verified, because nothing is known of the issuer's keys."""

    code, http_status, retryable, reason = "authorization_unavailable", 503, True, "issuer_away"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            "Access tokens cannot be verified at the time, since their issuer does not tell its keys; try again.",
            retry_after_s=retry_after_s,
        )
