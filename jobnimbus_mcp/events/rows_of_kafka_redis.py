"""How the trace of events in Kafka is written in Redis: an event's hash, and a try as one line.

e, b     envelope and body
x        1: a broker has confirmed it; 0: not yet
left     how many consumers are not done with it and have not given it up
dead     how many have given it up
s:<c>    what it is for the consumer c: p to be done, d done, x given up
u:<c>    when it is, or was last, due, ms
n:<c>    tries that count for the next one's delay; a:<c> all tries
t:<c>    the last tries, one to a line, the oldest first
h:<c>    `<until ms>|<holder>` while a process works on it
f:<c>    when it was done or given up, ms; r:<c> why it was given up
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from jobnimbus_mcp.events.event import decode
from jobnimbus_mcp.events.ports import ANSWER_MOST, Attempt, ConsumerTrace, EventQuery, Traced

__all__ = ["line_of", "matches", "traced_of"]

_STATE = {"d": "done", "x": "dead"}


def line_of(attempt: Attempt) -> bytes:
    """JSON holds no line break."""
    return orjson.dumps(
        [
            attempt.at,
            attempt.request_id,
            attempt.duration_ms,
            attempt.status,
            attempt.error[:ANSWER_MOST],
            attempt.answer[:ANSWER_MOST],
        ]
    )


def traced_of(row: Mapping[bytes, bytes], now: float) -> Traced:
    """What a hash tells at `now` (epoch seconds).

    Raises:
        ValueError: it is damaged.
    """
    try:
        event = decode(row[b"e"], row.get(b"b", b"").decode())
        names = [field[2:].decode() for field in row if field.startswith(b"s:")]
        return Traced(event, {name: _consumer(row, name, now) for name in names})
    except (KeyError, TypeError) as error:
        raise ValueError("no event") from error


def matches(traced: Traced, query: EventQuery) -> bool:
    event = traced.event
    return (
        (query.state is None or traced.state == query.state)
        and (query.entity is None or event.entity == query.entity)
        and (query.record_id is None or event.record_id == query.record_id)
        and (query.since is None or event.received_at >= query.since)
    )


def _consumer(row: Mapping[bytes, bytes], name: str, now: float) -> ConsumerTrace:
    def told(field: str) -> str:
        return row.get(f"{field}:{name}".encode(), b"").decode()

    due_at = int(told("u")) / 1000
    tried = tuple(Attempt(*orjson.loads(line)) for line in told("t").splitlines())
    state = _STATE.get(told("s")) or ("delayed" if due_at > now else "pending")
    finished = told("f")
    done_at = int(finished) / 1000 if finished and state == "done" else None
    return ConsumerTrace(state, due_at, int(told("a") or 0), tried, done_at, told("r"))
