"""The history check at the engine: three replica processes on a real Redis, each through a link that can break."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis
from history_replica import ACK, HAND_OVER_S, HEAD, MODES, READ, REGISTER, Part
from history_sweep import Read, Sweep
from rig import Child, RedisProcess, child, spawned, wait_until

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.ports import L1_LEASE_S
from jobnimbus_mcp.clock import SystemClock

__all__ = ["FAULTS", "Run", "check_engine"]

REPLICAS = 3
REGISTERS = 24
CALM_S = 10.0
"""After the last fault: some breaker times and leases, on a busy machine."""

HERE = Path(__file__).parent


@dataclass
class Run:
    """What a run came to."""

    sweep: Sweep
    counts: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    timeline: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, at: float, what: str) -> None:
        self.timeline.append((at, what))
        del self.timeline[:-10_000]


class Replica:
    """One process of readers and writers; killed, frozen and started again."""

    def __init__(self, part: Part, run: Run) -> None:
        self._part = part
        self._run = run
        self._life = 0
        self._clock = SystemClock()
        self.counts: Counter[str] = Counter()

    async def start(self) -> None:
        self._life += 1
        name = f"{self._part.name}.{self._life}"
        self._run.sweep.told_until(name, self._clock.monotonic())
        part = Part(**{**self._part.__dict__, "seed": self._part.seed + 1_000 * self._life})
        self.process = await spawned(str(HERE / "history_replica.py"), part.text)
        self.counts.clear()
        self._listening = asyncio.create_task(self._listen(name))

    @property
    def name(self) -> str:
        return self._part.name

    @property
    def serves_l1(self) -> bool:
        """Did it, when it told the last time?"""
        return bool(self.counts["cache_reads hit,l1"])

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._listening

    async def _listen(self, name: str) -> None:
        sweep, reader = self._run.sweep, self.process.stdout
        assert reader is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                kind, size = HEAD.unpack(await reader.readexactly(HEAD.size))
                rows = await reader.readexactly(size)
                if kind == b"A":
                    for at, version, register in ACK.iter_unpack(rows):
                        sweep.acknowledge(register, at, version)
                elif kind == b"R":
                    sweep.observe(
                        Read(at, register, version, SLACKS_S[mode], bool(labelled), f"{name} {MODES[mode]}")
                        for at, version, register, mode, labelled in READ.iter_unpack(rows)
                    )
                elif kind == b"C":
                    self.counts = Counter(json.loads(rows))
                    self._run.counts += self.counts
                else:
                    sweep.told_until(name, struct.unpack("<d", rows)[0])
        sweep.ended(name)


SLACKS_S = tuple(L1_LEASE_S if mode is Mode.BOUNDED else 0.0 for mode in MODES)


class Site:
    """The replicas, their links, and two Redis servers of which one is the primary."""

    def __init__(self, nodes: list[RedisProcess], proxy: Child, replicas: list[Replica], run: Run, seed: int) -> None:
        self._nodes = nodes
        self._proxy = proxy
        self._replicas = replicas
        self._chance = random.Random(seed)
        self._run = run
        self._silenced: set[asyncio.Task[None]] = set()

    async def kill(self) -> str:
        one = self._chance.choice(self._replicas)
        await one.kill()
        await asyncio.sleep(self._chance.choice((0, 0.5)))
        await one.start()
        return "a replica killed"

    async def freeze(self) -> str:
        """Redis, or a replica, for less or more than a lease."""
        redis_pid = self._nodes[0].process.pid
        frozen = self._chance.choice([redis_pid, *[one.process.pid for one in self._replicas]])
        seconds = self._chance.uniform(0.05, 3.0)
        os.kill(frozen, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(frozen, signal.SIGCONT)
        return f"{'Redis' if frozen == redis_pid else 'a replica'} frozen for {seconds:.2f} s"

    async def flush(self) -> str:
        await asyncio.to_thread(self._nodes[0].command, "FLUSHALL")
        return "FLUSHALL"

    async def evict(self) -> str:
        """Some keys, whichever: entries, generations, leases, the log, the fleet."""
        names = []
        for _ in range(self._chance.randrange(1, 6)):
            name = await asyncio.to_thread(self._nodes[0].command, "RANDOMKEY")
            if name is not None:
                await asyncio.to_thread(self._nodes[0].command, "UNLINK", name)
                names.append(name.decode())
        return f"evicted {names}"

    async def cut(self) -> str:
        """One replica's way to Redis: reset, or silent for less or more than a lease."""
        link = self._chance.randrange(REPLICAS)
        if self._chance.random() < 0.3:
            await self._proxy.ask("cut", link=link)
            return f"link {link} reset"
        seconds = self._chance.uniform(0.05, 4.0)
        silence = asyncio.create_task(self._proxy.ask("silence", link=link, seconds=seconds))
        self._silenced.add(silence)
        silence.add_done_callback(self._silenced.discard)
        return f"link {link} silent for {seconds:.2f} s"

    async def failover(self) -> str:
        """To a replica that lost the last writes; the old primary comes back empty, as its replica."""
        old, new = self._nodes
        await asyncio.to_thread(
            wait_until, lambda: new.info("replication").get("master_link_status") == "up", "the replica of Redis"
        )
        await asyncio.to_thread(new.command, "REPLICAOF", "127.0.0.1", 1)
        lost_s = self._chance.uniform(0.01, 0.3)
        await asyncio.sleep(lost_s)
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(new.command, "REPLICAOF", "NO", "ONE")
        await self._proxy.ask("switch", targets=[new.port])
        await asyncio.to_thread(old.start)
        await asyncio.to_thread(old.command, "REPLICAOF", "127.0.0.1", new.port)
        self._nodes = [new, old]
        return f"failover that lost the writes of {lost_s:.2f} s"

    async def strike(self, fault: str) -> None:
        began = SystemClock().monotonic()
        self._run.note(began, f"{fault} begins")
        told = await FAULTS[fault](self)
        self._run.struck[fault] += 1
        self._run.note(SystemClock().monotonic(), told)

    async def pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.3, 2.5))

    async def healed(self) -> None:
        await asyncio.gather(*self._silenced)


FAULTS: dict[str, Callable[[Site], Awaitable[str]]] = {
    "kill": Site.kill,
    "freeze": Site.freeze,
    "flush": Site.flush,
    "failover": Site.failover,
    "cut": Site.cut,
    "evict": Site.evict,
}


async def check_engine(reads: int, faults: list[str], seed: int, broken: str, most_s: float) -> Run:
    """Until so many reads are checked and each fault has struck, or `most_s` is over, or something is found."""
    run, clock = Run(Sweep()), SystemClock()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-history-"))
        versions = Path(directory, "versions")
        _zeros(versions)
        folders = [Path(directory, name) for name in ("first", "second")]
        for folder in folders:
            folder.mkdir()
        nodes = []
        for folder in folders:
            nodes.append(RedisProcess(str(folder), "--repl-diskless-sync-delay", "0"))
            stack.callback(nodes[-1].close)
        nodes[1].command("REPLICAOF", "127.0.0.1", nodes[0].port)
        async with child(str(HERE / "fault_proxy.py")) as proxy:
            replicas = []
            for number in range(REPLICAS):
                port = await proxy.ask("open", targets=[nodes[0].port])
                part = Part(
                    name=f"replica {number}",
                    wiring={"url": f"redis://127.0.0.1:{port}/0"},
                    versions=str(versions),
                    registers=REGISTERS,
                    writers=tuple(range(number, REGISTERS, REPLICAS)),
                    seed=seed * 100 + number,
                    broken=broken,
                )
                replicas.append(Replica(part, run))
            try:
                for one in replicas:
                    await one.start()
                site = Site(nodes, proxy, replicas, run, seed)
                await _until_done(site, run, reads, faults, seed, began, most_s, clock)
                await site.healed()
                await _calm(replicas, run)
            finally:
                for one in replicas:
                    await one.kill()
    run.sweep.check()
    run.seconds = time.monotonic() - began
    return run


def _zeros(file: Path) -> None:
    file.write_bytes(bytes(REGISTER.size * REGISTERS))


async def _until_done(
    site: Site, run: Run, reads: int, faults: list[str], seed: int, began: float, most_s: float, clock: SystemClock
) -> None:
    chance, sweep = random.Random(seed), run.sweep

    async def sweeping() -> None:
        told = time.monotonic()
        while True:
            await asyncio.sleep(0.2)
            sweep.check()
            if time.monotonic() - told > 10:
                told = time.monotonic()
                struck = ", ".join(f"{name} {number}" for name, number in sorted(run.struck.items()))
                print(
                    f"  {told - began:5.0f} s: {sweep.checked} reads checked, {sweep.acknowledged} invalidations, "
                    f"{len(sweep.violations)} violations; {struck}",
                    file=sys.stderr,
                    flush=True,
                )

    checking = asyncio.create_task(sweeping())
    try:
        await asyncio.sleep(1.5)
        order: list[str] = []
        while not sweep.violations and time.monotonic() - began < most_s:
            if sweep.checked >= reads and all(run.struck[fault] for fault in faults):
                return
            if faults:
                if not order:
                    order = chance.sample(faults, len(faults))
                with contextlib.suppress(redis.RedisError):
                    await site.strike(order.pop())
            await site.pause()
    finally:
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)


async def _calm(replicas: list[Replica], run: Run) -> None:
    """No faults any more: before long every replica serves from its L1 again."""
    began = time.monotonic()
    for one in replicas:
        while not one.serves_l1:
            if time.monotonic() - began > CALM_S:
                run.counts[f"no L1 hit within {CALM_S:.0f} s of the last fault: {one.name}"] += 1
                break
            await asyncio.sleep(HAND_OVER_S)
    print(f"  all serve from L1 {time.monotonic() - began:.1f} s after the last fault", file=sys.stderr)
