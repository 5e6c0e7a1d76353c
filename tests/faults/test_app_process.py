"""`jobnimbus-mcp serve` as real processes: told to stop or killed with work in hand, and several workers as one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.simulator.faults import Fault

STOP_BOUND_S = 5.0
START_BOUND_S = 20.0
ADMIN = "t0ken-of-the-admin-0001"
CALLER = "t0ken-of-the-callers-01"
SECRET = "s3cret-of-the-webhooks-01"
INSTANCE = "stamford"

AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}

ROWS = 40
"""Of a bulk run; four of them at once are under way."""
ANSWERED_ROWS = 12
MANY = 1_000
"""More than ever arrive; what is left of it tells how many have."""
HELD_S = 5.0
"""JobNimbus keeps the answers of what is in hand to itself for so long; a server is killed sooner."""


class Serving:
    """A `serve` process that answers, and how to speak to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def client(self) -> httpx.AsyncClient:
        """A client that keeps one connection, and so speaks to one worker for as long as that lives."""
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        return httpx.AsyncClient(base_url=self.url, timeout=20, limits=limits, trust_env=False)

    async def stopped(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Seconds from the signal until the process ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait, STOP_BOUND_S + 5)
        return time.monotonic() - began

    def workers(self) -> list[int]:
        """Process ids of the workers that a `serve --workers N` has now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
async def serve(jobnimbus: str, simulator: Simulator, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await serve("--workers", "2", REDIS_URL=...)`: a `Serving` that holds the account's key."""
    started: list[subprocess.Popen[bytes]] = []

    async def begin(*arguments: str, **variables: str) -> Serving:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        log = tmp_path / f"serve-{port}.log"
        process = _started(
            [*arguments, "--port", str(port)],
            log,
            {
                "JOBNIMBUS_INSTANCES": INSTANCE,
                "JOBNIMBUS_API_BASE_URL": jobnimbus,
                "JOBNIMBUS_API_KEY": simulator.keys[INSTANCE][0],
                "MCP_AUTH_TOKENS": CALLER,
                "ADMIN_TOKEN": ADMIN,
                "WEBHOOK_SECRET": SECRET,
                "LOG_LEVEL": "warning",
                **variables,
            },
        )
        started.append(process)
        serving = Serving(process, port)
        deadline = time.monotonic() + START_BOUND_S
        async with serving.client() as client:
            while True:
                try:
                    assert (await client.get("/health")).status_code == 200
                    return serving
                except httpx.TransportError:
                    assert process.poll() is None, _read(log)
                    assert time.monotonic() < deadline, _read(log)
                    await asyncio.sleep(0.05)

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        await asyncio.to_thread(process.wait, 5)


def _started(arguments: list[str], log: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
    command = [sys.executable, "-m", "jobnimbus_mcp", "serve", *arguments]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=log.parent, env=kept | variables, stdout=output, stderr=output)


def _read(log: Path) -> str:
    return log.read_text()


async def call(client: httpx.AsyncClient, tool: str, **arguments: Any) -> httpx.Response:
    return await client.post(
        "/mcp/tools/call",
        json={"name": tool, "arguments": arguments},
        headers={"Authorization": f"Bearer {CALLER}"},
    )


async def own_figures(client: httpx.AsyncClient) -> dict[str, Any]:
    """What the worker at the other end counted itself."""
    answer = await client.get("/cache/stats", params={"scope": "process"}, headers=AS_ADMIN)
    metrics: dict[str, Any] = answer.json()["metrics"]
    return metrics


Serve = Callable[..., Awaitable[Serving]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_in_flight_is_answered_before_the_server_stops(
    serve: Serve, simulator: Simulator, number: signal.Signals
) -> None:
    serving = await serve()
    simulator._faults.add(Fault(latency_s=1.0))
    async with serving.client() as client:
        asking = asyncio.create_task(call(client, "get_job", job_id=jobs(simulator)[0], fields="status_name"))
        while simulator.calls == 0:  # noqa: ASYNC110  # it counts, and has no event to wait for
            await asyncio.sleep(0.01)
        took_s = await serving.stopped(number)
        answer = await asking
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert took_s < STOP_BOUND_S
    assert serving.process.returncode == 0


async def test_connections_that_never_end_do_not_keep_the_server_from_stopping(serve: Serve) -> None:
    """A stream that a client listens on, a body that never comes whole, and a connection kept for later."""
    serving = await serve()
    head = f"Host: 127.0.0.1:{serving.port}\r\nAuthorization: Bearer {CALLER}\r\n"
    stream = f"GET /mcp HTTP/1.1\r\n{head}Accept: text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\r\n"
    half = f"POST /mcp HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{{"
    writers = []
    for request in (stream, half, ""):
        _, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.write(request.encode())
        await writer.drain()
        writers.append(writer)
    await asyncio.sleep(0.2)
    took_s = await serving.stopped()
    for writer in writers:
        writer.transport.abort()
    assert took_s < STOP_BOUND_S
    assert serving.process.returncode == 0


async def test_two_workers_are_one_server(serve: Serve, simulator: Simulator, redis_url: str) -> None:
    """One secret opens both, both count into the same sums, and a webhook to one holds on the other."""
    serving = await serve("--workers", "2", REDIS_URL=redis_url)
    jnid = jobs(simulator)[0]
    async with contextlib.AsyncExitStack() as stack:
        one, other = await two_workers(serving, stack)
        for client in (one, other, one, other):
            assert (await call(client, "get_job", job_id=jnid, fields="status_name")).status_code == 200
        held = [await own_figures(client) for client in (one, other)]
        assert [figures["l1Hits"] > 0 for figures in held] == [True, True]

        await simulator.change(INSTANCE, "jobs", jnid, {"status_name": "Final Inspection"}, webhook=False)
        body = {"event": "job.updated", "resource_type": "job", "resource_id": jnid}
        delivered = await one.post("/webhooks/jobnimbus", params={"token": SECRET}, json=body)
        assert delivered.status_code == 200
        asked = await call(other, "get_job", job_id=jnid, fields="status_name")
        assert (asked.json()["cache"]["status"], asked.json()["data"]["record"]["status_name"]) == (
            "miss",
            "Final Inspection",
        )

        own = [await own_figures(client) for client in (one, other)]
        assert min(figures["hits"] + figures["misses"] for figures in own) > 0
        expected = {name: own[0][name] + own[1][name] for name in ("hits", "misses", "invalidations")}
        deadline = time.monotonic() + 5
        while True:  # each worker hands its counts over once a second
            summed = [(await client.get("/cache/stats", headers=AS_ADMIN)).json() for client in (one, other)]
            if all({name: told["metrics"][name] for name in expected} == expected for told in summed):
                break
            assert time.monotonic() < deadline, (summed, own)
            await asyncio.sleep(0.1)
        assert {told["scope"] for told in summed} == {"all"}

        calls = expected["hits"] + expected["misses"]
        for client in (one, other):
            metrics = (await client.get("/metrics", headers=AS_ADMIN)).text
            counted = re.findall(r'tool_calls_total{outcome="ok",tool="\w+"} ([\d.]+)', metrics)
            assert sum(float(number) for number in counted) == calls
            refused = await client.get("/metrics", headers={"Authorization": f"Bearer {CALLER}"})
            assert refused.status_code == 401
    assert await serving.stopped() < STOP_BOUND_S


async def test_service_goes_on_when_a_worker_is_killed(serve: Serve, simulator: Simulator, redis_url: str) -> None:
    serving = await serve("--workers", "2", REDIS_URL=redis_url)
    jnid = jobs(simulator)[0]
    async with contextlib.AsyncExitStack() as stack:
        await two_workers(serving, stack)
    workers = serving.workers()
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    deadline = time.monotonic() + START_BOUND_S
    answered = 0
    while answered < 20 or len(alive := serving.workers()) < 2 or workers[0] in alive:
        async with serving.client() as client:
            assert (await call(client, "get_job", job_id=jnid)).status_code == 200
            # what the dead worker had counted is still told
            assert (await client.get("/metrics", headers=AS_ADMIN)).status_code == 200
        answered += 1
        assert time.monotonic() < deadline, "the killed worker was not replaced"
        await asyncio.sleep(0.01)
    assert await serving.stopped() < STOP_BOUND_S
    assert serving.process.returncode == 0


@pytest.mark.long
@pytest.mark.timeout(150)
async def test_a_bulk_run_whose_server_was_killed_goes_on_at_another_and_makes_nothing_twice(
    serve: Serve, simulator: Simulator, redis_url: str
) -> None:
    """Of the four rows in its hands JobNimbus had carried two out, and two not; they are its for half a minute."""
    settings = {"REDIS_URL": redis_url, "PARTITION_SECRET": "partition-secret-0123456789"}
    killed, other = await asyncio.gather(serve(**settings), serve(**settings))
    titles = [f"killed {row}" for row in range(ROWS)]
    rows = [{"job_id": jobs(simulator)[0], "title": title, "date_start": "2026-12-01"} for title in titles]
    given = {"kind": "task", "records": rows, "bulk_id": "killed-in-mid-run", "confirm": True}
    faults, arrived = simulator._faults, Fault(path="/tasks", method="POST", times=MANY)
    faults.add(arrived)  # does nothing but count
    async with killed.client() as at_first, other.client() as at_other, asyncio.timeout(120):
        calling = asyncio.create_task(call(at_first, "bulk_create_records", **given))
        while len(made(simulator)) < ANSWERED_ROWS:  # noqa: ASYNC110  # they are counted, and set no event
            await asyncio.sleep(0.01)
        faults.add(Fault(path="/tasks", method="POST", status=500, latency_s=HELD_S, times=2))
        faults.add(Fault(path="/tasks", method="POST", latency_s=HELD_S, times=2))
        while faults.faults != [arrived] or len(made(simulator)) < MANY - (arrived.times or 0) - 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not calling.done()
        await killed.stopped(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await calling
        before = made(simulator)
        assert ANSWERED_ROWS + 2 <= len(before) <= ROWS - 2

        told: dict[str, Any] = {"finished": False}
        while not told["finished"]:
            answer = await call(at_other, "resume_bulk_run", bulk_id=given["bulk_id"])
            assert answer.status_code == 200, answer.text
            told = answer.json()["data"]
            assert told["finished"] or "resume_bulk_run" in told["next_step"]
            assert_told_as_it_is(told, titles, made(simulator))
        assert told["counts"] == {"created": ROWS}
        assert Counter(made(simulator).values()) == Counter(titles)
        assert before.items() <= made(simulator).items()

        again = (await call(at_other, "bulk_create_records", **given)).json()["data"]
        assert (again["counts"], again["finished"]) == ({"created": ROWS}, True)
        assert all(row["replayed"] for row in again["rows"])
        assert Counter(made(simulator).values()) == Counter(titles)


def assert_told_as_it_is(told: dict[str, Any], titles: list[str], there: dict[str, str]) -> None:
    """Each row has one outcome: what is created is there under the id that is told, what was not tried is not there."""
    outcomes = {row["row"]: row for row in told["rows"]}
    assert sorted(outcomes) == list(range(len(titles)))
    assert len(told["rows"]) == sum(told["counts"].values()) == len(titles)
    for number, row in outcomes.items():
        match row["outcome"]:
            case "created":
                assert there[row["jnid"]] == titles[number]
            case "not_tried":
                assert titles[number] not in there.values()
            case "unknown":
                assert row["message"]
            case outcome:
                pytest.fail(f"row {number}: {outcome}")


def made(simulator: Simulator) -> dict[str, str]:
    """Id -> title of the tasks that the run has made."""
    tasks = simulator.account(INSTANCE).records("tasks")
    return {str(task["jnid"]): str(task["title"]) for task in tasks if str(task["title"]).startswith("killed ")}


async def two_workers(
    serving: Serving, stack: contextlib.AsyncExitStack
) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    """A connection to each of the two workers: the second is one whose worker has not counted the first one's call."""
    one = await stack.enter_async_context(serving.client())
    assert (await call(one, "get_users", size=1)).status_code == 200
    deadline = time.monotonic() + START_BOUND_S
    while True:
        assert time.monotonic() < deadline, "all connections went to one worker"
        batch = [await stack.enter_async_context(serving.client()) for _ in range(8)]
        told = await asyncio.gather(*(own_figures(client) for client in batch), return_exceptions=True)
        for client, figures in zip(batch, told, strict=True):
            if isinstance(figures, dict) and figures["hits"] + figures["misses"] == 0:
                return one, client


def jobs(simulator: Simulator) -> list[str]:
    return [str(job["jnid"]) for job in simulator.account(INSTANCE).records("jobs")]
