"""Shared counts: this process's latest are always in the sum, and never twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.telemetry.tally import METRIC_NAMES, Tally
from jobnimbus_mcp.web.stats import SharedCounts, figures


class Store:
    """Sums in memory; `add` waits until it is let through, so that a reader can come in the middle."""

    def __init__(self) -> None:
        self.sums: dict[str, Counter[str]] = {}
        self.through = asyncio.Event()
        self.through.set()
        self.entered = asyncio.Event()
        self.down = False

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        self.entered.set()
        await self.through.wait()
        if self.down:
            raise CacheUnavailable("away")
        self.sums.setdefault(tenant, Counter()).update(counts)

    async def totals(self, tenant: str) -> dict[str, int]:
        if self.down:
            raise CacheUnavailable("away")
        return dict(self.sums.get(tenant, {}))


async def test_a_sum_made_while_counts_are_handed_over_lacks_none_and_has_none_twice() -> None:
    tally, store = Tally(), Store()
    store.sums["stamford"] = Counter(hits=10)
    counts = SharedCounts(tally, store)
    tally.add("stamford", "hits", 5)
    store.through.clear()
    flushing = asyncio.create_task(counts.flush())
    await asyncio.wait_for(store.entered.wait(), 1)
    reading = asyncio.create_task(counts.shared("stamford"))
    await asyncio.sleep(0)
    assert not reading.done()
    tally.add("stamford", "hits", 1)
    store.through.set()
    await asyncio.wait_for(flushing, 1)
    assert (await asyncio.wait_for(reading, 1))["hits"] == 16
    assert counts.own("stamford")["hits"] == 6


async def test_what_could_not_be_handed_over_is_not_lost() -> None:
    tally, store = Tally(), Store()
    counts = SharedCounts(tally, store)
    tally.add("stamford", "hits", 5)
    store.down = True
    with pytest.raises(CacheUnavailable):
        await counts.flush()
    with pytest.raises(CacheUnavailable):
        await counts.shared("stamford")
    store.down = False
    assert (await counts.shared("stamford"))["hits"] == 5
    await counts.flush()
    assert (await counts.shared("stamford"))["hits"] == 5


def test_every_metric_is_told_in_its_order_even_when_nothing_was_counted() -> None:
    told = figures([])["metrics"]
    assert [name for name in told if name != "hitRate"] == list(METRIC_NAMES)
    assert set(told.values()) == {0, "0.00%"}
