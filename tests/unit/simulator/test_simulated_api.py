"""The REST surface: authentication, envelopes, errors, writes, files."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import Simulator

ROOFING = {"record_type_name": "Roofing", "status_name": "Lead"}
CUSTOMER = {"record_type_name": "Customer", "status_name": "Lead"}
INVOICE = {"type": "invoice", "is_active": True, "status": 2, "related": [], "items": []}
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


@pytest.mark.parametrize("header", [None, "", "bearer", "bearer wrong", "token {}", "{}"])
async def test_without_a_good_key_there_is_one_and_the_same_401(
    sim: Simulator, web: httpx.AsyncClient, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header.format(sim.keys["stamford"][0])}
    answer = await web.get("/api1/jobs", headers=headers)

    assert (answer.status_code, answer.json()) == (401, {"status": 401, "body": "Authentication required"})


@pytest.mark.parametrize("scheme", ["bearer", "Bearer", "BEARER"])
async def test_the_scheme_may_be_spelled_in_any_case(sim: Simulator, web: httpx.AsyncClient, scheme: str) -> None:
    answer = await web.get("/api1/jobs", headers={"Authorization": f"{scheme} {sim.keys['guilford'][0]}"})

    assert answer.status_code == 200
    assert answer.json()["results"][0] == sim.account("guilford").list("jobs", {})[1][0]


@pytest.mark.parametrize(
    ("path", "kind", "key"),
    [
        ("/contacts", "contacts", "results"),
        ("/jobs", "jobs", "results"),
        ("/tasks", "tasks", "results"),
        ("/activities", "activities", "activity"),
        ("/files", "files", "files"),
        ("/v2/estimates", "estimates", "results"),
        ("/v2/workorders", "workorders", "results"),
        ("/v2/invoices", "invoices", "results"),
        ("/payments", "payments", "results"),
        ("/v2/products", "products", "results"),
        ("/v2/materialorders", "materialorders", "results"),
        ("/budgets", "budgets", "results"),
    ],
)
async def test_lists_and_records_come_in_their_envelopes(
    sim: Simulator, api: httpx.AsyncClient, path: str, kind: str, key: str
) -> None:
    count, rows = sim.account("stamford").list(kind, {"size": "3"})
    listed = await api.get(path, params={"size": 3})
    single = await api.get(f"{path}/{rows[0]['jnid']}")

    assert listed.headers["content-type"] == "application/json"
    assert listed.json() == {"count": count, key: rows}
    if kind in ("payments", "budgets"):
        assert (single.status_code, single.text) == (404, "Not Found")
    elif kind != "files":
        assert single.json() == rows[0]


async def test_settings_and_users(sim: Simulator, api: httpx.AsyncClient, restricted: httpx.AsyncClient) -> None:
    account = sim.account("stamford")

    assert (await api.get("/account/settings")).json() == account.settings
    assert (await restricted.get("/account/settings")).json() == account.settings
    assert (await api.get("/account/settings", params={"field": "sources"})).json() == account.settings["sources"]
    groups = (await api.get("/account/settings", params={"field": "groups"})).json()
    assert [group["name"] for group in groups] == ["Sales", "Production"]
    users = (await api.get("/account/users")).json()
    assert users == account.users()
    assert {"id", "first_name", "last_name", "email", "is_active"} <= set(users["users"][0])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/users", 404),
        ("GET", "/notes", 404),
        ("GET", "/webhooks", 404),
        ("GET", "/estimates", 404),
        ("GET", "", 404),
        ("GET", "/jobs/", 404),
        ("GET", "/jobs/nosuchjob", 404),
        ("PUT", "/jobs/nosuchjob", 404),
        ("GET", "/account/customfield", 405),
        ("GET", "/account/leadsource", 405),
        ("GET", "/account/workflow/24/status", 405),
        ("POST", "/account/settings", 405),
        ("PATCH", "/jobs", 405),
        ("PUT", "/jobs", 405),
        ("DELETE", "/jobs/nosuchjob", 405),
        ("POST", "/jobs/nosuchjob", 405),
        ("GET", "/invoices/nosuchinvoice", 404),
        ("POST", "/invoices", 405),
        ("POST", "/payments", 405),
        ("POST", "/v2/payments", 404),
        ("POST", "/budgets", 405),
        ("PUT", "/payments/nosuchpayment", 404),
        ("POST", "/utility/uoms", 405),
        ("GET", "/account/location", 405),
        ("GET", "/credit_memos", 404),
    ],
)
async def test_what_is_not_there_says_so_in_plain_text(
    api: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await api.request(method, path)

    text = {404: "Not Found", 405: "Method Not Allowed"}[status]
    assert (answer.status_code, answer.text) == (status, text)
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/", "/jobs", "/api2/v2/payments", "/api1x/jobs", "/api/jobs"])
async def test_a_wrong_root_is_200_with_the_web_app(web: httpx.AsyncClient, path: str) -> None:
    answer = await web.get(path)

    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/html")


async def test_a_ping_by_head_has_no_body(api: httpx.AsyncClient) -> None:
    answer = await api.head("/contacts")

    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_restricted_key_gets_404_for_what_it_may_not_see(sim: Simulator, restricted: httpx.AsyncClient) -> None:
    account = sim.account("stamford")
    viewer = account.restricted_user
    hidden = next(row for row in account.records("jobs") if row["sales_rep"] != viewer)
    own = next(row for row in account.records("jobs") if row["sales_rep"] == viewer)

    assert (await restricted.get(f"/jobs/{hidden['jnid']}")).status_code == 404
    refused = await restricted.put(f"/jobs/{hidden['jnid']}", json={"description": "x"})
    assert refused.status_code == 404
    assert account.get("jobs", hidden["jnid"]) == hidden
    assert (await restricted.get(f"/jobs/{own['jnid']}")).json() == own
    listed = (await restricted.get("/jobs")).json()
    assert 0 < listed["count"] < 300


async def test_list_errors_are_plain_text_400s(api: httpx.AsyncClient) -> None:
    window = await api.get("/activities", params={"from": 1000})
    malformed = await api.get("/jobs", params={"filter": "{"})

    assert (window.status_code, malformed.status_code) == (400, 400)
    assert "Result window is too large" in window.text
    assert "parse_exception" in malformed.text


async def test_a_single_record_can_be_cut_to_fields(sim: Simulator, api: httpx.AsyncClient) -> None:
    job = a(sim, "jobs")

    assert (await api.get(f"/jobs/{job['jnid']}", params={"fields": "name"})).json() == {"name": job["name"]}


async def test_a_created_job_is_answered_whole_by_its_key_user(
    sim: Simulator, api: httpx.AsyncClient, restricted: httpx.AsyncClient
) -> None:
    account = sim.account("stamford")
    for client, user in ((api, account.admin), (restricted, account.restricted_user)):
        body = {"name": f"By {user}", **ROOFING, "nonsense": 1, "task_count": 99, "Shingle Color": "Slate"}
        record = (await client.post("/jobs", json=body)).json()
        assert record == account.get("jobs", record["jnid"])
        assert (record["created_by"], record["created_by_name"]) == (user, account.user_name(user))
        assert (record["status"], record["task_count"], record["cf_string_3"]) == (350, 0, "Slate")
        assert "nonsense" not in record


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/jobs", ROOFING, 400, "Missing required field(s): name"),
        ("/jobs", {"name": "n"}, 400, "Missing required field(s): record_type_name, status_name"),
        ("/jobs", {"name": "n", **ROOFING, "record_type_name": "Solar"}, 400, "Invalid record_type_name - Solar"),
        ("/jobs", {"name": "n", **ROOFING, "status_name": "Assessed"}, 400, "Invalid status_name - Assessed"),
        ("/jobs", {"name": "n", **ROOFING, "source_name": "Radio"}, 400, "Invalid source_name - Radio"),
        ("/jobs", {"name": "n", **ROOFING, "primary": {"id": "x"}}, 400, "Attempt to relate to invalid document"),
        ("/contacts", CUSTOMER, 400, "Missing required field(s): one of"),
        (
            "/contacts",
            {"company": "c", **CUSTOMER, "record_type_name": "Commercial", "status_name": "Prospect"},
            400,
            "Invalid record_type_name - Commercial",
        ),
        ("/contacts", {"company": "c", **CUSTOMER, "email": "nobody"}, 400, "Invalid email - nobody"),
        ("/tasks", {"title": "t", "date_start": 1, "record_type_name": "Note"}, 400, "Invalid record_type_name - Note"),
        ("/tasks", {"title": "t", "record_type_name": "Task"}, 400, "Missing required field(s): date_start"),
        ("/tasks", {"title": "t", "date_start": "2026-01-01", "record_type_name": "Task"}, 400, "Invalid date_start"),
        (
            "/contacts",
            {"company": "c", **CUSTOMER, "sales_rep": "u"},
            500,
            "CouchbaseError: the key does not exist on the server - user::u",
        ),
        ("/v2/invoices", {"type": "invoice"}, 400, "Missing required field(s): is_active, status, related, items"),
        ("/v2/invoices", {**INVOICE, "type": "estimate"}, 400, "Invalid type - estimate"),
        ("/v2/invoices", {**INVOICE, "status": 99}, 400, "Invalid status - 99"),
        ("/v2/invoices", {**INVOICE, "status": "Open"}, 400, "Invalid status - Open"),
        ("/v2/invoices", {**INVOICE, "related": ["x"]}, 400, "Attempt to relate to invalid document"),
        ("/v2/products", {"name": "n"}, 400, "description, item_type, location_id, is_active, tax_exempt, uoms"),
        ("/v2/products", {**PRODUCT, "item_type": "goods"}, 400, "Invalid item_type - goods"),
        ("/v2/products", {**PRODUCT, "uoms": "SQ"}, 400, "Invalid uoms - SQ"),
        ("/v2/materialorders", {}, 400, "Missing required field(s): related, items"),
        ("/files/fromUrl", {"url": "ftp://x/y"}, 400, "Invalid url - ftp://x/y"),
        ("/files/fromUrl", {"url": "http://x/y", "type": "Nope"}, 400, "Valid FileTypeIds: 1, 2, 3"),
        (
            "/activities",
            {"note": "n", "record_type_name": "Note", "related": []},
            400,
            "Attempt to relate to invalid document",
        ),
        ("/activities", {"note": "n", "record_type_name": "Note"}, 400, "Missing required field(s): primary"),
        ("/v2/estimates", {"type": "estimate"}, 400, "Missing required field(s): is_active, status, related, items"),
        ("/files", {"filename": "f"}, 400, "Missing required field(s): data"),
        ("/files", {"filename": "f", "data": "%%%"}, 400, "Invalid data"),
        ("/files", {"filename": "f", "data": "eA==", "type": "Photo"}, 400, "Valid FileTypeIds: 1, 2, 3"),
        ("/files", {"filename": "f", "data": "eA==", "type": 99}, 400, "Valid FileTypeIds: 1, 2, 3"),
        (
            "/files",
            {"filename": "f", "data": "eA==", "type": 2, "related": ["x"]},
            500,
            "Attempt to relate to invalid document",
        ),
        (
            "/files",
            {"filename": "f", "data": "eA==", "type": 2, "related": [{"id": "x"}]},
            500,
            "Attempt to relate to invalid document",
        ),
        ("/jobs", [1], 400, "Invalid JSON"),
        ("/jobs", {**ROOFING, "name": 5}, 400, "Invalid name - 5"),
        ("/jobs", {"name": "n", **ROOFING, "related": "x"}, 400, "Attempt to relate to invalid document"),
        (
            "/v2/estimates",
            {"type": "invoice", "is_active": True, "status": 1, "related": [{"id": "x"}], "items": [{}]},
            400,
            "Invalid type - invoice",
        ),
        (
            "/v2/estimates",
            {"type": "estimate", "is_active": True, "status": 1, "related": [{"id": "x"}], "items": [{}]},
            400,
            "Attempt to relate to invalid document",
        ),
    ],
)
async def test_a_bad_create_is_refused_in_the_services_words(
    sim: Simulator, api: httpx.AsyncClient, path: str, body: Any, status: int, message: str
) -> None:
    before = {kind: sim.account("stamford").list(kind, {"size": "0"})[0] for kind in ("jobs", "contacts", "activities")}
    answer = await api.post(path, json=body)

    assert answer.status_code == status
    assert message in answer.text
    after = {kind: sim.account("stamford").list(kind, {"size": "0"})[0] for kind in before}
    assert after == before


async def test_a_body_that_is_not_json_is_a_400(api: httpx.AsyncClient) -> None:
    answer = await api.post("/jobs", content=b"{")

    assert (answer.status_code, answer.text) == (400, "Invalid JSON")


async def test_a_bad_change_is_refused_and_changes_nothing(sim: Simulator, api: httpx.AsyncClient) -> None:
    job = a(sim, "jobs", record_type_name="Roofing")

    answer = await api.put(f"/jobs/{job['jnid']}", json={"description": "x", "status_name": "Assessed"})

    assert (answer.status_code, answer.text) == (400, "Invalid status_name - Assessed")
    assert sim.account("stamford").get("jobs", job["jnid"]) == job


async def test_documents_tasks_and_notes_are_created_by_name(sim: Simulator, api: httpx.AsyncClient) -> None:
    link = [{"id": a(sim, "jobs")["jnid"]}]
    item = {"name": "x", "quantity": 3, "price": 10, "cost": 4}
    estimate = {"type": "estimate", "is_active": True, "status": 2, "related": link, "items": [item]}
    order = {"name": "crew", "record_type_name": "Install", "status_name": "Assigned", "related": link, "items": [item]}
    task = {"title": "t", "date_start": 1_790_000_500, "record_type_name": "appointment", "related": link}
    note = {"note": "n", "record_type_name": "Note", "primary": link[0], "date_created": 1_780_000_000}

    made = [
        (await api.post(path, json=body)).json()
        for path, body in (
            ("/v2/estimates", estimate),
            ("/v2/workorders", order),
            ("/tasks", task),
            ("/activities", note),
        )
    ]

    assert [row["related"][0]["id"] for row in made] == [link[0]["id"]] * 4
    assert (made[0]["status_name"], made[0]["total"]) == ("Sent", 30)
    assert (made[1]["status"], made[1]["total_line_item_price"], made[1]["total_line_item_cost"]) == (366, 30, 12)
    assert (made[2]["record_type"], made[2]["record_type_name"], made[2]["primary"]) == (3, "Appointment", None)
    assert (made[3]["record_type"], made[3]["date_created"], made[3]["date_updated"]) == (
        1,
        1_780_000_000,
        1_790_000_000,
    )


async def test_names_must_be_new_whatever_their_case(sim: Simulator, api: httpx.AsyncClient) -> None:
    job, contact = a(sim, "jobs"), a(sim, "contacts")

    duplicates = [
        await api.post("/jobs", json={"name": job["name"].upper(), **ROOFING}),
        await api.post("/contacts", json={"display_name": contact["display_name"], **CUSTOMER}),
    ]
    kept = await api.put(f"/jobs/{job['jnid']}", json={"name": job["name"], "description": "same name, same job"})

    assert [(answer.status_code, answer.text) for answer in duplicates] == [
        (400, "Duplicate job exists"),
        (400, "Duplicate contact exists"),
    ]
    assert kept.status_code == 200


async def test_a_put_merges_and_a_status_is_logged(sim: Simulator, api: httpx.AsyncClient) -> None:
    job = a(sim, "jobs", status_name="Approved", record_type_name="Roofing")
    body = {"record_type_name": "Roofing", "status_name": "Scheduled"}

    record = (await api.put(f"/jobs/{job['jnid']}", json=body)).json()
    params = {"filter": json.dumps({"must": [{"term": {"primary.id": job["jnid"]}}, {"term": {"record_type": 19}}]})}
    logged = (await api.get("/activities", params=params)).json()["activity"][0]

    assert (record["status"], record["name"], record["tags"]) == (354, job["name"], job["tags"])
    assert (logged["primary"]["old_status"], logged["primary"]["new_status"]) == (353, 354)


async def test_a_put_of_a_document_needs_its_own_id_in_the_body(sim: Simulator, api: httpx.AsyncClient) -> None:
    estimate, order = a(sim, "estimates"), a(sim, "workorders")
    path = f"/v2/estimates/{estimate['jnid']}"

    for body in ({"note": "x"}, {"jnid": "other", "note": "x"}):
        refused = await api.put(path, json=body)
        assert (refused.status_code, refused.text) == (400, "DocId must match the jnid used in the body")
    assert (await api.put(path, json={"jnid": estimate["jnid"], "note": "x"})).json()["note"] == "x"
    assert (await api.put(f"/v2/workorders/{order['jnid']}", json={"is_active": False})).status_code == 200
    assert (await api.get(f"/v2/workorders/{order['jnid']}")).status_code == 404


async def test_a_deactivated_job_is_gone_and_logged(sim: Simulator, api: httpx.AsyncClient) -> None:
    job = a(sim, "jobs")

    answer = await api.put(f"/jobs/{job['jnid']}", json={"is_active": False})

    assert answer.json()["is_active"] is False
    gone = await api.get(f"/jobs/{job['jnid']}")
    assert (gone.status_code, gone.text) == (404, "Not Found")
    phrase = {"must": [{"match_phrase": {"record_type_name": "Job Deleted"}}]}
    logged = (await api.get("/activities", params={"filter": json.dumps(phrase)})).json()
    assert [row["primary"]["id"] for row in logged["activity"]] == [job["jnid"]]


async def test_an_upload_is_linked_and_can_be_downloaded(sim: Simulator, api: httpx.AsyncClient) -> None:
    job = a(sim, "jobs")
    data = base64.b64encode(b"the content").decode()
    body = {
        "data": data,
        "filename": "scope.pdf",
        "content_type": "application/pdf",
        "type": 2,
        "related": [job["primary"]["id"], job["jnid"]],
    }

    record = (await api.post("/files", json=body)).json()
    content = await api.get(f"/files/{record['jnid']}")

    assert [link["id"] for link in record["related"]] == [job["jnid"], job["primary"]["id"]]
    assert record["primary"]["id"] == job["jnid"]
    assert (record["record_type_name"], record["size"], record["owners"]) == ("Photo", 11, job["owners"])
    assert (content.content, content.headers["content-type"]) == (b"the content", "application/pdf")


@pytest.mark.parametrize(
    "link",
    [
        {"type": 2, "related": {"id": "JOB"}},
        {"type": 2, "primary": {"id": "JOB"}},
        {"record_type_name": "Photo", "related": ["JOB"]},
    ],
)
async def test_an_upload_with_another_link_shape_silently_loses_the_link(
    sim: Simulator, api: httpx.AsyncClient, link: dict[str, Any]
) -> None:
    sent = json.loads(json.dumps(link).replace("JOB", a(sim, "jobs")["jnid"]))
    answer = await api.post("/files", json={"data": "eA==", "filename": "f", **sent})

    assert answer.status_code == 200
    assert (answer.json()["related"], answer.json()["primary"]) == ([], None)


async def test_an_upload_as_a_form_is_a_500(api: httpx.AsyncClient) -> None:
    answer = await api.post("/files", files={"file": ("f.txt", b"x")})

    assert (answer.status_code, answer.text) == (500, "Invalid parameters")


async def test_a_seeded_file_has_a_small_body_of_its_type(sim: Simulator, api: httpx.AsyncClient) -> None:
    paper = a(sim, "files", content_type="application/pdf")
    answer = await api.get(f"/files/{paper['jnid']}")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    assert paper["jnid"].encode() in answer.content
    assert len(answer.content) < 1000


async def test_a_file_is_deleted_only_once_it_is_a_second_old(
    sim: Simulator, sim_clock: ManualClock, api: httpx.AsyncClient
) -> None:
    record = (await api.post("/files", json={"data": "eA==", "filename": "f", "type": 1})).json()
    path = f"/files/{record['jnid']}"

    early = await api.delete(path)
    assert (early.status_code, early.json()) == (200, {"msg": "success"})
    assert (await api.get(path)).status_code == 200

    sim_clock.advance(1)
    assert (await api.delete(path)).json() == {"msg": "success"}
    assert (await api.get(path)).status_code == 404
    assert (await api.delete(path)).status_code == 404
