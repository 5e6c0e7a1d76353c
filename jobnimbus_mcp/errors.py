"""Every error the project raises, by whose fault it was.

    ProjectError
    +-- CallerError            the caller can mend it: answered as 4xx, touches nothing
    |   +-- InvalidInput       400 invalid_argument    an argument, header or body is wrong; `field` names it
    |   +-- UnknownPayload     400 unknown_payload     a webhook body that names no record we know
    |   +-- NotAuthenticated   401                     no or a wrong token, or no JobNimbus key
    |   +-- NotAllowed         403                     known caller, not this thing
    |   +-- UnknownTool        404 unknown_tool
    |   +-- RecordNotFound     404 not_found           JobNimbus has no such record (or hides it from this key)
    |   +-- ConfirmationNeeded 400 confirmation_needed a person is to be asked first; nothing was done yet
    |   +-- WriteRefused       400 write_refused       JobNimbus does not take the record as it was sent
    |   +-- DuplicateRecord    409 duplicate_record    JobNimbus has a record of this name already
    |   +-- WriteInProgress    409 write_in_progress   the same idempotency key is being worked on
    |   +-- RateLimited        429 rate_limited        this caller's own share is used up
    +-- UpstreamError          JobNimbus, or the way to it
    |   +-- UpstreamUnauthorized  401 upstream_unauthorized   JobNimbus refused the key
    |   +-- UpstreamForbidden     403 upstream_forbidden      the key's access profile lacks the right
    |   +-- UpstreamNotFound      404 not_found               404 for a path or an id
    |   +-- UpstreamRateLimited   429 upstream_rate_limited   still 429 after the retries
    |   +-- UpstreamRejected      502 upstream_rejected       JobNimbus called our question wrong (other 4xx)
    |   +-- UpstreamServerError   502 upstream_error          5xx after the retries
    |   +-- UpstreamTimeout       502 upstream_timeout        no answer in time
    |   +-- UpstreamUnreachable   502 upstream_unreachable    no connection
    |   +-- UpstreamUnreadable    502 upstream_unreadable     HTML, cut or senseless JSON with status 200
    |   +-- UpstreamCircuitOpen   502 upstream_circuit_open   not asked: too many calls failed of late
    |   +-- WriteOutcomeUnknown   502 write_outcome_unknown   sent, and whether it was carried out could not be seen
    +-- OwnError               this server
        +-- BudgetExhausted    429 request_budget_exhausted   our own request budget for JobNimbus is used up
        +-- FeatureDisabled    503 admin_disabled, webhooks_disabled, file_host_refused
        +-- CacheUnavailable   503 cache_unavailable   an invalidation could not reach the cache
        +-- Stopping           503 stopping            the server is being stopped; another one, or the next, answers
        +-- SettingsError      (start only)            bad settings; all mistakes in one message
        +-- InternalError      500 internal_error      a defect

`public_message` is fit for a stranger: it says what to do and holds neither credentials nor anybody's data.
"""

from __future__ import annotations

from typing import Self

__all__ = [
    "BudgetExhausted",
    "CacheUnavailable",
    "CallerError",
    "ConfirmationNeeded",
    "DuplicateRecord",
    "FeatureDisabled",
    "InternalError",
    "InvalidInput",
    "NotAllowed",
    "NotAuthenticated",
    "OwnError",
    "ProjectError",
    "RateLimited",
    "RecordNotFound",
    "SettingsError",
    "Stopping",
    "UnknownPayload",
    "UnknownTool",
    "UpstreamCircuitOpen",
    "UpstreamError",
    "UpstreamForbidden",
    "UpstreamNotFound",
    "UpstreamRateLimited",
    "UpstreamRejected",
    "UpstreamServerError",
    "UpstreamTimeout",
    "UpstreamUnauthorized",
    "UpstreamUnreachable",
    "UpstreamUnreadable",
    "WriteInProgress",
    "WriteOutcomeUnknown",
    "WriteRefused",
]


class ProjectError(Exception):
    """Base of all. `code` is stable; `http_status` is what an HTTP caller gets."""

    code: str = "internal_error"
    http_status: int = 500
    retryable: bool = False

    def __init__(
        self,
        public_message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(public_message)
        self.public_message = public_message
        if code is not None:
            self.code = code
        self.field = field
        self.retry_after_s = retry_after_s


class CallerError(ProjectError):
    """The caller can mend it."""

    code, http_status = "invalid_argument", 400


class InvalidInput(CallerError):
    """An argument, header or body is wrong; `field` names the argument."""


class UnknownPayload(CallerError):
    """A webhook body that names no record we know."""

    code = "unknown_payload"


class NotAuthenticated(CallerError):
    """No token, a wrong token, or no JobNimbus key."""

    code, http_status = "unauthorized", 401


class NotAllowed(CallerError):
    """The caller is known, and may not do this."""

    code, http_status = "forbidden", 403


class UnknownTool(CallerError):
    """There is no tool of that name."""

    code, http_status = "unknown_tool", 404


class RecordNotFound(CallerError):
    """JobNimbus has no such record, or hides it from this key."""

    code, http_status = "not_found", 404


class ConfirmationNeeded(CallerError):
    """A person is to be asked first. `question` is for that person; it may name the record, so it is never logged."""

    code = "confirmation_needed"

    def __init__(self, question: str) -> None:
        super().__init__(
            f"{question} Nothing was done yet: ask the person you work for, and if they agree call again with "
            "confirm: true.",
            field="confirm",
        )
        self.question = question


class WriteRefused(CallerError):
    """JobNimbus does not take the record as it was sent; the message quotes it."""

    code = "write_refused"


class DuplicateRecord(CallerError):
    """JobNimbus has a record of this name already."""

    code, http_status = "duplicate_record", 409


class WriteInProgress(CallerError):
    """A write with the same idempotency key has not ended yet."""

    code, http_status, retryable = "write_in_progress", 409, True


class RateLimited(CallerError):
    """This caller has made more requests than it may; `retry_after_s` says when the next is taken."""

    code, http_status, retryable = "rate_limited", 429, True


class UpstreamError(ProjectError):
    """JobNimbus, or the way to it. `sent`: the request may have reached JobNimbus; False is certain."""

    code, http_status = "upstream_error", 502
    sent: bool = True

    def unsent(self) -> Self:
        """This error, of a request of which JobNimbus has seen nothing."""
        self.sent = False
        return self


class UpstreamUnauthorized(UpstreamError):
    """JobNimbus refused the key."""

    code, http_status = "upstream_unauthorized", 401


class UpstreamForbidden(UpstreamError):
    """The key's access profile lacks the right."""

    code, http_status = "upstream_forbidden", 403


class UpstreamNotFound(UpstreamError):
    """JobNimbus answered 404: unknown or deleted id, or a path it does not have."""

    code, http_status = "not_found", 404


class UpstreamRateLimited(UpstreamError):
    """Still 429 after the retries; `retry_after_s` as JobNimbus said, or our guess."""

    code, http_status, retryable = "upstream_rate_limited", 429, True


class UpstreamRejected(UpstreamError):
    """JobNimbus called our question wrong (a 4xx that is none of the others).

    `said`: its own words, for whoever sent the record; they may quote it, so they are never logged.
    """

    code = "upstream_rejected"
    said: str = ""


class UpstreamServerError(UpstreamError):
    """5xx after the retries."""

    code, retryable = "upstream_error", True


class UpstreamTimeout(UpstreamError):
    """No answer in time."""

    code, retryable = "upstream_timeout", True


class UpstreamUnreachable(UpstreamError):
    """No connection."""

    code, retryable = "upstream_unreachable", True


class UpstreamUnreadable(UpstreamError):
    """Status 200 with HTML, cut or senseless JSON."""

    code, retryable = "upstream_unreadable", True


class UpstreamCircuitOpen(UpstreamError):
    """Not asked: too many calls to this account's API failed of late."""

    code, retryable = "upstream_circuit_open", True


class WriteOutcomeUnknown(UpstreamError):
    """A write was sent, and whether JobNimbus carried it out could not be seen."""

    code = "write_outcome_unknown"


class OwnError(ProjectError):
    """This server."""


class BudgetExhausted(OwnError):
    """Our own request budget for JobNimbus is used up; `retry_after_s` says for how long."""

    code, http_status, retryable = "request_budget_exhausted", 429, True


class FeatureDisabled(OwnError):
    """Switched off until a setting is given; the message names it."""

    http_status = 503


class CacheUnavailable(OwnError):
    """An invalidation could not reach the cache."""

    code, http_status, retryable = "cache_unavailable", 503, True


class Stopping(OwnError):
    """The server is being stopped and gave the call up."""

    code, http_status, retryable = "stopping", 503, True


class SettingsError(OwnError):
    """Bad settings; the message lists every mistake."""

    code = "bad_settings"


class InternalError(OwnError):
    """A defect; details are in the log under the request id."""
