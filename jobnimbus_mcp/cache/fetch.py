"""One fetch: the origin is asked within the deadline, and its answer is kept if it is still true and does not lag.

An answer may also be put together from what is kept. Then the origin has said nothing about the credential, so that is
checked as before a hit, and the answer is kept for no longer than the credential's acceptance counts already.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace

from jobnimbus_mcp.cache.admission import Admission, Admit, Bearer, bearer_of
from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.floors import LAGS, Life, life
from jobnimbus_mcp.cache.holding import Holding
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.ports import Floor, Seen, Store, StoreError, Verdict
from jobnimbus_mcp.cache.question import Errand, Look
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import UpstreamTimeout, UpstreamUnauthorized
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Fetcher"]


class Fetcher:
    """Asks, keeps and answers. `fill_grace_s`: how long an answer waits for its fill."""

    def __init__(
        self,
        store: Store,
        holding: Holding,
        admission: Admission,
        *,
        clock: Clock,
        random01: Callable[[], float],
        recorder: Recorder,
        compress: bool,
        admission_s: float,
        fill_grace_s: float,
    ) -> None:
        self._store = store
        self._holding = holding
        self._admission = admission
        self._clock = clock
        self._random01 = random01
        self._recorder = recorder
        self._compress = compress
        self._admission_s = admission_s
        self._fill_grace_s = fill_grace_s
        self._fetches = 0

    async def fetch(
        self,
        errand: Errand,
        look: Look | None,
        answer: Callable[[Outcome], None],
        *,
        token: str = "",
        floors: Mapping[str, Floor] | None,
    ) -> bool:
        """Ask the origin, hand the answer to `answer`, and keep it; True when the token's lease was given back with it.

        `look`: what was noted before; nothing is kept without it. `floors` as `floors.life` takes them.

        Raises:
            UpstreamUnauthorized: refused; what the bearer alone had has been dropped.
            UpstreamTimeout: the call's deadline passed.
            Exception: whatever the loader raised.
        """
        question, call = errand.question, errand.call
        bearer = bearer_of(question.key)
        fetched_at, asked_at = self._clock.now(), self._clock.monotonic()
        try:
            loaded = await self._within_deadline(errand)
        except UpstreamUnauthorized:
            await self._admission.refused(bearer, None if look is None else look.seen, call)
            raise
        accepted_s = self._admission_s
        if loaded.proved:
            self._admission.accepted(bearer, asked_at)
        elif errand.admit is not None:
            accepted_s = await self._accepted_s(errand, errand.admit, look)
        fetched_at = fetched_at if loaded.as_of is None else loaded.as_of
        cost_s = self._clock.monotonic() - asked_at
        lifetime = life(question.policy, loaded, question.settles, floors, self._random01())
        etag = self._etag(loaded, fetched_at)
        entry = Entry(
            loaded.value,
            loaded.negative,
            fetched_at,
            etag,
            lifetime.fresh_s,
            lifetime.kept_s,
            min(cost_s, 3600.0),
            loaded.position,
        )
        outcome = Outcome(
            loaded.value,
            loaded.negative,
            Status.STALE if lifetime.lags else Status.MISS,
            Tier.UPSTREAM,
            fetched_at,
            0.0,
            False,
            etag,
            LAGS if lifetime.lags else None,
        )
        if look is None or not look.seen.vector or not call.store_usable:
            answer(outcome)
            return False
        patience = asyncio.get_running_loop().call_later(self._fill_grace_s, answer, outcome)
        try:
            kept, given_back = await self._keep(errand, look, entry, lifetime, token, accepted_s)
        finally:
            patience.cancel()
        answer(replace(outcome, ttl_s=lifetime.fresh_s) if kept else outcome)
        return given_back

    async def _within_deadline(self, errand: Errand) -> Loaded:
        call = errand.call
        bound = asyncio.timeout(max(0.0, call.remaining_s(self._clock)))
        try:
            async with bound:
                return await errand.loader(call)
        except TimeoutError as error:
            if bound.expired():
                raise UpstreamTimeout("No answer in time.") from error
            raise

    async def _keep(
        self, errand: Errand, look: Look, entry: Entry, lifetime: Life, token: str, accepted_s: float
    ) -> tuple[bool, bool]:
        """Keep the entry if nothing was invalidated since `look`: (is it kept, was the token's lease given back).

        `accepted_s`: for how long the credential's acceptance counts; not known to be accepted, nothing is kept.
        """
        question, key, seen, call = errand.question, errand.question.key, look.seen, errand.call
        result, stored = "failed", b""
        try:
            if lifetime.lags:
                result = "lagging"
            elif accepted_s <= 0:
                result = "unproved"
            else:
                stored = self._encoded(errand, look, entry)
                result = "too_large"
            if not stored or len(stored) > question.policy.max_bytes:
                if accepted_s >= self._admission_s and not seen.admitted:
                    await self._admission.mark(bearer_of(key), seen.guard, call)
                return False, False
            result, at = "failed", self._clock.monotonic()
            kept = await self._store.fill(
                key,
                question.tags,
                seen,
                stored,
                ttl_s=lifetime.kept_s,
                admission_s=accepted_s,
                token=token,
                call=call,
            )
            result = "stored" if kept else "raced"
            if kept:
                self._holding.bring(
                    question,
                    errand.key_text,
                    entry,
                    look,
                    at=at,
                    fresh_s=lifetime.fresh_s,
                    kept_s=lifetime.kept_s,
                    admitted_s=accepted_s,
                )
            return kept, True
        except StoreError:
            return False, False
        finally:
            self._recorder.count("cache_fills", entity=key.entity, result=result)

    async def _accepted_s(self, errand: Errand, admit: Admit, look: Look | None) -> float:
        """For how long it still counts that the origin accepted the credential, which may have to be asked now; 0 when
        it cannot say.

        Raises:
            UpstreamUnauthorized: it refuses it.
        """
        key, call = errand.question.key, errand.call
        bearer = bearer_of(key)
        seen = Seen(Verdict.MISS, 0.0, 0.0) if look is None else look.seen
        since = self._clock.monotonic() if look is None else look.asked_at
        if not seen.admitted and await self._marked(bearer, call):
            seen = seen._replace(admitted_s=self._admission_s)  # by what was asked on the way here
        await self._admission.may_show(key, seen, admit, call)
        counts_s = seen.admitted_s
        if not seen.admitted and await self._marked(bearer, call):
            counts_s = self._admission_s
        return counts_s - (self._clock.monotonic() - since)

    async def _marked(self, bearer: Bearer, call: Call) -> bool:
        try:
            return (await self._store.admission(bearer.tenant, bearer.name, call))[0]
        except StoreError:
            return False  # the origin is asked instead; the store's driver has counted the failure

    def _encoded(self, errand: Errand, look: Look, entry: Entry) -> bytes:
        try:
            return encode(
                entry,
                key_text=errand.key_text,
                vector=look.seen.vector,
                tags=errand.question.tags,
                compress=self._compress,
            )
        except ValueError:
            return b""

    def _etag(self, loaded: Loaded, fetched_at: float) -> str:
        # The value is part of it, so that two fetches that could not be told apart otherwise are still not confused.
        self._fetches += 1
        salt = struct.pack(">ddQ", fetched_at, self._random01(), self._fetches)
        return hashlib.blake2b(
            loaded.value, digest_size=8, salt=hashlib.blake2b(salt, digest_size=16).digest()
        ).hexdigest()
