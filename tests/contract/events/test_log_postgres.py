"""What only the event log in PostgreSQL has: its tables, its trigger, its migrations, and a server that may go away."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from events_world_postgres import PostgresWorld, session_server
from events_world_postgres import world as made
from postgres_server import PostgresServer, server

from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.errors import CacheUnavailable, SettingsError
from jobnimbus_mcp.events import migrate_postgres
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_postgres import PostgresEvents
from jobnimbus_mcp.events.ports import (
    Attempt,
    EventLog,
    EventQuery,
    EventsUnavailable,
    Fate,
    Settled,
    Subscription,
    Taken,
)

BOUND_S = 10.0
SETTLE, RELAY = "settle", "relay:crm"


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[PostgresWorld]:
    async with made(request) as one:
        yield one


@pytest.fixture
async def connection(world: PostgresWorld) -> AsyncIterator[asyncpg.Connection]:
    """The log's role, past the log; of a database that is ready."""
    await (await world.log()).ping()
    opened = await asyncpg.connect(world.dsn)
    yield opened
    await opened.close()


@pytest.fixture
def empty(request: pytest.FixtureRequest) -> Iterator[tuple[PostgresServer, str]]:
    """A database in which nothing is yet; (server, name)."""
    started = session_server(request)
    database = started.database()
    yield started, database
    started.drop(database)


def change(number: int, record_id: str = "j1", *, body: str = "") -> Event:
    now = SystemClock().now()
    return Event(
        event_id=event_id_at(now, f"{number:020x}"),
        instance="acme",
        name="job.updated",
        entity="jobs",
        record_id=record_id,
        action="updated",
        tags=("jobs",),
        source="webhook",
        received_at=now,
        body=body,
    )


async def keep(log: EventLog, event: Event, *consumers: str, delay_s: float = 0.0) -> bool:
    return await log.append(event, dict.fromkeys(consumers or (SETTLE,), event.received_at + delay_s))


async def take_one(hand: Subscription) -> Taken:
    async with asyncio.timeout(BOUND_S):
        while True:
            for taken in await hand.take(1, wait_s=1.0):
                return taken


async def somebody_waits(connection: asyncpg.Connection) -> None:
    """Return when a session waits for a lock."""
    async with asyncio.timeout(BOUND_S):
        while True:
            if await connection.fetchval("select count(*) from pg_locks where not granted"):
                return
            await asyncio.sleep(0.01)


def settled(taken: Taken, error: str = "", *, fate: Fate = Fate.DONE) -> Settled:
    attempt = Attempt(SystemClock().now(), "r-1", 12.5, 503 if error else 200, error, "said the target")
    return Settled(taken, fate, attempt, reason=error)


# -- the package and the settings ------------------------------------------------------------------------------------


def test_without_the_driver_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(SettingsError, match=r"pip install .\.\[postgres\]"):
        PostgresEvents("postgresql://localhost/events", clock=SystemClock(), instances=())


def test_without_the_queues_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate_postgres, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install .\.\[postgres\]"):
        PostgresEvents("postgresql://localhost/events", clock=SystemClock(), instances=())


@pytest.mark.parametrize(
    "dsn",
    [
        "mysql://user:secret@localhost/events",
        "postgresql://user:secret/of#ours@localhost/events",
        "postgresql://user:secret#of/ours@localhost/events",
        "postgresql://user:secret@localhost:port/events",
        "postgresql://user:secret@one:5432,two:port/events",
        "postgresql://user:secret@[::1/events",
    ],
)
def test_an_address_that_is_none_is_refused_at_once_without_being_repeated(dsn: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://") as refused:
        PostgresEvents(dsn, clock=SystemClock(), instances=())
    assert "secret" not in f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres://u:p%2Fw@h/d",
        "postgresql:///d?host=/run",
        "postgresql://u:p@one:5432,two,[::1]:5433/d?sslmode=require",
    ],
)
async def test_an_address_of_any_number_of_servers_is_one(dsn: str) -> None:
    await PostgresEvents(dsn, clock=SystemClock(), instances=()).aclose()


async def test_a_server_that_is_not_there_is_unavailable_without_its_address_in_the_words() -> None:
    log = PostgresEvents("postgresql://u:secret@127.0.0.1:1/events", clock=SystemClock(), instances=())
    with pytest.raises(EventsUnavailable) as refused:
        await log.ping()
    assert "secret" not in f"{refused.value} {refused.value.detail}"
    await log.aclose()


# -- migrations ------------------------------------------------------------------------------------------------------


async def test_many_processes_make_the_tables_at_once_and_again(empty: tuple[PostgresServer, str]) -> None:
    started, database = empty
    logs = [PostgresEvents(started.dsn(database), clock=SystemClock(), instances=()) for _ in range(6)]
    await asyncio.gather(*(log.open([SETTLE, RELAY]) for log in logs))
    assert await asyncio.gather(*(keep(log, change(1), SETTLE, RELAY) for log in logs[:1])) == [True]
    versions = [str(version) for version, _, _ in migrate_postgres.migrations()]
    assert versions == ["1", "2", "3"]
    applied = "select version from jobnimbus_mcp.migrations order by 1"
    assert started.sql(applied, database=database).split() == versions
    connection = await asyncpg.connect(started.dsn(database))
    assert await migrate_postgres.migrate(connection) == 3
    await connection.execute("insert into jobnimbus_mcp.migrations (version, name) values (99, 'of a later release')")
    assert await migrate_postgres.migrate(connection) == 99
    assert await connection.fetchval("select count(*) from jobnimbus_mcp.events") == 1
    await connection.close()
    for log in logs:
        await log.aclose()


async def test_queues_too_old_are_refused_and_nothing_is_made(empty: tuple[PostgresServer, str]) -> None:
    started, database = empty
    started.sql("create schema pgmq; grant all on schema pgmq to public", database=database)
    log = PostgresEvents(started.dsn(database), clock=SystemClock(), instances=())
    for _ in range(2):
        with pytest.raises(EventsUnavailable) as refused:  # so that what comes meanwhile is kept on the disk
            await keep(log, change(1))
        assert "pgmq" in refused.value.detail
    assert started.sql("select to_regnamespace('jobnimbus_mcp') is null", database=database) == "t"
    await log.aclose()


async def test_a_database_emptied_under_a_running_process_is_made_anew_and_known_as_another(
    empty: tuple[PostgresServer, str],
) -> None:
    started, database = empty
    log = PostgresEvents(started.dsn(database), clock=SystemClock(), instances=())
    event = change(1)
    assert await keep(log, event)
    token, standing = await log.standing("acme", [event.event_id])
    assert standing == {event.event_id: True}
    started.sql("drop schema jobnimbus_mcp cascade; drop schema pgmq cascade", database=database)
    with pytest.raises(EventsUnavailable):
        await keep(log, event)
    assert await keep(log, event)
    assert (await log.standing("acme", []))[0] != token
    assert (await take_one(log.subscribe(SETTLE))).event == event
    await log.aclose()


# -- what is kept ----------------------------------------------------------------------------------------------------


async def test_the_view_tells_every_event_newest_first_also_what_nobody_has_touched(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    log = await world.log()
    first, second, refused = change(1, "j1"), change(2, "j2"), change(3, "")
    await keep(log, first)
    hand = log.subscribe(SETTLE)
    await hand.settle([settled(await take_one(hand), "http_503", fate=Fate.RETRY)])
    await hand.settle([settled(await take_one(hand))])
    await keep(log, second, SETTLE, RELAY)
    await log.reject(refused, "unknown_payload")
    rows = await connection.fetch("select * from jobnimbus_mcp.event_trace")
    told = [
        tuple(row[name] for name in ("message", "consumer", "state", "attempts", "status_code", "error", "response"))
        for row in rows
    ]
    assert told == [
        (refused.event_id, None, "dead", 0, None, "unknown_payload", None),
        (second.event_id, RELAY, "pending", 0, None, None, None),
        (second.event_id, SETTLE, "pending", 0, None, None, None),
        (first.event_id, SETTLE, "done", 2, 200, None, "said the target"),
    ]
    assert [row["processed_at"] is None for row in rows] == [True, True, True, False]
    assert all(row["enqueued_at"].timestamp() == pytest.approx(world.clock.now(), abs=BOUND_S) for row in rows)
    assert '"record":"j2"' in rows[1]["payload"]


async def test_finished_messages_leave_the_queue_for_the_archive_and_stay_there_for_its_days(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    log, patient = await world.log(), await world.log(archive_days=30)
    event = change(1)
    await keep(log, event)
    hand = log.subscribe(SETTLE)
    await hand.settle([settled(await take_one(hand))])
    queue = await connection.fetchval("select jobnimbus_mcp.queue_of($1)", SETTLE)

    async def messages() -> tuple[int, int]:
        counts = [await connection.fetchval(f"select count(*) from pgmq.{part}_{queue}") for part in "qa"]
        return counts[0], counts[1]

    assert await messages() == (0, 1)
    later = world.clock.now() + 60.0
    assert await patient.clean(archived_before=later, dead_before=later) == 0
    assert await messages() == (0, 1)
    assert await log.clean(archived_before=later, dead_before=later) == 1
    assert await messages() == (0, 0)
    assert await connection.fetchval("select count(*) from jobnimbus_mcp.attempts") == 0


async def test_names_of_consumers_that_look_alike_have_queues_of_their_own(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    names = ["relay:n8n", "relay-n8n", "Relay:N8N", "relay:" + "x" * 60, "relay:" + "x" * 61, "--"]
    log = await world.log()
    await log.open(names)
    queues = [await connection.fetchval("select jobnimbus_mcp.queue_of($1)", name) for name in names]
    assert len(set(queues)) == len(names)
    assert max(map(len, queues)) <= 47
    await keep(log, change(1), *names)
    for name in names:
        assert (await take_one(log.subscribe(name))).event.record_id == "j1"


async def test_text_that_the_database_cannot_keep_is_kept_as_far_as_it_can(world: PostgresWorld) -> None:
    log = await world.log()
    event = change(1, body="a\0b\ud800c \N{SNOWMAN}")
    await log.reject(event, "nul \0 in it")
    traced = await log.show("acme", event.event_id)
    assert traced is not None
    assert traced.event.body.startswith("a\ufffdb")
    assert traced.event.body.endswith("c \N{SNOWMAN}")
    assert [told.reason for told in traced.consumers.values()] == ["nul \ufffd in it"]


async def test_what_cannot_be_read_is_given_up_and_its_record_goes_on(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    log = await world.log()
    damaged, lost, behind = change(1), change(2), change(3)
    for event in (damaged, lost, behind):
        await keep(log, event)
    await connection.execute(
        "update jobnimbus_mcp.events set envelope = '{\"v\": 99}' where event_id = $1", damaged.event_id
    )
    await connection.execute("delete from jobnimbus_mcp.events where event_id = $1", lost.event_id)
    assert (await take_one(log.subscribe(SETTLE))).event == behind
    row = await connection.fetchrow(
        "select state, error from jobnimbus_mcp.event_trace where message = $1", damaged.event_id
    )
    assert tuple(row) == ("dead", "unreadable")


async def test_a_log_whose_commits_do_not_wait_for_the_disk_is_not_durable(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    assert await (await world.log()).durable()
    await connection.execute(f"alter database {world.database} set synchronous_commit = off")
    try:
        assert not await (await world.log()).durable()
    finally:
        await connection.execute(f"alter database {world.database} reset synchronous_commit")


async def test_a_server_that_takes_no_writes_does_not_answer_the_ping(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    await connection.execute(f"alter database {world.database} set default_transaction_read_only = on")
    log = await world.log()
    try:
        with pytest.raises(EventsUnavailable):
            await log.ping()
    finally:
        await connection.execute("set default_transaction_read_only = off")
        await connection.execute(f"alter database {world.database} reset default_transaction_read_only")


# -- order, waiting, giving back -------------------------------------------------------------------------------------


async def test_an_append_waits_for_an_earlier_one_of_its_record_and_for_no_other(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    """Else a number given out earlier could be seen later, and be handed out behind its successor."""
    log = await world.log()
    event = change(1, "j1")
    async with connection.transaction():
        await connection.execute(
            "select jobnimbus_mcp.append("
            " $1, 'acme', 'job.updated', 'jobs', 'j1', 'webhook', 0, '{}', '', '{}', '{}', 0)",
            "0" * 32,
        )
        async with asyncio.timeout(BOUND_S):
            behind = asyncio.create_task(keep(log, event))
            assert await keep(log, change(2, "j2"))
            await somebody_waits(connection)
        assert not behind.done()
    assert await behind


async def test_what_a_cancelled_take_was_handed_comes_to_another_when_it_closes(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    log, other = await world.log(), await world.log()
    await log.open([SETTLE])
    hand = log.subscribe(SETTLE)
    assert await hand.take(1, wait_s=0.0) == ()
    event = change(1)
    await keep(log, event)
    queue = await connection.fetchval("select jobnimbus_mcp.queue_of($1)", SETTLE)
    async with connection.transaction():
        await connection.execute(f"lock table pgmq.q_{queue} in access exclusive mode")
        taking = asyncio.create_task(hand.take(1, wait_s=0.0))
        await somebody_waits(connection)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
    await hand.aclose()
    assert (await take_one(other.subscribe(SETTLE))).event == event


async def test_what_was_taken_so_slowly_that_no_time_is_left_to_act_is_not_handed_out(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    log = await world.log(claim_idle_s=0.9)
    event = change(1)
    await keep(log, event)
    queue = await connection.fetchval("select jobnimbus_mcp.queue_of($1)", SETTLE)
    hand = log.subscribe(SETTLE)
    async with connection.transaction():
        await connection.execute(f"lock table pgmq.q_{queue} in access exclusive mode")
        taking = asyncio.create_task(hand.take(1, wait_s=BOUND_S))
        await connection.execute("select pg_sleep(0.5)")
    taken = (await taking)[0]
    assert taken.event == event
    assert await connection.fetchval(f"select read_ct from pgmq.q_{queue}") == 2


async def test_whatever_holds_the_server_up_is_waited_for_within_bounds(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    log = PostgresEvents(world.dsn, clock=world.clock, instances=(), command_timeout_s=0.2)
    await log.ping()
    began = world.clock.monotonic()
    async with connection.transaction():
        await connection.execute("lock table jobnimbus_mcp.events in access exclusive mode")
        with pytest.raises(EventsUnavailable):
            await keep(log, change(1))
    assert world.clock.monotonic() - began < 2.0
    assert await keep(log, change(2))
    await log.aclose()


async def test_nothing_is_lost_when_the_server_ends_at_once_and_comes_back(world: PostgresWorld) -> None:
    log = await world.log(claim_idle_s=1.0)
    await log.open([SETTLE, RELAY])
    hand = log.subscribe(SETTLE)
    events = [change(number, f"j{number % 4}") for number in range(12)]
    did: list[str] = []

    async def work() -> None:
        while len(set(did)) < len(events):
            try:
                batch = await hand.take(3, wait_s=0.5)
                did.extend(taken.event.event_id for taken in batch)
                await hand.settle([settled(taken) for taken in batch])
            except EventsUnavailable:
                await asyncio.sleep(0.05)

    async def append(event: Event) -> None:
        while True:
            try:
                await keep(log, event, SETTLE, RELAY)
            except EventsUnavailable:
                await asyncio.sleep(0.05)
                continue
            return

    async with asyncio.timeout(3 * BOUND_S), asyncio.TaskGroup() as group:
        worker = group.create_task(work())
        for event in events[:6]:
            await append(event)
        world.server.stop()
        appending = group.create_task(append(events[6]))
        with pytest.raises(EventsUnavailable):
            await log.ping()
        world.server.start()
        await appending
        for event in events[7:]:
            await append(event)
        await worker
    assert set(did) == {event.event_id for event in events}
    for record in range(4):
        mine = [event_id for event_id in did if event_id in {event.event_id for event in events[record::4]}]
        assert mine == sorted(mine)
    lag = await log.lag("acme")
    assert (lag[SETTLE].due, lag[RELAY].due) == (0, len(events))


# -- tables of the user's own ----------------------------------------------------------------------------------------


@pytest.fixture
def trades(world: PostgresWorld) -> Iterator[str]:
    """A role that owns a table of its own, with the trigger on it, and may do nothing with the log's tables."""
    statements = """
        drop role if exists trades;
        create role trades login;
        create schema shop authorization trades;
        grant usage on schema jobnimbus_mcp to trades;
        set role trades;
        create table shop.jobs (id serial primary key, jnid text, label text);
        create trigger tell after insert or update or delete on shop.jobs
            for each row execute function jobnimbus_mcp.emit_change('acme', 'job', 'jnid');
        create table shop.odd (jnid text);
        create trigger tell after insert on shop.odd
            for each row execute function jobnimbus_mcp.emit_change('acme', 'roof', 'jnid');
        create table shop.foreign_account (jnid text);
        create trigger tell after insert on shop.foreign_account
            for each row execute function jobnimbus_mcp.emit_change('other', 'job', 'jnid');
        create table shop.broken (jnid text);
        create trigger tell after insert on shop.broken for each row execute function jobnimbus_mcp.emit_change();
    """
    migrated = "select to_regclass('jobnimbus_mcp.inbox')"
    if not world.server.sql(migrated, database=world.database):
        pytest.fail("the database must be ready before: ask for `connection` first")
    world.server.sql(statements, database=world.database)
    yield "trades"
    world.server.sql("drop owned by trades cascade; drop role trades", database=world.database)


async def test_the_trigger_is_attached_as_the_page_says_and_a_role_that_may_only_make_schemas_is_enough(
    empty: tuple[PostgresServer, str],
) -> None:
    started, database = empty
    page = (Path(__file__).parents[3] / "docs" / "events-postgres.md").read_text()
    grant = re.findall(r"^ *grant connect, create on database shop to jobnimbus_mcp;$", page, re.MULTILINE)
    trigger = re.findall(r"<!-- trigger -->\n```sql\n(.*?)```", page, re.DOTALL)
    assert (len(grant), len(trigger)) == (1, 1)
    # neither owner nor anything else, but for what the page grants
    started.sql(f"alter database {database} owner to postgres", database=database)
    started.sql(grant[0].replace("shop", database), database=database)
    log = PostgresEvents(started.dsn(database), clock=SystemClock(), instances=["acme"])
    await log.ping()
    took: list[Event] = []

    async def took_in(event: Event) -> None:
        took.append(event)

    prepared = "create role trades login; create schema shop; create table shop.jobs (jnid text);"
    started.sql(prepared + trigger[0] + "insert into shop.jobs values ('j1')", database=database)
    try:
        assert await log.inbox(took_in).take_in() == 1
    finally:
        started.sql("drop owned by trades cascade; drop role trades", database=database)
        await log.aclose()
    assert [(event.instance, event.name, event.record_id) for event in took] == [("acme", "job.created", "j1")]


async def test_changes_of_a_table_become_events_in_order_and_once(
    world: PostgresWorld, connection: asyncpg.Connection, trades: str
) -> None:
    log = await world.log()
    took: list[Event] = []
    failures = [EventsUnavailable("away"), CacheUnavailable("Away.")]

    async def took_in(event: Event) -> None:
        if len(took) == 2 and failures:
            raise failures.pop()
        took.append(event)
        await log.append(event, {SETTLE: event.received_at})

    inbox = log.inbox(took_in)
    for statement in (
        "insert into shop.jobs (jnid, label) values ('j1', 'a'), ('j2', 'b'), (null, 'not in JobNimbus yet')",
        "update shop.jobs set label = 'c' where jnid = 'j1'",
        "delete from shop.jobs where jnid = 'j2'",
    ):
        world.server.sql(statement, database=world.database, role=trades)
    async with asyncio.timeout(BOUND_S):
        while await connection.fetchval("select count(*) from jobnimbus_mcp.inbox"):
            try:
                await asyncio.gather(inbox.take_in(), log.inbox(took_in).take_in())
            except CacheUnavailable:
                continue
    assert [(event.name, event.record_id, event.source) for event in sorted(took, key=lambda each: each.record_id)] == [
        ("job.created", "j1", "write"),
        ("job.updated", "j1", "write"),
        ("job.created", "j2", "write"),
        ("job.deleted", "j2", "write"),
    ]
    assert all(event.instance == "acme" and event.tags and event.dedupe_key for event in took)
    assert failures == []
    page = await log.find("acme", EventQuery())
    assert {traced.event.event_id for traced in page.events} == {event.event_id for event in took}


async def test_a_change_taken_in_twice_is_the_same_event(
    world: PostgresWorld, connection: asyncpg.Connection, trades: str
) -> None:
    log = await world.log()
    ids: list[str] = []

    async def took_in(event: Event) -> None:
        ids.append(event.event_id)
        if len(ids) == 1:
            raise EventsUnavailable("the answer got lost")

    world.server.sql("insert into shop.jobs (jnid) values ('j1')", database=world.database, role=trades)
    with pytest.raises(EventsUnavailable):
        await log.inbox(took_in).take_in()
    assert await log.inbox(took_in).take_in() == 1
    assert await log.inbox(took_in).take_in() == 0
    assert ids == [ids[0]] * 2


async def test_a_change_that_nobody_understands_is_told_in_the_trace_and_never_fails_the_write(
    world: PostgresWorld, connection: asyncpg.Connection, trades: str
) -> None:
    log = await world.log()
    took: list[Event] = []

    async def took_in(event: Event) -> None:
        took.append(event)

    for table in ("odd", "foreign_account", "broken"):
        world.server.sql(f"insert into shop.{table} values ('j1')", database=world.database, role=trades)
        assert world.server.sql(f"select jnid from shop.{table}", database=world.database, role=trades) == "j1"
    world.server.sql("insert into shop.jobs (jnid) values ('../j1')", database=world.database, role=trades)
    assert await log.inbox(took_in).take_in() == 2
    assert took == []
    refused = (await log.find("acme", EventQuery(state="dead"))).events
    reasons = [told.reason for traced in refused for told in traced.consumers.values()]
    assert sorted(reasons) == ["unknown_entity", "unknown_record_id"]
    left = await connection.fetch("select instance from jobnimbus_mcp.inbox")
    assert [row["instance"] for row in left] == ["other"]


async def test_no_other_column_of_the_row_and_no_code_of_its_owner_is_looked_at(
    world: PostgresWorld, connection: asyncpg.Connection, trades: str
) -> None:
    """A cast of its owner would run with the rights of the events; a document that JSONB refuses, fail the write."""
    statements = r"""
        set role trades;
        create type shop.spy as enum ('x');
        create table shop.seen (who text);
        grant usage on schema shop to public;
        grant all on shop.seen to public;
        create function shop.spies(shop.spy) returns json language plpgsql as
            $f$ begin insert into shop.seen values (current_user); return '1'; end $f$;
        create cast (shop.spy as json) with function shop.spies(shop.spy);
        create function shop.tells(shop.spy) returns text language plpgsql as
            $f$ begin insert into shop.seen values (current_user); return 'j9'; end $f$;
        create cast (shop.spy as text) with function shop.tells(shop.spy) as implicit;
        create table shop.trap ("jn""id'" text, spied shop.spy, document json);
        create trigger tell after insert or update or delete on shop.trap
            for each row execute function jobnimbus_mcp.emit_change('acme', 'job', 'jn"id''');
        create trigger tell_spied after insert on shop.trap
            for each row execute function jobnimbus_mcp.emit_change('acme', 'job', 'spied');
        insert into shop.trap values ('j1', 'x', '{"a": "\u0000"}');
        update shop.trap set document = '{"b": "\u0000"}';
        delete from shop.trap;
    """
    world.server.sql(statements, database=world.database)
    assert world.server.sql("select who from shop.seen", database=world.database) == ""
    rows = await connection.fetch("select record_id, operation from jobnimbus_mcp.inbox order by id")
    assert [tuple(row) for row in rows] == [("j1", "insert"), ("x", "insert"), ("j1", "update"), ("j1", "delete")]


async def test_a_trigger_attached_before_the_write_undoes_none(
    world: PostgresWorld, connection: asyncpg.Connection, trades: str
) -> None:
    for table, told in {"fine": "'acme', 'job', 'jnid'", "wrong": "'acme', 'job', 'no_such'", "bare": ""}.items():
        statements = f"""
            set role trades;
            create table shop.{table} (jnid text);
            create trigger tell before insert or update or delete on shop.{table}
                for each row execute function jobnimbus_mcp.emit_change({told});
            insert into shop.{table} values ('j1'), ('j2');
            update shop.{table} set jnid = 'j3' where jnid = 'j1';
            delete from shop.{table} where jnid = 'j2';
        """
        world.server.sql(statements, database=world.database)
        assert world.server.sql(f"select jnid from shop.{table}", database=world.database) == "j3"
    rows = await connection.fetch("select record_id, operation from jobnimbus_mcp.inbox order by id")
    assert [tuple(row) for row in rows] == [("j1", "insert"), ("j2", "insert"), ("j3", "update"), ("j2", "delete")]


async def test_who_writes_to_the_table_may_neither_read_events_nor_make_them_otherwise(
    world: PostgresWorld, connection: asyncpg.Connection, trades: str
) -> None:
    for statement in (
        "select * from jobnimbus_mcp.events",
        "insert into jobnimbus_mcp.inbox (instance, entity, record_id, operation) values ('acme', 'job', 'j1', 'x')",
        "select jobnimbus_mcp.renew_token()",
    ):
        with pytest.raises(RuntimeError, match="permission denied"):
            world.server.sql(statement, database=world.database, role=trades)


async def test_the_inbox_wakes_for_a_change_by_itself(
    world: PostgresWorld, connection: asyncpg.Connection, trades: str
) -> None:
    log = await world.log()
    arrived: asyncio.Queue[Event] = asyncio.Queue()
    running = asyncio.create_task(log.inbox(arrived.put).run())
    try:
        for number in range(2):
            insert = f"insert into shop.jobs (jnid) values ('j{number}')"
            await asyncio.to_thread(world.server.sql, insert, database=world.database, role=trades)
            async with asyncio.timeout(2.0):
                assert (await arrived.get()).record_id == f"j{number}"
    finally:
        running.cancel()
        await asyncio.wait([running])


# -- processes that are killed ---------------------------------------------------------------------------------------

_WORKER = """
    import asyncio, sys
    from jobnimbus_mcp.clock import SystemClock
    from jobnimbus_mcp.events.log_postgres import PostgresEvents
    from jobnimbus_mcp.events.ports import Attempt, EventsUnavailable, Fate, Settled

    async def work(log, consumer, effects):
        hand = log.subscribe(consumer)
        while True:
            try:
                for taken in await hand.take(5, wait_s=1.0):
                    effects.write(f"{consumer} {taken.event.record_id} {taken.event.event_id}\\n")
                    effects.flush()
                    await asyncio.sleep(0.002)
                    attempt = Attempt(SystemClock().now(), "r", 1.0)
                    await hand.settle([Settled(taken, Fate.DONE, attempt)])
            except EventsUnavailable:
                await asyncio.sleep(0.1)

    async def main():
        log = PostgresEvents(sys.argv[1], clock=SystemClock(), instances=(), claim_idle_s=2.0)
        with open(sys.argv[2], "a") as effects:
            await asyncio.gather(work(log, "settle", effects), work(log, "relay:crm", effects))

    asyncio.run(main())
"""


def start_worker(dsn: str, effects: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(_WORKER), dsn, str(effects)])


@pytest.mark.long
async def test_killed_workers_lose_nothing_and_disorder_nothing(tmp_path: Path) -> None:
    """Three workers, one killed every second and replaced, the server ended at once and started again in the middle."""
    effects = tmp_path / "effects"
    effects.touch()
    with server() as started:
        database = started.database()
        dsn = started.dsn(database)
        log = PostgresEvents(dsn, clock=SystemClock(), instances=())
        await log.open([SETTLE, RELAY])
        workers = [start_worker(dsn, effects) for _ in range(3)]
        events = [change(number, f"j{number % 40}") for number in range(2_000)]
        try:

            async def append() -> None:
                for event in events:
                    while True:
                        try:
                            await keep(log, event, SETTLE, RELAY)
                        except EventsUnavailable:
                            await asyncio.sleep(0.1)
                            continue
                        break

            async with asyncio.timeout(50), asyncio.TaskGroup() as group:
                appending = group.create_task(append())
                for number in range(4):
                    await asyncio.sleep(1.0)
                    os.kill(workers[0].pid, signal.SIGKILL)
                    workers.append(start_worker(dsn, effects))
                    workers.pop(0).wait(5)
                    if number == 1:
                        started.stop()
                        await asyncio.sleep(0.3)
                        started.start()
                await appending
                while True:
                    try:
                        if not any(lag.due for lag in (await log.lag("acme")).values()):
                            break
                    except EventsUnavailable:
                        pass
                    await asyncio.sleep(0.1)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait(5)
        await log.aclose()
    did: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in effects.read_text().splitlines():
        consumer, record_id, event_id = line.split()
        did[consumer, record_id].append(event_id)
    assert Counter({key: len(set(ids)) for key, ids in did.items()}) == Counter(
        {(consumer, f"j{number}"): 50 for consumer in (SETTLE, RELAY) for number in range(40)}
    )
    for ids in did.values():
        assert ids == sorted(ids), "only a repeat of what was in hand is allowed, and that directly"
