"""Cursors: they carry their question, refuse another, and cannot be made up."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.cursor import Anchor, Cursor, merged_arguments, question_of

QUESTION = {"status": "Lead", "size": 10}
WORD = Cursor("get_jobs", QUESTION, 40, Anchor(1_790_000_000, 30, 99)).word()


def test_a_cursor_read_back_is_the_same() -> None:
    assert Cursor.read(WORD, "get_jobs") == Cursor("get_jobs", QUESTION, 40, Anchor(1_790_000_000, 30, 99))


def test_the_cursor_alone_asks_the_whole_question_again() -> None:
    merged, cursor = merged_arguments("get_jobs", {"cursor": WORD})

    assert cursor is not None
    assert cursor.offset == 40
    assert merged["status"] == "Lead"
    assert merged["size"] == 10


def test_the_page_itself_may_look_different() -> None:
    merged, _ = merged_arguments("get_jobs", {"cursor": WORD, "status": "Lead", "size": 5, "verbosity": "summary"})

    assert merged["size"] == 5


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cursor": WORD, "from": 5}, "from"),
        ({"cursor": WORD, "status": "Approved"}, "status"),
        ({"cursor": WORD, "owner_id": "u1"}, "owner_id"),
        ({"cursor": WORD[:-4] + "AAAA"}, "cursor"),
        ({"cursor": "bm9wZQ"}, "cursor"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "ä"}, "cursor"),
    ],
)
def test_what_does_not_belong_to_the_cursor_is_refused(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        merged_arguments("get_jobs", arguments)
    assert refused.value.field == field


def test_an_argument_left_at_null_changes_nothing_of_the_question() -> None:
    merged, _ = merged_arguments("get_jobs", {"cursor": WORD, "status": None, "size": None})

    assert merged["status"] == "Lead"
    assert merged["size"] == 10


@pytest.mark.parametrize(
    "body",
    [
        [1],
        {"a": 1},
        "text",
        [1, "get_jobs", {}, "x", None],
        [1, "get_jobs", {}, -5, None],
        [1, "get_jobs", {}, 10**12, None],
        [1, "get_jobs", [], 5, None],
        [1, "get_jobs", {}, 5, [1, 2]],
        [1, "get_jobs", {}, 5, ["a", "b", "c"]],
        [1, "get_jobs", {}, 5, [1, 9, 9]],
        [2, "get_jobs", {}, 5, None],
    ],
)
def test_a_well_made_word_with_senseless_content_is_refused(body: Any) -> None:
    raw = orjson.dumps(body)
    check = hashlib.blake2b(raw, digest_size=6, person=b"jn-cursor").digest()
    with pytest.raises(InvalidInput):
        Cursor.read(base64.urlsafe_b64encode(check + raw).decode(), "get_jobs")


def test_a_cursor_of_another_tool_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Cursor.read(WORD, "get_contacts")


@given(st.binary(max_size=60))
def test_made_up_words_never_pass(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        Cursor.read(base64.urlsafe_b64encode(raw).decode(), "get_jobs")


def test_the_next_question_leaves_out_where_this_page_was() -> None:
    assert question_of({"cursor": "x", "from": 3, "max_age_s": 0, "status": "Lead", "order": None}) == {
        "status": "Lead"
    }
