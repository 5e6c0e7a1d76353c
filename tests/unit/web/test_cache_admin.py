"""The admin's routes under /cache: what they show, what they change, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from jobnimbus_mcp.cache.notice import Notice


async def test_stats_sum_all_accounts_and_break_them_down(inside: Any, web: Any, admin: Any) -> None:
    inside.counted = {
        "stamford": {"hits": 3, "hits|tool|get_jobs": 3, "hits|entity|jobs": 3, "hits|internal": 9, "l1Hits": 3},
        "guilford": {"hits": 0, "misses": 1, "misses|tool|get_jobs": 1, "misses|entity|tasks": 1, "upstreamCalls": 4},
    }
    told = (await web.get("/cache/stats", headers=admin)).json()
    assert told["scope"] == "all"
    assert told["metrics"] == {
        "hits": 3,
        "misses": 1,
        "hitRate": "75.00%",
        "writes": 0,
        "l1Hits": 3,
        "l2Hits": 0,
        "staleHits": 0,
        "coalesced": 0,
        "negativeHits": 0,
        "invalidations": 0,
        "errors": 0,
        "upstreamCalls": 4,
    }
    assert (told["byTool"]["get_jobs"]["hits"], told["byTool"]["get_jobs"]["hitRate"]) == (3, "75.00%")
    assert {name: figures["hitRate"] for name, figures in told["byEntity"].items()} == {
        "jobs": "100.00%",
        "tasks": "0.00%",
    }
    assert told["internal"] == {"hits": 9}
    assert told["redis"] == {"connected": True, "latencyMs": 0.412, "reason": None, "kind": "embedded"}
    assert (told["circuitBreaker"], told["l1"]) == ({"state": "CLOSED"}, {"entries": 3})


async def test_stats_of_nothing_have_a_rate_too(web: Any, admin: Any) -> None:
    assert (await web.get("/cache/stats", headers=admin)).json()["metrics"]["hitRate"] == "0.00%"


async def test_stats_of_this_process_alone_do_not_ask_the_store(inside: Any, web: Any, admin: Any) -> None:
    inside.counted = {"stamford": {"hits": 100}}
    told = (await web.get("/cache/stats?scope=process", headers=admin)).json()
    assert (told["scope"], told["metrics"]["hits"]) == ("process", 2)


async def test_while_the_store_is_away_stats_tell_what_this_process_knows(inside: Any, web: Any, admin: Any) -> None:
    inside.store_down = True
    response = await web.get("/cache/stats", headers=admin)
    assert response.status_code == 200
    assert (response.json()["scope"], response.json()["metrics"]["hits"]) == ("process", 2)


async def test_entries_are_those_of_all_accounts_up_to_the_limit(inside: Any, web: Any, admin: Any) -> None:
    inside.rows = {"stamford": [{"key": "s1"}, {"key": "s2"}], "guilford": [{"key": "g1"}, {"key": "g2"}]}
    told = (await web.get("/cache/entries?limit=3&entity=jobs&operation=list", headers=admin)).json()
    assert told == {"entries": [{"key": "s1"}, {"key": "s2"}, {"key": "g1"}], "count": 3}
    assert inside.listed == [("stamford", "jobs", "list", 3), ("guilford", "jobs", "list", 1)]


KEY = "jobnimbus:{guilford}:p:jobs:detail:j1"


async def test_a_key_is_explained_by_its_own_account(inside: Any, web: Any, admin: Any) -> None:
    inside.rows = {"guilford": [{"key": KEY, "state": "dirty"}]}
    answer = await web.get("/cache/entries", params={"key": KEY}, headers=admin)
    assert (answer.status_code, answer.json()) == (200, {"entry": {"key": KEY, "state": "dirty"}})
    assert inside.listed == [("explain", "guilford", KEY)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"key": "jobnimbus-sys:{guilford}:epoch"}, "key"),
        ({"key": "jobnimbus:{elsewhere}:p:jobs:detail:j1"}, "key"),
        ({"key": KEY, "instance": "stamford"}, "key"),
        ({"key": ""}, "key"),
        ({"key": KEY, "entity": "jobs"}, "entity"),
    ],
)
async def test_what_is_no_entrys_key_is_not_looked_up(
    inside: Any, web: Any, admin: Any, query: dict[str, str], field: str
) -> None:
    answer = await web.get("/cache/entries", params=query, headers=admin)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert inside.listed == []


async def test_a_key_under_which_nothing_is_kept_is_not_found(web: Any, admin: Any) -> None:
    answer = await web.get("/cache/entries", params={"key": KEY}, headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_entries_of_one_account_alone(inside: Any, web: Any, admin: Any) -> None:
    await web.get("/cache/entries?instance=guilford", headers=admin)
    assert inside.listed == [("guilford", None, None, 100)]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/cache/stats?scope=galaxy", "scope"),
        ("/cache/stats?Scope=process", "Scope"),
        ("/cache/entries?limit=0", "limit"),
        ("/cache/entries?limit=1001", "limit"),
        ("/cache/entries?limit=-1", "limit"),
        ("/cache/entries?limit=1e2", "limit"),
        ("/cache/entries?limit=", "limit"),
        ("/cache/entries?limit=%D9%A3", "limit"),
        ("/cache/entries?limit=5&limit=6", "limit"),
        ("/cache/entries?entity=job", "entity"),
        ("/cache/entries?operation=get", "operation"),
        ("/cache/entries?instance=nowhere", "instance"),
        ("/cache/entries?instance=", "instance"),
        ("/cache/entries?color=red", "color"),
        ("/cache/invalidations?limit=x", "limit"),
        ("/cache/invalidations?since=yesterday", "since"),
        ("/cache/invalidations?since=", "since"),
        ("/cache/invalidations?since=nan", "since"),
        ("/cache/invalidations/stats?instance=nowhere", "instance"),
    ],
)
async def test_a_bad_query_parameter_is_refused_by_name(
    web: Any, error_of: Any, admin: Any, path: str, field: str
) -> None:
    response = await web.get(path, headers=admin)
    assert error_of(response) == (400, "invalid_argument")
    assert response.json()["field"] == field


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (b"", [("epoch", "stamford", "admin"), ("epoch", "guilford", "admin")]),
        (b"{}", [("epoch", "stamford", "admin"), ("epoch", "guilford", "admin")]),
        (b'{"instance":"guilford"}', [("epoch", "guilford", "admin")]),
    ],
)
async def test_clear_renews_the_epoch_of_each_account_meant(
    inside: Any, web: Any, admin: Any, content: bytes, asked: list[Any]
) -> None:
    headers = admin | {"content-type": "application/json"}
    response = await web.post("/cache/clear", content=content, headers=headers)
    assert response.json() == {"status": "ok", "cleared": len(asked)}
    assert inside.invalidator.asked == asked


@pytest.mark.parametrize(
    ("body", "field"), [({"instance": "nowhere"}, "instance"), ({"instance": None}, "instance"), ({"all": True}, "all")]
)
async def test_clear_refuses_what_it_does_not_know(
    inside: Any, web: Any, error_of: Any, admin: Any, body: Any, field: str
) -> None:
    response = await web.post("/cache/clear", json=body, headers=admin)
    assert error_of(response) == (400, "invalid_argument")
    assert response.json()["field"] == field
    assert inside.invalidator.asked == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_invalidation_bumps_its_tags_in_every_account_and_is_logged_as_the_admins(
    inside: Any, web: Any, admin: Any, method: str
) -> None:
    body = {"entity": "jobs", "identifier": "j1"}
    with capture_logs() as lines:
        response = await web.request(method, "/cache/invalidate", json=body, headers=admin)
    tags = ("jobs:list:j1", "jobs:search:j1", "jobs:detail:j1")
    assert response.json() == {"status": "ok", "invalidated": 6, "instances": ["stamford", "guilford"]}
    assert inside.invalidator.asked == [("bump", "stamford", tags), ("bump", "guilford", tags)]
    first, second = inside.invalidator.notices
    assert first == Notice(
        "admin.invalidate", "jobs", "j1", "admin", inside.clock.now(), event_id=first.event_id, dedupe_key=""
    )
    assert first.event_id != second.event_id
    (line,) = lines
    assert (line["event"], line["source"], line["tags"]) == ("Cache invalidated", "admin", list(tags))


async def test_a_pattern_that_tags_cannot_say_scans_and_counts_what_it_deleted(
    inside: Any, web: Any, admin: Any
) -> None:
    body = {"pattern": "jobnimbus:jobs:list:a*", "instance": "stamford"}
    response = await web.post("/cache/invalidate", json=body, headers=admin)
    assert response.json()["invalidated"] == 7
    assert inside.invalidator.asked == [("scan", "stamford", "*:jobs:list:a*")]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"jobnimbus:*"'])
async def test_a_body_that_is_no_json_object_is_refused(web: Any, error_of: Any, admin: Any, content: bytes) -> None:
    headers = admin | {"content-type": "application/json"}
    for method in ("POST", "DELETE"):
        response = await web.request(method, "/cache/invalidate", content=content, headers=headers)
        assert error_of(response) == (400, "invalid_argument")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/cache/clear", {}),
        ("POST", "/cache/invalidate", {"entity": "jobs"}),
        ("DELETE", "/cache/invalidate", {"pattern": "jobnimbus:jobs:list:a*"}),
        ("GET", "/cache/invalidations", None),
        ("GET", "/cache/invalidations/stats", None),
    ],
)
async def test_while_the_store_is_away_nothing_is_claimed(
    inside: Any, web: Any, error_of: Any, admin: Any, method: str, path: str, body: Any
) -> None:
    inside.invalidator.down = {"stamford"}
    response = await web.request(method, path, json=body, headers=admin)
    assert error_of(response) == (503, "cache_unavailable")
    assert "retry-after" in response.headers


async def test_entries_while_the_store_is_away_are_a_503(inside: Any, web: Any, error_of: Any, admin: Any) -> None:
    inside.store_down = True
    assert error_of(await web.get("/cache/entries", headers=admin)) == (503, "cache_unavailable")


async def test_one_account_that_is_away_does_not_keep_the_others_from_being_invalidated(
    inside: Any, web: Any, error_of: Any, admin: Any
) -> None:
    inside.invalidator.down = {"stamford"}
    response = await web.post("/cache/invalidate", json={"entity": "jobs"}, headers=admin)
    assert error_of(response) == (503, "cache_unavailable")
    assert inside.invalidator.asked == [("bump", "guilford", ("jobs",))]


async def test_invalidations_are_shown_newest_first_over_all_accounts(inside: Any, web: Any, admin: Any) -> None:
    inside.invalidator.log = {
        "stamford": [{"eventId": "e3", "at": "2026-11-21T10:00:03Z"}, {"eventId": "e1", "at": "2026-11-21T10:00:01Z"}],
        "guilford": [{"eventId": "e2", "at": "2026-11-21T10:00:02Z"}],
    }
    told = (await web.get("/cache/invalidations?limit=2", headers=admin)).json()
    assert told == {
        "invalidations": [
            {"eventId": "e3", "at": "2026-11-21T10:00:03Z", "instance": "stamford"},
            {"eventId": "e2", "at": "2026-11-21T10:00:02Z", "instance": "guilford"},
        ]
    }


@pytest.mark.parametrize(
    ("since", "seconds"),
    [
        ("1790000000", 1790000000.0),
        ("1790000000.5", 1790000000.5),
        ("2026-09-21T14:13:20Z", 1790000000.0),
        ("2026-09-21T16:13:20%2B02:00", 1790000000.0),
        ("2026-09-21T16:13:20+02:00", 1790000000.0),
        ("2026-09-21T14:13:20", 1790000000.0),
        ("0001-01-01T00:00:00%2B23:59", 0.0),
    ],
)
async def test_since_is_taken_as_a_date_or_as_seconds(
    inside: Any, web: Any, admin: Any, since: str, seconds: float
) -> None:
    await web.get(f"/cache/invalidations?instance=stamford&since={since}", headers=admin)
    assert inside.invalidator.asked == [("recent", "stamford", 100, seconds)]


async def test_rates_are_told_per_account(web: Any, admin: Any) -> None:
    told = (await web.get("/cache/invalidations/stats", headers=admin)).json()
    assert told == {"hours": 24, "instances": {name: {"jobs": {"webhook": 24}} for name in ("stamford", "guilford")}}


async def test_metrics_are_passed_on_as_they_are(web: Any, admin: Any) -> None:
    response = await web.get("/metrics", headers=admin)
    assert response.content == b"# metrics\n"
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
