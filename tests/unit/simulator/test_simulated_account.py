"""What writes do to an account: records, side effects, stamps, copies."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import ROLLUP_FIELDS, Account, Simulator
from jobnimbus_mcp.simulator.seed import seed_account
from jobnimbus_mcp.simulator.shapes import BLANK, KINDS

NOW = 1_790_000_000


def first(account: Account, kind: str, **fields: Any) -> dict[str, Any]:
    return next(row for row in account.records(kind) if all(row[key] == value for key, value in fields.items()))


def everything(account: Account) -> str:
    return json.dumps([list(account.records(kind)) for kind in KINDS])


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_new_record_is_complete_and_found_everywhere(account: Account, kind: str) -> None:
    job = first(account, "jobs")
    [created, *_] = account.create(kind, {"primary": {"id": job["jnid"]}, "related": [{"id": job["jnid"]}]})

    record = created.record
    assert created.action == "created"
    assert set(BLANK[kind]) <= set(record)
    assert (record["type"], record["date_created"], record["date_updated"]) == (KINDS[kind].type, NOW, NOW)
    assert account.get(kind, record["jnid"]) == record
    wanted = json.dumps({"must": [{"term": {"related.id": job["jnid"]}}]})
    assert record["jnid"] in [row["jnid"] for row in account.list(kind, {"filter": wanted})[1]]


def test_new_numbers_go_on_from_the_seeded_ones(account: Account) -> None:
    numbers = [account.create("jobs", {"name": name})[0].record["number"] for name in "ab"]

    assert numbers == ["1301", "1302"]
    assert account.create("jobs", {"name": "c", "number": "X-1"})[0].record["number"] == "X-1"


@pytest.mark.parametrize(
    ("fields", "name", "number"),
    [
        ({"record_type_name": "Roofing", "status_name": "in production"}, "In Production", 355),
        ({"record_type": 24, "status": 355}, "In Production", 355),
        ({"record_type_name": "Roofing", "status_name": "No Such"}, "No Such", 0),
    ],
)
def test_names_and_numbers_of_a_status_come_together(
    account: Account, fields: dict[str, Any], name: str, number: int
) -> None:
    record = account.create("jobs", {"name": "n", **fields})[0].record

    assert (record["status_name"], record["status"]) == (name, number)


def test_a_job_copies_its_contact_once_and_never_again(account: Account) -> None:
    contact = first(account, "contacts", is_sub_contractor=False)
    job = account.create("jobs", {"name": "n", "primary": {"id": contact["jnid"]}})[0].record
    account.update("contacts", contact["jnid"], {"display_name": "Renamed", "mobile_phone": "1"})

    later = account.get("jobs", job["jnid"])

    assert later == job
    assert later is not None
    assert later["primary"]["name"] == contact["display_name"]
    assert later["related"][0]["id"] == contact["jnid"]
    assert later["parent_mobile_phone"] == contact["mobile_phone"]


def test_an_activity_is_linked_to_its_job_and_the_jobs_contact_and_inherits_its_owners(account: Account) -> None:
    job = first(account, "jobs")
    note = account.create("activities", {"note": "x", "primary": {"id": job["jnid"]}})[0].record

    assert [link["id"] for link in note["related"]] == [job["jnid"], job["primary"]["id"]]
    assert (note["owners"], note["sales_rep"]) == (job["owners"], job["sales_rep"])


def test_a_task_keeps_only_its_first_link(account: Account) -> None:
    one, two = [row["jnid"] for row in list(account.records("jobs"))[:2]]
    task = account.create("tasks", {"title": "t", "related": [{"id": one}, {"id": two}]})[0].record

    assert [link["id"] for link in task["related"]] == [one]


def test_moving_a_job_to_a_status_stamps_it_and_logs_it(account: Account) -> None:
    job = first(account, "jobs", status_name="Approved", record_type_name="Roofing")

    changed, logged = account.update("jobs", job["jnid"], {"status_name": "Scheduled"})

    assert (changed.record["status"], changed.record["date_status_change"]) == (354, NOW)
    activity = logged.record
    assert (logged.action, activity["record_type_name"], activity["is_status_change"]) == (
        "created",
        "Status Changed",
        True,
    )
    assert activity["note"] == "Job Updated\nStatus: Approved => Scheduled"
    primary = activity["primary"]
    assert (primary["id"], primary["old_status"], primary["new_status"]) == (job["jnid"], 353, 354)
    assert [link["id"] for link in activity["related"]] == [job["jnid"], job["primary"]["id"]]


def test_other_edits_are_logged_field_by_field(account: Account) -> None:
    job = first(account, "jobs")

    _, logged = account.update(
        "jobs", job["jnid"], {"description": "new\ntext", "tags": ["a"], "Shingle Color": "Slate"}
    )

    assert logged.record["record_type_name"] == "Job Modified"
    old, colour = job["description"], job["Shingle Color"]
    assert logged.record["note"].split("\n") == [
        "Job Updated",
        f"Description: {old} => new text",
        f"Shingle Color: {colour} => Slate",
    ]


@pytest.mark.parametrize(("kind", "word"), [("contacts", "Contact"), ("jobs", "Job")])
def test_creations_and_deletions_of_contacts_and_jobs_are_logged(account: Account, kind: str, word: str) -> None:
    created, born = account.create(kind, {"name": "n", "display_name": "n"})
    deleted, gone = account.update(kind, created.record["jnid"], {"is_active": False})

    assert (born.record["record_type_name"], gone.record["record_type_name"]) == (f"{word} Created", f"{word} Deleted")
    assert born.record["primary"]["id"] == gone.record["primary"]["id"] == created.record["jnid"]
    assert (deleted.action, deleted.record["is_active"]) == ("deleted", False)


@pytest.mark.parametrize("kind", ["tasks", "activities", "files", "estimates", "workorders"])
def test_other_kinds_leave_no_trace_in_the_log(account: Account, kind: str) -> None:
    created = account.create(kind, {})
    jnid = created[0].record["jnid"]

    assert [len(created), len(account.update(kind, jnid, {"description": "x"})), len(account.delete(kind, jnid))] == [
        1
    ] * 3


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_deleted_record_is_nowhere(account: Account, kind: str) -> None:
    jnid = first(account, kind)["jnid"]
    account.delete(kind, jnid)

    assert account.get(kind, jnid) is None
    assert jnid not in [row["jnid"] for row in account.list(kind, {"size": "1000"})[1]]
    with pytest.raises(KeyError):
        account.update(kind, jnid, {"is_active": True})


def test_a_custom_field_can_be_written_by_label_or_key_and_shows_under_both(account: Account) -> None:
    jnid = first(account, "contacts")["jnid"]

    by_label = account.update("contacts", jnid, {"Claim Number:": "CLM-1"})[0].record
    by_key = account.update("contacts", jnid, {"cf_string_7": "CLM-2"})[0].record

    assert (by_label["cf_string_7"], by_key["Claim Number:"]) == ("CLM-1", "CLM-2")


def test_items_replace_and_are_added_up(account: Account) -> None:
    estimate = first(account, "estimates")
    items = [{"quantity": 2, "price": 50, "cost": 10}, {"quantity": 1, "price": -20}]

    record = account.update("estimates", estimate["jnid"], {"items": items})[0].record

    assert (len(record["items"]), record["total"], record["cost"], record["margin"]) == (2, 80, 20, 75)


def test_an_approved_estimate_is_dated(account: Account) -> None:
    sent = first(account, "estimates", status=2)

    record = account.update("estimates", sent["jnid"], {"status": 4})[0].record

    assert (record["status_name"], record["date_signed"], record["date_status_change"]) == ("Approved", NOW, NOW)


def test_stamps_never_run_backwards() -> None:
    clock = ManualClock()
    account = Simulator(instances=("one",), clock=clock).account("one")
    jnid = first(account, "jobs")["jnid"]
    clock.advance(10)
    latest = account.update("jobs", jnid, {"description": "a"})[0].record["date_updated"]
    clock.jump_wall(-3600)

    assert latest == NOW + 10
    assert account.update("jobs", jnid, {"description": "b"})[0].record["date_updated"] == latest


def test_identity_cannot_be_written(account: Account) -> None:
    job = first(account, "jobs")
    forged = {"jnid": "x", "recid": 1, "type": "contact", "customer": "x", "date_updated": 1, "created_by": "x"}

    record = account.update("jobs", job["jnid"], forged)[0].record

    kept = ("jnid", "recid", "type", "customer", "created_by")
    assert [record[key] for key in kept] == [job[key] for key in kept]
    assert record["date_updated"] == NOW


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_a_copy_goes_its_own_way(account: Account, copier: Any) -> None:
    before = everything(account)
    twin = copier(account)
    jnid = first(twin, "jobs")["jnid"]

    twin.update("jobs", jnid, {"description": "changed", "status_name": "Lead"})
    twin.create("tasks", {"title": "t", "related": [{"id": jnid}]})
    twin.delete("contacts", first(twin, "contacts")["jnid"])

    assert everything(account) == before
    assert everything(twin) != before
    assert account.list("jobs", {})[1] != twin.list("jobs", {})[1]


def test_nothing_that_is_written_reaches_the_seed() -> None:
    """Simulators of one day share what they were seeded with."""
    clock = ManualClock()
    worn = Simulator(instances=("stamford",), clock=clock).account("stamford")
    job = first(worn, "jobs")["jnid"]
    for kind in KINDS:
        jnid = first(worn, kind)["jnid"]
        worn.create(kind, {"name": "n", "items": [{"quantity": 1, "price": 2}], "related": [{"id": job}]})
        worn.update(kind, jnid, {"tags": ["x"], "items": [], "primary": {"id": job}, "owners": [], "invoices": []})
        worn.delete(kind, jnid)
    worn.add_setting("account/workflow/24/status", {"name": "On Hold"})
    worn.change_user(worn.admin, first_name="Other")

    fresh = Simulator(instances=("stamford",), clock=clock).account("stamford")
    truth = seed_account(7, "stamford", 1, int(clock.now()) // 86_400 * 86_400)

    assert {kind: {row["jnid"] for row in fresh.records(kind)} for kind in KINDS} == {
        kind: set(rows) for kind, rows in truth.records.items()
    }
    for kind, rows in truth.records.items():
        derived = ROLLUP_FIELDS[kind]
        for row in fresh.records(kind):
            assert {**row, **{name: rows[row["jnid"]][name] for name in derived}} == rows[row["jnid"]]
    assert fresh.settings == truth.settings
    assert [user["id"] for user in fresh.users()["users"]] == [user.id for user in truth.users]
    assert fresh.user_name(fresh.admin) == truth.users[0].name


def test_the_same_writes_make_the_same_records(account: Account) -> None:
    twin = copy.copy(account)
    for one in (account, twin):
        one.create("jobs", {"name": "n"})
        one.update("contacts", first(one, "contacts")["jnid"], {"status_name": "Lost"})

    assert everything(account) == everything(twin)


def test_new_ids_are_letters_and_digits_and_unlike_any_other(account: Account) -> None:
    known = {row["jnid"] for kind in KINDS for row in account.records(kind)}
    fresh = [account.create("tasks", {"title": "t"})[0].record["jnid"] for _ in range(50)]

    assert len(set(fresh)) == 50
    assert known.isdisjoint(fresh)
    assert all(jnid.isalnum() and jnid.islower() and len(jnid) == 24 for jnid in fresh)


def test_a_user_is_renamed_in_the_list_alone(account: Account) -> None:
    job = first(account, "jobs")

    account.change_user(job["sales_rep"], last_name="Newname")

    user = next(row for row in account.users()["users"] if row["id"] == job["sales_rep"])
    assert user["last_name"] == "Newname"
    assert account.users()["date_updated"] == NOW
    assert account.get("jobs", job["jnid"]) == job


@pytest.mark.parametrize(
    "fields",
    [
        {"related": 5, "primary": "x", "owners": "x", "tags": 5},
        {"related": [5, None, {"id": 5}, {}], "primary": {"id": None}},
        {"status": {}, "status_name": [], "record_type_name": 5, "source": {}, "number": {}},
        {"date_created": "x", "date_start": [], "items": {}, "sales_rep": []},
    ],
)
@pytest.mark.parametrize("kind", list(KINDS))
def test_nonsense_behind_the_apis_back_still_can_be_read(account: Account, kind: str, fields: dict[str, Any]) -> None:
    created = account.create(kind, fields)[0].record
    account.update(kind, created["jnid"], {**fields, "description": "x"})

    for sort in ("date_created", "date_start", "number", "status"):
        assert account.list(kind, {"sort_field": sort}, account.admin)[0] >= 0
        assert account.list(kind, {"sort_field": sort, "search": "x"})[0] >= 0
    account.delete(kind, created["jnid"])
