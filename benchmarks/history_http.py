"""The history check over HTTP: three servers behind a round-robin proxy, and a simulated JobNimbus that changes."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from history_engine import Run
from history_sweep import Read, Sweep
from rig import RedisProcess, child, ended, free_port, redis_process, spawn, wait_until
from servers import INSTANCE, Connections, Simulated, command_of, settings_of, simulated, version_of, webhook

from jobnimbus_mcp.cache.ports import L1_LEASE_S

__all__ = ["HTTP_FAULTS", "check_http"]

SERVERS = 3
JOBS, READERS, WRITERS = 24, 12, 12
LATENCY_MS = 4
CONNECTION_USES = 20
"""A reader's connection goes to one server; after so many calls it makes a new one, which goes to the next."""
SHOWN_S = 20.0
"""How long what was journalled is looked for in the log: a flush may have taken the line."""
SETTLED_S = L1_LEASE_S + 0.2
"""What was journalled is applied in the background, so nobody's answer waits for the other processes' L1."""


class Server:
    """`serve` on a port of its own, killed and started again."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self._settings = settings
        self._log = log
        self.process = self._started()

    def restart(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process = self._started()

    def close(self) -> None:
        ended(self.process, signal.SIGKILL)

    def _started(self) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        with self._log.open("ab") as log:
            process = spawn(command_of(self.port), env=kept | self._settings, stdout=log, stderr=log)
        wait_until(lambda: process.poll() is not None or _answers(self.port), "serve")
        if process.poll() is not None:
            sys.exit(f"serve did not start: {self._log.read_text()[-500:]}")
        return process


class Site:
    def __init__(self, run: Run, simulator: Simulated, front: int, server: RedisProcess, seed: int) -> None:
        self._run = run
        self._simulator = simulator
        self._front = front
        self._redis = server
        self._chance = random.Random(seed)
        self._jobs = simulator.jobs(JOBS)
        self._numbers = {jnid: number for number, jnid in enumerate(self._jobs)}
        self._versions = [0] * JOBS
        self._newest = [0] * JOBS
        self._journalled: dict[str, tuple[float, int, int]] = {}
        self._settling: list[tuple[float, int, int]] = []
        self.servers: list[Server] = []
        self.done = 0

    # -- reading -----------------------------------------------------------------------------------------------------

    async def read_for_ever(self) -> None:
        connections, chance = Connections(self._front, CONNECTION_USES), self._chance
        arguments: dict[str, Any]
        while True:
            if chance.random() < 0.8:
                name, arguments = "get_job", {"job_id": chance.choice(self._jobs), "fields": "jnid,description"}
            else:
                name, arguments = "get_jobs", {"size": JOBS, "fields": "jnid,description"}
            started = time.monotonic()
            try:
                answer = await connections.post("/mcp/tools/call", {"name": name, "arguments": arguments})
            except (OSError, TimeoutError):
                self._run.counts["call lost with its server"] += 1
                await asyncio.sleep(0.02)
                continue
            if answer.status != 200:
                self._run.counts[f"read_failed {answer.status} {answer.body[:200]!r}"] += 1
                continue
            self._observe(started, name, json.loads(answer.body))

    def _observe(self, started: float, tool: str, told: dict[str, Any]) -> None:
        status, tier = told["cache"]["status"], told["cache"]["tier"]
        self._run.counts[f"{tool} status {status} {tier}"] += 1
        self.done += 1
        if tool == "get_job":
            found = [(told["data"]["record"]["jnid"], version_of(told))]
        else:
            rows = told["data"]["results"]
            found = [
                (row["jnid"], version_of({"data": {"record": row}})) for row in rows if row["jnid"] in self._numbers
            ]
        self._run.sweep.observe(
            Read(started, self._numbers[jnid], version, by=f"{tool} {status} {tier}") for jnid, version in found
        )

    # -- changing ----------------------------------------------------------------------------------------------------

    async def write_for_ever(self, writer: int) -> None:
        """Change the jobs of this writer in JobNimbus, and post a webhook of each change."""
        own = list(range(writer, JOBS, WRITERS))
        way = Connections(int(self._simulator.url.rpartition(":")[2]))
        connections = Connections(self._front, CONNECTION_USES)
        while True:
            await asyncio.sleep(self._chance.choice((0.02, 0.1, 0.3)))
            job = self._chance.choice(own)
            self._versions[job] += 1
            version, jnid = self._versions[job], self._jobs[job]
            body = {"description": f"version {version}"}
            await way.put(f"/_sim/records/jobs/{jnid}?webhook=false&instance={INSTANCE}", body)
            status, told = await webhook(connections, jnid)
            self._run.counts[f"webhook {status}"] += 1
            if status == 200:
                self._acknowledge(job, version)
            elif status == 202:
                self._journalled[told["eventId"]] = (time.monotonic(), job, version)

    async def watch_for_ever(self) -> None:
        """Owe what was journalled once the log shows it."""
        connections = Connections(self._front, CONNECTION_USES)
        while True:
            await asyncio.sleep(0.2)
            now = time.monotonic()
            while self._settling and self._settling[0][0] <= now:
                _, job, version = heapq.heappop(self._settling)
                self._acknowledge(job, version)
            for event, (since, *_) in tuple(self._journalled.items()):
                if now - since > SHOWN_S:
                    del self._journalled[event]
                    self._run.counts["journalled and never shown"] += 1
            if not self._journalled:
                continue
            with contextlib.suppress(OSError, TimeoutError):
                answer = await connections.get(f"/cache/invalidations?instance={INSTANCE}&limit=500")
                if answer.status != 200:
                    continue
                for row in json.loads(answer.body)["invalidations"]:
                    if (kept := self._journalled.pop(row["eventId"], None)) is not None:
                        self._run.counts["journalled and applied"] += 1
                        heapq.heappush(self._settling, (time.monotonic() + SETTLED_S, *kept[1:]))

    def _acknowledge(self, job: int, version: int) -> None:
        if version > self._newest[job]:
            self._newest[job] = version
            self._run.sweep.acknowledge(job, time.monotonic(), version)

    # -- faults ------------------------------------------------------------------------------------------------------

    async def kill(self) -> str:
        """A server, or Redis, which comes back empty."""
        if self._chance.random() < 0.6:
            await asyncio.to_thread(self._chance.choice(self.servers).restart)
            return "a server killed and started"
        seconds = self._chance.uniform(0.2, 3.0)
        self._redis.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._redis.start)
        return f"Redis killed for {seconds:.2f} s"

    async def freeze(self) -> str:
        """Redis, or a server, for less or more than a lease."""
        frozen = self._chance.choice([self._redis.process, *[one.process for one in self.servers]])
        seconds = self._chance.uniform(0.05, 3.0)
        frozen.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        frozen.send_signal(signal.SIGCONT)
        return f"{'Redis' if frozen is self._redis.process else 'a server'} frozen for {seconds:.2f} s"

    async def flush(self) -> str:
        await asyncio.to_thread(self._redis.command, "FLUSHALL")
        return "FLUSHALL"


HTTP_FAULTS: dict[str, Callable[[Site], Awaitable[str]]] = {
    "kill": Site.kill,
    "freeze": Site.freeze,
    "flush": Site.flush,
}


async def check_http(reads: int, faults: list[str], seed: int, most_s: float) -> Run:
    """Until so many calls are answered and checked and each fault has struck."""
    run, began = Run(Sweep()), time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-history-"))
        simulator = stack.enter_context(simulated(LATENCY_MS))
        redis = stack.enter_context(redis_process())
        # one directory for all, so that the journal of one that was killed is adopted by the others
        settings = settings_of(
            simulator, Path(directory, "data"), REDIS_URL=redis.url, CACHE_CIRCUIT_RESET_TIMEOUT="1000"
        )
        async with child(str(Path(__file__).parent / "fault_proxy.py")) as proxy:
            logs = [Path(directory, f"serve{number}.log") for number in range(SERVERS)]
            servers = await asyncio.gather(*(asyncio.to_thread(Server, settings, log) for log in logs))
            for one in servers:
                stack.callback(one.close)
            front = await proxy.ask("open", targets=[one.port for one in servers])
            site = Site(run, simulator, front, redis, seed)
            site.servers = list(servers)
            tasks = [asyncio.create_task(site.read_for_ever()) for _ in range(READERS)]
            tasks += [asyncio.create_task(site.write_for_ever(number)) for number in range(WRITERS)]
            tasks.append(asyncio.create_task(site.watch_for_ever()))
            try:
                await _until_done(site, run, reads, faults, seed, began, most_s, tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    run.sweep.check()
    run.seconds = time.monotonic() - began
    run.counts["calls answered"] = site.done
    return run


async def _until_done(
    site: Site, run: Run, reads: int, faults: list[str], seed: int, began: float, most_s: float, tasks: list[Any]
) -> None:
    chance = random.Random(seed)
    order: list[str] = []
    told = time.monotonic()
    while not run.sweep.violations and time.monotonic() - began < most_s:
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        run.sweep.check()
        for task in tasks:
            if task.done():
                task.result()  # its defect ends the run
        if site.done >= reads and all(run.struck[fault] for fault in faults):
            return
        if time.monotonic() - told > 10:
            told = time.monotonic()
            struck = ", ".join(f"{name} {number}" for name, number in sorted(run.struck.items()))
            print(f"  {told - began:5.0f} s: {site.done} calls; {struck}", file=sys.stderr, flush=True)
        if faults:
            if not order:
                order = chance.sample(faults, len(faults))
            fault = order.pop()
            run.note(time.monotonic(), f"{fault} begins")
            run.note(time.monotonic(), await HTTP_FAULTS[fault](site))
            run.struck[fault] += 1


def _answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
        return bool(answer.status == 200)
