"""Whether the events are handled as they should be: a verdict over lags and rates."""

from __future__ import annotations

from collections.abc import Mapping

from jobnimbus_mcp.events.ports import Lag, Rates

__all__ = ["ERRORS_MOST", "LAG_MOST", "LATENCY_MOST_S", "TRIES_LEAST", "unwell"]

LAG_MOST = 100
"""Events due and not done by one consumer; delayed ones do not count. A burst passes it for seconds."""

ERRORS_MOST = 0.05
LATENCY_MOST_S = 5.0
"""From due to done, on average of the last five minutes; or how long the oldest has been due."""

TRIES_LEAST = 5
"""Fewer tries than these make no rate."""


def unwell(lags: Mapping[str, Lag], rates: Mapping[str, Rates]) -> str | None:
    """`lag`, `errors` or `latency`, the first that is too much for some consumer; None when all is well."""
    if any(lag.due > LAG_MOST for lag in lags.values()):
        return "lag"
    if any(
        rate.ok + rate.failed >= TRIES_LEAST and rate.failed > ERRORS_MOST * (rate.ok + rate.failed)
        for rate in rates.values()
    ):
        return "errors"
    slow = any(rate.ok > 0 and rate.latency_s > LATENCY_MOST_S for rate in rates.values())
    if slow or any(lag.oldest_s > LATENCY_MOST_S for lag in lags.values()):
        return "latency"
    return None
