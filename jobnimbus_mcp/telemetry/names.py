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
        "cache_fills": Metric(
            "counter", ("entity", "result"), "Fills: stored, raced, too_large, lagging, unproved, failed."
        ),
        "reuse": Metric("counter", ("entity", "kind"), "Loads: full, or out of what is kept (repaired, narrowed ...)."),
        "cache_refreshes": Metric(
            "counter", ("reason", "result"), "Refreshes in the background: early, stale or dirty; done, throttled, ..."
        ),
        "cache_flights": Metric(
            "counter", ("role",), "Fetches shared with other processes: leader, follower, found, throttled, alone."
        ),
        "cache_errors": Metric("counter", ("operation", "reason"), "Store commands that failed."),
        "cache_corrupt": Metric("counter", ("entity",), "Stored values that could not be read and were replaced."),
        "cache_invalidations": Metric("counter", ("entity", "source"), "Invalidations applied."),
        "cache_epoch_renewals": Metric("counter", ("reason",), "Whole accounts invalidated."),
        "cache_l1_bytes": Metric("gauge", (), "Bytes held in memory by L1."),
        "cache_l1_cleared": Metric("counter", ("reason",), "Whole accounts that became dirty in L1."),
        "cache_coherence_failures": Metric("counter", ("part", "reason"), "Failures of listening, renewing, waiting."),
        "cache_barrier_seconds": Metric("histogram", ("end",), "Waits until no L1 served what was invalidated."),
        "journal": Metric(
            "counter", ("outcome",), "Lines of the local journal: kept, refused, applied, adopted, damaged."
        ),
        "store_seconds": Metric("histogram", ("operation",), "Round trips to the store."),
        "breaker_state": Metric("gauge", ("breaker",), "0 closed, 1 half-open, 2 open."),
        "upstream_calls": Metric("counter", ("entity", "outcome"), "Requests sent to JobNimbus, every attempt."),
        "upstream_seconds": Metric("histogram", ("entity",), "Time of one request to JobNimbus."),
        "upstream_retries": Metric("counter", ("reason",), "Requests to JobNimbus that were tried again."),
        "writes": Metric(
            "counter", ("entity", "action", "outcome"), "Writes by outcome: done, unchanged, replayed or error code."
        ),
        "write_seconds": Metric("histogram", ("entity", "action"), "Time of one write, with what was looked for."),
        "budget_wait_seconds": Metric("histogram", (), "Time waited for the request budget."),
        "events": Metric("counter", ("source", "outcome"), "Changes learnt of: appended, duplicate, journalled, ..."),
        "events_due": Metric("gauge", ("instance", "consumer"), "Events due and not done."),
        "events_delayed": Metric("gauge", ("instance", "consumer"), "Events that wait for their time."),
        "events_oldest_seconds": Metric("gauge", ("instance", "consumer"), "For how long the oldest has been due."),
        "events_dead": Metric("gauge", ("instance", "consumer"), "Events given up and not replayed."),
        "events_handled": Metric(
            "counter", ("consumer", "outcome"), "Events acted on: done, retry, dead, or given_back at a stop."
        ),
        "event_act_seconds": Metric("histogram", ("consumer",), "Time a consumer took for one batch."),
        "catch_up_rounds": Metric("counter", ("outcome",), "Rounds of asking JobNimbus for what nobody told of."),
        "catch_up_changes": Metric("counter", ("entity", "outcome"), "Changes those rounds and sweeps have found."),
        "sweep_kinds": Metric("counter", ("entity", "outcome"), "Kinds of record whose ids were compared."),
        "warm_reads": Metric("counter", ("reason", "result"), "Reads ahead: fetched, kept, failed or left."),
        "webhooks": Metric("counter", ("entity", "outcome"), "Webhook deliveries: applied, duplicate, refused, ..."),
        "auth_refusals": Metric("counter", ("reason",), "Callers that were not let in: no_token, expired, scope, ..."),
        "rate_limited": Metric(
            "counter", ("client",), "Requests over their caller's limit; oauth and key stand for all callers of a kind."
        ),
        "http_requests": Metric("counter", ("route", "status"), "HTTP requests by route pattern and status."),
    }
)
