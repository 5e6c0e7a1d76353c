"""What a process holds in memory, and within which bound."""

from __future__ import annotations

from math import inf

from jobnimbus_mcp.cache.codec import Entry
from jobnimbus_mcp.cache.key import partition_prefix
from jobnimbus_mcp.cache.l1 import ENTRY_OVERHEAD_BYTES, L1, Held


def held_of(size: int, tags: tuple[str, ...] = ()) -> Held:
    return Held(Entry(b"x" * size, False, 1.0, "0" * 16), tags, "p1", 0, inf, inf, inf)


def test_l1_lets_the_least_recently_used_go_first() -> None:
    l1 = L1(3 * (1 + 100 + ENTRY_OVERHEAD_BYTES))
    for name in "abc":
        l1.put(name, held_of(100))
    assert l1.get("a") is not None
    l1.put("d", held_of(100))
    assert [name for name in "abcd" if l1.get(name) is not None] == ["a", "c", "d"]
    assert l1.stats()["evictions"] == 1


def test_l1_refuses_what_alone_is_too_large_and_forgets_the_older_one() -> None:
    l1 = L1(1_000)
    l1.put("a", held_of(10))
    l1.put("a", held_of(1_000))
    assert l1.get("a") is None
    assert l1.size_bytes == 0


def test_l1_counts_the_tags_it_holds() -> None:
    l1 = L1(1 + 100 + ENTRY_OVERHEAD_BYTES)
    l1.put("a", held_of(100, ("jobs",)))
    assert l1.get("a") is None
    l1.put("a", held_of(0, ("jobs",)))
    assert l1.get("a") == held_of(0, ("jobs",))
    l1.discard("a")
    assert l1.size_bytes == 0


def test_l1_discards_one_partition_and_no_other() -> None:
    l1 = L1(10_000)
    for partition in ("p1", "p11"):
        l1.put(f"{partition_prefix('t', partition)}x", held_of(1))
    assert l1.discard_prefix(partition_prefix("t", "p1")) == 1
    assert l1.get(f"{partition_prefix('t', 'p11')}x") is not None
