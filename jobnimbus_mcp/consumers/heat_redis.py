"""Heat shared by all processes: a sorted set of questions per account in Redis, on Redis's clock.

jobnimbus-sys:{T}:heat    zset    question as JSON -> log2 of its decayed uses. Expires 7 days after the last use
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from jobnimbus_mcp.cache.key import system_key
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.consumers.heat import HALVED_EVERY_S, KEPT_MOST, Hot, uses_at
from jobnimbus_mcp.crm.read_codec import decode_read, encode_read
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.ports import RedisRunner
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["FLUSH_EVERY_S", "QUESTION_BYTES_MAX", "RedisHeat"]

FLUSH_EVERY_S = 5.0
"""One command per account and so many seconds, however much is asked. What is warmed is due later than that anyway."""

QUESTION_BYTES_MAX = 2_000
"""A longer question (a hundred ids) is not kept, so that an account's set stays below two megabytes."""

_LIFE_S = 7 * 86_400
_LAST_FLUSH_WITHIN_S = 0.5


class RedisHeat:
    """Implements `Heat`. `runner`: `cache.scripts_redis.Scripts` over this package's scripts.

    What one process notes between two flushes is bounded too: of more than `KEPT_MOST` different questions, the later
    ones are not counted. `command_timeout_s` bounds each command.
    """

    def __init__(
        self, runner: RedisRunner, *, clock: Clock, recorder: Recorder, command_timeout_s: float = 2.0
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._recorder = recorder
        self._command_timeout_s = command_timeout_s
        self._noted: dict[str, dict[Read, int]] = {}

    def note(self, instance: str, read: Read) -> None:
        noted = self._noted.setdefault(instance, {})
        if read in noted or len(noted) < KEPT_MOST:
            noted[read] = noted.get(read, 0) + 1

    async def hottest(self, instance: str, *, most: int = KEPT_MOST, at_least: float = 0.0) -> Sequence[Hot]:
        await self.flush(instance)
        least = repr(math.log2(at_least)) if at_least > 0 else "-inf"
        args = (HALVED_EVERY_S, min(most, KEPT_MOST), least)
        told, *found = await self._run("heat_top", instance, args)
        now, hot = float(told), list[Hot]()
        for question, score in zip(found[::2], found[1::2], strict=True):
            try:
                read = decode_read(question)
            except ValueError:
                # of another release, or damaged: it is nothing to us, and cools down like all others
                self._recorder.count("cache_errors", operation="heat", reason="unreadable")
                continue
            hot.append(Hot(read, uses_at(float(score), now)))
        return hot

    async def flush(self, instance: str) -> None:
        """Share what this process noted of an account.

        Raises:
            CacheUnavailable: it could not be, and is forgotten: the heat of a few seconds.
        """
        noted = self._noted.pop(instance, None)
        args: list[Any] = [HALVED_EVERY_S, KEPT_MOST, _LIFE_S]
        for read, uses in (noted or {}).items():
            try:
                question = encode_read(read)
            except ValueError:
                continue  # asked with half a character: there is no way to keep it
            if len(question) <= QUESTION_BYTES_MAX:
                args += (question, uses)
        if len(args) > 3:
            await self._run("heat_add", instance, args)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self._flush_for_ever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            try:
                async with asyncio.timeout(_LAST_FLUSH_WITHIN_S):
                    await self._flush_all()
            except TimeoutError:
                self._recorder.count("cache_errors", operation="heat", reason="timeout")

    async def _flush_for_ever(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_EVERY_S)
            await self._flush_all()

    async def _flush_all(self) -> None:
        """Of each account; the heat that a store which is away did not take is counted as an error, and gone."""
        for instance in tuple(self._noted):
            try:
                await self.flush(instance)
            except CacheUnavailable:
                self._recorder.count("cache_errors", operation="heat", reason="unreachable")

    async def _run(self, script: str, instance: str, args: Sequence[Any]) -> Any:
        try:
            async with asyncio.timeout(self._command_timeout_s):
                return await self._runner.run(script, (system_key(instance, "heat"),), args, tenant=instance)
        except TimeoutError as error:
            raise CacheUnavailable("The cache did not answer in time; try again shortly.", retry_after_s=1.0) from error
