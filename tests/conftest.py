"""What every test may ask for: a real Redis of its own, and the checks that nothing is left behind."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from redis.backoff import NoBackoff
from redis.retry import Retry

settings.register_profile("ci", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", parent=settings.get_profile("ci"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

PERMANENT_KEYS = re.compile(r"jobnimbus-sys:\{[^}]*\}:(epoch|run|log|stats)")
"""Keys that may live for ever: one of each per account, the log bounded by its own trimming."""

START_BOUND_S = 10.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server process of the tests' own, on loopback, that keeps nothing on disk."""

    def __init__(self, binary: str, *arguments: str) -> None:
        self._binary = binary
        self._arguments = arguments
        self._directory = tempfile.mkdtemp(prefix="jobnimbus-mcp-redis-")
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = self._spawn()

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self) -> redis.Redis:
        """A plain synchronous client; the caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def restart(self) -> None:
        """A new, empty process on the same port."""
        self.stop()
        self.process = self._spawn()

    def stop(self) -> None:
        """End the process, even one that is stopped by SIGSTOP."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(5)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(
            [*command, "--dir", self._directory, "--logfile", str(Path(self._directory) / "log"), *self._arguments]
        )
        deadline = time.monotonic() + START_BOUND_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return process
            except redis.AuthenticationError:
                return process  # it is up, and wants the password it was started with
            except redis.ConnectionError:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    pytest.fail(f"{self._binary} did not start: {(Path(self._directory) / 'log').read_text()[-500:]}")
                time.sleep(0.01)


@pytest.fixture(scope="session")
def redis_binary() -> str:
    """Path of a redis-server. Without one these tests are skipped, or fail where REQUIRE_REDIS=1 demands it."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        if os.environ.get("REQUIRE_REDIS") == "1":
            pytest.fail("REQUIRE_REDIS=1, and there is no redis-server on PATH")
        pytest.skip("needs a redis-server on PATH")
    return found


@pytest.fixture(scope="session")
def redis_server(redis_binary: str) -> Iterator[RedisServer]:
    """One server for the session (each xdist worker is a session). Tests that hurt theirs take `start_redis`."""
    server = RedisServer(redis_binary)
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """URL of an empty server; afterwards every key must have an expiry, save the named permanent ones."""
    if redis_server.process.poll() is not None:
        redis_server.restart()
    with redis_server.client() as client:
        client.flushall()
        yield redis_server.url
        keys: list[bytes] = client.keys()
        ever = [key.decode() for key in keys if client.ttl(key) == -1]
    lasting = sorted(key for key in ever if not PERMANENT_KEYS.fullmatch(key))
    assert lasting == [], "keys without an expiry"


@pytest.fixture
def start_redis(redis_binary: str) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers this test may stop, kill or fill: `start_redis("--maxmemory", "5mb")`."""
    started: list[RedisServer] = []

    def start(*arguments: str) -> RedisServer:
        server = RedisServer(redis_binary, *arguments)
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(20):
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    pytest.fail(f"tasks left running: {sorted(str(task.get_coro()) for task in left)}")


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> None:
    """Set up before, so checked after, everything else an async test uses."""
    function = request.function
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if inspect.iscoroutinefunction(inner):
        request.getfixturevalue("_no_task_left")
