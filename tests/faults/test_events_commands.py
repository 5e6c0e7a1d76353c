"""`jobnimbus-mcp events` and `worker` over a real Redis: what they print, where, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import structlog
from relay_target import HANG, relay_target

from jobnimbus_mcp import cli
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.clock import SystemClock
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_redis import RedisEvents
from jobnimbus_mcp.events.ports import Attempt, Fate, Lag, Routes, Settled

INSTANCES = ("stamford", "guilford")
STOP_BOUND_S = 5.0
NOBODY = "0" * 31 + "1"

Run = Callable[..., "Ran"]


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was printed, a JSON object on each line and nothing else."""
        return [orjson.loads(line) for line in self.out.splitlines()]


def event(number: int, *, instance: str = "stamford", entity: str = "jobs", body: str = "") -> Event:
    """The higher its number, the later it was received."""
    at = time.time() - 100 + number
    return Event(
        event_id=event_id_at(at, f"{number:020x}"),
        instance=instance,
        name=f"{entity.removesuffix('s')}.updated",
        entity=entity,
        record_id=f"r{number}",
        action="updated",
        tags=(f"{entity}:list",),
        source="webhook",
        received_at=at,
        body=body,
    )


@asynccontextmanager
async def log_at(url: str) -> AsyncIterator[RedisEvents]:
    client = connect(url)
    runner = Scripts(client, package="jobnimbus_mcp.events.scripts")
    log = RedisEvents(runner, clock=SystemClock(), tenants=INSTANCES)
    yield log
    await log.aclose()
    await client.aclose()


async def end(log: RedisEvents, consumer: str, count: int, fate: Fate) -> None:
    """So many events that are due for this consumer now."""
    hand = log.subscribe(consumer)
    while count:
        taken = await hand.take(10, wait_s=3.0)
        assert taken
        count -= len(taken)
        attempt = Attempt(time.time(), "try-1", 12.0, status=500, error="http_500", answer="oops")
        ended = [Settled(one, fate, attempt, reason="http_500" if fate is Fate.DEAD else "") for one in taken]
        await hand.settle(ended)
    await hand.aclose()


DONE, DEAD, DELAYED, REJECTED = (
    event(1, body='{"jnid": "r1", "name": "Whitfield"}'),
    event(2, entity="contacts"),
    event(3, instance="guilford"),
    event(4),
)


async def filled(url: str) -> None:
    now = time.time()
    async with log_at(url) as log:
        await log.open(["settle", "relay:n8n"])
        await log.append(DONE, {"settle": now})
        await log.append(DEAD, {"relay:n8n": now, "settle": now})
        await log.append(DELAYED, {"settle": now + 3_600})
        await log.reject(REJECTED, "no_json")
        await asyncio.gather(end(log, "settle", 2, Fate.DONE), end(log, "relay:n8n", 1, Fate.DEAD))


@pytest.fixture
def command(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """`command("events", "list")`: the command line in this process, over an empty Redis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBNIMBUS_INSTANCES", ",".join(INSTANCES))
    monkeypatch.setenv("REDIS_URL", redis_url)

    def run(*arguments: str, **variables: str | None) -> Ran:
        for name, value in variables.items():
            monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["jobnimbus-mcp", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ran(int(ended.value.code or 0), *capsys.readouterr())

    yield run
    structlog.reset_defaults()


@pytest.fixture
def kept(redis_url: str) -> None:
    """The four events are in that Redis."""
    asyncio.run(filled(redis_url))


# -- events ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kept")
def test_a_listing_has_every_event_of_every_account_newest_first_and_ids_to_be_copied(command: Run) -> None:
    ran = command("events", "list")
    assert (ran.code, ran.err) == (0, "")
    head, *rows = [line.split() for line in ran.out.splitlines()]
    assert head[:4] == ["event", "received", "state", "account"]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        (REJECTED.event_id, "dead", "stamford"),
        (DELAYED.event_id, "delayed", "guilford"),
        (DEAD.event_id, "dead", "stamford"),
        (DONE.event_id, "done", "stamford"),
    ]
    assert "Whitfield" not in ran.out


NARROWED: list[tuple[tuple[str, ...], list[Event]]] = [
    ((), [REJECTED, DELAYED, DEAD, DONE]),
    (("--state", "dead"), [REJECTED, DEAD]),
    (("--state", "delayed"), [DELAYED]),
    (("--state", "pending"), []),
    (("--entity", "contacts"), [DEAD]),
    (("--record", "r1"), [DONE]),
    (("--instance", "guilford"), [DELAYED]),
    (("--limit", "2"), [REJECTED, DELAYED]),
]


@pytest.mark.usefixtures("kept")
def test_a_listing_as_json_is_one_object_per_line_and_as_narrow_as_asked_for(command: Run) -> None:
    for arguments, expected in NARROWED:
        ran = command("events", "list", "--json", *arguments)
        assert (ran.code, ran.err) == (0, "")
        assert [row["eventId"] for row in ran.rows] == [one.event_id for one in expected], arguments


@pytest.mark.usefixtures("kept")
def test_one_event_is_shown_whole(command: Run) -> None:
    ran = command("events", "show", DEAD.event_id)
    assert (ran.code, ran.err) == (0, "")
    told = orjson.loads(ran.out)
    assert (told["state"], told["recordId"]) == ("dead", "r2")
    relay = told["consumers"]["relay:n8n"]
    assert (relay["state"], relay["reason"]) == ("dead", "http_500")
    assert (relay["tried"][0]["status"], relay["tried"][0]["response"]) == (500, "oops")
    assert told["consumers"]["settle"]["state"] == "done"
    assert orjson.loads(command("events", "show", DONE.event_id).out)["body"] == {"jnid": "r1", "name": "Whitfield"}
    assert orjson.loads(command("events", "show", DELAYED.event_id).out)["instance"] == "guilford"


@pytest.mark.usefixtures("kept")
def test_dead_letters_are_listed_with_who_gave_up_and_why_and_can_be_replayed(command: Run) -> None:
    ran = command("events", "dead")
    assert ran.code == 0
    given_up = [line.split() for line in ran.out.splitlines()]
    assert [(words[0], " ".join(words[-5:])) for words in given_up] == [
        (REJECTED.event_id, "intake: no_json after 0 tries"),
        (DEAD.event_id, "relay:n8n: http_500 after 1 tries"),
    ]
    assert ran.err == (
        "2 dead, 1 of them not understood (intake), which cannot be replayed; replay one with: "
        "jobnimbus-mcp events replay <event id>\n"
    )
    assert [row["eventId"] for row in command("events", "dead", "--json").rows] == [
        REJECTED.event_id,
        DEAD.event_id,
    ]

    ran = command("events", "replay", DEAD.event_id)
    assert (ran.code, ran.out, ran.err) == (0, f"{DEAD.event_id}: due again for relay:n8n\n", "")
    (pending,) = command("events", "list", "--json", "--state", "pending").rows
    assert pending["eventId"] == DEAD.event_id
    again = command("events", "replay", DEAD.event_id)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith("jobnimbus-mcp: nothing to replay")
    ran = command("events", "dead")
    assert ran.err == "1 dead, 1 of them not understood (intake), which cannot be replayed\n"
    assert command("events", "replay", REJECTED.event_id).err.endswith(
        "what is dead of intake was not understood, and cannot be replayed\n"
    )


@pytest.mark.usefixtures("kept")
def test_all_dead_letters_are_replayed_at_once_but_those_that_were_never_understood(command: Run) -> None:
    ran = command("events", "replay", "--all-dead", "--consumer", "relay:n8n")
    assert (ran.code, ran.out) == (0, f"{DEAD.event_id}: due again for relay:n8n\n")
    ran = command("events", "replay", "--all-dead")
    assert (ran.code, ran.out) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "said"),
    [
        (("show", NOBODY), {}, 1, f"jobnimbus-mcp: there is no event {NOBODY}"),
        (("show", "../etc/passwd"), {}, 1, "jobnimbus-mcp: there is no event"),
        (("replay", NOBODY), {}, 1, "jobnimbus-mcp: nothing to replay"),
        (("replay", "nonsense"), {}, 1, "jobnimbus-mcp: nothing to replay"),
        (("list",), {"REDIS_URL": None}, 2, "jobnimbus-mcp: REDIS_URL: without a Redis"),
        (("dead",), {"REDIS_URL": None}, 2, "jobnimbus-mcp: REDIS_URL: without a Redis"),
        (("list", "--instance", "hamden"), {}, 2, "jobnimbus-mcp: --instance"),
        (("list",), {"REDIS_PORT": "six"}, 2, "jobnimbus-mcp: REDIS_PORT"),
        (("list", "--json"), {"REDIS_URL": "redis://127.0.0.1:1"}, 1, "jobnimbus-mcp: The event log is unavailable"),
        (("list", "--state", "asleep"), {}, 2, "must be one of: pending, delayed, done, dead"),
        (("list", "--limit", "0"), {}, 2, "--limit"),
        (("replay",), {}, 2, "name one event, or --all-dead"),
        (("replay", NOBODY, "--all-dead"), {}, 2, "name one event, or --all-dead"),
    ],
)
def test_what_cannot_be_done_is_said_on_stderr_alone(
    command: Run, arguments: tuple[str, ...], variables: dict[str, str | None], code: int, said: str
) -> None:
    ran = command("events", *arguments, **variables)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    if ran.err.startswith("jobnimbus-mcp:"):
        assert len(ran.err.splitlines()) == 1


# -- worker, as a process of its own -----------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
        placed = {"JOBNIMBUS_INSTANCES": ",".join(INSTANCES), "DATA_DIR": str(tmp_path / "data")}
        process = subprocess.Popen(
            [sys.executable, "-m", "jobnimbus_mcp", *arguments],
            cwd=tmp_path,
            env=kept | placed | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=5)


async def ended(process: subprocess.Popen[str], within_s: float) -> Ran:
    out, err = await asyncio.to_thread(process.communicate, timeout=within_s)
    return Ran(process.returncode, out, err)


async def test_a_worker_that_is_to_end_when_idle_does_what_waits_and_what_is_due_meanwhile(
    redis_url: str, start: Callable[..., Any]
) -> None:
    now = time.time()
    async with log_at(redis_url) as log:
        events = [event(number, instance=INSTANCES[number % 2]) for number in range(6)]
        for one in events:
            routes: Routes = {"settle": now, "notify": now + (1.0 if one is events[-1] else 0.0)}
            await log.append(one, routes)
        ran = await ended(start("worker", "--until-idle", REDIS_URL=redis_url, LOG_LEVEL="warning"), 25)
        assert (ran.code, ran.out) == (0, ""), ran.err
        for one in events:
            traced = await log.show(one.instance, one.event_id)
            assert traced is not None
            assert {name: told.state for name, told in traced.consumers.items()} == {"settle": "done", "notify": "done"}
        for instance in INSTANCES:
            assert set((await log.lag(instance)).values()) == {Lag(0, 0, 0.0, 0)}


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
async def test_a_worker_that_is_told_to_stop_gives_back_what_it_has_in_hand(
    redis_url: str, start: Callable[..., Any], number: signal.Signals
) -> None:
    """It waits for an answer that never comes, and holds the event's partition for half a minute to come."""
    async with relay_target(answers=[HANG] * 3) as target, log_at(redis_url) as log:
        process = start(
            "worker",
            REDIS_URL=redis_url,
            RELAY_TARGETS=orjson.dumps([{"name": "slow", "url": target.url()}]).decode(),
            RELAY_SIGNING_SECRET="s3cret-of-the-relay-01",
            RELAY_ALLOW_PRIVATE="true",
            LOG_LEVEL="warning",
        )
        await log.append(event(1), {"relay:slow": time.time()})
        await target.arrived(1, within_s=20)
        began = time.monotonic()
        process.send_signal(number)
        ran = await ended(process, STOP_BOUND_S + 5)
        assert time.monotonic() - began < STOP_BOUND_S
        assert (ran.code, ran.out) == (0, ""), ran.err
        (again,) = await log.subscribe("relay:slow").take(1, wait_s=3.0)
        assert (again.event.record_id, again.attempts) == ("r1", 0)
