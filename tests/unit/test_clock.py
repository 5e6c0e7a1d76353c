"""The machine's clocks, as everybody is given them."""

from __future__ import annotations

import time

import pytest

from jobnimbus_mcp.clock import SystemClock


def test_a_lease_runs_out_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that is read goes on then, where the machine has one that does."""
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", {7: 1234.5}.__getitem__, raising=False)
    assert SystemClock().monotonic() == 1234.5


def test_a_machine_without_such_a_clock_uses_the_ordinary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(number: int) -> float:
        raise OSError("no such clock")

    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", refused, raising=False)
    before = time.monotonic()
    assert before <= SystemClock().monotonic() <= time.monotonic()
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before = time.monotonic()
    assert before <= SystemClock().monotonic() <= time.monotonic()


def test_the_monotonic_clock_does_not_go_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(1_000)]
    assert readings == sorted(readings)
