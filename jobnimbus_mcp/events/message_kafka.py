"""Names of topics and groups, and how an event is written as a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from jobnimbus_mcp.events.event import Event, decode, encode
from jobnimbus_mcp.events.ports import Routes

__all__ = ["Message", "dead_topic", "group_id", "headers_of_dead", "read_message", "topic", "write_message"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Message:
    """What a message holds. An event that was sent again is routed to those alone who are to act on it again."""

    event: Event
    routes: Routes


def topic(prefix: str, instance: str) -> str:
    return f"{prefix}.events.{instance}"


def dead_topic(prefix: str, instance: str) -> str:
    return f"{prefix}.events.{instance}.dead"


def group_id(prefix: str, consumer: str) -> str:
    return f"{prefix}-mcp.{consumer}"


def write_message(event: Event, routes: Routes) -> bytes:
    """One JSON object: `event` as `encode` writes it, `body`, and `to`: consumer -> epoch ms."""
    return orjson.dumps(
        {
            "v": _VERSION,
            "event": orjson.Fragment(encode(event)),
            "body": event.body,
            "to": {consumer: int(due_at * 1000) for consumer, due_at in routes.items()},
        }
    )


def read_message(value: bytes | None, instance: str) -> Message:
    """The message of `write_message`, of the account whose topic it came from.

    Raises:
        ValueError: it is damaged, of another account, or of a version that is not understood.
    """
    try:
        told: Mapping[str, Any] = orjson.loads(value or b"")
        if told["v"] != _VERSION:
            raise ValueError("another version")
        event = decode(orjson.dumps(told["event"]), str(told["body"]))
        if event.instance != instance:
            raise ValueError("of another account")
        routes = {str(consumer): int(due_ms) / 1000 for consumer, due_ms in told["to"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no event") from error
    return Message(event, routes)


def headers_of_dead(consumer: str, reason: str, attempts: int) -> list[tuple[str, bytes]]:
    """What a dead letter says beside the event."""
    return [("consumer", consumer.encode()), ("reason", reason.encode()), ("attempts", str(attempts).encode())]
