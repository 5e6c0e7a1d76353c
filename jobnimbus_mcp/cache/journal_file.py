"""The journal in files of a directory that the processes of one machine may share.

Each file is named `<tenant>.<unique>.jsonl` and locked by the process that writes it for as long as that lives; the
operating system frees the lock however it ends. A file whose lock is free belonged to a dead process, and whoever gets
its lock has it. A file goes when all its lines have been applied: until then a crash means that some are applied again,
which invalidates once more and harms nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from errno import EEXIST
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import structlog

from jobnimbus_mcp.cache.journal import JournalError, Kept, Line, encode, found_in

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["JournalFile"]

T = TypeVar("T")

_ENDING = ".jsonl"
_OPEN = (
    os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)
_NAMES_TRIED = 8

_LINES_MAX = 100_000
"""Some 50 MB on the disk, and a minute of applying them."""

_FILE_LINES = 5_000
"""After so many lines another file is begun, so that room is given back although new lines keep coming."""


@dataclass(slots=True, eq=False)
class _File:
    """`size_bytes`: up to where it holds whole lines. `waiting`: those of them that have not been applied."""

    path: Path
    descriptor: int
    size_bytes: int = 0
    lines: int = 0
    waiting: set[int] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Asked:
    line: Line
    kept: Kept | None = None
    error: Exception | None = None


class _Steps:
    """Does steps one after the other in a thread that no process waits for at its end, however long a disk hangs."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self.closed = False

    def submit(self, step: Callable[[], T]) -> Future[T]:
        """Its result; `RuntimeError` when closed."""
        if self.closed:
            raise RuntimeError("closed")
        if self._thread is None:
            self._thread = Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._queue.put((step, future))
        return future

    def close(self) -> None:
        """Take nothing more; what has been asked for is done."""
        if not self.closed:
            self.closed = True
            self._queue.put(None)

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            step, future = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(step())
            except BaseException as error:  # the boundary of the thread: whoever waits is told
                future.set_exception(error)


def _durably(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


class JournalFile:
    """The `Journal` of these tenants in `directory`, which is made when it is first needed.

    All work is done in a thread of its own, so that a slow disk holds up nobody else, and lines that come while a write
    is under way go to the disk together with the next. `lines_max`: with so many waiting no more is taken; a file takes
    `file_lines`. `write`: appends to a descriptor and returns when that is durable.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tenants: Sequence[str],
        lines_max: int = _LINES_MAX,
        file_lines: int = _FILE_LINES,
        write: Callable[[int, bytes], None] = _durably,
        unique: Callable[[], str] = lambda: f"{os.getpid()}-{secrets.token_hex(6)}",
    ) -> None:
        self._directory = directory
        self._tenants = frozenset(tenants)
        self._lines_max = lines_max
        self._file_lines = file_lines
        self._write = write
        self._unique = unique
        self._steps = _Steps()
        self._asked: deque[_Asked] = deque()
        # Changed by the thread only.
        self._last_ref = 0
        self._file_of: dict[int, _File] = {}
        self._files: dict[str, _File] = {}
        self._current: dict[str, _File] = {}
        self._left_alone: set[str] = set()

    async def append(self, line: Line) -> Kept:
        if len(self._asked) + len(self._file_of) >= self._lines_max:
            raise JournalError("full")
        asked = _Asked(line)
        self._asked.append(asked)
        await self._done(self._append)
        if asked.kept is None:
            raise JournalError(_why(asked.error)) from asked.error
        return asked.kept

    async def adopt(self) -> Sequence[Kept]:
        return await self._done(self._adopt)

    async def drop(self, applied: Sequence[Kept]) -> None:
        await self._done(lambda: self._drop(applied))

    async def aclose(self) -> None:
        try:
            await self._done(self._close)
        finally:
            self._steps.close()

    async def _done(self, step: Callable[[], T]) -> T:
        try:
            working = self._steps.submit(step)
        except RuntimeError as error:  # of a thread that has been shut down
            raise JournalError("closed") from error
        try:
            return await asyncio.wrap_future(working)
        except OSError as error:
            raise JournalError(_why(error)) from error

    # -- in the thread: writing --------------------------------------------------------------------------------------

    def _append(self) -> None:
        """Write all that has been asked for by now; whoever comes to ask for it again finds it done."""
        batches: dict[str, list[tuple[_Asked, bytes]]] = {}
        while self._asked:
            asked = self._asked.popleft()
            try:
                batches.setdefault(asked.line.tenant, []).append((asked, encode(asked.line)))
            except TypeError as error:
                asked.error = error
        for tenant, batch in batches.items():
            try:
                file = self._written(tenant, b"".join(raw for _, raw in batch), len(batch))
            except OSError as error:
                for asked, _ in batch:
                    asked.error = error
                continue
            for asked, _ in batch:
                asked.kept = self._kept(file, asked.line)

    def _written(self, tenant: str, content: bytes, lines: int) -> _File:
        file = self._current.get(tenant)
        if file is None or file.lines >= self._file_lines:
            file = self._current[tenant] = self._created(tenant)
        try:
            self._write(file.descriptor, content)
        except OSError:
            # What is on the disk now, nobody knows: this file takes no more.
            del self._current[tenant]
            if file.waiting:
                os.ftruncate(file.descriptor, file.size_bytes)
            else:
                self._remove(file)
            raise
        file.size_bytes += len(content)
        file.lines += lines
        return file

    def _created(self, tenant: str) -> _File:
        _made(self._directory)
        for _ in range(_NAMES_TRIED):
            path = self._directory / f"{tenant}.{self._unique()}{_ENDING}"
            try:
                descriptor = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            file = _File(path, descriptor)
            try:
                if not _owned(descriptor, path):  # another process adopted it at once, since it was not locked yet
                    os.close(descriptor)
                    continue
                _sync_directory(self._directory)
            except OSError:
                self._remove(file)
                raise
            self._files[path.name] = file
            return file
        raise FileExistsError(EEXIST, "no free name")

    # -- in the thread: what others have left, and what is done ------------------------------------------------------

    def _adopt(self) -> list[Kept]:
        found: list[Kept] = []
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return found
        for name in names:
            tenant = name.removesuffix(_ENDING).rpartition(".")[0]
            known = name in self._files or name in self._left_alone
            if name.endswith(_ENDING) and tenant in self._tenants and not known:
                found += self._claimed(name, tenant)
        return found

    def _claimed(self, name: str, tenant: str) -> list[Kept]:
        """The lines of one file, if it was left behind and nobody else was quicker."""
        path = self._directory / name
        descriptor = -1
        try:
            descriptor = os.open(path, _OPEN)
            if not _owned(descriptor, path):
                os.close(descriptor)
                return []
            content = _content(descriptor)
        except FileNotFoundError:
            return []
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            self._left_alone.add(name)
            structlog.get_logger().error("journal cannot be read", instance=tenant, file=name, reason=_why(error))
            return [self._kept(None, Line(tenant, (), None))]
        file = self._files[name] = _File(path, descriptor, len(content))
        found = found_in(content, tenant)
        if found.cut:
            structlog.get_logger().warning("journal ends within a line, which is ignored", instance=tenant, file=name)
        if found.damaged:
            structlog.get_logger().error("journal damaged", instance=tenant, file=name, lines=found.damaged)
        kept = [self._kept(file, line) for line in found.lines]
        if found.damaged:
            kept.append(self._kept(file, Line(tenant, (), None)))
        if not kept:
            self._remove(file)
        return kept

    def _kept(self, file: _File | None, line: Line) -> Kept:
        self._last_ref += 1
        if file is not None:
            self._file_of[self._last_ref] = file
            file.waiting.add(self._last_ref)
        return Kept(self._last_ref, line)

    def _drop(self, applied: Sequence[Kept]) -> None:
        done: dict[str, _File] = {}
        for ref, _ in applied:
            file = self._file_of.pop(ref, None)
            if file is not None:
                file.waiting.discard(ref)
                if not file.waiting:
                    done[file.path.name] = file
        for file in done.values():
            self._remove(file)

    def _remove(self, file: _File) -> None:
        """Delete a file of which nothing is needed; one that cannot be deleted is left empty."""
        self._files.pop(file.path.name, None)
        self._current = {tenant: current for tenant, current in self._current.items() if current is not file}
        try:
            os.ftruncate(file.descriptor, 0)
            if sys.platform != "win32":  # where an open file cannot be deleted, and a deleted one not be adopted
                file.path.unlink(missing_ok=True)
        except OSError as error:
            self._left_alone.add(file.path.name)
            structlog.get_logger().warning("journal cannot be deleted", file=file.path.name, reason=_why(error))
        finally:
            os.close(file.descriptor)
        if sys.platform == "win32":
            file.path.unlink(missing_ok=True)

    def _close(self) -> None:
        for file in tuple(self._files.values()):
            if file.waiting:
                os.close(file.descriptor)
            else:
                self._remove(file)
        for held in (self._files, self._file_of, self._current):
            held.clear()


def _owned(descriptor: int, path: Path) -> bool:
    """Lock it; True when it is locked, and still the file at that path."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 2**31 - 2, os.SEEK_SET)  # what is locked there cannot be read, so beyond the end
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _content(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts: list[bytes] = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _made(directory: Path) -> None:
    """Make it and what is missing above it, each for the owner alone, and each name durable like what is in it."""
    if directory.is_dir():
        return
    if directory.parent != directory:
        _made(directory.parent)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise
        return
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    """A new file's name is durable only when its directory is; not needed, nor possible, on Windows."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: Exception | None) -> str:
    # An OSError's own words may hold a path.
    return type(error).__name__ if not isinstance(error, OSError) else os.strerror(error.errno or 0)
