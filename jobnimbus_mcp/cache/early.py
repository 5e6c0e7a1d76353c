"""Refreshing before the lifetime is over, so that nobody waits and not all refresh at once.

Source: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (VLDB 2015).
"""

from __future__ import annotations

import math

__all__ = ["REACH", "worth_refreshing"]

REACH = 40.0
"""Entries with more of their lifetime left than this many fetches take are not thought about: with a beta of 2 one hit
in half a billion would refresh them. Ten times larger, and most hits would draw a number for nothing."""


def worth_refreshing(fresh_left_s: float, cost_s: float, beta: float, random01: float) -> bool:
    """Is this hit the one that refreshes?

    `cost_s`: what the fetch took. `beta`: 0 never, 1 as published, more is earlier.
    """
    if beta <= 0 or cost_s <= 0:
        return False
    return -cost_s * beta * math.log(max(random01, 1e-300)) >= fresh_left_s
