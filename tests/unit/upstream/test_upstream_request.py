"""How a question is put: parameters spelled out, ids checked, one URL's length kept."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.catalog import CATALOG, SETTINGS_PARTS, Deletion
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.query import Between, Is, Not, Sort, Where, Word, filter_of
from jobnimbus_mcp.crm.writes import Link, Upload, Write
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.upstream.request import (
    FILTER_CHARS_MAX,
    Base,
    Repeat,
    Request,
    content_request,
    create_request,
    credential_check,
    delete_request,
    fetch_request,
    page_request,
    record_request,
    scan_filter,
    setting_request,
    update_request,
    upload_base64,
    upload_bytes,
    upload_complete,
    upload_from_url,
    upload_start,
    whole_request,
    write_request,
)


@pytest.mark.parametrize(
    ("entity", "path"),
    [(Entity.JOBS, "/jobs/abc1"), (Entity.ESTIMATES, "/v2/estimates/abc1"), (Entity.ACTIVITIES, "/activities/abc1")],
)
def test_a_record_is_asked_for_by_path_alone(entity: Entity, path: str) -> None:
    assert record_request(entity, "abc1") == Request(path, ())


@pytest.mark.parametrize(
    ("entity", "path"),
    [(Entity.ATTACHMENTS, "/files"), (Entity.PAYMENTS, "/payments"), (Entity.BUDGETS, "/budgets")],
)
def test_a_kind_without_a_path_of_its_own_is_asked_for_as_a_list_of_one(entity: Entity, path: str) -> None:
    """Source: JobNimbus API documentation: the path of a file gives its content, and payments and budgets have none."""
    request = record_request(entity, "abc1")
    assert request.path == path
    assert dict(request.params)["filter"] == '{"must":[{"term":{"jnid":"abc1"}}]}'


@pytest.mark.parametrize("jnid", ["7B1C0B52-0000-4000-8000-0000000000E1", "a-b", "abc1"])
def test_an_estimate_may_have_an_id_with_hyphens(jnid: str) -> None:
    assert record_request(Entity.ESTIMATES, jnid) == Request(f"/v2/estimates/{jnid}")
    write = Write(Entity.ESTIMATES, Action.DELETED, jnid)
    assert delete_request(write).path == f"/v2/estimates/{jnid}"


@pytest.mark.parametrize(
    ("entity", "jnid"),
    [
        (Entity.INVOICES, "7B1C0B52-0000-4000-8000-0000000000E1"),
        (Entity.ESTIMATES, "-a"),
        (Entity.ESTIMATES, "a" * 65),
        (Entity.ESTIMATES, "a/b"),
        (Entity.ESTIMATES, "a.b"),
        (Entity.ESTIMATES, ""),
        (Entity.ESTIMATES, "a-b\n"),
    ],
)
def test_no_other_id_has_hyphens_and_none_has_more_than_that(entity: Entity, jnid: str) -> None:
    with pytest.raises(InvalidInput):
        record_request(entity, jnid)
    with pytest.raises(InvalidInput):
        delete_request(Write(entity, Action.DELETED, jnid))


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
    assert whole_request(Entity.SETTINGS, "groups") == Request("/account/settings", (("field", "groups"),))
    assert whole_request(Entity.PRODUCTS, "uoms") == Request("/utility/uoms", ())
    with pytest.raises(KeyError):
        whole_request(Entity.JOBS)


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


# ---- changes

LINK = (Link("j1", Entity.JOBS),)
FILE = Upload(
    "roof.jpg", "image/jpeg", 2, (*LINK, Link("c1", Entity.CONTACTS)), description="After", content=b"\x00jpg"
)


def told(request: Request) -> tuple[str, str, Any]:
    return request.method, request.path, None if request.body is None else json.loads(request.body)


def test_every_kind_that_can_be_made_changed_or_deleted_is_by_its_own_path() -> None:
    """Source: JobNimbus API documentation, endpoint table."""
    made = {}
    for entity, facts in CATALOG.items():
        if facts.writes.create:
            made[entity, "create"] = told(create_request(Write(entity, Action.CREATED)))[:2]
        if facts.writes.update:
            made[entity, "update"] = told(update_request(Write(entity, Action.UPDATED, "r1"), {}))[:2]
        if facts.writes.delete is not Deletion.NONE:
            made[entity, "delete"] = told(delete_request(Write(entity, Action.DELETED, "r1")))[:2]
    plain = {Entity.JOBS: "/jobs", Entity.CONTACTS: "/contacts", Entity.TASKS: "/tasks"}
    documents = {
        Entity.ESTIMATES: "/v2/estimates",
        Entity.INVOICES: "/v2/invoices",
        Entity.PRODUCTS: "/v2/products",
        Entity.WORKORDERS: "/v2/workorders",
        Entity.MATERIALORDERS: "/v2/materialorders",
    }
    expected = {
        (Entity.ACTIVITIES, "create"): ("POST", "/activities"),
        (Entity.ACTIVITIES, "update"): ("PUT", "/activities/r1"),
        (Entity.ATTACHMENTS, "create"): ("POST", "/files"),
        (Entity.ATTACHMENTS, "update"): ("PUT", "/files/r1"),
        (Entity.ATTACHMENTS, "delete"): ("DELETE", "/files/r1"),
        (Entity.PAYMENTS, "create"): ("POST", "/api2/v2/payments"),
    }
    for entity, path in (plain | documents).items():
        expected[entity, "create"] = ("POST", path)
        expected[entity, "update"] = expected[entity, "delete"] = ("PUT", f"{path}/r1")
    assert made == expected


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("workflow", "/account/workflow"),
        ("status", "/account/workflow/24/status"),
        ("source", "/account/leadsource"),
        ("custom_field", "/account/customfield"),
        ("file_type", "/account/filetype"),
        ("task_type", "/account/tasktype"),
        ("activity_type", "/account/activitytype"),
        ("location", "/account/location"),
    ],
)
def test_every_part_of_the_settings_has_its_path(part: str, path: str) -> None:
    assert part in SETTINGS_PARTS
    write = Write(Entity.SETTINGS, Action.CREATED, "24", fields={"name": "n"}, part=part)
    assert told(setting_request(write)) == ("POST", path, {"name": "n"})


@pytest.mark.parametrize("workflow", ["", "7/8", "seven", "٣", "7\n", "1" * 13])
def test_a_status_needs_the_number_of_its_workflow(workflow: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        write_request(Write(Entity.SETTINGS, Action.CREATED, workflow, part="status"), None)
    assert caught.value.field == "workflow_id"


def test_only_questions_and_bytes_are_sent_again_after_any_failure() -> None:
    write = Write(Entity.JOBS, Action.UPDATED, "r1")
    assert record_request(Entity.JOBS, "r1").repeat is Repeat.ANY_FAILURE
    assert upload_bytes("https://x.example/", FILE).repeat is Repeat.ANY_FAILURE
    changes = [
        write_request(write, None),
        write_request(Write(Entity.JOBS, Action.CREATED), None),
        write_request(Write(Entity.ATTACHMENTS, Action.DELETED, "r1"), None),
        write_request(Write(Entity.SETTINGS, Action.CREATED, part="source"), None),
        upload_start(FILE),
        upload_complete("f1"),
        upload_base64(FILE),
        upload_from_url(FILE),
    ]
    assert {request.repeat for request in changes} == {Repeat.IF_UNDONE}
    assert all(request.writes for request in changes)


def test_an_upload_is_begun_filled_and_completed() -> None:
    start, put, complete = upload_start(FILE), upload_bytes("https://s3.example/x?sig=1", FILE), upload_complete("f1")
    body = {"related": ["j1", "c1"], "type": 2, "filename": "roof.jpg", "description": "After", "isPrivate": False}
    assert told(start) == ("POST", "/files/v1/uploads/url", body)
    assert (put.method, put.url, put.body, put.media, put.base) == (
        "PUT",
        "https://s3.example/x?sig=1",
        b"\x00jpg",
        "image/jpeg",
        Base.ABSOLUTE,
    )
    assert (complete.method, complete.path, complete.params) == (
        "POST",
        "/files/v1/uploads/f1/complete",
        (("generateThumbnail", "true"),),
    )
    assert (start.base, complete.base) == (Base.UPLOAD, Base.UPLOAD)
    with pytest.raises(InvalidInput):
        upload_complete("../f1")


def test_a_file_goes_in_one_body_or_is_fetched_by_jobnimbus() -> None:
    assert told(upload_base64(FILE)) == (
        "POST",
        "/files",
        {
            "data": "AGpwZw==",
            "filename": "roof.jpg",
            "content_type": "image/jpeg",
            "description": "After",
            "type": 2,
            "related": ["j1", "c1"],
            "persist": True,
            "is_active": True,
            "is_private": False,
        },
    )
    remote = Upload("r.pdf", "application/pdf", 1, LINK, source_url="https://x.example/r.pdf", is_private=True)
    assert told(upload_from_url(remote)) == (
        "POST",
        "/files/fromUrl",
        {
            "related": ["j1"],
            "type": 1,
            "url": "https://x.example/r.pdf",
            "name": "r.pdf",
            "description": "",
            "is_private": True,
        },
    )


def test_the_content_of_a_file_is_asked_for_by_its_bare_id() -> None:
    assert content_request("file-abc1", bytes_max=9) == content_request("abc1", bytes_max=9)
    assert content_request("abc1", bytes_max=9) == Request("/files/abc1", bytes_max=9, slow=True)
    for jnid in ("file-", "a/b", "file-../x"):
        with pytest.raises(InvalidInput):
            content_request(jnid, bytes_max=9)


def test_bodies_and_signed_urls_stay_out_of_the_repr() -> None:
    write = Write(Entity.JOBS, Action.UPDATED, "r1", fields={"name": "Whitfield"})
    shown = [write_request(write, None), fetch_request("https://x.example/?sig=Whitfield", bytes_max=1)]
    assert "Whitfield" not in repr(shown)
