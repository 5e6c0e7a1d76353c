"""Keys, policies, the stored format, L1 and the bound on a command."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobnimbus_mcp.cache.codec import HEADER_BYTES, CorruptEntry, Entry, ForeignEntry, Head, decode, encode, peek
from jobnimbus_mcp.cache.command_bound import CommandBound, CommandExpired
from jobnimbus_mcp.cache.key import CacheKey, entry_glob, partition_prefix, system_key
from jobnimbus_mcp.cache.listing import HitCounts
from jobnimbus_mcp.cache.policy import Policy

KEY = CacheKey("stamford", "p1", "jobs", "list", "status=open&size=25")
GOLDEN_RAW = bytes.fromhex(
    "0300000d41daac4ee280000000000002"
    "e1d90c56"
    "30313233343536373839616263646566"
    "0000ea60"
    "00016184"
    "000000fa"
    "65706f63680a3132330a343536"
    "0009"
    "6a6f62730a6a6f6231"
    "7b7d"
)
GOLDEN_PLACED = bytes.fromhex(
    "0304000d41daac4ee280000000000002"
    "ed798a77"
    "30313233343536373839616263646566"
    "0000ea60"
    "00016184"
    "000000fa"
    "65706f63680a3132330a343536"
    "0009"
    "6a6f62730a6a6f6231"
    "000001a0c4506c7b0000000000000004"
    "7b7d"
)
GOLDEN_OF_VERSION_2 = bytes.fromhex(
    "0200000d41daac4ee280000000000002"
    "0696ed0d"
    "30313233343536373839616263646566"
    "0000ea60"
    "00016184"
    "000000fa"
    "65706f63680a3132330a343536"
    "0009"
    "6a6f62730a6a6f6231"
    "7b7d"
)
GOLDEN_OF_VERSION_1 = bytes.fromhex(
    "0100000d41daac4ee280000000000002"
    "005d3e95"
    "30313233343536373839616263646566"
    "65706f63680a3132330a343536"
    "0009"
    "6a6f62730a6a6f6231"
    "7b7d"
)


def test_a_keys_text_is_the_contracts() -> None:
    assert KEY.text == "jobnimbus:{stamford}:p1:jobs:list:status=open&size=25"
    assert KEY.family == "jobs:list"
    assert system_key("stamford", "epoch") == "jobnimbus-sys:{stamford}:epoch"
    assert KEY.text.startswith(partition_prefix("stamford", "p1"))


@pytest.mark.parametrize("identifier", ["all", "a:b:c", "x" * 120, "ä{}"])
def test_a_key_is_parsed_back_from_its_text(identifier: str) -> None:
    key = CacheKey("stamford", "p1", "jobs", "list", identifier)
    assert CacheKey.parse(key.text) == key


def test_a_long_identifier_becomes_a_digest_of_its_own() -> None:
    long, other = (CacheKey("t", "p", "jobs", "list", end * 121) for end in "ab")
    assert len(long.identifier) == 64
    assert long.identifier != other.identifier
    assert CacheKey.parse(long.text) == long


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jobnimbus",
        "jobnimbus:stamford:p:jobs:list:x",
        "jobnimbus:{stamford}:p:jobs:list",
        "jobnimbus-sys:{s}:epoch",
        "jobnimbus:{}:p:jobs:list:x",
        "jobnimbus:{s}:p:jobs:list:",
        "jobnimbus:{s}:p:jobs:list:" + "x" * 121,
    ],
)
def test_what_no_key_has_as_text_is_none(text: str) -> None:
    assert CacheKey.parse(text) is None


@pytest.mark.parametrize(
    "parts",
    [("", "p", "e", "o", "i"), ("a:b", "p", "e", "o", "i"), ("t", "p}", "e", "o", "i"), ("t", "p", "e", "o", "")],
)
def test_a_key_that_could_be_mistaken_for_another_is_refused(parts: tuple[str, str, str, str, str]) -> None:
    with pytest.raises(ValueError, match=r"cache key|colon"):
        CacheKey(*parts)


def test_a_glob_keeps_stars_and_marks_and_escapes_the_rest() -> None:
    assert entry_glob("s", entity="jobs", identifier="a[1]*?\\") == "jobnimbus:{s}:*:jobs:*:a\\[1\\]*?\\\\"


@pytest.mark.parametrize(
    "numbers",
    [
        {"fresh_s": 0},
        {"fresh_s": -1},
        {"fresh_s": float("nan")},
        {"fresh_s": float("inf")},
        {"fresh_s": 1, "negative_s": 0},
        {"fresh_s": 1, "jitter": 1},
        {"fresh_s": 1, "jitter": -0.1},
        {"fresh_s": 1, "max_bytes": 0},
    ],
)
def test_a_senseless_policy_is_refused_when_built(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Policy(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(("random01", "ttl_s", "negative_ttl_s"), [(0, 90, 27), (0.5, 100, 30), (1, 110, 33)])
def test_jitter_spreads_a_lifetime_by_a_tenth_each_way(random01: float, ttl_s: float, negative_ttl_s: float) -> None:
    policy = Policy(100)
    assert policy.ttl_s(negative=False, random01=random01) == pytest.approx(ttl_s)
    assert policy.ttl_s(negative=True, random01=random01) == pytest.approx(negative_ttl_s)


def test_the_released_format_keeps_its_bytes() -> None:
    """Values written by an older release must be read, or at least recognised, by a newer one."""
    entry = Entry(b"{}", False, 1_790_000_010.0, "0123456789abcdef", fresh_s=60.0, kept_s=90.5, cost_s=0.25)
    written = encode(entry, key_text=KEY.text, vector=b"epoch\n123\n456", tags=("jobs", "job1"), compress=True)
    assert written.hex() == GOLDEN_RAW.hex()
    assert decode(GOLDEN_RAW, key_text=KEY.text, tags=("jobs", "job1")) == entry
    assert peek(GOLDEN_RAW) == Head(1_790_000_010.0, 2, ("jobs", "job1"), 60.0, 90.5, b"epoch\n123\n456")


def test_a_position_stands_between_tags_and_value_and_is_left_out_where_there_is_none() -> None:
    entry = Entry(b"{}", False, 1_790_000_010.0, "0123456789abcdef", 60.0, 90.5, 0.25, position="1790000000123-4")
    written = encode(entry, key_text=KEY.text, vector=b"epoch\n123\n456", tags=("jobs", "job1"), compress=True)
    assert written.hex() == GOLDEN_PLACED.hex()
    assert decode(GOLDEN_PLACED, key_text=KEY.text, tags=("jobs", "job1")) == entry
    assert peek(GOLDEN_PLACED) == peek(GOLDEN_RAW)


@pytest.mark.parametrize("position", ["x", "1", "1-", "1-x", "-1-2", f"{2**64}-0"])
def test_what_is_no_position_is_not_kept(position: str) -> None:
    with pytest.raises(ValueError, match="position"):
        encode(Entry(b"", False, 1.0, "0" * 16, position=position), key_text="k", vector=b"v", tags=(), compress=True)


@pytest.mark.parametrize("stored", [GOLDEN_OF_VERSION_1, GOLDEN_OF_VERSION_2, b"\x04" + GOLDEN_RAW[1:], b"", b"{}"])
def test_an_entry_of_another_format_is_told_from_a_broken_one(stored: bytes) -> None:
    with pytest.raises(ForeignEntry):
        decode(stored, key_text=KEY.text, tags=("jobs", "job1"))
    assert peek(stored) is None


@pytest.mark.parametrize(
    "stored", [GOLDEN_RAW[:40], GOLDEN_RAW[:-1], GOLDEN_PLACED[:-1], GOLDEN_RAW + b"x", GOLDEN_RAW[:36] + bytes(20)]
)
def test_a_broken_entry_of_this_format_is_not_taken_for_anothers(stored: bytes) -> None:
    with pytest.raises(CorruptEntry) as caught:
        decode(stored, key_text=KEY.text, tags=("jobs", "job1"))
    assert caught.type is CorruptEntry


@pytest.mark.parametrize(("seconds", "kept_as"), [(-1.0, 0.0), (0.0004, 0.0), (0.0006, 0.001), (1e9, 4_294_967.295)])
def test_a_lifetime_beyond_the_format_is_cut_to_what_it_holds(seconds: float, kept_as: float) -> None:
    stored = encode(
        Entry(b"", False, 1.0, "0" * 16, fresh_s=seconds), key_text="k", vector=b"v", tags=(), compress=True
    )
    assert decode(stored, key_text="k", tags=()).fresh_s == kept_as


@pytest.mark.parametrize("cut", [HEADER_BYTES, HEADER_BYTES + 5, HEADER_BYTES + 20])
def test_the_start_of_an_entry_tells_what_it_holds_and_no_more(cut: int) -> None:
    head = peek(GOLDEN_RAW[:cut])
    assert head is not None
    assert (head.fetched_at, head.size_bytes, head.fresh_s) == (1_790_000_010.0, 2, 60.0)
    assert b"epoch\n123\n456".startswith(head.vector)
    assert "jobs\njob1".startswith("\n".join(head.tags))


@pytest.mark.parametrize(
    ("size", "compress", "gzip"), [(1_024, True, False), (1_025, True, True), (9_999, False, False)]
)
def test_values_over_1_kb_are_compressed_unless_switched_off(size: int, compress: bool, gzip: bool) -> None:
    entry = Entry(b"x" * size, True, 1.0, "0123456789abcdef")
    stored = encode(entry, key_text="k", vector=b"v", tags=(), compress=compress)
    assert (len(stored) < size) is gzip
    assert bool(stored[1] & 2) is gzip
    assert decode(stored, key_text="k", tags=()) == entry


def test_equal_values_give_equal_bytes_whenever_they_are_written() -> None:
    entry = Entry(b"x" * 5_000, False, 1.0, "0123456789abcdef")
    once = encode(entry, key_text="k", vector=b"v", tags=(), compress=True)
    time.sleep(0)
    assert encode(entry, key_text="k", vector=b"v", tags=(), compress=True) == once


@pytest.mark.parametrize(
    ("key_text", "tags"), [("other", ("jobs",)), ("k", ("jobz",)), ("k", ()), ("k", ("jobs", "b"))]
)
def test_another_keys_value_or_other_tags_are_not_this_entry(key_text: str, tags: tuple[str, ...]) -> None:
    stored = encode(Entry(b"{}", False, 1.0, "0" * 16), key_text="k", vector=b"v", tags=("jobs",), compress=True)
    with pytest.raises(CorruptEntry):
        decode(stored, key_text=key_text, tags=tags)


def test_more_tags_than_the_format_can_name_are_refused() -> None:
    with pytest.raises(ValueError, match="too many tags"):
        encode(Entry(b"", False, 1.0, "0" * 16), key_text="k", vector=b"", tags=("x" * 70_000,), compress=True)


def test_hit_counts_are_bounded() -> None:
    hits = HitCounts(most=3)
    for name in ("a", "b", "c", "c", "d"):
        hits.add(name)
    assert [hits.of(name) for name in "abcd"] == [0, 1, 2, 1]


async def test_a_command_beyond_its_bound_is_cancelled() -> None:
    with pytest.raises(CommandExpired) as caught, CommandBound(0.01):
        await asyncio.sleep(5)
    assert caught.value.stalled is False


async def test_an_answer_that_came_while_the_loop_was_held_up_is_still_taken() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()
    loop.call_soon(time.sleep, 0.15)
    with CommandBound(0.05):
        loop.call_later(0.16, answer.set_result, "here")
        assert await answer == "here"


async def test_no_answer_after_the_loop_was_held_up_says_so() -> None:
    asyncio.get_running_loop().call_soon(time.sleep, 0.15)
    with pytest.raises(CommandExpired) as caught, CommandBound(0.05):
        await asyncio.Event().wait()
    assert caught.value.stalled is True


async def test_the_callers_own_cancellation_is_not_taken_for_the_bound() -> None:
    async def bounded() -> None:
        with CommandBound(5):
            await asyncio.Event().wait()

    task = asyncio.create_task(bounded())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
