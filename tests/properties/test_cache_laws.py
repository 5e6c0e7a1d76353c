"""Laws of the stored format and of L1, for any input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.codec import VERSION, CorruptEntry, Entry, decode, encode, peek
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.l1 import L1, Held

TAG = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=20)
ETAG = st.text("0123456789abcdef", min_size=16, max_size=16)
PART = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=12)
LIFE_S = st.integers(0, 2**32 - 1).map(lambda milliseconds: milliseconds / 1000)
ENTRIES = st.builds(
    Entry,
    value=st.one_of(st.binary(max_size=3_000), st.binary(max_size=20).map(lambda piece: piece * 200)),
    negative=st.booleans(),
    fetched_at=st.floats(0, 4e9),
    etag=ETAG,
    fresh_s=LIFE_S,
    kept_s=LIFE_S,
    cost_s=LIFE_S,
    position=st.just("") | st.builds("{}-{}".format, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
)


@given(ENTRIES, st.text(st.characters(exclude_categories=["Cs"]), max_size=80), st.binary(max_size=90), st.lists(TAG))
def test_what_is_encoded_is_decoded(entry: Entry, key_text: str, vector: bytes, tags: list[str]) -> None:
    for compress in (True, False):
        stored = encode(entry, key_text=key_text, vector=vector, tags=tags, compress=compress)
        assert decode(stored, key_text=key_text, tags=tags) == entry
        head = peek(stored)
        assert head is not None
        assert (head.fetched_at, head.size_bytes, head.tags) == (entry.fetched_at, len(entry.value), tuple(tags))
        assert (head.fresh_s, head.kept_s, head.vector) == (entry.fresh_s, entry.kept_s, vector)


@given(ENTRIES, st.data())
def test_changed_or_cut_bytes_are_refused_and_never_a_wrong_value(entry: Entry, data: st.DataObject) -> None:
    stored = encode(entry, key_text="k", vector=b"e\n1", tags=("a",), compress=True)
    if data.draw(st.booleans(), "cut"):
        damaged = stored[: data.draw(st.integers(0, len(stored) - 1), "at")]
    else:
        at = data.draw(st.integers(0, len(stored) - 1), "at")
        damaged = stored[:at] + bytes([stored[at] ^ data.draw(st.integers(1, 255), "bits")]) + stored[at + 1 :]
    with pytest.raises(CorruptEntry):
        decode(damaged, key_text="k", tags=("a",))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_another_error(noise: bytes) -> None:
    for stored in (noise, bytes([VERSION]) + noise):
        with pytest.raises(CorruptEntry):
            decode(stored, key_text="k", tags=())
        peek(stored)


@given(PART, PART, PART, PART, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_keys_come_back_from_their_text(
    tenant: str, partition: str, entity: str, operation: str, identifier: str
) -> None:
    key = CacheKey(tenant, partition, entity, operation, identifier)
    assert CacheKey.parse(key.text) == key


@given(
    st.integers(0, 5_000),
    st.lists(st.tuples(st.sampled_from(["put", "get", "discard"]), st.sampled_from("abcdefgh"), st.integers(0, 2_000))),
)
def test_l1_never_exceeds_its_bound_and_counts_what_it_holds(max_bytes: int, steps: list[tuple[str, str, int]]) -> None:
    l1 = L1(max_bytes)
    last: dict[str, Held] = {}
    for step, name, size in steps:
        if step == "put":
            last[name] = Held(Entry(bytes(size), False, 1.0, "0" * 16), ("jobs",), "p", 0, 1.0, 1.0, 1.0)
            l1.put(name, last[name])
        elif step == "discard":
            l1.discard(name)
            last.pop(name, None)
        else:
            assert l1.get(name) in (None, last.get(name))
        assert 0 <= l1.size_bytes <= max_bytes
    for name in "abcdefgh":
        l1.discard(name)
    assert (l1.size_bytes, l1.stats()["entries"]) == (0, 0)
