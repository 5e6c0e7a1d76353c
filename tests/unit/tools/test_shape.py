"""What an answer shows of a record, and how it is cut to a budget."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools.fields import COMPACT, SUMMARY
from jobnimbus_mcp.tools.shape import Projection, fit, fit_one, size_bytes

JOB: dict[str, Any] = {
    "jnid": "mjob1",
    "number": "1042",
    "name": "Whitfield - Re-roof",
    "description": "",
    "date_created": 1_788_264_000,
    "date_start": 0,
    "cf_date_5": 1_788_264_000_000,
    "approved_invoice_due": 0,
    "is_archived": False,
    "tags": [],
    "primary": {"id": "c1", "name": "Dana", "email": None},
    "related": [{"id": "c1", "name": "Dana"}, {"id": "j2"}],
    "Phone No.": "555",
    "rules": [],
}


def test_raw_is_the_record_untouched() -> None:
    assert Projection(Entity.JOBS, "raw").apply(JOB) == JOB


def test_detailed_drops_what_is_not_set_and_dates_can_be_read() -> None:
    assert Projection(Entity.JOBS, "detailed").apply(JOB) == {
        "jnid": "mjob1",
        "number": "1042",
        "name": "Whitfield - Re-roof",
        "date_created": "2026-09-01T12:00:00Z",
        "cf_date_5": "2026-09-01T12:00:00Z",
        "approved_invoice_due": 0,
        "is_archived": False,
        "primary": {"id": "c1", "name": "Dana"},
        "related": [{"id": "c1", "name": "Dana"}, {"id": "j2"}],
        "Phone No.": "555",
    }


def test_each_level_shows_no_more_than_the_next() -> None:
    levels = [set(Projection(Entity.JOBS, level).apply(JOB)) for level in ("summary", "compact", "detailed")]

    assert levels[0] < levels[1] < levels[2]


def test_every_kind_has_its_fields_and_the_id_among_them() -> None:
    assert set(SUMMARY) == set(COMPACT)
    for entity, fields in SUMMARY.items():
        assert {"jnid", "id"} & set(fields), entity
        assert {"jnid", "id"} & set(COMPACT[entity]), entity


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (("number",), {"number": "1042"}),
        (("primary.name", "primary.id"), {"primary": {"name": "Dana", "id": "c1"}}),
        (("related.id", "related.name"), {"related": [{"id": "c1", "name": "Dana"}, {"id": "j2"}]}),
        (("Phone No.",), {"Phone No.": "555"}),
        (("date_created",), {"date_created": "2026-09-01T12:00:00Z"}),
        (("nothing", "name.too.deep"), {}),
    ],
)
def test_fields_are_picked_by_dotted_paths(fields: tuple[str, ...], shown: dict[str, Any]) -> None:
    assert Projection(Entity.JOBS, "compact", fields).apply(JOB) == shown


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=50), max_size=4), max_size=8), st.integers(0, 400)
)
def test_as_many_rows_are_shown_as_fit_and_one_more_would_not(rows: list[dict[str, Any]], budget: int) -> None:
    shown = fit(rows, budget)

    if shown:
        assert len(orjson.dumps(rows[:shown])) <= budget
    if shown < len(rows):
        assert len(orjson.dumps(rows[: shown + 1])) > budget


def test_a_record_too_large_is_cut_to_compact_and_says_what_is_missing() -> None:
    large = {**JOB, "cf_string_1": "x" * 5_000}

    shown, omitted = fit_one(large, Projection(Entity.JOBS, "detailed"), 1_000)

    assert "cf_string_1" in omitted
    assert shown == Projection(Entity.JOBS, "compact").apply(JOB)


@given(st.text(min_size=2_000, max_size=6_000), st.integers(300, 3_000))
def test_even_compact_fields_are_shortened_to_the_budget(text: str, budget: int) -> None:
    shown, omitted = fit_one({**JOB, "description": text}, Projection(Entity.JOBS, "compact"), budget)

    assert size_bytes(shown) <= budget
    if shown.get("description") != text:
        assert "description" in omitted
    assert shown["jnid"] == "mjob1"
