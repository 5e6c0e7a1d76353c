"""doctor over real parts: a Redis as it is set up, and JobNimbus's own word on the key."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from events_world_kafka import session_broker
from events_world_postgres import session_server
from kafka_broker import free_port

from jobnimbus_mcp.app import doctor_probes
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.cache.system_keys import seen_key
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.doctor import Finding, Level, examine
from jobnimbus_mcp.events.background_redis import RedisBackground
from jobnimbus_mcp.events.client_kafka import KafkaClient
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_postgres import PostgresEvents
from jobnimbus_mcp.events.log_redis import RedisEvents
from jobnimbus_mcp.events.message_kafka import topic
from jobnimbus_mcp.events.ports import Attempt, EventLog, Fate, Settled
from jobnimbus_mcp.events.watermark import Loss, Mark
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator

INSTANCE = "stamford"
SCRIPTS = "jobnimbus_mcp.events.scripts"
LEFT_BY_ASKING = re.compile(r":(epoch|run|log|fleet|budget)$")


def files_in(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def findings(jobnimbus: str) -> Callable[..., Any]:
    """`await findings(url, key)`: by subject, with the simulator in JobNimbus's place."""

    async def ask(redis_url: str, key: str) -> dict[str, Finding]:
        settings = Settings.from_env(
            {
                "JOBNIMBUS_INSTANCES": INSTANCE,
                "JOBNIMBUS_API_BASE_URL": jobnimbus,
                "JOBNIMBUS_API_KEY": key,
                "REDIS_URL": redis_url,
            }
        )
        async with doctor_probes(settings) as probes:
            told = await examine(settings, probes)
        assert key not in repr(told)
        return {finding.subject: finding for finding in told}

    return ask


@pytest.mark.parametrize(
    ("arguments", "subject", "level", "said"),
    [
        ((), "redis persistence", Level.WARN, "Set appendonly yes"),
        (("--appendonly", "yes"), "redis persistence", Level.OK, "append-only file"),
        ((), "redis eviction", Level.OK, "noeviction"),
        (("--maxmemory-policy", "volatile-ttl"), "redis eviction", Level.OK, "entries make room"),
        (("--maxmemory-policy", "allkeys-lru"), "redis eviction", Level.WARN, "set maxmemory-policy to volatile-ttl"),
    ],
)
async def test_a_redis_is_told_by_how_it_is_set_up(
    start_redis: Callable[..., Any],
    findings: Callable[..., Any],
    simulator: Simulator,
    arguments: tuple[str, ...],
    subject: str,
    level: Level,
    said: str,
) -> None:
    told = (await findings(start_redis(*arguments).url, simulator.keys[INSTANCE][0]))[subject]
    assert (told.level, said in told.sentence) == (level, True), told


@pytest.mark.parametrize("away", [False, True])
async def test_asking_leaves_the_journal_as_it_is_and_makes_none(
    start_redis: Callable[..., Any], jobnimbus: str, tmp_path: Path, away: bool
) -> None:
    """It may be run by another user than the servers, who then could not write there; and with their Redis away."""
    server = start_redis()
    if away:
        server.stop()
    for kept in (None, b"left by a server\n"):
        data_dir = tmp_path / ("empty" if kept is None else "used")
        left = data_dir / "journal" / f"{INSTANCE}.1-a.jsonl"
        if kept is not None:
            left.parent.mkdir(parents=True)
            left.write_bytes(kept)
        settings = Settings.from_env(
            {
                "JOBNIMBUS_INSTANCES": INSTANCE,
                "JOBNIMBUS_API_BASE_URL": jobnimbus,
                "REDIS_URL": server.url,
                "WEBHOOK_SECRET": "s3cret-of-the-webhooks-01",
                "DATA_DIR": str(data_dir),
            }
        )
        async with doctor_probes(settings) as probes:
            told = {finding.subject: finding for finding in await examine(settings, probes)}
        assert told["redis"].level is (Level.BAD if away else Level.OK)
        assert told[f"webhooks of {INSTANCE}"].sentence.startswith("on; what" if away else "on, and none received yet")
        assert files_in(data_dir) == ({} if kept is None else {left: kept})
        assert data_dir.exists() is (kept is not None)


async def test_a_redis_that_is_away_is_bad_and_the_key_is_checked_all_the_same(
    start_redis: Callable[..., Any], findings: Callable[..., Any], simulator: Simulator
) -> None:
    server = start_redis()
    server.stop()
    async with asyncio.timeout(10):
        told = await findings(server.url, simulator.keys[INSTANCE][0])
    assert told["redis"].level is Level.BAD
    assert told[f"key of {INSTANCE}"].level is Level.OK


@pytest.mark.parametrize("profile", ["full", "restricted"])
async def test_a_key_that_jobnimbus_accepts_is_good(
    redis_url: str, findings: Callable[..., Any], simulator: Simulator, profile: str
) -> None:
    key = simulator.keys[INSTANCE][profile == "restricted"]
    assert (await findings(redis_url, key))[f"key of {INSTANCE}"].level is Level.OK


async def test_a_key_that_jobnimbus_refuses_is_bad(redis_url: str, findings: Callable[..., Any]) -> None:
    told = (await findings(redis_url, "inv3nted-key-of-nobody"))[f"key of {INSTANCE}"]
    assert told.level is Level.BAD
    assert "refuses" in told.sentence


# -- events ----------------------------------------------------------------------------------------------------------


def event(record_id: str, number: int) -> Event:
    now = time.time()
    return Event(
        event_id=event_id_at(now, f"{number:020x}"),
        instance=INSTANCE,
        name="job.updated",
        entity="jobs",
        record_id=record_id,
        action="updated",
        tags=("jobs",),
        source="webhook",
        received_at=now,
    )


def made_in(server: Any) -> dict[str, bytes]:
    """All there is, save what whoever asks a store for the first time or JobNimbus for anything leaves behind."""
    with server.client() as client:
        names = [key.decode() for key in client.scan_iter()]
        return {name: client.dump(name) for name in names if not LEFT_BY_ASKING.search(name)}


async def give_up(log: EventLog, consumer: str) -> None:
    """What is due for this consumer is dead."""
    hand = log.subscribe(consumer)
    taken = await hand.take(10, wait_s=5.0)
    assert taken
    await hand.settle([Settled(one, Fate.DEAD, Attempt(time.time(), "", 1.0, error="x"), reason="x") for one in taken])


@asynccontextmanager
async def redis_log(url: str) -> AsyncIterator[RedisEvents]:
    client = connect(url)
    log = RedisEvents(Scripts(client, package=SCRIPTS), clock=SystemClock(), tenants=[INSTANCE])
    yield log
    await log.aclose()
    await client.aclose()


@pytest.mark.parametrize(
    ("arguments", "level", "said"),
    [((), Level.WARN, "(DATA_DIR); set appendonly yes"), (("--appendonly", "yes"), Level.OK, "keeps them over")],
)
async def test_a_new_redis_is_told_of_and_nothing_is_made_in_it(
    start_redis: Callable[..., Any],
    findings: Callable[..., Any],
    simulator: Simulator,
    arguments: tuple[str, ...],
    level: Level,
    said: str,
) -> None:
    server = start_redis(*arguments)
    told = await findings(server.url, simulator.keys[INSTANCE][0])
    kept = told[f"events of {INSTANCE}"]
    assert (kept.level, said in kept.sentence) == (level, True), kept
    assert "nobody has ever registered" in told[f"consumers of {INSTANCE}"].sentence
    assert "not begun yet" in told[f"catch-up of {INSTANCE}"].sentence
    assert "not begun yet" in told[f"sweep of {INSTANCE}"].sentence
    assert made_in(server).keys() == set()


async def test_what_waits_what_is_dead_and_who_works_is_read_from_a_real_log_which_stays_as_it_is(
    redis_server: Any, redis_url: str, findings: Callable[..., Any], simulator: Simulator
) -> None:
    now = time.time()
    async with redis_log(redis_url) as log:
        await log.open(["relay", "settle"])
        await log.append(event("j1", 1), {"relay": now, "settle": now + 600})
        await give_up(log, "relay")
        told = await findings(redis_url, simulator.keys[INSTANCE][0])
        assert f"consumers of {INSTANCE}" not in told
    before = made_in(redis_server)
    assert before
    told = await findings(redis_url, simulator.keys[INSTANCE][0])
    assert made_in(redis_server) == before
    assert told[f"dead letters of {INSTANCE}"].sentence.startswith("1 (relay 1); see why")
    assert told[f"lag of {INSTANCE}"].sentence.startswith("no event waits; 1 wait for their time")
    assert "no process acts on events now" in told[f"consumers of {INSTANCE}"].sentence


async def test_how_far_polling_is_is_read_from_what_it_keeps(
    redis_url: str, findings: Callable[..., Any], simulator: Simulator
) -> None:
    client, now = connect(redis_url), time.time()
    kept = RedisBackground(Scripts(client, package=SCRIPTS), seen_key)
    for name in ("catch-up", "sweep"):
        assert await kept.hold(INSTANCE, name, "t", 30)
    marks = {"jobs": Mark(int(now) - 9), "contacts": Mark(int(now) - 500)}
    assert await kept.advance(INSTANCE, "catch-up", "t", marks, loss=Loss(1, 3), hour=int(now // 3600))
    assert await kept.note_sweep(INSTANCE, "sweep", "t", now - 3_600)
    told = await findings(redis_url, simulator.keys[INSTANCE][0])
    await client.aclose()
    assert re.search(r"the last round was (9|1\d) s ago", told[f"catch-up of {INSTANCE}"].sentence)
    assert (
        told[f"webhook loss of {INSTANCE}"].level,
        "25.0% of 4" in told[f"webhook loss of {INSTANCE}"].sentence,
    ) == (
        Level.WARN,
        True,
    )
    assert told[f"sweep of {INSTANCE}"].sentence.endswith("due in 23 hours.")


@pytest.fixture
def asked(jobnimbus: str, simulator: Simulator) -> Callable[..., Any]:
    """`await asked(REDIS_URL=...)`: findings by subject."""

    async def ask(**variables: str) -> dict[str, Finding]:
        settings = Settings.from_env(
            {
                "JOBNIMBUS_INSTANCES": INSTANCE,
                "JOBNIMBUS_API_BASE_URL": jobnimbus,
                "JOBNIMBUS_API_KEY": simulator.keys[INSTANCE][0],
                **variables,
            }
        )
        async with doctor_probes(settings) as probes:
            told = await examine(settings, probes)
        assert not [secret for secret in settings.secret_values() if secret in repr(told)]
        return {finding.subject: finding for finding in told}

    return ask


async def test_a_postgresql_is_told_of_before_its_tables_are_made_and_after(
    request: pytest.FixtureRequest, asked: Callable[..., Any]
) -> None:
    server = session_server(request)
    database = server.database()
    dsn = server.dsn(database)
    variables = {"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": dsn}

    told = await asked(**variables)
    assert told[f"events of {INSTANCE}"].level is Level.OK
    assert "nobody has ever registered" in told[f"consumers of {INSTANCE}"].sentence
    assert server.sql("select to_regnamespace('jobnimbus_mcp') is null", database=database) == "t"

    log = PostgresEvents(dsn, clock=SystemClock(), instances=[INSTANCE])
    await log.open(["settle", "relay"])
    await log.append(event("j1", 1), {"relay": time.time(), "settle": time.time() + 600})
    await give_up(log, "relay")
    await log.aclose()
    told = await asked(**variables)
    assert told[f"dead letters of {INSTANCE}"].sentence.startswith("1 (relay 1)")
    assert "1 wait for their time (2 consumers)" in told[f"lag of {INSTANCE}"].sentence

    server.drop(database)
    told = await asked(**variables)
    assert (
        told[f"events of {INSTANCE}"].level,
        "it has no such database" in told[f"events of {INSTANCE}"].sentence,
    ) == (
        Level.BAD,
        True,
    )


@pytest.mark.long
async def test_what_is_wrong_with_a_postgresql_is_told(
    request: pytest.FixtureRequest, asked: Callable[..., Any]
) -> None:
    server = session_server(request)
    database = server.database()
    variables = {"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": server.dsn(database)}
    subject = f"events of {INSTANCE}"

    server.sql(f"alter database {database} set synchronous_commit = off")
    assert (await asked(**variables))[subject].level is Level.WARN
    server.sql(f"alter database {database} owner to postgres")
    told = (await asked(**variables))[subject]
    assert (told.level, "grant it CREATE" in told.sentence) == (Level.BAD, True)
    server.drop(database)
    refused = variables | {"DATABASE_URL": server.dsn("postgres", role="nobody")}
    assert "it refuses the role" in (await asked(**refused))[subject].sentence
    away = variables | {"DATABASE_URL": f"postgresql://u:pa55word-0123456789@127.0.0.1:{free_port()}/x"}
    assert (await asked(**away))[subject].level is Level.BAD


async def test_brokers_are_told_of_and_no_topic_is_made(
    request: pytest.FixtureRequest, asked: Callable[..., Any], redis_url: str
) -> None:
    broker = session_broker(request)
    variables = {"EVENTS_TRANSPORT": "kafka", "REDIS_URL": redis_url}
    told = await asked(**variables, KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap)
    assert told[f"events of {INSTANCE}"].level is Level.OK
    assert "nobody has ever registered" in told[f"consumers of {INSTANCE}"].sentence
    client = KafkaClient(broker.bootstrap)
    assert await client.partitions([topic("jobnimbus", INSTANCE)]) == {}
    await client.aclose()
    told = await asked(**variables, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert (told[f"events of {INSTANCE}"].level, told["redis"].level) == (Level.BAD, Level.OK)


@pytest.mark.parametrize(
    ("module", "variables", "said"),
    [
        (
            "asyncpg",
            {"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": "postgresql://127.0.0.1:1/x"},
            "pip install '.[postgres]' in the clone",
        ),
        (
            "aiokafka",
            {"EVENTS_TRANSPORT": "kafka", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
            "pip install '.[kafka]' in the clone",
        ),
    ],
)
async def test_an_extra_that_is_not_installed_is_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    asked: Callable[..., Any],
    redis_url: str,
    module: str,
    variables: dict[str, str],
    said: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    told = (await asked(**variables, REDIS_URL=redis_url))[f"events of {INSTANCE}"]
    assert (told.level, said in told.sentence) == (Level.BAD, True), told
