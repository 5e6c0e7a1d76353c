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
from typing import NamedTuple, Protocol

from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.errors import CacheUnavailable

__all__ = [
    "DEDUPE_S",
    "GENERATION_LIFE_S",
    "LOG_LENGTH",
    "NOTED_LIFE_S",
    "RATES_S",
    "TALLY_BATCH_S",
    "EntryRow",
    "LogRow",
    "Seen",
    "Store",
    "StoreError",
    "StoreHealth",
    "StoreNotTried",
    "StoreOutOfMemory",
    "StoreReadOnly",
    "StoreTimeout",
    "StoreUnreachable",
    "Verdict",
    "batch_parts",
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


class Seen(NamedTuple):
    """One READ's answer.

    `vector`: the generations as they were, to be handed back when filling; empty when they could not be noted (the
    store is full or read-only), and then nothing may be filled. `guard`: what scanning deletions move, likewise handed
    back. Both are empty with NOT_MODIFIED. `ttl_s`: what remains of the entry, 0 without one. `value`: with HIT only.
    """

    verdict: Verdict
    ttl_s: float
    admitted: bool
    vector: bytes = b""
    guard: bytes = b""
    value: bytes | None = None


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

    async def read(self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, call: Call) -> Seen:
        """Look the entry up and note the generations of `tags` (missing ones are made).

        An entry whose generations differ is a MISS. `etag`: the caller's own copy; when the entry is still that one the
        answer is NOT_MODIFIED without a value. `want=False`: only the vector and the guard, verdict MISS.
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
        call: Call,
    ) -> bool:
        """Keep `value` and mark the partition admitted; False, nothing kept, when a generation or the guard moved."""
        ...

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        """Bump every tag, and unless the notice is a duplicate write it to the log. Holds even in a full store."""
        ...

    async def renew_epoch(self, tenant: str, call: Call) -> None:
        """Invalidate everything of the tenant."""
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


def batch_parts(batch: str) -> tuple[str, int]:
    """Process and number of a tally's batch.

    Raises:
        ValueError: it is not `<process>:<number>`.
    """
    process, _, number = batch.rpartition(":")
    if not process:
        raise ValueError("a batch is named <process>:<number>")
    return process, int(number)
