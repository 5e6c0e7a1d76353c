"""Receipts shared by all processes: a hash for each key in Redis, on Redis's clock.

jobnimbus-sys:{T}:receipt:<digest of partition and key>      hash      see scripts/receipt_begin.lua. Lives for 24 h
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
        word, *told = await self._run("receipt_begin", owner, "receipt", key, args)
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
        await self._run("receipt_end", owner, "receipt", key, (token, "done", encode_kept(kept), _LIFE_MS))

    async def unknown(self, owner: Owner, key: str, token: str, *, sent: bool) -> None:
        await self._run("receipt_end", owner, "receipt", key, (token, "sent" if sent else "looked", "", _LIFE_MS))

    async def forget(self, owner: Owner, key: str, token: str) -> None:
        await self._run("receipt_end", owner, "receipt", key, (token, "forget", "", _LIFE_MS))

    async def keep(self, owner: Owner, bulk_id: str, rows: bytes) -> bytes:
        return bytes(await self._run("rows_keep", owner, "bulk", bulk_id, (rows, _LIFE_MS)))

    async def kept(self, owner: Owner, bulk_id: str) -> bytes | None:
        rows = await self._run("rows_kept", owner, "bulk", bulk_id, ())
        return None if rows is None else bytes(rows)

    async def _run(self, script: str, owner: Owner, kind: str, name: str, args: Sequence[Any]) -> Any:
        key = system_key(owner.instance, f"{kind}:{digest(owner, name)}")
        try:
            async with asyncio.timeout(self._command_timeout_s):
                return await self._runner.run(script, (key,), args, tenant=owner.instance)
        except TimeoutError as error:
            raise CacheUnavailable("The cache did not answer in time; try again shortly.", retry_after_s=1.0) from error
