"""The control routes and the faults they switch on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.simulator.faults import FaultPlan, parse_fault


async def called(sim: Simulator) -> None:
    """Return once a first API call has arrived."""
    for _ in range(1000):
        if sim.calls:
            return
        await asyncio.sleep(0)
    pytest.fail("no call arrived")


async def test_keys_are_told_per_instance(sim: Simulator, web: httpx.AsyncClient) -> None:
    keys = (await web.get("/_sim/keys")).json()

    assert keys == {name: list(pair) for name, pair in sim.keys.items()}
    assert list(keys) == ["stamford", "guilford"]
    assert len({key for pair in keys.values() for key in pair}) == 4


async def test_only_api_calls_are_counted(sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient) -> None:
    jnid = next(iter(sim.account("stamford").records("jobs")))["jnid"]
    await api.get("/jobs")
    await api.get("/jobs", params={"size": 1})
    await api.get(f"/jobs/{jnid}")
    await api.get("/v2/estimates")
    await web.get("/api1/jobs")
    await web.get("/elsewhere")
    await web.get("/_sim/keys")

    report = (await web.get("/_sim/calls")).json()

    assert report["total"] == sim.calls == 5
    assert report["byPath"] == sim.calls_by_path() == {"/jobs": 3, f"/jobs/{jnid}": 1, "/v2/estimates": 1}
    assert report["webhooks"] == {"delivered": 0, "failed": 0}


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        ("jobs", "jobs"),
        ("v2/estimates", "v2/estimates"),
        ("estimates", "v2/estimates"),
        ("workorders", "v2/workorders"),
        ("attachments", "files"),
        ("files", "files"),
        ("invoices", "v2/invoices"),
        ("payments", "payments"),
        ("v2/products", "products"),
        ("materialorders", "v2/materialorders"),
        ("budgets", "budgets"),
    ],
)
async def test_records_are_made_changed_and_removed_behind_the_apis_back(
    sim: Simulator, web: httpx.AsyncClient, spelling: str, path: str
) -> None:
    other = sim.account("guilford")
    params = {"instance": "guilford"}
    made = (await web.post(f"/_sim/records/{spelling}", json={"name": "n", "filename": "n"}, params=params)).json()
    assert other.get(path, made["jnid"]) == made

    one = f"/_sim/records/{spelling}/{made['jnid']}"
    changed = (await web.put(one, json={"description": "behind"}, params=params)).json()
    assert (changed["description"], other.get(path, made["jnid"])) == ("behind", changed)

    assert (await web.put(one, json={"description": "x"})).status_code == 404
    removed = await web.delete(one, params=params)
    assert (removed.status_code, other.get(path, made["jnid"])) == (200, None)


async def test_the_first_instance_is_meant_without_one(sim: Simulator, web: httpx.AsyncClient) -> None:
    made = (await web.post("/_sim/records/tasks", json={"title": "t"})).json()

    assert sim.account("stamford").get("tasks", made["jnid"]) == made


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/_sim/records/creditmemos", "{}", 404),
        ("POST", "/_sim/records/jobs", "{", 400),
        ("POST", "/_sim/records/jobs", "[]", 400),
        ("POST", "/_sim/records/jobs?instance=elsewhere", "{}", 400),
        ("POST", "/_sim/records/jobs?webhook=perhaps", "{}", 400),
        ("GET", "/_sim/records/jobs", "", 405),
        ("PUT", "/_sim/records/jobs/nosuchjob", "{}", 404),
        ("DELETE", "/_sim/records/jobs/nosuchjob", "", 404),
        ("POST", "/_sim/faults", "{", 400),
        ("POST", "/_sim/faults", "{}", 400),
        ("POST", "/_sim/faults", '{"status": "500"}', 400),
        ("POST", "/_sim/faults", '{"status": 700}', 400),
        ("POST", "/_sim/faults", '{"status": 500, "times": 0}', 400),
        ("POST", "/_sim/faults", '{"stauts": 500}', 400),
        ("POST", "/_sim/faults", '{"status": 500, "method": "post"}', 400),
        ("POST", "/_sim/faults", '{"status": 500, "after": 1}', 400),
        ("POST", "/_sim/faults", '{"latencyMs": 5, "after": true}', 400),
        ("GET", "/_sim/reset", "", 405),
        ("GET", "/_sim/nonsense", "", 404),
        ("GET", "/_sim", "", 404),
    ],
)
async def test_a_mistake_is_told_as_json(
    web: httpx.AsyncClient, method: str, path: str, body: str, status: int
) -> None:
    answer = await web.request(method, path, content=body)

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


async def test_reset_brings_back_data_faults_and_counters(
    sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    start = (await api.get("/jobs")).json()
    jnid = start["results"][0]["jnid"]
    await api.put(f"/jobs/{jnid}", json={"description": "changed"})
    await web.delete(f"/_sim/records/jobs/{start['results'][1]['jnid']}")
    await web.post("/_sim/faults", json={"status": 500})

    assert (await web.post("/_sim/reset")).status_code == 200

    assert sim.calls == 0
    assert sim.calls_by_path() == {}
    assert (await api.get("/jobs")).json() == start


async def test_a_fault_hits_its_path_as_often_as_asked_in_every_account(
    sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    await web.post("/_sim/faults", json={"status": 500, "path": "/jobs", "times": 3})
    other = {"Authorization": f"bearer {sim.keys['guilford'][0]}"}

    assert (await api.get("/contacts")).status_code == 200
    assert (await api.get("/jobs")).status_code == 500
    assert (await api.get("/jobs/nosuchjob")).status_code == 500
    assert (await web.get("/api1/jobs", headers=other)).status_code == 500
    assert (await api.get("/jobs")).status_code == 200


async def test_a_failed_write_changes_nothing(sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient) -> None:
    await web.post("/_sim/faults", json={"status": 503, "times": 1})

    answer = await api.post("/tasks", json={"title": "t", "date_start": 1, "record_type_name": "Task"})

    assert answer.status_code == 503
    assert "t" not in [row["title"] for row in sim.account("stamford").records("tasks")]


@pytest.mark.parametrize(("status", "shown"), [(503, "text/html"), (429, "text/plain"), (200, "text/html")])
async def test_a_write_can_take_effect_and_its_answer_fail_nevertheless(
    sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient, status: int, shown: str
) -> None:
    await web.post("/_sim/faults", json={"status": status, "after": True, "method": "POST", "times": 1})
    task = {"title": "t", "date_start": 1, "record_type_name": "Task"}

    listed = await api.get("/tasks")
    answer = await api.post("/tasks", json=task)
    again = await api.post("/tasks", json=task)

    assert listed.status_code == 200
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (status, shown)
    assert again.status_code == 200
    assert [row["title"] for row in sim.account("stamford").records("tasks")].count("t") == 2


async def test_a_payment_can_be_booked_and_its_answer_fail(
    sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    job = next(iter(sim.account("stamford").records("jobs")))
    before = sim.account("stamford").list("payments", {})[0]
    headers = {"Authorization": f"bearer {sim.keys['stamford'][0]}"}
    await web.post("/_sim/faults", json={"status": 502, "after": True, "path": "/api2/v2/payments", "times": 1})

    body = {"total": 5, "related": [{"id": job["jnid"]}]}
    answer = await web.post("/api2/v2/payments", json=body, headers=headers)

    assert answer.status_code == 502
    assert sim.account("stamford").list("payments", {})[0] == before + 1


async def test_storage_can_fail_too(sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient) -> None:
    photo = next(row for row in sim.account("stamford").records("files") if row["content_type"] == "image/jpeg")
    url = (await api.get(f"/files/{photo['jnid']}")).headers["location"]
    for fault in ({"status": 503}, {"truncate": True}):
        await web.post("/_sim/faults", json={**fault, "path": "/cdn", "times": 1})

    failed, cut, whole = [await web.get(url) for _ in range(3)]

    assert [failed.status_code, cut.status_code, whole.status_code] == [503, 200, 200]
    assert whole.content.startswith(cut.content)
    assert 0 < len(cut.content) < len(whole.content)


async def test_faults_in_turn_and_with_retry_after(web: httpx.AsyncClient, api: httpx.AsyncClient) -> None:
    await web.post("/_sim/faults", json={"status": 502, "times": 1})
    await web.post("/_sim/faults", json={"status": 429, "retryAfter": 2, "times": 1})
    await web.post("/_sim/faults", json={"status": 200, "times": 1})

    bad_gateway, too_many, page, fine = [await api.get("/jobs") for _ in range(4)]

    assert (bad_gateway.status_code, bad_gateway.headers["content-type"].split(";")[0]) == (502, "text/html")
    assert (too_many.status_code, too_many.headers["retry-after"]) == (429, "2")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert fine.json()["count"] == 300


async def test_a_truncated_answer_looks_fine_and_cannot_be_parsed(
    web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    whole = await api.get("/jobs")
    await web.post("/_sim/faults", json={"truncate": True, "times": 1})
    cut = await api.get("/jobs")

    assert (cut.status_code, cut.headers["content-type"]) == (200, "application/json")
    assert int(cut.headers["content-length"]) == len(cut.content) < len(whole.content)
    assert whole.content.startswith(cut.content)
    with pytest.raises(json.JSONDecodeError):
        cut.json()


async def test_a_stale_list_shows_what_was_and_a_read_by_id_what_is(
    sim: Simulator, sim_clock: ManualClock, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    await web.post("/_sim/faults", json={"staleListSeconds": 5})
    before = (await api.get("/jobs")).json()
    jnid = before["results"][0]["jnid"]

    await web.put(f"/_sim/records/jobs/{jnid}", json={"description": "changed"})

    assert (await api.get("/jobs")).json() == before
    assert (await api.get(f"/jobs/{jnid}")).json()["description"] == "changed"
    sim_clock.advance(5)
    assert (await api.get("/jobs")).json()["results"][0]["description"] == "changed"


async def test_a_stale_list_fault_is_not_used_up_by_other_calls(
    sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    before = (await api.get("/jobs")).json()
    jnid = before["results"][0]["jnid"]
    await web.put(f"/_sim/records/jobs/{jnid}", json={"description": "changed"})
    await web.post("/_sim/faults", json={"staleListSeconds": 5, "times": 1})

    await api.get(f"/jobs/{jnid}")

    assert (await api.get("/jobs")).json() == before
    assert (await api.get("/jobs")).json() != before


async def test_a_slow_answer_is_from_before_a_change_made_meanwhile(
    sim: Simulator, sim_clock: ManualClock, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    job = next(iter(sim.account("stamford").records("jobs")))
    await web.post("/_sim/faults", json={"latencyMs": 2000, "times": 1})
    slow = asyncio.create_task(api.get(f"/jobs/{job['jnid']}"))
    await called(sim)

    await web.put(f"/_sim/records/jobs/{job['jnid']}", json={"description": "changed"})
    fast = await api.get(f"/jobs/{job['jnid']}")
    assert not slow.done()
    sim_clock.advance(2)

    assert (await asyncio.wait_for(slow, 5)).json() == job
    assert fast.json()["description"] == "changed"


async def test_every_api_call_takes_the_latency_and_no_control_call_does(sim_clock: ManualClock) -> None:
    sim = Simulator(instances=("one",), clock=sim_clock, latency_ms=500)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sim.app), base_url="http://sim") as web:
        call = asyncio.create_task(web.get("/api1/jobs"))
        await called(sim)
        await web.get("/_sim/keys")
        sim_clock.advance(0.4)
        await asyncio.sleep(0)
        assert not call.done()
        sim_clock.advance(0.1)
        assert (await asyncio.wait_for(call, 5)).status_code == 401


@pytest.mark.parametrize(
    ("bodies", "path", "is_list", "expected"),
    [
        ([{"latencyMs": 100}, {"latencyMs": 50}], "/jobs", True, (None, 0.15, 0, False)),
        ([{"latencyMs": 100, "path": "/tasks"}], "/jobs", True, (None, 0, 0, False)),
        ([{"latencyMs": 100, "path": "jobs"}], "/jobs/x", False, (None, 0.1, 0, False)),
        ([{"staleListSeconds": 3}, {"staleListSeconds": 2}], "/jobs", True, (None, 0, 3, False)),
        ([{"staleListSeconds": 3}], "/jobs/x", False, (None, 0, 0, False)),
        ([{"status": 500}, {"latencyMs": 100}], "/jobs", True, (500, 0, 0, False)),
        ([{"latencyMs": 100}, {"status": 500, "latencyMs": 50}], "/jobs", True, (500, 0.15, 0, False)),
        ([{"truncate": True, "latencyMs": 100}], "/jobs", True, (None, 0.1, 0, True)),
        ([{"retryAfter": 3}], "/jobs", True, (429, 0, 0, False)),
    ],
)
def test_faults_add_up(bodies: list[dict[str, Any]], path: str, is_list: bool, expected: tuple[Any, ...]) -> None:
    plan = FaultPlan()
    for body in bodies:
        plan.add(parse_fault(body))

    effect = plan.meet(path, is_list=is_list)

    assert (effect.status, pytest.approx(effect.latency_s), effect.stale_list_s, effect.truncate) == expected


@pytest.mark.parametrize(
    ("fault", "path", "method", "hit"),
    [
        ({"path": "/"}, "/files/v1/uploads/url", "POST", True),
        ({"path": "/files"}, "/files/abc", "GET", True),
        ({"path": "/files"}, "/files/v1/uploads/url", "POST", False),
        ({"path": "/files/v1"}, "/files/v1/uploads/url", "POST", True),
        ({"path": "/files/v1/uploads/url"}, "/files/v1/uploads/abc/complete", "POST", False),
        ({"path": "/api2/v2/payments"}, "/api2/v2/payments", "POST", True),
        ({"path": "/api2"}, "/payments", "GET", False),
        ({"path": "/v2/invoices"}, "/v2/invoices/abc", "PUT", True),
        ({"path": "/cdn"}, "/cdn/stamford/files/abc", "GET", True),
        ({"method": "POST"}, "/jobs", "POST", True),
        ({"method": "POST"}, "/jobs", "GET", False),
        ({"method": "PUT", "path": "/jobs"}, "/jobs/abc", "PUT", True),
    ],
)
def test_a_fault_is_aimed_by_path_and_method(fault: dict[str, Any], path: str, method: str, hit: bool) -> None:
    plan = FaultPlan()
    plan.add(parse_fault({"status": 500, **fault}))

    assert (plan.meet(path, is_list=False, method=method).status == 500) is hit


def test_faults_are_bounded() -> None:
    plan = FaultPlan()
    for _ in range(100):
        plan.add(parse_fault({"status": 500}))

    with pytest.raises(ValueError, match="reset first"):
        plan.add(parse_fault({"status": 500}))


@pytest.mark.parametrize("wrong", [{"instances": ()}, {"instances": ("a", "a")}, {"scale": 0}])
def test_a_simulator_refuses_senseless_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Simulator(**wrong)
