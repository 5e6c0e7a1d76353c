"""The world of the event log in Kafka: one broker for the session, topics and an account of its own for each test."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from kafka_broker import KafkaBroker
from redis.asyncio import Redis

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.events.log_kafka import KafkaEvents
from jobnimbus_mcp.events.subscription_kafka import KafkaSubscription
from jobnimbus_mcp.events.trace_of_kafka_redis import KafkaTraceInRedis

if TYPE_CHECKING:
    from jobnimbus_mcp.events.ports import EventLog

__all__ = ["KafkaWorld", "session_broker", "world"]

SESSION_S = 1.0
"""This broker lets a new member wait for half as long, and for a second at least."""

FETCH_WAIT_S = 0.04
"""This broker tells of what is new after half of it, and not before."""

_KEPT = pytest.StashKey[KafkaBroker]()
_numbers = itertools.count(1)


def session_broker(request: pytest.FixtureRequest) -> KafkaBroker:
    """The session's broker, started when first asked for."""
    session = request.session
    if _KEPT not in session.stash:
        session.stash[_KEPT] = broker = KafkaBroker()
        session.config.add_cleanup(broker.close)
    return session.stash[_KEPT]


def redis_of(request: pytest.FixtureRequest) -> str:
    """URL of the session's Redis; accounts keep the tests apart."""
    server = request.getfixturevalue("redis_server")
    if server.process.poll() is not None:
        server.restart()
    return str(server.url)


class JoinedEvents(KafkaEvents):
    """Its members have joined their groups when `open` returns, so tests need not reckon with this broker's wait."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._joined: dict[str, KafkaSubscription] = {}

    async def open(self, consumers: Sequence[str]) -> None:
        await super().open(consumers)
        for consumer in consumers:
            if consumer not in self._joined:
                self._joined[consumer] = super().subscribe(consumer)
        await asyncio.gather(*map(joined, self._joined.values()))

    def subscribe(self, consumer: str) -> KafkaSubscription:
        return self._joined.pop(consumer, None) or super().subscribe(consumer)


async def joined(subscription: KafkaSubscription) -> None:
    """Return when partitions are assigned to it."""
    assert await subscription.take(0, wait_s=0.0) == ()
    async with asyncio.timeout(10):
        while not subscription._progress:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.01)


class KafkaWorld:
    """As `events_world.World`. `prefix`: of the topics and groups."""

    limits: frozenset[str] = frozenset()

    def __init__(self, bootstrap: str, redis_url: str) -> None:
        self.clock = SystemClock()
        self.bootstrap = bootstrap
        self.redis_url = redis_url
        self.instance = f"acme{next(_numbers)}"
        self.prefix = f"t{secrets.token_hex(4)}"
        self._logs: list[KafkaEvents] = []
        self._clients: list[Redis] = []

    def trace(self) -> KafkaTraceInRedis:
        client = connect(self.redis_url)
        self._clients.append(client)
        runner = Scripts(client, package="jobnimbus_mcp.events.scripts")
        return KafkaTraceInRedis(runner, clock=self.clock, instances=[self.instance])

    async def log(self, *, claim_idle_s: float = 30.0, joins: bool = True, **options: Any) -> KafkaEvents:
        # a member that joined and never takes holds back its partitions, so only the first log has them from the start
        kind = JoinedEvents if joins and not self._logs else KafkaEvents
        log = kind(
            self.bootstrap,
            self.trace(),
            clock=self.clock,
            instances=[self.instance],
            new_holder=lambda: secrets.token_hex(8),
            prefix=self.prefix,
            claim_idle_s=claim_idle_s,
            session_s=SESSION_S,
            fetch_wait_s=FETCH_WAIT_S,
            **options,
        )
        self._logs.append(log)
        return log

    async def crash(self, log: EventLog) -> None:
        """The members say nothing to their groups any more, and nothing is committed or given back."""
        assert isinstance(log, KafkaEvents)
        client: Any = log._client
        stop = client.stop

        async def no_commit(member: Any, offsets: Any) -> None:
            return

        async def leave_nothing(member: Any) -> None:
            async def stay() -> None:
                return

            member._coordinator._maybe_leave_group = stay
            await stop(member)

        client.commit, client.stop = no_commit, leave_nothing
        for subscription in tuple(log._subscriptions):
            subscription._hand.clear()
        await log.aclose()

    async def close(self) -> None:
        for log in self._logs:
            await log.aclose()
        for client in self._clients:
            await client.aclose()


@asynccontextmanager
async def world(request: pytest.FixtureRequest) -> AsyncIterator[KafkaWorld]:
    made = KafkaWorld(session_broker(request).bootstrap, redis_of(request))
    try:
        yield made
    finally:
        await made.close()
