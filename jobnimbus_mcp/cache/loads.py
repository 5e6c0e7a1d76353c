"""One load for all who ask: joined within this process, shared with the others by a lease, none begun too early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobnimbus_mcp.cache.admission import Admission
from jobnimbus_mcp.cache.fetch import Fetcher
from jobnimbus_mcp.cache.flight_lease import FlightLeases, Throttled
from jobnimbus_mcp.cache.holding import Holding
from jobnimbus_mcp.cache.looks import Looks
from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.cache.plan import CLOCKS_APART_S, ORIGIN_FAULTS, Course, course, origin_failed, served
from jobnimbus_mcp.cache.ports import Floor
from jobnimbus_mcp.cache.question import Errand, Look
from jobnimbus_mcp.cache.single_flight import Flight, Joining, SingleFlight
from jobnimbus_mcp.cache.throttle import Throttle
from jobnimbus_mcp.clock import Clock

__all__ = ["Loads"]


class Loads:
    """The loads under way. Whoever constructs this closes it. `leases` None: shared within this process only."""

    def __init__(
        self,
        fetcher: Fetcher,
        looks: Looks,
        holding: Holding,
        admission: Admission,
        leases: FlightLeases | None,
        throttle: Throttle,
        clock: Clock,
    ) -> None:
        self._fetcher = fetcher
        self._looks = looks
        self._holding = holding
        self._admission = admission
        self._leases = leases
        self._throttle = throttle
        self._clock = clock
        self._flights: SingleFlight[Outcome] = SingleFlight(clock)

    @property
    def landings(self) -> int:
        """To be taken before a look, for `load`."""
        return self._flights.landings

    async def load(
        self, errand: Errand, *, status: Status = Status.MISS, looked: int | None = None, detach: bool = False
    ) -> Outcome:
        """Join the load of this key by this bearer at these generations, or begin it; answered as `status`, or stale.

        Without a look at the store (or when it could note nothing) the generations are unknown; an invalidation may
        have been acknowledged by another process, so a load that has begun cannot be joined. `looked`: the landings
        before the errand's look. `detach`: it goes on when its readers have left.

        Raises:
            Throttled: the errand is patient, and another process's fetch has failed lately.
            Exception: as `Fetcher.fetch`.
        """
        look, bearer = errand.look, errand.question.key.bearer
        if look is not None and look.seen.vector:
            # Who waits for another entry to be replaced, or can be put off, waits for another load.
            key: tuple[Any, ...] = (
                errand.key_text,
                bearer,
                look.seen.vector,
                look.seen.guard,
                errand.replaces,
                errand.patient,
            )
            joining = Joining.BEGUN
        else:
            key, joining = (errand.key_text, bearer), Joining.UNBEGUN
        outcome, joined = await self._flights.fly(
            key,
            lambda flight: self._fly(flight, errand),
            call=errand.call,
            joining=Joining.NONE if errand.alone else joining,
            begun_within_s=errand.max_age_s,
            looked=looked,
            detach=detach,
        )
        if joined and not self._young_enough(errand, outcome.fetched_at):
            # It brought what another process had fetched before.
            return await self.load(replace(errand, alone=True), status=status)
        if outcome.status not in (status, Status.STALE):
            outcome = replace(outcome, status=status)
        return replace(outcome, coalesced=True) if joined and not outcome.coalesced else outcome

    async def aclose(self, within_s: float = 2.0) -> None:
        """Let what is under way end, for so long; then cancel it."""
        await self._flights.aclose(within_s)

    async def _fly(self, flight: Flight[Outcome], errand: Errand) -> None:
        began, look = self._clock.monotonic(), errand.look

        async def fetch(noted: Look, token: str, floors: Mapping[str, Floor] | None) -> bool:
            return await self._fetcher.fetch(errand, noted, flight.answer, token=token, floors=floors)

        async def look_again() -> Look | None:
            return await self._look_again(flight, errand)

        try:
            if self._leases is None:
                await self._fetcher.fetch(errand, look, flight.answer, floors={})
            elif look is None or not look.seen.vector or not errand.call.store_usable:
                await self._fetcher.fetch(errand, look, flight.answer, floors=None)
            else:
                await self._leases.fly(errand, look, fetch, look_again)
        except Throttled as throttled:
            self._throttle.told(errand.key_text, self._clock.monotonic() + throttled.wait_s)
            raise
        except ORIGIN_FAULTS as error:
            now = self._clock.monotonic()
            if origin_failed(error, now - began, errand.question.policy):
                self._throttle.failed(errand.key_text, now)
            raise
        self._throttle.worked(errand.key_text)

    async def _look_again(self, flight: Flight[Outcome], errand: Errand) -> Look | None:
        """READ what another process's fetch may have brought; None when that answers the flight.

        Whoever shares this flight read before it and saw the generations that it began with, so an answer at those, or
        at newer ones, is none too old for them.
        """
        question, key_text = errand.question, errand.key_text
        look = await self._looks.look(question, key_text, "", errand.call)
        found = self._looks.found(question, key_text, look, None)
        if (
            found is None
            or course(found, question.policy) is not Course.SERVE
            or not self._young_enough(errand, found.entry.fetched_at)
        ):
            return look
        # The other's fetch has shown nothing about this bearer.
        await self._admission.may_show(question.key, look.seen, errand.admit, errand.call)
        self._holding.bring_found(question, key_text, found, look)
        flight.answer(replace(served(found), status=Status.MISS, tier=Tier.UPSTREAM, coalesced=True))
        return None

    def _young_enough(self, errand: Errand, fetched_at: float) -> bool:
        """Did that fetch begin when the reader wants it to have begun, as far as the wall clock can tell?"""
        return errand.oldest is None or errand.oldest <= fetched_at <= self._clock.now() + CLOCKS_APART_S
