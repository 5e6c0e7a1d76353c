"""The command line, as a process of its own: what it says, how it ends, how soon it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KEY = "k3y-of-the-account-0001"
STOP_BOUND_S = 5.0
START_BOUND_S = 20.0

Start = Callable[..., "subprocess.Popen[str]"]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
    return kept | variables


def run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobnimbus_mcp", *arguments],
        cwd=directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=30,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, process: subprocess.Popen[str]) -> Any:
    """The JSON at `url`, as soon as the process answers."""
    deadline = time.monotonic() + START_BOUND_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> float:
    """Seconds until the process ended."""
    began = time.monotonic()
    process.send_signal(number)
    process.wait(STOP_BOUND_S + 5)
    return time.monotonic() - began


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobnimbus_mcp", *arguments],
            cwd=tmp_path,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=5)


@pytest.mark.parametrize("command", ["demo", "serve", "stdio", "worker", "events replay", "simulate", "doctor"])
def test_every_command_has_help_with_an_example(tmp_path: Path, command: str) -> None:
    ran = run(tmp_path, *command.split(), "--help")
    assert ran.returncode == 0
    assert f"Example: jobnimbus-mcp {command}" in ran.stdout


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    from jobnimbus_mcp import __version__

    assert run(tmp_path, "--version").stdout == f"jobnimbus-mcp {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["serve"], {"REDIS_PORT": "six", "ADMIN_TOKEN": "hunter2"}, "REDIS_PORT: must be a whole number; ADMIN_TOKEN"),
        (["stdio"], {"CACHE_TTL_LEADS": "1"}, "CACHE_TTL_LEADS"),
        (["serve"], {"JOBNIMBUS_API_KEY": KEY}, "MCP_AUTH_TOKENS: needed"),
        (["serve", "--host", "0.0.0.0"], {"JOBNIMBUS_API_KEY": KEY}, "MCP_AUTH_TOKENS: needed"),
        (["serve", "--host", "0.0.0.0", "--insecure-loopback"], {"JOBNIMBUS_API_KEY": KEY}, "--insecure-loopback goes"),
        (["serve", "--workers", "2"], {}, "REDIS_URL: --workers above 1 needs a Redis"),
        (["worker"], {}, "REDIS_URL: a worker needs the server's Redis"),
        (["worker", "--until-idle"], {"EVENTS_TRANSPORT": "kafka"}, "EVENTS_TRANSPORT: needs KAFKA_BOOTSTRAP_SERVERS"),
        (["events", "list"], {}, "REDIS_URL: without a Redis, events are in the memory"),
    ],
)
def test_bad_settings_end_it_with_one_clear_line(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    ran = run(tmp_path, *arguments, **variables)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("jobnimbus-mcp: ")
    assert said in line
    assert "hunter2" not in line
    assert ran.stdout == ""


@pytest.mark.parametrize("command", ["serve", "simulate", "demo"])
def test_a_taken_port_ends_it_with_what_to_do_before_anything_is_announced(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run(tmp_path, command, "--port", str(port))
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"jobnimbus-mcp: port {port} is taken")
    assert "choose another" in line
    assert "--port" in line


def test_a_port_just_left_is_not_taken(tmp_path: Path, start: Start) -> None:
    port = free_port()
    for _ in range(2):
        process = start("simulate", "--port", str(port), "--instances", "stamford")
        assert get(f"http://127.0.0.1:{port}/_sim/keys", process)
        stop(process, signal.SIGTERM)
        assert process.returncode == 0


def test_a_bad_env_file_is_told_like_a_bad_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("L1_MAX_MB=lots\n")
    assert "L1_MAX_MB: must be a whole number" in run(tmp_path, "serve").stderr


def test_doctor_tells_every_mistake_on_a_line_of_its_own_and_exits_1(tmp_path: Path) -> None:
    ran = run(tmp_path, "doctor", REDIS_PORT="six", ADMIN_TOKEN="hunter2")
    assert ran.returncode == 1
    assert [line.partition(":")[0] for line in ran.stdout.splitlines()] == ["bad   settings"] * 2
    assert "hunter2" not in ran.stdout


@pytest.mark.parametrize(
    "arguments", [["--instances", "Upper"], ["--webhook-url", "ftp://x"], ["--scale", "0"], ["--port", "70000"]]
)
def test_simulate_refuses_what_it_cannot_do(tmp_path: Path, arguments: list[str]) -> None:
    ran = run(tmp_path, "simulate", *arguments)
    assert ran.returncode == 2
    assert arguments[0] in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulate_serves_its_keys_until_told_to_stop(start: Start, number: signal.Signals) -> None:
    port = free_port()
    process = start("simulate", "--port", str(port), "--instances", "stamford")
    keys = get(f"http://127.0.0.1:{port}/_sim/keys", process)
    assert list(keys) == ["stamford"]
    assert stop(process, number) < STOP_BOUND_S
    assert process.returncode == 0
    assert process.stdout is not None
    assert f"http://127.0.0.1:{port}/api1" in process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_needs_no_settings_and_stops_when_told(start: Start, number: signal.Signals) -> None:
    port = free_port()
    process = start("demo", "--port", str(port))
    assert get(f"http://127.0.0.1:{port}/health", process)["status"]
    assert stop(process, number) < STOP_BOUND_S
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_told_to_stop(start: Start, number: signal.Signals) -> None:
    port = free_port()
    process = start("serve", "--port", str(port))
    assert get(f"http://127.0.0.1:{port}/health", process)["status"]
    assert stop(process, number) < STOP_BOUND_S
    assert process.returncode == 0


def test_serve_with_workers_stops_them_all_and_leaves_no_metrics_behind(
    start: Start, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = start("serve", "--port", str(port), "--workers", "2", REDIS_URL=redis_url, TMPDIR=str(scratch))
    assert get(f"http://127.0.0.1:{port}/health", process)["status"]
    assert [path.name for path in scratch.glob("jobnimbus-mcp-metrics-*")] != []
    assert stop(process, signal.SIGTERM) < STOP_BOUND_S
    assert process.returncode == 0
    assert list(scratch.glob("jobnimbus-mcp-metrics-*")) == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "probe", "version": "1"}},
}


def test_stdio_answers_on_stdout_and_ends_with_its_input(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "jobnimbus_mcp", "stdio"],
        cwd=tmp_path,
        env=environment(JOBNIMBUS_API_KEY=KEY),
        input=json.dumps(INITIALIZE) + "\n",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.returncode == 0
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [1]
    assert KEY not in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stdio_stops_when_told_while_it_waits_for_input(start: Start, number: signal.Signals) -> None:
    process = start("stdio", JOBNIMBUS_API_KEY=KEY)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(INITIALIZE) + "\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == 1
    assert stop(process, number) < STOP_BOUND_S
    assert process.returncode == 0


def test_a_server_on_stdin_that_does_not_end_is_cancelled_in_time(tmp_path: Path) -> None:
    code = (
        "import asyncio, jobnimbus_mcp.cli as cli\n"
        "async def serve():\n"
        "    print('serving', flush=True)\n"
        "    try:\n"
        "        await asyncio.sleep(60)\n"
        "    finally:\n"
        "        print('closed', flush=True)\n"
        "cli._run_until_told(serve())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        assert stop(process, signal.SIGTERM) < STOP_BOUND_S
        assert process.stdout.read() == "closed\n"
        assert process.returncode == 0
