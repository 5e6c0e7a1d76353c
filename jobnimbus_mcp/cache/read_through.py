"""The road of a read: L1 and store, validated by one round trip; else one load for all who ask, kept if still true."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jobnimbus_mcp.cache.admission import Admission, Admit, Bearer
from jobnimbus_mcp.cache.codec import CorruptEntry, Entry, decode, encode
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.listing import HitCounts, list_entries
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import Seen, Store, StoreError, Verdict
from jobnimbus_mcp.cache.shared_reads import SharedReads
from jobnimbus_mcp.cache.single_flight import Flight, Joining, SingleFlight
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import UpstreamTimeout, UpstreamUnauthorized
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["CLOCKS_APART_S", "Admit", "Loader", "Question", "ReadThrough"]

CLOCKS_APART_S = 1.0
"""Wall clocks of replicas differ by less: what seems fetched later than now by more was fetched before one was set."""

Loader = Callable[[Call], Awaitable[Loaded]]
"""Asks the origin. What it raises is never kept and reaches everybody who waited for it."""


@dataclass(frozen=True, slots=True)
class Question:
    """One read: where its answer is kept, what makes it dirty, and for how long it is good.

    `tags` are all known before the read, and hold no line break.
    """

    key: CacheKey
    tags: tuple[str, ...]
    policy: Policy


class ReadThrough:
    """The engine of one process. Whoever constructs it closes it.

    A read is answered from L1 or the store only after a round trip to the store that began after the read did and found
    every tag's generation as it was noted before the value's fetch began. So no read that starts after an invalidation
    was acknowledged is answered with older data.

    `admission_s`: how long an acceptance by the origin counts. `fill_grace_s`: how long an answer waits for its fill.
    `enabled=False`: nothing is looked up or kept; equal questions still share a load.
    """

    def __init__(
        self,
        store: Store,
        l1: L1,
        *,
        clock: Clock,
        random01: Callable[[], float],
        recorder: Recorder,
        compress: bool = True,
        admission_s: float = 300,
        fill_grace_s: float = 0.025,
        enabled: bool = True,
    ) -> None:
        self._store = store
        self._l1 = l1
        self._clock = clock
        self._random01 = random01
        self._recorder = recorder
        self._compress = compress
        self._admission_s = admission_s
        self._fill_grace_s = fill_grace_s
        self._enabled = enabled
        self._reads: SharedReads[Seen] = SharedReads()
        self._flights: SingleFlight[Outcome] = SingleFlight(clock)
        self._admission = Admission(store, l1, clock, admission_s=admission_s)
        self._hits = HitCounts()
        self._fetches = 0

    async def read(
        self,
        question: Question,
        loader: Loader,
        *,
        call: Call,
        max_age_s: float | None = None,
        admit: Admit | None = None,
    ) -> Outcome:
        """The answer, and where it came from.

        `max_age_s`: an older entry is loaded anew (miss); 0 loads now and joins no load begun before (bypass); None:
        any age within its lifetime. `admit`: asked before a hit when the origin has not accepted the credential lately;
        None when there is no credential to accept.

        Raises:
            UpstreamUnauthorized: the origin refuses the credential.
            UpstreamTimeout: the call's deadline passed.
            Exception: whatever the loader raised.
        """
        outcome = await self._answer(question, loader, call, max_age_s, admit)
        self._recorder.count(
            "cache_reads", entity=question.key.entity, status=outcome.status.value, tier=outcome.tier.value
        )
        return outcome

    async def admitted(self, tenant: str, partition: str, admit: Admit, call: Call, *, bearer: str = "") -> None:
        """Return when the credential is accepted, lately or now; for whoever needs no read. `bearer`: as in `CacheKey`.

        Raises:
            UpstreamUnauthorized: refused; what the bearer alone had has been dropped.
            UpstreamError, BudgetExhausted: the origin cannot say.
        """
        if self._enabled:
            await self._admission.require(Bearer(tenant, partition, bearer or partition), admit, call)
        else:
            await admit(call)

    async def entries(
        self, tenant: str, *, entity: str | None = None, operation: str | None = None, limit: int = 100, call: Call
    ) -> list[dict[str, Any]]:
        """What is kept: key, ageSeconds, ttlSeconds, sizeBytes, tags, hits (as this process counted them).

        Raises:
            CacheUnavailable: the store is away.
        """
        return await list_entries(
            self._store, self._clock, self._hits, tenant, entity=entity, operation=operation, limit=limit, call=call
        )

    def l1_stats(self) -> dict[str, Any]:
        return self._l1.stats()

    async def aclose(self) -> None:
        """Let loads and fills under way end, under a bound."""
        await self._flights.aclose()
        await self._admission.aclose()
        await self._reads.aclose()

    async def _answer(
        self, question: Question, loader: Loader, call: Call, max_age_s: float | None, admit: Admit | None
    ) -> Outcome:
        key = question.key
        key_text = key.text
        now_only = max_age_s is not None and max_age_s <= 0
        if not self._enabled or not call.store_usable:
            return await self._load(question, key_text, loader, call, None, max_age_s, status=Status.BYPASS)
        landings = self._flights.landings
        held = None if now_only else self._l1.get(key_text)
        if held is not None and self._too_old(held, max_age_s):
            held = None
        try:
            seen = await self._look(question, key_text, held.etag if held is not None else "", not now_only, call)
        except StoreError:
            return await self._load(question, key_text, loader, call, None, max_age_s, status=Status.BYPASS)
        call.admitted = call.admitted or seen.admitted
        if now_only:
            return await self._load(question, key_text, loader, call, seen, max_age_s, status=Status.BYPASS)
        entry, tier = self._entry_of(question, key_text, seen, held)
        if entry is None or self._too_old(entry, max_age_s, _least_age_s(question.policy, entry, seen.ttl_s)):
            return await self._load(
                question, key_text, loader, call, seen, max_age_s, status=Status.MISS, looked=landings
            )
        if admit is not None:
            bearer = _bearer(key)
            if self._admission.needed(bearer, marked=seen.admitted):
                guard = seen.guard or await self._guard(key, call)
                await self._admission.before_hit(bearer, guard, admit, call, marked=seen.admitted)
        if tier is Tier.L2:
            self._hold(key_text, entry)
        self._hits.add(key_text)
        return Outcome(entry.value, entry.negative, Status.HIT, tier, entry.fetched_at, seen.ttl_s, False, entry.etag)

    async def _look(self, question: Question, key_text: str, etag: str, want: bool, call: Call) -> Seen:
        store, key, tags = self._store, question.key, question.tags

        async def send_for_all() -> Seen:
            # Whoever waits has a call of its own; the shared round trip must not depend on one that leaves.
            shared = replace(call)
            try:
                return await store.read(key, tags, etag, want=want, call=shared)
            finally:
                call.store_usable = call.store_usable and shared.store_usable

        try:
            return await self._reads.read(
                (key_text, key.bearer, etag, want, tags),
                partial(store.read, key, tags, etag, want=want, call=call),
                send_for_all,
            )
        except StoreError:
            call.store_usable = False
            raise

    def _entry_of(self, question: Question, key_text: str, seen: Seen, held: Entry | None) -> tuple[Entry | None, Tier]:
        if seen.verdict is Verdict.NOT_MODIFIED and held is not None:
            return held, Tier.L1
        if seen.verdict is Verdict.HIT and seen.value is not None:
            try:
                return decode(seen.value, key_text=key_text, tags=question.tags), Tier.L2
            except CorruptEntry:
                self._recorder.count("cache_corrupt", entity=question.key.entity)
        elif seen.verdict is Verdict.CORRUPT:
            self._recorder.count("cache_corrupt", entity=question.key.entity)
        self._l1.discard(key_text)
        return None, Tier.UPSTREAM

    async def _guard(self, key: CacheKey, call: Call) -> bytes:
        try:
            return (await self._store.admission(key.tenant, key.bearer, call))[1]
        except StoreError:
            return b""

    async def _load(
        self,
        question: Question,
        key_text: str,
        loader: Loader,
        call: Call,
        seen: Seen | None,
        max_age_s: float | None,
        *,
        status: Status,
        looked: int | None = None,
    ) -> Outcome:
        """Join the load of this key by this bearer at these generations, or begin it.

        Without a look at the store (`seen` None, or it could note nothing) the generations are unknown; an invalidation
        may have been acknowledged by another process, so a load that has begun cannot be joined.
        """
        bearer = question.key.bearer
        noted = seen is not None and seen.vector != b""
        if max_age_s is not None and max_age_s <= 0:
            joining = Joining.NONE
        else:
            joining = Joining.BEGUN if noted else Joining.UNBEGUN
        outcome, joined = await self._flights.fly(
            (key_text, bearer, seen.vector, seen.guard) if noted and seen is not None else (key_text, bearer),
            lambda flight: self._fly(flight, question, key_text, loader, call, seen),
            call=call,
            joining=joining,
            begun_within_s=max_age_s,
            looked=looked,
        )
        if joined:
            return replace(outcome, status=status, coalesced=True)
        return outcome if outcome.status is status else replace(outcome, status=status)

    async def _fly(
        self, flight: Flight[Outcome], question: Question, key_text: str, loader: Loader, call: Call, seen: Seen | None
    ) -> None:
        bearer = _bearer(question.key)
        fetched_at, asked_at = self._clock.now(), self._clock.monotonic()
        try:
            loaded = await self._within_deadline(loader, call)
        except UpstreamUnauthorized:
            await self._admission.refused(bearer, seen, call)
            raise
        self._admission.accepted(bearer, asked_at)
        entry = Entry(loaded.value, loaded.negative, fetched_at, self._etag(loaded, fetched_at))
        answer = Outcome(loaded.value, loaded.negative, Status.MISS, Tier.UPSTREAM, fetched_at, 0.0, False, entry.etag)
        if seen is None or not seen.vector or not call.store_usable:
            flight.answer(answer)
            return
        patience = asyncio.get_running_loop().call_later(self._fill_grace_s, flight.answer, answer)
        try:
            kept_s = await self._fill(question, key_text, entry, seen, call)
        finally:
            patience.cancel()
        flight.answer(replace(answer, ttl_s=kept_s) if kept_s else answer)

    async def _within_deadline(self, loader: Loader, call: Call) -> Loaded:
        bound = asyncio.timeout(max(0.0, call.remaining_s(self._clock)))
        try:
            async with bound:
                return await loader(call)
        except TimeoutError as error:
            if bound.expired():
                raise UpstreamTimeout("No answer in time.") from error
            raise

    async def _fill(self, question: Question, key_text: str, entry: Entry, seen: Seen, call: Call) -> float:
        """Keep the entry if nothing was invalidated since `seen`; its lifetime in seconds, 0 when not kept."""
        key, policy = question.key, question.policy
        result, kept_s = "failed", 0.0
        try:
            stored = encode(entry, key_text=key_text, vector=seen.vector, tags=question.tags, compress=self._compress)
        except ValueError:
            stored = b""
        try:
            if not stored or len(stored) > policy.max_bytes:
                result = "too_large"
                if not seen.admitted:
                    await self._admission.mark(_bearer(key), seen.guard, call)
                return 0.0
            ttl_s = policy.ttl_s(negative=entry.negative, random01=self._random01())
            kept = await self._store.fill(
                key, question.tags, seen, stored, ttl_s=ttl_s, admission_s=self._admission_s, call=call
            )
            if kept:
                result, kept_s = "stored", ttl_s
                self._hold(key_text, entry)
            else:
                result = "raced"
        except StoreError:
            result = "failed"
        finally:
            self._recorder.count("cache_fills", entity=key.entity, result=result)
        return kept_s

    def _hold(self, key_text: str, entry: Entry) -> None:
        self._l1.put(key_text, entry)
        self._recorder.gauge("cache_l1_bytes", self._l1.size_bytes)

    def _too_old(self, entry: Entry, max_age_s: float | None, least_age_s: float = 0.0) -> bool:
        """Is it older than asked for, or of an age that the wall clock, set back since the fetch, cannot tell?"""
        if max_age_s is None:
            return False
        age_s = self._clock.now() - entry.fetched_at
        return max(age_s, least_age_s) > max_age_s or age_s < -CLOCKS_APART_S

    def _etag(self, loaded: Loaded, fetched_at: float) -> str:
        # The value is part of it, so that two fetches that could not be told apart otherwise are still not confused.
        self._fetches += 1
        salt = struct.pack(">ddQ", fetched_at, self._random01(), self._fetches)
        return hashlib.blake2b(
            loaded.value, digest_size=8, salt=hashlib.blake2b(salt, digest_size=16).digest()
        ).hexdigest()


def _bearer(key: CacheKey) -> Bearer:
    return Bearer(key.tenant, key.partition, key.bearer)


def _least_age_s(policy: Policy, entry: Entry, ttl_s: float) -> float:
    """What the lifetime that is over shows of the age, whatever the wall clock did; too little by the jitter."""
    return policy.ttl_s(negative=entry.negative, random01=0.0) - ttl_s
