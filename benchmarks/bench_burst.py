#!/usr/bin/env python
"""A burst of webhooks: from a sender in another process, by way of the real stream, to a relay target that notes in
which order it hears of them.

First one `jobnimbus-mcp serve` on one Redis (appendonly on, everysec): 500 webhooks a second for 10 s over 100 records,
open loop: each is sent at its time, or as soon as the one before it about the same record has been answered, and its
latency counts from its time. Then with faults: two servers in turns and two `worker` processes, one of the four killed
(SIGKILL) about every two seconds and started again, and Redis killed and started again once in between. A delivery that
was not answered is sent again, to the other server; what was answered with 200 or 202 is acknowledged.

Judged: nothing that was acknowledged is lost, and one record's events are heard of first in the order in which they
were acknowledged; repetitions are counted. Latency is judged outside of the time from each fault until 3 s after its
end.

    .venv/bin/python benchmarks/bench_burst.py                 # about two minutes
    .venv/bin/python benchmarks/bench_burst.py --only faults --seed 5
    .venv/bin/python benchmarks/bench_burst.py --only burst --profile /tmp/burst.prof
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rig import (
    Child,
    Goals,
    RedisProcess,
    child,
    ended,
    free_port,
    machine,
    percentile,
    redis_process,
    spawn,
    take_orders,
)
from rig import record as texture
from servers import INSTANCE, SECRET, Connections, settings_of, simulated

P99_MS = 100.0
IDLE_WITHIN_S = 30.0
IDLE_WITH_FAULTS_S = 120.0
"""After a kill nobody acts on what the dead one had before EVENTS_CLAIM_IDLE_S is over."""

SETTLED_S = 5.0
"""A fleet that is younger than an L1 lease cannot be known whole, so that every invalidation waits one out."""

AFTER_FAULT_S = 3.0
STARTED_WITHIN_S = 30.0
SENT_AGAIN_S = 0.2
GIVEN_UP_S = 20.0
DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec")
SIGNING_SECRET = "s3cret-of-the-relay-target"


# -- what is sent, and what is heard ---------------------------------------------------------------------------------


class Sent(NamedTuple):
    """One webhook. `status` 0: never answered. `due`, `done`: epoch seconds, when it was to be sent and was answered.
    `failed`: what came of the tries before: a status, or the name of an error."""

    record: str
    number: int
    status: int
    event_id: str
    due: float
    done: float
    failed: tuple[str, ...]

    @property
    def acknowledged(self) -> bool:
        return self.status in (200, 202)


class Heard(NamedTuple):
    """One delivery at the relay target, in the order of their arrival."""

    event_id: str
    record: str
    number: int


@dataclass(frozen=True)
class Verdict:
    """`repeated`: deliveries of events that had been heard of; `twice`: changes that became two events."""

    acknowledged: int
    lost: list[tuple[str, int]]
    overtaken: list[tuple[str, int, int]]
    repeated: int
    twice: int


def verdict(sent: Sequence[Sent], heard: Sequence[Heard]) -> Verdict:
    """Judges what was acknowledged; what was not may have arrived or not, whenever."""
    first: dict[tuple[str, int], int] = {}
    ids: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for place, one in enumerate(heard):
        first.setdefault((one.record, one.number), place)
        ids[one.record, one.number].add(one.event_id)
    lost, overtaken = [], []
    latest: dict[str, tuple[int, int]] = {}
    acknowledged = sorted((one for one in sent if one.acknowledged), key=lambda one: (one.record, one.done))
    for each in acknowledged:
        if (each.record, each.number) not in first:
            lost.append((each.record, each.number))
            continue
        heard_at = first[each.record, each.number]
        before, number = latest.get(each.record, (-1, -1))
        if heard_at < before:
            overtaken.append((each.record, number, each.number))
        else:
            latest[each.record] = (heard_at, each.number)
    repeated = sum(Counter(one.event_id for one in heard).values()) - len({one.event_id for one in heard})
    return Verdict(len(acknowledged), lost, overtaken, repeated, sum(len(found) > 1 for found in ids.values()))


# -- the sender: a process of its own --------------------------------------------------------------------------------


class Load:
    """Sends at a fixed rate; the events of one record one after the other."""

    def __init__(self, ports: Sequence[int], patience_s: float) -> None:
        self._servers = [Connections(port) for port in ports]
        self._patience_s = patience_s
        self._texture = texture(1_500).decode()

    async def run(self, records: Sequence[str], rate_per_s: float, seconds: float, first: int) -> list[Sent]:
        began = time.time() + 0.2
        queues = {name: asyncio.Queue[tuple[int, float] | None]() for name in records}
        found: list[Sent] = []

        async def serve(name: str) -> None:
            turn = 0  # each next event of a record goes to the next server
            while (order := await queues[name].get()) is not None:
                found.append(await self._send(name, turn, *order))
                turn += 1

        tasks = [asyncio.create_task(serve(name)) for name in records]
        for count in range(int(rate_per_s * seconds)):
            due = began + count / rate_per_s
            if (wait_s := due - time.time()) > 0:
                await asyncio.sleep(wait_s)
            queues[records[count % len(records)]].put_nowait((first + count, due))
        for queue in queues.values():
            queue.put_nowait(None)
        await asyncio.gather(*tasks)
        return found

    async def _send(self, name: str, turn: int, number: int, due: float) -> Sent:
        body = {
            "jnid": name,
            "type": "job",
            "date_updated": int(due) - 1_000_000 + number,
            "sequence": number,
            "description": self._texture,
        }
        path = f"/webhooks/jobnimbus?token={SECRET}&instance={INSTANCE}"
        failed: list[str] = []
        while True:
            server = self._servers[(turn + len(failed)) % len(self._servers)]
            try:
                answer = await server.post(path, body)
                if answer.status < 500:
                    event_id = str(json.loads(answer.body).get("eventId", ""))
                    return Sent(name, number, answer.status, event_id, due, time.time(), tuple(failed))
                failed.append(str(answer.status))
            except (OSError, TimeoutError) as error:
                failed.append(type(error).__name__)
            if time.time() - due > self._patience_s:
                return Sent(name, number, 0, "", due, time.time(), tuple(failed))
            await asyncio.sleep(SENT_AGAIN_S if len(failed) >= len(self._servers) else 0)

    def close(self) -> None:
        for server in self._servers:
            server.close()


async def load_process() -> None:
    async def send(
        ports: list[int], records: list[str], rate_per_s: float, seconds: float, first: int, patience_s: float
    ) -> list[Sent]:
        load = Load(ports, patience_s)
        try:
            return await load.run(records, rate_per_s, seconds, first)
        finally:
            load.close()

    await take_orders({"send": send})


# -- the relay target: a process of its own --------------------------------------------------------------------------


class Target(asyncio.Protocol):
    """As much of HTTP as a POST needs; notes and thanks at once."""

    def __init__(self, heard: list[Heard]) -> None:
        self._heard = heard
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            names = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in names if line.startswith(b"content-length:"))
            if len(rest) < length:
                return
            message = json.loads(rest[:length])
            record = message["data"]["record"]
            self._heard.append(Heard(message["id"], message["data"]["jnid"], record["sequence"]))
            self._buffer = rest[length:]
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def target_process() -> None:
    heard: list[Heard] = []
    server = await asyncio.get_running_loop().create_server(lambda: Target(heard), "127.0.0.1", 0)

    async def port() -> int:
        return int(server.sockets[0].getsockname()[1])

    async def count() -> int:
        return len(heard)

    async def hand_over() -> list[Heard]:
        return heard

    await take_orders({"port": port, "count": count, "heard": hand_over})


# -- the servers and workers, and what is done to them ---------------------------------------------------------------


@dataclass
class Member:
    """A server (with a port) or a worker, started again after each kill."""

    name: str
    command: list[str]
    settings: Mapping[str, str]
    log: Path
    port: int | None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        kept = {"PATH": "/usr/bin:/bin", "HOME": str(self.log.parent)}
        with self.log.open("ab") as output:
            self.process = spawn(self.command, env=kept | dict(self.settings), stdout=output, stderr=output)

    async def up(self, within_s: float = STARTED_WITHIN_S) -> None:
        """A server takes connections; a worker has begun to run, which it says by its log at level info only."""
        assert self.process is not None
        until = time.monotonic() + within_s
        while self.port is not None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"did not start: {self.name}; see {self.log}")
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None:
            ended(self.process)


@dataclass
class Faults:
    """What was done, and when: (what, from, until) in epoch seconds."""

    told: list[tuple[str, float, float]] = field(default_factory=list)

    async def kill_some(self, members: Sequence[Member], every_s: float, until: float, dice: random.Random) -> None:
        """One at a time, so that no more than one of the four is away."""
        while time.time() < until:
            await asyncio.sleep(dice.uniform(0.7, 1.3) * every_s)
            one = dice.choice(members)
            at = time.time()
            await asyncio.to_thread(one.kill)
            one.start()
            await one.up()
            self.told.append((one.name, at, time.time()))

    async def restart(self, store: RedisProcess, after_s: float, away_s: float) -> None:
        await asyncio.sleep(after_s)
        at = time.time()
        await asyncio.to_thread(store.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(store.start)
        self.told.append(("redis", at, time.time()))

    def outside(self, one: Sent) -> bool:
        """Nothing was wrong from when it was due until it was answered."""
        return all(one.done < begun or one.due > over + AFTER_FAULT_S for _, begun, over in self.told)


@dataclass(frozen=True)
class Stage:
    """Everything that runs but the servers."""

    directory: Path
    store: RedisProcess
    settings: Mapping[str, str]
    load: Child
    target: Child

    def member(self, name: str, *command: str, port: int | None = None, profile: str | None = None) -> Member:
        python = [sys.executable, *(() if profile is None else ("-m", "cProfile", "-o", profile))]
        words = [*python, "-m", "jobnimbus_mcp", *command]
        return Member(name, words, self.settings, self.directory / f"{name}.log", port)

    async def send(self, ports: Sequence[int], **how: Any) -> list[Sent]:
        rows = await self.load.ask("send", within_s=600.0, ports=list(ports), **how)
        return [Sent(*row) for row in rows]

    async def heard(self) -> list[Heard]:
        return [Heard(*row) for row in await self.target.ask("heard")]

    async def idle(self, port: int, within_s: float) -> float:
        """Seconds until no event is pending or delayed any more; more than `within_s` when that took too long."""
        began = time.monotonic()
        while (passed_s := time.monotonic() - began) <= within_s:
            # the stream's own counts while there are many: to list events is work for who is measured
            if not await asyncio.to_thread(self._waiting) and await _none_listed(port):
                return passed_s
            await asyncio.sleep(0.1)
        return passed_s

    def _waiting(self) -> int:
        """Events that some consumer is not done with."""
        with self.store.client() as client:
            return sum(int(client.zcard(key)) for key in client.scan_iter(f"jobnimbus-sys:{{{INSTANCE}}}:due:*"))

    def complaints(self) -> Counter[str]:
        """What the servers and workers logged, at warning and above."""
        told: Counter[str] = Counter()
        for file in self.directory.glob("*.log"):
            for line in file.read_text(errors="replace").splitlines():
                try:
                    row = json.loads(line)
                    told[f"{row['level']}: {row['event']}"] += 1
                except (ValueError, KeyError, TypeError):
                    told[f"no log line: {line[:80]}"] += 1
        return told


async def _none_listed(port: int) -> bool:
    """What an admin is shown."""
    asked = Connections(port)
    try:
        answers = [await asked.get(f"/cache/events?state={state}&limit=1") for state in ("pending", "delayed")]
    except (OSError, TimeoutError):
        return False
    finally:
        asked.close()
    return all(answer.status == 200 and not json.loads(answer.body)["events"] for answer in answers)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-bench-")))
        store = stack.enter_context(redis_process(*DURABLE))
        simulator = stack.enter_context(simulated(0))
        async with child(__file__, "--role", "target") as target, child(__file__, "--role", "load") as load:
            port = await target.ask("port")
            settings = settings_of(
                simulator,
                directory / "data",
                REDIS_URL=store.url,
                RELAY_TARGETS=f"http://127.0.0.1:{port}/hook",
                RELAY_ALLOW_PRIVATE="true",
                RELAY_SIGNING_SECRET=SIGNING_SECRET,
                LOG_FORMAT="json",
            )
            yield Stage(directory, store, settings, load, target)


@contextmanager
def running(members: Sequence[Member]) -> Iterator[None]:
    try:
        for member in members:
            member.start()
        yield
    finally:
        for member in members:
            member.stop()


def names_of(records: int) -> list[str]:
    return [f"burst{number:06d}" for number in range(records)]


# -- the two runs ----------------------------------------------------------------------------------------------------


def told_of(goals: Goals, name: str, found: Verdict, sent: Sequence[Sent], heard: Sequence[Heard]) -> None:
    answers = Counter(one.status for one in sent)
    failed = Counter(why for one in sent for why in one.failed)
    print(f"{name}: {len(sent)} sent, answers {dict(sorted(answers.items()))}; sent again after {dict(failed)};")
    print(f"       {len(heard)} deliveries, {found.repeated} repeated, {found.twice} changes as two events")
    lost = f"{len(found.lost)} of {found.acknowledged}" + (f": {found.lost[:5]}" if found.lost else "")
    goals.check(f"{name}: nothing acknowledged is lost", not found.lost, lost)
    order = f"{len(found.overtaken)} of {found.acknowledged}" + (f": {found.overtaken[:5]}" if found.overtaken else "")
    goals.check(f"{name}: each record's events in order", not found.overtaken, order)


def told_latency(goals: Goals, name: str, judged: Sequence[Sent]) -> None:
    ms = [(one.done - one.due) * 1e3 for one in judged]
    p50, p99, worst = percentile(ms, 0.5), percentile(ms, 0.99), max(ms, default=float("nan"))
    told = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {worst:.1f} ms of {len(ms)}"
    goals.check(f"{name}: answered, p99 <= {P99_MS:.0f} ms", p99 <= P99_MS, told)


async def burst(goals: Goals, given: argparse.Namespace) -> None:
    async with stage() as one:
        port = free_port()
        server = one.member("serve", "serve", "--port", str(port), port=port, profile=given.profile)
        with running([server]):
            await server.up()
            records = names_of(given.records)
            warmed = await one.send([port], records=records, rate_per_s=20, seconds=SETTLED_S, first=0, patience_s=0.0)
            processes: dict[str, Any] = {"server": server.process, "redis": one.store.process}
            processes |= {"sender": one.load.process, "target": one.target.process}
            cpu_s = {name: _cpu_s(process) for name, process in processes.items()}
            sent = await one.send(
                [port], records=records, rate_per_s=given.rate, seconds=given.seconds, first=100_000, patience_s=0.0
            )
            last = max(row.done for row in sent)
            behind = len(warmed) + len(sent) - await one.target.ask("count")
            used_s = {name: _cpu_s(process) - cpu_s[name] for name, process in processes.items()}
            took_s = await one.idle(port, IDLE_WITHIN_S)
            idle_s = time.time() - last
            heard = await one.heard()
            print("burst: CPU of a webhook:", ", ".join(f"{n} {1e3 * s / len(sent):.2f} ms" for n, s in used_s.items()))
            cores = sum(used_s.values()) / (last - sent[0].due)
            print(f"       in all {cores:.2f} cores; when the last one was answered, {behind} were still to be relayed")
            good = sum(row.acknowledged for row in sent)
            goals.check("burst: every webhook is answered 2xx", good == len(sent), f"{good} of {len(sent)}")
            told_of(goals, "burst", verdict([*warmed, *sent], heard), sent, heard)
            told_latency(goals, "burst", sent)
            goals.check(
                f"burst: nothing pending after {IDLE_WITHIN_S:.0f} s",
                took_s <= IDLE_WITHIN_S and idle_s <= IDLE_WITHIN_S + 1.0,
                f"{idle_s:.1f} s, what waits for its settling time included",
            )
        told_complaints(one)


async def faults(goals: Goals, given: argparse.Namespace) -> None:
    dice = random.Random(given.seed)
    print(f"faults: seed {given.seed}")
    async with stage() as one:
        ports = [free_port(), free_port()]
        members = [one.member(f"serve-{n}", "serve", "--port", str(port), port=port) for n, port in enumerate(ports)]
        members += [one.member(f"worker-{n}", "worker") for n in range(2)]
        struck = Faults()
        with running(members):
            for member in members:
                await member.up()
            records = names_of(given.records)
            await one.send(ports, records=records, rate_per_s=20, seconds=SETTLED_S, first=0, patience_s=0.0)
            calm_s = given.fault_seconds / 4
            sending = asyncio.create_task(
                one.send(
                    ports,
                    records=records,
                    rate_per_s=given.fault_rate,
                    seconds=given.fault_seconds,
                    first=100_000,
                    patience_s=GIVEN_UP_S,
                )
            )
            await asyncio.sleep(calm_s)
            until = time.time() + 2 * calm_s
            await asyncio.gather(
                struck.kill_some(members, given.every, until, dice), struck.restart(one.store, calm_s, away_s=1.0)
            )
            sent = await sending
            last = max(row.done for row in sent)
            await one.idle(ports[0], IDLE_WITH_FAULTS_S)
            idle_s = time.time() - last
            heard = await one.heard()
            kills = Counter(what for what, _, _ in struck.told)
            print(
                f"faults: {len(struck.told)} ({', '.join(f'{what} {n}' for what, n in sorted(kills.items()))}); ",
                end="",
            )
            print(f"nothing pending {idle_s:.1f} s after the last answer")
            told_of(goals, "faults", verdict(sent, heard), sent, heard)
            told_latency(goals, "faults", [row for row in sent if row.acknowledged and struck.outside(row)])
            goals.check(
                f"faults: nothing pending after {IDLE_WITH_FAULTS_S:.0f} s",
                idle_s <= IDLE_WITH_FAULTS_S + 1,
                f"{idle_s:.1f} s",
            )
        told_complaints(one)


def told_complaints(one: Stage) -> None:
    for line, number in one.complaints().most_common(12):
        print(f"  logged {number} x {line}")


def _cpu_s(process: Any) -> float:
    """CPU seconds of the process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("burst", "faults"), help="one of the two runs")
    parser.add_argument("--rate", type=float, default=500, help="webhooks a second of the burst")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--fault-rate", type=float, default=150, help="webhooks a second while there are faults")
    parser.add_argument("--fault-seconds", type=float, default=30, help="the second and third quarter have faults")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between kills, about")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of the kills")
    parser.add_argument("--profile", help="file for a profile (cProfile) of the server during the burst")
    parser.add_argument("--role", choices=("load", "target"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role is not None:
        asyncio.run(load_process() if given.role == "load" else target_process())
        return
    print(machine())
    goals = Goals()
    for name, run in (("burst", burst), ("faults", faults)):
        if given.only in (None, name):
            asyncio.run(run(goals, given))
    raise SystemExit(goals.end())


if __name__ == "__main__":
    main()
