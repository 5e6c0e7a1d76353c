"""The protocol as an explicit-state model: every interleaving of a small configuration is looked at, breadth first.

One key with one tag, one or two processes, a source that is written and sends a webhook for each write. Every step
below is atomic in the program too (one script, or local code without an await); between two steps anything may come. A
message that is late is a step not taken yet, and one that is lost is a step never taken, so cut connections need no
steps of their own; time is a step that moves everybody's clock.

The property: no read that starts after an acknowledged write returns an older version. `Rules` are the protocol's; each
variant in BROKEN has one of them changed and must be caught, each in HOLDS must survive its whole state space. What
holds here holds for the configuration that was explored, and is no proof; a source read is taken as atomic.

    step of the model                   in the program
    read, read again                    `read.lua`, `MemoryStore.read`; the mark taken before: `Coherence.mark`
    served from L1                      `ReadThrough` with `Coherence.holds` and `Coherence.clean`
    joins                               `single_flight.SingleFlight`, keyed by key and generations
    leads, follows, woken               `lead.lua`, `Coherence.waiting`, the stream of wakes
    fetches, fills, is told             the loader; `fill.lua`; what the engine does with the answer
    bump                                `bump.lua`, `renew_epoch.lua`; how its line names the one before it: `Logged`
    hears a line, renews, is granted    `Coherence`: its listening, its renewing (`renew_l1`), its lease
    polls, acknowledges, strikes        `Barrier.passed`
    verified                            `verify.lua`, sent by `Scripts` before anything else on a new connection
    journals, replays                   `GuardedStore.defer` and the healer that replays the journal
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal, NamedTuple, TypeVar

import pytest

LEASE = 2
"""Of L1, in ticks: the smallest number at which being early, in time and late differ."""


T = TypeVar("T")


# -- what there is ----------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """Of the log. `ours`: it names the tag of the key that is read; others do as well, of keys nobody reads here."""

    position: int
    previous: int
    ours: bool


class Entry(NamedTuple):
    version: int
    generation: int
    expired: bool = False


class Server(NamedTuple):
    """The store. `epoch` or `generation` 0 is missing; `fleet` holds what each process has registered as applied, -1
    where it has nothing.

    `verified`: somebody has looked which server process this is, and has renewed the epoch if it is another one.
    """

    epoch: int = 1
    generation: int = 1
    entry: Entry | None = None
    log: tuple[Line, ...] = ()
    last: int = 0
    fleet: tuple[int, ...] | None = None
    fleet_age: int = LEASE
    flight: tuple[int, int] | None = None
    verified: bool = True


class Process(NamedTuple):
    """`l1`: version and generation. `lease`: ticks left of it. `asked`: age, position and epoch of a renewal's answer
    that is under way. `epoch`: the one of the last answer. `promised`: the newest version this process has answered 202
    for."""

    applied: int = 0
    l1: tuple[int, int] | None = None
    lease: int = 0
    asked: tuple[int, int, int] | None = None
    epoch: int = 1
    promised: int = 0


class Hook(NamedTuple):
    """One write's webhook. `age`: ticks since the bump; `polled`: since the first poll, -1 before it; `strikes`: who
    was behind then and has not renewed since."""

    phase: int = 0
    position: int = 0
    age: int = 0
    polled: int = -1
    unknown: bool = False
    strikes: tuple[bool, ...] = ()


class At(IntEnum):
    """Where a webhook or a reader is."""

    UNWRITTEN = 0
    WRITTEN = 1
    WAITING = 2
    JOURNALLED = 3
    ACKNOWLEDGED = 4
    LOST = 5

    IDLE = 10
    READ = 11
    JOINED = 12
    LEADING = 13
    FOLLOWING = 14
    FETCHING = 15
    FETCHED = 16
    FILLED = 17
    BLIND = 18
    BLIND_FETCHED = 19


class Reader(NamedTuple):
    """`owed`: what was acknowledged when it started; -1 when nobody waits for its answer any more (a refresh).

    `dirtied`: its process has heard of an invalidation since its mark. `key`: the generation its flight goes by.
    `version`: what it has in hand, -1 nothing; `leads`: it holds the flight lease.
    """

    phase: int = At.IDLE
    left: int = 1
    owed: int = 0
    dirtied: bool = False
    version: int = -1
    generation: int = 0
    key: int = 0
    leads: bool = False
    holder: tuple[int, int] = (-1, 0)
    kept: bool = False


class Left(NamedTuple):
    """How often each thing may still happen."""

    others: int = 0
    trims: int = 0
    flushes: int = 0
    failovers: int = 0
    evictions: int = 0
    expiries: int = 0
    outages: int = 0
    kills: int = 0
    give_ups: int = 0


class State(NamedTuple):
    source: int
    acknowledged: int
    hooks: tuple[Hook, ...]
    server: Server
    replica: Server | None
    processes: tuple[Process, ...]
    readers: tuple[Reader, ...]
    left: Left
    fresh: int
    """The next generation; the store's clock makes sure that none ever comes twice, whatever the store forgets."""
    away: bool = False
    broken: bool = False


Step = tuple[str, State]


# -- how they behave --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """The protocol, and the size of the world. The defaults are what the program does, without L1 and flights."""

    compares: bool = True
    """A fill, and a look at an entry, compare generations."""
    noted: Literal["before the fetch", "after the fetch"] = "before the fetch"
    joins: Literal["none", "any", "same generation"] = "none"
    blind: Literal["off", "unbegun", "begun"] = "off"
    """Which loads are joined by those who could not look at the store."""
    l1: Literal["none", "validated", "trusted"] = "none"
    guarded: bool = True
    """What a READ or a FILL brought is not put into L1 when an invalidation was heard since the mark."""
    waits: Literal["none", "barrier"] = "none"
    timed: bool = False
    """L1 has a lease by the clock, and the barrier an end."""
    leased: bool = True
    """L1 is served within its lease only."""
    granted_from: Literal["request", "answer"] = "request"
    granted_behind: bool = False
    """A lease is granted although the answer tells of lines that have not been applied."""
    waiter: int = LEASE
    """How long the waiter waits for who does not answer."""
    strikes: Literal["since the first poll", "since the bump", "even if renewed"] = "since the first poll"
    registers: bool = True
    chained: bool = True
    """A line whose predecessor is not the one applied last clears L1."""
    epochs: bool = True
    """Another epoch in the answer to a renewal clears L1."""
    doubts: bool = True
    """A missing or young register, or a missing epoch, makes a bump wait for a whole lease."""
    doubts_polls: bool = True
    """The same for what a poll finds."""
    verifies: bool = True
    """Another server process renews the epoch before anything is read from it."""
    ages_fleet: bool = True
    """... and has a young register, since the newest registrations may be among what it lost."""
    flights: bool = False
    follows: Literal["same generation", "any"] = "same generation"
    takes: Literal["reads again", "the answer"] = "reads again"
    serves: Literal["fresh", "expired", "dirty"] = "fresh"
    """What is served at once while it is fetched anew."""
    answers_journalled: Literal["202", "200"] = "202"
    distrusts: bool = True
    """A process with a journal takes nothing from the store or from L1."""
    replay_clears: bool = True
    """Having replayed its journal a process clears its L1."""
    durable: bool = True

    readers: tuple[int, ...] = (0, 0)
    """The process of each reader."""
    reads: int = 1
    writes: int = 1
    left: Left = field(default_factory=Left)
    sequential: bool = True
    """The next write comes when the last one is acknowledged."""
    warm: bool = False
    """Begin with every process registered, its lease full, and the first version kept everywhere."""
    registered: bool = True

    def initial(self) -> State:
        number = max(self.readers) + 1
        server = Server(fleet=(-1 if self.timed else 0,) * number)
        process = Process()
        if self.warm:
            server = server._replace(entry=Entry(0, 1), fleet=(0 if self.registered else -1,) * number)
            process = Process(l1=(0, 1) if self.l1 != "none" else None, lease=LEASE if self.registered else 0)
        return State(
            0,
            0,
            tuple(Hook() for _ in range(self.writes)),
            server,
            server if self.left.failovers else None,
            (process,) * number,
            tuple(Reader(left=self.reads) for _ in self.readers),
            self.left,
            2,
        )

    def steps(self, state: State) -> Iterator[Step]:
        if not any(r.left or r.phase != At.IDLE for r in state.readers):
            return
        yield from self._writing(state)
        for number, hook in enumerate(state.hooks):
            yield from self._webhook(state, number, hook)
        if self.l1 == "trusted":
            for number, process in enumerate(state.processes):
                yield from self._coherence(state, number, process)
        seen: set[tuple[int, Reader]] = set()
        for number, reader in enumerate(state.readers):
            # Two readers of one process in the same place are one for whoever looks from outside.
            if (self.readers[number], reader) not in seen:
                seen.add((self.readers[number], reader))
                yield from self._reading(state, number, reader)
        yield from self._faults(state)
        if self.timed:
            yield "time passes", self._ticked(state)

    # -- writing ------------------------------------------------------------------------------------------------------

    def _writing(self, state: State) -> Iterator[Step]:
        if state.source < self.writes and not (self.sequential and state.acknowledged < state.source):
            hooks = _put(state.hooks, state.source, Hook(At.WRITTEN))
            yield f"write {state.source + 1}", state._replace(source=state.source + 1, hooks=hooks)

    def _webhook(self, state: State, number: int, hook: Hook) -> Iterator[Step]:
        name = f"webhook {number + 1}"
        if hook.phase == At.WRITTEN:
            if not state.away:
                yield f"{name}: bump", self._bumped(state, number)
            elif self.answers_journalled == "200":
                yield (
                    f"{name}: journalled, 200",
                    _acknowledge(state, number)._replace(hooks=_put(state.hooks, number, Hook(At.JOURNALLED))),
                )
            else:
                yield f"{name}: journalled, 202", _promise(state, number)
        elif hook.phase == At.JOURNALLED and not state.away:
            after = self._bumped(state, number)
            if self.replay_clears and not any(h.phase == At.JOURNALLED for h in after.hooks):
                after = self._cleared(after, 0)
            yield f"{name}: replayed", after
        elif hook.phase == At.WAITING:
            yield from self._barrier(state, number, hook, name)

    def _bumped(self, state: State, number: int) -> State:
        state = self._verified(state)
        server = state.server
        fleet = server.fleet
        unknown = self.doubts and (server.epoch == 0 or fleet is None or server.fleet_age < LEASE)
        if fleet is None:
            server = server._replace(fleet=(-1,) * len(state.processes), fleet_age=0)
        if not server.epoch:
            server = server._replace(epoch=state.fresh)
        server = server._replace(generation=state.fresh) if self.compares else server._replace(entry=None)
        state = self._told(state._replace(server=server, fresh=state.fresh + 1), ours=True)
        if self.waits == "none":
            return _acknowledge(state, number)
        waiting = Hook(At.WAITING, state.server.last, 0, -1, unknown)
        return state._replace(hooks=_put(state.hooks, number, waiting))

    def _barrier(self, state: State, number: int, hook: Hook, name: str) -> Iterator[Step]:
        server, fleet = state.server, state.server.fleet
        if not state.away:
            behind = tuple(0 <= applied < hook.position for applied in fleet or ())
            doubtful = hook.unknown or (
                self.doubts_polls and (fleet is None or server.fleet_age < LEASE or not server.verified)
            )
            if not doubtful:
                if not any(behind):
                    yield f"{name}: all have applied", _acknowledge(state, number)
                elif self.timed and hook.polled < 0:
                    polled = hook._replace(polled=0, strikes=behind)
                    yield f"{name}: first poll", state._replace(hooks=_put(state.hooks, number, polled))
        if not self.timed:
            return
        if hook.age >= self.waiter:
            # Who could not be polled is not struck: nobody knows what it had registered.
            yield f"{name}: waited", _acknowledge(state, number)
            waited = hook.age if self.strikes == "since the bump" else hook.polled
            if waited >= self.waiter and hook.polled >= 0 and fleet is not None and not state.away:
                struck = tuple(-1 if s else a for a, s in zip(fleet, hook.strikes, strict=True))
                yield (
                    f"{name}: waited, strikes",
                    _acknowledge(state._replace(server=server._replace(fleet=struck)), number),
                )

    # -- L1 and its lease ---------------------------------------------------------------------------------------------

    def _coherence(self, state: State, number: int, process: Process) -> Iterator[Step]:
        if state.away:
            return
        name = f"process {number}"
        server = state.server
        line = next((line for line in server.log if line.position > process.applied), None)
        if line is not None and server.verified:
            heard = state
            if line.ours or (self.chained and line.previous != process.applied):
                heard = self._cleared(heard, number)
            applied = heard.processes[number]._replace(applied=line.position)
            yield f"{name}: hears {line.position}", heard._replace(processes=_put(heard.processes, number, applied))
        if not self.timed:
            if (server.fleet or ())[number : number + 1] != (process.applied,):
                yield f"{name}: registers", self._registered(state, number)
            return
        if process.asked is None:
            after = self._registered(state, number)
            asked = after.processes[number]._replace(asked=(0, after.server.last, after.server.epoch))
            if process.lease < LEASE or (server.fleet or ())[number : number + 1] != (process.applied,):
                yield f"{name}: renews", after._replace(processes=_put(after.processes, number, asked))
            return
        age, position, epoch = process.asked
        if position > process.applied and not self.granted_behind:
            return
        if position < process.applied or (self.epochs and (epoch != process.epoch or not epoch)):
            # The store has forgotten lines; or this answer is older than what was heard meanwhile.
            state = self._cleared(state, number)
            process = state.processes[number]._replace(applied=position, epoch=epoch)
        lease = max(process.lease, LEASE - age if self.granted_from == "request" else LEASE)
        granted = process._replace(lease=lease, asked=None)
        yield f"{name}: is granted {lease}", state._replace(processes=_put(state.processes, number, granted))

    def _registered(self, state: State, number: int) -> State:
        state = self._verified(state)
        server, hooks = state.server, state.hooks
        if server.fleet is None:
            server = server._replace(fleet=(-1,) * len(state.processes), fleet_age=0)
        if self.registers:
            fleet = _put(server.fleet or (), number, state.processes[number].applied)
            server = server._replace(fleet=fleet)
        if self.strikes != "even if renewed":
            hooks = tuple(h._replace(strikes=_put(h.strikes, number, False)) if h.strikes else h for h in hooks)
        return state._replace(server=server, hooks=hooks)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _reading(self, state: State, number: int, reader: Reader) -> Iterator[Step]:
        at, name = self.readers[number], f"reader {number}"
        process = state.processes[at]
        phase = reader.phase
        if phase == At.IDLE:
            if reader.left:
                yield from self._starting(state, number, reader, process, name)
        elif phase == At.READ:
            yield from self._seen(state, number, reader, name)
        elif phase == At.LEADING:
            if not state.away:
                yield from self._leading(state, number, reader, name)
        elif phase == At.FOLLOWING:
            if not state.away and self.takes == "reads again" and state.server.flight != reader.holder:
                yield f"{name}: woken, reads again", self._looked(state, number, reader._replace(dirtied=False))
            if state.left.give_ups:
                left = state.left._replace(give_ups=state.left.give_ups - 1)
                yield (
                    f"{name}: goes on alone",
                    _read(state._replace(left=left), number, reader._replace(phase=At.FETCHING)),
                )
        elif phase == At.FETCHING:
            yield f"{name}: fetches", _read(state, number, reader._replace(phase=At.FETCHED, version=state.source))
        elif phase == At.FETCHED:
            if state.away or (self.distrusts and at == 0 and _journal(state)):
                yield f"{name}: cannot fill", self._landed(state, number, reader)
            else:
                yield f"{name}: fills", self._filled(state, number, reader)
        elif phase == At.FILLED:
            yield f"{name}: is told", self._landed(state, number, reader)
        elif phase == At.BLIND:
            yield (
                f"{name}: fetches blindly",
                _read(state, number, reader._replace(phase=At.BLIND_FETCHED, version=state.source)),
            )
        elif phase == At.BLIND_FETCHED:
            yield f"{name}: has fetched blindly", self._landed(state, number, reader)

    def _starting(self, state: State, number: int, reader: Reader, process: Process, name: str) -> Iterator[Step]:
        at = self.readers[number]
        owed = max(state.acknowledged, process.promised)
        begun = Reader(At.READ, reader.left - 1, owed)
        if not (self.distrusts and at == 0 and _journal(state)):
            if (
                self.l1 == "trusted"
                and process.l1 is not None
                and (process.lease > 0 or not (self.timed and self.leased))
            ):
                yield f"{name}: L1", _answered(state, number, begun, process.l1[0])
            if not state.away:
                yield f"{name}: reads", self._looked(state, number, begun)
        if self.blind != "off":
            joinable = (At.BLIND,) if self.blind == "unbegun" else (At.BLIND, At.BLIND_FETCHED)
            blind = any(self.readers[n] == at and r.phase in joinable for n, r in enumerate(state.readers))
            yield f"{name}: blind", _read(state, number, begun._replace(phase=At.JOINED if blind else At.BLIND, key=-1))
        # A read that passes the store by returns the source's version of after its start: nothing to check.

    def _looked(self, state: State, number: int, reader: Reader) -> State:
        """One READ."""
        state = self._verified(state)
        server = state.server
        if not (server.generation and server.epoch):
            server = server._replace(generation=state.fresh, epoch=server.epoch or state.fresh)
            state = state._replace(server=server, fresh=state.fresh + 1)
        version, entry, l1 = -1, server.entry, state.processes[self.readers[number]].l1
        expired = False
        if self.l1 == "validated" and l1 is not None and l1[1] == server.generation:
            version = l1[0]
        elif entry is not None and (
            entry.generation == server.generation or not self.compares or self.serves == "dirty"
        ):
            expired = entry.expired or (self.compares and entry.generation != server.generation)
            if not expired or self.serves != "fresh":
                version = entry.version
        # `kept` of a READ: what it has in hand is fresh, so that nothing is to be fetched.
        return _read(
            state,
            number,
            reader._replace(
                phase=At.READ, version=version, generation=server.generation, kept=version >= 0 and not expired
            ),
        )

    def _seen(self, state: State, number: int, reader: Reader, name: str) -> Iterator[Step]:
        """What a READ said has arrived."""
        at = self.readers[number]
        if reader.version >= 0 and reader.kept:
            if reader.key:
                yield f"{name}: is told again", self._landed(state, number, reader)
                return
            held = self._held(state, at, reader)
            yield f"{name}: hit", _answered(held, number, reader, reader.version)
            return
        key = reader.key or reader.generation
        if reader.version >= 0:
            # Served at once; what follows is a refresh that nobody waits for.
            state = _answered(state, number, reader, reader.version)
            reader = reader._replace(owed=-1, version=-1)
        if self.joins != "none" and not reader.key and reader.owed >= 0 and self._flying(state, at, key):
            yield f"{name}: joins", _read(state, number, reader._replace(phase=At.JOINED, key=key))
            return
        phase = At.LEADING if self.flights else At.FETCHING
        yield f"{name}: begins a flight", _read(state, number, reader._replace(phase=phase, key=key))

    def _flying(self, state: State, at: int, key: int) -> bool:
        return any(
            self.readers[n] == at
            and (
                r.phase in (At.LEADING, At.FOLLOWING, At.FETCHING, At.FETCHED, At.FILLED)
                or (r.phase == At.READ and r.key)
            )
            and (self.joins == "any" or r.key == key)
            for n, r in enumerate(state.readers)
        )

    def _leading(self, state: State, number: int, reader: Reader, name: str) -> Iterator[Step]:
        state = self._verified(state)
        server, mine = state.server, (self.readers[number], reader.generation)
        flight = server.flight
        if server.entry is not None and server.entry.generation == reader.generation and not server.entry.expired:
            yield f"{name}: it is filled, reads again", self._looked(state, number, reader._replace(dirtied=False))
        elif flight is None or (flight[1] != reader.generation and self.follows == "same generation"):
            led = state._replace(server=server._replace(flight=mine))
            yield f"{name}: leads", _read(led, number, reader._replace(phase=At.FETCHING, leads=True))
        else:
            yield f"{name}: follows", _read(state, number, reader._replace(phase=At.FOLLOWING, holder=flight))

    def _filled(self, state: State, number: int, reader: Reader) -> State:
        state = self._verified(state)
        server, mine = state.server, (self.readers[number], reader.generation)
        generation = reader.generation if self.noted == "before the fetch" else server.generation
        kept = not self.compares or (generation == server.generation and generation != 0)
        if reader.leads:
            kept = kept and server.flight == mine
        if kept:
            server = server._replace(entry=Entry(reader.version, generation))
        if reader.leads and server.flight == mine:
            server = server._replace(flight=None)
        return _read(
            state._replace(server=server), number, reader._replace(phase=At.FILLED, generation=generation, kept=kept)
        )

    def _landed(self, state: State, number: int, reader: Reader) -> State:
        """The flight's answer, to whoever waits for it; kept in L1 when the store kept it too."""
        at = self.readers[number]
        if reader.kept:
            state = self._held(state, at, reader)
        mine = (at, reader.generation)
        for other, waiting in enumerate(state.readers):
            joined = waiting.phase == At.JOINED and self.readers[other] == at
            if (joined and (self.joins == "any" or waiting.key == reader.key)) or (
                self.takes == "the answer" and waiting.phase == At.FOLLOWING and waiting.holder == mine
            ):
                if waiting.phase == At.FOLLOWING:
                    for third, behind in enumerate(state.readers):
                        if behind.phase == At.JOINED and self.readers[third] == self.readers[other]:
                            state = _answered(state, third, behind, reader.version)
                state = _answered(state, other, waiting, reader.version)
        return _answered(state, number, reader, reader.version)

    # -- what steps have in common ------------------------------------------------------------------------------------

    def _told(self, state: State, *, ours: bool) -> State:
        """A line of the log. Positions come of the store's clock as generations do."""
        if self.l1 != "trusted":
            return state
        server = state.server
        line = Line(state.fresh, server.last, ours)
        return state._replace(server=server._replace(log=(*server.log, line), last=state.fresh), fresh=state.fresh + 1)

    def _cleared(self, state: State, number: int) -> State:
        """What is in L1, and what is on its way there, is dirty."""
        readers = tuple(
            r._replace(dirtied=True) if r.phase != At.IDLE and self.readers[n] == number else r
            for n, r in enumerate(state.readers)
        )
        process = state.processes[number]._replace(l1=None)
        return state._replace(readers=readers, processes=_put(state.processes, number, process))

    def _held(self, state: State, at: int, reader: Reader) -> State:
        if self.l1 == "none" or (self.guarded and reader.dirtied):
            return state
        process = state.processes[at]._replace(l1=(reader.version, reader.generation))
        return state._replace(processes=_put(state.processes, at, process))

    # -- faults -------------------------------------------------------------------------------------------------------

    def _verified(self, state: State) -> State:
        server = state.server
        if server.verified or not self.verifies:
            return state._replace(server=server._replace(verified=True)) if not server.verified else state
        server = server._replace(verified=True, generation=state.fresh, epoch=state.fresh)
        if self.ages_fleet:
            server = server._replace(fleet_age=0)
        return self._told(state._replace(server=server, fresh=state.fresh + 1), ours=True)

    def _faults(self, state: State) -> Iterator[Step]:
        left, server = state.left, state.server
        if left.others and not state.away:
            told = self._told(self._verified(state), ours=False)
            yield "another tag is bumped", told._replace(left=left._replace(others=left.others - 1))
        if left.trims and server.log:
            trimmed = server._replace(log=server.log[1:])
            yield "the log is trimmed", state._replace(server=trimmed, left=left._replace(trims=left.trims - 1))
        if left.flushes:
            empty = Server(epoch=0, generation=0, fleet=None, fleet_age=0, last=0)
            yield "flush", state._replace(server=empty, left=left._replace(flushes=left.flushes - 1))
        if left.evictions and server.generation:
            gone = server._replace(generation=0)
            yield (
                "a generation is evicted",
                state._replace(server=gone, left=left._replace(evictions=left.evictions - 1)),
            )
        if left.expiries and server.entry is not None and not server.entry.expired:
            old = server._replace(entry=server.entry._replace(expired=True))
            yield "the entry expires", state._replace(server=old, left=left._replace(expiries=left.expiries - 1))
        if left.failovers and state.replica is not None:
            if state.replica != server and server.verified:
                yield "replication", state._replace(replica=server)
            promoted = state.replica._replace(verified=False)
            yield (
                "failover",
                state._replace(server=promoted, replica=None, left=left._replace(failovers=left.failovers - 1)),
            )
        if state.away:
            yield "the store is back", state._replace(away=False)
        elif left.outages:
            yield "the store is away", state._replace(away=True, left=left._replace(outages=left.outages - 1))
        if left.kills:
            yield "process 0 is killed", self._killed(state._replace(left=left._replace(kills=left.kills - 1)))

    def _killed(self, state: State) -> State:
        hooks = state.hooks
        if not self.durable:
            hooks = tuple(h._replace(phase=At.LOST) if h.phase == At.JOURNALLED else h for h in hooks)
        # A webhook that was waiting is not answered, and its sender asks again.
        hooks = tuple(Hook(At.WRITTEN) if h.phase == At.WAITING else h for h in hooks)
        readers = tuple(
            Reader(left=r.left) if self.readers[n] == 0 and r.phase != At.IDLE else r
            for n, r in enumerate(state.readers)
        )
        newborn = Process(applied=state.server.last, promised=state.processes[0].promised)
        return state._replace(hooks=hooks, readers=readers, processes=_put(state.processes, 0, newborn))

    def _ticked(self, state: State) -> State:
        processes = tuple(
            p._replace(
                lease=max(0, p.lease - 1),
                asked=None if p.asked is None or p.asked[0] >= LEASE else (p.asked[0] + 1, *p.asked[1:]),
            )
            for p in state.processes
        )
        hooks = tuple(
            h._replace(age=min(LEASE, h.age + 1), polled=min(LEASE, h.polled + 1) if h.polled >= 0 else -1)
            if h.phase == At.WAITING
            else h
            for h in state.hooks
        )
        server = state.server._replace(fleet_age=min(LEASE, state.server.fleet_age + 1))
        replica = state.replica
        if replica is not None:
            replica = replica._replace(fleet_age=min(LEASE, replica.fleet_age + 1))
        return state._replace(processes=processes, hooks=hooks, server=server, replica=replica)


def _put(parts: tuple[T, ...], number: int, part: T) -> tuple[T, ...]:
    return (*parts[:number], part, *parts[number + 1 :])


def _read(state: State, number: int, reader: Reader) -> State:
    return state._replace(readers=_put(state.readers, number, reader))


def _answered(state: State, number: int, reader: Reader, version: int) -> State:
    readers = _put(state.readers, number, Reader(left=reader.left))
    return state._replace(readers=readers, broken=state.broken or version < reader.owed)


def _acknowledge(state: State, number: int) -> State:
    hooks = _put(state.hooks, number, Hook(At.ACKNOWLEDGED))
    return state._replace(hooks=hooks, acknowledged=max(state.acknowledged, number + 1))


def _promise(state: State, number: int) -> State:
    process = state.processes[0]
    process = process._replace(promised=max(process.promised, number + 1))
    hooks = _put(state.hooks, number, Hook(At.JOURNALLED))
    return state._replace(hooks=hooks, processes=_put(state.processes, 0, process))


def _journal(state: State) -> bool:
    """Has the first process, to which every webhook comes, something in its journal?"""
    return any(hook.phase == At.JOURNALLED for hook in state.hooks)


# -- looking at everything --------------------------------------------------------------------------------------------


class Explored(NamedTuple):
    states: int
    trace: list[str]
    """The shortest way to a broken promise; empty when there is none."""


def explore(rules: Rules, limit: int = 3_000_000) -> Explored:
    start = rules.initial()
    came: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        assert len(came) < limit, "a configuration that is too large"
        state = queue.popleft()
        for label, after in rules.steps(state):
            if after in came:
                continue
            came[after] = (state, label)
            if after.broken:
                return Explored(len(came), _way(came, after))
            queue.append(after)
    return Explored(len(came), [])


def _way(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    steps = []
    while (back := came[state]) is not None:
        steps.append(back[1])
        state = back[0]
    return steps[::-1]


BASE = Rules(readers=(0, 0, 1))
JOINING = replace(BASE, joins="same generation")
L1 = Rules(joins="same generation", l1="trusted", waits="barrier", reads=2, readers=(0, 1))
TIMED = replace(L1, timed=True, warm=True, reads=1, readers=(0,))
FLIGHTS = replace(JOINING, flights=True)
AGED = replace(JOINING, serves="expired", readers=(0, 0), left=Left(expiries=1))
JOURNAL = replace(JOINING, left=Left(outages=1))
FAILOVER = replace(TIMED, left=Left(failovers=1))
FLUSHED = replace(TIMED, left=Left(flushes=1))
TRIMMED = replace(TIMED, left=Left(others=1, trims=1))

HOLDS: dict[str, Rules] = {
    "generations before the fetch": replace(BASE, reads=2, writes=2, readers=(0, 1)),
    "joining at the same generation": replace(JOINING, writes=2, sequential=False),
    "joining an unbegun load while blind": replace(JOINING, blind="unbegun"),
    "L1 validated on every hit": replace(BASE, l1="validated", reads=2, writes=2, readers=(0, 1)),
    "L1 with the barrier": L1,
    "L1 with its lease": replace(TIMED, reads=2),
    "L1 with its lease, from cold": replace(TIMED, warm=False, reads=3),
    "two writes, one struck": replace(TIMED, writes=2, reads=2),
    "a trimmed log": replace(TRIMMED, left=Left(others=1, trims=1)),
    "a flush": FLUSHED,
    "a failover without L1": replace(JOINING, left=Left(failovers=1)),
    "an evicted generation": replace(JOINING, left=Left(evictions=1)),
    "a flight lease": replace(FLIGHTS, left=Left(give_ups=1)),
    "a flight lease, the answer taken": replace(FLIGHTS, takes="the answer", left=Left(give_ups=1)),
    "a flight lease and L1": replace(L1, flights=True, reads=1, left=Left(give_ups=1)),
    "stale by time": replace(AGED, reads=2, readers=(0, 1)),
    "a journal": replace(JOURNAL, left=Left(outages=1, kills=1)),
    "a journal and L1": replace(L1, left=Left(outages=1), warm=True),
}

LARGE: dict[str, Rules] = {
    "joining, two reads each": replace(JOINING, writes=2, reads=2, sequential=False),
    "L1 with its lease, two processes": replace(TIMED, readers=(0, 1)),
    "L1 with its lease, writes at once": replace(TIMED, writes=2, sequential=False),
    "a trimmed log, twice": replace(TRIMMED, left=Left(others=1, trims=2), reads=2),
    "a flush, two reads": replace(FLUSHED, reads=2),
    "a failover that lost the last writes": FAILOVER,
    "two flushes": replace(FLUSHED, reads=2, left=Left(flushes=2)),
    "a failover with two reads": replace(FAILOVER, reads=2),
    "a journal, L1 and its lease": replace(TIMED, left=Left(outages=1)),
    "flight leases of two writes": replace(FLIGHTS, writes=2, left=Left(give_ups=1)),
}

BROKEN: dict[str, Rules] = {
    "deleted by the webhook": replace(BASE, compares=False),
    "generations after the fetch": replace(BASE, noted="after the fetch"),
    "joining any flight": replace(BASE, joins="any"),
    "joining a begun load while blind": replace(BASE, blind="begun"),
    "L1, nobody waits": replace(L1, waits="none"),
    "L1, fill not guarded": replace(L1, guarded=False),
    "L1 without a lease": replace(TIMED, leased=False),
    "the lease counted from the answer": replace(TIMED, granted_from="answer"),
    "a lease granted to who is behind": replace(TIMED, granted_behind=True),
    "the waiter waits less than the lease": replace(TIMED, waiter=LEASE - 1),
    "L1 without registering": replace(TIMED, registers=False, registered=False),
    "struck since the bump": replace(TIMED, strikes="since the bump", writes=2, reads=2),
    "struck although it renewed": replace(TIMED, strikes="even if renewed", writes=2, reads=2),
    "a gap that nobody sees": replace(TRIMMED, chained=False),
    "an epoch that is not compared": replace(FLUSHED, epochs=False),
    "a flush that nobody doubts": replace(FLUSHED, doubts=False, doubts_polls=False),
    "a flush that the poll does not see": replace(FLUSHED, doubts_polls=False),
    "a failover that nobody looks for": replace(FAILOVER, verifies=False),
    "a failover without L1 that nobody looks for": replace(
        JOINING, left=Left(failovers=1), readers=(0, 0), verifies=False
    ),
    "a failover that lost a registration": replace(FAILOVER, ages_fleet=False, registered=False),
    "following another generation's flight": replace(FLIGHTS, follows="any", takes="the answer"),
    "stale by event": replace(AGED, serves="dirty"),
    "200 for what is in the journal": replace(JOURNAL, answers_journalled="200"),
    "the store trusted before the replay": replace(JOURNAL, distrusts=False),
    "a journal that is forgotten": replace(JOURNAL, durable=False, left=Left(outages=1, kills=1)),
    "L1 trusted after the replay": replace(L1, left=Left(outages=1), warm=True, readers=(0, 1), replay_clears=False),
}


@pytest.mark.parametrize("variant", HOLDS)
def test_no_read_in_any_interleaving_returns_less_than_was_acknowledged(variant: str) -> None:
    explored = explore(HOLDS[variant])
    print(f"{variant}: holds in {explored.states} states")
    assert explored.trace == [], explored.trace


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("variant", LARGE)
def test_it_holds_in_a_larger_world(variant: str) -> None:
    explored = explore(LARGE[variant])
    print(f"{variant}: holds in {explored.states} states")
    assert explored.trace == [], explored.trace


SLOWLY_CAUGHT = frozenset({"struck since the bump", "struck although it renewed"})


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=[pytest.mark.long] if name in SLOWLY_CAUGHT else []) for name in BROKEN],
)
def test_a_protocol_with_one_rule_broken_is_caught(variant: str) -> None:
    explored = explore(BROKEN[variant])
    print(f"{variant}: broken in {len(explored.trace)} steps, {explored.states} states: {explored.trace}")
    assert explored.trace
