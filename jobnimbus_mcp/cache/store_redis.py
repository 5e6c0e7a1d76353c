"""The store in a Redis server (7.0 or later): every operation is one script on one tenant's slot."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from jobnimbus_mcp.cache.codec import VERSION
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
    StoreError,
    Verdict,
    batch_parts,
)
from jobnimbus_mcp.cache.scripts_redis import Scripts, translated
from jobnimbus_mcp.call import Call

__all__ = ["RedisStore"]

_SCAN_COUNT = 500
_HEAD_BYTES = 4096
_PROBE_LIFE_MS = 10_000


class RedisStore:
    """The driver; bounds no command by itself. `client` is one of `connect`'s and the caller's to close.

    `new_token` gives unguessable text, another each time: an epoch made of it never comes twice.
    """

    def __init__(self, client: Redis, *, new_token: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._client = client
        self._scripts = Scripts(client, new_token)
        self._new_token = new_token
        self._token = new_token()

    async def read(self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, call: Call) -> Seen:
        args = (etag, "1" if want else "0", GENERATION_LIFE_S, self._token, VERSION, NOTED_LIFE_S)
        reply = await self._scripts.run("read", _keys(key, tags), args, tenant=key.tenant)
        match reply:
            case [2, int(pttl), int(admitted), bytes(echo)] if etag and echo == etag.encode():
                return Seen(Verdict.NOT_MODIFIED, max(0, pttl) / 1000, admitted == 1)
            case [1, int(pttl), int(admitted), bytes(vector), bytes(guard), bytes(value)]:
                return Seen(Verdict.HIT, max(0, pttl) / 1000, admitted == 1, vector, guard, value)
            case [(0 | 3) as verdict, int(), int(admitted), bytes(vector), bytes(guard)]:
                return Seen(Verdict(verdict), 0.0, admitted == 1, vector, guard)
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
        call: Call,
    ) -> bool:
        life_s = max(GENERATION_LIFE_S, int(ttl_s) + 600)
        args = (seen.vector, seen.guard, value, max(1, int(ttl_s * 1000)), max(1, int(admission_s * 1000)), life_s)
        keys = [*_keys(key, tags), _trace(key.tenant, key.bearer)]
        return bool(await self._scripts.run("fill", keys, args, tenant=key.tenant) == 1)

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        log_key = system_key(tenant, "log")
        seen_key = log_key
        if notice.dedupe_key:
            digest = hashlib.blake2b(notice.dedupe_key.encode(), digest_size=20).hexdigest()
            seen_key = system_key(tenant, f"seen:{digest}")
        hour = int(notice.received_at // 3600)
        keys = [log_key, _rates_key(tenant, hour), seen_key, *(system_key(tenant, f"g:{tag}") for tag in tags)]
        reply = await self._scripts.run(
            "bump",
            keys,
            (
                notice.event_id,
                notice.event,
                notice.resource,
                notice.resource_id,
                notice.source,
                repr(notice.received_at),
                "\n".join(tags),
                DEDUPE_S if notice.dedupe_key else 0,
                LOG_LENGTH,
                RATES_S,
            ),
            tenant=tenant,
        )
        match reply:
            case [bytes(event_id), int(duplicate), bytes(latency_ms)]:
                return Applied(event_id.decode(), duplicate == 1, float(latency_ms), len(tags))
        raise StoreError("unexpected reply")

    async def renew_epoch(self, tenant: str, call: Call) -> None:
        await self._scripts.run("renew_epoch", [system_key(tenant, "epoch")], (self._new_token(),), tenant=tenant)

    async def admission(self, tenant: str, partition: str, call: Call) -> tuple[bool, bytes]:
        keys = _admission_keys(tenant, partition)
        match await self._scripts.run("admission", keys, (GENERATION_LIFE_S,), tenant=tenant):
            case [int(admitted), bytes(guard)]:
                return admitted == 1, guard
        raise StoreError("unexpected reply")

    async def admit(self, tenant: str, partition: str, guard: bytes, *, admission_s: float, call: Call) -> bool:
        args = (guard, max(1, int(admission_s * 1000)), GENERATION_LIFE_S)
        keys = [*_admission_keys(tenant, partition), _trace(tenant, partition)]
        return bool(await self._scripts.run("admit", keys, args, tenant=tenant) == 1)

    async def withdraw(self, tenant: str, partition: str, call: Call, *, if_admitted: bool = False) -> bool:
        keys = [*_admission_keys(tenant, partition), _trace(tenant, partition)]
        return bool(
            await self._scripts.run("withdraw", keys, (GENERATION_LIFE_S, "1" if if_admitted else "0"), tenant=tenant)
            == 1
        )

    async def delete_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, int]:
        keys, args = [system_key(tenant, "fill-guard")], (cursor, glob, _SCAN_COUNT, GENERATION_LIFE_S)
        match await self._scripts.run("delete_some", keys, args, tenant=tenant):
            case [bytes(following), int(deleted)]:
                return int(following), deleted
        raise StoreError("unexpected reply")

    async def list_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, list[EntryRow]]:
        keys, args = [system_key(tenant, "epoch")], (cursor, glob, _SCAN_COUNT, _HEAD_BYTES)
        match await self._scripts.run("list_some", keys, args, tenant=tenant):
            case [bytes(following), list(flat)]:
                rows = zip(*[iter(flat)] * 4, strict=True)
                return int(following), [
                    EntryRow(name.decode("utf-8", "replace"), head, max(0, pttl) / 1000, size)
                    for name, head, pttl, size in rows
                ]
        raise StoreError("unexpected reply")

    async def log(self, tenant: str, *, limit: int, since: float | None, call: Call) -> list[LogRow]:
        oldest = "-" if since is None else f"{max(0, int(since * 1000))}-0"
        lines: Any = await translated(
            self._client.xrevrange(system_key(tenant, "log"), max="+", min=oldest, count=limit)
        )
        return [_log_row(stream_id, fields) for stream_id, fields in lines]

    async def rates(self, tenant: str, hours: Sequence[int], call: Call) -> dict[int, dict[str, int]]:
        replies: Any = await self._scripts.run("rates", [_rates_key(tenant, hour) for hour in hours], (), tenant=tenant)
        return {
            hour: {field.decode(): int(number) for field, number in zip(*[iter(flat)] * 2, strict=True)}
            for hour, flat in zip(hours, replies, strict=True)
            if flat
        }

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        if counts:
            process, number = batch_parts(batch)
            keys = [system_key(tenant, "stats"), system_key(tenant, f"stats-batch:{process}")]
            flat = [part for item in counts.items() for part in item]
            await self._scripts.run("add_counts", keys, (number, TALLY_BATCH_S, *flat), tenant=tenant)

    async def totals(self, tenant: str) -> dict[str, int]:
        sums: Any = await translated(self._client.hgetall(system_key(tenant, "stats")))
        return {field.decode(): int(number) for field, number in sums.items()}

    async def ping(self, call: Call) -> None:
        # A write, because a store that only answers reads cannot be told of an invalidation.
        await translated(self._client.set(system_key("health", "probe"), "1", px=_PROBE_LIFE_MS))


def _keys(key: CacheKey, tags: Sequence[str]) -> list[str]:
    prefix = f"jobnimbus-sys:{{{key.tenant}}}:"
    return [
        key.text,
        f"{prefix}ok:{key.bearer}",
        f"{prefix}fill-guard",
        f"{prefix}epoch",
        *[f"{prefix}g:{tag}" for tag in tags],
    ]


def _admission_keys(tenant: str, partition: str) -> list[str]:
    return [system_key(tenant, f"ok:{partition}"), system_key(tenant, "fill-guard")]


def _trace(tenant: str, bearer: str) -> str:
    return system_key(tenant, f"was:{bearer}")


def _rates_key(tenant: str, hour: int) -> str:
    return system_key(tenant, f"rates:{hour}")


def _log_row(stream_id: bytes, fields: Mapping[bytes, bytes]) -> LogRow:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    tags = text(b"tags")
    return LogRow(
        at=int(stream_id.partition(b"-")[0]) / 1000,
        event_id=text(b"id"),
        event=text(b"event"),
        resource=text(b"resource"),
        resource_id=text(b"resource_id"),
        source=text(b"source"),
        latency_ms=float(text(b"latency_ms") or 0),
        tags=tuple(tags.split("\n")) if tags else (),
    )
