"""Every metric: name, kind, labels allowed, one sentence. Nothing else may be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`kind`: counter, histogram (seconds) or gauge."""

    kind: str
    labels: tuple[str, ...]
    help: str


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "tool_calls": Metric("counter", ("tool", "outcome"), "Tool calls by outcome (ok or the error code)."),
        "tool_call_seconds": Metric("histogram", ("tool", "status"), "Time of a tool call by cache status."),
        "cache_reads": Metric("counter", ("entity", "status", "tier"), "Reads through the cache."),
        "cache_fills": Metric("counter", ("entity", "result"), "Fills: stored, raced, too_large, failed."),
        "cache_errors": Metric("counter", ("operation", "reason"), "Store commands that failed."),
        "cache_corrupt": Metric("counter", ("entity",), "Stored values that could not be read and were replaced."),
        "cache_invalidations": Metric("counter", ("entity", "source"), "Invalidations applied."),
        "cache_epoch_renewals": Metric("counter", ("reason",), "Whole accounts invalidated."),
        "cache_l1_bytes": Metric("gauge", (), "Bytes held in memory by L1."),
        "store_seconds": Metric("histogram", ("operation",), "Round trips to the store."),
        "breaker_state": Metric("gauge", ("breaker",), "0 closed, 1 half-open, 2 open."),
        "upstream_calls": Metric("counter", ("entity", "outcome"), "Requests sent to JobNimbus, every attempt."),
        "upstream_seconds": Metric("histogram", ("entity",), "Time of one request to JobNimbus."),
        "upstream_retries": Metric("counter", ("reason",), "Requests to JobNimbus that were tried again."),
        "budget_wait_seconds": Metric("histogram", (), "Time waited for the request budget."),
        "webhooks": Metric("counter", ("entity", "outcome"), "Webhook deliveries: applied, duplicate, refused, ..."),
        "http_requests": Metric("counter", ("route", "status"), "HTTP requests by route pattern and status."),
    }
)
