"""How long a fetched answer is kept in the light of what changes said lately: an origin's list may lag behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobnimbus_mcp.cache.outcome import Loaded
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import Floor

__all__ = ["LAGS", "Life", "life"]

LAGS = "the origin's list lags behind a change"

_RESOLUTION_S = 1.0
"""Versions are whole seconds: in a list, an equal one may be of before a second change within the same second."""


_LEAST_S = 0.001


class Life(NamedTuple):
    """`lags`: what was fetched is known to be older than a change; it is given, labelled, and not kept."""

    fresh_s: float
    kept_s: float
    lags: bool = False


def life(
    policy: Policy, loaded: Loaded, settles: Sequence[str], floors: Mapping[str, Floor] | None, random01: float
) -> Life:
    """The lifetime of what was loaded. `floors`: as they were just before the fetch; None when nobody could tell them.

    Without them a lagging answer cannot be told from a good one, so where they could matter it is kept for as long only
    as the origin may lag.
    """
    fresh_s = policy.ttl_s(negative=loaded.negative, random01=random01)
    if loaded.fresh_s is not None:
        fresh_s = max(_LEAST_S, min(fresh_s, loaded.fresh_s))
    longest_s = fresh_s
    if floors is None:
        if (settles or loaded.versions) and not loaded.exact:
            longest_s = max(_RESOLUTION_S, policy.settle_s)
    else:
        # Of an exact answer every record that a change has named was looked at by its id, which does not lag.
        settles = () if loaded.exact else settles
        for name in settles:
            floor = floors.get(name)
            if floor is not None and floor.age_s < policy.settle_s:
                longest_s = min(longest_s, max(_RESOLUTION_S, policy.settle_s - floor.age_s))
        for name, floor in floors.items():
            version_s = loaded.versions.get(name)
            if version_s is None:
                continue
            if floor.version_s > version_s:
                return Life(0.0, 0.0, lags=True)
            if settles and floor.version_s == version_s and floor.age_s <= _RESOLUTION_S:
                longest_s = min(longest_s, _RESOLUTION_S)
    if longest_s < fresh_s:
        return Life(longest_s, longest_s)
    return Life(fresh_s, policy.kept_s(fresh_s, negative=loaded.negative))
