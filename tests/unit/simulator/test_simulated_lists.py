"""List calls: pages, order, fields, windows, search, visibility, index lag, derived fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import ROLLUP_FIELDS, Account, Refusal, Simulator
from jobnimbus_mcp.simulator.shapes import KINDS


def must(*clauses: Any) -> dict[str, str]:
    return {"filter": json.dumps({"must": list(clauses)})}


@pytest.mark.parametrize("kind", list(KINDS))
def test_pages_in_either_direction_cover_everything_once_in_order(account: Account, kind: str) -> None:
    wanted = sorted((row["date_created"], row["recid"], row["jnid"]) for row in account.records(kind))
    for direction in ("asc", "desc"):
        found: list[tuple[int, int, str]] = []
        while True:
            params = {"size": "90", "from": str(len(found)), "sort_direction": direction}
            count, rows = account.list(kind, params)
            if not rows:
                break
            assert count == len(wanted)
            found += [(row["date_created"], row["recid"], row["jnid"]) for row in rows]
        assert found == (wanted if direction == "asc" else wanted[::-1])


def test_without_parameters_the_newest_come_first_and_a_thousand_at_most(account: Account) -> None:
    for _ in range(200):
        account.create("activities", {"note": "x"})

    count, rows = account.list("activities", {})

    assert count > 1000
    assert len(rows) == 1000
    assert [row["date_created"] for row in rows] == sorted((row["date_created"] for row in rows), reverse=True)


@pytest.mark.parametrize(
    ("kind", "params", "returned"),
    [
        ("jobs", {"size": "5000"}, 300),
        ("jobs", {"size": "0"}, 0),
        ("jobs", {"size": "-3"}, 0),
        ("jobs", {"size": "ten"}, 300),
        ("jobs", {"from": "299"}, 1),
        ("jobs", {"from": "300"}, 0),
        ("jobs", {"from": "9000"}, 0),
        ("workorders", {"size": "10000"}, 146),
        ("activities", {"from": "900", "size": "100"}, 0),
    ],
)
def test_size_and_from_are_clamped(account: Account, kind: str, params: dict[str, str], returned: int) -> None:
    assert len(account.list(kind, params)[1]) == returned


@pytest.mark.parametrize(
    ("kind", "params", "window"),
    [
        ("jobs", {"from": "9001"}, 10_000),
        ("jobs", {"from": "9990", "size": "11"}, 10_000),
        ("activities", {"from": "1"}, 1000),
        ("activities", {"from": "990", "size": "11"}, 1000),
        ("workorders", {"from": "1", "size": "10000"}, 10_000),
    ],
)
def test_a_page_beyond_the_window_is_a_400(account: Account, kind: str, params: dict[str, str], window: int) -> None:
    with pytest.raises(Refusal, match=rf"Result window is too large.*\[{window}\]") as refused:
        account.list(kind, params)
    assert refused.value.status == 400


def test_rows_without_a_value_come_last_in_both_directions(account: Account) -> None:
    for direction in ("asc", "desc"):
        _, rows = account.list("jobs", {"sort_field": "date_start", "sort_direction": direction})
        values = [row["date_start"] for row in rows]
        present = [value for value in values if value is not None]
        assert None in values
        assert values[: len(present)] == sorted(present, reverse=direction == "desc")


def test_fields_keep_exactly_what_was_asked(account: Account) -> None:
    _, rows = account.list("jobs", {"fields": "name, status_name,nonsense", "size": "3"})

    assert [set(row) for row in rows] == [{"name", "status_name"}] * 3


@pytest.mark.parametrize("params", [{"date_from": "2026-01-01"}, {"actor": "x@example.com"}, {"related": "nobody"}])
def test_unknown_parameters_are_ignored(account: Account, params: dict[str, str]) -> None:
    assert account.list("jobs", params) == account.list("jobs", {})


def test_related_is_a_parameter_of_files_alone(account: Account) -> None:
    job = next(row for row in account.records("jobs") if row["attachment_count"])

    by_parameter = account.list("files", {"related": job["jnid"]})
    by_filter = account.list("files", must({"term": {"related.id": job["jnid"]}}))

    assert by_parameter == by_filter
    assert by_parameter[0] == job["attachment_count"]


def test_a_narrowed_filter_finds_what_a_scan_finds(account: Account) -> None:
    """A demanded link goes through an index; the same clause under `should` asks every record."""
    for job in list(account.records("jobs"))[:20]:
        clause = {"term": {"related.id": job["jnid"]}}
        scan = {"filter": json.dumps({"should": [clause]})}
        for kind in KINDS:
            assert account.list(kind, must(clause)) == account.list(kind, scan)


def test_search_matches_any_word_and_ranks_the_best_first(account: Account) -> None:
    account.create("contacts", {"first_name": "Quillon", "last_name": "Zephyrine"})
    account.create("contacts", {"first_name": "Quillon", "last_name": "Smith"})

    count, rows = account.list("contacts", {"search": "zephyrine quillon"})

    assert count == 2
    assert [row["last_name"] for row in rows] == ["Zephyrine", "Smith"]


@pytest.mark.parametrize(("words", "found"), [("zephyrin", 1), ("zephirine", 1), ("ZEPHYRINE", 1), ("zzzzqqq", 0)])
def test_search_is_fuzzy(account: Account, words: str, found: int) -> None:
    account.create("contacts", {"first_name": "Quillon", "last_name": "Zephyrine"})

    assert account.list("contacts", {"search": words})[0] == found


def test_search_means_nothing_to_other_kinds(account: Account) -> None:
    assert account.list("tasks", {"search": "zzzzqqq"}) == account.list("tasks", {})


def test_search_sees_a_changed_record_under_its_new_name_alone(account: Account) -> None:
    jnid = account.create("contacts", {"first_name": "Quillon", "last_name": "Zephyrine"})[0].record["jnid"]
    assert account.list("contacts", {"search": "zephyrine"})[0] == 1

    account.update("contacts", jnid, {"last_name": "Xanthopoulos", "display_name": "Quillon Xanthopoulos"})

    assert account.list("contacts", {"search": "zephyrine"})[0] == 0
    assert account.list("contacts", {"search": "xanthopoulos"})[0] == 1


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_restricted_viewer_sees_own_records_alone(account: Account, kind: str) -> None:
    viewer = account.restricted_user
    own = {
        row["jnid"]
        for row in account.records(kind)
        # Products have no owner: everybody sees them.
        if kind == "products" or row["sales_rep"] == viewer or viewer in [owner["id"] for owner in row["owners"]]
    }

    count, rows = account.list(kind, {"size": "1000"}, viewer)

    assert own
    assert count == len(own)
    assert {row["jnid"] for row in rows} == own
    for row in account.records(kind):
        assert (account.get(kind, row["jnid"], viewer) is not None) is (row["jnid"] in own)


def test_lists_lag_behind_writes_while_reads_by_id_do_not(sim_clock: ManualClock) -> None:
    account = Simulator(clock=sim_clock, index_lag_s=5).account("stamford")
    before = account.list("jobs", {})
    first, second = before[1][0]["jnid"], before[1][1]["jnid"]
    account.update("jobs", first, {"description": "changed"})
    account.delete("jobs", second)
    created = account.create("jobs", {"name": "New"})[0].record["jnid"]

    assert account.list("jobs", {}) == before
    assert account.get("jobs", second) is None
    changed = account.get("jobs", first)
    assert changed is not None
    assert changed["description"] == "changed"

    sim_clock.advance(4.9)
    assert account.list("jobs", {}) == before
    sim_clock.advance(0.2)
    count, rows = account.list("jobs", {})
    assert count == before[0]
    by_id = {row["jnid"]: row for row in rows}
    assert second not in by_id
    assert created in by_id
    assert by_id[first]["description"] == "changed"


def test_a_lagging_list_shows_the_last_state_the_index_had_reached(sim_clock: ManualClock) -> None:
    account = Simulator(clock=sim_clock).account("stamford")
    jnid = next(iter(account.records("jobs")))["jnid"]
    for second in range(3):
        account.update("jobs", jnid, {"description": f"at {second}"})
        sim_clock.advance(1)

    def described(lag_s: float) -> str:
        rows = account.list("jobs", must({"term": {"jnid": jnid}}), lag_s=lag_s)[1]
        return str(rows[0]["description"])

    assert [described(lag) for lag in (0, 1.5, 2.5)] == ["at 2", "at 1", "at 0"]


def test_links_and_totals_of_a_lagging_list_are_those_of_then(sim_clock: ManualClock) -> None:
    account = Simulator(clock=sim_clock, index_lag_s=5).account("stamford")
    job = next(iter(account.records("jobs")))
    link = must({"term": {"related.id": job["jnid"]}})
    task = account.create("tasks", {"title": "New", "related": [{"id": job["jnid"]}]})[0].record

    def seen() -> tuple[list[str], int]:
        tasks = [row["jnid"] for row in account.list("tasks", link)[1]]
        return tasks, account.list("jobs", must({"term": {"jnid": job["jnid"]}}))[1][0]["task_count"]

    tasks, count = seen()
    assert task["jnid"] not in tasks
    assert count == job["task_count"]
    sim_clock.advance(6)
    tasks, count = seen()
    assert task["jnid"] in tasks
    assert count == job["task_count"] + 1


def test_totals_follow_the_children_and_leave_the_date_alone(account: Account) -> None:
    job = next(row for row in account.records("jobs") if row["approved_estimate_total"])
    link = [{"id": job["jnid"]}]

    account.create("tasks", {"title": "t", "related": link})
    account.create("files", {"filename": "f", "related": link})
    items = [{"name": "x", "quantity": 2, "price": 100}]
    estimate = account.create("v2/estimates", {"status": 4, "related": link, "items": items})[0].record

    after = account.get("jobs", job["jnid"])
    assert after is not None
    assert after["task_count"] == job["task_count"] + 1
    assert after["attachment_count"] == job["attachment_count"] + 1
    assert after["approved_estimate_total"] == job["approved_estimate_total"] + 200
    assert (after["last_estimate"], after["last_estimate_jnid"]) == (200, estimate["jnid"])
    changed = {key for key in after if after[key] != job[key]}
    assert changed <= ROLLUP_FIELDS["jobs"]


def test_an_estimate_of_the_quoting_product_does_not_reach_the_approved_total(account: Account) -> None:
    quoted = next(row for row in account.records("estimates") if row["source"] == "sumoquote")
    job = account.get("jobs", quoted["related"][0]["id"])

    assert job is not None
    assert quoted["status"] == 4
    assert job["last_estimate_jnid"] == quoted["jnid"]
    assert job["approved_estimate_total"] == 0


def test_derived_fields_can_be_filtered_and_sorted_by(account: Account) -> None:
    wanted = sorted((row["task_count"] for row in account.records("jobs")), reverse=True)

    _, rows = account.list("jobs", {"sort_field": "task_count"})
    count, busy = account.list("jobs", must({"range": {"task_count": {"gte": 2}}}))

    assert [row["task_count"] for row in rows] == wanted
    assert count == sum(value >= 2 for value in wanted) > 0
    assert min(row["task_count"] for row in busy) >= 2
