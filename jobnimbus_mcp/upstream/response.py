"""What JobNimbus's answer means: a JSON value, or one of the `Upstream*` errors.

What callers are told is our own wording. JobNimbus's is quoted only where it says what is wrong with a question, cut
to 200 characters; never for a refused key.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import orjson

from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import (
    UpstreamError,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreadable,
)
from jobnimbus_mcp.resilience.backoff import parse_retry_after
from jobnimbus_mcp.upstream.ports import RawAnswer

__all__ = ["EXCERPT_CHARS", "interpret", "record_of", "rows_of", "whole_of"]

EXCERPT_CHARS = 200
_NOT_FOUND = "JobNimbus has no such record or path, or hides it from this API key."
_MESSAGE_KEYS = ("body", "message", "error", "errors", "title", "detail")


def interpret(answer: RawAnswer, *, now: float, credential: str) -> Any:
    """The JSON value of a good answer.

    `now` (epoch seconds) turns a `Retry-After` date into seconds; a message that holds `credential` is not quoted.

    Raises:
        UpstreamError: of the kind that the status, the content type or the body calls for.
    """
    if 200 <= answer.status < 300:
        return _json_of(answer)
    raise _error_of(answer, now, credential)


def rows_of(entity: Entity, value: Any) -> tuple[list[dict[str, Any]], int | None]:
    """The rows of a list answer, and JobNimbus's count of all that match (None: it did not say).

    The array is called `results`, `activity`, `files` or `users`; whatever list comes first is taken when the expected
    one is missing. Source: JobNimbus API documentation, endpoint table; names vary in public code.

    Raises:
        UpstreamUnreadable: no list in it, or a row that is no record.
    """
    count: int | None = None
    found: Any = value
    if isinstance(value, dict):
        count = _count_of(value.get("count"))
        found = value.get(facts_of(entity).envelope)
        if not isinstance(found, list):
            found = next((item for item in value.values() if isinstance(item, list)), None)
    if not isinstance(found, list):
        raise UpstreamUnreadable(f"JobNimbus answered the list of {entity.value} without a list.")
    if not all(isinstance(row, dict) for row in found):
        raise UpstreamUnreadable(f"JobNimbus answered the list of {entity.value} with something that is no record.")
    return found, count


def record_of(entity: Entity, jnid: str, value: Any) -> dict[str, Any]:
    """The record that was asked for, out of a detail answer or, where the kind has none, a list of one.

    Raises:
        UpstreamNotFound: the list is empty.
        UpstreamUnreadable: it is no record, or another one.
    """
    if not facts_of(entity).has_detail:
        rows, _ = rows_of(entity, value)
        if not rows:
            raise UpstreamNotFound(_NOT_FOUND)
        value = rows[0]
    if not isinstance(value, dict) or value.get("jnid") != jnid:
        raise UpstreamUnreadable(f"JobNimbus answered one of the {entity.value} with something else.")
    return value


def whole_of(entity: Entity, value: Any) -> dict[str, Any]:
    """The one document of its kind: `{"rows": [...]}` where it is a list, else the object as it came.

    Raises:
        UpstreamUnreadable: no list anywhere in it.
    """
    rows, _ = rows_of(entity, value)
    if facts_of(entity).envelope:
        return {"rows": rows}
    if not isinstance(value, dict):
        raise UpstreamUnreadable(f"JobNimbus answered the {entity.value} with a bare list.")
    return value


def _json_of(answer: RawAnswer) -> Any:
    media = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = answer.body.removeprefix(b"\xef\xbb\xbf").strip()
    if media == "text/html" or body.startswith(b"<"):
        # paths outside the API root answer 200 with the web application's page
        raise UpstreamUnreadable("JobNimbus answered with a web page instead of data; is JOBNIMBUS_API_BASE_URL right?")
    if media not in ("", "text/plain", "text/json", "application/json") and not media.endswith("+json"):
        raise UpstreamUnreadable("JobNimbus answered with a file instead of data.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamUnreadable("JobNimbus's answer was cut short or is not JSON.") from error


def _error_of(answer: RawAnswer, now: float, credential: str) -> UpstreamError:
    retry_after_s = parse_retry_after(answer.headers.get("retry-after"), now)
    match answer.status:
        case 401:
            return UpstreamUnauthorized("JobNimbus refused the API key; check that it is right and not deleted.")
        case 403:
            return UpstreamForbidden("The access profile of this JobNimbus API key does not allow this.")
        case 404:
            return UpstreamNotFound(_NOT_FOUND)
        case 408:
            return UpstreamTimeout("JobNimbus gave up waiting for the request.")
        case 429:
            return UpstreamRateLimited("JobNimbus says there were too many requests.", retry_after_s=retry_after_s)
        case status if status >= 500:
            return UpstreamServerError(f"JobNimbus failed with status {status}.", retry_after_s=retry_after_s)
        case status if status < 400:
            return UpstreamUnreadable(f"JobNimbus answered with status {status}; is JOBNIMBUS_API_BASE_URL right?")
        case status:
            excerpt = "" if credential.encode() in answer.body else _excerpt(answer.body)
            said = f': "{excerpt}"' if excerpt else ""
            return UpstreamRejected(f"JobNimbus refused the question with status {status}{said}.")


def _excerpt(body: bytes) -> str:
    """What JobNimbus said is wrong: on one line, without control characters, "" when it is no text for people."""
    try:
        text = _message_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = body[: 8 * EXCERPT_CHARS].decode("utf-8", errors="replace")
    if text is None or text.lstrip().startswith("<"):
        return ""
    plain = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    return " ".join(plain.split())[:EXCERPT_CHARS].strip()


def _message_in(value: Any, depth: int = 3) -> str | None:
    if isinstance(value, str):
        return value
    if depth == 0:
        return None
    if isinstance(value, list):
        inner = value[:3]
    elif isinstance(value, dict):
        inner = [value[key] for key in _MESSAGE_KEYS if value.get(key)]
    else:
        return None
    return next((text for text in (_message_in(item, depth - 1) for item in inner) if text), None)


def _count_of(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:18])
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value
