"""The road of a read: L1 while it may be trusted; else one round trip to the store; else one load for all who ask."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, assert_never

from jobnimbus_mcp.cache.admission import Admission, Admit, Bearer, bearer_of
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.early import REACH
from jobnimbus_mcp.cache.explain import explain
from jobnimbus_mcp.cache.fetch import Fetcher
from jobnimbus_mcp.cache.flight_lease import FlightLeases, Throttled
from jobnimbus_mcp.cache.holding import Holding
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.listing import HitCounts, list_entries
from jobnimbus_mcp.cache.loads import Loads
from jobnimbus_mcp.cache.looks import Looks
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Lying, Outcome, Status, Tier
from jobnimbus_mcp.cache.plan import (
    CLOCKS_APART_S,
    ORIGIN_FAULTS,
    Course,
    Found,
    course,
    served,
    too_old,
)
from jobnimbus_mcp.cache.ports import History, Seen, Store, StoreError
from jobnimbus_mcp.cache.question import Errand, Loader, Look, Question
from jobnimbus_mcp.cache.refresh import Refreshes
from jobnimbus_mcp.cache.throttle import Throttle
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["CLOCKS_APART_S", "Admit", "Loader", "Question", "ReadThrough"]

_REFRESHING = "being fetched anew"
_SLOW = "the origin has not answered yet"
_AWAY = "the origin could not be asked"

_HITS_BEFORE_EARLY = 2
"""What was asked for once is not worth a request before anybody asks again."""


def _any_token() -> str:
    return secrets.token_hex(8)


class ReadThrough:
    """The engine of one process. Whoever constructs it closes it.

    A read is answered after a round trip to the store that began after the read did and found every tag's generation as
    it was noted before the value's fetch began; or, in the modes that trust L1, from what this process holds while
    nothing that it applied from the log names it and its lease lasts. So no read that starts after an invalidation was
    acknowledged is answered with older data, save what the mode allows, and that is labelled.

    `admission_s`: how long an acceptance by the origin counts. `fill_grace_s`: how long an answer waits for its fill.
    `enabled=False`: nothing is looked up or kept; equal questions still share a load. `coherence`: without one nothing
    is served from L1 unvalidated, and fetches are shared within this process only. `early_beta(tenant)`: how eagerly
    entries are refreshed before their lifetime is over, 0 never. `token`: makes names that no two processes share.
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
        coherence: Coherence | None = None,
        early_beta: Callable[[str], float] = lambda tenant: 0.0,
        token: Callable[[], str] = _any_token,
    ) -> None:
        self._store = store
        self._l1 = l1
        self._clock = clock
        self._recorder = recorder
        self._enabled = enabled
        self._hits = HitCounts()
        self._throttle = Throttle()
        self._holding = Holding(l1, coherence, clock, recorder)
        self._admission = Admission(store, l1, clock, admission_s=admission_s)
        self._looks = Looks(store, self._holding, clock, recorder)
        self._fetcher = Fetcher(
            store,
            self._holding,
            self._admission,
            clock=clock,
            random01=random01,
            recorder=recorder,
            compress=compress,
            admission_s=admission_s,
            fill_grace_s=fill_grace_s,
        )
        leases = None if coherence is None else FlightLeases(store, coherence, clock, recorder, token)
        self._loads = Loads(self._fetcher, self._looks, self._holding, self._admission, leases, self._throttle, clock)
        self._refreshes = Refreshes(
            self._loads, self._looks, clock=clock, random01=random01, recorder=recorder, early_beta=early_beta
        )

    async def read(
        self,
        question: Question,
        loader: Loader,
        *,
        call: Call,
        max_age_s: float | None = None,
        admit: Admit | None = None,
        own: bool = False,
    ) -> Outcome:
        """The answer, and where it came from.

        `max_age_s`: an older entry is loaded anew (miss); 0 loads now and joins no load begun before (bypass); None:
        any age within its lifetime. `admit`: asked before a hit when the origin has not accepted the credential lately;
        None when there is no credential to accept. `own`: the loader uses the server's own credential, so the entry may
        be refreshed although nobody asks for that.

        Raises:
            UpstreamUnauthorized: the origin refuses the credential.
            UpstreamTimeout: the call's deadline passed.
            Exception: whatever the loader raised.
        """
        key_text = question.key.text
        outcome = self._from_l1(question, key_text, loader, call, max_age_s, admit, own)
        if outcome is None:
            outcome = await self._answer(question, key_text, loader, call, max_age_s, admit, own)
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

    async def lying(self, question: Question, call: Call) -> Lying | None:
        """What lies under the question's key, good or dirty, within its lifetime and of the present epoch; loads
        nothing, and asks nobody about the credential. None also when the store is away."""
        return await self._looks.lying(question, call) if self._enabled else None

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History | None:
        """The log as `Store.history` tells it, None when the store is away."""
        if not self._enabled or not call.store_usable:
            return None
        try:
            return await self._store.history(tenant, after, back_s, call)
        except StoreError:
            call.store_usable = False
            return None

    async def entries(
        self, tenant: str, *, entity: str | None = None, operation: str | None = None, limit: int = 100, call: Call
    ) -> list[dict[str, Any]]:
        """What is kept: key, ageSeconds, ttlSeconds, sizeBytes, tags, hits (as this process counted them), and `stale`
        when its lifetime is over.

        Raises:
            CacheUnavailable: the store is away.
        """
        return await list_entries(
            self._store, self._clock, self._hits, tenant, entity=entity, operation=operation, limit=limit, call=call
        )

    async def explain(self, key_text: str, call: Call) -> dict[str, Any] | None:
        """One entry: its tags' generations then and now, and what dirtied it when; None when none is kept.

        Raises:
            CacheUnavailable: the store is away.
        """
        return await explain(self._store, self._holding, self._clock, key_text, call)

    def l1_stats(self) -> dict[str, Any]:
        return self._l1.stats()

    async def aclose(self) -> None:
        """Let loads, refreshes and fills under way end, under a bound; cut short, it gives them up at once."""
        try:
            await asyncio.gather(self._refreshes.aclose(), self._loads.aclose(), self._admission.aclose())
        finally:
            # A refresh may have begun a load after the others had ended, and a load a check.
            await self._loads.aclose(within_s=0.0)
            await self._admission.aclose(within_s=0.0)
            await self._looks.aclose()

    # -- what is there -----------------------------------------------------------------------------------------------

    def _from_l1(
        self,
        question: Question,
        key_text: str,
        loader: Loader,
        call: Call,
        max_age_s: float | None,
        admit: Admit | None,
        own: bool,
    ) -> Outcome | None:
        """The answer without waiting for anything, where L1 may be trusted."""
        if not self._enabled or (max_age_s is not None and max_age_s <= 0):
            return None
        held = self._holding.trusted(question, key_text, max_age_s)
        if held is None:
            return None
        now = self._clock.monotonic()
        accepted = now < held.admitted_until
        if admit is not None and (not accepted or self._admission.refusing(bearer_of(question.key))):
            return None
        call.admitted = call.admitted or accepted
        entry, left_s = held.entry, held.fresh_until - now
        if own and left_s < entry.cost_s * REACH:
            errand = Errand(question, key_text, loader, call, None, admit, entry.etag)
            self._maybe_early(errand, left_s, entry.cost_s)
        self._hits.add(key_text)
        return Outcome(entry.value, entry.negative, Status.HIT, Tier.L1, entry.fetched_at, left_s, False, entry.etag)

    async def _answer(
        self,
        question: Question,
        key_text: str,
        loader: Loader,
        call: Call,
        max_age_s: float | None,
        admit: Admit | None,
        own: bool,
    ) -> Outcome:
        now_only = max_age_s is not None and max_age_s <= 0
        oldest = None if max_age_s is None else self._clock.now() - max_age_s

        def errand(look: Look | None = None, replaces: str = "", patient: bool = False) -> Errand:
            return Errand(
                question, key_text, loader, call, look, admit, replaces, patient, max_age_s, oldest, alone=now_only
            )

        if not self._enabled or not call.store_usable:
            return await self._loads.load(errand(), status=Status.BYPASS)
        landings = self._loads.landings
        held = None if now_only else self._holding.entry(key_text, max_age_s)
        try:
            look = await self._looks.look(
                question,
                key_text,
                held.etag if held is not None else "",
                call,
                want=not now_only,
                dirty=question.mode is Mode.ANY,
            )
        except StoreError:
            return await self._loads.load(errand(), status=Status.BYPASS)
        call.admitted = call.admitted or look.seen.admitted
        if now_only:
            return await self._loads.load(errand(look), status=Status.BYPASS)
        found = self._looks.found(question, key_text, look, held)
        if found is None:
            return await self._loads.load(errand(look), looked=landings)
        if too_old(found.entry.fetched_at, max_age_s, self._clock.now(), found.least_age_s):
            return await self._loads.load(errand(look, found.entry.etag), looked=landings)
        match course(found, question.policy):
            case Course.SERVE:
                await self._admission.may_show(question.key, look.seen, admit, call)
                self._holding.bring_found(question, key_text, found, look)
                if own and found.fresh_left_s < found.entry.cost_s * REACH:
                    self._maybe_early(errand(look, found.entry.etag), found.fresh_left_s, found.entry.cost_s)
                self._hits.add(key_text)
                return served(found)
            case Course.SERVE_AND_REFRESH:
                await self._admission.may_show(question.key, look.seen, admit, call)
                return self._serve_and_refresh(errand(look, found.entry.etag), found)
            case Course.LOAD_OR_SERVE:
                return await self._load_or_serve(errand(look, found.entry.etag, True), found, look.seen, landings)
            case Course.LOAD:
                return await self._loads.load(errand(look, found.entry.etag), looked=landings)
            case never:
                assert_never(never)

    # -- what is no longer good --------------------------------------------------------------------------------------

    def _serve_and_refresh(self, errand: Errand, found: Found) -> Outcome:
        self._hits.add(errand.key_text)
        if self._throttle.holds(errand.key_text, self._clock.monotonic()):
            return served(found, meanwhile=self._why_paused(errand))
        self._refreshes.begin(errand, "dirty" if found.dirty else "stale")
        return served(found, meanwhile=_REFRESHING)

    async def _load_or_serve(self, errand: Errand, found: Found, seen: Seen, landings: int) -> Outcome:
        """The load, or, when the origin fails or is slow, what was found; the load goes on without its reader."""
        meanwhile = self._why_paused(errand)
        if not self._throttle.holds(errand.key_text, self._clock.monotonic()):
            patience = asyncio.timeout(errand.question.policy.soft_s)
            try:
                async with patience:
                    return await self._loads.load(errand, looked=landings, detach=True)
            except TimeoutError:
                if not patience.expired():
                    raise
                meanwhile = _SLOW
                # Those who come now do not wait as long for the same load again.
                until = self._clock.monotonic() + errand.question.policy.soft_s
                self._throttle.told(errand.key_text, until, slow=True)
            except (Throttled, *ORIGIN_FAULTS):
                meanwhile = _AWAY
        await self._admission.may_show(errand.question.key, seen, errand.admit, errand.call)
        self._hits.add(errand.key_text)
        return served(found, meanwhile=meanwhile)

    def _why_paused(self, errand: Errand) -> str:
        return _SLOW if self._throttle.slow(errand.key_text) else _AWAY

    def _maybe_early(self, errand: Errand, left_s: float, cost_s: float) -> None:
        key_text = errand.key_text
        if (
            self._hits.of(key_text) >= _HITS_BEFORE_EARLY
            and self._refreshes.due_early(errand.question.key.tenant, left_s, cost_s)
            and not self._throttle.holds(key_text, self._clock.monotonic())
        ):
            self._refreshes.begin(errand, "early")
