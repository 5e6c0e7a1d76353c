"""The command line: demo, serve, stdio, worker, events, simulate, doctor.

Says what is wrong in one line, and stops when told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer

from jobnimbus_mcp import __version__
from jobnimbus_mcp.cli_events import app as events
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.logging import configure

if TYPE_CHECKING:
    # imported where they are used, so that a worker or `--help` does not pay for all of them
    from jobnimbus_mcp.doctor import Finding
    from jobnimbus_mcp.doctor.connect import Block, Place
    from jobnimbus_mcp.simulator import Simulator

__all__ = ["main"]

GRACE_S = 3
"""Calls in flight may take this long after a signal; with what closing takes, a stop stays under 5 s."""

CANCEL_S = 3.5
"""After that a server on stdin is cancelled, which gives its calls GRACE_S of its own accord."""

ENV_FILE = ".env"

Port = Annotated[int, typer.Option(min=1, max=65535)]

app = typer.Typer(
    name="jobnimbus-mcp",
    help="An MCP server that lets agents work with JobNimbus through a cache that is never out of date.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; bad settings end it with one line on stderr and code 2."""
    try:
        app()
    except SettingsError as wrong:
        print(f"jobnimbus-mcp: {wrong.public_message}", file=sys.stderr)
        raise SystemExit(2) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"jobnimbus-mcp {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What every command shares: nothing but the version."""


@app.command(epilog="Example: jobnimbus-mcp demo --once")
def demo(
    port: Port = 8000,
    once: Annotated[bool, typer.Option(help="Drive it through a real MCP client, print a table, and exit.")] = False,
) -> None:
    """Simulator and server in one process: no settings, no account, no Redis needed."""
    from jobnimbus_mcp.demo import run

    configure("warning")
    _stop_on_signals()
    raise typer.Exit(run(port, once))


@app.command(epilog="Example: jobnimbus-mcp serve --host 0.0.0.0 --port 8000 --workers 2")
def serve(
    host: str = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; more than one needs a Redis.")] = 1,
    insecure_loopback: Annotated[
        bool, typer.Option(help="Serve the server's own key to everybody on this machine, without MCP_AUTH_TOKENS.")
    ] = False,
) -> None:
    """The HTTP server: MCP, webhooks, /cache routes. Settings come from the environment and .env."""
    import uvicorn

    settings = _settings()
    _refuse_open_door(settings, host, insecure_loopback=insecure_loopback)
    if workers > 1 and not all(settings.store_url_of(instance) for instance in settings.instances):
        raise SettingsError("REDIS_URL: --workers above 1 needs a Redis, the embedded store is one process's own")
    _refuse_taken_port(host, port)
    _stop_on_signals()
    structlog.get_logger().info(
        "server starting",
        url=f"http://{host}:{port}/mcp",
        version=__version__,
        workers=workers,
        store=settings.store_address,
        accounts=list(settings.instances),
    )
    with _shared_metrics() if workers > 1 else contextlib.nullcontext():
        uvicorn.run(
            "jobnimbus_mcp.app:from_environment",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            loop="auto",  # uvloop wherever it exists
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )


@app.command(epilog="Example: jobnimbus-mcp stdio < requests.jsonl")
def stdio(
    env_file: Annotated[
        str, typer.Option("--env-file", help="Settings file, for hosts that start this in a directory of their own.")
    ] = ENV_FILE,
) -> None:
    """The MCP server on stdin and stdout; logs only on stderr."""
    if env_file != ENV_FILE and not os.path.isfile(env_file):
        raise SettingsError(f"--env-file: there is no file {env_file}")
    settings = _settings(env_file)
    from jobnimbus_mcp.app import run_stdio

    _run_until_told(run_stdio(settings))


@app.command(epilog="Example: jobnimbus-mcp worker --until-idle")
def worker(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when nothing is left to do, also nothing that waits for its time.")
    ] = False,
) -> None:
    """Only the event consumers, apart from the web process; as many as wanted share the work."""
    settings = _settings()
    if settings.events_transport == "redis" and not all(settings.store_url_of(one) for one in settings.instances):
        raise SettingsError("REDIS_URL: a worker needs the server's Redis; the embedded store is one process's own")
    from jobnimbus_mcp.app import run_worker

    _run_until_signalled(run_worker(settings, until_idle=until_idle))


app.add_typer(events, name="events")


@app.command(epilog="Example: jobnimbus-mcp simulate --port 9000 --instances stamford,guilford --seed 7")
def simulate(
    port: Port = 9000,
    instances: Annotated[str, typer.Option(help="Accounts, comma-separated.")] = "stamford,guilford",
    seed: Annotated[int, typer.Option(help="The same seed gives the same data and keys.")] = 7,
    scale: Annotated[int, typer.Option(min=1, max=100, help="1 is about 300 jobs; 40 outgrows the paging.")] = 1,
    latency_ms: Annotated[float, typer.Option(min=0, max=60_000, help="Of every API call.")] = 0,
    webhook_url: Annotated[str | None, typer.Option(help="Where changes are delivered to.")] = None,
) -> None:
    """A simulated JobNimbus on 127.0.0.1, for trying and testing without an account."""
    from jobnimbus_mcp.simulator import Simulator

    configure("warning")
    try:
        names = Settings.from_env({"JOBNIMBUS_INSTANCES": instances}).instances
    except SettingsError as wrong:
        raise typer.BadParameter(wrong.public_message.partition(": ")[2], param_hint="--instances") from wrong
    if webhook_url is not None and not webhook_url.startswith(("http://", "https://")):
        raise typer.BadParameter("must be an http:// or https:// URL", param_hint="--webhook-url")
    _refuse_taken_port("127.0.0.1", port)
    _stop_on_signals()
    make = partial(Simulator, instances=names, seed=seed, scale=scale, latency_ms=latency_ms, webhook_url=webhook_url)
    asyncio.run(_serve_simulator(make, port))


@app.command(epilog="Example: jobnimbus-mcp doctor")
def doctor() -> None:
    """Checks settings, Redis, keys, webhooks and events: a line each, with what to change; then how an agent is
    connected, a block to paste for each host. Exits 1 when a finding is bad."""
    from jobnimbus_mcp.doctor import Finding, Level, worst
    from jobnimbus_mcp.doctor.connect import blocks

    configure("error")
    connect: tuple[Block, ...] = ()
    try:
        settings = Settings.from_env(os.environ, env_file=ENV_FILE)
    except SettingsError as wrong:
        findings = [Finding(Level.BAD, "settings", mistake) for mistake in wrong.public_message.split("; ")]
    else:
        told = f"understood; accounts: {', '.join(settings.instances)}."
        _stop_on_signals()
        findings = [Finding(Level.OK, "settings", told), *asyncio.run(_examine(settings))]
        connect = blocks(settings, _place(settings))
    for finding in findings:
        print(f"{finding.level.value:<5} {finding.subject}: {finding.sentence}")
    for block in connect:
        print(f"\nTo connect {block.host}, in {block.where}:\n\n{block.text}")
    raise typer.Exit(1 if worst(findings) is Level.BAD else 0)


def _settings(env_file: str = ENV_FILE) -> Settings:
    settings = Settings.from_env(os.environ, env_file=env_file)
    configure(settings.log_level, settings.log_format, secrets=settings.secret_values())
    return settings


def _place(settings: Settings) -> Place:
    """Where this command lies and the server is reached, as far as can be seen from here."""
    from jobnimbus_mcp.doctor import is_loopback
    from jobnimbus_mcp.doctor.connect import Place

    env_file = os.path.abspath(ENV_FILE)
    outside = [host for host in settings.allowed_hosts if not is_loopback(host)]
    return Place(
        command=os.path.abspath(_installed() or sys.argv[0]),
        env_file=env_file if os.path.isfile(env_file) else None,
        public=outside[0] if outside else None,
    )


def _installed() -> str | None:
    """This command as it was installed: on the PATH, else beside the Python that runs it."""
    return shutil.which("jobnimbus-mcp") or shutil.which("jobnimbus-mcp", path=os.path.dirname(sys.executable))


def _refuse_open_door(settings: Settings, host: str, *, insecure_loopback: bool) -> None:
    from jobnimbus_mcp.doctor import is_loopback

    if insecure_loopback and not is_loopback(host):
        raise SettingsError("--insecure-loopback goes with a loopback host only, such as --host 127.0.0.1")
    if settings.holds_api_key and not settings.has_doors and not insecure_loopback:
        raise SettingsError(
            "MCP_AUTH_TOKENS: needed (or MCP_CLIENTS, or OAUTH_ISSUER_URL), because the server holds a JobNimbus key "
            "that anybody could read with otherwise; set it, or try it on this machine with --insecure-loopback"
        )


def _refuse_taken_port(host: str, port: int) -> None:
    """Before anything is announced. Whatever else keeps a server from listening there, it says itself.

    Raises:
        SettingsError: somebody listens there already.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return
    for family, kind, protocol, _, address in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # elsewhere this would bind beside whoever listens there
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(address)
            except OSError as refused:
                if refused.errno == errno.EADDRINUSE:
                    raise SettingsError(f"port {port} is taken; choose another by --port") from None


@contextlib.contextmanager
def _shared_metrics() -> Iterator[None]:
    """A directory in which the workers keep their metrics, so that any of them can tell the sum."""
    variable = "PROMETHEUS_MULTIPROC_DIR"
    if variable in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="jobnimbus-mcp-metrics-") as directory:
        # read by prometheus_client when a worker first imports it, hence before any of them is started
        os.environ[variable] = directory
        try:
            yield
        finally:
            del os.environ[variable]


async def _serve_simulator(make: Callable[[], Simulator], port: int) -> None:
    import uvicorn

    simulator = make()
    server = uvicorn.Server(
        uvicorn.Config(
            simulator.app,
            host="127.0.0.1",
            port=port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    root = f"http://127.0.0.1:{port}"
    print(f"Simulated JobNimbus: API root {root}/api1, accounts {', '.join(simulator.keys)}.", flush=True)
    print(f"Keys it accepts:     curl {root}/_sim/keys", flush=True)
    try:
        await server.serve()
    finally:
        await simulator.aclose()


async def _examine(settings: Settings) -> list[Finding]:
    from jobnimbus_mcp.app import doctor_probes
    from jobnimbus_mcp.doctor import examine

    async with doctor_probes(settings) as probes:
        return await examine(settings, probes)


def _stop_on_signals() -> None:
    """SIGINT and SIGTERM unwind the stack and end the process with code 0, so that everything open is closed.

    uvicorn puts its own handlers over these while it serves, and raises the signal again when it has stopped.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _run_until_signalled(working: Coroutine[Any, Any, None]) -> None:
    """Run until it ends by itself; a signal cancels it, so that it gives back what it has in hand."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(working)

        def told(_number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(work.cancel)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, told)
        with contextlib.suppress(asyncio.CancelledError):
            await work

    asyncio.run(run())


def _run_until_told(serving: Coroutine[Any, Any, None]) -> None:
    """Run a server that reads stdin until its input ends; a signal ends the input.

    A thread that waits for a line cannot be interrupted, so the server reads from a pipe that is fed from stdin here:
    closing it is to the server what a client's hanging up is. What has not ended CANCEL_S later is cancelled.
    """
    hang_up = _feed_stdin()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = asyncio.ensure_future(serving)

        def told(_number: int, _frame: FrameType | None) -> None:
            hang_up()
            loop.call_soon_threadsafe(lambda: loop.call_later(CANCEL_S, server.cancel))

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, told)
        # cancelled by nobody but `told`: an end that was asked for
        with contextlib.suppress(asyncio.CancelledError):
            await server

    asyncio.run(run())


def _feed_stdin() -> Callable[[], None]:
    """Put a pipe in the place of stdin, fed from it by a thread; returns what ends the feeding."""
    reading, writing = os.pipe()
    source = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    hung_up, hang_up = os.pipe()

    def feed() -> None:
        with open(writing, "wb", buffering=0) as server, contextlib.suppress(BrokenPipeError):
            while hung_up not in select.select([source, hung_up], [], [])[0]:
                chunk = memoryview(os.read(source, 65_536))
                if not chunk:
                    return
                while chunk:
                    chunk = chunk[server.write(chunk) :]

    threading.Thread(target=feed, name="stdin", daemon=True).start()

    def end() -> None:
        os.write(hang_up, b".")

    return end
