"""Remembered answers: bounded, one partition's own, and told apart by everything that was asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.memo import AnswerMemo, Remembered, Used, memo_key

WHO = Caller("stamford", "k" * 16, "p" * 32, own_key=True)
USED = (Used(Read.record(Entity.JOBS, "mjob1"), "etag", internal=False),)


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=3_000)), max_size=40), st.integers(0, 8_000))
def test_a_memo_never_holds_more_than_its_bound(puts: list[tuple[bytes, bytes]], bound: int) -> None:
    memo = AnswerMemo(bound)
    for key, data in puts:
        memo.put(key, Remembered(USED, data))
        assert memo.size_bytes <= bound
        kept = memo.get(key)
        assert kept is None or kept.data == data
    for key, _ in puts:
        memo.discard(key)
    assert memo.size_bytes == 0


def test_what_was_used_last_stays_longest() -> None:
    memo = AnswerMemo(4_000)
    for key in (b"a", b"b", b"c"):
        memo.put(key, Remembered(USED, b""))
    memo.get(b"a")
    memo.put(b"d", Remembered(USED, b""))

    assert memo.get(b"a") is not None
    assert memo.get(b"b") is None


@pytest.mark.parametrize(
    ("tool", "who", "arguments"),
    [
        ("search_jobs", WHO, {"size": 5}),
        ("get_jobs", Caller("guilford", "k" * 16, "p" * 32, own_key=True), {"size": 5}),
        ("get_jobs", Caller("stamford", "k" * 16, "q" * 32, own_key=True), {"size": 5}),
        ("get_jobs", WHO, {"size": 6}),
        ("get_jobs", WHO, {"size": 5, "cursor": "x"}),
        ("get_jobs", WHO, {"size": 5, "fields": ["name"]}),
    ],
)
def test_another_tool_account_credential_or_argument_is_another_question(
    tool: str, who: Caller, arguments: dict[str, Any]
) -> None:
    assert memo_key(tool, who, arguments, 1) != memo_key("get_jobs", WHO, {"size": 5}, 1)


def test_how_old_an_answer_may_be_does_not_make_another_question() -> None:
    assert memo_key("get_jobs", WHO, {"max_age_s": 9, "size": 5}, 1) == memo_key("get_jobs", WHO, {"size": 5}, 1)


def test_tomorrow_it_is_another_question() -> None:
    assert memo_key("get_jobs", WHO, {}, 1) != memo_key("get_jobs", WHO, {}, 2)
