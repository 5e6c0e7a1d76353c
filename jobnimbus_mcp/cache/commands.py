"""One command to the store: when there is room, bounded, behind the breaker, and never two time-outs in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from jobnimbus_mcp.cache.command_bound import CommandBound, CommandExpired
from jobnimbus_mcp.cache.ports import StoreError, StoreNotTried, StoreOutOfMemory, StoreReadOnly, StoreTimeout
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.resilience.breaker import BreakerBox, State
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Commands"]

T = TypeVar("T")


class Commands:
    """Sends commands to one store. `timeout_s` bounds each from when it is sent; at most `max_in_flight` are sent at
    once. `troubled` is called whenever the breaker is not closed after a failure."""

    def __init__(
        self,
        breaker: BreakerBox,
        clock: Clock,
        recorder: Recorder,
        *,
        timeout_s: float,
        max_in_flight: int,
        troubled: Callable[[], None],
    ) -> None:
        if timeout_s <= 0 or max_in_flight < 1:
            raise ValueError("command_timeout_s and max_in_flight must be positive")
        self.breaker = breaker
        self.timeout_s = timeout_s
        self._clock = clock
        self._recorder = recorder
        self._troubled = troubled
        self._slots = asyncio.Semaphore(max_in_flight)
        self._reported = State.CLOSED

    async def sent(
        self,
        operation: str,
        call: Call,
        send: Callable[[], Awaitable[T]],
        *,
        past_breaker: bool = False,
        background: bool = False,
    ) -> T:
        """Send one command when there is room; whatever happened meanwhile to the call or the breaker counts.

        `past_breaker`: an invalidation is worth its time-out also while the breaker is open. Nobody sends it again, and
        a store that is back before the breaker knows would cost the tenant everything that is kept. `background`: the
        failure of what nobody waits for opens no breaker, or a restart that no call has noticed would cost them the
        cache for as long as it stays open.
        """
        if not call.store_usable:
            raise StoreNotTried("unreachable")
        async with self._slots:
            if not call.store_usable:
                raise StoreNotTried("unreachable")
            if not self.breaker.admit() and not past_breaker:
                call.store_usable = False
                raise StoreNotTried
            try:
                return await self.tried(operation, send, self.timeout_s, background=background)
            except StoreOutOfMemory:
                raise
            except StoreError:
                call.store_usable = False
                raise

    async def tried(
        self, operation: str, send: Callable[[], Awaitable[T]], within_s: float, *, background: bool = False
    ) -> T:
        """Await an admitted command and report its end to the breaker exactly once."""
        began = self._clock.monotonic()
        try:
            with CommandBound(within_s):
                result = await send()
        except CommandExpired as error:
            if error.stalled:
                self.breaker.abandoned(began)
            else:
                self._failed(operation, "timeout", self._blamed(background), began)
            raise StoreTimeout("event loop held up" if error.stalled else "") from error
        except StoreOutOfMemory as error:
            self.breaker.succeeded(began)
            self._recorder.count("cache_errors", operation=operation, reason=error.reason)
            raise
        except StoreReadOnly as error:
            self._failed(operation, error.reason, self.breaker.abandoned if background else self.breaker.refused, began)
            raise
        except StoreError as error:
            self._failed(operation, error.reason, self._blamed(background), began)
            raise
        except asyncio.CancelledError:
            self.breaker.abandoned(began)
            raise
        except Exception as error:  # the boundary to a driver: whatever it lets through is a failure of the store
            structlog.get_logger().warning("cache store failed", operation=operation, error=type(error).__name__)
            self._failed(operation, "unreachable", self._blamed(background), began)
            raise StoreError(type(error).__name__) from error
        self.breaker.succeeded(began)
        self._recorder.observe("store_seconds", self._clock.monotonic() - began, operation=operation)
        if self._reported is not State.CLOSED:
            self._report()
        return result

    def _blamed(self, background: bool) -> Callable[[float], None]:
        return self.breaker.abandoned if background else self.breaker.failed

    def _failed(self, operation: str, reason: str, blame: Callable[[float], None], began: float) -> None:
        blame(began)
        self._recorder.count("cache_errors", operation=operation, reason=reason)
        self._report(reason)

    def _report(self, reason: str = "") -> None:
        """Log a change of the breaker's state once, and say when there is something to heal."""
        state = self.breaker.state
        if state is not State.CLOSED:
            self._troubled()
        if state is not self._reported:
            self._reported = state
            log = structlog.get_logger()
            if state is State.CLOSED:
                log.info("cache store is back", circuit_state=state.value)
            elif state is State.OPEN:
                log.warning("cache store is away", circuit_state=state.value, reason=reason)
