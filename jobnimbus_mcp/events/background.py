"""What polling and the sweep need from outside, and how they say how they are doing.

Ask       questions to JobNimbus, with the server's own credential and behind its callers
Known     which versions have been heard of already
Keeper    what outlives a process: who polls, how far, how much was missed, which ids there were
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.events.watermark import Loss, Mark

__all__ = ["STATE_LIFE_S", "Ask", "Health", "Keeper", "Known", "NotTheHolder"]

STATE_LIFE_S = 8 * 86_400
"""How long what is kept outlives its last use: a week's standstill and a day."""


class NotTheHolder(Exception):
    """Another process has taken over meanwhile."""


class Ask(Protocol):
    """Questions about one account. All but `serves` raise `UpstreamError` when JobNimbus cannot be asked, and
    `BudgetExhausted` when its callers leave no room for too long. Rows have the fields that are named and may have
    more; `count` is how many match, None where JobNimbus did not say.
    """

    def serves(self, instance: str) -> bool:
        """Is there a credential of the server's own for this account?"""
        ...

    async def changed(
        self, instance: str, kind: Entity, *, since_s: int, offset: int, size: int
    ) -> tuple[Sequence[Mapping[str, Any]], int | None]:
        """Rows (jnid, type, date_created, date_updated, related, primary, record_type_name) with a `date_updated` of
        `since_s` (epoch seconds) or later, in its order."""
        ...

    async def made(
        self, instance: str, kind: Entity, *, from_s: int | None, to_s: int | None, offset: int, size: int
    ) -> tuple[Sequence[Mapping[str, Any]], int | None]:
        """Rows (jnid, date_created) with a `date_created` within both bounds (epoch seconds, included; None: open), in
        its order."""
        ...

    async def is_gone(self, instance: str, kind: Entity, jnid: str) -> bool:
        """JobNimbus says that there is no such record; anything but that plain answer is False or an error."""
        ...


class Known(Protocol):
    async def known(self, instance: str, keys: Sequence[str]) -> Sequence[bool]:
        """Of each version key, in their order: is it known?

        Raises:
            CacheUnavailable: it could not be looked up.
        """
        ...


class Keeper(Protocol):
    """Per account. Everything expires some time after its last use. Every method may raise `CacheUnavailable`; those
    with a `token` write only while that token holds what is named `name`, and say whether they did."""

    async def hold(self, instance: str, name: str, token: str, life_s: float) -> bool:
        """Have, or go on having, `name` to oneself for `life_s`; False while another does."""
        ...

    async def let_go(self, instance: str, name: str, token: str) -> None:
        """Give it back, if it is the token's."""
        ...

    async def marks(self, instance: str) -> Mapping[str, Mark]:
        """How far each kind has been polled."""
        ...

    async def advance(
        self, instance: str, name: str, token: str, marks: Mapping[str, Mark], *, loss: Loss, hour: int
    ) -> bool:
        """Keep these marks, and add to what was missed and heard in that hour (since the epoch)."""
        ...

    async def losses(self, instance: str, hours: Sequence[int]) -> Loss:
        """The sum over these hours."""
        ...

    async def swept_at(self, instance: str) -> float | None:
        """When the last sweep ended, or the first was planned; epoch seconds."""
        ...

    async def note_sweep(self, instance: str, name: str, token: str, at: float) -> bool: ...

    async def ids(self, instance: str, kind: str) -> frozenset[str] | None:
        """The ids that the last sweep found; None when there was none."""
        ...

    async def keep_ids(self, instance: str, name: str, token: str, kind: str, ids: Collection[str]) -> bool: ...


class Health:
    """How each part of a background task is doing: said in the log once for every change, and asked for by others."""

    def __init__(self, log: FilteringBoundLogger, what: str) -> None:
        self._log = log
        self._what = what
        self._states: dict[tuple[str, str], str] = {}

    def note(
        self,
        instance: str,
        state: str,
        *,
        part: str = "",
        good: bool = False,
        fields: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """`state`: a stable word. `part`: of the account's task, such as a kind; bounded by the kinds there are."""
        before = self._states.get((instance, part))
        self._states[instance, part] = state
        if before == state or (before is None and good):
            return
        say: Callable[..., object] = self._log.info if good else self._log.warning
        say(f"{self._what} {state}", instance=instance, **({"resource": part} if part else {}), **fields)

    def state(self, instance: str) -> str:
        """Of the account's task as a whole; "idle" before anything is known."""
        return self._states.get((instance, ""), "idle")

    def parts(self, instance: str, state: str) -> list[str]:
        """The parts that are in that state."""
        return sorted(
            part for (account, part), known in self._states.items() if account == instance and known == state and part
        )
