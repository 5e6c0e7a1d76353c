"""Asks the brokers that keep the events about themselves, for doctor; nothing is made there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from jobnimbus_mcp.doctor import EventFacts, EventsAway
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events.client_kafka import KafkaClient, KafkaSecurity
from jobnimbus_mcp.events.event import PARTITIONS
from jobnimbus_mcp.events.message_kafka import topic
from jobnimbus_mcp.events.ports import EventsUnavailable, Lag

__all__ = ["event_facts"]


async def event_facts(
    bootstrap_servers: str,
    instance: str,
    lags: Callable[[], Awaitable[Mapping[str, Lag]]],
    *,
    security: Callable[[], KafkaSecurity] = KafkaSecurity,
    prefix: str = "jobnimbus",
    timeout_s: float = 5.0,
) -> EventFacts:
    """The facts of one account's events. `lags`: asks the trace, which is elsewhere; it may raise EventsUnavailable.

    Raises:
        EventsAway: not reachable, a topic that does not fit, or the client is not installed; the message holds no
            credential.
    """
    try:
        client = KafkaClient(bootstrap_servers, security=security(), answer_s=timeout_s)
    except SettingsError as wrong:
        raise EventsAway(wrong.public_message.removesuffix(".")) from wrong
    name = topic(prefix, instance)
    try:
        there = (await client.partitions([name])).get(name)
        if there not in (None, PARTITIONS):
            raise EventsAway(f"the topic {name} has {there} partitions and needs {PARTITIONS}")
        return EventFacts(durable=True, lags=None if there is None else await lags())
    except EventsUnavailable as away:
        raise EventsAway(away.detail or "no answer in time") from away
    finally:
        await client.aclose()
