"""One replica of the history check: readers and writers on its engine, and all they saw handed over in batches.

`python benchmarks/history_replica.py <JSON of Part>`. The origin is a file of versions, one per register, that all
processes map; each register has one writer. Batches go to stdout: kind, length, then packed rows.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import random
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import structlog
import uvloop
from replica import Replica, Wiring, notice, replica

from jobnimbus_mcp.cache.applied_log import AppliedLog
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Loaded, Status
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.question import Question
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.errors import CacheUnavailable, UpstreamError, UpstreamServerError

__all__ = ["ACK", "BROKEN", "HAND_OVER_S", "HEAD", "MODES", "READ", "REGISTER", "Part", "tenant_of"]

HEAD = struct.Struct("<cI")
READ = struct.Struct("<dIHBB")
"""started, version, register, mode, labelled"""
ACK = struct.Struct("<dIH")
"""at, version, register"""
REGISTER = struct.Struct("<Q")
MODES = (Mode.BARRIER, Mode.STRICT, Mode.BOUNDED, Mode.ANY)
WEIGHTS = (70, 20, 5, 5)
TENANTS = ("stamford", "guilford")

HAND_OVER_S = 0.05
"""How often batches are handed over."""


@dataclass(frozen=True)
class Part:
    """Which replica this is. `writers`: the registers written here. `broken`: a rule to break, to see it caught."""

    name: str
    wiring: dict[str, Any]
    versions: str
    registers: int
    writers: tuple[int, ...]
    seed: int
    readers: int = 12
    broken: str = ""

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Part:
        fields = json.loads(text)
        return cls(**{**fields, "writers": tuple(fields["writers"])})


# -- rules broken on purpose -------------------------------------------------------------------------------------------


def _break_lease() -> None:
    """L1 is served for ever, also by a process that is cut off."""
    Coherence.holds = lambda self, tenant: self._tenants[tenant].log.position is not None  # type: ignore[method-assign]  # one step replaced


def _break_log() -> None:
    """One line in twenty is taken for applied and was not: what a lost message is to a reader that does not notice."""
    honest, chance = AppliedLog._number, random.Random(5)

    def forgetful(self: AppliedLog, tags: Sequence[str]) -> None:
        if chance.random() > 0.05:
            honest(self, tags)

    AppliedLog._number = forgetful  # type: ignore[method-assign]  # one step replaced


BROKEN = {
    "barrier": lambda: None,  # by its wiring: acknowledged before L1s have applied it
    "lease": _break_lease,
    "log": _break_log,
}


# -- the work ----------------------------------------------------------------------------------------------------------


class Counts:
    """A recorder that keeps sums of what is counted, by name and labels."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        told = ",".join(value for label, value in sorted(labels.items()) if label not in ("entity", "operation"))
        self.sums[f"{name} {told}"] += int(n)

    def observe(self, name: str, value: float, **labels: str) -> None:
        return

    def gauge(self, name: str, value: float, **labels: str) -> None:
        return


class Worker:
    def __init__(self, part: Part, own: Replica, counts: Counts, source: mmap.mmap) -> None:
        self._part = part
        self._own = own
        self._counts = counts
        self._source = source
        self._chance = random.Random(part.seed)
        self._reads = bytearray()
        self._acks = bytearray()
        self._loaders = [partial(self._load, register) for register in range(part.registers)]
        self._questions = [self._question(register) for register in range(part.registers)]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._part.readers):
                group.create_task(self._read_for_ever())
            for register in self._part.writers:
                group.create_task(self._write_for_ever(register))
            group.create_task(self._hand_over_for_ever())

    def _question(self, register: int) -> dict[Mode, Question]:
        key = CacheKey(tenant_of(register), "p", "jobs", "detail", f"r{register}")
        # every third is past its lifetime soon, so that it is served stale, refreshed, and kept past a failure
        policy = Policy(3600) if register % 3 else Policy(1.0, stale_s=0.3, error_s=5.0, soft_s=0.1)
        return {mode: Question(key, ("jobs", f"job:{register}"), policy, mode=mode) for mode in MODES}

    async def _load(self, register: int, _call: Call) -> Loaded:
        # read first and delivered late, so that bumps and other loads overtake it
        chance = self._chance.random()
        (version,) = REGISTER.unpack_from(self._source, register * REGISTER.size)
        await asyncio.sleep(self._chance.choice((0, 0.001, 0.004, 0.008)) if chance < 0.99 else 0.3)
        if chance < 0.005:
            raise UpstreamServerError("The origin failed, as it now and then does here.")
        return Loaded(b"%d:%d:" % (register, version) + b" " * (1_200 if register % 2 else 100))

    async def _read_for_ever(self) -> None:
        clock, chance, cache = self._own.clock, self._chance, self._own.cache
        while True:
            for _ in range(chance.randrange(1, 12)):
                register = chance.randrange(self._part.registers)
                mode = chance.choices(range(4), WEIGHTS)[0]
                max_age_s = chance.choice((None,) * 30 + (0.05, 0))
                started = clock.monotonic()
                try:
                    outcome = await cache.read(
                        self._questions[register][MODES[mode]],
                        self._loaders[register],
                        call=Call.begin(clock, "r"),
                        max_age_s=max_age_s,
                    )
                except UpstreamError as error:
                    self._counts.count("origin_failed", code=error.code)
                    continue
                except Exception as error:  # whatever it is, the checker is told, and finds the run failed
                    self._counts.count("read_failed", error=type(error).__name__)
                    continue
                told, version, _ = outcome.value.split(b":", 2)
                if int(told) != register:
                    self._counts.count("read_failed", error="of another register")
                    continue
                labelled = MODES[mode] is Mode.ANY and outcome.status is Status.STALE
                self._reads += READ.pack(started, int(version), register, mode, labelled)
            await asyncio.sleep(chance.choice((0, 0.001, 0.005)))

    async def _write_for_ever(self, register: int) -> None:
        clock, chance, invalidator = self._own.clock, self._chance, self._own.invalidator
        tag, at = f"job:{register}", register * REGISTER.size
        while True:
            await asyncio.sleep(chance.choice((0.005, 0.05, 0.2)))
            (version,) = REGISTER.unpack_from(self._source, at)
            REGISTER.pack_into(self._source, at, version + 1)
            tags = ("jobs",) if chance.random() < 0.05 else (tag,)
            try:
                await invalidator.append_and_bump(tenant_of(register), tags, notice(clock, tag), Call.begin(clock, "w"))
            except CacheUnavailable:
                self._counts.count("write_refused")
                continue  # not acknowledged: nobody owes it
            self._acks += ACK.pack(clock.monotonic(), version + 1, register)

    async def _hand_over_for_ever(self) -> None:
        out = sys.stdout.buffer
        while True:
            await asyncio.sleep(HAND_OVER_S)
            until = struct.pack("<d", self._own.clock.monotonic())
            told, self._counts.sums = self._counts.sums, Counter()
            for kind, rows in (
                (b"A", self._acks),
                (b"R", self._reads),
                (b"C", json.dumps(told).encode()),
                (b"U", until),
            ):
                out.write(HEAD.pack(kind, len(rows)) + rows)
            out.flush()
            self._acks, self._reads = bytearray(), bytearray()


def tenant_of(register: int) -> str:
    return TENANTS[register % len(TENANTS)]


async def main(part: Part) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if part.broken:
        BROKEN[part.broken]()
    counts = Counts()
    wiring = Wiring(**{**part.wiring, "tenants": TENANTS, "barrier": part.broken != "barrier"})
    with open(part.versions, "r+b") as file:  # noqa: ASYNC230 - before anything runs
        source = mmap.mmap(file.fileno(), 0)
    async with replica(wiring, recorder=counts, random01=random.Random(part.seed).random) as own:
        await Worker(part, own, counts, source).run()


if __name__ == "__main__":
    uvloop.run(main(Part.parse(sys.argv[1])))
