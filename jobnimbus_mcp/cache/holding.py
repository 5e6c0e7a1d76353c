"""What this process holds in L1, and when that is an answer without asking the store."""

from __future__ import annotations

from jobnimbus_mcp.cache.codec import Entry
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.l1 import L1, Held
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Tier
from jobnimbus_mcp.cache.plan import Found, too_old
from jobnimbus_mcp.cache.question import Look, Question
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Holding"]


class Holding:
    """L1, and the coherence that tells which of it may be trusted; without one every hit is validated."""

    def __init__(self, l1: L1, coherence: Coherence | None, clock: Clock, recorder: Recorder) -> None:
        self._l1 = l1
        self._coherence = coherence
        self._clock = clock
        self._recorder = recorder

    def mark(self, tenant: str) -> int:
        return self._coherence.mark(tenant) if self._coherence is not None else 0

    def trusted(self, question: Question, key_text: str, max_age_s: float | None) -> Held | None:
        """What may be served with no round trip: fresh, clean, of the same bearer, and the lease not over."""
        coherence = self._coherence
        if coherence is None or question.mode is Mode.STRICT:
            return None
        held = self._l1.get(key_text)
        if held is None:
            return None
        key, now = question.key, self._clock.monotonic()
        if not (
            now < held.fresh_until
            and held.bearer == key.bearer
            and held.tags == question.tags
            and coherence.holds(key.tenant)
            and coherence.clean(key.tenant, held.since, held.tags, held.bearer)
        ):
            return None
        if max_age_s is not None:
            least_age_s = held.entry.kept_s - (held.kept_until - now)
            if too_old(held.entry.fetched_at, max_age_s, self._clock.now(), least_age_s):
                return None
        return held

    def entry(self, key_text: str, max_age_s: float | None) -> Entry | None:
        """What is held for the store to validate, unless it is too old to be wanted."""
        held = self._l1.get(key_text)
        if held is None or too_old(held.entry.fetched_at, max_age_s, self._clock.now()):
            return None
        return held.entry

    def is_clean(self, tenant: str, key_text: str) -> tuple[bool, bool]:
        """Is something held under the key, and has nothing made that dirty as far as this process knows?"""
        held, coherence = self._l1.get(key_text), self._coherence
        if held is None:
            return False, False
        clean = (
            coherence is not None
            and coherence.holds(tenant)
            and coherence.clean(tenant, held.since, held.tags, held.bearer)
        )
        return True, clean

    def bring(
        self,
        question: Question,
        key_text: str,
        entry: Entry,
        look: Look,
        *,
        at: float,
        fresh_s: float,
        kept_s: float,
        admitted_s: float,
    ) -> None:
        """Hold what a READ or a FILL brought; its seconds count from `at`, when that was sent (monotonic).

        `look`: the READ that told the generations under which the entry is valid. What has been applied since before it
        was sent makes the entry dirty here, even if it was applied before the entry came.
        """
        self._l1.put(
            key_text,
            Held(
                entry,
                question.tags,
                question.key.bearer,
                look.since,
                at + fresh_s,
                at + kept_s,
                at + admitted_s,
            ),
        )
        self._recorder.gauge("cache_l1_bytes", self._l1.size_bytes)

    def bring_found(self, question: Question, key_text: str, found: Found, look: Look) -> None:
        """Hold what a READ brought or validated. Under a promise that has every hit validated, the latter changes
        nothing."""
        if found.tier is not Tier.L1 or question.mode is not Mode.STRICT:
            self.bring(
                question,
                key_text,
                found.entry,
                look,
                at=look.asked_at,
                fresh_s=found.fresh_left_s,
                kept_s=look.seen.ttl_s,
                admitted_s=look.seen.admitted_s,
            )

    def discard(self, key_text: str) -> None:
        self._l1.discard(key_text)
