"""Counts handed over once: none lost when the store is away, none twice when only its answer was lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.telemetry.tally import Tally


class Store:
    """Adds each batch once, as the port promises; may lose batches or its answers."""

    def __init__(self) -> None:
        self.sums: dict[str, Counter[str]] = {}
        self.batches: list[tuple[str, str, dict[str, int]]] = []
        self.takes = self.answers = True

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        seen = any(batch == earlier for _, earlier, _ in self.batches)
        if self.takes:
            self.batches.append((tenant, batch, dict(counts)))
            if not seen:
                self.sums.setdefault(tenant, Counter()).update(counts)
        if not (self.takes and self.answers):
            raise CacheUnavailable("away")

    async def totals(self, tenant: str) -> dict[str, int]:
        return dict(self.sums.get(tenant, {}))


@pytest.mark.parametrize("lost", ["batch", "answer"])
async def test_a_batch_that_was_not_acknowledged_is_sent_again_first_and_as_it_was(lost: str) -> None:
    tally, store = Tally("p1"), Store()
    store.takes, store.answers = lost == "answer", False
    tally.add("stamford", "hits", 5)
    for _ in range(3):
        with pytest.raises(CacheUnavailable):
            await tally.flush(store)
        tally.add("stamford", "hits", 1)
    assert tally.unsent("stamford") == {"hits": 8}
    store.takes = store.answers = True
    await tally.flush(store)
    assert await store.totals("stamford") == {"hits": 8}
    assert tally.unsent("stamford") == {}
    sent = [(batch, counts["hits"]) for _, batch, counts in store.batches]
    assert sent[-2:] == [("p1:1", 5), ("p1:2", 3)]
    assert set(sent[:-2]) <= {("p1:1", 5)}


async def test_a_hand_over_that_was_cancelled_is_one_that_was_not_acknowledged() -> None:
    tally, store = Tally("p1"), Store()

    class Slow(Store):
        async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
            await store.add(tenant, counts, batch=batch)
            await asyncio.Event().wait()

    tally.add("stamford", "hits", 5)
    flushing = asyncio.create_task(tally.flush(Slow()))
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    await tally.flush(store)
    assert await store.totals("stamford") == {"hits": 5}


async def test_batches_are_numbered_over_all_accounts_and_nothing_counted_is_no_batch() -> None:
    tally, store = Tally("p1"), Store()
    await tally.flush(store)
    for tenant in ("stamford", "guilford"):
        tally.add(tenant, "hits", tool="get_jobs")
    await tally.flush(store)
    await tally.flush(store)
    assert [(tenant, batch) for tenant, batch, _ in store.batches] == [("stamford", "p1:1"), ("guilford", "p1:2")]
    assert store.batches[0][2] == {"hits": 1, "hits|tool|get_jobs": 1}


async def test_two_processes_never_share_a_name() -> None:
    store = Store()
    for tally in (Tally(), Tally()):
        tally.add("stamford", "hits")
        await tally.flush(store)
    assert await store.totals("stamford") == {"hits": 2}
