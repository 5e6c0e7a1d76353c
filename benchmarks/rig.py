"""What the benchmarks and the history checker share: processes that end with the run, Redis in every arrangement that
is measured, orders to Python processes, and goals that are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = [
    "Child",
    "Cluster",
    "Goals",
    "Lines",
    "RedisProcess",
    "Sentinels",
    "child",
    "free_port",
    "machine",
    "medians_us",
    "percentile",
    "record",
    "redis_process",
    "server_process",
    "spawned",
    "take_orders",
    "wait_until",
]

START_BOUND_S = 30.0
LONGEST_LINE = 1 << 26
_PR_SET_PDEATHSIG = 1


# -- telling ---------------------------------------------------------------------------------------------------------


class Goals:
    """Goals as they are checked; `end` tells whether all were met, as an exit code."""

    def __init__(self) -> None:
        self._missed: list[str] = []

    def check(self, name: str, met: bool, told: str) -> None:
        print(f"  {'met ' if met else 'MISSED'} {name}: {told}", flush=True)
        if not met:
            self._missed.append(name)

    def end(self) -> int:
        print("GOALS MISSED: " + "; ".join(self._missed) if self._missed else "goals met")
        return 1 if self._missed else 0


def machine() -> str:
    """Machine, cores, Python and Redis, for the head of every report."""
    told = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    words = dict(word.split("=", 1) for word in told.split() if "=" in word)
    return (
        f"{platform.node()}, {os.cpu_count()} cores: Python {platform.python_version()}, "
        f"redis-server {words.get('v', '?')}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of them lie; of none, NaN."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def record(size_bytes: int, seed: int = 7) -> bytes:
    """JSON with the texture of a CRM record."""
    import random

    words = random.Random(seed)
    fields: dict[str, str] = {}
    while len(json.dumps(fields)) < size_bytes:
        fields[f"field_{len(fields)}"] = "".join(words.choices("abcdefghij 0123456789", k=40))
    return json.dumps(fields).encode()[:size_bytes]


async def medians_us(rounds: int, operations: Mapping[str, Callable[[], Awaitable[object]]]) -> dict[str, float]:
    """Median microseconds of each operation, taken in turns, so that a busy machine slows all alike."""
    blocks = 10
    taken: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(blocks):
        for name, operation in operations.items():
            for _ in range(max(1, rounds // blocks)):
                began = time.perf_counter()
                await operation()
                taken[name].append((time.perf_counter() - began) * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


class Lines:
    """A file that several processes add lines to."""

    def __init__(self, file: str | Path) -> None:
        self.file = str(file)

    def add(self, line: str) -> None:
        # a short append is one write, so that lines of several processes do not mix
        handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, line.encode() + b"\n")
        finally:
            os.close(handle)

    def all(self) -> list[str]:
        return Path(self.file).read_text().splitlines() if os.path.exists(self.file) else []


# -- processes -------------------------------------------------------------------------------------------------------


def free_port(below: int = 65_536) -> int:
    """A port nobody listens on. `below`: a cluster's bus takes the port 10,000 above it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < below:
            return port


def _with_parent() -> None:
    """In the child, before it runs: end when the parent ends, however that comes."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    before = _with_parent if sys.platform == "linux" else None
    return subprocess.Popen(list(command), preexec_fn=before, **options)


def ended(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM, within_s: float = 10) -> None:
    """End it by a signal, also when it is stopped; by SIGKILL when that takes too long."""
    if process.poll() is None:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(within_s)


def wait_until(holds: Callable[[], object], what: str, within_s: float = START_BOUND_S, every_s: float = 0.02) -> float:
    """Seconds until `holds()` is true; exits the program when that is too long. Lost connections count as not yet."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError, redis.RedisError):
            if holds():
                return time.monotonic() - began
        if time.monotonic() - began > within_s:
            sys.exit(f"waited {within_s:.0f} s in vain: {what}")
        time.sleep(every_s)


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


@contextmanager
def server_process(
    command: Sequence[str], port: int, variables: Mapping[str, str], log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server of ours for as long as the block runs; entered once it takes connections."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
    with contextlib.ExitStack() as stack:
        output = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
        process = spawn(command, env=kept | dict(variables), stdout=output, stderr=output)
        stack.callback(lambda: ended(process))
        wait_until(lambda: process.poll() is not None or _listens(port), " ".join(command))
        if process.poll() is not None:
            sys.exit(f"did not start: {' '.join(command)}" + (f"; see {log}" if log else ""))
        yield process


# -- Redis -----------------------------------------------------------------------------------------------------------


def _binary() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        sys.exit("needs a redis-server on PATH")
    return found


class RedisProcess:
    """A redis-server on loopback that keeps nothing on disk: killed, frozen and started again at will."""

    def __init__(self, directory: str, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._command += ["--dir", directory, "--logfile", "", *arguments]
        self.process = self._started()

    def client(self) -> redis.Redis:
        """A plain client; the caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def command(self, *words: str | int) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            told: dict[str, Any] = client.info(section)
            return told

    @property
    def answers(self) -> bool:
        return bool(self.command("PING"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def start(self) -> None:
        """A new, empty process on the same port, answering."""
        self.process = self._started()

    def close(self) -> None:
        ended(self.process, signal.SIGKILL)

    def _started(self) -> subprocess.Popen[bytes]:
        process = spawn(self._command, stdout=subprocess.DEVNULL)
        wait_until(lambda: self.answers or process.poll() is not None, "redis-server", every_s=0.005)
        if process.poll() is not None:
            sys.exit(f"did not start: {' '.join(self._command)}")
        return process


@contextmanager
def redis_process(*arguments: str) -> Iterator[RedisProcess]:
    with tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-bench-") as directory:
        server = RedisProcess(directory, *arguments)
        try:
            yield server
        finally:
            server.close()


class Sentinels:
    """A primary, a replica and three Sentinels that give up a primary after `down_after_ms`."""

    name = "accounts"

    def __init__(self, directory: str, down_after_ms: int = 1_000) -> None:
        self.nodes = [RedisProcess(_folder(directory, "primary"))]
        primary = self.nodes[0]
        replica_of = ("--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0")
        self.nodes.append(RedisProcess(_folder(directory, "replica"), *replica_of))
        self._watchers: list[tuple[subprocess.Popen[bytes], int]] = []
        for number in range(3):
            port = free_port()
            file = Path(_folder(directory, f"sentinel{number}"), "sentinel.conf")
            file.write_text(
                f"port {port}\nbind 127.0.0.1\n"
                f"sentinel monitor {self.name} 127.0.0.1 {primary.port} 2\n"
                f"sentinel down-after-milliseconds {self.name} {down_after_ms}\n"
                f"sentinel failover-timeout {self.name} 5000\n"
            )
            command = [_binary(), str(file), "--sentinel"]
            self._watchers.append((spawn(command, stdout=subprocess.DEVNULL), port))
        wait_until(self._watched, "the Sentinels to know each other and the replica")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for _, port in self._watchers)
        return f"redis+sentinel://{hosts}/{self.name}"

    @property
    def primary(self) -> RedisProcess:
        """The node that says it is one; while there is none, the first."""
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                if node.process.poll() is None and node.command("ROLE")[0] == b"master":
                    return node
        return self.nodes[0]

    def close(self) -> None:
        for process, _ in self._watchers:
            ended(process, signal.SIGKILL)
        for node in self.nodes:
            node.close()

    def _watched(self) -> bool:
        for _, port in self._watchers:
            with redis.Redis(host="127.0.0.1", port=port, socket_timeout=5) as client:
                told = client.execute_command("SENTINEL", "MASTER", self.name)
                facts = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
                facts = {_text(key): _text(value) for key, value in facts.items()}
                if int(facts.get("num-other-sentinels", 0)) < 2 or int(facts.get("num-slaves", 0)) < 1:
                    return False
        return bool(self.nodes[1].info("replication").get("master_link_status") == "up")


class Cluster:
    """Three primaries with a replica each."""

    def __init__(self, directory: str, node_timeout_ms: int = 1_000) -> None:
        arguments: tuple[str, ...] = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms))
        arguments += ("--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0")
        self.nodes = [
            RedisProcess(_folder(directory, f"node{number}"), *arguments, port=free_port(below=55_000))
            for number in range(6)
        ]
        primaries, replicas = self.nodes[:3], self.nodes[3:]
        share = 16_384 // 3
        for number, node in enumerate(primaries):
            last = 16_383 if number == 2 else (number + 1) * share - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for epoch, node in enumerate(self.nodes, 1):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        wait_until(lambda: all(len(self._known(node)) == 6 for node in self.nodes), "the cluster's nodes to meet")
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.command("CLUSTER", "REPLICATE", _text(primary.command("CLUSTER", "MYID")))
        wait_until(lambda: all(self._well(node) for node in self.nodes), "the cluster to be well")
        wait_until(
            lambda: all(node.info("replication").get("master_link_status") == "up" for node in replicas),
            "the cluster's replicas",
        )

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def owner(self, key: str) -> RedisProcess:
        """The primary of the key's slot, as a living node knows it."""
        for node in self.nodes:
            if node.process.poll() is None:
                slot = node.command("CLUSTER", "KEYSLOT", key)
                for first, last, primary, *_ in node.command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.nodes if one.port == primary[1])
        sys.exit("no node of the cluster lives")

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def _known(self, node: RedisProcess) -> list[str]:
        told = node.command("CLUSTER", "NODES")
        lines = _text(told).splitlines() if isinstance(told, bytes | str) else list(told)
        return [str(line) for line in lines if "handshake" not in str(line)]

    def _well(self, node: RedisProcess) -> bool:
        told = node.command("CLUSTER", "INFO")
        return "ok" in (_text(told) if isinstance(told, bytes | str) else str(told.get("cluster_state")))


def _folder(directory: str, name: str) -> str:
    made = Path(directory, name)
    made.mkdir()
    return str(made)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# -- orders to Python processes ----------------------------------------------------------------------------------------


class Child:
    """A Python process that carries out orders: a line of JSON each way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0
        self._listening = asyncio.create_task(self._listen())

    async def ask(self, order: str, *, within_s: float = 120.0, **arguments: Any) -> Any:
        """What the order came to.

        Raises:
            ConnectionError: the process has ended.
            RuntimeError: the order failed there.
            TimeoutError: no answer in time.
        """
        writer = self.process.stdin
        assert writer is not None
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        writer.write(json.dumps([number, order, arguments]).encode() + b"\n")
        async with asyncio.timeout(within_s):
            return await answer

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def aclose(self) -> None:
        """Hang up, which ends it; by force when that takes too long."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(10):
                await self.process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.process.wait()
        await self._listening

    async def _listen(self) -> None:
        reader = self.process.stdout
        assert reader is not None
        while line := await reader.readline():
            number, failed, value = json.loads(line)
            answer = self._waiting.pop(number, None)
            if answer is not None and not answer.done():
                if failed:
                    answer.set_exception(RuntimeError(value))
                else:
                    answer.set_result(value)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the process has ended"))
                answer.exception()  # whoever has gone meanwhile does not ask for it


async def spawned(file: str, *arguments: str) -> asyncio.subprocess.Process:
    """`python <file> <arguments>` with pipes to its stdin and stdout; it ends with this process."""
    before = _with_parent if sys.platform == "linux" else None
    return await asyncio.create_subprocess_exec(
        sys.executable,
        file,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
        preexec_fn=before,
    )


@asynccontextmanager
async def child(file: str, *arguments: str) -> AsyncIterator[Child]:
    """`python <file> <arguments>`, which must call `take_orders`."""
    made = Child(await spawned(file, *arguments))
    try:
        await made.ask("ready", within_s=START_BOUND_S)
        yield made
    finally:
        await made.aclose()


async def take_orders(orders: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """In the child: carry out orders, several at once, until the parent hangs up."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    busy: set[asyncio.Task[None]] = set()

    def tell(number: int, failed: bool, value: Any) -> None:
        sys.stdout.write(json.dumps([number, failed, value]) + "\n")
        sys.stdout.flush()

    async def carry_out(number: int, order: str, arguments: dict[str, Any]) -> None:
        try:
            tell(number, False, await orders[order](**arguments) if order != "ready" else None)
        except Exception:  # the boundary to the parent, which is told whatever it was
            tell(number, True, traceback.format_exc(limit=6))

    while line := await reader.readline():
        task = loop.create_task(carry_out(*json.loads(line)))
        busy.add(task)
        task.add_done_callback(busy.discard)
    for task in tuple(busy):
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
