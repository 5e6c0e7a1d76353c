"""Each foreign library has its door: only modules that name it import it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

IMPORTED = re.compile(r"^\s*(?:from|import) ([\w.]+)", re.MULTILINE)
PACKAGE = Path(__file__).parents[2] / "jobnimbus_mcp"

DOORS: dict[str, Callable[[str], bool]] = {
    "mcp": lambda module: (module.startswith("tools/") and module.endswith("_mcp.py")) or module == "demo.py",
    # the composition root names the type of the client it hands on
    "redis": lambda module: module.endswith("_redis.py") or module == "app/accounts.py",
    # the roots of server and simulator name the type of a transport handed in; the demo plays JobNimbus's user
    "httpx": lambda module: (
        module.endswith("_http.py") or module in ("app/root.py", "app/doors.py", "demo.py", "simulator/world.py")
    ),
    "jwt": lambda module: module == "web/oauth.py",
    "uvicorn": lambda module: module in ("cli.py", "demo.py"),
    "prometheus_client": lambda module: module == "telemetry/metrics_prometheus.py",
    "dotenv": lambda module: module == "settings/model.py",
}


def imported_by(path: Path) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""

    return {name.partition(".")[0] for name in IMPORTED.findall(path.read_text())}


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_comes_in_by_its_doors_only(library: str) -> None:
    used = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if library in imported_by(path)}
    assert used, f"nothing imports {library}: it is no dependency any more"
    assert {module for module in used if not DOORS[library](module)} == set()


def test_only_the_clock_asks_the_time_on_the_two_roads() -> None:
    """The simulator is handed a clock too; command line, doctor's driver and the demo are no part of a road."""
    aside = ("clock.py", "cli.py", "demo.py", "doctor_redis.py")
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "time" in imported_by(path) and path.name not in aside
    }
    assert asking == set()
