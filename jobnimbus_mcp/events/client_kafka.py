"""Kafka's client: how it is asked to connect, the topics it needs, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events.event import PARTITIONS
from jobnimbus_mcp.events.ports import EventsUnavailable

__all__ = ["GroupListener", "KafkaClient", "KafkaSecurity", "TopicPlan"]

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """`protocol`: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL. `mechanism`: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    `ca_file`: whom to trust instead of the machine's own authorities; `cert_file` and `key_file`: who we are, where the
    broker asks for a certificate.

    Raises:
        SettingsError: they do not fit together.
    """

    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def __post_init__(self) -> None:
        if self.protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
            raise SettingsError("Kafka's security protocol is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.")
        if self.protocol.startswith("SASL"):
            if self.mechanism not in _MECHANISMS:
                raise SettingsError(f"Kafka's SASL mechanism is one of {', '.join(_MECHANISMS)}.")
            if not (self.username and self.password):
                raise SettingsError("SASL with Kafka needs a user name and a password.")
        elif self.username or self.password:
            raise SettingsError("A user name and a password for Kafka need SASL_SSL (or SASL_PLAINTEXT).")
        if self.key_file and not self.cert_file:
            raise SettingsError("A key file for Kafka needs its certificate file.")

    def arguments(self, ssl_context: Callable[..., Any]) -> dict[str, Any]:
        """Of the client's constructors. `ssl_context`: makes one of `cafile`, `certfile` and `keyfile`."""
        told: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            files = {"cafile": self.ca_file, "certfile": self.cert_file, "keyfile": self.key_file}
            told["ssl_context"] = ssl_context(**{name: path or None for name, path in files.items()})
        if self.protocol.startswith("SASL"):
            told |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return told


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """How topics are made where they are absent. `create` False: an absent topic is a mistake of the settings.
    `replication` -1 is the broker's own default."""

    create: bool = True
    replication: int = -1
    retention_s: float = 7 * 86_400


class GroupListener(Protocol):
    """Hears of partitions, as (topic, number), that another member has now and that are ours from now on."""

    async def revoked(self, member: Any, parts: Sequence[tuple[str, int]]) -> None: ...

    def assigned(self, parts: Sequence[tuple[str, int]]) -> None: ...


class KafkaClient:
    """One process's connections to the brokers; the library is imported here and nowhere else.

    `idempotent`: whether the broker is to number what the producer sends; None: where it is able to. `fetch_wait_s`:
    for how long a broker holds back its answer to a reader while there is nothing new; some do so even when there is.

    Raises:
        SettingsError: the library is not installed, or the settings do not fit together.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        security: KafkaSecurity | None = None,
        plan: TopicPlan | None = None,
        idempotent: bool | None = None,
        client_id: str = "jobnimbus-mcp",
        answer_s: float = 4.0,
        fetch_wait_s: float = 0.5,
    ) -> None:
        try:
            import aiokafka
            from aiokafka import admin, errors, helpers
        except ImportError as error:
            raise SettingsError(
                "EVENTS_TRANSPORT=kafka needs aiokafka: pip install '.[kafka]' in the clone."
            ) from error
        # while a broker is away it says so several times a second; what matters is told where its errors are met
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        self._library: Any = aiokafka
        self._admin: Any = admin
        self.errors: Any = errors
        self._plan = plan or TopicPlan()
        self._idempotent = idempotent
        self._answer_s = answer_s
        self._fetch_wait_s = fetch_wait_s
        self._shared = {
            "bootstrap_servers": [server.strip() for server in bootstrap_servers.split(",") if server.strip()],
            "client_id": client_id,
            **(security or KafkaSecurity()).arguments(helpers.create_ssl_context),
        }
        if not self._shared["bootstrap_servers"]:
            raise SettingsError(
                "EVENTS_TRANSPORT=kafka needs KAFKA_BOOTSTRAP_SERVERS (host:port, separated by commas)."
            )
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._closed = False

    @asynccontextmanager
    async def translated(self, within_s: float) -> AsyncIterator[None]:
        """Everything that goes wrong inside, and more than `within_s` of time, is EventsUnavailable."""
        try:
            async with asyncio.timeout(within_s):
                yield
        except (self.errors.KafkaError, OSError, TimeoutError) as error:
            # Only the class: a broker's own words may hold names of users and addresses.
            raise EventsUnavailable(type(error).__name__) from error

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Return when all brokers that have to have it, have it.

        Raises:
            EventsUnavailable: not known whether they do.
        """
        async with self.translated(self._answer_s):
            producer = await self._started()
            await producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))

    async def _started(self) -> Any:
        if self._producer is not None:
            return self._producer
        async with self._starting:
            if self._closed:
                raise EventsUnavailable("closed")
            if self._producer is None:
                self._producer = await self._new_producer()
        return self._producer

    async def _new_producer(self) -> Any:
        if self._idempotent is not False:
            try:
                return await self._start_producer(idempotent=True)
            except (
                self.errors.UnknownError,
                self.errors.UnsupportedVersionError,
                self.errors.IncompatibleBrokerVersion,
                self.errors.ClusterAuthorizationFailedError,
            ):
                if self._idempotent:
                    raise
                structlog.get_logger().warning("kafka broker refuses idempotent producers: going on without")
                self._idempotent = False
        return await self._start_producer(idempotent=False)

    async def _start_producer(self, *, idempotent: bool) -> Any:
        producer = self._library.AIOKafkaProducer(
            **self._shared,
            acks="all",
            enable_idempotence=idempotent,
            request_timeout_ms=int(self._answer_s * 1000),
            retry_backoff_ms=100,
        )
        try:
            await producer.start()
        except BaseException:
            await self._stop(producer)
            raise
        return producer

    # -- topics ------------------------------------------------------------------------------------------------------

    async def partitions(self, topics: Sequence[str]) -> Mapping[str, int]:
        """How many partitions each topic has that exists."""
        async with self.translated(self._answer_s), self._administration() as admin:
            return await self._partitions(admin, topics)

    async def provide(self, topics: Mapping[str, int]) -> None:
        """Make the topics that are absent, with so many partitions each; check the others.

        Raises:
            SettingsError: one has another number of partitions, or is absent and may not be made.
        """
        async with self.translated(self._answer_s), self._administration() as admin:
            found = await self._partitions(admin, tuple(topics))
            absent = [topic for topic in topics if topic not in found]
            if absent and self._plan.create:
                reply = await admin.create_topics([self._new_topic(topic, topics[topic]) for topic in absent])
                for topic, code, *_ in reply.topic_errors:
                    if code not in (0, self.errors.TopicAlreadyExistsError.errno):
                        raise self.errors.for_code(code)(topic)
                found = await self._partitions(admin, tuple(topics))
        for topic, number in topics.items():
            if topic not in found:
                raise SettingsError(
                    f"Kafka has no topic {topic}: make it, with {number} partitions (docs/events-kafka.md)."
                )
            if number == PARTITIONS and found[topic] != number:
                raise SettingsError(
                    f"Kafka's topic {topic} has {found[topic]} partitions and needs {number}; "
                    "delete it when it is empty, or use another prefix."
                )

    def _new_topic(self, topic: str, partitions: int) -> Any:
        configs = {"retention.ms": str(int(self._plan.retention_s * 1000)), "cleanup.policy": "delete"}
        # The library takes the broker's own replication only together with a list of replicas, which may be empty.
        replicas: dict[int, list[int]] | None = {} if self._plan.replication == -1 else None
        return self._admin.NewTopic(topic, partitions, self._plan.replication, replicas, topic_configs=configs)

    @asynccontextmanager
    async def _administration(self) -> AsyncIterator[Any]:
        admin = self._admin.AIOKafkaAdminClient(**self._shared, request_timeout_ms=int(self._answer_s * 1000))
        try:
            await admin.start()
            yield admin
        finally:
            async with asyncio.timeout(_STOP_S):
                await admin.close()

    async def _partitions(self, admin: Any, topics: Sequence[str]) -> dict[str, int]:
        # Asking for a topic by its name may make it, with the broker's own number of partitions; for all does not.
        there = set(await admin.list_topics()) & set(topics)
        if not there:
            return {}
        told = await admin.describe_topics(sorted(there))
        return {row["topic"]: len(row["partitions"]) for row in told if not row["error_code"]}

    # -- receiving ---------------------------------------------------------------------------------------------------

    def consumer(self, group: str, *, session_s: float) -> Any:
        """A member of the group that commits nothing by itself; to be started, and stopped by `stop`."""
        return self._library.AIOKafkaConsumer(
            **self._shared,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(session_s * 1000),
            heartbeat_interval_ms=max(100, min(3_000, int(session_s * 1000 / 5))),
            rebalance_timeout_ms=int(max(1.0, min(10.0, session_s)) * 1000),
            request_timeout_ms=40_000,
            fetch_max_wait_ms=int(self._fetch_wait_s * 1000),
        )

    def listener(self, member: Any, told: GroupListener) -> Any:
        """What the member tells of the partitions that come and go."""

        class Listener(self._library.ConsumerRebalanceListener):  # type: ignore[misc, name-defined]
            async def on_partitions_revoked(self, revoked: Sequence[Any]) -> None:
                await told.revoked(member, [tuple(part) for part in revoked])

            async def on_partitions_assigned(self, assigned: Sequence[Any]) -> None:
                told.assigned([tuple(part) for part in assigned])

        return Listener()

    async def commit(self, member: Any, offsets: Mapping[tuple[str, int], int]) -> None:
        """The next offset of each partition."""
        await member.commit({self._library.TopicPartition(*part): offset for part, offset in offsets.items()})

    async def stop(self, consumer: Any) -> None:
        await self._stop(consumer)

    async def aclose(self) -> None:
        self._closed = True
        async with self._starting:
            producer, self._producer = self._producer, None
        if producer is not None:
            await self._stop(producer)

    async def _stop(self, client: Any) -> None:
        try:
            async with asyncio.timeout(_STOP_S):
                await client.stop()
        except (self.errors.KafkaError, OSError, TimeoutError) as error:
            # It is to be forgotten either way; the broker notices by itself.
            structlog.get_logger().warning("kafka client not stopped in order", error=type(error).__name__)
