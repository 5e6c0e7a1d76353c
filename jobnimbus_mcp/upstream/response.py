"""What JobNimbus's answer means: a JSON value, or one of the `Upstream*` errors.

What callers are told is our own wording. JobNimbus's is quoted only where it says what is wrong with a question, cut
to 200 characters; never for a refused key. What it says of a change may quote the record, so it is kept apart, in
`UpstreamRejected.said`, for whoever sent the record.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import orjson

from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.writes import Write
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

__all__ = [
    "EXCERPT_CHARS",
    "SAID_CHARS",
    "interpret",
    "record_of",
    "refusal_of",
    "rows_of",
    "whole_of",
    "written_of",
]

EXCERPT_CHARS = 200
SAID_CHARS = 500
_NOT_FOUND = "JobNimbus has no such record or path, or hides it from this API key."
_MESSAGE_KEYS = ("body", "message", "error", "errors", "title", "detail")

_REFUSED_AS_FAILURE = re.compile(
    r"attempt to relate|invalid parameters|duplicate|couchbase|\bkey\b.{0,80}\b(not found|exists?|invalid)\b|"
    r"\bmissing\b.{0,20}\b(required|fields?|parameters?|total|related)\b|\b(is|are) (missing|required)\W*$|"
    r"\brequired (fields?|parameters?)\b",
    re.IGNORECASE,
)
"""What JobNimbus says with status 500 where the record is at fault, and not JobNimbus. Source: JobNimbus API
documentation, errors, and its users' production notes."""


def interpret(answer: RawAnswer, *, now: float, credential: str, writes: bool = False) -> Any:
    """The JSON value of a good answer.

    `now` (epoch seconds) turns a `Retry-After` date into seconds; a message that holds `credential` is not quoted.
    `writes`: it answers a change.

    Raises:
        UpstreamError: of the kind that the status, the content type or the body calls for.
    """
    if 200 <= answer.status < 300:
        return _json_of(answer)
    raise refusal_of(answer, now=now, credential=credential, writes=writes)


def refusal_of(answer: RawAnswer, *, now: float, credential: str, writes: bool = False) -> UpstreamError:
    """The error that an answer of any other status is. Arguments as of `interpret`."""
    error = _error_of(answer, now, credential)
    said = _said(answer.body, credential)
    at_fault = answer.status == 500 and _REFUSED_AS_FAILURE.search(said) is not None
    if writes and (at_fault or isinstance(error, UpstreamRejected)):
        error = UpstreamRejected(f"JobNimbus does not take the record (status {answer.status}).")
    if isinstance(error, UpstreamRejected):
        error.said = said
    return error


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


def whole_of(entity: Entity, value: Any, part: str = "") -> dict[str, Any]:
    """The one document of its kind: `{"rows": [...]}` where it is a list, else the object as it came.

    Units are a list of bare names; each becomes a row with a `name`.

    Raises:
        UpstreamUnreadable: no list anywhere in it.
    """
    if part and isinstance(value, list):
        value = [{"name": row} if isinstance(row, str) else row for row in value]
    rows, _ = rows_of(entity, value)
    if part or facts_of(entity).envelope:
        return {"rows": rows}
    if not isinstance(value, dict):
        raise UpstreamUnreadable(f"JobNimbus answered the {entity.value} with a bare list.")
    return value


def written_of(write: Write, value: Any) -> dict[str, Any]:
    """The record that the answer to `write` holds: bare, in `data`, or as a list of one; {} for a deletion that says
    no more than that it is done. A piece of the settings is the answer itself.

    Source: JobNimbus API documentation, methods and files; shapes other than the bare record were seen by its users.

    Raises:
        UpstreamUnreadable: it is no record, or another one.
    """
    record = _unwrapped(write.entity, value)
    if write.entity is Entity.SETTINGS:
        if record:
            return record
    elif write.action is Action.CREATED:
        if isinstance(record.get("jnid"), str):
            return record
    elif record.get("jnid") == write.record_id:
        return record
    elif write.action is Action.DELETED and "jnid" not in record:
        return {}
    raise UpstreamUnreadable(f"JobNimbus answered a change of {write.entity.value} with something else.")


def _unwrapped(entity: Entity, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "jnid" not in value:
        inner = value.get("data", value.get(facts_of(entity).envelope, value.get("results")))
        value = value if inner is None else inner
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else {}


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
    return _words_of(body)[:EXCERPT_CHARS].strip()


def _said(body: bytes, credential: str) -> str:
    """The same for whoever sent the record, longer, and without their key."""
    kept = body.replace(credential.encode(), b"[key]") if credential else body
    return _words_of(kept)[:SAID_CHARS].strip()


def _words_of(body: bytes) -> str:
    try:
        text = _message_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = body[: 8 * SAID_CHARS].decode("utf-8", errors="replace")
    if text is None or text.lstrip().startswith("<"):
        return ""
    plain = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text[: 8 * SAID_CHARS])
    return " ".join(plain.split())


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
