"""The store in a Redis server (7.0 or later): every operation is one script on one tenant's slot.

The keys are those of `system_keys`. Nothing goes to the server but by `Scripts`, which alone knows where it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from jobnimbus_mcp.cache.codec import VERSION
from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.lines_redis import log_row, logged, pairs, wake
from jobnimbus_mcp.cache.notice import Applied, Notice, Parcel, Told
from jobnimbus_mcp.cache.ports import (
    ANYBODY,
    DEDUPE_S,
    FLIGHT_LEASE_S,
    FLOOR_AHEAD_S,
    FLOOR_LIFE_S,
    FLOORS_MOST,
    GENERATION_LIFE_S,
    HISTORY_LINES,
    L1_LEASE_S,
    LEASE_MARGIN_S,
    LOG_LENGTH,
    NOTED_LIFE_S,
    RATES_S,
    TALLY_BATCH_S,
    WAKES_LENGTH,
    WAKES_LIFE_S,
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
    StoreError,
    StoreOutOfMemory,
    Verdict,
    batch_parts,
    failure_life_s,
    has_applied,
    made_since,
)
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.cache.system_keys import (
    bearer_word,
    epoch_key,
    fleet_key,
    floors_key,
    generation_key,
    guard_key,
    lease_key,
    log_key,
    marker_key,
    rates_key,
    seen_key,
    sums_batch_key,
    sums_key,
    trace_key,
    wakes_key,
)
from jobnimbus_mcp.call import Call

__all__ = ["RedisStore"]

_SCAN_COUNT = 500
_HEAD_BYTES = 4096
_WHOLE_HEAD_BYTES = 140_000
_LINES = 1_000
_PROBE_LIFE_MS = 10_000
_FLIGHT_LEASE_MS = int(FLIGHT_LEASE_S * 1000)
_YOUNG_US = int((L1_LEASE_S + LEASE_MARGIN_S) * 1_000_000)
_ANSWER_S = 4.0
_NO_PARCEL = Parcel((), ())


class RedisStore:
    """The driver; bounds no command by itself. `client` is one of `connect`'s and the caller's to close.

    `new_token` gives unguessable text, another each time: an epoch made of it never comes twice. `probe`: whose slot
    `ping` writes to; in a cluster the tenant that the client is for.
    """

    def __init__(
        self, client: Redis, *, new_token: Callable[[], str] = lambda: secrets.token_hex(8), probe: str = "health"
    ) -> None:
        self._scripts = Scripts(client, new_token)
        self._new_token = new_token
        self._token = new_token()
        self._probe = system_key(probe, "probe")

    # -- entries -----------------------------------------------------------------------------------------------------

    async def read(
        self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, dirty: bool = False, call: Call
    ) -> Seen:
        args = (
            etag,
            "1" if want else "0",
            GENERATION_LIFE_S,
            self._token,
            VERSION,
            NOTED_LIFE_S,
            "1" if dirty else "0",
        )
        reply = await self._scripts.run("read", _keys(key, tags), args, tenant=key.tenant)
        match reply:
            case [2, int(pttl), int(admitted), bytes(vector), bytes(guard), bytes(echo)] if echo == etag.encode():
                return Seen(Verdict.NOT_MODIFIED, max(0, pttl) / 1000, max(0, admitted) / 1000, vector, guard)
            case [(1 | 4) as verdict, int(pttl), int(admitted), bytes(vector), bytes(guard), bytes(value)]:
                return Seen(Verdict(verdict), max(0, pttl) / 1000, max(0, admitted) / 1000, vector, guard, value)
            case [(0 | 3) as verdict, int(), int(admitted), bytes(vector), bytes(guard)]:
                return Seen(Verdict(verdict), 0.0, max(0, admitted) / 1000, vector, guard)
        raise StoreError("unexpected reply")

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
        args = (
            seen.vector,
            seen.guard,
            value,
            max(1, int(ttl_s * 1000)),
            max(1, int(admission_s * 1000)),
            max(GENERATION_LIFE_S, int(ttl_s) + 600),
            token,
            WAKES_LENGTH,
            WAKES_LIFE_S,
        )
        keys = [*_keys(key, tags), trace_key(key.tenant, key.bearer), lease_key(key), wakes_key(key.tenant)]
        return bool(await self._scripts.run("fill", keys, args, tenant=key.tenant) == 1)

    async def delete_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, int]:
        keys = [guard_key(tenant), epoch_key(tenant), log_key(tenant)]
        args = (cursor, glob, _SCAN_COUNT, GENERATION_LIFE_S, LOG_LENGTH)
        match await self._scripts.run("delete_some", keys, args, tenant=tenant):
            case [bytes(following), int(deleted)]:
                return int(following), deleted
        raise StoreError("unexpected reply")

    async def list_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, list[EntryRow]]:
        keys, args = [epoch_key(tenant)], (cursor, glob, _SCAN_COUNT, _HEAD_BYTES)
        match await self._scripts.run("list_some", keys, args, tenant=tenant):
            case [bytes(following), list(flat)]:
                rows = zip(*[iter(flat)] * 4, strict=True)
                return int(following), [
                    EntryRow(name.decode("utf-8", "replace"), head, max(0, pttl) / 1000, size)
                    for name, head, pttl, size in rows
                ]
        raise StoreError("unexpected reply")

    async def inspect(self, key: CacheKey, call: Call) -> EntryRow | None:
        match await self._scripts.run("inspect", [key.text], (_WHOLE_HEAD_BYTES,), tenant=key.tenant):
            case []:
                return None
            case [bytes(head), int(pttl), int(size)]:
                return EntryRow(key.text, head, max(0, pttl) / 1000, size)
        raise StoreError("unexpected reply")

    async def generations(self, tenant: str, tags: Sequence[str], call: Call) -> tuple[bytes | None, ...]:
        keys = [epoch_key(tenant), *[generation_key(tenant, tag) for tag in tags]]
        found: list[bytes | None] = await self._scripts.run("generations", keys, (), tenant=tenant)
        return tuple(found)

    # -- fetches -----------------------------------------------------------------------------------------------------

    async def lead(
        self, key: CacheKey, seen: Seen, token: str, *, etag: str = "", patient: bool = False, call: Call
    ) -> Lead:
        keys = [lease_key(key), key.text, floors_key(key.tenant)]
        args = (
            token,
            seen.vector,
            seen.guard,
            etag,
            VERSION,
            _FLIGHT_LEASE_MS,
            "1" if patient else "0",
            FLOOR_LIFE_S,
        )
        match await self._scripts.run("lead", keys, args, tenant=key.tenant):
            case [0, int(failures), list(flat)]:
                floors = {
                    name.decode("utf-8", "replace"): Floor(int(version), int(age_us) / 1_000_000)
                    for name, version, age_us in zip(*[iter(flat)] * 3, strict=True)
                }
                return Lead(LeadVerdict.LED, failures=failures, floors=floors)
            case [(1 | 3) as verdict, int(wait_ms)]:
                return Lead(LeadVerdict(verdict), max(0, wait_ms) / 1000)
            case [2]:
                return Lead(LeadVerdict.FILLED)
        raise StoreError("unexpected reply")

    async def keep_lead(self, key: CacheKey, token: str, call: Call) -> bool:
        args = (token, _FLIGHT_LEASE_MS)
        return bool(await self._scripts.run("keep_lead", [lease_key(key)], args, tenant=key.tenant) == 1)

    async def release(
        self, key: CacheKey, token: str, *, result: str, failures: int = 0, throttle_s: float = 0.0, call: Call
    ) -> None:
        args = (
            token,
            key.text,
            result,
            failures,
            int(throttle_s * 1_000_000),
            int(failure_life_s(throttle_s) * 1000),
            WAKES_LENGTH,
            WAKES_LIFE_S,
        )
        await self._scripts.run("release", [lease_key(key), wakes_key(key.tenant)], args, tenant=key.tenant)

    # -- invalidation ------------------------------------------------------------------------------------------------

    async def append_and_bump(
        self, tenant: str, tags: Sequence[str], notice: Notice, call: Call, *, tells: Sequence[str] = ()
    ) -> Applied:
        log, parcel = log_key(tenant), notice.parcel or _NO_PARCEL
        keys = [
            log,
            rates_key(tenant, int(notice.received_at // 3600)),
            seen_key(tenant, notice.dedupe_key) if notice.dedupe_key else log,
            epoch_key(tenant),
            fleet_key(tenant),
            floors_key(tenant),
            seen_key(tenant, notice.version_key) if notice.version_key else log,
            *parcel.keys,
            *(generation_key(tenant, tag) for tag in tags),
        ]
        args = (
            notice.event_id,
            notice.event,
            notice.resource,
            notice.resource_id,
            notice.source,
            repr(notice.received_at),
            "\n".join(dict.fromkeys((*tags, *tells))),
            DEDUPE_S if notice.dedupe_key else 0,
            LOG_LENGTH,
            RATES_S,
            self._new_token(),
            _YOUNG_US,
            FLOOR_LIFE_S,
            FLOOR_AHEAD_S,
            FLOORS_MOST,
            ("q" if notice.quiet else "") + ("l" if notice.late else ""),
            DEDUPE_S if notice.version_key else 0,
            len(parcel.keys),
            len(parcel.args),
            *parcel.args,
            *(part for name, version in notice.floors.items() for part in (name, max(0, version))),
        )
        match await self._scripts.run("bump", keys, args, tenant=tenant):
            case [
                bytes(event_id),
                int(duplicate),
                bytes(latency_ms),
                bytes(position),
                int(registered),
                int(unknown),
                bytes(register),
                int(refused),
            ]:
                told = Told(position.decode(), registered, unknown == 1, register)
                self._scripts.told(tenant, told.position)
                if refused:
                    # The generations are bumped all the same; the event is for the journal.
                    raise StoreOutOfMemory("parcel")
                return Applied(event_id.decode(), duplicate == 1, float(latency_ms), len(tags), told)
        raise StoreError("unexpected reply")

    async def renew_epoch(self, tenant: str, call: Call) -> Told:
        keys = [epoch_key(tenant), log_key(tenant), fleet_key(tenant)]
        args = (self._new_token(), LOG_LENGTH, _YOUNG_US)
        match await self._scripts.run("renew_epoch", keys, args, tenant=tenant):
            case [bytes(position), int(registered), int(unknown), bytes(register)]:
                self._scripts.told(tenant, position.decode())
                return Told(position.decode(), registered, unknown == 1, register)
        raise StoreError("unexpected reply")

    async def log(self, tenant: str, *, limit: int, since: float | None, call: Call) -> list[LogRow]:
        oldest = "-" if since is None else f"{max(0, int(since * 1000))}-0"
        lines = await self._scripts.run("log", [log_key(tenant)], (oldest, limit), tenant=tenant)
        return [log_row(position, pairs(flat)) for position, flat in lines]

    async def rates(self, tenant: str, hours: Sequence[int], call: Call) -> dict[int, dict[str, int]]:
        replies: Any = await self._scripts.run("rates", [rates_key(tenant, hour) for hour in hours], (), tenant=tenant)
        return {
            hour: {field.decode(): int(number) for field, number in pairs(flat).items()}
            for hour, flat in zip(hours, replies, strict=True)
            if flat
        }

    # -- coherence ---------------------------------------------------------------------------------------------------

    async def renew_l1(self, tenant: str, instance: str, applied: str, *, register: bool, call: Call) -> Standing:
        keys = [epoch_key(tenant), log_key(tenant), fleet_key(tenant)]
        args = (instance, applied, "1" if register else "0")
        match await self._scripts.run("renew_l1", keys, args, tenant=tenant):
            case [bytes(epoch), bytes(position)]:
                return Standing(epoch, position.decode())
        raise StoreError("unexpected reply")

    async def changes(self, tenant: str, after: str, call: Call) -> list[Logged]:
        lines = await self._scripts.run("changes", [log_key(tenant)], (after, _LINES), tenant=tenant)
        return [logged(position, pairs(flat)) for position, flat in lines]

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History:
        keys, args = [log_key(tenant), epoch_key(tenant)], (after, max(0, int(back_s * 1000)), HISTORY_LINES)
        match await self._scripts.run("history", keys, args, tenant=tenant):
            case [bytes(epoch), bytes(now_ms), bytes(position), bytes(settled), list(lines)]:
                told = tuple(logged(at, pairs(flat)) for at, flat in lines)
                return History(epoch, int(now_ms), position.decode(), settled.decode(), told)
        raise StoreError("unexpected reply")

    async def listen(self, ears: Mapping[str, Ears], *, block_s: float) -> Mapping[str, Heard]:
        streams = [
            part
            for tenant, ear in ears.items()
            for part in ((log_key(tenant), ear.log), (wakes_key(tenant), ear.wakes))
            if part[1] is not None
        ]
        if not streams:
            return {}
        # 0 would be for ever.
        block_ms = max(1, int(block_s * 1000))
        names, positions = zip(*streams, strict=True)
        command = ("XREAD", "COUNT", _LINES, "BLOCK", block_ms, "STREAMS", *names, *positions)
        reply = await self._scripts.blocked(command, tenants=tuple(ears), within_s=block_ms / 1000 + _ANSWER_S)
        came: Iterable[Any] = reply.items() if isinstance(reply, dict) else reply or ()
        lines = {name.decode("utf-8", "replace"): found for name, found in came}
        heard = {
            tenant: Heard(
                tuple(logged(position, pairs(flat)) for position, flat in lines.get(log_key(tenant), ())),
                tuple(wake(position, pairs(flat)) for position, flat in lines.get(wakes_key(tenant), ())),
            )
            for tenant in ears
        }
        return {tenant: one for tenant, one in heard.items() if one.changes or one.wakes}

    async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
        match await self._scripts.run("fleet", [fleet_key(tenant), log_key(tenant)], (), tenant=tenant):
            case [bytes(last), list(flat)]:
                registered = pairs(flat)
                made = registered.pop(ANYBODY.encode(), None)
                late = {
                    name.decode("utf-8", "replace"): value
                    for name, value in registered.items()
                    if not has_applied(value, position, last.decode())
                }
                another = made_since(made, position) or (register != b"" and made != register)
                return late | {ANYBODY: made or b""} if another else late
        raise StoreError("unexpected reply")

    async def strike(self, tenant: str, instances: Mapping[str, bytes | None], call: Call) -> None:
        if instances:
            args = [part for name, value in instances.items() for part in (name, value or "")]
            await self._scripts.run("strike", [fleet_key(tenant)], args, tenant=tenant)

    # -- bearers -----------------------------------------------------------------------------------------------------

    async def admission(self, tenant: str, partition: str, call: Call) -> tuple[bool, bytes]:
        keys = [marker_key(tenant, partition), guard_key(tenant)]
        match await self._scripts.run("admission", keys, (GENERATION_LIFE_S,), tenant=tenant):
            case [int(admitted), bytes(guard)]:
                return admitted == 1, guard
        raise StoreError("unexpected reply")

    async def admit(self, tenant: str, partition: str, guard: bytes, *, admission_s: float, call: Call) -> bool:
        args = (guard, max(1, int(admission_s * 1000)), GENERATION_LIFE_S)
        keys = [marker_key(tenant, partition), guard_key(tenant), trace_key(tenant, partition)]
        return bool(await self._scripts.run("admit", keys, args, tenant=tenant) == 1)

    async def withdraw(self, tenant: str, partition: str, call: Call, *, if_admitted: bool = False) -> bool:
        keys = [
            marker_key(tenant, partition),
            guard_key(tenant),
            trace_key(tenant, partition),
            epoch_key(tenant),
            log_key(tenant),
        ]
        args = (GENERATION_LIFE_S, "1" if if_admitted else "0", LOG_LENGTH, bearer_word(partition))
        return bool(await self._scripts.run("withdraw", keys, args, tenant=tenant) == 1)

    # -- sums and health ---------------------------------------------------------------------------------------------

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        if counts:
            process, number = batch_parts(batch)
            keys = [sums_key(tenant), sums_batch_key(tenant, process)]
            flat = [part for item in counts.items() for part in item]
            await self._scripts.run("add_counts", keys, (number, TALLY_BATCH_S, *flat), tenant=tenant)

    async def totals(self, tenant: str) -> dict[str, int]:
        flat = await self._scripts.run("totals", [sums_key(tenant)], (), tenant=tenant)
        return {field.decode(): int(number) for field, number in pairs(flat).items()}

    async def ping(self, call: Call) -> None:
        # A write, because a store that only answers reads cannot be told of an invalidation.
        await self._scripts.run("probe", [self._probe], (_PROBE_LIFE_MS,))


def _keys(key: CacheKey, tags: Sequence[str]) -> list[str]:
    # The hot path: one prefix for all of them instead of a name each.
    prefix = f"jobnimbus-sys:{{{key.tenant}}}:"
    return [
        key.text,
        f"{prefix}ok:{key.bearer}",
        f"{prefix}fill-guard",
        f"{prefix}epoch",
        *[f"{prefix}g:{tag}" for tag in tags],
    ]
