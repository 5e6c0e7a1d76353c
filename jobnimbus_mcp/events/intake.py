"""The way in for changes: verify, find account, parse, append and bump, accepted. Nothing slower than one append."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.errors import (
    CacheUnavailable,
    FeatureDisabled,
    InvalidInput,
    NotAuthenticated,
    ProjectError,
    UnknownPayload,
)
from jobnimbus_mcp.events.envelope import dedupe_key, parse_body, version_key
from jobnimbus_mcp.events.event import BODY_MOST, Event
from jobnimbus_mcp.events.ports import AppendAndBump, Appended
from jobnimbus_mcp.events.signature import Rejected, Verified, WebhookSecrets, verify
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Accepted", "Delivery", "Intake", "WebhooksSeen"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook as it came. `headers`: names in lower case. `tokens`, `instances`: every such value of the query,
    and of the instance header."""

    raw: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    tokens: Sequence[str] = field(default=(), repr=False)
    instances: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The invalidation holds or, `journalled`, is durable and will. `event_id`: the first delivery's when this is a
    `duplicate`."""

    event_id: str
    duplicate: bool
    journalled: bool = False


class WebhooksSeen:
    """What this process has received, by account and kind: bounded by the accounts and kinds there are."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, Entity], tuple[int, float]] = {}

    def note(self, instance: str, entity: Entity, at: float) -> None:
        """Count one delivery; `at` in epoch seconds."""
        count, _ = self._seen.get((instance, entity), (0, 0.0))
        self._seen[instance, entity] = (count + 1, at)

    def seen(self, instance: str) -> Mapping[str, dict[str, Any]]:
        """`{"jobs": {"count": 2, "last_at": <epoch seconds>}}`, of the kinds received for this account."""
        return {
            entity.value: {"count": count, "last_at": at}
            for (account, entity), (count, at) in sorted(self._seen.items())
            if account == instance
        }


class Intake:
    """Takes deliveries for the accounts in `instances`.

    `ids`: of events, as `events.event.event_id_at` makes them. `rejected` is told of what could not be understood,
    for the trace; it never raises.
    """

    def __init__(
        self,
        append_and_bump: AppendAndBump,
        *,
        secrets: WebhookSecrets,
        instances: Sequence[str],
        clock: Clock,
        ids: Callable[[], str],
        recorder: Recorder,
        log: FilteringBoundLogger,
        seen: WebhooksSeen,
        rejected: Callable[[Event, str], Awaitable[None]],
    ) -> None:
        self._rejected = rejected
        self._append_and_bump = append_and_bump
        self._secrets = secrets
        self._instances = tuple(instances)
        self._clock = clock
        self._ids = ids
        self._recorder = recorder
        self._log = log
        self._seen = seen

    async def receive(self, delivery: Delivery, call: Call) -> Accepted:
        """Returns once the invalidation holds, or is in the journal; every delivery invalidates, a duplicate makes no
        second event.

        Raises:
            FeatureDisabled: no secret is configured.
            NotAuthenticated: no proof, a wrong one, or one that opens another account.
            InvalidInput: the account is unknown, contradictory, or left out where several are served.
            UnknownPayload: the body names no record we know.
            CacheUnavailable: the invalidation could not be made to hold; the sender should try again.
        """
        received_at = self._clock.now()
        try:
            instance = self._admitted(delivery, received_at)
            try:
                event = self._understood(delivery, instance, received_at, call)
            except UnknownPayload:
                await self._rejected(self._not_understood(delivery, instance, received_at, call), "unknown_payload")
                raise
        except ProjectError as refusal:
            self._recorder.count("webhooks", entity="unknown", outcome=_OUTCOMES.get(type(refusal), "refused"))
            raise
        entity = event.entity
        try:
            appended = await self._append_and_bump(event, call)
        except CacheUnavailable:
            self._recorder.count("webhooks", entity=entity, outcome="unavailable")
            raise
        self._seen.note(instance, Entity(entity), received_at)
        self._recorder.count("webhooks", entity=entity, outcome=_outcome(appended))
        self._log.info(
            "Invalidation journalled" if appended.journalled else "Cache invalidated",
            event_name=event.name,
            resource=entity,
            id=event.record_id,
            tags=list(event.tags),
            instance=instance,
            event_id=appended.event_id,
            duplicate=appended.duplicate,
            latency_ms=round(appended.latency_ms, 3),
            request_id=call.request_id,
        )
        return Accepted(appended.event_id, appended.duplicate, appended.journalled)

    def _admitted(self, delivery: Delivery, now: float) -> str:
        if not self._secrets.any:
            raise FeatureDisabled(
                "Webhooks are switched off: set WEBHOOK_SECRET or WEBHOOK_SIGNING_SECRET.", code="webhooks_disabled"
            )
        match verify(self._secrets, delivery.headers, delivery.tokens, delivery.raw, now):
            case Rejected():
                raise _invalid_signature()
            case Verified(instances=opened):
                instance = self._account(delivery.instances)
                if opened is not None and instance not in opened:
                    raise _invalid_signature()
                return instance

    def _account(self, named: Sequence[str]) -> str:
        names = set(named)
        if not names and len(self._instances) == 1:
            return self._instances[0]
        if not names:
            raise InvalidInput("Several accounts are served here: add ?instance=<name> to the URL.", field="instance")
        if len(names) > 1:
            raise InvalidInput("The request names two accounts.", field="instance")
        (name,) = names
        if name not in self._instances:
            raise InvalidInput("No account of that name is served here.", field="instance")
        return name

    def _understood(self, delivery: Delivery, instance: str, received_at: float, call: Call) -> Event:
        try:
            body = orjson.loads(delivery.raw)
        except orjson.JSONDecodeError as fault:
            raise UnknownPayload("The body is not valid JSON.") from fault
        parsed = parse_body(body)
        change = parsed.change
        delivery_id = delivery.headers.get("webhook-id", "").strip()
        return Event.of_change(
            change,
            event_id=self._ids(),
            instance=instance,
            name=parsed.name,
            tags=tags_of_change(change),
            source="webhook",
            received_at=received_at,
            is_new=parsed.is_new,
            dedupe_key=dedupe_key(instance, parsed, body, delivery_id or None),
            version_key=""
            if change.occurred_at is None
            else version_key(instance, change.ref.entity, change.ref.jnid, change.occurred_at),
            request_id=call.request_id,
            body=_text(delivery.raw),
        )

    def _not_understood(self, delivery: Delivery, instance: str, received_at: float, call: Call) -> Event:
        return Event(
            event_id=self._ids(),
            instance=instance,
            name="unknown",
            entity="unknown",
            record_id="",
            action=Action.UNKNOWN.value,
            tags=(),
            source="webhook",
            received_at=received_at,
            request_id=call.request_id,
            body=_text(delivery.raw),
        )


_OUTCOMES: Mapping[type[ProjectError], str] = {
    FeatureDisabled: "disabled",
    NotAuthenticated: "refused",
    InvalidInput: "bad_instance",
    UnknownPayload: "unknown_payload",
}


def _outcome(appended: Appended) -> str:
    if appended.journalled:
        return "journalled"
    return "duplicate" if appended.duplicate else "applied"


def _invalid_signature() -> NotAuthenticated:
    return NotAuthenticated("Invalid signature", code="invalid_signature")


def _text(raw: bytes) -> str:
    return raw[:BODY_MOST].decode("utf-8", "replace")
