"""Versions: equal for equal answers to equal questions, forgotten in order, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.inputs import ListArgs, ReadingArgs
from jobnimbus_mcp.tools.versions import NO_VERSION, Asked, Versions, changed_rows, row_digest, unchanged, versioned

WHO = Caller("stamford", "k" * 16, "p" * 32, own_key=True)
ASKED = Asked("get_jobs", ListArgs(), 0)
ANSWER: dict[str, Any] = {"count": 2, "returned": 2, "as_of": "2026-11-01T00:00:00.000Z", "next_cursor": None}
ROWS = [b'{"jnid":"j1"}', b'{"jnid":"j2"}']


def test_when_and_how_fresh_an_answer_was_read_makes_no_other_version() -> None:
    later = {**ANSWER, "as_of": "2026-11-02T00:00:00.000Z", "stale": True, "stale_reason": "x", "next_cursor": "y"}
    asked = Asked("get_jobs", ListArgs(known_version="w", max_age_s=0, cursor="z", **{"from": 0}), 0)

    version = ASKED.version(ANSWER, ROWS)

    assert asked.version({**later, "version": version, "known_version_unknown": True}, ROWS) == version
    assert len(version) == len(NO_VERSION) == 12
    assert set(version) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    ("asked", "answer", "rows"),
    [
        (Asked("search_jobs", ListArgs(), 0), ANSWER, ROWS),
        (Asked("get_jobs", ListArgs(verbosity="summary"), 0), ANSWER, ROWS),
        (Asked("get_jobs", ListArgs(format="table"), 0), ANSWER, ROWS),
        (Asked("get_jobs", ListArgs(size=24), 0), ANSWER, ROWS),
        (Asked("get_jobs", ListArgs(fields=["name"]), 0), ANSWER, ROWS),
        (Asked("get_jobs", ListArgs(), 25), ANSWER, ROWS),
        (ASKED, {**ANSWER, "count": 3}, ROWS),
        (ASKED, {**ANSWER, "complete": False}, ROWS),
        (ASKED, ANSWER, ROWS[:1]),
        (ASKED, ANSWER, ROWS[::-1]),
        (ASKED, ANSWER, [b"".join(ROWS)]),
    ],
)
def test_another_question_page_or_record_is_another_version(
    asked: Asked, answer: dict[str, Any], rows: list[bytes]
) -> None:
    assert asked.version(answer, rows) != ASKED.version(ANSWER, ROWS)


def test_a_version_is_remembered_of_its_own_question_and_caller_only() -> None:
    versions = Versions()
    versions.remember(WHO, ASKED, "v1", {"j1": b"1"})

    assert versions.rows(WHO, ASKED, "v1") == {"j1": b"1"}
    assert versions.rows(WHO, ASKED, "v2") is None
    assert versions.rows(WHO, Asked("get_jobs", ListArgs(size=3), 0), "v1") is None
    assert versions.rows(WHO, Asked("get_jobs", ListArgs(), 25), "v1") is None
    assert versions.rows(replace(WHO, instance="guilford"), ASKED, "v1") is None
    assert versions.rows(replace(WHO, partition="q" * 32), ASKED, "v1") is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=30), st.integers(0, 12_000))
def test_what_is_remembered_never_outgrows_its_bound_and_the_last_used_stays(
    puts: list[tuple[int, int]], bound: int
) -> None:
    versions = Versions(bound)
    for number, many in puts:
        rows = {f"j{row}": b"8" * 8 for row in range(many)}
        versions.remember(WHO, ASKED, str(number), rows)
        assert versions.size_bytes <= bound
        assert versions.rows(WHO, ASKED, str(number)) in (rows, None)


def test_the_version_used_longest_ago_goes_first() -> None:
    versions = Versions(2_200)
    for name in ("a", "b", "c"):
        versions.remember(WHO, ASKED, name, {"j1": b"1" * 8})
    versions.rows(WHO, ASKED, "a")
    versions.remember(WHO, ASKED, "d", {"j1": b"1" * 8})

    assert [name for name in "abcd" if versions.rows(WHO, ASKED, name)] == ["a", "c", "d"]


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 2)),
       st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 2)))  # fmt: skip
def test_whoever_knew_a_page_and_is_told_what_changed_knows_the_new_one(
    before: dict[str, int], after: dict[str, int]
) -> None:
    def digests(page: dict[str, int]) -> list[bytes]:
        return [row_digest(orjson.dumps(value)) for value in page.values()]

    ids = list(after)
    changed, removed = changed_rows(ids, digests(after), dict(zip(before, digests(before), strict=True)))

    known = {jnid: value for jnid, value in before.items() if jnid not in removed}
    assert known | {ids[at]: after[ids[at]] for at in changed} == after
    assert all(before.get(ids[at]) != after[ids[at]] for at in changed)


def test_an_answer_that_is_no_list_comes_whole_or_not_at_all() -> None:
    answer = {"record": {"jnid": "j1"}, "as_of": "2026-11-01T00:00:00.000Z", "stale": True, "stale_reason": "asleep"}
    first = versioned("get_job", ReadingArgs(), answer)
    version = first["version"]

    assert first == {**answer, "version": version}
    assert versioned("get_job", ReadingArgs(known_version=version), answer) == {
        "unchanged": True,
        "version": version,
        "as_of": "2026-11-01T00:00:00.000Z",
        "stale": True,
        "stale_reason": "asleep",
    }
    changed = versioned("get_job", ReadingArgs(known_version=version), {**answer, "record": {"jnid": "j2"}})
    assert changed["record"] == {"jnid": "j2"}
    assert changed["version"] != version


def test_an_unchanged_list_keeps_its_count_and_the_way_on() -> None:
    answer = {**ANSWER, "next_cursor": "c", "version": "v", "results": [1], "complete": False, "incomplete_reason": "r"}

    assert unchanged(answer) == {
        "unchanged": True,
        "count": 2,
        "next_cursor": "c",
        "as_of": ANSWER["as_of"],
        "version": "v",
        "complete": False,
        "incomplete_reason": "r",
    }
