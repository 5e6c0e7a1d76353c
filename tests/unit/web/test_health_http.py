"""/health, /ready and /cache/health, which anyone may ask and nobody may turn into a load."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobnimbus_mcp.cache.ports import StoreHealth
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.web import health as health_module
from jobnimbus_mcp.web.health import Remeasured
from jobnimbus_mcp.web.ports import Part


async def test_health_tells_that_the_process_lives_and_since_when(inside: Any, web: Any) -> None:
    inside.clock.advance(12.5)
    assert (await web.get("/health")).json() == {
        "status": "ok",
        "version": "1.2.3",
        "uptimeSeconds": 12.5,
        "timestamp": "2026-09-21T14:13:32Z",
    }


@pytest.mark.parametrize(
    ("parts", "status", "told"),
    [
        ({"redis": Part("up"), "mcp": Part("up", essential=True)}, 200, "ready"),
        ({"redis": Part("down", reason="timeout"), "mcp": Part("up", essential=True)}, 200, "degraded"),
        ({"redis": Part("off")}, 200, "ready"),
        ({"redis": Part("up"), "mcp": Part("down", essential=True)}, 503, "degraded"),
    ],
)
async def test_ready_says_which_parts_are_down_and_fails_only_for_an_essential_one(
    inside: Any, web: Any, parts: dict[str, Part], status: int, told: str
) -> None:
    inside.parts_told = parts
    response = await web.get("/ready")
    assert response.status_code == status
    body = response.json()
    assert body["status"] == told
    assert {name: part["status"] for name, part in body["parts"].items()} == {n: p.status for n, p in parts.items()}
    if "redis" in parts:
        assert body["parts"]["redis"].get("reason") == parts["redis"].reason


async def test_a_healthy_store_tells_its_latency(web: Any) -> None:
    response = await web.get("/cache/health")
    assert response.status_code == 200
    assert response.json() == {"status": "healthy", "connected": True, "circuitState": "CLOSED", "latencyMs": 0.412}


@pytest.mark.parametrize("reason", ["unreachable", "timeout", "circuit_open", "read_only", "out_of_memory", "disabled"])
async def test_an_unhealthy_store_tells_its_reason(inside: Any, web: Any, reason: str) -> None:
    inside.health = StoreHealth(False, "OPEN", 0.0, reason)
    response = await web.get("/cache/health")
    assert response.status_code == 503
    assert response.json() == {"status": "unhealthy", "connected": False, "circuitState": "OPEN", "reason": reason}


async def test_a_probe_that_fails_is_unreachable_and_its_text_is_told_nobody(inside: Any) -> None:
    async def fail() -> StoreHealth:
        raise OSError("redis://:password@10.0.0.1 refused")

    async with inside.client(probe_store=fail) as web:
        response = await web.get("/cache/health")
    assert (response.status_code, response.json()["reason"]) == (503, "unreachable")
    assert "password" not in response.text


async def test_a_reason_outside_the_closed_list_is_not_passed_on(inside: Any, web: Any) -> None:
    inside.health = StoreHealth(False, "CLOSED", 0.0, "password wrong for 10.0.0.1")
    assert (await web.get("/cache/health")).json()["reason"] == "unreachable"


async def test_a_probe_that_hangs_is_a_timeout(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_PROBE_TIMEOUT_S", 0.01)

    async def hang() -> Any:
        await asyncio.Event().wait()

    async with inside.client(probe_store=hang, readiness=hang) as web:
        assert (await web.get("/cache/health")).json()["reason"] == "timeout"
        ready = await web.get("/ready")
    assert (ready.status_code, ready.json()["parts"]["readiness"]["status"]) == (503, "down")


async def test_a_readiness_that_fails_is_not_ready(inside: Any) -> None:
    async def fail() -> Any:
        raise ValueError("secret")

    async with inside.client(readiness=fail) as web:
        ready = await web.get("/ready")
    assert ready.status_code == 503
    assert "secret" not in ready.text


async def test_the_store_is_measured_at_most_once_a_second(inside: Any, web: Any) -> None:
    await asyncio.gather(*(web.get("/cache/health") for _ in range(20)))
    assert inside.probes == 1
    inside.clock.advance(0.9)
    await web.get("/cache/health")
    assert inside.probes == 1
    inside.clock.advance(0.2)
    await web.get("/cache/health")
    assert inside.probes == 2


async def test_one_measures_while_the_others_wait_and_a_cancelled_one_is_replaced() -> None:
    began: list[int] = []
    release = asyncio.Event()

    async def measure() -> int:
        began.append(len(began))
        await release.wait()
        return len(began)

    remeasured = Remeasured(measure, ManualClock())
    first = asyncio.create_task(remeasured.value())
    others = [asyncio.create_task(remeasured.value()) for _ in range(5)]
    await asyncio.sleep(0)
    assert began == [0]
    first.cancel()
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.wait_for(asyncio.gather(*others), 1) == [2] * 5
    assert began == [0, 1]
