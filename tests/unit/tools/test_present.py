"""Records as people read them: set fields only, once, with names, amounts and moments."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools.present import date_labels, is_money, readable, without_twins
from jobnimbus_mcp.tools.shape import Projection

ROBIN = {"u1": "Robin Okafor"}
MOMENT, SAID = 1_788_264_000, "2026-09-01T12:00:00Z"


@pytest.mark.parametrize(
    ("field", "stored", "shown"),
    [
        ("total", 17_800.000000000004, 17_800),
        ("total", 0.1 + 0.2, 0.3),
        ("subtotal", "17800.0", 17_800),
        ("due", "-120.50", -120.5),
        ("total", "on request", "on request"),
        ("approved_invoice_due", 33.333333333, 33.33),
        ("price", 0.0375, 0.0375),
        ("cost", 1.00000000000002, 1),
        ("margin", 45.19999999999999, 45.2),
        ("quantity", 32.333333, 32.333333),
        ("quantity", 2.3000000000000003, 2.3),
        ("lat", 39.614827, 39.614827),
        ("number", "1042.0", "1042.0"),
        ("total", False, False),
        ("total", 0, 0),
    ],
)
def test_amounts_are_numbers_of_whole_cents_and_nothing_else_is_rounded(field: str, stored: Any, shown: Any) -> None:
    seen = readable({field: stored}, {})[field]

    assert (seen, type(seen)) == (shown, type(shown))


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (MOMENT, {"date_start": SAID}),
        (MOMENT * 1000, {"date_start": SAID}),
        (str(MOMENT), {"date_start": SAID}),
        ("next week", {"date_start": "next week"}),
        (10**17, {"date_start": 10**17}),
        (0, {}),
        ("0", {}),
        (None, {}),
    ],
)
def test_moments_are_told_in_one_spelling_and_none_is_left_out(stored: Any, shown: dict[str, Any]) -> None:
    assert readable({"date_start": stored}, {}) == shown


def test_people_are_named_beside_their_ids_where_the_name_is_known() -> None:
    row = {"owners": [{"id": "u1"}, {"id": "u9"}], "subcontractors": [{"id": "u1", "name": "As sent"}], "rules": []}

    assert readable(row, ROBIN) == {
        "owners": [{"id": "u1", "name": "Robin Okafor"}, {"id": "u9"}],
        "subcontractors": [{"id": "u1", "name": "As sent"}],
    }


def test_html_is_read_in_the_fields_that_hold_it_at_any_depth_and_nowhere_else() -> None:
    row = {"note": "<p>Call</p>", "items": [{"description": "a<br>b"}], "name": "<p>name</p>", "terms": "<p></p>"}

    assert readable(row, {}) == {"note": "Call", "items": [{"description": "a\nb"}], "name": "<p>name</p>"}


CONTACT = {"id": "c1", "type": "contact", "name": "Dana", "number": "2043", "email": "d@example.com", "subject": None}
JOB = {"id": "j1", "type": "job", "name": "Re-roof", "number": "1042", "email": None, "old_status": 3}


@pytest.mark.parametrize("verbosity", ["compact", "detailed"])
def test_linked_records_are_told_briefly_and_once_in_compact_answers_only(verbosity: str) -> None:
    row = {"jnid": "a1", "primary": JOB, "related": [JOB, CONTACT]}
    brief_job = {"id": "j1", "type": "job", "name": "Re-roof"}
    brief_contact = {"id": "c1", "type": "contact", "name": "Dana"}
    set_job = {**brief_job, "number": "1042", "old_status": 3}
    set_contact = {**brief_contact, "number": "2043", "email": "d@example.com"}

    shown = Projection(Entity.ACTIVITIES, verbosity).apply(row)

    assert (
        shown
        == {
            "compact": {"jnid": "a1", "primary": brief_job, "related": [brief_contact]},
            "detailed": {"jnid": "a1", "primary": set_job, "related": [set_job, set_contact]},
        }[verbosity]
    )


def test_links_are_all_told_where_none_is_the_primary_one() -> None:
    brief = {"id": "c1", "type": "contact", "name": "Dana"}

    assert Projection(Entity.ACTIVITIES).apply({"primary": None, "related": [CONTACT]}) == {"related": [brief]}


# -- custom fields ---------------------------------------------------------------------------------------------------

CUSTOM: dict[str, Any] = {
    "jnid": "j1",
    "is_archived": True,
    "state_text": "Charcoal",
    "cf_string_3": "Charcoal",
    "Shingle Color": "Charcoal",
    "cf_boolean_1": True,
    "Insurance Job?": True,
    "cf_date_5": MOMENT,
    "Warranty Date": MOMENT,
    "cf_long_2": 1,
    "cf_string_9": "no label",
    "cf_date_6": 0,
    "Permit Date": 0,
}


def test_a_custom_field_is_shown_once_under_its_label() -> None:
    """JobNimbus API documentation, custom fields: "Records show them twice"."""
    assert Projection(Entity.JOBS, "detailed").apply(CUSTOM) == {
        "jnid": "j1",
        "is_archived": True,
        "state_text": "Charcoal",
        "Shingle Color": "Charcoal",
        "Insurance Job?": True,
        "Warranty Date": SAID,
        "cf_long_2": 1,
        "cf_string_9": "no label",
    }


def test_a_custom_field_asked_for_by_either_name_is_shown_under_that_one() -> None:
    fields = ("cf_string_3", "Warranty Date", "cf_date_5", "Shingle Color")

    assert Projection(Entity.JOBS, "compact", fields).apply(CUSTOM) == {
        "cf_string_3": "Charcoal",
        "Warranty Date": SAID,
        "cf_date_5": SAID,
        "Shingle Color": "Charcoal",
    }


def test_of_equal_values_with_fewer_labels_none_is_hidden() -> None:
    row = {"cf_boolean_1": True, "cf_boolean_2": True, "Insurance Job?": True}

    assert without_twins(row) == (row, frozenset())


def test_equal_numbers_in_fields_that_are_no_dates_make_no_label_a_date() -> None:
    assert date_labels({"cf_date_1": 0, "Loss": 0, "cf_long_1": 0, "Count": 0}) == frozenset()
    assert date_labels({"cf_date_1": MOMENT, "Loss": MOMENT, "Since": MOMENT}) == {"Loss", "Since"}


VALUES = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["", "a", "b"]), st.none())


@given(
    st.dictionaries(st.sampled_from(["cf_string_1", "cf_string_2", "cf_long_1", "cf_boolean_1"]), VALUES),
    st.dictionaries(st.sampled_from(["Color", "Insured?", "Loss No.", "name", "status_name"]), VALUES),
)
def test_hiding_twins_hides_no_value_and_none_of_jobnimbuss_own_fields(
    stored: dict[str, Any], others: dict[str, Any]
) -> None:
    row = {**stored, **others}

    kept, _ = without_twins(row)

    assert others.items() <= kept.items()
    for name in set(row) - set(kept):
        twins = [label for label in ("Color", "Insured?", "Loss No.") if label in kept]
        assert any(kept[label] is row[name] or kept[label] == row[name] for label in twins), name


def test_money_is_told_from_other_numbers_by_the_fields_name() -> None:
    named = {"total", "approved_invoice_due", "last_estimate", "price", "total_line_item_cost", "gross_profit"}
    others = {"number", "size", "task_count", "priority", "tax_rate", "cf_double_1", "date_paid_in_full", "quantity"}

    assert {name for name in named | others if is_money(name)} == named


@pytest.mark.parametrize("huge", [1e16, 1e20, 1e30, -1e19, 1e308])
def test_a_number_no_account_can_mean_does_not_keep_the_record_from_being_written(huge: float) -> None:
    row = {"total": huge, "price": huge, "date_due": huge, "size": huge}

    assert orjson.loads(orjson.dumps(readable(row, {}))) == {
        name: value for name, value in row.items() if name != "date_due" or huge > 0
    }
