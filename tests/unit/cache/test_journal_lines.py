"""A journal's lines: what goes in comes out, and nothing else does."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.journal import Line, decode, encode, found_in
from jobnimbus_mcp.cache.notice import Notice

NOTICE = Notice("job.updated", "jobs", "j1", "webhook", 1_790_000_000.25, "e1", "body:abc", {"jobs:j1": 1_789_999_999})
LINE = Line("stamford", ("jobs", "jobs:detail:j1"), NOTICE)
ALL = Line("stamford", ("*",), None)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
notices = st.builds(
    Notice,
    event=texts,
    resource=texts,
    resource_id=texts,
    source=texts,
    received_at=st.floats(0, 4e9),
    event_id=texts,
    dedupe_key=texts,
    floors=st.dictionaries(texts, st.integers(0, 2**40), max_size=3),
)
lines = st.builds(Line, tenant=texts, tags=st.lists(texts, max_size=5).map(tuple), notice=st.none() | notices)


@given(lines)
def test_a_line_comes_back_as_it_was(line: Line) -> None:
    raw = encode(line)
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    back = decode(raw)
    assert (back, back.notice and back.notice.floors) == (line, line.notice and line.notice.floors)


@given(lines, st.data())
def test_no_changed_byte_goes_unnoticed(line: Line, data: st.DataObject) -> None:
    raw = bytearray(encode(line).removesuffix(b"\n"))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match=r".+"):
        decode(bytes(raw))


@given(lines, st.data())
def test_no_cut_line_is_taken_for_a_whole_one(line: Line, data: st.DataObject) -> None:
    raw = encode(line).removesuffix(b"\n")
    with pytest.raises(ValueError, match=r".+"):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))])


@pytest.mark.parametrize(
    ("content", "found", "damaged", "cut"),
    [
        (b"", (), 0, False),
        (encode(LINE) + encode(ALL), (LINE, ALL), 0, False),
        (encode(LINE) + encode(ALL)[:-1], (LINE,), 0, True),
        (encode(LINE) + encode(ALL)[:20], (LINE,), 0, True),
        (encode(LINE) + b"\0" * 80, (LINE,), 0, True),
        (encode(LINE)[:40] + b"\n" + encode(ALL), (ALL,), 1, False),
        (b"{}\n\n" + encode(LINE), (LINE,), 2, False),
        (encode(Line("guilford", ("jobs",), NOTICE)) + encode(LINE), (LINE,), 1, False),
        (b'{"crc":"ffffffff","line":{"tenant":"stamford"}}\n', (), 1, False),
    ],
    ids=["empty", "whole", "no line feed", "half", "zeros", "damaged", "nonsense", "another's", "another format"],
)
def test_a_file_gives_its_whole_lines_and_says_what_else_there_was(
    content: bytes, found: tuple[Line, ...], damaged: int, cut: bool
) -> None:
    assert found_in(content, "stamford") == (found, damaged, cut)


def test_a_line_of_another_format_with_a_right_checksum_is_refused() -> None:
    for body in (b"[]", b"{}", b'{"tenant":"a","tags":1,"notice":null}', b'{"tenant":"a","tags":[],"notice":{}}'):
        with pytest.raises(ValueError, match="another format"):
            decode(b'{"crc":"%08x","line":%s}' % (zlib.crc32(body), body))


def test_a_lines_bytes_are_these() -> None:
    """Another release may have to read them, and they hold no more of a record than its id."""
    assert encode(LINE) == (
        b'{"crc":"767c8387","line":{"tenant":"stamford","tags":["jobs","jobs:detail:j1"],"notice":{"event":"job.updated",'
        b'"resource":"jobs","resource_id":"j1","source":"webhook","received_at":1790000000.25,"event_id":"e1",'
        b'"dedupe_key":"body:abc","floors":{"jobs:j1":1789999999}}}}\n'
    )
