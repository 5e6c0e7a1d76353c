"""An issuer's keys as they were told last: fetched when first needed, and again when one is missing or they are old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.web.oauth import Key, Presented, keys_of

__all__ = ["AGAIN_S", "FIRST_AGAIN_S", "OLD_S", "FetchKeys", "KeyRing", "KeysUntold"]

OLD_S = 600.0
"""So often the keys are fetched again, whatever tokens come: one that the issuer has withdrawn opens no longer."""

AGAIN_S = 60.0
"""Not more often, however many tokens name keys that nobody knows."""

FIRST_AGAIN_S = 5.0
"""Nor more often than this while no key is known at all."""

FetchKeys = Callable[[], Awaitable[Any]]
"""The issuer's JWK set, parsed.

Raises:
    KeysUntold: it cannot be had.
"""


class KeysUntold(Exception):
    """The issuer is away, or tells something else; the message says what, without anybody's data."""


class KeyRing:
    """One fetch at a time, for all who wait. While the issuer is away its keys of before go on being good."""

    def __init__(self, fetch: FetchKeys, clock: Clock, log: FilteringBoundLogger) -> None:
        self._fetch = fetch
        self._clock = clock
        self._log = log
        self._keys: tuple[Key, ...] | None = None
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def keys_for(self, token: Presented) -> tuple[Key, ...] | None:
        """The keys that the token may be signed with, none or more; None while nothing is known of the issuer's."""
        # while a key at hand is looked up again, who could use it does not wait
        if self._wants(token) and not (self._one_at_a_time.locked() and self._fitting(token)):
            async with self._one_at_a_time:
                if self._wants(token):  # nobody has fetched them meanwhile
                    await self._refresh()
        return None if self._keys is None else self._fitting(token)

    def _fitting(self, token: Presented) -> tuple[Key, ...]:
        return token.key_among(self._keys or ())

    def _wants(self, token: Presented) -> bool:
        now = self._clock.monotonic()
        if self._keys is None:
            return now - self._tried_at >= FIRST_AGAIN_S
        missing = not self._fitting(token)
        return now - self._tried_at >= AGAIN_S and (missing or now - self._fetched_at >= OLD_S)

    async def _refresh(self) -> None:
        try:
            self._keys = keys_of(await self._fetch())
            self._fetched_at = self._clock.monotonic()
        except (KeysUntold, ValueError) as untold:
            why = str(untold) if isinstance(untold, KeysUntold) else "what it told is no JWK set"
            self._log.warning("issuer's keys not fetched", why=why, kept=self._keys is not None)
        # whoever gave up waiting has tried nothing: the next one does
        self._tried_at = self._clock.monotonic()
