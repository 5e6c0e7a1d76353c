"""How fresh answers are to be: modes, policies and lifetimes that adapt, from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from jobnimbus_mcp.app.accounts import Accounts
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.gateway.adaptive import AdaptiveBounds, AdaptiveLifetimes
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.settings import Settings

__all__ = ["adaptive_lifetimes", "modes_of", "policies_of", "refreshing"]


def modes_of(settings: Settings) -> frozenset[Mode]:
    """Those of all kinds of read there are."""
    return frozenset((settings.cache_consistency, *settings.consistency_overrides.values()))


def adaptive_lifetimes(
    settings: Settings, accounts: Accounts, clock: Clock, hears_of_changes: Callable[[str], bool]
) -> AdaptiveLifetimes | None:
    """None where they are switched off."""
    if not settings.cache_adaptive_ttl:
        return None
    return AdaptiveLifetimes(
        accounts.counted_per_hour,
        clock=clock,
        instances=settings.instances,
        hears_of_changes=hears_of_changes,
        bounds=AdaptiveBounds(
            busy_per_h=settings.cache_adaptive_busy_per_h,
            calm_per_h=settings.cache_adaptive_calm_per_h,
            min_s=settings.cache_adaptive_min_s,
            max_s=settings.cache_adaptive_max_s,
        ),
    )


def policies_of(settings: Settings, adaptive: AdaptiveLifetimes | None) -> Policies:
    """What the settings make of the table of lifetimes."""
    return Policies(
        settings.ttl_overrides,
        max_bytes=settings.cache_max_item_size_kb * 1024,
        mode=settings.cache_consistency,
        modes=settings.consistency_overrides,
        stale_s=settings.cache_stale_while_revalidate_s,
        error_s=settings.cache_stale_if_error_s,
        soft_s=settings.cache_soft_timeout_ms / 1000,
        settle_s=settings.index_settle_s,
        adapted=None if adaptive is None else adaptive.lifetime_s,
    )


@asynccontextmanager
async def refreshing(adaptive: AdaptiveLifetimes | None) -> AsyncIterator[None]:
    """Look at the rates in the background."""
    if adaptive is None:
        yield
        return
    task = asyncio.get_running_loop().create_task(adaptive.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
