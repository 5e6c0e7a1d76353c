"""What every test may ask for: a real Redis of its own, and the checks that nothing is left behind."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from redis.backoff import NoBackoff
from redis.retry import Retry

settings.register_profile("ci", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", parent=settings.get_profile("ci"), max_examples=400)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

PERMANENT_KEYS = re.compile(
    r"jobnimbus-sys:\{[^}]*\}:"
    r"(epoch|run|log|stats|fleet"
    r"|events:\d|event:[0-9a-f]{32}|events-(live|consumers|token)|due:.+|archived?|dead(:.+)?"
    r"|kafka:(event:.+|index|due:.+|dead:.+|done|consumers|token|forgotten))"
)
"""Keys that may live for ever: one of each per account, the log bounded by its own trimming; and what events are made
of, until they are done and their retention is over."""

START_BOUND_S = 10.0

SLOTS = 16_384
_REPLICATING = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _free_cluster_port() -> int:
    """A port whose neighbour 10,000 higher is free too: the cluster's bus."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port


def eventually(met: Callable[[], bool], what: str, within_s: float = START_BOUND_S) -> None:
    """Return when it is so, or fail saying `what` was not."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if met():
                return
        except redis.RedisError as error:
            last = f" ({type(error).__name__})"
        else:
            last = ""
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s} s: {what}{last}")
        time.sleep(0.02)


class RedisServer:
    """A redis-server process of the tests' own, on loopback, that keeps nothing on disk."""

    def __init__(self, binary: str, *arguments: str, port: int | None = None, wait: bool = True) -> None:
        self._binary = binary
        self._arguments = arguments
        self._directory = tempfile.mkdtemp(prefix="jobnimbus-mcp-redis-")
        self.port = port or (_free_cluster_port() if "--cluster-enabled" in arguments else _free_port())
        self._wait = wait
        self.tls_port = 0
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = self._spawn()

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self) -> redis.Redis:
        """A plain synchronous client; the caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def own_all_slots(self) -> None:
        """Be a cluster of one."""
        with self.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
            eventually(lambda: client.cluster("INFO")["cluster_state"] == "ok", "the node takes commands")

    def restart(self) -> None:
        """A new, empty process on the same port."""
        self.stop()
        self.process = self._spawn()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

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
            [*command, "--dir", self._directory, "--logfile", str(Path(self._directory) / "log"), *self._arguments],
            preexec_fn=_die_with_parent,
        )
        if not self._wait:
            return process
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


class RedisSentinels:
    """A primary, a replica and three Sentinels that know each other from the start, so that all is ready at once."""

    MASTER = "jobs"

    def __init__(self, binary: str, *arguments: str, down_after_ms: int = 600) -> None:
        started = [RedisServer(binary, *_REPLICATING, *arguments, wait=False)]
        self.primary = started[0]
        replica = [*_REPLICATING, "--replicaof", "127.0.0.1", str(self.primary.port)]
        self.replica = RedisServer(binary, *replica, *arguments, wait=False)
        self.servers = [self.primary, self.replica]
        self._directory = Path(tempfile.mkdtemp(prefix="jobnimbus-mcp-sentinel-"))
        ports = [_free_port() for _ in range(3)]
        ids = [f"{number:040x}" for number in range(1, 4)]
        self.ports = ports
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{self.MASTER}"
        self.sentinels: list[subprocess.Popen[bytes]] = []
        for mine, port in zip(ids, ports, strict=True):
            others = [
                f"sentinel known-sentinel {self.MASTER} 127.0.0.1 {other} {its}"
                for its, other in zip(ids, ports, strict=True)
                if its != mine
            ]
            path = self._directory / f"{port}.conf"
            path.write_text(
                "\n".join(
                    (
                        f"port {port}",
                        "bind 127.0.0.1",
                        f"dir {self._directory}",
                        f"logfile {self._directory / str(port)}.log",
                        f"sentinel myid {mine}",
                        f"sentinel monitor {self.MASTER} 127.0.0.1 {self.primary.port} 2",
                        f"sentinel down-after-milliseconds {self.MASTER} {down_after_ms}",
                        f"sentinel failover-timeout {self.MASTER} 3000",
                        f"sentinel parallel-syncs {self.MASTER} 1",
                        f"sentinel known-replica {self.MASTER} 127.0.0.1 {self.replica.port}",
                        *others,
                        "",
                    )
                )
            )
            self.sentinels.append(subprocess.Popen([binary, str(path), "--sentinel"], preexec_fn=_die_with_parent))

    def wait(self) -> None:
        eventually(self._in_step, "the replica is in step")
        eventually(self._agreed, "the Sentinels see each other and the servers")

    def master_port(self) -> int:
        """Of the one that is named now, by the first Sentinel that answers."""
        for port in self.ports:
            with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
                return int(client.sentinel_get_master_addr_by_name(self.MASTER)[1])
        raise AssertionError("no Sentinel")

    def named(self) -> RedisServer:
        """The server that is named now."""
        port = self.master_port()
        (one,) = [server for server in self.servers if server.port == port]
        return one

    def close(self) -> None:
        for process in self.sentinels:
            process.kill()
        for process in self.sentinels:
            process.wait(5)
        for server in self.servers:
            server.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _in_step(self) -> bool:
        with self.replica.client() as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    def _agreed(self) -> bool:
        for port in self.ports:
            with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
                state: Any = client.sentinel_master(self.MASTER)
                (other,) = client.sentinel_slaves(self.MASTER)
                seen = int(state["num-other-sentinels"]) == 2 and state["flags"] == "master"
                if not (seen and other["flags"] == "slave" and other["master-link-status"] == "ok"):
                    return False
        return True


class RedisCluster:
    """Three primaries with a replica each."""

    def __init__(self, binary: str, *arguments: str, node_timeout_ms: int = 1_000) -> None:
        options = (
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-node-timeout", str(node_timeout_ms), "--cluster-replica-validity-factor", "0"),
            *_REPLICATING,
            *arguments,
        )
        self.nodes = [RedisServer(binary, *options, wait=False) for _ in range(6)]
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[:3])}"

    def wait(self) -> None:
        """Make a cluster of the nodes."""
        eventually(lambda: all(self._asked(node, "PING") for node in self.nodes), "the nodes are up")
        primaries, replicas = self.nodes[:3], self.nodes[3:]
        for number, node in enumerate(primaries):
            self._asked(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, end = SLOTS * number // 3, SLOTS * (number + 1) // 3
            self._asked(node, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for node in self.nodes[1:]:
            self._asked(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port)
        eventually(lambda: all(self._told(node, "cluster_known_nodes:6") for node in self.nodes), "all have met")
        for node, primary in zip(replicas, primaries, strict=True):
            self._asked(node, "CLUSTER", "REPLICATE", self._asked(primary, "CLUSTER", "MYID"))
        eventually(lambda: all(self._told(node, "cluster_state:ok") for node in self.nodes), "the cluster is well")
        eventually(self._in_step, "the replicas are in step")

    def owner(self, tenant: str, asked: RedisServer | None = None) -> RedisServer:
        """The node that has the tenant's slot, as `asked` sees it (some living node by default)."""
        for node in [asked] if asked is not None else self.nodes:
            if node.process.poll() is not None:
                continue
            slot = int(self._asked(node, "CLUSTER", "KEYSLOT", tenant))
            for first, last, primary, *_ in self._asked(node, "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    (one,) = [other for other in self.nodes if other.port == primary[1]]
                    return one
        raise AssertionError("no node")

    def move(self, tenant: str, new: RedisServer) -> None:
        """Give the tenant's slot to another node, keys included, as an operator does."""
        slot, old = int(self._asked(new, "CLUSTER", "KEYSLOT", tenant)), self.owner(tenant)
        self._asked(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._asked(old, "CLUSTER", "MYID"))
        self._asked(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._asked(new, "CLUSTER", "MYID"))
        for key in self._asked(old, "CLUSTER", "GETKEYSINSLOT", slot, 1_000):
            self._asked(old, "MIGRATE", "127.0.0.1", new.port, key, 0, 5_000)
        for node in (new, old, *(node for node in self.nodes[:3] if node not in (new, old))):
            self._asked(node, "CLUSTER", "SETSLOT", slot, "NODE", self._asked(new, "CLUSTER", "MYID"))

    def close(self) -> None:
        for node in self.nodes:
            node.process.kill()
        for node in self.nodes:
            node.close()

    def _in_step(self) -> bool:
        return all("master_link_status:up" in str(self._asked(node, "INFO", "replication")) for node in self.nodes[3:])

    def _told(self, node: RedisServer, line: str) -> bool:
        return line in str(self._asked(node, "CLUSTER", "INFO"))

    def _asked(self, node: RedisServer, *command: Any) -> Any:
        # A connection of the plainest kind: replies as they come, whatever the library makes of them.
        with node.client() as client:
            connection = client.connection_pool.get_connection()
            try:
                connection.send_command(*command)
                reply = connection.read_response()
            finally:
                client.connection_pool.release(connection)
        if isinstance(reply, bytes):
            return reply.decode()
        return reply


Group = TypeVar("Group", RedisSentinels, RedisCluster)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What servers keep on disk by default is kept under a home of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


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


@contextmanager
def _standing(group: Group) -> Iterator[Group]:
    try:
        group.wait()
        yield group
    finally:
        group.close()


@pytest.fixture(scope="module")
def redis_sentinel(redis_binary: str) -> Iterator[RedisSentinels]:
    """A primary, a replica and three Sentinels. Tests that hurt theirs take `start_sentinels`."""
    with _standing(RedisSentinels(redis_binary)) as sentinels:
        yield sentinels


@pytest.fixture(scope="module")
def redis_cluster(redis_binary: str) -> Iterator[RedisCluster]:
    """A cluster of three primaries and three replicas. Tests that hurt theirs take `start_cluster`."""
    with _standing(RedisCluster(redis_binary)) as cluster:
        yield cluster


@pytest.fixture
def start_sentinels(redis_binary: str) -> Iterator[Callable[[], RedisSentinels]]:
    """Starts ones that this test may hurt."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_standing(RedisSentinels(redis_binary)))


@pytest.fixture
def start_cluster(redis_binary: str) -> Iterator[Callable[[], RedisCluster]]:
    """Starts one that this test may hurt."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_standing(RedisCluster(redis_binary)))


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, and of a certificate of its for 127.0.0.1 and localhost."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def server_arguments(self) -> tuple[str, ...]:
        """Of a server or a Sentinel, beside its port."""
        files = ("--tls-cert-file", self.certificate, "--tls-key-file", self.key, "--tls-ca-cert-file", self.authority)
        return *map(str, files), "--tls-auth-clients", "optional"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made for this run; nobody else trusts them."""
    folder = tmp_path_factory.mktemp("certificates")
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    request = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for arguments in (
        (*request, "-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", folder / "ca.key", "-out", made.authority),
        (*request, "-subj", "/CN=localhost", "-keyout", made.key, "-out", folder / "server.csr"),
        (
            *("x509", "-req", "-in", folder / "server.csr", "-CA", made.authority, "-CAkey", folder / "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", folder / "names", "-out", made.certificate),
        ),
    ):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
    return made


@pytest.fixture
def start_tls(start_redis: Callable[..., RedisServer], certificates: Certificates) -> Callable[..., RedisServer]:
    """As `start_redis`; speaks TLS at `tls_port`, and for the tests' own use plainly at `port`."""

    def start(*arguments: str) -> RedisServer:
        tls_port = _free_cluster_port()
        server = start_redis(*certificates.server_arguments, "--tls-port", str(tls_port), *arguments)
        server.tls_port = tls_port
        return server

    return start


@pytest.fixture
def redis_tls(start_tls: Callable[..., RedisServer]) -> RedisServer:
    return start_tls()


LEAST_RIGHTS = (
    "resetchannels ~jobnimbus:* ~jobnimbus-sys:* -@all +ping +select +eval +evalsha +script|load +info +time "
    "+scan +exists +expire +get +getrange +mget +persist +pexpire +pttl +set +strlen +ttl +unlink +hdel +hget "
    "+hgetall +hincrby +hlen +hmget +hset +hsetnx +xack +xadd +xdel +xgroup +xrange +xread +xreadgroup +xrevrange "
    "+zadd +zcard +zcount +zrange +zrangebyscore +zrem +zremrangebyrank +zrevrangebylex +zrevrangebyscore +zscore"
)
"""ACL rules of a user that the server can do with."""

CLUSTER_RIGHTS = "+cluster|slots"
"""What it needs in a cluster beyond these."""


@pytest.fixture(scope="session")
def least_rights() -> tuple[str, str]:
    """ACL rules of a user that the server can do with, and what it needs in a cluster beyond these."""
    return LEAST_RIGHTS, CLUSTER_RIGHTS


@pytest.fixture
def redis_acl_url(redis_server: RedisServer, redis_url: str) -> Iterator[str]:
    """The server's URL for a user who has the least rights that do."""
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "jobnimbus", "reset", "on", ">p@ss/w:rd", *LEAST_RIGHTS.split())
        yield redis_url.replace("redis://", "redis://jobnimbus:p%40ss%2Fw%3Ard@")
        client.execute_command("ACL", "DELUSER", "jobnimbus")


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
