"""Is any read older than what had been acknowledged when it began? Checked on histories of many processes, with faults.

    python benchmarks/check_history.py [--reads 1000000] [--faults kill,freeze,flush,failover,cut,evict] [--seed 1]
    python benchmarks/check_history.py --http [--reads 50000] [--faults kill,freeze,flush] [--seed 1]

The first drives the engine: three processes of readers and writers in every mode on a real Redis, each through a link
of its own. The second drives three servers behind a round-robin proxy, with a simulated JobNimbus whose records are
changed and webhooks posted meanwhile. Faults strike one after the other, at random, until so many reads have been
checked: processes are killed and started again; Redis, or a process, is frozen; Redis is flushed, fails over to a
replica that lost the last writes, loses single keys; a process's way to Redis breaks or falls silent.

Every read is checked: it may not tell of less than had been acknowledged when it began (`bounded`: a lease before;
`any`: unless it says that it is stale). Exits 1 when one does, when a read fails, or when the run proves nothing,
because what is dangerous did not happen in it. `--broken RULE` breaks one rule of the protocol on purpose: then it
exits 0 only if that is found.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import uvloop
from history_engine import FAULTS, Run, check_engine
from history_http import HTTP_FAULTS, check_http
from history_replica import BROKEN
from rig import machine

TOLD = 10
AROUND_S = 5.0


def report(run: Run) -> None:
    sweep = run.sweep
    print(
        f"{sweep.checked} reads checked in {run.seconds:.0f} s, {sweep.acknowledged} invalidations acknowledged, "
        f"{len(sweep.violations)} violations"
    )
    print("faults: " + (", ".join(f"{name} {number}" for name, number in sorted(run.struck.items())) or "none"))
    for told, number in sorted(run.counts.items()):
        print(f"  {told}: {number}")
    for violation in sweep.violations[:TOLD]:
        read = violation.read
        print(
            f"VIOLATION: {read.by}, register {read.register}: version {read.version} by a read that began at "
            f"{read.started:.6f}; {violation.owed} was acknowledged at {violation.acknowledged_at:.6f}"
        )
    if sweep.violations:
        began = sweep.violations[0].read.started
        for at, what in run.timeline:
            if abs(at - began) < AROUND_S:
                print(f"  {at:.3f} ({at - began:+.3f} s): {what}")


def wrong(run: Run, faults: list[str], needed: tuple[str, ...], reads: int) -> list[str]:
    """Why the run is no proof."""
    found = []
    if run.sweep.violations:
        found.append(f"{len(run.sweep.violations)} violations")
    failures = Counter({told: n for told, n in run.counts.items() if told.startswith(("read_failed", "no L1 hit"))})
    found += [f"{told}: {number}" for told, number in failures.items()]
    found += [f"{fault} never struck" for fault in faults if not run.struck[fault]]
    found += [f"never happened: {what}" for what in needed if not any(what in told for told in run.counts)]
    if run.sweep.checked < reads:
        found.append(f"only {run.sweep.checked} reads")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", action="store_true", help="through three servers instead of three engines")
    parser.add_argument("--reads", type=int, help="default: 1,000,000; with --http 50,000")
    parser.add_argument("--faults", help="comma-separated; default: all, '' none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broken", choices=sorted(BROKEN), default="", help="a rule to break")
    parser.add_argument("--most-s", type=float, default=3_600, help="give up after so many seconds")
    given = parser.parse_args()
    known = HTTP_FAULTS if given.http else FAULTS
    faults = list(known) if given.faults is None else [name for name in given.faults.split(",") if name]
    if set(faults) - set(known):
        parser.error(f"faults are {', '.join(known)}")
    reads = given.reads or (50_000 if given.http else 1_000_000)
    print(f"{machine()}; seed {given.seed}", flush=True)
    if given.http:
        run = uvloop.run(check_http(reads, faults, given.seed, given.most_s))
        needed: tuple[str, ...] = ("status hit", "status miss", "webhook 200")
    else:
        run = uvloop.run(check_engine(reads, faults, given.seed, given.broken, given.most_s))
        needed = (
            "cache_reads hit,l1",
            "cache_reads hit,l2",
            "cache_reads miss",
            "cache_fills stored",
            "cache_fills raced",
        )
    report(run)
    if given.broken:
        print("caught" if run.sweep.violations else "NOT CAUGHT")
        sys.exit(0 if run.sweep.violations else 1)
    found = wrong(run, faults, needed, reads)
    print("holds" if not found else "DOES NOT HOLD: " + "; ".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
