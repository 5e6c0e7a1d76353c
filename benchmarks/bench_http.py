"""What a cached call costs over HTTP, as ratios to the least that its framework could take in the same run.

    python benchmarks/bench_http.py [--rounds 3] [--seconds 1] [--connections 8] [--client wrk|python]

Starts a redis-server, a simulated JobNimbus, our server on Redis and on the embedded store, and a server that returns
the very same bytes from memory: by a plain Starlette route, and by a tool of the bare MCP SDK that does nothing. All of
them run uvicorn with uvloop and httptools, one process each. The load comes from another process: wrk when it is on
PATH, else this file's own client. Measurements alternate in rounds and the medians are told, so that a busy machine
slows all alike: compare ratios, not numbers of different runs. Nothing here passes or fails by time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

INSTANCE = "stamford"
TOKEN = "t0ken-of-the-benchmark-1"
START_BOUND_S = 30.0
LATENCY_MS = 600
"""What JobNimbus's API takes: 500 to 800 ms."""

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
}


class Server(NamedTuple):
    name: str
    url: str


@dataclass(frozen=True)
class Target:
    """One request, asked over and over. `against`: the row its ratio is told to."""

    name: str
    url: str
    body: bytes
    headers: Mapping[str, str]
    against: str = ""


@dataclass(frozen=True)
class Load:
    """What a round told: requests per second, median latency, and answers that were not as they should be."""

    per_s: float
    p50_ms: float
    bad: int


# -- the server to compare with --------------------------------------------------------------------------------------


def baseline() -> Any:
    """The answers in the file BASELINE_ANSWERS, by plain routes and by tools of the bare SDK."""
    from mcp.server.lowlevel import Server as McpServer
    from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    answers: dict[str, dict[str, Any]] = json.loads(Path(os.environ["BASELINE_ANSWERS"]).read_bytes())
    plain_bytes = {name: answer["plain"].encode() for name, answer in answers.items()}
    schema = {"type": "object"}
    tools = [Tool(name=name, description=name, input_schema=schema) for name in answers]

    async def list_tools(_ctx: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(_ctx: Any, params: Any) -> CallToolResult:
        answer = answers[params.name]
        return CallToolResult(
            content=[TextContent(type="text", text=answer["text"])],
            structured_content=answer["structured"],
            _meta=answer["meta"],
        )

    async def plain(request: Request) -> Response:
        await request.body()
        return Response(plain_bytes[request.path_params["name"]], media_type="application/json")

    server: McpServer[Any] = McpServer(
        "bare",
        version="0",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda _name: schema,
    )
    mcp_app = server.streamable_http_app(stateless_http=True, json_response=False)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    return Starlette(
        routes=[Route("/plain/{name}", plain, methods=["POST"]), Mount("/", app=mcp_app)], lifespan=lifespan
    )


# -- processes -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], port: int, **variables: str) -> Iterator[None]:
    """A server of ours for as long as the block runs; entered once it takes connections."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    started = subprocess.Popen(command, env=kept | variables, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_BOUND_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if started.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"did not start: {' '.join(command)}")
                time.sleep(0.05)
        yield
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(5)


@contextlib.contextmanager
def redis_server(directory: str) -> Iterator[str]:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        sys.exit("needs a redis-server on PATH")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with process([*command, "--dir", directory], port):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "jobnimbus_mcp", "simulate", "--instances", INSTANCE, "--port", str(port)]
    with process(command, port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def ours(name: str, directory: str, simulator_url: str, key: str, **variables: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "jobnimbus_mcp", "serve", "--port", str(port)]
    settings = {
        "JOBNIMBUS_INSTANCES": INSTANCE,
        "JOBNIMBUS_API_BASE_URL": f"{simulator_url}/api1",
        "JOBNIMBUS_API_KEY": key,
        "MCP_AUTH_TOKENS": TOKEN,
        "LOG_LEVEL": "warning",
        "DATA_DIR": directory,
    }
    with process(command, port, **settings, **variables):
        yield Server(name, f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def bare(answers: Path) -> Iterator[Server]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        "bench_http:baseline",
        "--app-dir",
        str(Path(__file__).parent),
    ]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--log-level", "warning"]
    with process([*command, "--no-access-log"], port, BASELINE_ANSWERS=str(answers)):
        yield Server("bare", f"http://127.0.0.1:{port}")


# -- requests --------------------------------------------------------------------------------------------------------


def over_http(url: str, tool: str, arguments: Mapping[str, Any], name: str, against: str) -> Target:
    """`POST /mcp/tools/call`."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    return Target(name, url, json.dumps({"name": tool, "arguments": arguments}).encode(), headers, against)


def over_mcp(server: Server, tool: str, arguments: Mapping[str, Any], name: str, against: str = "") -> Target:
    """`tools/call` in one POST, as clients of protocol 2026-07-28 send it."""
    params = {"_meta": META, "name": tool, "arguments": arguments}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": META["io.modelcontextprotocol/protocolVersion"],
        "mcp-method": "tools/call",
        "mcp-name": tool,
        "authorization": f"Bearer {TOKEN}",
    }
    return Target(name, f"{server.url}/mcp", body, {name: str(value) for name, value in headers.items()}, against)


def ask(target: Target) -> bytes:
    request = urllib.request.Request(target.url, target.body, dict(target.headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as refused:
        sys.exit(f"{target.name}: {refused.code} {refused.read().decode()[:300]}")


def control(simulator_url: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{simulator_url}/_sim/{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


# -- load ------------------------------------------------------------------------------------------------------------

WRK_SCRIPT = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args)
  bad = 0
  local file = io.open(args[1], 'rb')
  wrk.method = 'POST'
  for line in file:lines() do
    if line == '' then break end
    local name, value = line:match('^(.-): (.*)$')
    wrk.headers[name] = value
  end
  wrk.body = file:read('*a')
  expected = tonumber(args[2])
end
function response(status, headers, body)
  if status ~= 200 or #body < expected then bad = bad + 1 end
end
function done(summary, latency, requests)
  local total = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  for _, thread in ipairs(threads) do total = total + thread:get('bad') end
  io.write(string.format('RESULT {"per_s":%.1f,"p50_ms":%.3f,"bad":%d}\\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1000, total))
end
"""


@dataclass(frozen=True)
class Client:
    """The process that asks. `wrk`: its path, or None for this file's own client, which is slower itself."""

    wrk: str | None
    directory: Path
    seconds: float

    def load(self, target: Target, connections: int, size_bytes: int) -> Load:
        asked = self.directory / "request"
        head = "".join(f"{name}: {value}\n" for name, value in target.headers.items())
        asked.write_bytes(head.encode() + b"\n" + target.body)
        least = str(size_bytes * 9 // 10)  # ages and ids differ in length
        if self.wrk is None:
            command = [sys.executable, __file__, "--as-client", target.url, str(asked), least, str(connections)]
            command.append(str(self.seconds))
        else:
            script = self.directory / "wrk.lua"
            script.write_text(WRK_SCRIPT)
            command = [self.wrk, "-t1", f"-c{connections}", f"-d{max(1, round(self.seconds))}s"]
            command += ["-s", str(script), target.url, "--", str(asked), least]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=self.seconds + 30)
        told = next((line for line in ran.stdout.splitlines() if line.startswith("RESULT ")), None)
        if told is None:
            sys.exit(f"no result from {command[0]}: {ran.stdout[-300:]}{ran.stderr[-300:]}")
        return Load(**json.loads(told.removeprefix("RESULT ")))


async def as_client(url: str, asked: bytes, least: int, connections: int, seconds: float) -> None:
    """The load of a round, from raw sockets kept open."""
    head, _, body = asked.partition(b"\n\n")
    host, _, path = url.removeprefix("http://").partition("/")
    lines = [f"POST /{path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}", *head.decode().splitlines()]
    raw = "\r\n".join([*lines, "", ""]).encode() + body
    taken: list[float] = []
    bad = 0
    until = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal bad
        address, _, port = host.partition(":")
        reader, writer = await asyncio.open_connection(address, int(port), limit=1 << 24)
        while (began := time.perf_counter()) < until:
            writer.write(raw)
            status, size = await answered(reader)
            taken.append(time.perf_counter() - began)
            bad += status != 200 or size < least
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(connections)))
    per_s = len(taken) / (time.perf_counter() - began)
    print("RESULT " + json.dumps({"per_s": per_s, "p50_ms": statistics.median(taken) * 1e3, "bad": bad}))


async def answered(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and size of one answer, whether its length was announced or it came in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    _, announced, rest = head.partition(b"content-length:")
    if announced:
        return status, len(await reader.readexactly(int(rest.partition(b"\r\n")[0])))
    size = 0
    while (chunk := int(await reader.readuntil(b"\r\n"), 16)) > 0:
        size += len(await reader.readexactly(chunk + 2)) - 2
    await reader.readexactly(2)
    return status, size


# -- what is told ----------------------------------------------------------------------------------------------------


def answers_of(server: Server, questions: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each tool's cached answer as `server` gives it, for the bare server to repeat."""
    told = {}
    for tool, arguments in questions.items():
        plain = over_http(f"{server.url}/mcp/tools/call", tool, arguments, tool, "")
        ask(plain)
        cached = ask(plain)
        if json.loads(cached)["cache"]["status"] != "hit":
            sys.exit(f"{tool} was not answered from the cache")
        reply = ask(over_mcp(server, tool, arguments, tool))
        result = json.loads(reply.decode().partition("data: ")[2] or reply)["result"]
        told[tool] = {
            "plain": cached.decode(),
            "text": result["content"][0]["text"],
            "structured": result["structuredContent"],
            "meta": {name: value for name, value in result["_meta"].items() if name.startswith("jobnimbus")},
        }
    return told


def targets_of(bare_one: Server, own: list[Server], questions: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    rows = []
    for tool, arguments in questions.items():
        plain, sdk = f"{tool}: Starlette route, same bytes", f"{tool}: bare SDK tool, same bytes"
        rows.append(over_http(f"{bare_one.url}/plain/{tool}", tool, arguments, plain, plain))
        rows += [
            over_http(f"{one.url}/mcp/tools/call", tool, arguments, f"{tool}: /mcp/tools/call hit, {one.name}", plain)
            for one in own
        ]
        rows.append(over_mcp(bare_one, tool, arguments, sdk, sdk))
        rows += [over_mcp(one, tool, arguments, f"{tool}: MCP tools/call hit, {one.name}", sdk) for one in own]
    return rows


def table(
    rows: list[Target], sizes: Mapping[str, int], rounds: Mapping[tuple[str, int], list[Load]], many: int
) -> None:
    def per_s(name: str) -> float:
        return statistics.median(load.per_s for load in rounds[name, many])

    def p50_ms(name: str) -> float:
        return statistics.median(load.p50_ms for load in rounds[name, 1])

    print(f"{'':<52} {'bytes':>6} {'req/s':>8} {'min..max':>15} {'ratio':>6} {'p50 ms':>8} {'ratio':>6}")
    for row in rows:
        speeds = [load.per_s for load in rounds[row.name, many]]
        spread = f"{min(speeds):.0f}..{max(speeds):.0f}"
        faster, longer = per_s(row.name) / per_s(row.against), p50_ms(row.name) / p50_ms(row.against)
        print(
            f"{row.name:<52} {sizes[row.name]:>6} {per_s(row.name):>8.0f} {spread:>15} {faster:>6.2f}"
            f" {p50_ms(row.name):>8.3f} {longer:>6.2f}"
        )
    bad = sum(load.bad for loads in rounds.values() for load in loads)
    print(
        f"req/s with {many} connections, p50 with one; ratio: to the row of the same bytes above. Bad answers: {bad}."
    )


def first_and_cached(server: Server, simulator_url: str, jobs: list[str]) -> None:
    """The first call of a question and the same one again, with a JobNimbus as slow as the real one."""
    control(simulator_url, "faults", {"latencyMs": LATENCY_MS})
    taken: dict[str, list[float]] = {"first": [], "again": []}
    for job in jobs:
        target = over_http(f"{server.url}/mcp/tools/call", "get_job", {"job_id": job}, "get_job", "")
        for times in taken.values():
            began = time.perf_counter()
            ask(target)
            times.append((time.perf_counter() - began) * 1e3)
    first, again = (statistics.median(times) for times in taken.values())
    told = f"first call {first:.1f} ms, again {again:.2f} ms = {first / again:.0f} x"
    print(f"JobNimbus at {LATENCY_MS} ms, {server.name}: {told}")


def measure(rounds: int, seconds: float, connections: int, wrk: str | None) -> None:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-bench-"))
        simulator_url = stack.enter_context(simulator())
        key = control(simulator_url, "keys")[INSTANCE][0]
        redis_url = stack.enter_context(redis_server(directory))
        own = [
            stack.enter_context(ours("Redis", directory, simulator_url, key, REDIS_URL=redis_url)),
            stack.enter_context(ours("embedded", directory, simulator_url, key)),
        ]
        page = over_http(f"{own[0].url}/mcp/tools/call", "get_jobs", {"size": 12, "fields": "jnid"}, "get_jobs", "")
        jobs = [row["jnid"] for row in json.loads(ask(page))["data"]["results"]]
        questions: dict[str, dict[str, Any]] = {"get_job": {"job_id": jobs[0]}, "get_jobs": {"size": 25}}
        answers = answers_of(own[0], questions)
        answers_file = Path(directory, "answers.json")
        answers_file.write_text(json.dumps(answers))
        rows = targets_of(stack.enter_context(bare(answers_file)), own, questions)

        client = Client(wrk, Path(directory), seconds)
        sizes = {row.name: max(len(ask(row)) for _ in range(3)) for row in rows}
        taken: dict[tuple[str, int], list[Load]] = {}
        for _ in range(rounds):
            for row in rows:
                for number in (connections, 1):
                    load = client.load(row, number, sizes[row.name])
                    taken.setdefault((row.name, number), []).append(load)
        table(rows, sizes, taken, connections)
        for one in own:
            first_and_cached(one, simulator_url, jobs[1:6])
            control(simulator_url, "reset", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one load; wrk takes whole ones")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--client", choices=("wrk", "python"), default="wrk" if shutil.which("wrk") else "python")
    parser.add_argument("--as-client", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_client:
        import uvloop

        url, asked, least, connections, seconds = given.as_client
        uvloop.run(as_client(url, Path(asked).read_bytes(), int(least), int(connections), float(seconds)))
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("mcp", "starlette", "uvicorn", "uvloop", "httptools"))
    print(f"{platform.node()}, {os.cpu_count()} cores: Python {platform.python_version()}, {versions}")
    print(f"{' '.join([Path(sys.executable).name, *sys.argv])} (load from {given.client})")
    measure(given.rounds, given.seconds, given.connections, shutil.which("wrk") if given.client == "wrk" else None)


if __name__ == "__main__":
    main()
