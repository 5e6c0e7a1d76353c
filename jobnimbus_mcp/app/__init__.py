"""The composition root: builds every driver, wires the two roads, opens and closes in order. Nothing else does."""

from __future__ import annotations

from jobnimbus_mcp.app.entry import doctor_probes, events_of, from_environment, run_stdio, run_worker
from jobnimbus_mcp.app.root import App, Overrides, build

__all__ = ["App", "Overrides", "build", "doctor_probes", "events_of", "from_environment", "run_stdio", "run_worker"]
