"""The store in this process: the same steps as the scripts of the Redis driver, and able to fail on demand."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

from jobnimbus_mcp.cache.codec import HEADER_BYTES, VERSION
from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.cache.ports import (
    DEDUPE_S,
    GENERATION_LIFE_S,
    LOG_LENGTH,
    NOTED_LIFE_S,
    RATES_S,
    TALLY_BATCH_S,
    EntryRow,
    LogRow,
    Seen,
    StoreOutOfMemory,
    StoreReadOnly,
    StoreTimeout,
    StoreUnreachable,
    Verdict,
    batch_parts,
)
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock

__all__ = ["FailMode", "MemoryStore"]

FailMode = Literal["refused", "timeout", "out_of_memory", "read_only"]

_KEY_OVERHEAD_BYTES = 300
_SCAN_COUNT = 500
_HEAD_BYTES = 4096


class _Kept(NamedTuple):
    value: bytes
    expires: float | None


class MemoryStore:
    """Entries and generations of one process, bounded by `max_bytes`: the least recently used go first.

    Losing any of them, a generation included, costs hits and never revives an entry. Nothing outlives the process.
    """

    def __init__(self, clock: Clock, max_bytes: int = 128 * 1024 * 1024) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._logs: dict[str, deque[LogRow]] = {}
        self._rates: dict[str, OrderedDict[int, Counter[str]]] = {}
        self._sums: dict[str, Counter[str]] = {}
        self._last_generation = 0
        self._mode: FailMode | None = None

    def fail(self, mode: FailMode | None) -> None:
        """From now on fail like this; None: no more. For tests and the demo."""
        self._mode = mode

    async def read(self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, call: Call) -> Seen:
        self._reach()
        key_text, tenant = key.text, key.tenant
        admitted = self._get(_marker(tenant, key.bearer)) is not None
        vector = self._vector(tenant, tags)
        held = self._get(key_text) if want else None
        corrupt = False
        if vector is not None and held is not None:
            fresh, corrupt = _matches(held.value, vector)
            if fresh:
                ttl_s = max(0.0, (held.expires or 0.0) - self._clock.monotonic())
                if etag and held.value[HEADER_BYTES - 16 : HEADER_BYTES] == etag.encode():
                    return Seen(Verdict.NOT_MODIFIED, ttl_s, admitted)
                guard = self._made(system_key(tenant, "fill-guard")) or b""
                return Seen(Verdict.HIT, ttl_s, admitted, vector, guard, held.value)
        verdict = Verdict.CORRUPT if corrupt else Verdict.MISS
        made, moved = self._made_vector(tenant, tags), self._made(system_key(tenant, "fill-guard"))
        if made is None or moved is None:
            return Seen(verdict, 0.0, admitted)
        return Seen(verdict, 0.0, admitted, made, moved)

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
        self._reach()
        tenant = key.tenant
        if self._peek(system_key(tenant, "fill-guard")) != seen.guard or self._vector(tenant, tags) != seen.vector:
            return False
        self._writable(needs_room=True)
        self._set(key.text, value, ttl_s)
        self._set(_marker(tenant, key.bearer), b"1", admission_s)
        life_s = max(GENERATION_LIFE_S, ttl_s + 600)
        self._set(_trace(tenant, key.bearer), b"1", life_s)
        expires = self._clock.monotonic() + life_s
        for tag in tags:
            held = self._get(_generation(tenant, tag))
            if held is not None and held.expires is not None and held.expires < expires:
                self._set(_generation(tenant, tag), held.value, life_s)
        return True

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        self._reach()
        self._writable()
        for tag in tags:
            self._bump_if_there(_generation(tenant, tag))
        latency_ms = max(0.0, (self._clock.now() - notice.received_at) * 1000)
        event_id, duplicate = notice.event_id, False
        if notice.dedupe_key:
            seen_key = system_key(tenant, f"seen:{notice.dedupe_key}")
            first = self._peek(seen_key)
            if first:
                event_id, duplicate = first.decode(), True
            elif self._mode != "out_of_memory":
                self._set(seen_key, event_id.encode(), DEDUPE_S)
        if not duplicate:
            self._note(tenant, notice, tuple(tags), latency_ms)
        return Applied(event_id, duplicate, round(latency_ms, 3), len(tags))

    async def renew_epoch(self, tenant: str, call: Call) -> None:
        self._reach()
        self._writable()
        self._bump(system_key(tenant, "epoch"), life_s=None)

    async def admission(self, tenant: str, partition: str, call: Call) -> tuple[bool, bytes]:
        self._reach()
        marked = self._get(_marker(tenant, partition)) is not None
        return marked, self._made(system_key(tenant, "fill-guard")) or b""

    async def admit(self, tenant: str, partition: str, guard: bytes, *, admission_s: float, call: Call) -> bool:
        self._reach()
        if self._peek(system_key(tenant, "fill-guard")) != guard:
            return False
        self._writable(needs_room=True)
        self._set(_marker(tenant, partition), b"1", admission_s)
        self._set(_trace(tenant, partition), b"1", GENERATION_LIFE_S)
        return True

    async def withdraw(self, tenant: str, partition: str, call: Call, *, if_admitted: bool = False) -> bool:
        self._reach()
        self._writable()
        had = [self._drop(key) for key in (_marker(tenant, partition), _trace(tenant, partition))]
        if any(had) or not if_admitted:
            self._bump(system_key(tenant, "fill-guard"))
        return any(had)

    async def delete_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, int]:
        self._reach()
        self._writable()
        # One step deletes them all, so nothing can come between and the guard moves once.
        self._bump(system_key(tenant, "fill-guard"))
        doomed = list(self._matching(glob))
        for key_text in doomed:
            self._drop(key_text)
        return 0, len(doomed)

    async def list_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, list[EntryRow]]:
        self._reach()
        found = list(islice(self._matching(glob), cursor, cursor + _SCAN_COUNT))
        now = self._clock.monotonic()
        rows = [
            EntryRow(key_text, kept.value[:_HEAD_BYTES], max(0.0, (kept.expires or 0.0) - now), len(kept.value))
            for key_text in found
            if (kept := self._kept.get(key_text)) is not None
        ]
        return (cursor + _SCAN_COUNT if len(found) == _SCAN_COUNT else 0), rows

    async def log(self, tenant: str, *, limit: int, since: float | None, call: Call) -> list[LogRow]:
        self._reach()
        rows = reversed(self._logs.get(tenant, ()))
        return list(islice((row for row in rows if since is None or row.at >= since), limit))

    async def rates(self, tenant: str, hours: Sequence[int], call: Call) -> dict[int, dict[str, int]]:
        self._reach()
        kept = self._rates.get(tenant, OrderedDict())
        return {hour: dict(kept[hour]) for hour in hours if hour in kept}

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        self._reach()
        self._writable(needs_room=True)
        process, number = batch_parts(batch)
        last_key = system_key(tenant, f"stats-batch:{process}")
        if counts and number > int(self._peek(last_key) or 0):
            self._sums.setdefault(tenant, Counter()).update(counts)
            self._set(last_key, b"%d" % number, TALLY_BATCH_S)

    async def totals(self, tenant: str) -> dict[str, int]:
        self._reach()
        return dict(self._sums.get(tenant, {}))

    async def ping(self, call: Call) -> None:
        self._reach()
        self._writable(needs_room=True)

    # -- for tests: what an operator could do to a server ------------------------------------------------------------

    def names(self) -> dict[str, float | None]:
        """Every key and when it expires, on the monotonic clock."""
        return {key_text: kept.expires for key_text in list(self._kept) if (kept := self._get(key_text)) is not None}

    def put_raw(self, key_text: str, value: bytes) -> None:
        """Overwrite a key's bytes, keeping when it expires."""
        kept = self._kept.get(key_text)
        self._set(
            key_text, value, None if kept is None or kept.expires is None else kept.expires - self._clock.monotonic()
        )

    def evict(self, key_text: str) -> bool:
        """Lose one key."""
        return self._drop(key_text)

    def flush(self) -> None:
        """Lose everything."""
        self._kept.clear()
        self._bytes = 0
        for part in (self._logs, self._rates, self._sums):
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

    def _vector(self, tenant: str, tags: Iterable[str]) -> bytes | None:
        epoch = self._peek(system_key(tenant, "epoch"))
        if epoch is None:
            return None
        parts = [epoch]
        for tag in tags:
            generation = self._peek(_generation(tenant, tag))
            if generation is None:
                return None
            parts.append(generation)
        return b"\n".join(parts)

    def _made_vector(self, tenant: str, tags: Iterable[str]) -> bytes | None:
        if self._made(system_key(tenant, "epoch"), life_s=None) is None:
            return None
        made = [self._made(_generation(tenant, tag), life_s=NOTED_LIFE_S, check=True) for tag in tags]
        return None if None in made else self._vector(tenant, tags)

    def _made(self, key_text: str, *, life_s: float | None = GENERATION_LIFE_S, check: bool = False) -> bytes | None:
        """The generation under the key, made if it is missing or (`check`) unreadable; None when it cannot be made."""
        value = self._peek(key_text)
        if value is not None and not (check and _number(value) is None):
            return value
        if self._mode in ("out_of_memory", "read_only"):
            return None
        made = self._next_generation(0)
        self._set(key_text, made, life_s)
        return made

    def _bump_if_there(self, key_text: str) -> None:
        held = self._get(key_text)
        if held is not None:
            # Its life goes on: nothing is kept under the new one yet, and a fill gives it the full life.
            self._bump(key_text, life_s=None if held.expires is None else held.expires - self._clock.monotonic())

    def _bump(self, key_text: str, *, life_s: float | None = GENERATION_LIFE_S) -> None:
        old = self._peek(key_text)
        if self._mode == "out_of_memory":
            self._drop(key_text)
            return
        self._set(key_text, self._next_generation(_number(old or b"") or 0), life_s)

    def _next_generation(self, old: int) -> bytes:
        # Strictly growing, also under a clock that stands still: no generation ever comes twice.
        self._last_generation = max(self._last_generation + 1, old + 1, int(self._clock.now() * 1e6))
        return b"%d" % self._last_generation

    def _note(self, tenant: str, notice: Notice, tags: tuple[str, ...], latency_ms: float) -> None:
        now = self._clock.now()
        self._logs.setdefault(tenant, deque(maxlen=LOG_LENGTH)).append(
            LogRow(
                now,
                notice.event_id,
                notice.event,
                notice.resource,
                notice.resource_id,
                notice.source,
                round(latency_ms, 3),
                tags,
            )
        )
        hours = self._rates.setdefault(tenant, OrderedDict())
        hours.setdefault(int(now // 3600), Counter())[f"{notice.resource}|{notice.source}"] += 1
        while len(hours) > RATES_S // 3600:
            hours.popitem(last=False)

    # -- keys --------------------------------------------------------------------------------------------------------

    def _get(self, key_text: str) -> _Kept | None:
        kept = self._kept.get(key_text)
        if kept is None:
            return None
        if kept.expires is not None and kept.expires <= self._clock.monotonic():
            self._drop(key_text)
            return None
        self._kept.move_to_end(key_text)
        return kept

    def _peek(self, key_text: str) -> bytes | None:
        kept = self._get(key_text)
        return None if kept is None else kept.value

    def _set(self, key_text: str, value: bytes | None, life_s: float | None) -> None:
        if value is None:
            return
        self._drop(key_text)
        self._kept[key_text] = _Kept(value, None if life_s is None else self._clock.monotonic() + life_s)
        self._bytes += len(key_text) + len(value) + _KEY_OVERHEAD_BYTES
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, key_text: str) -> bool:
        kept = self._kept.pop(key_text, None)
        if kept is None:
            return False
        self._bytes -= len(key_text) + len(kept.value) + _KEY_OVERHEAD_BYTES
        return True

    def _matching(self, glob: str) -> Iterable[str]:
        fits = _glob_matcher(glob)
        return [key_text for key_text in list(self._kept) if fits(key_text) and self._get(key_text) is not None]


def _generation(tenant: str, tag: str) -> str:
    return system_key(tenant, f"g:{tag}")


def _marker(tenant: str, partition: str) -> str:
    return system_key(tenant, f"ok:{partition}")


def _trace(tenant: str, bearer: str) -> str:
    return system_key(tenant, f"was:{bearer}")


def _number(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= 16 else None


def _matches(stored: bytes, vector: bytes) -> tuple[bool, bool]:
    """(noted under this vector, not of the released format)."""
    if len(stored) < HEADER_BYTES or stored[0] != VERSION:
        return False, True
    length = int.from_bytes(stored[2:4], "big")
    return length == len(vector) and stored[HEADER_BYTES : HEADER_BYTES + length] == vector, False


def _glob_matcher(glob: str) -> Callable[[str], Any]:
    pattern, escaped = [], False
    for character in glob:
        if escaped or character not in "*?\\":
            pattern.append(re.escape(character))
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            pattern.append(".*" if character == "*" else ".")
    return re.compile("".join(pattern), re.DOTALL).fullmatch
