"""Invoices, payments, products, units, material orders and budgets: what the API makes of them, and their traps."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import Simulator

NOW = 1_790_000_000
ITEM = {"jnid": "p", "name": "Ridge vent", "uom": "LF", "quantity": 3, "price": 10.5, "cost": 4}
LABOR = {"name": "Flashing", "quantity": 2, "price": 100, "cost": 50, "labor": {"price": 20, "cost": 5}}
PRODUCT = {
    "name": "Cap shingle",
    "description": "Hip and ridge",
    "item_type": "material",
    "location_id": 1,
    "is_active": True,
    "tax_exempt": False,
    "uoms": [{"uom": "BDL", "material": {"cost": 40, "price": 71}, "labor": {"cost": 0, "price": 0}}],
}


def a(sim: Simulator, kind: str, **fields: Any) -> dict[str, Any]:
    rows = sim.account("stamford").records(kind)
    return next(row for row in rows if all(row[key] == value for key, value in fields.items()))


def a_job(sim: Simulator) -> dict[str, Any]:
    """One without any document."""
    rows = sim.account("stamford").records("jobs")
    return next(row for row in rows if not row["last_estimate_jnid"] and row["parent_last_estimate"] == 0)


def links(*records: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": record["jnid"], "type": record["type"]} for record in records]


async def make_invoice(api: httpx.AsyncClient, job: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"type": "invoice", "is_active": True, "status": 2, "related": links(job), "items": [ITEM, LABOR], **fields}
    answer = await api.post("/v2/invoices", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def pay(web: httpx.AsyncClient, sim: Simulator, **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"bearer {sim.keys['stamford'][0]}"}
    return await web.post("/api2/v2/payments", json={"type": "payment", **fields}, headers=headers)


async def test_a_new_invoice_is_numbered_after_its_job_and_added_up(sim: Simulator, api: httpx.AsyncClient) -> None:
    job = a_job(sim)
    first, second = await make_invoice(api, job, tax=5), await make_invoice(api, job)

    assert [link["id"] for link in first["related"]] == [job["jnid"], job["primary"]["id"]]
    assert [first["number"], second["number"]] == [f"{job['number']}-1", f"{job['number']}-2"]
    assert (first["status"], first["status_name"], first["date_invoice"]) == (2, "Open", NOW)
    # 3 at 10.50 and 2 at 100 with 20 of labor each; 5 of tax on top.
    assert [first[name] for name in ("subtotal", "tax", "total", "cost", "margin")] == [271.5, 5, 276.5, 122, 55]
    assert [item["amount"] for item in first["items"]] == [31.5, 200]
    assert first["items"][1]["labor"] == {"price": 20, "cost": 5, "amount": 40}
    assert (first["total_paid"], first["due"], first["payments"], first["date_paid_in_full"]) == (0, 276.5, [], 0)


async def test_the_subtotal_of_an_estimate_is_text(sim: Simulator, api: httpx.AsyncClient) -> None:
    body = {"type": "estimate", "is_active": True, "status": 1, "related": links(a_job(sim)), "items": [ITEM]}
    made = (await api.post("/v2/estimates", json=body)).json()

    assert (made["subtotal"], made["total"]) == ("31.5", 31.5)


async def test_new_items_replace_the_old_ones_and_the_tax_stays(sim: Simulator, api: httpx.AsyncClient) -> None:
    made = await make_invoice(api, a_job(sim), tax=5)

    changed = (await api.put(f"/v2/invoices/{made['jnid']}", json={"jnid": made["jnid"], "items": [ITEM]})).json()

    assert (len(changed["items"]), changed["total"], changed["due"]) == (1, 36.5, 36.5)


@pytest.mark.parametrize("kind", ["invoices", "products", "materialorders"])
async def test_a_put_needs_the_records_own_id_unless_it_only_deletes(
    sim: Simulator, api: httpx.AsyncClient, kind: str
) -> None:
    jnid = a(sim, kind)["jnid"]
    path = f"/v2/{kind}/{jnid}"

    for body in ({"external_id": "x"}, {"jnid": "other", "external_id": "x"}):
        refused = await api.put(path, json=body)
        assert (refused.status_code, refused.text) == (400, "DocId must match the jnid used in the body")
    assert (await api.put(path, json={"jnid": jnid, "external_id": "x"})).json()["external_id"] == "x"
    assert (await api.put(path, json={"is_active": False})).json()["is_active"] is False
    gone = await api.get(path)
    assert (gone.status_code, gone.text) == (404, "Not Found")


async def test_invoices_are_listed_under_their_old_path_too(sim: Simulator, api: httpx.AsyncClient) -> None:
    job = a(sim, "invoices")["related"][0]["id"]
    params = {"filter": json.dumps({"must": [{"term": {"related.id": job}}]})}

    old, new = [(await api.get(path, params=params)).json() for path in ("/invoices", "/v2/invoices")]

    assert old == new
    assert old["count"] == 1


async def test_invoices_can_be_filtered_by_what_is_due(sim: Simulator, api: httpx.AsyncClient) -> None:
    rows = list(sim.account("stamford").records("invoices"))
    params = {"filter": json.dumps({"must": [{"range": {"due": {"gt": 0}}}]}), "sort_field": "due"}

    listed = (await api.get("/v2/invoices", params=params)).json()

    assert listed["count"] == sum(row["due"] > 0 for row in rows)
    assert [row["due"] for row in listed["results"]] == sorted((row["due"] for row in rows if row["due"]), reverse=True)


async def test_payments_settle_the_invoices_they_name_and_show_on_job_and_contact(
    sim: Simulator, sim_clock: ManualClock, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    account, job = sim.account("stamford"), a_job(sim)
    invoice = await make_invoice(api, job, items=[{**ITEM, "price": 100}])
    sim_clock.advance(60)

    first = (
        await pay(
            web,
            sim,
            total=120,
            date_payment=NOW + 10,
            method_id=2,
            reference="CHK 1",
            related=links(job),
            invoices=[{"invoice_id": invoice["jnid"], "amount": 100}],
        )
    ).json()
    partly = (await api.get(f"/v2/invoices/{invoice['jnid']}")).json()
    second = (
        await pay(web, sim, total=200, related=links(job), invoices=[{"invoice_id": invoice["jnid"], "amount": 200}])
    ).json()
    settled = (await api.get(f"/v2/invoices/{invoice['jnid']}")).json()

    assert first["credit"] == 20
    assert first["invoices"] == [
        {
            "created_by": account.admin,
            "date_created": NOW + 60,
            "invoice_id": invoice["jnid"],
            "invoice_no": invoice["number"],
            "amount": 100,
            "is_active": True,
        }
    ]
    assert [link["id"] for link in first["related"]] == [job["jnid"], job["primary"]["id"]]
    assert (first["primary"]["id"], first["owners"]) == (
        job["primary"]["id"],
        account.get("contacts", job["primary"]["id"])["owners"],  # type: ignore[index]  # it is there
    )
    assert [partly[name] for name in ("total_paid", "due", "first_payment_date", "date_paid_in_full")] == [
        100,
        200,
        NOW + 10,
        0,
    ]
    assert [settled[name] for name in ("total_paid", "due", "first_payment_date", "date_paid_in_full")] == [
        300,
        0,
        NOW + 10,
        NOW + 60,
    ]
    assert settled["payments"] == [
        {"jnid": first["jnid"], "amount": 100, "is_active": True},
        {"jnid": second["jnid"], "amount": 200, "is_active": True},
    ]
    # Nobody wrote the invoice itself, nor the job.
    assert settled["date_updated"] == invoice["date_updated"] == NOW
    for kind, jnid in (("jobs", job["jnid"]), ("contacts", job["primary"]["id"])):
        shown = account.get(kind, jnid)
        assert shown is not None
        assert (shown["approved_invoice_total"], shown["approved_invoice_due"]) == (300, 0)
        assert (shown["last_invoice"], shown["last_invoice_jnid"]) == (300, invoice["jnid"])
    again = account.get("jobs", job["jnid"])
    assert again is not None
    assert again["date_updated"] == job["date_updated"]
    assert (again["parent_approved_invoice_total"], again["parent_last_invoice"]) == (300, 300)


@pytest.mark.parametrize(
    ("payment", "paid", "credit"),
    [
        ({"total": 100, "amount": 100}, 100, 0),
        ({"total": 100, "amount": 80}, 80, 20),
        ({"total": 100, "amount": 80, "refunded_amount": 20}, 80, 0),
        ({"total": 100, "amount": 80, "refunded_amount": 30}, 70, 0),
        ({"total": 100, "amount": 80, "refunded_amount": 100}, 0, 0),
        ({"total": 100, "amount": 80, "is_active": False}, 0, 100),
    ],
)
def test_a_refund_first_takes_what_no_invoice_got(
    sim: Simulator, payment: dict[str, Any], paid: int, credit: int
) -> None:
    account = sim.account("stamford")
    invoice = account.create("invoices", {"items": [{"quantity": 1, "price": 500}]})[0].record
    entry = {"invoice_id": invoice["jnid"], "amount": payment["amount"], "is_active": payment.get("is_active", True)}
    sent = {key: value for key, value in payment.items() if key in ("total", "refunded_amount")}

    made = account.create("payments", {**sent, "invoices": [entry]})[0].record

    shown = account.get("invoices", invoice["jnid"])
    assert shown is not None
    assert (shown["total_paid"], shown["due"], made["credit"]) == (paid, 500 - paid, credit)


def test_a_payment_that_is_deleted_is_due_again(sim: Simulator) -> None:
    account = sim.account("stamford")
    invoice = next(row for row in account.records("invoices") if len(row["payments"]) == 1 and row["due"] == 0)

    account.delete("payments", invoice["payments"][0]["jnid"])

    shown = account.get("invoices", invoice["jnid"])
    assert shown is not None
    assert (shown["due"], shown["payments"], shown["date_paid_in_full"]) == (invoice["total"], [], 0)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"related": ["JOB"]}, 500, "Missing required field(s): total"),
        ({"total": 5}, 500, "Missing required field(s): related"),
        ({"total": 5, "related": []}, 500, "Missing required field(s): related"),
        ({"total": "5", "related": ["JOB"]}, 400, "Invalid total - 5"),
        ({"total": 5, "related": ["JOB"], "date_payment": "today"}, 400, "Invalid date_payment - today"),
        ({"total": 5, "related": ["JOB"], "invoices": [{"invoice_id": "x"}]}, 400, "Invalid invoice_id - x"),
        ({"total": 5, "related": ["JOB"], "invoices": ["x"]}, 400, "Invalid invoice_id - x"),
        ({"total": 5, "related": ["JOB"], "invoices": {"a": 1}}, 400, "Invalid invoices - "),
        ({"total": 5, "related": [{"id": "x"}]}, 400, "Attempt to relate to invalid document"),
    ],
)
async def test_a_bad_payment_is_refused_in_the_services_words(
    sim: Simulator, web: httpx.AsyncClient, body: dict[str, Any], status: int, message: str
) -> None:
    before = sim.account("stamford").list("payments", {"size": "0"})[0]
    if body.get("related") == ["JOB"]:
        body = {**body, "related": links(a_job(sim))}

    answer = await pay(web, sim, **body)

    assert answer.status_code == status
    assert answer.text.startswith(message)
    assert sim.account("stamford").list("payments", {"size": "0"})[0] == before


async def test_payments_want_a_key_and_count_as_calls(sim: Simulator, web: httpx.AsyncClient) -> None:
    answer = await web.post("/api2/v2/payments", json={})

    assert (answer.status_code, answer.json()) == (401, {"status": 401, "body": "Authentication required"})
    assert sim.calls_by_path() == {"/api2/v2/payments": 1}


async def test_units_are_a_bare_list(api: httpx.AsyncClient) -> None:
    assert (await api.get("/utility/uoms")).json() == ["Items", "SQ", "LF", "SF", "EA", "BDL", "HR"]


async def test_products_belong_to_nobody_and_items_refer_to_them(
    sim: Simulator, api: httpx.AsyncClient, restricted: httpx.AsyncClient
) -> None:
    account = sim.account("stamford")
    made = (await api.post("/v2/products", json=PRODUCT)).json()
    sold_later = (await api.post("/v2/products", json={**PRODUCT, "is_active": False})).json()

    assert {"owners", "related", "sales_rep"}.isdisjoint(made)
    assert {key: made[key] for key in PRODUCT} == PRODUCT
    assert (await restricted.get(f"/v2/products/{made['jnid']}")).json() == made
    assert (await api.get(f"/v2/products/{sold_later['jnid']}")).json()["is_active"] is False
    products = {row["jnid"]: row["name"] for row in account.records("products")}
    items = [item for row in account.records("invoices") for item in row["items"]]
    assert [products[item["jnid"]] for item in items] == [item["name"] for item in items]


async def test_material_orders_are_drafts_with_line_totals(sim: Simulator, api: httpx.AsyncClient) -> None:
    made = (await api.post("/v2/materialorders", json={"related": links(a_job(sim)), "items": [ITEM]})).json()

    assert (made["status"], made["status_name"], made["date_materialorder"]) == (0, "Draft", NOW)
    assert (made["total_line_item_price"], made["total_line_item_cost"]) == (31.5, 12)
    assert made["number"].startswith("MO-")


def test_the_latest_budget_shows_on_job_and_contact(sim: Simulator) -> None:
    account, job = sim.account("stamford"), a_job(sim)
    account.create("budgets", {"revenue": 1000, "gross_profit": 400, "gross_margin": 40.0, "related": links(job)})

    shown = account.get("jobs", job["jnid"])

    assert shown is not None
    names = ("last_budget_revenue", "last_budget_gross_profit", "last_budget_gross_margin")
    assert [shown[name] for name in names] == [1000, 400, 40.0]


async def test_a_sales_rep_goes_on_a_contact_by_put_only(sim: Simulator, api: httpx.AsyncClient) -> None:
    account = sim.account("stamford")
    body = {"display_name": "Nova Contact", "record_type_name": "Customer", "status_name": "Lead"}

    refused = await api.post("/contacts", json={**body, "sales_rep": account.restricted_user})
    made = (await api.post("/contacts", json=body)).json()
    put = (await api.put(f"/contacts/{made['jnid']}", json={"sales_rep": account.restricted_user})).json()

    assert (refused.status_code, refused.text.split(":")[0]) == (500, "CouchbaseError")
    assert put["sales_rep_name"] == account.user_name(account.restricted_user)


async def test_an_actor_is_the_author_and_limits_what_is_seen(
    sim: Simulator, api: httpx.AsyncClient, restricted: httpx.AsyncClient
) -> None:
    account = sim.account("stamford")
    rep = account.user(account.restricted_user)
    assert rep is not None
    as_rep = {"actor": rep.email.upper()}
    body = {"title": "t", "date_start": NOW, "record_type_name": "Task"}

    made = (await api.post("/tasks", json=body, params=as_rep)).json()
    mine = (row for row in account.records("contacts") if row["sales_rep"] == rep.id != row["created_by"])
    changed = (await api.put(f"/contacts/{next(mine)['jnid']}", json={"description": "x"}, params=as_rep)).json()

    assert (made["created_by"], made["created_by_name"]) == (rep.id, rep.name)
    assert (changed["created_by"], changed["created_by_name"]) == (rep.id, rep.name)
    assert (await api.get("/jobs", params=as_rep)).json() == (await restricted.get("/jobs")).json()
    hidden = next(row for row in account.records("jobs") if row["sales_rep"] != rep.id)
    assert (await api.get(f"/jobs/{hidden['jnid']}", params=as_rep)).status_code == 404
    # Adding to settings takes the right of the person, not of the key.
    assert (await api.post("/account/leadsource", json={"SourceName": "Radio"}, params=as_rep)).status_code == 403


@pytest.mark.parametrize("email", ["nobody@example.com", "", "LEFT"])
async def test_an_actor_whom_nobody_knows_or_who_left_is_ignored(
    sim: Simulator, api: httpx.AsyncClient, email: str
) -> None:
    account = sim.account("stamford")
    if email == "LEFT":
        email = next(row["email"] for row in account.users()["users"] if not row["is_active"])
    body = {"title": "t", "date_start": NOW, "record_type_name": "Task"}

    assert (await api.get("/jobs", params={"actor": email})).json() == (await api.get("/jobs")).json()
    assert (await api.post("/tasks", json=body, params={"actor": email})).json()["created_by"] == account.admin


async def test_a_restricted_key_cannot_become_somebody_else(sim: Simulator, restricted: httpx.AsyncClient) -> None:
    admin = sim.account("stamford").user(sim.account("stamford").admin)
    assert admin is not None

    assert (await restricted.get("/jobs", params={"actor": admin.email})).json()["count"] < 300


async def test_parameters_that_nobody_knows_filter_nothing(api: httpx.AsyncClient) -> None:
    everything = (await api.get("/v2/invoices")).json()

    assert (await api.get("/v2/invoices", params={"status": "Open", "date_from": "1", "q": "x"})).json() == everything


@pytest.mark.parametrize("kind", ["invoices", "payments", "products", "materialorders", "budgets"])
def test_the_new_kinds_leave_those_that_were_there_alone(kind: str, sim: Simulator) -> None:
    """Their records come after all others, so ids and sequence numbers of those do not depend on them."""
    account = sim.account("stamford")
    old = ("contacts", "jobs", "tasks", "activities", "files", "estimates", "workorders")
    last = max(row["recid"] for name in old for row in account.records(name))

    assert min(row["recid"] for row in account.records(kind)) > last
