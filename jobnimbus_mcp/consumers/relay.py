"""Relay: tells another system of the changes it chose, signed as Standard Webhooks, and waits for its answer.

Source: Standard Webhooks specification 1.0: headers `webhook-id` (the same for every try), `webhook-timestamp` (of this
try) and `webhook-signature`; any 2xx is taken, anything else is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from standardwebhooks.webhooks import Webhook

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.consumers.relay_targets import RelayTarget
from jobnimbus_mcp.events.event import BODY_MOST, Event
from jobnimbus_mcp.events.ports import ANSWER_MOST, Outcome

__all__ = ["PARALLEL", "Answered", "Failed", "Poster", "Relay", "message_of", "outcome_of", "relays_of"]

PARALLEL = 8
"""Deliveries to one target at once: n8n and Zapier take a few, and order holds per record only."""

_WITHIN_S = 15.0

_TRY_AGAIN = frozenset({408, 425, 429})
"""Refusals that speak of the moment, not of the message."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The target answered. `body`: its first bytes, as they came."""

    status: int
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer. `error`: a stable word. `retry` False: no later try would go better."""

    error: str
    retry: bool = True


class Poster(Protocol):
    """Sends to targets, follows no redirect, and is bounded in time by itself."""

    async def post(self, target: RelayTarget, body: bytes, headers: Mapping[str, str]) -> Answered | Failed: ...


class Relay:
    """One target's consumer, so that one that hangs delays no other.

    A target hears of an event once more when its answer was lost, with the same `webhook-id`, by which it can tell.
    """

    batch_most = 1
    parallel = PARALLEL
    within_s = _WITHIN_S

    def __init__(self, target: RelayTarget, poster: Poster, clock: Clock) -> None:
        self._target = target
        self._poster = poster
        self._clock = clock
        self._signer = Webhook(target.key)
        self.name = f"relay:{target.name}"

    def delay_s(self, event: Event) -> float | None:
        """At once, for what the target chose."""
        return 0.0 if self._target.chooses(event) else None

    async def act(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        """Delivers them one after the other; the target is told each try's request id as `X-Request-ID`."""
        return [await self._deliver(event, request_id) for event, request_id in zip(batch, request_ids, strict=True)]

    async def _deliver(self, event: Event, request_id: str) -> Outcome:
        body = message_of(event)
        # the library takes any time for UTC, whatever its zone says
        at = datetime.fromtimestamp(int(self._clock.now()), UTC)
        headers = {
            "Content-Type": "application/json",
            "X-Request-ID": request_id,
            "webhook-id": event.event_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._signer.sign(event.event_id, at, body.decode()),
        }
        return outcome_of(await self._poster.post(self._target, body, headers))


def relays_of(targets: Sequence[RelayTarget], poster: Poster, clock: Clock) -> tuple[Relay, ...]:
    """A consumer for each target."""
    return tuple(Relay(target, poster, clock) for target in targets)


def message_of(event: Event) -> bytes:
    """What a target is sent, the same for every try. `timestamp`: when the event was received; `occurredAt`: when the
    record was changed, None where nobody said; `record`: the body it came with, None where there is none, where it was
    too long to keep, or where it is the audit of a write of ours (who changed what from what to what, which is not for
    others): the record is then to be fetched from JobNimbus."""
    return orjson.dumps(
        {
            "id": event.event_id,
            "type": event.name,
            "timestamp": _rfc_3339(event.received_at),
            "data": {
                "instance": event.instance,
                "entity": event.entity,
                "jnid": event.record_id,
                "action": event.action,
                "source": event.source,
                "occurredAt": None if event.occurred_at is None else _rfc_3339(event.occurred_at),
                "record": None if event.source == "write" else _record(event.body),
            },
        }
    )


def outcome_of(result: Answered | Failed) -> Outcome:
    """2xx is done; what may pass is tried again; any other refusal and every redirect is given up at once."""
    if isinstance(result, Failed):
        return Outcome(result.error, result.retry)
    answer = _text(result.body)
    if 200 <= result.status <= 299:
        return Outcome(status=result.status, answer=answer)
    if 300 <= result.status <= 399:
        return Outcome("redirect", False, result.status, answer)
    retry = result.status >= 500 or result.status in _TRY_AGAIN
    return Outcome(f"http_{result.status}", retry, result.status, answer)


def _rfc_3339(epoch_s: float) -> str | None:
    try:
        at = datetime.fromtimestamp(epoch_s, UTC)
    except (OverflowError, ValueError, OSError):  # a record's date may be any number
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _record(body: str) -> Any:
    try:
        raw = body.encode()
        if not raw or len(raw) > BODY_MOST:
            return None
        orjson.loads(raw)
    except ValueError:  # no JSON, cut, or no Unicode
        return None
    # as it came: reading it would round long numbers
    return orjson.Fragment(raw)


def _text(body: bytes) -> str:
    """The beginning of an answer as one line of a trace, without anything that could steer a terminal."""
    text = body[: 8 * ANSWER_MOST].decode(errors="replace")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:ANSWER_MOST]
