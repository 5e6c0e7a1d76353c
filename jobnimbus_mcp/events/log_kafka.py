"""The event log in Kafka: a topic for each account, a group for each consumer, and what became of each event beside it.

    <prefix>.events.<instance>         PARTITIONS partitions, the part of a record's events that of `partition_of`
    <prefix>.events.<instance>.dead    what was given up, for whoever reads Kafka; the trace is what counts
    <prefix>-mcp.<consumer>            the group of a consumer, over all accounts

Kafka keeps no state of a single event, so a `KafkaTrace` does. Nothing is asked of Kafka's watermarks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.client_kafka import KafkaClient, KafkaSecurity, TopicPlan
from jobnimbus_mcp.events.event import PARTITIONS, Event, partition_of
from jobnimbus_mcp.events.message_kafka import dead_topic, topic, write_message
from jobnimbus_mcp.events.ports import (
    ACT_WITHIN_S,
    EventPage,
    EventQuery,
    EventsUnavailable,
    Lag,
    Rates,
    Routes,
    Traced,
)
from jobnimbus_mcp.events.ports_kafka import KafkaTrace, Opened
from jobnimbus_mcp.events.subscription_kafka import KafkaSubscription

__all__ = ["APPEND_WITHIN_S", "KafkaEvents"]

APPEND_WITHIN_S = 5.0


class KafkaEvents:
    """The log of the accounts `instances`. `trace` is the caller's to close.

    `session_s`: after how long without a sign of life a process's partitions are another's; the brokers must allow it
    as a session time-out. `claim_idle_s`: for how long what it has in hand stays its own even then; more than
    ACT_WITHIN_S outside tests.
    `new_holder`: unguessable text, another each time. The others are as `KafkaClient` says.

    Raises:
        SettingsError: the client library is not installed, or the settings do not fit together.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        trace: KafkaTrace,
        *,
        clock: Clock,
        instances: Sequence[str],
        new_holder: Callable[[], str],
        prefix: str = "jobnimbus",
        claim_idle_s: float = ACT_WITHIN_S + 10,
        session_s: float = 10.0,
        security: KafkaSecurity | None = None,
        plan: TopicPlan | None = None,
        idempotent: bool | None = None,
        fetch_wait_s: float = 0.5,
    ) -> None:
        self._client = KafkaClient(
            bootstrap_servers, security=security, plan=plan, idempotent=idempotent, fetch_wait_s=fetch_wait_s
        )
        self._trace = trace
        self._clock = clock
        self._instances = tuple(instances)
        self._new_holder = new_holder
        self._prefix = prefix
        self._claim_idle_s = claim_idle_s
        self._session_s = session_s
        self._topics_due = True
        self._readying = asyncio.Lock()
        self._subscriptions: set[KafkaSubscription] = set()

    # -- writing -----------------------------------------------------------------------------------------------------

    async def append(self, event: Event, routes: Routes) -> bool:
        try:
            async with asyncio.timeout(APPEND_WITHIN_S):
                await self._provide()
                opened = await self._trace.begin(event, routes)
                if opened is Opened.SHIPPED:
                    return False
                if routes:
                    await self._ship(event, routes)
                await self._trace.shipped(event.instance, event.event_id)
        except TimeoutError as error:
            raise EventsUnavailable("TimeoutError") from error
        return True

    async def _ship(self, event: Event, routes: Routes) -> None:
        await self._client.send(
            topic(self._prefix, event.instance),
            partition_of(event.record),
            event.record.encode(),
            write_message(event, routes),
        )

    async def _provide(self) -> None:
        """The topics are there, as far as this process knows."""
        if not self._topics_due:
            return
        async with self._readying:
            topics = {topic(self._prefix, instance): PARTITIONS for instance in self._instances}
            await self._client.provide(topics | {dead_topic(self._prefix, instance): 1 for instance in self._instances})
            self._topics_due = False

    # -- acting ------------------------------------------------------------------------------------------------------

    async def open(self, consumers: Sequence[str]) -> None:
        await self._provide()
        await self._trace.register(consumers)

    def subscribe(self, consumer: str) -> KafkaSubscription:
        subscription = KafkaSubscription(
            consumer,
            client=self._client,
            trace=self._trace,
            clock=self._clock,
            prefix=self._prefix,
            instances=self._instances,
            holder=self._new_holder(),
            hold_s=self._claim_idle_s,
            session_s=self._session_s,
            provide=self._provide,
            closed=self._subscriptions.discard,
        )
        self._subscriptions.add(subscription)
        return subscription

    # -- looking -----------------------------------------------------------------------------------------------------

    async def show(self, instance: str, event_id: str) -> Traced | None:
        return await self._trace.show(instance, event_id)

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        return await self._trace.find(instance, query)

    async def replay(self, instance: str, event_id: str, consumer: str | None = None) -> tuple[str, ...]:
        await self._provide()
        revived = await self._trace.revive(instance, event_id, consumer)
        if revived is None:
            return ()
        event, consumers = revived
        now = self._clock.now()
        await self._ship(event, dict.fromkeys(consumers, now))
        await self._trace.shipped(instance, event_id)
        return consumers

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        return await self._trace.lag(instance)

    async def rates(self, instance: str) -> Mapping[str, Rates]:
        return await self._trace.rates(instance)

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, Mapping[str, bool]]:
        return await self._trace.standing(instance, event_ids)

    async def reject(self, event: Event, reason: str) -> None:
        await self._trace.reject(event, reason)

    # -- keeping -----------------------------------------------------------------------------------------------------

    async def clean(self, *, archived_before: float, dead_before: float) -> int:
        return await self._trace.clean(archived_before=archived_before, dead_before=dead_before)

    async def retire(self, consumers: Sequence[str]) -> int:
        return await self._trace.retire(consumers)

    async def durable(self) -> bool:
        """Brokers keep what they have confirmed; a trace that is lost is made again from the messages."""
        return True

    async def ping(self) -> None:
        await self._trace.ping()
        expected = topic(self._prefix, self._instances[0]) if self._instances else ""
        found = await self._client.partitions([expected])
        if not self._topics_due and expected and found.get(expected) != PARTITIONS:
            self._topics_due = True
            raise EventsUnavailable("TopicMissing")

    async def aclose(self) -> None:
        await asyncio.gather(*(subscription.aclose() for subscription in self._subscriptions))
        await self._client.aclose()
