"""The names of everything in the store that is no entry; T is the tenant.

    jobnimbus-sys:{T}:epoch             string  part of every vector: a new one makes everything invalid. No expiry
    jobnimbus-sys:{T}:g:<tag>           string  generation of a tag, us
    jobnimbus-sys:{T}:fill-guard        string  part of what a fill compares: moved by deletions and withdrawals, us
    jobnimbus-sys:{T}:ok:<bearer>       string  the origin accepted this bearer lately
    jobnimbus-sys:{T}:was:<bearer>      string  it did so once while entries of it may be there
    jobnimbus-sys:{T}:log               stream  every invalidation, for L1s and for people. No expiry, bounded in length
    jobnimbus-sys:{T}:fleet             hash    instances that have an L1 -> `<applied position>|<us of the renewal>`,
                                                and `_` -> us when the hash was made. No expiry
    jobnimbus-sys:{T}:run               string  run id of the server process that was verified. No expiry
    jobnimbus-sys:{T}:lease:<rest>      string  who fetches the entry whose key ends so, or how that failed:
                                                `<token>|<digest of the generations>|<newest of them>|<1 followed>`
                                                or `!<failures>|<until us>`
    jobnimbus-sys:{T}:wakes             stream  fetches under a lease that have ended while others waited
    jobnimbus-sys:{T}:floors            hash    name -> `<version s>|<told us>`
    jobnimbus-sys:{T}:seen:<digest>     string  the first event of a dedupe key
    jobnimbus-sys:{T}:rates:<hour>      hash    `resource|source` -> invalidations of that hour since the epoch
    jobnimbus-sys:{T}:stats             hash    lasting sums. No expiry
    jobnimbus-sys:{T}:stats-batch:<p>   string  the last batch of sums of a process
    jobnimbus-sys:{health}:probe        string  written to see whether the store takes writes

All but those marked so expire, and losing any of them costs hits or time, never freshness.
"""

from __future__ import annotations

import hashlib

from jobnimbus_mcp.cache.key import CacheKey, system_key

__all__ = [
    "bearer_word",
    "epoch_key",
    "fleet_key",
    "floors_key",
    "generation_key",
    "guard_key",
    "lease_key",
    "log_key",
    "marker_key",
    "rates_key",
    "seen_key",
    "sums_batch_key",
    "sums_key",
    "trace_key",
    "wakes_key",
]


def epoch_key(tenant: str) -> str:
    return system_key(tenant, "epoch")


def generation_key(tenant: str, tag: str) -> str:
    return system_key(tenant, f"g:{tag}")


def guard_key(tenant: str) -> str:
    return system_key(tenant, "fill-guard")


def marker_key(tenant: str, bearer: str) -> str:
    return system_key(tenant, f"ok:{bearer}")


def trace_key(tenant: str, bearer: str) -> str:
    return system_key(tenant, f"was:{bearer}")


def log_key(tenant: str) -> str:
    return system_key(tenant, "log")


def fleet_key(tenant: str) -> str:
    return system_key(tenant, "fleet")


def lease_key(key: CacheKey) -> str:
    return system_key(key.tenant, f"lease:{key.text.partition('}:')[2]}")


def wakes_key(tenant: str) -> str:
    return system_key(tenant, "wakes")


def floors_key(tenant: str) -> str:
    return system_key(tenant, "floors")


def seen_key(tenant: str, dedupe_key: str) -> str:
    """A digest, since anybody may have chosen what is in the dedupe key, and how long it is."""
    digest = hashlib.blake2b(dedupe_key.encode(), digest_size=20).hexdigest()
    return system_key(tenant, f"seen:{digest}")


def rates_key(tenant: str, hour: int) -> str:
    return system_key(tenant, f"rates:{hour}")


def sums_key(tenant: str) -> str:
    return system_key(tenant, "stats")


def sums_batch_key(tenant: str, process: str) -> str:
    return system_key(tenant, f"stats-batch:{process}")


def bearer_word(bearer: str) -> str:
    """What the log says in a tag's place when a bearer was withdrawn."""
    return f"bearer:{bearer}"
