"""What an answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import (
    UpstreamError,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreadable,
)
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.response import EXCERPT_CHARS, interpret, record_of, rows_of, whole_of

NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT
KEY = "k3yk3yk3yk3yk3yk"
JSON = {"content-type": "application/json; charset=utf-8"}


def read(status: int, body: bytes | str, headers: dict[str, str] | None = None) -> Any:
    raw = body.encode() if isinstance(body, str) else body
    return interpret(RawAnswer(status, JSON if headers is None else headers, raw), now=NOW, credential=KEY)


def error_of(status: int, body: bytes | str, headers: dict[str, str] | None = None) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(status, body, headers)
    return caught.value


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", '{"a":1}'),
        ("application/json; charset=utf-8", '\n {"a":1} '),
        ("APPLICATION/JSON", '\ufeff{"a":1}'),
        ("application/problem+json", '{"a":1}'),
        ("text/plain", '{"a":1}'),
        ("", '{"a":1}'),
    ],
)
def test_json_is_read_whatever_it_is_called(media: str, body: str) -> None:
    assert read(200, body, {"content-type": media} if media else {}) == {"a": 1}


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("text/html", "<!doctype html><html></html>"),
        ("text/html", '{"a":1}'),
        ("application/json", "<html>"),
        ("image/jpeg", '{"a":1}'),
        ("application/octet-stream", "{}"),
        ("application/json", '{"count":3,"results":[{"jnid":"a'),
        ("application/json", ""),
        ("application/json", "NaN"),
        ("application/json", "[" * 5_000),
        ("application/json", b'{"a":"\xff"}'),
        ("text/plain", "Not Found"),
    ],
)
def test_a_good_status_with_anything_else_is_unreadable(media: str, body: str | bytes) -> None:
    error = error_of(200, body, {"content-type": media})
    assert type(error) is UpstreamUnreadable
    assert error.retryable


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, UpstreamUnreadable),
        (302, UpstreamUnreadable),
        (304, UpstreamUnreadable),
        (400, UpstreamRejected),
        (401, UpstreamUnauthorized),
        (403, UpstreamForbidden),
        (404, UpstreamNotFound),
        (405, UpstreamRejected),
        (408, UpstreamTimeout),
        (414, UpstreamRejected),
        (422, UpstreamRejected),
        (429, UpstreamRateLimited),
        (500, UpstreamServerError),
        (502, UpstreamServerError),
        (503, UpstreamServerError),
        (504, UpstreamServerError),
        (599, UpstreamServerError),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[UpstreamError]) -> None:
    assert type(error_of(status, "")) is kind


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("Mon, 21 Sep 2026 14:13:30 GMT", 10.0), ("later", None)])
def test_retry_after_is_kept(status: int, header: str, seconds: float | None) -> None:
    assert error_of(status, "", {"retry-after": header}).retry_after_s == seconds


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"status":400,"body":"from body","message":"from message"}', "from body"),
        ('{"message":"from message","error":"from error"}', "from message"),
        ('{"error":"from error","errors":["x"]}', "from error"),
        ('{"errors":[{"message":"inner"}],"title":"t"}', "inner"),
        ('{"title":"from title","detail":"d"}', "from title"),
        ('{"detail":"from detail"}', "from detail"),
        ('"a bare string"', "a bare string"),
        ("plain text", "plain text"),
        ("two\nlines\x00\x1b[31m\u202eand a trick", "two lines [31m and a trick"),
    ],
)
def test_a_refused_question_quotes_what_jobnimbus_said(body: str, said: str) -> None:
    assert error_of(400, body).public_message == f'JobNimbus refused the question with status 400: "{said}".'


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"other":"x"}', "<html>secret</html>", '{"body":"<p>x</p>"}', f"bad {KEY}"]
)
def test_a_refused_question_quotes_nothing_that_is_no_text_for_people(body: str) -> None:
    assert error_of(400, body).public_message == "JobNimbus refused the question with status 400."


@given(st.sampled_from([400, 405, 422]), st.one_of(st.binary(max_size=2_000), st.text(max_size=2_000).map(str.encode)))
def test_an_excerpt_is_short_and_on_one_line(status: int, body: bytes) -> None:
    message = error_of(status, body).public_message
    assert len(message) <= EXCERPT_CHARS + 60
    assert message.isprintable()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 302])
def test_other_errors_say_nothing_of_the_body(status: int) -> None:
    assert "secret" not in error_of(status, '{"body":"secret"}', JSON | {"location": "https://secret"}).public_message


@pytest.mark.parametrize(
    ("entity", "value", "rows", "count"),
    [
        (Entity.JOBS, {"count": 7, "results": [{"jnid": "a"}]}, [{"jnid": "a"}], 7),
        (Entity.ACTIVITIES, {"count": 1, "activity": [{"jnid": "a"}]}, [{"jnid": "a"}], 1),
        (Entity.ACTIVITIES, {"count": 1, "results": [{"jnid": "a"}]}, [{"jnid": "a"}], 1),
        (Entity.ATTACHMENTS, {"other": [], "files": [{"jnid": "a"}], "count": "3"}, [{"jnid": "a"}], 3),
        (Entity.USERS, {"users": [{"id": "u"}], "date_updated": 1}, [{"id": "u"}], None),
        (Entity.JOBS, [{"jnid": "a"}], [{"jnid": "a"}], None),
        (Entity.JOBS, {"results": []}, [], None),
        (Entity.JOBS, {"count": None, "results": []}, [], None),
        (Entity.JOBS, {"count": -1, "results": []}, [], None),
        (Entity.JOBS, {"count": True, "results": []}, [], None),
        (Entity.JOBS, {"count": "many", "results": []}, [], None),
        (Entity.JOBS, {"count": 0, "results": []}, [], 0),
    ],
)
def test_rows_and_count_come_out_of_every_envelope(
    entity: Entity, value: Any, rows: list[dict[str, Any]], count: int | None
) -> None:
    assert rows_of(entity, value) == (rows, count)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"count": 3},
        {"status": 401, "body": "Authentication required"},
        {"count": 1, "results": [3]},
        {"count": 2, "results": [{"jnid": "a"}, None]},
        "text",
        7,
        None,
    ],
)
def test_a_list_answer_without_a_list_of_records_is_unreadable(value: Any) -> None:
    with pytest.raises(UpstreamUnreadable):
        rows_of(Entity.JOBS, value)


def test_a_record_must_be_the_one_asked_for() -> None:
    assert record_of(Entity.JOBS, "a", {"jnid": "a", "x": 1}) == {"jnid": "a", "x": 1}
    others: list[Any] = [{"jnid": "b"}, {}, [], "a", None, {"count": 1, "results": [{"jnid": "a"}]}]
    for value in others:
        with pytest.raises(UpstreamUnreadable):
            record_of(Entity.JOBS, "a", value)


def test_an_attachment_comes_out_of_a_list_of_one() -> None:
    assert record_of(Entity.ATTACHMENTS, "a", {"count": 1, "files": [{"jnid": "a"}]}) == {"jnid": "a"}
    with pytest.raises(UpstreamNotFound):
        record_of(Entity.ATTACHMENTS, "a", {"count": 0, "files": []})
    with pytest.raises(UpstreamUnreadable):
        record_of(Entity.ATTACHMENTS, "a", {"count": 9, "files": [{"jnid": "b"}]})


def test_users_come_as_rows_and_settings_as_they_are() -> None:
    users = {"users": [{"id": "u"}], "date_updated": 1}
    settings = {"workflows": [{"id": 1}], "sources": []}
    assert whole_of(Entity.USERS, users) == {"rows": [{"id": "u"}]}
    assert whole_of(Entity.SETTINGS, settings) == settings
    others: list[Any] = [{}, [], {"status": 500}]
    for value in others:
        with pytest.raises(UpstreamUnreadable):
            whole_of(Entity.SETTINGS, value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["count", "results", "files", "x"]), inner),
    )
)
def test_any_json_is_rows_or_unreadable(value: Any) -> None:
    try:
        rows, count = rows_of(Entity.JOBS, value)
    except UpstreamUnreadable:
        return
    assert all(isinstance(row, dict) for row in rows)
    assert count is None or count >= 0
    assert json.dumps(rows)
