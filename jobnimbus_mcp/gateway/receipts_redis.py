"""Receipts shared by all processes: a hash for each key in Redis, on Redis's clock.

jobnimbus-sys:{T}:receipt:<digest of partition and key>      hash      see scripts/receipt_begin.lua. Lives for 24 h
jobnimbus-sys:{T}:made:<digest of a record's id>             string    digest of partition and key. Lives for 24 h
jobnimbus-sys:{T}:bulk:<digest of partition and bulk id>     string    the rows of a bulk run. Lives for 24 h
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jobnimbus_mcp.cache.key import system_key
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.gateway.receipts import (
    LIFE_S,
    Another,
    Done,
    Kept,
    New,
    Owner,
    Running,
    Standing,
    Unknown,
    decode_kept,
    digest,
    encode_kept,
)

__all__ = ["RedisReceipts"]

_LIFE_MS = LIFE_S * 1000

_ASKED_AT_ONCE = 500
"""Keys of one script."""


class _Runner(Protocol):
    """Scripts by file name; `cache.scripts_redis.Scripts` over this package's."""

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any], *, tenant: str = "") -> Any:
        """The script's reply, not bounded in time. Raises CacheUnavailable for whatever goes wrong."""
        ...


class RedisReceipts:
    """Implements `Keeping`. `runner`: `cache.scripts_redis.Scripts` over this package's scripts. `command_timeout_s`
    bounds each command."""

    def __init__(self, runner: _Runner, new_token: Callable[[], str], *, command_timeout_s: float = 2.0) -> None:
        self._runner = runner
        self._new_token = new_token
        self._command_timeout_s = command_timeout_s

    async def begin(self, owner: Owner, key: str, fingerprint: str, now: float, *, lease_s: float) -> Standing:
        token = self._new_token()
        args = (fingerprint, token, repr(now), int(lease_s * 1000), _LIFE_MS)
        word, *told = await self._run("receipt_begin", owner, (_key(owner, "receipt", key),), args)
        match word:
            case b"new":
                return New(token)
            case b"another":
                return Another()
            case b"running":
                return Running(int(told[0]) / 1000)
            case b"done":
                return Done(decode_kept(told[0]))
            case _:
                return Unknown(token, float(told[0]), int(told[1]) / 1000)

    async def done(self, owner: Owner, key: str, token: str, kept: Kept) -> None:
        await self._ended(owner, key, token, "done", kept)

    async def unknown(self, owner: Owner, key: str, token: str, *, sent: bool) -> None:
        await self._ended(owner, key, token, "sent" if sent else "looked")

    async def forget(self, owner: Owner, key: str, token: str) -> None:
        await self._ended(owner, key, token, "forget")

    async def others(self, owner: Owner, key: str, jnids: Sequence[str]) -> frozenset[str]:
        mine, others = digest(owner, key).encode(), set()
        for first in range(0, len(jnids), _ASKED_AT_ONCE):
            asked = jnids[first : first + _ASKED_AT_ONCE]
            told = await self._run("records_made", owner, [_made(owner, jnid) for jnid in asked], ())
            others |= {jnid for jnid, whose in zip(asked, told, strict=True) if whose not in (None, mine)}
        return frozenset(others)

    async def keep(self, owner: Owner, bulk_id: str, rows: bytes) -> bytes:
        return bytes(await self._run("rows_keep", owner, (_key(owner, "bulk", bulk_id),), (rows, _LIFE_MS)))

    async def kept(self, owner: Owner, bulk_id: str) -> bytes | None:
        rows = await self._run("rows_kept", owner, (_key(owner, "bulk", bulk_id),), ())
        return None if rows is None else bytes(rows)

    async def _ended(self, owner: Owner, key: str, token: str, how: str, kept: Kept | None = None) -> None:
        keys = [_key(owner, "receipt", key)]
        if kept is not None and kept.made:
            keys.append(_made(owner, kept.made))
        told = b"" if kept is None else encode_kept(kept)
        await self._run("receipt_end", owner, keys, (token, how, told, _LIFE_MS, digest(owner, key)))

    async def _run(self, script: str, owner: Owner, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            async with asyncio.timeout(self._command_timeout_s):
                return await self._runner.run(script, keys, args, tenant=owner.instance)
        except TimeoutError as error:
            raise CacheUnavailable("The cache did not answer in time; try again shortly.", retry_after_s=1.0) from error


def _key(owner: Owner, kind: str, name: str) -> str:
    return system_key(owner.instance, f"{kind}:{digest(owner, name)}")


def _made(owner: Owner, jnid: str) -> str:
    """Where it is kept who made a record; the same for everybody of the account."""
    return _key(Owner(owner.instance, ""), "made", jnid)
