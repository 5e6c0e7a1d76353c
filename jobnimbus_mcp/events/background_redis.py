"""What polling and the sweep keep in Redis, per account:

    jobnimbus-sys:{T}:holds:<name>            string  token of the process that polls, or sweeps
    jobnimbus-sys:{T}:catch-up                hash    kind -> `<watermark>|<floor>`
    jobnimbus-sys:{T}:catch-up-loss:<hour>    hash    missed, heard: versions of that hour since the epoch
    jobnimbus-sys:{T}:sweep                   hash    at -> when the last one ended, or the first was planned
    jobnimbus-sys:{T}:sweep-ids:<kind>        string  the ids it found, one a line, compressed

All of them expire; losing any costs a look at what is known already, or puts a sweep off.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jobnimbus_mcp.events.background import STATE_LIFE_S
from jobnimbus_mcp.events.ports import EventsUnavailable, RedisRunner
from jobnimbus_mcp.events.watermark import Loss, Mark

__all__ = ["RedisBackground"]

_WITHIN_S = 2.0
_IDS_WITHIN_S = 15.0
"""For ids, which may be some megabytes."""

_LOSS_LIFE_S = 26 * 3600
_KEYS_AT_ONCE = 500


class RedisBackground:
    """Implements `Keeper` and `Known`. `runner` runs the scripts of `events/scripts`.

    `seen_key(tenant, version key)`: under which key an append notes what it has heard of. `life_s`: how long what is
    kept outlives its last use; longer than the time between two sweeps.
    """

    def __init__(
        self, runner: RedisRunner, seen_key: Callable[[str, str], str], *, life_s: float = STATE_LIFE_S
    ) -> None:
        self._runner = runner
        self._seen_key = seen_key
        self._life_s = int(life_s)

    async def known(self, instance: str, keys: Sequence[str]) -> Sequence[bool]:
        found: list[bool] = []
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            names = [self._seen_key(instance, key) for key in keys[start : start + _KEYS_AT_ONCE]]
            found += map(bool, await self._run("catch_up_known", instance, names, ()))
        return found

    async def hold(self, instance: str, name: str, token: str, life_s: float) -> bool:
        keys, args = (_holder(instance, name),), (token, max(1, int(life_s * 1000)))
        return bool(await self._run("catch_up_hold", instance, keys, args))

    async def let_go(self, instance: str, name: str, token: str) -> None:
        await self._run("catch_up_let_go", instance, (_holder(instance, name),), (token,))

    async def marks(self, instance: str) -> Mapping[str, Mark]:
        (told,) = await self._noted(instance, [_key(instance, "catch-up")])
        return {kind: mark for kind, value in told.items() if (mark := _mark(value)) is not None}

    async def advance(
        self, instance: str, name: str, token: str, marks: Mapping[str, Mark], *, loss: Loss, hour: int
    ) -> bool:
        positions = {kind: f"{mark.watermark}|{mark.floor}" for kind, mark in marks.items()}
        counts = {field: n for field, n in loss._asdict().items() if n}
        where = _key(instance, "catch-up")
        return await self._note(instance, name, token, where, positions, _loss(instance, hour), counts)

    async def losses(self, instance: str, hours: Sequence[int]) -> Loss:
        told = await self._noted(instance, [_loss(instance, hour) for hour in hours]) if hours else []
        return Loss(*(sum(int(one.get(field, 0)) for one in told) for field in Loss._fields))

    async def swept_at(self, instance: str) -> float | None:
        (told,) = await self._noted(instance, [_key(instance, "sweep")])
        return float(told["at"]) if "at" in told else None

    async def note_sweep(self, instance: str, name: str, token: str, at: float) -> bool:
        where = _key(instance, "sweep")
        return await self._note(instance, name, token, where, {"at": f"{at:.3f}"}, where, {})

    async def ids(self, instance: str, kind: str) -> frozenset[str] | None:
        packed = await self._run("sweep_ids", instance, (_ids(instance, kind),), (), within_s=_IDS_WITHIN_S)
        if packed is None:
            return None
        try:
            return frozenset(zlib.decompress(packed).decode().split())
        except (zlib.error, UnicodeDecodeError):
            return None  # damaged: the next ids are kept in their place

    async def keep_ids(self, instance: str, name: str, token: str, kind: str, ids: Collection[str]) -> bool:
        packed = zlib.compress("\n".join(sorted(ids)).encode())
        keys = (_holder(instance, name), _ids(instance, kind))
        args = (token, packed, self._life_s)
        return bool(await self._run("sweep_keep", instance, keys, args, within_s=_IDS_WITHIN_S))

    async def _note(
        self,
        instance: str,
        name: str,
        token: str,
        where: str,
        positions: Mapping[str, str],
        counted: str,
        counts: Mapping[str, int],
    ) -> bool:
        flat = [part for pair in (*positions.items(), *counts.items()) for part in pair]
        keys = (_holder(instance, name), where, counted)
        args = (token, self._life_s, _LOSS_LIFE_S, len(positions), *flat)
        return bool(await self._run("catch_up_note", instance, keys, args))

    async def _noted(self, instance: str, keys: Sequence[str]) -> list[dict[str, str]]:
        replies = await self._run("catch_up_noted", instance, keys, ())
        return [
            {field.decode(): value.decode() for field, value in zip(flat[::2], flat[1::2], strict=True)}
            for flat in replies
        ]

    async def _run(
        self, name: str, instance: str, keys: Sequence[str], args: Sequence[Any], *, within_s: float = _WITHIN_S
    ) -> Any:
        try:
            async with asyncio.timeout(within_s):
                return await self._runner.run(name, keys, args, tenant=instance)
        except TimeoutError as error:
            raise EventsUnavailable("timeout") from error


def _key(tenant: str, name: str) -> str:
    # the braces put all keys of one account on one cluster slot
    return f"jobnimbus-sys:{{{tenant}}}:{name}"


def _holder(tenant: str, name: str) -> str:
    return _key(tenant, f"holds:{name}")


def _loss(tenant: str, hour: int) -> str:
    return _key(tenant, f"catch-up-loss:{hour}")


def _ids(tenant: str, kind: str) -> str:
    return _key(tenant, f"sweep-ids:{kind}")


def _mark(value: str) -> Mark | None:
    watermark, _, floor = value.partition("|")
    try:
        return Mark(int(watermark), int(floor))
    except ValueError:
        return None  # damaged, or of another release: begun anew
