"""The seeded accounts: the same for everybody, consistent, and as dirty as real ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import Account, Simulator
from jobnimbus_mcp.simulator.seed import Seeded, seed_account, seed_keys
from jobnimbus_mcp.simulator.shapes import BLANK, KINDS

DAY_S = 86_400
TODAY_S = 1_789_948_800
CONTACT, JOB = "contacts", "jobs"


@pytest.fixture(scope="module")
def seeded() -> Seeded:
    return seed_account(7, "stamford", 1, TODAY_S)


def dump(seeded: Seeded) -> str:
    return json.dumps([seeded.records, [user.id for user in seeded.users], seeded.settings], sort_keys=True)


def test_the_same_seed_makes_the_same_account(seeded: Seeded) -> None:
    assert dump(seed_account(7, "stamford", 1, TODAY_S)) == dump(seeded)


def test_ids_and_keys_are_known_values_on_every_machine(seeded: Seeded) -> None:
    assert next(iter(seeded.records["jobs"])) == "m5dy4cm87htnvssnnxd3m28r"
    assert seed_keys(7, "stamford")[0] == FULL_KEY_OF_SEED_7


@pytest.mark.parametrize(("seed", "instance"), [(8, "stamford"), (7, "guilford")])
def test_another_seed_or_instance_shares_no_id_and_no_key(seeded: Seeded, seed: int, instance: str) -> None:
    other = seed_account(seed, instance, 1, TODAY_S)

    for kind in KINDS:
        assert set(seeded.records[kind]).isdisjoint(other.records[kind])
    assert set(seed_keys(7, "stamford")).isdisjoint(seed_keys(seed, instance))


def test_on_another_day_only_the_dates_differ_and_all_by_as_much(seeded: Seeded) -> None:
    later = seed_account(7, "stamford", 1, TODAY_S + 3 * DAY_S)

    for kind in KINDS:
        assert list(later.records[kind]) == list(seeded.records[kind])
        for jnid, record in seeded.records[kind].items():
            assert later.records[kind][jnid]["date_created"] == record["date_created"] + 3 * DAY_S


def test_keys_are_long_and_plain() -> None:
    for key in seed_keys(7, "stamford"):
        assert re.fullmatch(r"[a-z0-9]{32,}", key)


def test_the_account_has_the_size_of_a_small_contractor(seeded: Seeded) -> None:
    sizes = {kind: len(rows) for kind, rows in seeded.records.items()}

    assert sizes["jobs"] == 300
    assert sizes["contacts"] == 265
    assert 200 <= sizes["estimates"] <= 240
    assert sizes["tasks"] > 200
    assert sizes["workorders"] > 50
    assert sizes["files"] > 200
    # More than two each, and still within what one list of activities can page through.
    assert 600 < sizes["activities"] < 1000
    assert 120 <= sizes["invoices"] <= sizes["payments"] <= 200
    assert sizes["products"] == 9
    assert sizes["materialorders"] > 50
    assert sizes["budgets"] > 50


def test_every_record_has_every_documented_field_and_a_proper_id(seeded: Seeded) -> None:
    quoted = []
    for kind, rows in seeded.records.items():
        for jnid, record in rows.items():
            assert record["jnid"] == jnid
            assert record["type"] == KINDS[kind].type
            assert set(BLANK[kind]) <= set(record)
            if not re.fullmatch(r"[a-z0-9]{24}", jnid):
                quoted.append(record)
    assert [record["source"] for record in quoted] == ["sumoquote"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", quoted[0]["jnid"])


def test_ids_and_recids_are_unique_over_the_account(seeded: Seeded) -> None:
    records = [record for rows in seeded.records.values() for record in rows.values()]

    assert len({record["jnid"] for record in records}) == len(records)
    assert len({record["recid"] for record in records}) == len(records)


def test_names_that_must_be_unique_are(seeded: Seeded) -> None:
    for kind, field in ((CONTACT, "display_name"), (JOB, "name")):
        names = Counter(record[field].casefold() for record in seeded.records[kind].values())
        assert names.most_common(1)[0][1] == 1


def test_every_link_leads_to_a_record_and_shows_its_name(seeded: Seeded) -> None:
    everything = {jnid: record for rows in seeded.records.values() for jnid, record in rows.items()}

    for record in everything.values():
        for link in [*record.get("related", []), *([record["primary"]] if record.get("primary") else [])]:
            target = everything[link["id"]]
            assert link["type"] == target["type"]
            assert link["name"] == (target.get("display_name") or target["name"])


def test_every_child_but_the_orphan_file_hangs_on_something(seeded: Seeded) -> None:
    loose = [
        record
        for kind in set(KINDS) - {"contacts", "products"}
        for record in seeded.records[kind].values()
        if not record["related"]
    ]

    assert [record["type"] for record in loose] == ["attachment"]


def test_owners_and_sales_reps_are_users(seeded: Seeded) -> None:
    users = {user.id for user in seeded.users}

    for rows in seeded.records.values():
        for record in rows.values():
            assert {owner["id"] for owner in record.get("owners", [])} <= users
            assert record.get("sales_rep") is None or record["sales_rep"] in users


def test_nothing_was_created_or_changed_after_the_day_began(seeded: Seeded) -> None:
    for rows in seeded.records.values():
        for record in rows.values():
            assert record["date_created"] <= record["date_updated"] < TODAY_S
            # The goods were there before the first customer.
            assert record["type"] == "product" or record["date_created"] > TODAY_S - 401 * DAY_S


def test_the_calendar_is_alive(seeded: Seeded) -> None:
    tasks = list(seeded.records["tasks"].values())
    ahead = range(TODAY_S, TODAY_S + 46 * DAY_S)

    assert [task for task in tasks if task["date_start"] in ahead and not task["is_completed"]]
    assert [task for task in tasks if task["date_start"] < TODAY_S and not task["is_completed"]]
    assert [task for task in tasks if task["is_completed"]]
    assert [job for job in seeded.records["jobs"].values() if job["date_start"] in ahead]
    assert [order for order in seeded.records["workorders"].values() if order["date_start"] in ahead]


def _is_ms(value: Any) -> bool:
    return isinstance(value, int) and value > 10**11


@pytest.mark.parametrize(
    ("kind", "is_dirty"),
    [
        pytest.param("jobs", lambda row: _is_ms(row["date_start"]), id="job scheduled in milliseconds"),
        pytest.param("tasks", lambda row: _is_ms(row["date_start"]), id="task scheduled in milliseconds"),
        pytest.param("contacts", lambda row: _is_ms(row["Date of Loss"]), id="custom date in milliseconds"),
        pytest.param("contacts", lambda row: "-" in row["zip"], id="ZIP+4"),
        pytest.param("contacts", lambda row: row["mobile_phone"].startswith("("), id="punctuated phone"),
        pytest.param("contacts", lambda row: row["created_by_name"] is None, id="no author"),
        pytest.param("jobs", lambda row: row["number"] == "22-1275", id="number with a hyphen"),
        pytest.param("jobs", lambda row: row["status_name"] == "In production", id="status in odd case"),
        pytest.param("jobs", lambda row: row["is_archived"], id="archived job"),
        pytest.param("jobs", lambda row: row["date_start"] is None, id="null for not scheduled"),
        pytest.param("jobs", lambda row: row["date_start"] == 0, id="zero for not scheduled"),
        pytest.param("files", lambda row: row["size"] > 10_000_000, id="file over 10 MB"),
        pytest.param("estimates", lambda row: isinstance(row["subtotal"], str), id="amount as text"),
        pytest.param("jobs", lambda row: "Former-" in row["sales_rep_name"], id="name of a user renamed since"),
    ],
)
def test_the_dirty_data_are_there(seeded: Seeded, kind: str, is_dirty: Any) -> None:
    assert any(is_dirty(row) for row in seeded.records[kind].values())


@pytest.mark.parametrize(
    ("kind", "is_there"),
    [
        pytest.param("invoices", lambda row: row["status"] == 1, id="draft"),
        pytest.param(
            "invoices", lambda row: row["status"] == 2 and row["due"] == row["total"] > 0, id="nothing of it paid"
        ),
        pytest.param("invoices", lambda row: row["due"] > 0 and row["date_due"] < TODAY_S, id="overdue"),
        pytest.param("invoices", lambda row: 0 < row["due"] < row["total"], id="paid in part"),
        pytest.param("invoices", lambda row: row["due"] == 0 and len(row["payments"]) == 2, id="paid in two parts"),
        pytest.param("invoices", lambda row: row["due"] == 0 and row["status"] == 2, id="paid and yet open"),
        pytest.param("invoices", lambda row: row["created_by"] == "system_qbo", id="made by the bookkeeping"),
        pytest.param("payments", lambda row: row["refunded_amount"] > 0, id="refunded"),
        pytest.param("payments", lambda row: row["created_by_name"] is None, id="no author"),
        pytest.param("products", lambda row: not row["is_active"], id="no longer sold"),
        pytest.param("materialorders", lambda row: row["status"] == 0, id="not yet ordered"),
        pytest.param("jobs", lambda row: row["last_budget_revenue"] > 0, id="with a budget"),
        pytest.param("jobs", lambda row: row["parent_approved_invoice_due"] > row["approved_invoice_due"], id="rollup"),
    ],
)
def test_money_is_in_every_state(kind: str, is_there: Any) -> None:
    account = Simulator(instances=("stamford",), clock=ManualClock()).account("stamford")

    assert any(is_there(row) for row in account.records(kind))


def test_the_sums_agree() -> None:
    account = Simulator(instances=("stamford",), clock=ManualClock()).account("stamford")
    invoices, payments = list(account.records("invoices")), list(account.records("payments"))

    paid = sum(row["total_paid"] for row in invoices)
    assert paid == sum(row["total"] - row["refunded_amount"] - row["credit"] for row in payments)
    assert all(row["due"] == row["total"] - row["total_paid"] for row in invoices)
    due = sum(row["due"] for row in invoices if row["status"] in (2, 3, 4))
    assert due == sum(row["approved_invoice_due"] for row in account.records("jobs")) > 0
    assert due == sum(row["approved_invoice_due"] for row in account.records("contacts"))


def test_one_user_left_and_one_human_has_two_ids(seeded: Seeded) -> None:
    emails = Counter(user.email for user in seeded.users)

    assert [user.is_active for user in seeded.users].count(False) == 1
    assert sorted(emails.values())[-1] == 2


def test_custom_fields_show_under_label_and_storage_key(seeded: Seeded) -> None:
    for job in seeded.records["jobs"].values():
        assert job["Shingle Color"] == job["cf_string_3"]
        assert job["Insurance Job?"] == job["cf_boolean_1"]
    for contact in seeded.records["contacts"].values():
        assert contact["Claim Number:"] == contact["cf_string_7"]


def test_approved_estimates_belong_to_jobs_past_approval(seeded: Seeded) -> None:
    early = {"Lead", "Inspection", "Assessed"}
    for estimate in seeded.records["estimates"].values():
        job = seeded.records["jobs"][estimate["related"][0]["id"]]
        assert (estimate["status"] in (4, 5)) is (job["status_name"] not in early)


@pytest.mark.long
def test_scale_40_outgrows_the_paging_windows() -> None:
    account: Account = Simulator(instances=("one",), scale=40, clock=ManualClock()).account("one")

    assert account.list("contacts", {"size": "1"})[0] > 10_500
    assert account.list("jobs", {"size": "1"})[0] == 12_000
    busiest, activities = Counter(row["primary"]["id"] for row in account.records("activities")).most_common(1)[0]
    assert activities == 1200
    wanted = json.dumps({"must": [{"term": {"related.id": busiest}}]})
    assert account.list("activities", {"filter": wanted})[0] == 1200


FULL_KEY_OF_SEED_7 = "vauvyfglblttbjx46koemeqncp9cr210"
