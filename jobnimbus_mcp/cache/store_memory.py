"""The store in this process: the same steps as the scripts of the Redis driver, and able to fail on demand."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from jobnimbus_mcp.cache.codec import ETAG_AT, HEADER_BYTES, VERSION
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.keyspace_memory import Keyspace
from jobnimbus_mcp.cache.notice import Applied, Notice, Told
from jobnimbus_mcp.cache.ports import (
    ANY_ENTRY,
    ANYBODY,
    DEDUPE_S,
    EVERYTHING,
    FLIGHT_LEASE_S,
    FLOOR_AHEAD_S,
    FLOOR_LIFE_S,
    FLOORS_MOST,
    GENERATION_LIFE_S,
    HISTORY_LINES,
    L1_LEASE_S,
    LEASE_MARGIN_S,
    NOTED_LIFE_S,
    RATES_S,
    START,
    TALLY_BATCH_S,
    Ears,
    EntryRow,
    Floor,
    Heard,
    History,
    Lead,
    LeadVerdict,
    Logged,
    LogRow,
    Seen,
    Standing,
    StoreOutOfMemory,
    StoreReadOnly,
    StoreTimeout,
    StoreUnreachable,
    Verdict,
    batch_parts,
    failure_life_s,
    has_applied,
    made_since,
    order,
)
from jobnimbus_mcp.cache.streams_memory import Streams
from jobnimbus_mcp.cache.system_keys import (
    bearer_word,
    epoch_key,
    generation_key,
    guard_key,
    lease_key,
    marker_key,
    seen_key,
    sums_batch_key,
    trace_key,
)
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock

__all__ = ["FailMode", "MemoryStore"]

FailMode = Literal["refused", "timeout", "out_of_memory", "read_only"]

_SCAN_COUNT = 500
_HEAD_BYTES = 4096
_LINES = 1_000
_LEADING = re.compile(rb"^\d+", re.MULTILINE)
_LEASE = re.compile(rb"(?P<token>.*)\|(?P<of>[0-9a-f]+)\|(?P<top>\d+)\|(?P<follows>[01])", re.DOTALL)
_FAILURE = re.compile(rb"!(?P<failures>\d+)\|(?P<till>\d+)")


@dataclass(slots=True)
class _Fleet:
    """`made`: on the monotonic clock; `made_us` on the wall clock, like the log's positions."""

    made: float
    made_us: bytes
    instances: dict[str, bytes] = field(default_factory=dict)


class MemoryStore:
    """Entries and generations of one process, bounded by `max_bytes`: the least recently used go first.

    Losing any of them, a generation included, costs hits and never revives an entry. Nothing outlives the process, so
    nobody can have an L1 over a new one, and the first invalidation of all need not wait for anybody.
    """

    def __init__(self, clock: Clock, max_bytes: int = 128 * 1024 * 1024) -> None:
        self._clock = clock
        self._keys = Keyspace(clock, max_bytes)
        self._streams = Streams(clock)
        self._fleets: dict[str, _Fleet] = {}
        self._floors: dict[str, OrderedDict[str, tuple[int, float]]] = {}
        self._rates: dict[str, OrderedDict[int, Counter[str]]] = {}
        self._sums: dict[str, Counter[str]] = {}
        self._had_epoch: set[str] = set()
        self._flushed = False
        self._last_generation = 0
        self._renewals = 0
        self._mode: FailMode | None = None

    def fail(self, mode: FailMode | None) -> None:
        """From now on fail like this; None: no more. For tests and the demo."""
        self._mode = mode
        self._streams.stir()

    def noted(self, tenant: str, dedupe_key: str) -> bool:
        """Whether an event of this dedupe or version key was told of within DEDUPE_S."""
        return self._keys.peek(seen_key(tenant, dedupe_key)) is not None

    # -- entries -----------------------------------------------------------------------------------------------------

    async def read(
        self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, dirty: bool = False, call: Call
    ) -> Seen:
        self._reach()
        key_text, tenant = key.text, key.tenant
        admitted_s = self._keys.remaining_s(marker_key(tenant, key.bearer))
        vector, guard = self._vector(tenant, tags), self._keys.peek(guard_key(tenant))
        verdict, ttl_s, value = Verdict.MISS, 0.0, None
        if want and (vector is not None or dirty):
            held = self._keys.peek(key_text) or b""
            verdict = _judged(held, vector, etag, dirty=dirty)
            if verdict not in (Verdict.MISS, Verdict.CORRUPT):
                ttl_s = self._keys.remaining_s(key_text)
                value = None if verdict is Verdict.NOT_MODIFIED else held
        if verdict in (Verdict.HIT, Verdict.NOT_MODIFIED) and vector is not None and guard is not None:
            return Seen(verdict, ttl_s, admitted_s, vector, guard, value)
        made, moved = self._made_vector(tenant, tags), self._made(guard_key(tenant))
        if made is None or moved is None:
            return Seen(verdict, ttl_s, admitted_s, value=value)
        return Seen(verdict, ttl_s, admitted_s, made, moved, value)

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
        self._reach()
        if token and self._mode == "read_only":
            raise StoreReadOnly("failing on demand")
        if token and not self._held_by(key, token):
            return False
        tenant = key.tenant
        kept = self._keys.peek(guard_key(tenant)) == seen.guard and self._vector(tenant, tags) == seen.vector
        room = self._mode != "out_of_memory"
        if token:
            self._end(key, "stored" if kept and room else "unkept")
        if not kept:
            return False
        self._writable(needs_room=True)
        self._keys.set(key.text, value, ttl_s)
        marker = marker_key(tenant, key.bearer)
        if self._keys.remaining_s(marker) < admission_s:
            self._keys.set(marker, b"1", admission_s)
        life_s = max(GENERATION_LIFE_S, ttl_s + 600)
        self._keys.set(trace_key(tenant, key.bearer), b"1", life_s)
        expires = self._clock.monotonic() + life_s
        for tag in tags:
            held = self._keys.get(generation_key(tenant, tag))
            if held is not None and held.expires is not None and held.expires < expires:
                self._keys.set(generation_key(tenant, tag), held.value, life_s)
        return True

    async def delete_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, int]:
        self._reach()
        self._writable()
        # One step deletes them all, so nothing can come between and the guard moves once.
        self._bump(guard_key(tenant))
        doomed = self._keys.matching(glob)
        for key_text in doomed:
            self._keys.drop(key_text)
        self._append(tenant, (EVERYTHING,))
        return 0, len(doomed)

    async def list_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, list[EntryRow]]:
        self._reach()
        found = self._keys.matching(glob)[cursor : cursor + _SCAN_COUNT]
        rows = [row for key_text in found if (row := self._row(key_text, _HEAD_BYTES)) is not None]
        return (cursor + _SCAN_COUNT if len(found) == _SCAN_COUNT else 0), rows

    async def inspect(self, key: CacheKey, call: Call) -> EntryRow | None:
        self._reach()
        return self._row(key.text, None)

    async def generations(self, tenant: str, tags: Sequence[str], call: Call) -> tuple[bytes | None, ...]:
        self._reach()
        return (self._keys.peek(epoch_key(tenant)), *(self._keys.peek(generation_key(tenant, tag)) for tag in tags))

    # -- fetches -----------------------------------------------------------------------------------------------------

    async def lead(
        self, key: CacheKey, seen: Seen, token: str, *, etag: str = "", patient: bool = False, call: Call
    ) -> Lead:
        self._reach()
        entry = self._keys.peek(key.text) or b""
        if (
            etag != ANY_ENTRY
            and _judged(entry, seen.vector, "", dirty=False) is Verdict.HIT
            and entry[ETAG_AT] != etag.encode()
        ):
            return Lead(LeadVerdict.FILLED)
        name, digest = lease_key(key), hashlib.sha1(seen.vector + b"\n" + seen.guard, usedforsecurity=False).hexdigest()
        newest = max((int(number) for number in _LEADING.findall(seen.vector + b"\n" + seen.guard)), default=0)
        failures, followed = 0, 0
        held = self._keys.peek(name) or b""
        if lease := _LEASE.fullmatch(held):
            if lease["token"] != token.encode() and (lease["of"] == digest.encode() or int(lease["top"]) > newest):
                self._writable()
                self._keys.replace(name, held[:-1] + b"1")
                return Lead(LeadVerdict.FOLLOW, self._keys.remaining_s(name))
            followed = int(lease["follows"])
        elif failure := _FAILURE.fullmatch(held):
            failures, wait_s = int(failure["failures"]), int(failure["till"]) / 1e6 - self._clock.monotonic()
            if patient and wait_s > 0:
                return Lead(LeadVerdict.THROTTLED, wait_s)
        self._writable(needs_room=True)
        self._keys.set(name, f"{token}|{digest}|{newest}|{followed}".encode(), FLIGHT_LEASE_S)
        return Lead(LeadVerdict.LED, failures=failures, floors=self._live_floors(key.tenant))

    async def keep_lead(self, key: CacheKey, token: str, call: Call) -> bool:
        self._reach()
        if not self._held_by(key, token):
            return False
        self._writable()
        self._keys.set(lease_key(key), self._keys.peek(lease_key(key)) or b"", FLIGHT_LEASE_S)
        return True

    async def release(
        self, key: CacheKey, token: str, *, result: str, failures: int = 0, throttle_s: float = 0.0, call: Call
    ) -> None:
        self._reach()
        if not self._held_by(key, token):
            return
        self._writable()
        self._end(key, result)
        if throttle_s > 0:
            till_us = int((self._clock.monotonic() + throttle_s) * 1e6)
            self._keys.set(lease_key(key), b"!%d|%d" % (failures, till_us), failure_life_s(throttle_s))

    # -- invalidation ------------------------------------------------------------------------------------------------

    async def append_and_bump(
        self, tenant: str, tags: Sequence[str], notice: Notice, call: Call, *, tells: Sequence[str] = ()
    ) -> Applied:
        self._reach()
        self._writable()
        for tag in tags:
            self._bump_if_there(generation_key(tenant, tag))
        latency_ms = round(max(0.0, (self._clock.now() - notice.received_at) * 1000), 3)
        event_id, duplicate = notice.event_id, False
        if notice.dedupe_key:
            name = seen_key(tenant, notice.dedupe_key)
            first = self._keys.peek(name)
            if first:
                event_id, duplicate = first.decode(), True
            elif self._mode != "out_of_memory":
                self._keys.set(name, event_id.encode(), DEDUPE_S)
        if notice.version_key and self._mode != "out_of_memory":
            self._keys.set(seen_key(tenant, notice.version_key), event_id.encode(), DEDUPE_S)
        self._raise_floors(tenant, notice.floors)
        told_tags = tuple(dict.fromkeys((*tags, *tells)))
        shown = None
        if not duplicate and not notice.quiet:
            shown = LogRow(
                self._clock.now(),
                notice.event_id,
                notice.event,
                notice.resource,
                notice.resource_id,
                notice.source,
                latency_ms,
                told_tags,
            )
            self._count(tenant, notice)
        told = self._told(tenant, self._append(tenant, told_tags, shown))
        return Applied(event_id, duplicate, latency_ms, len(tags), told)

    async def renew_epoch(self, tenant: str, call: Call) -> Told:
        self._reach()
        self._writable()
        lost = self._epoch_lost(tenant)
        self._had_epoch.add(tenant)
        self._bump(epoch_key(tenant), life_s=None)
        told = self._told(tenant, self._append(tenant, (EVERYTHING,)))
        return told._replace(unknown=told.unknown or lost)

    async def log(self, tenant: str, *, limit: int, since: float | None, call: Call) -> list[LogRow]:
        self._reach()
        rows = self._streams.shown(tenant)
        return list(islice((row for row in rows if since is None or row.at >= since), limit))

    async def rates(self, tenant: str, hours: Sequence[int], call: Call) -> dict[int, dict[str, int]]:
        self._reach()
        kept = self._rates.get(tenant, OrderedDict())
        return {hour: dict(kept[hour]) for hour in hours if hour in kept}

    # -- coherence ---------------------------------------------------------------------------------------------------

    async def renew_l1(self, tenant: str, instance: str, applied: str, *, register: bool, call: Call) -> Standing:
        self._reach()
        if register:
            self._writable()
            self._renewals += 1
            self._fleet(tenant).instances[instance] = f"{applied}|{self._renewals}".encode()
        return Standing(self._keys.peek(epoch_key(tenant)) or b"", self._streams.last(tenant))

    async def changes(self, tenant: str, after: str, call: Call) -> list[Logged]:
        self._reach()
        return self._streams.changes(tenant, after, _LINES)

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History:
        self._reach()
        now_ms = int(self._clock.now() * 1000)
        settled = self._streams.last_before(tenant, now_ms - int(back_s * 1000))
        begin = min(settled, after or settled, key=order)
        return History(
            self._keys.peek(epoch_key(tenant)) or b"",
            now_ms,
            self._streams.last(tenant),
            settled,
            tuple(self._streams.changes(tenant, begin, HISTORY_LINES)),
        )

    async def listen(self, ears: Mapping[str, Ears], *, block_s: float) -> Mapping[str, Heard]:
        self._reach()
        till = self._clock.monotonic() + block_s
        while True:
            heard = self._streams.heard(ears, _LINES)
            left_s = till - self._clock.monotonic()
            if heard or not ears or left_s <= 0 or not await self._streams.stirred(left_s):
                return heard
            self._reach()

    async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
        self._reach()
        last = self._streams.last(tenant)
        # Looking makes no register: one that was lost stays lost until somebody is told of an invalidation.
        fleet = self._fleets.get(tenant) if self._flushed else self._fleet(tenant)
        if fleet is None:
            return {ANYBODY: b""}
        late = {name: value for name, value in fleet.instances.items() if not has_applied(value, position, last)}
        another = made_since(fleet.made_us, position) or (register != b"" and fleet.made_us != register)
        return late | {ANYBODY: fleet.made_us} if another else late

    async def strike(self, tenant: str, instances: Mapping[str, bytes | None], call: Call) -> None:
        self._reach()
        if instances:
            self._writable()
        fleet = self._fleets.get(tenant)
        registered = {} if fleet is None else fleet.instances
        for name, value in instances.items():
            if value is None or registered.get(name) == value:
                registered.pop(name, None)

    # -- bearers -----------------------------------------------------------------------------------------------------

    async def admission(self, tenant: str, partition: str, call: Call) -> tuple[bool, bytes]:
        self._reach()
        marked = self._keys.get(marker_key(tenant, partition)) is not None
        return marked, self._made(guard_key(tenant)) or b""

    async def admit(self, tenant: str, partition: str, guard: bytes, *, admission_s: float, call: Call) -> bool:
        self._reach()
        if self._keys.peek(guard_key(tenant)) != guard:
            return False
        self._writable(needs_room=True)
        self._keys.set(marker_key(tenant, partition), b"1", admission_s)
        self._keys.set(trace_key(tenant, partition), b"1", GENERATION_LIFE_S)
        return True

    async def withdraw(self, tenant: str, partition: str, call: Call, *, if_admitted: bool = False) -> bool:
        self._reach()
        self._writable()
        had = [self._keys.drop(name) for name in (marker_key(tenant, partition), trace_key(tenant, partition))]
        if any(had) or not if_admitted:
            self._bump(guard_key(tenant))
            self._append(tenant, (bearer_word(partition),))
        return any(had)

    # -- sums and health ---------------------------------------------------------------------------------------------

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        self._reach()
        self._writable(needs_room=True)
        process, number = batch_parts(batch)
        last_key = sums_batch_key(tenant, process)
        if counts and number > int(self._keys.peek(last_key) or 0):
            self._sums.setdefault(tenant, Counter()).update(counts)
            self._keys.set(last_key, b"%d" % number, TALLY_BATCH_S)

    async def totals(self, tenant: str) -> dict[str, int]:
        self._reach()
        return dict(self._sums.get(tenant, {}))

    async def ping(self, call: Call) -> None:
        self._reach()
        self._writable(needs_room=True)

    # -- for tests: what an operator could do to a server ------------------------------------------------------------

    def names(self) -> dict[str, float | None]:
        """Every key and when it expires, on the monotonic clock."""
        return self._keys.names()

    def put_raw(self, key_text: str, value: bytes) -> None:
        """Overwrite a key's bytes, keeping when it expires."""
        self._keys.replace(key_text, value)

    def evict(self, key_text: str) -> bool:
        """Lose one key."""
        return self._keys.drop(key_text)

    def flush(self) -> None:
        """Lose everything."""
        self._flushed = True
        self._keys.clear()
        self._streams.clear()
        for part in (self._fleets, self._floors, self._rates, self._sums):
            part.clear()

    # -- steps -------------------------------------------------------------------------------------------------------

    def _reach(self) -> None:
        if self._mode == "refused":
            raise StoreUnreachable("failing on demand")
        if self._mode == "timeout":
            raise StoreTimeout("failing on demand")

    def _writable(self, *, needs_room: bool = False) -> None:
        if self._mode == "read_only":
            raise StoreReadOnly("failing on demand")
        if needs_room and self._mode == "out_of_memory":
            raise StoreOutOfMemory("failing on demand")

    def _row(self, key_text: str, head_bytes: int | None) -> EntryRow | None:
        kept = self._keys.peek(key_text)
        if kept is None:
            return None
        return EntryRow(key_text, kept[:head_bytes], self._keys.remaining_s(key_text), len(kept))

    def _append(self, tenant: str, tags: Sequence[str], shown: LogRow | None = None) -> str | None:
        """The line's position; None: there is no room for it, so everything is invalid."""
        if self._mode == "out_of_memory":
            self._keys.drop(epoch_key(tenant))
            return None
        return self._streams.append(tenant, tags, shown)

    def _told(self, tenant: str, position: str | None) -> Told:
        fleet = self._fleet(tenant)
        unknown = position is None or self._epoch_lost(tenant)
        if position is not None:
            self._made(epoch_key(tenant), life_s=None)
        young = self._clock.monotonic() - fleet.made < L1_LEASE_S + LEASE_MARGIN_S
        return Told(position or START, len(fleet.instances), unknown or young, fleet.made_us)

    def _epoch_lost(self, tenant: str) -> bool:
        return tenant in self._had_epoch and self._keys.get(epoch_key(tenant)) is None

    def _fleet(self, tenant: str) -> _Fleet:
        fleet = self._fleets.get(tenant)
        if fleet is None:
            made = self._clock.monotonic() if self._flushed else float("-inf")
            made_us = b"%d" % (self._clock.now() * 1_000_000 if self._flushed else 0)
            fleet = self._fleets[tenant] = _Fleet(made, made_us)
        return fleet

    def _held_by(self, key: CacheKey, token: str) -> bool:
        return (self._keys.peek(lease_key(key)) or b"").startswith(f"{token}|".encode())

    def _end(self, key: CacheKey, result: str) -> None:
        held = self._keys.peek(lease_key(key)) or b""
        self._keys.drop(lease_key(key))
        if held.endswith(b"1"):
            self._streams.wake(key.tenant, key.text, result)

    def _raise_floors(self, tenant: str, floors: Mapping[str, int]) -> None:
        now = self._clock.monotonic()
        kept = self._floors.setdefault(tenant, OrderedDict())
        for name, version in floors.items():
            version = max(0, min(version, int(self._clock.now()) + FLOOR_AHEAD_S))
            higher, told = kept.pop(name, (0, now))
            kept[name] = (max(version, higher) if now - told <= FLOOR_LIFE_S else version, now)
        if len(kept) > FLOORS_MOST:
            while len(kept) > FLOORS_MOST // 2:
                kept.popitem(last=False)

    def _live_floors(self, tenant: str) -> dict[str, Floor]:
        now = self._clock.monotonic()
        kept = self._floors.get(tenant) or OrderedDict()
        return {
            name: Floor(version, now - told) for name, (version, told) in kept.items() if now - told <= FLOOR_LIFE_S
        }

    def _count(self, tenant: str, notice: Notice) -> None:
        hours = self._rates.setdefault(tenant, OrderedDict())
        hour = int(self._clock.now() // 3600)
        hours.setdefault(hour, Counter())[f"{notice.resource}|{notice.source}"] += 1
        while len(hours) > RATES_S // 3600:
            hours.popitem(last=False)

    def _vector(self, tenant: str, tags: Iterable[str]) -> bytes | None:
        epoch = self._keys.peek(epoch_key(tenant))
        if epoch is None:
            return None
        parts = [epoch]
        for tag in tags:
            generation = self._keys.peek(generation_key(tenant, tag))
            if generation is None:
                return None
            parts.append(generation)
        return b"\n".join(parts)

    def _made_vector(self, tenant: str, tags: Iterable[str]) -> bytes | None:
        if self._made(epoch_key(tenant), life_s=None) is None:
            return None
        self._had_epoch.add(tenant)
        made = [self._made(generation_key(tenant, tag), life_s=NOTED_LIFE_S, check=True) for tag in tags]
        return None if None in made else self._vector(tenant, tags)

    def _made(self, key_text: str, *, life_s: float | None = GENERATION_LIFE_S, check: bool = False) -> bytes | None:
        """The generation under the key, made if it is missing or (`check`) unreadable; None when it cannot be made."""
        value = self._keys.peek(key_text)
        if value is not None and not (check and _number(value) is None):
            return value
        if self._mode in ("out_of_memory", "read_only"):
            return None
        made = self._next_generation(0)
        self._keys.set(key_text, made, life_s)
        return made

    def _bump_if_there(self, key_text: str) -> None:
        held = self._keys.get(key_text)
        if held is not None:
            # Its life goes on: nothing is kept under the new one yet, and a fill gives it the full life.
            self._bump(key_text, life_s=None if held.expires is None else held.expires - self._clock.monotonic())

    def _bump(self, key_text: str, *, life_s: float | None = GENERATION_LIFE_S) -> None:
        old = self._keys.peek(key_text)
        if self._mode == "out_of_memory":
            self._keys.drop(key_text)
            return
        self._keys.set(key_text, self._next_generation(_number(old or b"") or 0), life_s)

    def _next_generation(self, old: int) -> bytes:
        # Strictly growing, also under a clock that stands still: no generation ever comes twice.
        self._last_generation = max(self._last_generation + 1, old + 1, int(self._clock.now() * 1e6))
        return b"%d" % self._last_generation


def _number(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= 16 else None


def _judged(stored: bytes, vector: bytes | None, etag: str, *, dirty: bool) -> Verdict:
    """What READ says of these bytes; a missing entry is an empty one, another release's is none."""
    if not stored or stored[0] != VERSION:
        return Verdict.MISS
    if len(stored) < HEADER_BYTES:
        return Verdict.CORRUPT
    length = int.from_bytes(stored[2:4], "big")
    if vector is not None and length == len(vector) and stored[HEADER_BYTES : HEADER_BYTES + length] == vector:
        return Verdict.NOT_MODIFIED if etag and stored[ETAG_AT] == etag.encode() else Verdict.HIT
    return Verdict.DIRTY if dirty else Verdict.MISS
