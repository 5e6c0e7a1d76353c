"""A PostgreSQL of the tests' own: real, on loopback, with fsync on, gone with its folder."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["PASSWORD", "ROLE", "PostgresServer", "server"]

ROLE, PASSWORD = "jobnimbus_mcp", "of-the-tests"
"""What the log connects as: the owner of its database, and nothing more."""

_WITHIN_S = 20.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        if os.environ.get("REQUIRE_POSTGRES") == "1":
            pytest.fail("REQUIRE_POSTGRES=1, and there is no PostgreSQL")
        pytest.skip("needs PostgreSQL's initdb, of Debian's package or on PATH")
    return found[-1].parent if found else Path(str(on_path)).parent


def _stop_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """One server; `template` is a database that others are made from, by `database`."""

    def __init__(self) -> None:
        self._binaries = _binaries()
        self._directory = Path(tempfile.mkdtemp(prefix="jobnimbus-mcp-pg-"))
        # the server refuses to run as root
        self._user = "postgres" if os.geteuid() == 0 else None
        self._made = 0
        self.port = _free_port()
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", str(self._directory / "data"), "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8")
        self.process = self._spawn()
        self.sql(f"create role {ROLE} login password '{PASSWORD}'")

    def dsn(self, database: str, *, role: str = ROLE) -> str:
        return f"postgresql://{role}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def database(self, template: str = "template0") -> str:
        """A new database, of the log's role; its name."""
        self._made += 1
        name = f"events_{self._made}"
        self.sql(f"create database {name} owner {ROLE} template {template}")
        return name

    def drop(self, database: str) -> None:
        self.sql(f"drop database if exists {database} with (force)")

    def sql(self, statement: str, *, database: str = "postgres", role: str = "postgres") -> str:
        """What psql prints; for the tests' own preparations."""
        command = ("-h", "127.0.0.1", "-p", str(self.port), "-U", role, "-d", database)
        return self._run("psql", *command, "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement).strip()

    def stop(self) -> None:
        """End at once, without writing anything down, as at a loss of power."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(_WITHIN_S)

    def start(self) -> None:
        """Come back on what is on the disk. Called in the main thread, with whose end the server ends too."""
        self.process = self._spawn()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._directory,
            "fsync": "on",
            "recovery_init_sync_method": "syncfs",
            "shared_buffers": "32MB",
            "max_connections": "60",
        }
        with (self._directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *(str(self._binaries / "postgres"), "-D", str(self._directory / "data")),
                    *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
                ],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                user=self._user,
                preexec_fn=_stop_with_parent,
            )
        deadline = time.monotonic() + _WITHIN_S
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"PostgreSQL did not start: {(self._directory / 'log').read_text()[-500:]}")
            time.sleep(0.02)
        return process

    def _run(self, binary: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._binaries / binary), *arguments],
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
            cwd=self._directory,
            user=self._user if binary == "initdb" else None,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{binary}: {done.stderr[-500:]}")
        return done.stdout


@contextmanager
def server() -> Iterator[PostgresServer]:
    started = PostgresServer()
    try:
        yield started
    finally:
        started.close()
