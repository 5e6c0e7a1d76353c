"""What became of an event, as people read it: one line in a listing, or everything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from jobnimbus_mcp.events.ports import Attempt, ConsumerTrace, Traced

__all__ = ["summary", "whole"]


def summary(traced: Traced) -> dict[str, Any]:
    """One row: `{eventId, state, instance, entity, recordId, action, source, receivedAt, attempts}`; no body."""
    event = traced.event
    return {
        "eventId": event.event_id,
        "state": traced.state,
        "instance": event.instance,
        "entity": event.entity,
        "recordId": event.record_id,
        "action": event.action,
        "source": event.source,
        "receivedAt": _at(event.received_at),
        "attempts": traced.attempts,
    }


def whole(traced: Traced) -> dict[str, Any]:
    """The row, and: name, tags, the body as received (JSON where it is, else text), the request that brought it, and
    for each consumer its state, when it was due and done, why it gave up, and each try."""
    event = traced.event
    return summary(traced) | {
        "event": event.name,
        "requestId": event.request_id,
        "occurredAt": None if event.occurred_at is None else _at(event.occurred_at),
        "parents": None if event.parents is None else list(event.parents),
        "tags": list(event.tags),
        "body": _readable(event.body),
        "consumers": {name: _consumer(told) for name, told in sorted(traced.consumers.items())},
    }


def _consumer(told: ConsumerTrace) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "state": told.state,
        "dueAt": _at(told.due_at),
        "doneAt": None if told.done_at is None else _at(told.done_at),
        "attempts": told.attempts,
        "tried": [_attempt(attempt) for attempt in told.tried],
    }
    return shown | {"reason": told.reason} if told.reason else shown


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": _at(attempt.at),
        "requestId": attempt.request_id,
        "status": attempt.status,
        "error": attempt.error or None,
        "response": attempt.answer or None,
        "durationMs": round(attempt.duration_ms, 3),
    }


def _at(epoch_s: float) -> str:
    """RFC 3339 with milliseconds: what follows upon one another here does so within a second."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _readable(body: str) -> Any:
    if not body:
        return None
    try:
        told = orjson.loads(body)
        orjson.dumps(told)
    except (orjson.JSONDecodeError, TypeError):  # no JSON, or nested deeper than it can be written
        return body
    return told
