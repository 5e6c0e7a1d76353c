"""The store that entries and generations live in, as the engine needs it; what its drivers may raise.

errors.CacheUnavailable
+-- StoreError             the store answered with an error we have no better name for
    +-- StoreTimeout       no answer in time
    +-- StoreUnreachable   no connection
    +-- StoreReadOnly      it answers reads and refuses writes
    +-- StoreOutOfMemory   it answers, and has no room for this write
    +-- StoreNotTried      not asked: breaker open, switched off, or it has already failed in this call
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Applied, Notice, Told
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.errors import CacheUnavailable

__all__ = [
    "ANYBODY",
    "ANY_ENTRY",
    "DEDUPE_S",
    "EVERYTHING",
    "FLIGHT_LEASE_S",
    "FLOORS_MOST",
    "FLOOR_AHEAD_S",
    "FLOOR_LIFE_S",
    "GENERATION_LIFE_S",
    "HISTORY_LINES",
    "L1_LEASE_S",
    "LEASE_MARGIN_S",
    "LOG_LENGTH",
    "NOTED_LIFE_S",
    "RATES_S",
    "SETTLED",
    "START",
    "TALLY_BATCH_S",
    "WAKES_LENGTH",
    "WAKES_LIFE_S",
    "Ears",
    "EntryRow",
    "Floor",
    "Heard",
    "History",
    "Lead",
    "LeadVerdict",
    "LogRow",
    "Logged",
    "Seen",
    "Standing",
    "Store",
    "StoreError",
    "StoreHealth",
    "StoreNotTried",
    "StoreOutOfMemory",
    "StoreReadOnly",
    "StoreTimeout",
    "StoreUnreachable",
    "Verdict",
    "Wake",
    "batch_parts",
    "failure_life_s",
    "has_applied",
    "made_since",
    "order",
]

GENERATION_LIFE_S = 3 * 3600
"""A generation outlives every entry that names it (longest lifetime 7200 s with its jitter, and a margin). Were it to
go earlier, entries would be lost, never revived: a missing generation means invalid."""

NOTED_LIFE_S = 60
"""A generation that no entry names yet: longer than any load takes, and short, since anybody may ask for anything."""

DEDUPE_S = 24 * 3600
LOG_LENGTH = 10_000
RATES_S = 48 * 3600

TALLY_BATCH_S = 24 * 3600
"""How long a process's last batch is remembered: one whose answer was lost is sent again within seconds."""


L1_LEASE_S = 2.0
"""An instance that has not heard from the store for so long serves nothing from L1 any more. Ten times longer, and a
webhook would wait so long for an instance that died; ten times shorter, and a pause of the machine would empty L1."""

LEASE_MARGIN_S = 0.3
"""A register of the L1s that is older than a lease and this knows them all."""

FLIGHT_LEASE_S = 5.0
"""How long the followers of a fetch wait at most for a leader that died; a living one renews it meanwhile."""

FLOOR_LIFE_S = 60
"""How long a change's version is remembered: JobNimbus's index catches up within seconds, and a wrong date in a record
must not keep its lists from being cached for good."""

FLOOR_AHEAD_S = 2
"""A version may be so far ahead of the store's clock; one that is further is taken for that."""

FLOORS_MOST = 2_000
"""With more the half told longest ago is forgotten: in a mass change, what was told first has settled first."""

WAKES_LENGTH = 1_000
WAKES_LIFE_S = 60

EVERYTHING = "*"
"""What the log tells L1 in the place of a tag when everything of the tenant is invalid."""

SETTLED = "settled"
"""What the log tells beside tags that are renewed once more since the origin's index may have lagged: no new change."""

HISTORY_LINES = 200
"""Who is further behind than that had better ask the origin: that is one request."""

ANY_ENTRY = "*"
"""In the place of an etag: whatever is kept is to be replaced."""

ANYBODY = "_"
"""No instance's name: what the register of instances knows of itself, and `behind` says when it knows no more."""

START = "0-0"
"""The position before the log's first line."""


class StoreError(CacheUnavailable):
    """The store did not do what it was asked; `reason` is from the closed list of /cache/health."""

    reason = "unreachable"

    def __init__(self, detail: str = "") -> None:
        super().__init__("The cache is unavailable; try again shortly.", retry_after_s=1.0)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class StoreTimeout(StoreError):
    """No answer in time; whether the command was carried out is not known."""

    reason = "timeout"


class StoreUnreachable(StoreError):
    """No connection, or it broke."""


class StoreReadOnly(StoreError):
    """A replica, or a server that refuses writes until its disk is mended."""

    reason = "read_only"


class StoreOutOfMemory(StoreError):
    """The write did not fit."""

    reason = "out_of_memory"


class StoreNotTried(StoreError):
    """Not asked at all."""

    reason = "circuit_open"

    def __init__(self, reason: str = "circuit_open") -> None:
        super().__init__()
        self.reason = reason


class Verdict(IntEnum):
    """What READ says of the entry. The numbers are those of the scripts."""

    MISS = 0
    HIT = 1
    NOT_MODIFIED = 2
    CORRUPT = 3
    DIRTY = 4
    """Kept, and of older generations; told only to who asks for dirty ones."""


class Seen(NamedTuple):
    """One READ's answer.

    `vector`: the generations as they were, to be handed back when filling; empty when they could not be noted (the
    store is full or read-only), and then nothing may be filled. `guard`: what scanning deletions move, likewise handed
    back. NOT_MODIFIED has both as well. `ttl_s`: how long the entry will still be kept (which is longer than it is
    fresh: the entry itself tells both), 0 without one. `admitted_s`: for how long the bearer's acceptance still counts,
    0 when it does not. `value`: with HIT and DIRTY only.
    """

    verdict: Verdict
    ttl_s: float
    admitted_s: float
    vector: bytes = b""
    guard: bytes = b""
    value: bytes | None = None

    @property
    def admitted(self) -> bool:
        return self.admitted_s > 0


class LeadVerdict(IntEnum):
    """What LEAD says. The numbers are those of the script."""

    LED = 0
    """The caller holds the lease now, and fetches."""
    FOLLOW = 1
    """Another is fetching at the same generations; a wake will tell when it has ended."""
    FILLED = 2
    """An entry of these generations, other than the one to be replaced, is there: read again."""
    THROTTLED = 3
    """The last fetch failed a short while ago. Only who has something to serve meanwhile is told so."""


class Floor(NamedTuple):
    """What a change said: the record is at least of this version (epoch seconds; 0 when it did not say), and that was
    told `age_s` ago, by the store's clock."""

    version_s: int
    age_s: float


class Lead(NamedTuple):
    """One LEAD's answer. `wait_s`: with FOLLOW what remains of the other's lease, with THROTTLED the time until the
    next try. `failures`: with LED, how many fetches in a row failed before this one. `floors`: with LED, by name."""

    verdict: LeadVerdict
    wait_s: float = 0.0
    failures: int = 0
    floors: Mapping[str, Floor] = MappingProxyType({})


class Standing(NamedTuple):
    """What renewing the L1 lease tells: the epoch (empty when there is none) and the log's last position."""

    epoch: bytes
    position: str


class Logged(NamedTuple):
    """One line of the log as L1 needs it: `tags` are invalid. `previous`: the position of the line before it, so that
    a reader which has applied another one than that knows that it missed something."""

    position: str
    previous: str
    tags: tuple[str, ...]


class History(NamedTuple):
    """What the log says of the time before now, by the store's clock. `position`: of its last line. `settled`: of the
    last line that is older than was asked. `lines`: the further ones, oldest first, `HISTORY_LINES` at most."""

    epoch: bytes
    now_ms: int
    position: str
    settled: str
    lines: tuple[Logged, ...]

    def since(self, position: str) -> tuple[Logged, ...] | None:
        """The lines after a position, oldest first; None when they are not all here: the log was cut, lost or is too
        long."""
        if order(position) > order(self.position):
            return None
        found, last = [], position
        for line in self.lines:
            if order(line.position) > order(position):
                if line.previous != last:
                    return None
                found.append(line)
                last = line.position
        return tuple(found) if last == self.position else None


class Wake(NamedTuple):
    """A fetch under a flight lease has ended. `result`: stored, unkept (answered, and not kept) or failed."""

    position: str
    key_text: str
    result: str


class Ears(NamedTuple):
    """Positions from which on to listen, of one tenant. `log` None: not to the log (no L1 here)."""

    log: str | None
    wakes: str


class Heard(NamedTuple):
    """What came after those positions, oldest first."""

    changes: tuple[Logged, ...]
    wakes: tuple[Wake, ...]


class EntryRow(NamedTuple):
    """One entry as a listing finds it: `head` is the stored value's start, for `codec.peek`."""

    key: str
    head: bytes
    ttl_s: float
    size_bytes: int


class LogRow(NamedTuple):
    """One line of the invalidation log; `at` in wall seconds of the store."""

    at: float
    event_id: str
    event: str
    resource: str
    resource_id: str
    source: str
    latency_ms: float
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """`reason`: None when healthy, else unreachable, timeout, circuit_open, read_only, out_of_memory or disabled."""

    connected: bool
    circuit_state: str
    latency_ms: float
    reason: str | None


class Store(Protocol):
    """Entries, generations, admission markers, log and tallies of all tenants.

    Every operation is one atomic step on one tenant's keys. `call` bounds it and learns of a failure where the store is
    guarded; drivers take no notice of it. Every operation may raise `StoreError`.
    """

    async def read(
        self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, dirty: bool = False, call: Call
    ) -> Seen:
        """Look the entry up and note the generations of `tags` (missing ones are made).

        An entry whose generations differ is a MISS, or with `dirty` DIRTY with its value (also when generations are
        missing; then the vector is what was made of them). `etag`: the caller's own copy; when the entry is still that
        one the answer is NOT_MODIFIED without a value. `want=False`: only the vector and the guard, verdict MISS.
        """
        ...

    async def lead(
        self, key: CacheKey, seen: Seen, token: str, *, etag: str = "", patient: bool = False, call: Call
    ) -> Lead:
        """Take the lease of fetching `key` at the generations of `seen`, for `FLIGHT_LEASE_S`.

        A lease held at other generations is taken over: its fetch can no longer be kept. `etag`: the entry to be
        replaced ("" none, `ANY_ENTRY` whichever it is); with another one there at these generations the answer is
        FILLED. `patient`: the caller has something to serve, so it is told THROTTLED after a failure; others lead.
        """
        ...

    async def keep_lead(self, key: CacheKey, token: str, call: Call) -> bool:
        """Have the lease for another `FLIGHT_LEASE_S`; False when it is no longer the token's."""
        ...

    async def release(
        self, key: CacheKey, token: str, *, result: str, failures: int = 0, throttle_s: float = 0.0, call: Call
    ) -> None:
        """Give the lease back, if it is the token's, and wake who follows. `result`: unkept or failed.

        With `throttle_s`, LEAD tells the patient THROTTLED for so long, and after that `failures` to who leads next.
        """
        ...

    async def fill(
        self,
        key: CacheKey,
        tags: Sequence[str],
        seen: Seen,
        value: bytes,
        *,
        ttl_s: float,
        admission_s: float,
        token: str = "",
        call: Call,
    ) -> bool:
        """Keep `value` and mark the partition admitted; False, nothing kept, when a generation or the guard moved, or
        `token` is given and the flight lease is not its.

        `ttl_s`: how long it is kept. The token's lease is given back in any case, and who follows is woken.
        """
        ...

    async def append_and_bump(
        self, tenant: str, tags: Sequence[str], notice: Notice, call: Call, *, tells: Sequence[str] = ()
    ) -> Applied:
        """Bump every tag, tell L1s of `tags` and `tells` by the log, raise the notice's floors.

        Duplicates too; only a notice that is none is shown by `log`. Holds even in a full store: where the log takes no
        line, everything of the tenant is invalid and `Told.unknown` is True.
        """
        ...

    async def renew_epoch(self, tenant: str, call: Call) -> Told:
        """Invalidate everything of the tenant."""
        ...

    async def renew_l1(self, tenant: str, instance: str, applied: str, *, register: bool, call: Call) -> Standing:
        """Where the log stands; with `register`, `instance` is one for whom barriers wait, and has applied so much."""
        ...

    async def changes(self, tenant: str, after: str, call: Call) -> list[Logged]:
        """The log's lines after a position, oldest first, at most a thousand."""
        ...

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History:
        """The log since a position (empty: since `back_s` ago), or since `back_s` ago where that is longer."""
        ...

    async def listen(self, ears: Mapping[str, Ears], *, block_s: float) -> Mapping[str, Heard]:
        """What came after the positions, by tenant; waits at most `block_s` for something, then nothing. Without
        `ears` there is nothing to wait for.

        Bounded by `block_s` alone, and guarded by nobody: for the background.
        """
        ...

    async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
        """Registered instances that have not applied the log up to `position`, with what they last registered.

        With `ANYBODY` among them when the register is younger than that position, or is not the one asked for: who was
        in the one before is unknown. Ages alone do not tell, since another server's clock may be behind.
        """
        ...

    async def strike(self, tenant: str, instances: Mapping[str, bytes | None], call: Call) -> None:
        """Wait for these no more, each unless it has registered anew since (None: whatever it has)."""
        ...

    async def inspect(self, key: CacheKey, call: Call) -> EntryRow | None:
        """One entry as a listing finds it, valid or not."""
        ...

    async def generations(self, tenant: str, tags: Sequence[str], call: Call) -> tuple[bytes | None, ...]:
        """The epoch, then the generation of each tag; None for one that is missing. Makes none."""
        ...

    async def admission(self, tenant: str, partition: str, call: Call) -> tuple[bool, bytes]:
        """Is the partition marked as admitted, and the guard to hand back to `admit`."""
        ...

    async def admit(self, tenant: str, partition: str, guard: bytes, *, admission_s: float, call: Call) -> bool:
        """Mark the partition as admitted, unless the guard moved: then False."""
        ...

    async def withdraw(self, tenant: str, partition: str, call: Call, *, if_admitted: bool = False) -> bool:
        """Take the admission marker away and move the guard; True when the bearer had ever been admitted.

        `if_admitted`: the guard is left alone when it had not, so that strangers do not disturb the tenant's fills.
        """
        ...

    async def delete_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, int]:
        """One step of a scan that deletes entries: (next cursor, 0 = done; number deleted).

        The first and the last step move the guard.
        """
        ...

    async def list_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, list[EntryRow]]:
        """One step of a scan that lists entries: (next cursor, 0 = done; entries)."""
        ...

    async def log(self, tenant: str, *, limit: int, since: float | None, call: Call) -> list[LogRow]:
        """The newest lines of the invalidation log, newest first, none older than `since` (wall seconds)."""
        ...

    async def rates(self, tenant: str, hours: Sequence[int], call: Call) -> dict[int, dict[str, int]]:
        """Invalidations of these hours (hours since the epoch) as `resource|source` -> count; empty hours left out."""
        ...

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        """Add to the tenant's lasting sums.

        `batch` is `<process>:<number>`, the numbers of a process growing; one that was added before is ignored, so that
        a batch whose answer was lost can be sent again.
        """
        ...

    async def totals(self, tenant: str) -> dict[str, int]:
        """The tenant's lasting sums."""
        ...

    async def ping(self, call: Call) -> None:
        """Return when the store takes writes."""
        ...


def order(position: str) -> tuple[int, int]:
    """A position of the log as numbers to compare."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence or 0)


def has_applied(registered: bytes, position: str, last: str) -> bool:
    """Does this registration say that the log was applied up to `position`? `last`: the log's last position now; who is
    beyond it has applied a log that was lost since."""
    applied = registered.partition(b"|")[0].decode("ascii", "replace")
    try:
        return order(position) <= order(applied) <= order(last)
    except ValueError:
        return False


def made_since(made_us: bytes | None, position: str) -> bool:
    """Is the register of instances, made then (None: there is none), younger than this line of the log? Whoever was in
    one that was lost may serve L1 for as long as its lease lasts, and is in none now."""
    return made_us is None or not made_us.isdigit() or int(made_us) // 1000 >= order(position)[0]


def failure_life_s(throttle_s: float) -> float:
    """How long it is remembered how often a fetch failed: until the try after the next would be due, and a margin."""
    return 2 * throttle_s + 60


def batch_parts(batch: str) -> tuple[str, int]:
    """Process and number of a tally's batch.

    Raises:
        ValueError: it is not `<process>:<number>`.
    """
    process, _, number = batch.rpartition(":")
    if not process:
        raise ValueError("a batch is named <process>:<number>")
    return process, int(number)
