"""Three replica processes on a real Redis, with faults: no read is older than what was acknowledged when it began.

Drives `benchmarks/check_history.py`, which starts everything, strikes, and checks every read while the run goes on. It
is worth something only if it finds what is broken, so each rule that it watches is broken once.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

CHECKER = Path(__file__).parents[2] / "benchmarks" / "check_history.py"


async def checked(*arguments: str, within_s: float) -> str:
    """What a run of the checker that ended well told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHECKER),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within_s):
            told, complaints = await process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    assert process.returncode == 0, told.decode() + complaints.decode()[-2_000:]
    return told.decode()


@pytest.mark.timeout(120)
async def test_no_read_is_older_than_acknowledged_whatever_happens_to_processes_and_redis(redis_binary: str) -> None:
    told = await checked("--reads", "20000", "--seed", "11", within_s=100)
    assert ", 0 violations" in told
    assert told.endswith("holds\n")


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_the_same_holds_over_http_with_servers_killed(redis_binary: str) -> None:
    told = await checked("--http", "--reads", "1500", "--faults", "kill,flush", "--seed", "12", within_s=100)
    assert ", 0 violations" in told
    assert told.endswith("holds\n")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("rule", "faults"),
    [
        ("barrier", ""),
        ("log", ""),
        pytest.param("lease", "cut", marks=pytest.mark.long),
    ],
)
async def test_a_broken_rule_is_caught(redis_binary: str, rule: str, faults: str) -> None:
    """Answering before L1s have applied it; losing lines of the log unnoticed; serving L1 without a lease."""
    told = await checked(
        "--broken", rule, "--faults", faults, "--reads", "10000000", "--most-s", "90", "--seed", "13", within_s=110
    )
    assert told.endswith("caught\n")
    assert "NOT CAUGHT" not in told


@pytest.mark.long
@pytest.mark.timeout(1_500)
async def test_no_read_of_a_million_is_older_than_acknowledged(redis_binary: str) -> None:
    told = await checked("--reads", "1000000", "--seed", "14", within_s=1_400)
    assert ", 0 violations" in told


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_no_read_of_fifty_thousand_over_http_is_older_than_acknowledged(redis_binary: str) -> None:
    told = await checked("--http", "--reads", "50000", "--seed", "15", within_s=800)
    assert ", 0 violations" in told


# -- the sweep -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweeping() -> ModuleType:
    """The checker's own module; it is no part of the package."""
    spec = importlib.util.spec_from_file_location("history_sweep", CHECKER.with_name("history_sweep.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_sweep_finds_an_old_read_and_no_other(sweeping: ModuleType) -> None:
    sweep, read = sweeping.Sweep(), sweeping.Read
    sweep.acknowledge(0, 2.0, 1)
    sweep.acknowledge(0, 3.0, 2)
    old = read(3.5, 0, 1)
    sweep.observe([read(1.0, 0, 0), read(2.5, 0, 1), old, read(3.0, 0, 1), read(9.0, 1, 0)])
    sweep.check()
    assert [(one.read, one.owed) for one in sweep.violations] == [(old, 2)]
    assert sweep.checked == 5


def test_what_is_bounded_owes_later_and_what_is_labelled_nothing(sweeping: ModuleType) -> None:
    sweep, read = sweeping.Sweep(), sweeping.Read
    sweep.acknowledge(0, 2.0, 1)
    late = read(4.1, 0, 0, slack_s=2.0)
    sweep.observe([read(3.9, 0, 0, slack_s=2.0), late, read(9.0, 0, 0, labelled=True)])
    sweep.check()
    assert [one.read for one in sweep.violations] == [late]


def test_a_read_is_checked_only_when_all_have_told_what_they_acknowledged_before_it(sweeping: ModuleType) -> None:
    sweep, read = sweeping.Sweep(), sweeping.Read
    sweep.told_until("first", 5.0)
    sweep.told_until("second", 1.0)
    sweep.observe([read(2.0, 0, 0)])
    sweep.check()
    assert (sweep.checked, sweep.waiting) == (0, 1)
    sweep.acknowledge(0, 1.5, 1)
    sweep.told_until("second", 3.0)
    sweep.check()
    assert len(sweep.violations) == 1
    sweep.observe([read(6.0, 0, 1)])
    sweep.ended("first")
    sweep.ended("second")
    sweep.check()
    assert (sweep.checked, len(sweep.violations)) == (2, 1)


def test_the_sweep_forgets_what_nobody_can_owe_any_more_and_still_owes_the_rest(sweeping: ModuleType) -> None:
    sweep, read = sweeping.Sweep(), sweeping.Read
    for number in range(1, 20_001):
        sweep.acknowledge(0, number * 0.1, number)
    assert sum(len(times) for times in sweep._times.values()) < 5_000
    sweep.observe([read(1_995.0, 0, 1)])
    sweep.check()
    assert sweep.violations[0].owed == 19_949
