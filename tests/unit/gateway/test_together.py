"""Which lists are asked for together: known records, rows that fit one page, and a rest after it was no use."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, OneOf, Sort
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.gateway.together import Together, parent_of
from jobnimbus_mcp.upstream.request import FILTER_CHARS_MAX, page_request

WHOSE = ("stamford", "p")


def under(parent: str, *more: Is) -> Read:
    where = (Is("related.id", parent), *more)
    return Read.block(Entity.TASKS, where, Sort(), 0, scope=frozenset({parent}))


def several(*parents: str) -> Read:
    return Read.scan(Entity.TASKS, (OneOf("related.id", tuple(sorted(parents))),), scope=frozenset(parents))


def test_a_list_hangs_on_a_record_when_it_is_asked_for_by_that_alone() -> None:
    both = Read.block(Entity.TASKS, (Is("related.id", "a"),), Sort(), 0, scope=frozenset({"a", "b"}))
    found = [parent_of(read) for read in (under("a"), under("a", Is("status", 1)), both, Read.scan(Entity.TASKS, ()))]
    assert found == ["a", "a", None, None]


def test_who_knows_of_no_other_record_asks_for_one_alone() -> None:
    together = Together()
    assert together.list_for(WHOSE, under("a"), 0.0) is None
    together.seen(WHOSE, under("a"), {"count": 1, "rows": [{}]})
    assert together.list_for(WHOSE, under("a"), 0.0) is None
    assert together.list_for(WHOSE, under("b"), 0.0) == several("a", "b")
    assert together.list_for(("stamford", "q"), under("b"), 0.0) is None


def test_what_is_known_to_be_long_is_left_out() -> None:
    together = Together()
    for parent, count in (("long", 790), ("short", 3), ("longest", 5_000)):
        together.seen(WHOSE, under(parent), {"count": count, "rows": []})
    assert together.list_for(WHOSE, under("a"), 0.0) == several("a", "short")
    assert together.list_for(WHOSE, under("longest"), 0.0) is None


@pytest.mark.parametrize(("length", "several_of"), [(24, 121), (64, 54)])
def test_the_latest_are_chosen_and_fit_into_one_url(length: int, several_of: int) -> None:
    together = Together()
    names = [f"{number:0{length}}" for number in range(500)]
    for name in names:
        together.seen(WHOSE, under(name), {"count": 0, "rows": []})
    made = together.list_for(WHOSE, under(names[0]), 0.0)
    assert made is not None
    assert made == several(names[0], *names[-several_of + 1 :])
    (asked,) = [
        value
        for name, value in page_request(made.entity, made.where, made.sort, offset=0, size=500).params
        if name == "filter"
    ]
    assert len(asked) < FILTER_CHARS_MAX


def test_after_it_was_no_use_it_rests() -> None:
    together = Together()
    together.opened(WHOSE, "b")
    together.no_use(WHOSE, Entity.TASKS, 1_000.0)
    assert together.list_for(WHOSE, under("a"), 1_599.0) is None
    assert together.list_for(WHOSE, under("a"), 1_600.0) == several("a", "b")
