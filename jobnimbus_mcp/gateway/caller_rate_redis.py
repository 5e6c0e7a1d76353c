"""Callers' buckets shared by all replicas: one key per caller in Redis, on Redis's clock.

jobnimbus-sys:{T}:caller-rate:{who}    string    when the bucket would be full again, microseconds. Expires then
"""

from __future__ import annotations

import asyncio
from importlib.resources import files

from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.gateway.caller_rate import Allowance, CallerRate
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["AWAY_S", "RedisCallerRate"]

AWAY_S = 5.0
"""How long Redis is not asked after it failed; then one request tries it, and the others go on without it meanwhile."""

_MICRO = 1_000_000
_MINUTE_US = 60 * _MICRO


class RedisCallerRate:
    """Implements `CallerRate` over all replicas, and over this process alone while Redis is away.

    `home`: the account on whose slot the buckets are, of all accounts one, because a caller's limit is one whichever
    accounts it asks for; the same on all replicas. `client`: of that account's store.
    """

    def __init__(
        self,
        client: Redis,
        local: CallerRate,
        *,
        home: str,
        clock: Clock,
        recorder: Recorder,
        command_timeout_s: float = 0.1,
    ) -> None:
        script = files("jobnimbus_mcp.resilience").joinpath("scripts/bucket.lua").read_text(encoding="utf-8")
        self._script = client.register_script(script)
        self._local = local
        self._home = home
        self._clock = clock
        self._recorder = recorder
        self._command_timeout_s = command_timeout_s
        self._away_until = float("-inf")
        self._away = False

    async def spend(self, who: str, per_minute: int) -> Allowance:
        now = self._clock.monotonic()
        if now < self._away_until:
            return await self._local.spend(who, per_minute)
        if self._away:
            self._away_until = now + AWAY_S
        try:
            async with asyncio.timeout(self._command_timeout_s):
                taken, wait_us, full_us = await self._script(keys=[self._key(who)], args=_arguments(per_minute))
        except (RedisError, OSError, TimeoutError) as error:
            timed_out = isinstance(error, (TimeoutError, RedisTimeoutError))
            self._recorder.count("cache_errors", operation="caller_rate", reason="timeout" if timed_out else "error")
            self._away, self._away_until = True, self._clock.monotonic() + AWAY_S
            return await self._local.spend(who, per_minute)
        self._away, self._away_until = False, float("-inf")
        wait_s, full_s = int(wait_us) / _MICRO, int(full_us) / _MICRO
        return Allowance.of(per_minute, granted=bool(taken), wait_s=wait_s, full_s=full_s)

    def _key(self, who: str) -> str:
        return f"jobnimbus-sys:{{{self._home}}}:caller-rate:{who}"


def _arguments(per_minute: int) -> list[int]:
    """Nobody waits for a token: it is there, or the request is refused."""
    interval_us = round(_MINUTE_US / per_minute)
    return [interval_us, interval_us * (per_minute - 1), 0, 0]
