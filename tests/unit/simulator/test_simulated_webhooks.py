"""Webhooks: what is posted, for which changes, and that nobody's failure is anybody else's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import Simulator

pytestmark = pytest.mark.timeout(20)


class Receiver:
    """Keeps what is posted; `status` is what it answers; while `gate` is cleared it does not answer."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.arrived.set()
        await self.gate.wait()
        if self.status == 0:
            raise RuntimeError("the receiver broke")
        return httpx.Response(self.status)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def hooked(receiver: Receiver, sim_clock: ManualClock) -> AsyncIterator[Simulator]:
    sim = Simulator(
        clock=sim_clock,
        webhook_url="http://receiver/webhooks/jobnimbus?token=secret",
        webhook_transport=httpx.MockTransport(receiver.answer),
    )
    yield sim
    await sim.aclose()


def a_job(sim: Simulator) -> dict[str, Any]:
    rows = sim.account("stamford").records("jobs")
    return next(row for row in rows if row["status_name"] == "Approved" and row["record_type_name"] == "Roofing")


async def test_a_change_and_its_log_entry_are_each_posted_as_bare_records(
    hooked: Simulator, receiver: Receiver
) -> None:
    job = a_job(hooked)

    await hooked.change("stamford", "jobs", job["jnid"], {"status_name": "Scheduled"})

    assert [body["type"] for body in receiver.bodies] == ["job", "activity"]
    changed, logged = receiver.bodies
    assert changed["jnid"] == job["jnid"]
    assert (changed["status_name"], changed["date_updated"]) == ("Scheduled", 1_790_000_000)
    assert logged["primary"]["id"] == job["jnid"]
    for body in receiver.bodies:
        assert {"event", "action", "is_active"}.isdisjoint(body)


async def test_the_url_keeps_its_query_and_gains_the_instance(hooked: Simulator, receiver: Receiver) -> None:
    await hooked.create("guilford", "tasks", {"title": "t"})

    request = receiver.requests[0]
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert dict(request.url.params) == {"token": "secret", "instance": "guilford"}


async def test_an_instance_in_the_url_stays(receiver: Receiver, sim_clock: ManualClock) -> None:
    transport = httpx.MockTransport(receiver.answer)
    sim = Simulator(clock=sim_clock, webhook_url="http://receiver/?instance=mine", webhook_transport=transport)
    await sim.create("guilford", "tasks", {"title": "t"})

    assert str(receiver.requests[0].url) == "http://receiver/?instance=mine"


@pytest.mark.parametrize(
    ("kind", "there", "missing"),
    [
        ("contacts", {"sales_rep_email", "created_by_email", "record_type_name"}, {"status", "record_type", "geo"}),
        ("jobs", {"sales_rep_email", "related", "Shingle Color", "tags"}, {"status", "primary", "cf_string_3"}),
        ("estimates", {"jnid", "status_name", "related"}, {"total", "items", "date_estimate"}),
        ("tasks", {"title", "related", "date_start"}, {"record_type"}),
        ("activities", {"note", "primary"}, {"record_type"}),
        ("files", {"filename", "related"}, {"record_type"}),
        ("workorders", {"name", "related", "status_name"}, {"status"}),
        ("invoices", {"jnid", "number", "status_name", "related"}, {"total", "total_paid", "due", "date_invoice"}),
        ("payments", {"jnid", "related", "date_updated"}, {"total", "invoices", "date_payment", "status_name"}),
        ("materialorders", {"number", "related", "items"}, {"status"}),
        ("products", {"name", "uoms"}, {"is_active"}),
        ("budgets", {"number", "related", "revenue"}, {"status"}),
    ],
)
async def test_default_bodies_per_kind(
    hooked: Simulator, receiver: Receiver, kind: str, there: set[str], missing: set[str]
) -> None:
    record = next(iter(hooked.account("stamford").records(kind)))

    await hooked.change("stamford", kind, record["jnid"], {"external_id": "x"})

    body = receiver.bodies[0]
    assert (body["jnid"], body["type"]) == (record["jnid"], record["type"])
    assert there <= set(body)
    assert missing.isdisjoint(body)


async def test_a_deletion_looks_like_any_other_delivery(hooked: Simulator, receiver: Receiver) -> None:
    job = a_job(hooked)
    await hooked.change("stamford", "jobs", job["jnid"], {})
    await hooked.delete("stamford", "jobs", job["jnid"])

    changed, deleted = [body for body in receiver.bodies if body["type"] == "job"]
    assert changed == deleted


async def test_without_webhook_nothing_is_posted(hooked: Simulator, receiver: Receiver) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=hooked.app), base_url="http://sim") as web:
        path = f"/_sim/records/jobs/{a_job(hooked)['jnid']}"
        await web.put(path, json={"description": "lost"}, params={"webhook": "false"})
        assert receiver.requests == []
        await web.put(path, json={"description": "told"})
        assert [body["description"] for body in receiver.bodies if body["type"] == "job"] == ["told"]


async def test_api_writes_are_posted_in_order_without_holding_up_the_answer(
    hooked: Simulator, receiver: Receiver
) -> None:
    receiver.gate.clear()
    headers = {"Authorization": f"bearer {hooked.keys['stamford'][0]}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=hooked.app), base_url="http://sim/api1") as api:
        for title in ("one", "two"):
            body = {"title": title, "date_start": 1, "record_type_name": "Task"}
            assert (await api.post("/tasks", json=body, headers=headers)).status_code == 200
    assert hooked.call_report()["webhooks"]["delivered"] == 0

    receiver.gate.set()
    await asyncio.wait_for(hooked.drain(), 5)

    assert [body["title"] for body in receiver.bodies] == ["one", "two"]
    assert hooked.call_report()["webhooks"] == {"delivered": 2, "failed": 0}


@pytest.mark.parametrize("status", [500, 401, 0])
async def test_a_failed_delivery_is_counted_and_not_repeated(
    hooked: Simulator, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    await hooked.create("stamford", "tasks", {"title": "t"})
    receiver.status = 200
    await hooked.create("stamford", "tasks", {"title": "u"})

    assert [body["title"] for body in receiver.bodies] == ["t", "u"]
    assert hooked.call_report()["webhooks"] == {"delivered": 1, "failed": 1}


async def test_closing_drops_what_waits(hooked: Simulator, receiver: Receiver) -> None:
    receiver.gate.clear()
    posts = [asyncio.create_task(hooked.create("stamford", "tasks", {"title": str(n)})) for n in range(3)]
    await asyncio.wait_for(receiver.arrived.wait(), 5)

    await asyncio.wait_for(hooked.aclose(), 5)

    await asyncio.wait_for(asyncio.gather(*posts), 5)
    assert len(receiver.requests) == 1


async def test_a_reset_forgets_deliveries_and_their_counts(hooked: Simulator, receiver: Receiver) -> None:
    await hooked.create("stamford", "tasks", {"title": "t"})
    hooked.reset()

    assert hooked.call_report()["webhooks"] == {"delivered": 0, "failed": 0}
    assert "t" not in [row["title"] for row in hooked.account("stamford").records("tasks")]
