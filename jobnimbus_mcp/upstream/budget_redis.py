"""The request budget shared by all replicas: one script and one key per account in Redis, on Redis's clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib.resources import files

from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.resilience.budget import Bucket
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.upstream.budget_local import BUDGET_WAIT_MAX_S, LocalBudget, exhausted, longest_wait_s

__all__ = ["RedisBudget"]

_MICRO = 1_000_000


class RedisBudget:
    """Implements `RequestBudget` over all replicas, and over this process alone while Redis is away.

    `local` has the same rate: without Redis each replica spends its own, so that a lone one goes on as before.
    """

    def __init__(
        self,
        client: Redis,
        local: LocalBudget,
        *,
        rate_per_s: float,
        clock: Clock,
        recorder: Recorder,
        command_timeout_s: float = 0.1,
    ) -> None:
        script = files("jobnimbus_mcp.resilience").joinpath("scripts/bucket.lua").read_text(encoding="utf-8")
        self._script = client.register_script(script)
        self._local = local
        self._bucket = Bucket.per_second(rate_per_s)
        self._clock = clock
        self._recorder = recorder
        self._command_timeout_s = command_timeout_s
        self._full_at: dict[str, float] = {}

    @property
    def rate_per_s(self) -> float:
        return self._bucket.rate_per_s

    async def take(self, instance: str, call: Call) -> float:
        if self._bucket.rate_per_s == 0:
            return 0.0
        if not call.store_usable:
            return await self._take_here(instance, call)
        try:
            async with asyncio.timeout(self._command_timeout_s):
                taken, wait_us, full_us = await self._script(keys=[_key(instance)], args=self._arguments(call))
        except (RedisError, OSError, TimeoutError) as error:
            timed_out = isinstance(error, (TimeoutError, RedisTimeoutError))
            self._recorder.count("cache_errors", operation="budget", reason="timeout" if timed_out else "error")
            call.store_usable = False
            return await self._take_here(instance, call)
        self._full_at[instance] = self._clock.monotonic() + int(full_us) / _MICRO
        wait_s = int(wait_us) / _MICRO
        if not taken:
            raise exhausted(wait_s)
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        return wait_s

    def share_left(self, instance: str) -> float:
        """By Redis's last answer to this process: what others took since then is not in it."""
        full_at = self._full_at.get(instance)
        if full_at is None:
            return self._local.share_left(instance)
        return replace(self._bucket, next_at=full_at).share_left(self._clock.monotonic())

    async def _take_here(self, instance: str, call: Call) -> float:
        self._full_at.pop(instance, None)
        return await self._local.take(instance, call)

    def _arguments(self, call: Call) -> list[int]:
        interval_us = _MICRO / self._bucket.rate_per_s
        return [
            round(interval_us),
            round(interval_us * (self._bucket.burst - 1)),
            round(longest_wait_s(call, self._clock) * _MICRO),
            round(BUDGET_WAIT_MAX_S * _MICRO),
        ]


def _key(instance: str) -> str:
    # the braces put all keys of one account on one cluster slot
    return f"jobnimbus-sys:{{{instance}}}:budget"
