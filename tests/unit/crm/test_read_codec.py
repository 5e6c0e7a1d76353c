"""Questions as JSON: there and back, and nothing but questions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Is, NameIs, Not, OneOf, PhoneHas, Sort, Word
from jobnimbus_mcp.crm.read_codec import decode_read, encode_read
from jobnimbus_mcp.crm.reads import SCAN_ROWS_MAX, Operation, Read

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
FIELDS = st.lists(TEXTS, max_size=3).map(tuple)
SCALARS = TEXTS | NUMBERS | st.booleans()
PLAIN: st.SearchStrategy[Clause] = st.one_of(
    st.builds(Is, TEXTS, SCALARS),
    st.builds(OneOf, TEXTS, st.lists(SCALARS, max_size=4).map(tuple)),
    st.builds(NameIs, TEXTS, TEXTS),
    st.builds(Between, TEXTS, st.none() | NUMBERS, st.none() | NUMBERS, st.booleans()),
    st.builds(Word, TEXTS, FIELDS),
    st.builds(PhoneHas, st.text("0123456789"), FIELDS),
)
CLAUSES: st.SearchStrategy[Clause] = st.one_of(
    PLAIN, st.builds(Not, PLAIN), st.builds(AnyOf, st.lists(PLAIN | st.builds(Not, PLAIN), max_size=3).map(tuple))
)
WHERES = st.lists(CLAUSES, max_size=3).map(tuple)
SORTS = st.builds(Sort, TEXTS, st.booleans())
SCOPES = st.frozensets(TEXTS, max_size=3)
ENTITIES = st.sampled_from(Entity)
READS = st.one_of(
    st.builds(Read.record, ENTITIES, st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True)),
    st.builds(Read.block, ENTITIES, WHERES, SORTS, st.integers(0, 10_000), st.integers(1, SCAN_ROWS_MAX), scope=SCOPES),
    st.builds(Read.scan, ENTITIES, WHERES, sort=SORTS, operation=st.sampled_from(Operation), scope=SCOPES),
    st.builds(Read.whole, ENTITIES),
)

ACTIVE = Read.block(Entity.JOBS, (Not(Is("is_archived", True)),), Sort(), 100)


@given(READS)
def test_every_question_comes_back_as_it_was(read: Read) -> None:
    back = decode_read(encode_read(read))

    # the text tells True from 1, which Python takes for equal
    assert (back, repr(back.where), back.identifier) == (read, repr(read.where), read.identifier)


@given(READS, st.data())
def test_what_was_cut_or_scribbled_on_is_a_question_or_a_value_error(read: Read, data: st.DataObject) -> None:
    raw = bytearray(encode_read(read))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        back = decode_read(damaged)
    except ValueError:
        return
    assert isinstance(back, Read)
    assert decode_read(encode_read(back)) == back


def test_the_form_that_is_stored_stays_readable() -> None:
    """Processes of two releases share what is stored."""
    stored = (
        b'{"v":1,"entity":"jobs","operation":"list","shape":"block","record":"",'
        b'"where":[["not",["is","is_archived",true]]],"sort":["date_created",true],"offset":100,"size":100,"scope":[]}'
    )
    assert encode_read(ACTIVE) == stored
    assert decode_read(stored) == ACTIVE


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": None},
        {"entity": "rockets"},
        {"operation": "drop"},
        {"shape": "cube"},
        {"shape": "record"},
        {"record": "mjob1"},
        {"record": None},
        {"shape": "record", "record": "../users"},
        {"where": [["is", "status"]]},
        {"where": [["is", "status", 1.5]]},
        {"where": [["is", "status", None]]},
        {"where": [["is", 1, "x"]]},
        {"where": [["one_of", "status", "355"]]},
        {"where": [["between", "date_start", True, None, False]]},
        {"where": [["between", "date_start", 1, None, 0]]},
        {"where": [["word", "roof", "name"]]},
        {"where": [["script", "x"]]},
        {"where": [[["is"], "x", "y"]]},
        {"where": [[]]},
        {"where": ["is"]},
        {"where": {"is": 1}},
        {"where": [["not"]]},
        {"sort": ["date_created"]},
        {"sort": ["date_created", 1]},
        {"offset": -1},
        {"offset": "0"},
        {"size": 0},
        {"size": SCAN_ROWS_MAX + 1},
        {"scope": "mjob1"},
        {"scope": [1]},
    ],
)
def test_what_is_no_question_is_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_read(orjson.dumps(orjson.loads(encode_read(ACTIVE)) | change))


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{}", b'{"v":1}', b"\xff"])
def test_what_is_no_object_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_read(raw)


def test_clauses_within_clauses_end_somewhere() -> None:
    deep: Clause = Is("status", 1)
    for _ in range(20):
        deep = Not(deep)
    with pytest.raises(ValueError, match="deep"):
        encode_read(Read.scan(Entity.JOBS, (deep,)))
    written: Any = ["is", "status", 1]
    for _ in range(20):
        written = ["not", written]
    with pytest.raises(ValueError, match="deep"):
        decode_read(orjson.dumps(orjson.loads(encode_read(ACTIVE)) | {"where": [written]}))


def test_half_a_character_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_read(Read.scan(Entity.JOBS, (Word("\ud800", ("name",)),)))
