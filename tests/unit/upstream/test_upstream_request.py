"""How a question is put: parameters spelled out, ids checked, one URL's length kept."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Between, Is, Not, Sort, Where, Word, filter_of
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.upstream.request import (
    FILTER_CHARS_MAX,
    Request,
    credential_check,
    page_request,
    record_request,
    scan_filter,
    whole_request,
)


@pytest.mark.parametrize(
    ("entity", "path"),
    [(Entity.JOBS, "/jobs/abc1"), (Entity.ESTIMATES, "/v2/estimates/abc1"), (Entity.ACTIVITIES, "/activities/abc1")],
)
def test_a_record_is_asked_for_by_path_alone(entity: Entity, path: str) -> None:
    assert record_request(entity, "abc1") == Request(path, ())


def test_an_attachment_is_asked_for_as_a_list_of_one_because_its_path_gives_the_file() -> None:
    request = record_request(Entity.ATTACHMENTS, "abc1")
    assert request.path == "/files"
    assert dict(request.params)["filter"] == '{"must":[{"term":{"jnid":"abc1"}}]}'


@pytest.mark.parametrize("jnid", ["", "a/b", "..", "a?b", "a%2fb", "a b", "a" * 65, "é", "a\n"])
def test_what_is_no_id_never_reaches_a_path(jnid: str) -> None:
    with pytest.raises(InvalidInput):
        record_request(Entity.JOBS, jnid)


@given(st.text())
def test_a_record_path_holds_letters_and_digits_only(text: str) -> None:
    try:
        path = record_request(Entity.JOBS, text).path
    except InvalidInput:
        return
    assert path == f"/jobs/{text}"
    assert text.isascii()
    assert text.isalnum()


def test_a_page_spells_out_size_offset_order_and_a_compact_filter() -> None:
    where = (Is("status", 12), Between("date_created", 100, None), Not(Is("is_archived", True)))
    created = '{"range":{"date_created":{"gte":100}}}'
    request = page_request(Entity.JOBS, where, Sort("date_updated", descending=False), offset=200, size=100)
    assert request == Request(
        "/jobs",
        (
            ("size", "100"),
            ("from", "200"),
            ("sort_field", "date_updated"),
            ("sort_direction", "asc"),
            ("filter", '{"must":[{"term":{"status":12}},' + created + '],"must_not":[{"term":{"is_archived":true}}]}'),
        ),
    )


def test_a_page_without_conditions_has_no_filter() -> None:
    request = page_request(Entity.TASKS, (), Sort(), offset=0, size=1)
    assert request.params == (
        ("size", "1"),
        ("from", "0"),
        ("sort_field", "date_created"),
        ("sort_direction", "desc"),
    )


def test_users_and_settings_are_asked_for_plainly() -> None:
    assert whole_request(Entity.USERS) == Request("/account/users", ())
    assert whole_request(Entity.SETTINGS) == Request("/account/settings", ())


def test_the_credential_check_is_the_cheapest_question() -> None:
    assert credential_check() == Request("/contacts", (("size", "1"), ("fields", "jnid")))


def test_the_parameters_stay_out_of_the_repr() -> None:
    request = page_request(Entity.CONTACTS, (Is("email", "dana@example.com"),), Sort(), offset=0, size=1)
    assert "dana" not in repr(request)


def test_conditions_too_long_for_one_url_are_refused_on_a_page() -> None:
    where = tuple(Word(f"word{n}", ("display_name", "company", "email", "number")) for n in range(60))
    with pytest.raises(InvalidInput):
        page_request(Entity.CONTACTS, where, Sort(), offset=0, size=100)


def encoded_length(where: Where) -> int:
    return len(quote(json.dumps(filter_of(where), separators=(",", ":")), safe=""))


@given(st.lists(st.text(min_size=1, max_size=60), max_size=60, unique=True))
def test_a_scan_asks_each_of_its_clauses_that_still_fits(words: list[str]) -> None:
    where: Where = tuple(Word(word, ("display_name", "company", "number")) for word in words)
    asked = scan_filter(where)
    assert list(asked) == [clause for clause in where if clause in asked]
    for position, clause in enumerate(where):
        before = tuple(earlier for earlier in where[:position] if earlier in asked)
        assert (clause in asked) is (encoded_length((*before, clause)) <= FILTER_CHARS_MAX)
    request = page_request(Entity.CONTACTS, asked, Sort(), offset=0, size=500)
    assert ("filter" in dict(request.params)) is bool(asked)


def test_a_scan_of_ordinary_length_asks_all_its_clauses() -> None:
    where = tuple(Word(word, ("name", "number", "address_line1", "description")) for word in ("hail", "Elm", "2043"))
    assert scan_filter(where) == where
