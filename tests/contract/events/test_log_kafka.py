"""The event log in Kafka: what is its own beside the suite of all logs."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import subprocess
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis
from events_world_kafka import KafkaWorld, joined, redis_of, world
from hypothesis import given
from hypothesis import strategies as st
from kafka_broker import KafkaBroker, Proxy, free_port

from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events import subscription_kafka
from jobnimbus_mcp.events.client_kafka import KafkaClient, KafkaSecurity, TopicPlan
from jobnimbus_mcp.events.event import PARTITIONS, Event, event_id_at, partition_of
from jobnimbus_mcp.events.message_kafka import dead_topic, group_id, read_message, topic, write_message
from jobnimbus_mcp.events.ports import Attempt, EventsUnavailable, Fate, Settled, Subscription, Taken
from jobnimbus_mcp.events.progress_kafka import Progress

SETTLE = "settle"
BOUND_S = 15.0

_numbers = itertools.count(1)


def change(instance: str, record_id: str = "j1", *, body: str = "") -> Event:
    now = SystemClock().now()
    return Event(
        event_id=event_id_at(now, f"{next(_numbers):020x}"),
        instance=instance,
        name="job.updated",
        entity="jobs",
        record_id=record_id,
        action="updated",
        tags=("jobs",),
        source="webhook",
        received_at=now,
        body=body,
    )


def settled(taken: Taken, fate: Fate = Fate.DONE, reason: str = "") -> Settled:
    return Settled(taken, fate, Attempt(taken.due_at, "r", 1.0, None, reason, ""), taken.due_at, reason)


async def take(hand: Subscription, count: int = 1) -> list[Taken]:
    found: list[Taken] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < count:
            try:
                found += await hand.take(count - len(found), wait_s=1.0)
            except EventsUnavailable:
                await asyncio.sleep(0.05)
    return found


@pytest.fixture
async def kafka(request: pytest.FixtureRequest) -> AsyncIterator[KafkaWorld]:
    async with world(request) as made:
        yield made


# -- pure parts ------------------------------------------------------------------------------------------------------


@given(st.permutations(range(12)), st.integers(0, 12))
def test_what_may_be_committed_is_everything_before_the_first_unfinished(order: Sequence[int], count: int) -> None:
    progress = Progress()
    assert progress.to_commit() is None
    for offset in range(12):
        assert progress.begin(100 + offset)
        assert not progress.begin(100 + offset)
    finished = set(order[:count])
    for offset in finished:
        progress.finish(100 + offset)
    first = next((offset for offset in range(12) if offset not in finished), 12)
    assert progress.to_commit() == 100 + first
    progress.committed(100 + first)
    assert progress.to_commit() is None


def test_a_message_holds_the_event_its_body_and_whom_it_is_for() -> None:
    event = change("acme", body='{"name": "Grüße"}')
    raw = write_message(event, {"settle": 1_790_000_000.25, "relay:crm": 1_790_000_020.0})
    message = read_message(raw, "acme")
    assert message.event == event
    assert message.routes == {"settle": 1_790_000_000.25, "relay:crm": 1_790_000_020.0}


@pytest.mark.parametrize(
    "raw", [None, b"", b"{}", b"[]", b"\xff", b'{"v": 2}', b'{"v":1,"event":{},"body":"","to":{}}']
)
def test_a_message_that_is_none_of_ours_is_not_read(raw: bytes | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # also those of the JSON parser
        read_message(raw, "acme")


def test_a_message_in_another_accounts_topic_is_not_read() -> None:
    with pytest.raises(ValueError, match="another account"):
        read_message(write_message(change("acme"), {SETTLE: 1.0}), "other")


# -- settings --------------------------------------------------------------------------------------------------------


def test_sasl_settings_are_passed_on() -> None:
    security = KafkaSecurity(
        "SASL_SSL", "SCRAM-SHA-512", "jobnimbus", "p@ss", ca_file="ca.pem", cert_file="own.pem", key_file="own.key"
    )
    files: dict[str, Any] = {}
    context = ssl.create_default_context()

    def made(**told: Any) -> ssl.SSLContext:
        files.update(told)
        return context

    assert security.arguments(made) == {
        "security_protocol": "SASL_SSL",
        "ssl_context": context,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "jobnimbus",
        "sasl_plain_password": "p@ss",
    }
    assert files == {"cafile": "ca.pem", "certfile": "own.pem", "keyfile": "own.key"}
    assert "p@ss" not in repr(security)
    assert KafkaSecurity().arguments(made) == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": "TLS"},
        {"protocol": "SASL_SSL"},
        {"protocol": "SASL_SSL", "username": "u"},
        {"protocol": "SASL_SSL", "mechanism": "GSSAPI", "username": "u", "password": "p"},
        {"protocol": "SSL", "username": "u", "password": "p"},
        {"protocol": "SSL", "key_file": "own.key"},
    ],
)
def test_settings_that_do_not_fit_together_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        KafkaSecurity(**wrong)


async def test_without_the_client_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    with pytest.raises(SettingsError, match=r"pip install .\.\[kafka\]"):
        KafkaClient("127.0.0.1:1")


async def test_without_brokers_the_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS"):
        KafkaClient(" , ")


async def test_topics_are_made_with_their_partitions_or_checked(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    client: Any = log._client
    own, dead = topic(kafka.prefix, kafka.instance), dead_topic(kafka.prefix, kafka.instance)
    careful = KafkaClient(kafka.bootstrap, plan=TopicPlan(create=False))
    with pytest.raises(SettingsError, match=f"no topic {own}"):
        await careful.provide({own: PARTITIONS})
    await log.open([])
    await careful.provide({own: PARTITIONS, dead: 1})
    assert await client.partitions([own, dead, "nobody's"]) == {own: PARTITIONS, dead: 1}
    narrow = topic(kafka.prefix, "narrow")
    await client.provide({narrow: 3})
    with pytest.raises(SettingsError, match="3 partitions and needs 8"):
        await careful.provide({narrow: PARTITIONS})
    await careful.aclose()


# -- against the broker ----------------------------------------------------------------------------------------------


async def test_an_event_is_where_its_record_belongs_and_a_dead_letter_says_why(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    await log.open([SETTLE])
    event = change(kafka.instance, "j7", body='{"jnid": "j7"}')
    assert await log.append(event, {SETTLE: event.received_at})
    hand = log.subscribe(SETTLE)
    await hand.settle([settled((await take(hand))[0], Fate.DEAD, "http_500")])
    reader = log._client._library.AIOKafkaConsumer(
        topic(kafka.prefix, kafka.instance),
        dead_topic(kafka.prefix, kafka.instance),
        bootstrap_servers=kafka.bootstrap,
        auto_offset_reset="earliest",
    )
    await reader.start()
    found: list[Any] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < 2:
            for records in (await reader.getmany(timeout_ms=500)).values():
                found += records
    await reader.stop()
    live, dead = sorted(found, key=lambda record: record.topic)
    assert (live.partition, live.key) == (partition_of(event.record), b"jobs:j7")
    assert read_message(live.value, kafka.instance).event == event
    assert dict(dead.headers) == {"consumer": b"settle", "reason": b"http_500", "attempts": b"1"}
    assert read_message(dead.value, kafka.instance).event == event


async def test_a_group_goes_on_from_the_first_event_that_is_not_finished(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    await log.open([SETTLE])
    events = [change(kafka.instance) for _ in range(3)]
    for event in events:
        await log.append(event, {SETTLE: event.received_at})
    hand = log.subscribe(SETTLE)
    for _ in range(2):
        await hand.settle([settled((await take(hand))[0])])
    await hand.aclose()
    library = log._client._library
    part = library.TopicPartition(topic(kafka.prefix, kafka.instance), partition_of("jobs:j1"))
    member = log._client.consumer(group_id(kafka.prefix, SETTLE), session_s=1.0)
    member.assign([part])
    await member.start()
    committed = await member.committed(part)
    await member.stop()
    assert committed == 2


async def test_a_broker_without_idempotent_producers_is_gone_on_with_unless_they_are_demanded(
    kafka: KafkaWorld,
) -> None:
    log, strict = await kafka.log(), await kafka.log(idempotent=True)
    event = change(kafka.instance)
    with pytest.raises(EventsUnavailable):
        await strict.append(event, {SETTLE: event.received_at})
    assert await log.append(event, {SETTLE: event.received_at})


async def test_a_message_of_somebody_else_is_passed_over(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    await log.open([SETTLE])
    event = change(kafka.instance)
    part = partition_of(event.record)
    await log._client.send(topic(kafka.prefix, kafka.instance), part, b"k", b"no event of ours")
    assert await log.append(event, {SETTLE: event.received_at})
    hand = log.subscribe(SETTLE)
    assert [taken.event for taken in await take(hand)] == [event]


async def test_what_was_begun_and_never_shipped_is_shipped_by_the_next_append(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    await log.open([SETTLE])
    event = change(kafka.instance)
    routes = {SETTLE: event.received_at}
    await kafka.trace().begin(event, routes)
    hand = log.subscribe(SETTLE)
    assert await hand.take(1, wait_s=0.2) == ()
    assert await log.append(event, routes)
    assert not await log.append(event, routes)
    assert [taken.event for taken in await take(hand)] == [event]


async def test_a_dead_letter_that_cannot_be_told_is_handed_out_again_and_what_was_done_is_not(
    kafka: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await kafka.log()
    await log.open([SETTLE])
    fine, poison = change(kafka.instance, "j1"), change(kafka.instance, "j2")
    for event in (fine, poison):
        await log.append(event, {SETTLE: event.received_at})
    hand = log.subscribe(SETTLE)
    batch = {taken.event.event_id: taken for taken in await take(hand, 2)}

    async def away(*_: Any) -> None:
        raise EventsUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(log._client, "send", away)
        with pytest.raises(EventsUnavailable):
            await hand.settle([settled(batch[poison.event_id], Fate.DEAD, "http_500"), settled(batch[fine.event_id])])
    assert [taken.event for taken in await take(hand)] == [poison]
    assert (await log.lag(kafka.instance))[SETTLE][:2] == (1, 0)


async def test_consumers_that_were_never_opened_are_told_of_and_can_be_retired(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    event = change(kafka.instance)
    await log.append(event, {"ghost": event.received_at})
    assert (await log.lag(kafka.instance))["ghost"].due == 1
    assert await log.retire([SETTLE]) == 1
    late = change(kafka.instance)
    await log.append(late, {"ghost": late.received_at})
    assert await log.retire([SETTLE]) == 1
    assert (await log.lag(kafka.instance))["ghost"] == (0, 0, 0.0, 2)


async def test_a_replay_that_was_never_shipped_is_shipped_by_the_next(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    await log.open([SETTLE])
    event = change(kafka.instance)
    await log.append(event, {SETTLE: event.received_at})
    hand = log.subscribe(SETTLE)
    await hand.settle([settled((await take(hand))[0], Fate.DEAD, "http_500")])
    revived = await kafka.trace().revive(kafka.instance, event.event_id, None)
    assert revived is not None
    assert await hand.take(1, wait_s=0.2) == ()
    assert await log.replay(kafka.instance, event.event_id) == (SETTLE,)
    assert [taken.event for taken in await take(hand)] == [event]


async def test_a_trace_that_lost_everything_is_made_again_from_the_messages(kafka: KafkaWorld) -> None:
    log = await kafka.log()
    await log.open([SETTLE])
    finished, waiting = change(kafka.instance, "j1"), change(kafka.instance, "j2")
    for event in (finished, waiting):
        await log.append(event, {SETTLE: event.received_at, "other": event.received_at})
    hand = log.subscribe(SETTLE)
    with redis.Redis.from_url(kafka.redis_url) as plain:
        plain.delete(*plain.scan_iter(f"jobnimbus-sys:{{{kafka.instance}}}:kafka:*"))
    again = {taken.event.event_id: taken for taken in await take(hand, 2)}
    assert set(again) == {finished.event_id, waiting.event_id}
    await hand.settle([settled(again[finished.event_id])])
    traced = await log.show(kafka.instance, finished.event_id)
    # of the other consumer nothing is known, and its own messages will tell
    assert traced is not None
    assert {name: told.state for name, told in traced.consumers.items()} == {SETTLE: "done"}


@pytest.mark.long
async def test_memory_is_bounded_and_nothing_is_lost_by_it(kafka: KafkaWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription_kafka, "WAITING_MOST", 20)
    monkeypatch.setattr(subscription_kafka, "_FETCH_MOST", 10)
    log = await kafka.log()
    await log.open([SETTLE])
    events = [change(kafka.instance, f"j{number}") for number in range(120)]
    for event in events:
        await log.append(event, {SETTLE: event.received_at})
    hand = log.subscribe(SETTLE)
    seen: list[str] = []
    most = 0
    async with asyncio.timeout(BOUND_S):
        while len(seen) < len(events):
            batch = await hand.take(10, wait_s=1.0)
            most = max(most, len(hand._waiting))
            seen += [taken.event.event_id for taken in batch]
            await hand.settle([settled(taken) for taken in batch])
    assert sorted(seen) == [event.event_id for event in events]
    assert most <= 30


async def test_what_is_in_hand_stays_ones_own_while_the_partitions_go_to_another(kafka: KafkaWorld) -> None:
    log, other = await kafka.log(), await kafka.log()
    await log.open([SETTLE])
    events = [change(kafka.instance, f"j{number % 16}") for number in range(32)]
    for event in events:
        await log.append(event, {SETTLE: event.received_at})
    first = log.subscribe(SETTLE)
    in_hand = await take(first, 16)
    second = other.subscribe(SETTLE)
    await joined(second)
    # both have half of the partitions now, and read again what is not committed
    assert await second.take(50, wait_s=0.5) == ()
    await first.settle([settled(taken) for taken in in_hand])
    rest: list[str] = []
    async with asyncio.timeout(BOUND_S):
        while len(rest) < 16:
            for hand in (first, second):
                batch = await hand.take(16, wait_s=0.1)
                rest += [taken.event.event_id for taken in batch]
                await hand.settle([settled(taken) for taken in batch])
    assert sorted(rest) == [event.event_id for event in events[16:]]


@pytest.mark.long
async def test_while_the_broker_is_away_appending_fails_in_time_and_afterwards_all_goes_on(
    request: pytest.FixtureRequest,
) -> None:
    port = free_port()
    proxy = Proxy(port)
    broker = KafkaBroker(advertised=port)
    proxy.target = broker.port
    away = KafkaWorld(f"127.0.0.1:{port}", redis_of(request))
    try:
        log = await away.log()
        event, late = change(away.instance, "j1"), change(away.instance, "j2")
        began = away.clock.monotonic()
        with pytest.raises(EventsUnavailable):
            await log.append(event, {SETTLE: event.received_at})
        assert away.clock.monotonic() - began < 5.5
        await proxy.open()
        await log.open([SETTLE])
        assert await log.append(event, {SETTLE: event.received_at})
        hand = log.subscribe(SETTLE)
        await hand.settle([settled(taken) for taken in await take(hand)])

        await proxy.close()
        began = away.clock.monotonic()
        with pytest.raises(EventsUnavailable):
            await log.append(late, {SETTLE: late.received_at})
        assert away.clock.monotonic() - began < 5.5
        with pytest.raises(EventsUnavailable):
            await log.ping()
        await proxy.open()
        async with asyncio.timeout(BOUND_S):
            while True:
                try:
                    await log.append(late, {SETTLE: late.received_at})
                    break
                except EventsUnavailable:
                    await asyncio.sleep(0.1)
        assert [taken.event for taken in await take(hand)] == [late]
        await log.ping()
    finally:
        await away.close()
        await proxy.close()
        broker.close()


# -- processes that die ----------------------------------------------------------------------------------------------

_WORKER = textwrap.dedent(
    """
    import asyncio, secrets, sys
    from jobnimbus_mcp.cache.connect_redis import connect
    from jobnimbus_mcp.cache.scripts_redis import Scripts
    from jobnimbus_mcp.clock import SystemClock
    from jobnimbus_mcp.events.log_kafka import KafkaEvents
    from jobnimbus_mcp.events.ports import Attempt, Fate, Settled
    from jobnimbus_mcp.events.trace_of_kafka_redis import KafkaTraceInRedis

    async def main(bootstrap, redis_url, prefix, instance):
        clock, effects = SystemClock(), connect(redis_url)
        client = connect(redis_url)
        runner = Scripts(client, package="jobnimbus_mcp.events.scripts")
        log = KafkaEvents(
            bootstrap, KafkaTraceInRedis(runner, clock=clock, instances=[instance]), clock=clock, instances=[instance],
            new_holder=lambda: secrets.token_hex(8), prefix=prefix, claim_idle_s=2.0, session_s=1.0, fetch_wait_s=0.05,
        )
        hand = log.subscribe("settle")
        while True:
            for taken in await hand.take(20, wait_s=1.0):
                event = taken.event
                await effects.rpush(f"effects:{event.record_id}", event.event_id)
                tried = Attempt(clock.now(), "r", 1.0)
                await hand.settle([Settled(taken, Fate.DONE, tried)])

    asyncio.run(main(*sys.argv[1:]))
    """
)


@pytest.mark.long
async def test_workers_that_are_killed_lose_nothing_and_no_record_loses_its_order(kafka: KafkaWorld) -> None:
    log = await kafka.log(joins=False)
    await log.open([SETTLE])
    records = [f"{kafka.instance}-j{number}" for number in range(20)]
    arguments = (kafka.bootstrap, kafka.redis_url, kafka.prefix, kafka.instance)

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", _WORKER, *arguments])

    workers = [started() for _ in range(3)]
    events = [change(kafka.instance, record_id) for _ in range(50) for record_id in records]
    try:
        for number, event in enumerate(events):
            await log.append(event, {SETTLE: event.received_at})
            if number in (300, 700):
                await asyncio.sleep(2.0)
                workers[0].kill()
                workers[0].wait(5)
                workers[0] = workers.pop()
                workers.append(started())
        async with asyncio.timeout(45):
            while (await log.lag(kafka.instance))[SETTLE].due:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.2)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(5)
    did: dict[str, list[str]] = defaultdict(list)
    with redis.Redis.from_url(kafka.redis_url) as plain:
        for record_id in records:
            did[record_id] = [each.decode() for each in plain.lrange(f"effects:{record_id}", 0, -1)]
            plain.delete(f"effects:{record_id}")
    expected = Counter(event.event_id for event in events)
    effects = Counter(event_id for ids in did.values() for event_id in ids)
    assert set(effects) == set(expected)
    # what was in hand of the two that were killed may have been done before
    assert sum((effects - expected).values()) <= 40
    for ids in did.values():
        assert ids == sorted(ids)
