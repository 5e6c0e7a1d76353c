"""The filter grammar: what each clause matches, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobnimbus_mcp.simulator import Refusal
from jobnimbus_mcp.simulator.filters import compile_filter

NOW = 1_790_000_000.0
RECORD: dict[str, Any] = {
    "jnid": "abc123",
    "number": "R-20417",
    "status": 355,
    "status_name": "In Production",
    "first_name": "Dana",
    "last_name": "O'Brien",
    "email": "Dana.Whitfield@example.com",
    "mobile_phone": "(203) 555-0142",
    "home_phone": "2035550199",
    "is_archived": False,
    "is_lead": True,
    "date_created": NOW - 86_400,
    "date_start": 0,
    "date_end": None,
    "tags": ["Insurance", "steep roof"],
    "items": [],
    "description": "",
    "related": [{"id": "job1", "name": "Whitfield - Re-roof"}, {"id": "con1", "name": None}],
    "primary": {"id": "job1", "type": "job", "number": "22-1275"},
    "cf_string_7": "CLM-1",
    "Claim Number:": "CLM-1",
    "zip": "06902-1234",
}


def matches(query: Any) -> bool:
    return compile_filter(json.dumps(query), NOW).matches(RECORD)


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        # term: ids, numbers and truth values are exact
        ({"term": {"jnid": "abc123"}}, True),
        ({"term": {"jnid": "ABC123"}}, False),
        ({"term": {"number": "R-20417"}}, True),
        ({"term": {"number": "r-20417"}}, False),
        ({"term": {"number": "20417"}}, False),
        ({"term": {"status": 355}}, True),
        ({"term": {"status": "355"}}, True),
        ({"term": {"status": 356}}, False),
        ({"term": {"status": {"value": 355}}}, True),
        ({"term": {"is_lead": True}}, True),
        ({"term": {"is_lead": "true"}}, True),
        ({"term": {"is_archived": True}}, False),
        ({"term": {"is_archived": False}}, True),
        ({"term": {"is_archived": 0}}, False),
        ({"term": {"date_start": 0}}, True),
        ({"term": {"date_start": False}}, False),
        ({"term": {"date_end": 0}}, False),
        # term: text is tokenised and lower-cased, the asked word is not
        ({"term": {"first_name": "dana"}}, True),
        ({"term": {"first_name": "Dana"}}, False),
        ({"term": {"status_name": "production"}}, True),
        ({"term": {"status_name": "Production"}}, False),
        ({"term": {"status_name": "in production"}}, False),
        ({"term": {"last_name": "o'brien"}}, True),
        ({"term": {"last_name": "brien"}}, False),
        ({"term": {"zip": "06902"}}, True),
        ({"term": {"zip": "06902-1234"}}, False),
        ({"term": {"tags": "insurance"}}, True),
        ({"term": {"tags": "roof"}}, True),
        ({"term": {"description": ""}}, False),
        # term: e-mail and phone match whole as well as by token
        ({"term": {"email": "dana.whitfield@example.com"}}, True),
        ({"term": {"email": "Dana.Whitfield@example.com"}}, False),
        ({"term": {"email": "example.com"}}, True),
        ({"term": {"email": "dana"}}, False),
        ({"term": {"home_phone": "2035550199"}}, True),
        ({"term": {"mobile_phone": "2035550142"}}, False),
        ({"term": {"mobile_phone": "0142"}}, True),
        ({"term": {"mobile_phone": "(203) 555-0142"}}, True),
        # dotted paths, through objects and lists of objects
        ({"term": {"related.id": "con1"}}, True),
        ({"term": {"related.id": "con2"}}, False),
        ({"term": {"primary.id": "job1"}}, True),
        ({"term": {"primary.number": "22-1275"}}, True),
        ({"term": {"related.name": "whitfield"}}, True),
        ({"term": {"primary": "job1"}}, False),
        # unknown fields, and labels of custom fields, match nothing
        ({"term": {"no_such_field": 1}}, False),
        ({"term": {"cf_string_7": "clm"}}, True),
        ({"term": {"Claim Number:": "clm"}}, False),
        # terms
        ({"terms": {"jnid": ["x", "abc123"]}}, True),
        ({"terms": {"status": [1, 355]}}, True),
        ({"terms": {"status_name": ["approved", "production"]}}, True),
        ({"terms": {"jnid": []}}, False),
        # range
        ({"range": {"date_created": {"gte": NOW - 86_400}}}, True),
        ({"range": {"date_created": {"gt": NOW - 86_400}}}, False),
        ({"range": {"date_created": {"lte": NOW - 86_400}}}, True),
        ({"range": {"date_created": {"lt": NOW - 86_400}}}, False),
        ({"range": {"date_created": {"gte": NOW - 90_000, "lt": NOW}}}, True),
        ({"range": {"date_created": {"gte": str(int(NOW - 90_000))}}}, True),
        ({"range": {"date_start": {"gte": 0, "lte": 0}}}, True),
        ({"range": {"date_end": {"lte": NOW}}}, False),
        ({"range": {"no_such_field": {"gte": 0}}}, False),
        ({"range": {"is_lead": {"gte": 0}}}, False),
        ({"range": {"date_created": {"gte": "now-2d"}}}, True),
        ({"range": {"date_created": {"gte": "now-23h"}}}, False),
        ({"range": {"date_created": {"lte": "now-1d+1h"}}}, True),
        ({"range": {"date_created": {"lte": "now+1h"}}}, True),
        ({"range": {"date_created": {"gte": "now-1d/d", "lte": "now-1d/d"}}}, True),
        ({"range": {"date_created": {"lt": "now-1d/d"}}}, False),
        ({"range": {"date_created": {"gte": "now-1M"}}}, True),
        ({"range": {"last_name": {"gte": "n", "lt": "p"}}}, True),
        ({"range": {"last_name": {"gte": "p"}}}, False),
        # prefix and wildcard: tokens, and keywords in either case
        ({"prefix": {"first_name": "dan"}}, True),
        ({"prefix": {"first_name": "Dan"}}, False),
        ({"prefix": {"status_name": "pro"}}, True),
        ({"prefix": {"number": "r-2"}}, True),
        ({"prefix": {"number": "R-2"}}, True),
        ({"prefix": {"email": "dana.wh"}}, True),
        ({"wildcard": {"related.name": "*hitf*"}}, True),
        ({"wildcard": {"related.name": "whitfield - re*"}}, False),
        ({"wildcard": {"number": "*20417"}}, True),
        ({"wildcard": {"number": {"value": "r-2041?"}}}, True),
        ({"wildcard": {"number": "*2041"}}, False),
        ({"wildcard": {"mobile_phone": "*0142"}}, True),
        # match and match_phrase analyse the words asked for
        ({"match": {"status_name": "PRODUCTION of"}}, True),
        ({"match": {"status_name": {"query": "in progress", "operator": "and"}}}, False),
        ({"match": {"status_name": {"query": "production in", "operator": "and"}}}, True),
        ({"match": {"status": 355}}, True),
        ({"match_phrase": {"status_name": "In Production"}}, True),
        ({"match_phrase": {"status_name": "Production In"}}, False),
        ({"match_phrase": {"related.name": "re-roof"}}, True),
        ({"match_phrase": {"mobile_phone": "555 0142"}}, True),
        ({"match_phrase": {"number": "R-20417"}}, True),
        ({"match_phrase": {"number": "20417"}}, False),
        # exists, ids, nested, match_all
        ({"exists": {"field": "primary"}}, True),
        ({"exists": {"field": "primary.number"}}, True),
        ({"exists": {"field": "date_end"}}, False),
        ({"exists": {"field": "items"}}, False),
        ({"exists": {"field": "description"}}, True),
        ({"ids": {"values": ["abc123"]}}, True),
        ({"ids": {"values": ["other"]}}, False),
        ({"nested": {"path": "related", "query": {"term": {"related.id": "job1"}}}}, True),
        ({"match_all": {}}, True),
    ],
    ids=json.dumps,
)
def test_a_clause_matches_what_the_index_holds(clause: Any, expected: bool) -> None:
    assert matches({"must": [clause]}) is expected
    assert matches({"must_not": [clause]}) is not expected
    assert matches({"should": [clause]}) is expected


YES, NO = {"term": {"status": 355}}, {"term": {"status": 1}}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, True),
        ({"must": []}, True),
        ({"must": [YES, YES]}, True),
        ({"must": [YES, NO]}, False),
        ({"must": YES}, True),
        ({"filter": [NO]}, False),
        ({"should": [NO, YES]}, True),
        ({"should": [NO, NO]}, False),
        ({"must": [YES], "should": [NO]}, True),
        ({"must": [YES], "should": [NO], "minimum_should_match": 1}, False),
        ({"must": [YES], "must_not": [NO]}, True),
        ({"must": [YES], "must_not": [YES]}, False),
        ({"must": [{"bool": {"should": [NO, YES]}}]}, True),
        ({"must": [{"bool": {"should": [NO]}}]}, False),
        ({"must_not": [{"bool": {"must": [YES, NO]}}]}, True),
    ],
    ids=json.dumps,
)
def test_clauses_combine(query: Any, expected: bool) -> None:
    assert matches(query) is expected


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "status:355",
        "[]",
        '"x"',
        '{"query":{"term":{"status":1}}}',
        '{"must":[{"fuzzy":{"first_name":"dana"}}]}',
        '{"must":[{"Prefix":{"last_name":"whit"}}]}',
        '{"must":[{"term":{"a":1,"b":2}}]}',
        '{"must":[{"term":{"a":1},"range":{}}]}',
        '{"must":[{"term":"a"}]}',
        '{"must":[{"term":{"a":[1]}}]}',
        '{"must":[{"term":{"a":null}}]}',
        '{"must":[{"terms":{"a":1}}]}',
        '{"must":[{"range":{"date_created":5}}]}',
        '{"must":[{"range":{"date_created":{"from":5}}}]}',
        '{"must":[{"range":{"date_created":{"gte":"2026-01-01"}}}]}',
        '{"must":[{"range":{"date_created":{"gte":"now-2x"}}}]}',
        '{"must":[{"exists":{}}]}',
        '{"must":[{"ids":{}}]}',
        '{"must":[5]}',
    ],
)
def test_what_cannot_be_read_is_a_400(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        compile_filter(text, NOW)
    assert refused.value.status == 400


def test_a_demanded_id_or_link_bounds_the_records_to_ask() -> None:
    by_id = compile_filter('{"must":[{"terms":{"jnid":["a","b"]}}]}', NOW)
    by_link = compile_filter('{"must":[{"term":{"related.id":"j"}},{"term":{"is_active":true}}]}', NOW)
    either = compile_filter('{"should":[{"term":{"related.id":"j"}}]}', NOW)

    assert (by_id.ids, by_id.links) == (frozenset("ab"), None)
    assert (by_link.ids, by_link.links) == (None, frozenset("j"))
    assert (either.ids, either.links) == (None, None)
