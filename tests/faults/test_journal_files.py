"""The journal on a real disk: processes that are killed, that want the same file, and disks that are full or broken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest
import structlog

from jobnimbus_mcp.cache import journal_file
from jobnimbus_mcp.cache.journal import JournalError, Line, encode
from jobnimbus_mcp.cache.journal_file import JournalFile
from jobnimbus_mcp.cache.notice import Notice

T = "stamford"
BOUND_S = 20.0

WRITER = """
import asyncio, sys
from pathlib import Path
from jobnimbus_mcp.cache.journal import Line
from jobnimbus_mcp.cache.journal_file import JournalFile
from jobnimbus_mcp.cache.notice import Notice

async def main():
    journal = JournalFile(Path(sys.argv[1]), tenants=["stamford"])
    for number in range(int(sys.argv[2])):
        await journal.append(Line("stamford", ("jobs",), Notice("e", "jobs", "j", "webhook", 0.0, f"e{number}")))
    print("written", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

HANGER = """
import asyncio, sys, time
from pathlib import Path
from jobnimbus_mcp.cache.journal import Line
from jobnimbus_mcp.cache.journal_file import JournalFile

def hang(descriptor, content):
    print("ready", flush=True)
    time.sleep(60)

async def main():
    journal = JournalFile(Path(sys.argv[1]), tenants=["stamford"], write=hang)
    appending = asyncio.create_task(journal.append(Line("stamford", ("*",), None)))
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.wait([asyncio.create_task(journal.aclose())], timeout=0.1)

asyncio.run(main())
"""

ADOPTER = """
import asyncio, json, sys
from pathlib import Path
from jobnimbus_mcp.cache.journal_file import JournalFile

async def main():
    journal = JournalFile(Path(sys.argv[1]), tenants=["stamford"])
    print("ready", flush=True)
    sys.stdin.readline()
    mine = []
    for _ in range(20):
        mine += await journal.adopt()
    print(json.dumps([kept.line.notice.event_id for kept in mine]), flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


def line(number: int = 1, tenant: str = T) -> Line:
    return Line(tenant, ("jobs",), Notice("e", "jobs", "j", "webhook", 0.0, f"e{number}"))


def left_behind(directory: Path, content: bytes, name: str = "old", tenant: str = T) -> Path:
    """A file of a process that has ended."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{tenant}.{name}.jsonl"
    path.write_bytes(content)
    return path


def files_in(directory: Path) -> dict[str, bytes]:
    """What the files there hold, by name."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal"


@pytest.fixture
async def opened(directory: Path) -> AsyncIterator[Callable[..., JournalFile]]:
    """`opened(...)`: one more journal there, as another process would have it."""
    directory.parent.mkdir()
    journals: list[JournalFile] = []

    def begin(**options: Any) -> JournalFile:
        journals.append(JournalFile(directory, **{"tenants": (T,)} | options))
        return journals[-1]

    yield begin
    for journal in journals:
        if not journal._steps.closed:
            await journal.aclose()


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start(script, *arguments)`: a Python process on that directory that has said its first line."""
    started: list[subprocess.Popen[str]] = []

    def begin(script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(directory), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() in ("written\n", "ready\n")
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=5)


async def test_a_line_is_on_the_disk_when_append_returns_and_for_its_owner_alone(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    kept = await opened().append(line())
    ((name, content),) = files_in(directory).items()
    assert content == encode(line())
    assert kept.line == line()
    assert (mode_of(directory), mode_of(directory / name)) == (0o700, 0o600)


async def test_what_is_appended_is_synced_before_it_is_promised_and_so_are_the_names_that_lead_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    directory = tmp_path / "state" / "data" / "journal"
    journal = JournalFile(directory, tenants=(T,))
    await journal.append(line())
    (file,) = directory.iterdir()
    assert synced == [tmp_path, tmp_path / "state", tmp_path / "state" / "data", directory, file]
    assert [mode_of(made) for made in (tmp_path / "state", tmp_path / "state" / "data", directory)] == [0o700] * 3
    await journal.append(line(2))
    assert synced[5:] == [file]
    await journal.aclose()


async def test_a_living_processs_file_is_nobody_elses(opened: Callable[..., JournalFile]) -> None:
    first, second = opened(), opened()
    await first.append(line())
    assert await second.adopt() == []
    assert await first.adopt() == []
    await first.aclose()
    assert [kept.line for kept in await second.adopt()] == [line()]
    assert await second.adopt() == []


async def test_a_file_goes_when_all_its_lines_have_been_applied_and_not_before(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    journal = opened()
    one, two = await journal.append(line(1)), await journal.append(line(2))
    await journal.drop([one])
    assert list(files_in(directory).values()) == [encode(line(1)) + encode(line(2))]
    await journal.drop([two, two])
    assert files_in(directory) == {}
    await journal.append(line(3))
    assert list(files_in(directory).values()) == [encode(line(3))]


async def test_an_adopted_file_goes_when_its_lines_have_been_applied_also_an_empty_one(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    left_behind(directory, encode(line()))
    left_behind(directory, b"", "empty")
    journal = opened()
    found = await journal.adopt()
    assert list(files_in(directory)) == [f"{T}.old.jsonl"]
    await journal.drop(found)
    assert files_in(directory) == {}


async def test_a_killed_processs_lines_are_adopted_all_and_once(
    directory: Path, opened: Callable[..., JournalFile], start: Callable[..., subprocess.Popen[str]]
) -> None:
    writer = await asyncio.to_thread(start, WRITER, "30")
    journal = opened()
    assert await journal.adopt() == []
    writer.send_signal(signal.SIGKILL)
    writer.wait(5)
    found = await journal.adopt()
    assert [kept.line.notice and kept.line.notice.event_id for kept in found] == [f"e{number}" for number in range(30)]


async def test_two_processes_that_adopt_at_once_share_what_there_is_and_lose_nothing(
    directory: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    directory.parent.mkdir()
    names = [f"e{number}" for number in range(200)]
    for number in range(200):
        left_behind(directory, encode(line(number)), str(number))

    def race() -> list[list[str]]:
        adopters = [start(ADOPTER) for _ in range(2)]
        for adopter in adopters:
            assert adopter.stdin is not None
            adopter.stdin.write("go\n")
            adopter.stdin.flush()
        return [json.loads(adopter.stdout.readline()) for adopter in adopters if adopter.stdout is not None]

    shares = await asyncio.wait_for(asyncio.to_thread(race), BOUND_S)
    assert sorted(shares[0] + shares[1]) == sorted(names)


@pytest.mark.parametrize("end", [encode(line(2))[:-1], encode(line(2))[:17], b"\0" * 50])
async def test_half_a_last_line_is_ignored_with_a_warning(
    directory: Path, opened: Callable[..., JournalFile], end: bytes
) -> None:
    left_behind(directory, encode(line(1)) + end)
    with structlog.testing.capture_logs() as logged:
        found = await opened().adopt()
    assert [kept.line for kept in found] == [line(1)]
    assert [entry["log_level"] for entry in logged] == ["warning"]


async def test_a_damaged_line_asks_for_everything_of_the_tenant_and_the_file_stays_until_then(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    path = left_behind(directory, encode(line(1)) + encode(line(2))[:30] + b"\n" + encode(line(3)))
    journal = opened()
    with structlog.testing.capture_logs() as logged:
        found = await journal.adopt()
    assert [kept.line for kept in found] == [line(1), line(3), Line(T, (), None)]
    assert [(entry["event"], entry["lines"]) for entry in logged] == [("journal damaged", 1)]
    await journal.drop(found[:2])
    assert path.exists()
    await journal.drop(found[2:])
    assert not path.exists()


async def test_a_file_that_cannot_be_opened_asks_for_everything_once(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    left_behind(directory / f"{T}.odd.jsonl", b"")
    journal = opened()
    assert [kept.line for kept in await journal.adopt()] == [Line(T, (), None)]
    assert await journal.adopt() == []


async def test_other_tenants_files_and_other_files_are_left_alone(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    left_behind(directory, encode(line(1, "guilford")), tenant="guilford")
    left_behind(directory, encode(line(1, "a")), tenant="a.stamford")
    (directory / "stamford.notes.txt").write_text("x")
    (directory / "stamford.jsonl").write_text("x")
    assert await opened().adopt() == []
    assert len(files_in(directory)) == 4
    assert [kept.line.tenant for kept in await opened(tenants=("guilford",)).adopt()] == ["guilford"]


class Disk:
    """Writes as asked, until it is told to fail after so many bytes."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.errno = ENOSPC
        self.writes = 0

    def write(self, descriptor: int, content: bytes) -> None:
        self.writes += 1
        os.write(descriptor, content if self.room is None else content[: self.room])
        if self.room is not None:
            raise OSError(self.errno, "told to")


@pytest.mark.parametrize("errno", [ENOSPC, EIO])
async def test_a_full_disk_is_said_and_what_was_promised_before_stays_whole(
    directory: Path, opened: Callable[..., JournalFile], errno: int
) -> None:
    disk = Disk()
    journal = opened(write=disk.write)
    await journal.append(line(1))
    disk.room, disk.errno = 20, errno
    for _ in range(2):
        with pytest.raises(JournalError) as caught:
            await journal.append(line(2))
        assert caught.value.detail == os.strerror(errno)
        assert list(files_in(directory).values()) == [encode(line(1))]
    disk.room = None
    await journal.append(line(3))
    # not into the file of which nobody knows what the disk has made of it
    assert set(files_in(directory).values()) == {encode(line(1)), encode(line(3))}
    await journal.aclose()
    found = await opened().adopt()
    assert {kept.line for kept in found} == {line(1), line(3)}


async def test_a_directory_that_cannot_be_made_is_said(directory: Path, opened: Callable[..., JournalFile]) -> None:
    journal = opened()
    left_behind(directory.parent, b"a file stands in its way").rename(directory)
    with pytest.raises(JournalError):
        await journal.append(line())
    with pytest.raises(JournalError):
        await journal.adopt()


async def test_where_there_is_no_directory_nothing_was_left(
    opened: Callable[..., JournalFile], directory: Path
) -> None:
    assert await opened().adopt() == []
    assert files_in(directory.parent) == {}


async def test_so_many_lines_are_taken_and_no_more_until_some_are_applied(
    opened: Callable[..., JournalFile],
) -> None:
    journal = opened(lines_max=3)
    kept = [await journal.append(line(number)) for number in range(3)]
    with pytest.raises(JournalError, match="full"):
        await journal.append(line(3))
    await journal.drop(kept[:1])
    await journal.append(line(3))


async def test_another_file_is_begun_after_so_many_lines_so_that_room_is_given_back(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    journal = opened(file_lines=2)
    kept = [await journal.append(line(number)) for number in range(5)]
    assert len(files_in(directory)) == 3
    await journal.drop(kept[:2])
    assert len(files_in(directory)) == 2


async def test_lines_that_come_together_go_to_the_disk_together(
    directory: Path, opened: Callable[..., JournalFile]
) -> None:
    disk = Disk()
    journal = opened(write=disk.write)
    kept = await asyncio.gather(*(journal.append(line(number)) for number in range(100)))
    assert [one.line for one in kept] == [line(number) for number in range(100)]
    assert len({one.ref for one in kept}) == 100
    assert disk.writes < 50
    assert list(files_in(directory).values()) == [b"".join(encode(line(number)) for number in range(100))]


async def test_a_new_file_that_another_process_took_for_a_left_one_is_given_up(
    directory: Path, opened: Callable[..., JournalFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its locking it looks like that."""
    names, owned = iter(["a", "b", "b", "c"]), journal_file._owned

    def stolen(descriptor: int, path: Path) -> bool:
        if path.name == f"{T}.a.jsonl":
            path.unlink()
        return owned(descriptor, path)

    monkeypatch.setattr(journal_file, "_owned", stolen)
    journal = opened(unique=lambda: next(names), file_lines=1)
    await journal.append(line(1))
    await journal.append(line(2))
    assert list(files_in(directory)) == [f"{T}.b.jsonl", f"{T}.c.jsonl"]


def test_a_disk_that_hangs_does_not_keep_the_process_from_ending(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(HANGER)
    process.communicate("\n", timeout=BOUND_S)
    assert process.returncode == 0


async def test_a_closed_journal_takes_nothing(opened: Callable[..., JournalFile]) -> None:
    journal = opened()
    await journal.aclose()
    with pytest.raises(JournalError, match="closed"):
        await journal.append(line())
