"""Conditions: what JobNimbus is asked, and how rows are checked here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.query import (
    AnyOf,
    Between,
    Clause,
    Is,
    NameIs,
    Not,
    OneOf,
    PhoneHas,
    Word,
    filter_of,
    matches,
)

ROW: dict[str, Any] = {
    "jnid": "mjob1",
    "number": "R-20417",
    "name": "Whitfield - Re-roof",
    "status": 355,
    "status_name": "In Production",
    "is_archived": False,
    "is_completed": True,
    "related": [{"id": "c1"}, {"id": "j9"}],
    "owners": [{"id": "u1"}],
    "date_created": 1_788_264_000,
    "date_start": 0,
    "date_dirty": 1_788_264_000_000,
    "mobile_phone": "(555) 010-0142",
    "work_phone": None,
}


@pytest.mark.parametrize(
    ("clause", "asked", "holds"),
    [
        (Is("status", 355), {"term": {"status": 355}}, True),
        (Is("status", 356), {"term": {"status": 356}}, False),
        (Is("related.id", "j9"), {"term": {"related.id": "j9"}}, True),
        (Is("missing", "x"), {"term": {"missing": "x"}}, False),
        (Is("is_completed", True), {"term": {"is_completed": True}}, True),
        (Is("status", True), {"term": {"status": True}}, False),
        (OneOf("status", (354, 355)), {"terms": {"status": [354, 355]}}, True),
        (OneOf("owners.id", ("u2",)), {"terms": {"owners.id": ["u2"]}}, False),
        (NameIs("status_name", "approved"), {"term": {"status_name": "approved"}}, False),
        (
            NameIs("status_name", "IN production"),
            {"bool": {"must": [{"term": {"status_name": "in"}}, {"term": {"status_name": "production"}}]}},
            True,
        ),
        (
            Between("date_created", 1_788_264_000, 1_788_264_000),
            {"range": {"date_created": {"gte": 1_788_264_000, "lte": 1_788_264_000}}},
            True,
        ),
        (
            Between("date_start", at_least=1),
            {
                "bool": {
                    "should": [
                        {"range": {"date_start": {"gte": 1, "lte": 10**11}}},
                        {"range": {"date_start": {"gte": 10**11 + 1}}},
                    ]
                }
            },
            False,
        ),
        (
            Between("date_dirty", 1_788_000_000, 1_788_264_000),
            {
                "bool": {
                    "should": [
                        {"range": {"date_dirty": {"gte": 1_788_000_000, "lte": 1_788_264_000}}},
                        {"range": {"date_dirty": {"gte": 1_788_000_000_000, "lte": 1_788_264_000_999}}},
                    ]
                }
            },
            True,
        ),
        (
            Between("date_dirty", at_most=1_788_264_000, as_stored=True),
            {"range": {"date_dirty": {"lte": 1_788_264_000}}},
            False,
        ),
        (Between("missing", at_least=1), None, False),
        (Not(Is("is_archived", True)), {"bool": {"must_not": [{"term": {"is_archived": True}}]}}, True),
        (
            AnyOf((Is("status", 1), Is("number", "R-20417"))),
            {"bool": {"should": [{"term": {"status": 1}}, {"term": {"number": "R-20417"}}]}},
            True,
        ),
        (
            PhoneHas("5550100142", ("mobile_phone",)),
            {"bool": {"should": [{"wildcard": {"mobile_phone": "*0142*"}}]}},
            True,
        ),
        (PhoneHas("5550100143", ("mobile_phone", "work_phone")), None, False),
        (Word("re-ROOF", ("name",)), None, True),
        (Word("whitfeld", ("name",)), None, False),
    ],
)
def test_a_clause_asks_and_checks_the_same(clause: Clause, asked: dict[str, Any] | None, holds: bool) -> None:
    if asked is not None:
        assert clause.asked() == asked
    assert clause.holds(ROW) is holds


def test_a_word_is_asked_by_all_its_runs_and_numbers_in_both_cases() -> None:
    assert Word("R-204", ("name", "number")).asked() == {
        "bool": {
            "should": [
                {"bool": {"must": [{"wildcard": {"name": "*r*"}}, {"wildcard": {"name": "*204*"}}]}},
                {"bool": {"must": [{"wildcard": {"number": "*r*"}}, {"wildcard": {"number": "*204*"}}]}},
                {"bool": {"must": [{"wildcard": {"number": "*R*"}}, {"wildcard": {"number": "*204*"}}]}},
            ]
        }
    }


def test_negated_clauses_go_beside_the_others() -> None:
    where = (Is("status", 355), Not(Is("is_archived", True)))

    assert filter_of(where) == {
        "must": [{"term": {"status": 355}}],
        "must_not": [{"term": {"is_archived": True}}],
    }
    assert filter_of(()) is None
    assert matches(where, ROW)
    assert not matches((*where, Is("status", 1)), ROW)


scalars = st.one_of(st.text(max_size=5), st.integers(-5, 5), st.booleans())
clauses: st.SearchStrategy[Clause] = st.recursive(
    st.one_of(
        st.builds(Is, st.sampled_from(["status", "number", "related.id"]), scalars),
        st.builds(Between, st.sampled_from(["date_created", "date_start"]), st.none() | st.integers(0, 2**33)),
        st.builds(Word, st.text(min_size=1, max_size=8), st.just(("name", "number"))),
    ),
    lambda inner: st.one_of(
        st.builds(Not, inner), st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=5,
)


@given(clauses)
def test_a_clause_and_its_negation_never_agree(clause: Clause) -> None:
    assert clause.holds(ROW) is not Not(clause).holds(ROW)


@given(st.lists(clauses, min_size=2, max_size=4))
def test_the_order_of_alternatives_does_not_make_another_question(alternatives: list[Clause]) -> None:
    assert AnyOf(tuple(alternatives)).form() == AnyOf(tuple(reversed(alternatives))).form()
