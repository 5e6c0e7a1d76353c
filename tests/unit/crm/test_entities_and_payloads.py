"""Spellings of kinds and actions, ids, dates in seconds or milliseconds, dotted paths, phone digits."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.crm.entities import Action, Entity, action_named, entity_named, is_jnid
from jobnimbus_mcp.crm.payloads import digits_of, epoch_s, is_date_field, rfc3339, values_at


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("job", Entity.JOBS),
        ("Jobs", Entity.JOBS),
        ("work order", Entity.WORKORDERS),
        ("Work Orders", Entity.WORKORDERS),
        ("material_order", Entity.MATERIALORDERS),
        ("note", Entity.ACTIVITIES),
        ("notes", Entity.ACTIVITIES),
        ("activity", Entity.ACTIVITIES),
        ("activities", Entity.ACTIVITIES),
        ("file", Entity.ATTACHMENTS),
        ("attachment", Entity.ATTACHMENTS),
        ("calendar", Entity.CALENDAR),
        ("settings", Entity.SETTINGS),
        ("jobber", None),
        ("", None),
    ],
)
def test_kinds_are_known_in_every_usual_spelling(text: str, entity: Entity | None) -> None:
    assert entity_named(text) is entity


def test_every_kind_knows_its_own_name() -> None:
    assert all(entity_named(entity.value) is entity for entity in Entity)


@pytest.mark.parametrize(
    ("text", "action"),
    [("created", Action.CREATED), ("Modified", Action.UPDATED), ("deleted", Action.DELETED), ("exploded", None)],
)
def test_actions_are_known_by_their_usual_words(text: str, action: Action | None) -> None:
    assert action_named(text) is action


@pytest.mark.parametrize("text", ["", "a/b", "../x", "a b", "a?b", "a%2Fb", "a\n", "é", "x" * 65])
def test_nothing_but_letters_and_digits_is_an_id(text: str) -> None:
    assert not is_jnid(text)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_788_264_000, 1_788_264_000),
        (1_788_264_000_123, 1_788_264_000),
        ("1788264000", 1_788_264_000),
        (0, None),
        (None, None),
        ("", None),
        (True, None),
        ("soon", None),
        ("9" * 400, None),
    ],
)
def test_dates_are_read_in_all_their_spellings(value: object, seconds: int | None) -> None:
    assert epoch_s(value) == seconds


def test_date_fields_are_told_by_their_names() -> None:
    assert is_date_field("date_created")
    assert is_date_field("cf_date_5")
    assert is_date_field("last_invoice_date_created")
    assert is_date_field("first_payment_date")
    assert not is_date_field("updated_by")
    assert not is_date_field("all_day_start_date")
    assert not is_date_field("candidate")


def test_rfc3339_is_utc() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"


def test_dotted_paths_go_through_lists() -> None:
    row = {"related": [{"id": "a"}, {"id": "b"}, "odd"], "primary": {"id": "c"}, "tags": ["x", "y"], "none": None}

    assert list(values_at(row, "related.id")) == ["a", "b"]
    assert list(values_at(row, "primary.id")) == ["c"]
    assert list(values_at(row, "tags")) == ["x", "y"]
    assert list(values_at(row, "none")) == []
    assert list(values_at(row, "none.id")) == []


@pytest.mark.parametrize("text", ["5550100142", "(555) 010-0142", "+1 555.010.0142", "1-555-010-0142"])
def test_one_number_has_the_same_digits_in_every_format(text: str) -> None:
    assert digits_of(text) == "5550100142"
