"""What the store could not be told yet, by tenant: renewals of its epoch, and lines that wait in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobnimbus_mcp.cache.journal import Kept

__all__ = ["CAUSES_MAX", "Debts"]

CAUSES_MAX = 1_000
"""Failed invalidations of a tenant that are told apart; what more there are, only a renewal makes up for."""


class Debts:
    """A tenant owes until its epoch has been renewed after every failed invalidation, save those that the journal
    holds, and until each line of the journal has been applied.

    Everything here has a number, growing, so that a payment is known not to cover what was added while it was made.
    """

    def __init__(self) -> None:
        self._number = 0
        self._renewals: dict[str, dict[str, int]] = {}
        self._deferring: dict[str, set[str]] = {}
        self._lines: dict[str, dict[int, tuple[int, Kept]]] = {}

    def __bool__(self) -> bool:
        return bool(self._renewals or self._lines)

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._renewals or tenant in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(dict.fromkeys((*self._renewals, *self._lines))))

    @property
    def mark(self) -> int:
        """To be taken before a payment is sent."""
        return self._number

    def owe(self, tenant: str, cause: str = "") -> None:
        """An invalidation may not hold. `cause`: what the journal may take it over by; "" = nothing."""
        causes = self._renewals.setdefault(tenant, {})
        causes[cause if cause in causes or len(causes) < CAUSES_MAX else ""] = self._next()

    def defer(self, tenant: str, cause: str) -> None:
        """The journal is being asked to take this over: meanwhile no renewal is due for it."""
        self._deferring.setdefault(tenant, set()).add(cause)

    def deferred(self, tenant: str, cause: str, kept: Kept | None) -> None:
        """The journal has it now, or (None) has not, so that the renewal is due after all."""
        deferring = self._deferring.get(tenant, set())
        deferring.discard(cause)
        if not deferring:
            self._deferring.pop(tenant, None)
        if kept is None:
            return
        self.keep(kept)
        causes = self._renewals.get(tenant, {})
        causes.pop(cause, None)
        if not causes:
            self._renewals.pop(tenant, None)

    def keep(self, kept: Kept) -> None:
        """A line of the journal is to be applied."""
        self._lines.setdefault(kept.line.tenant, {})[kept.ref] = (self._next(), kept)

    def renewal_due(self, tenant: str) -> bool:
        deferring = self._deferring.get(tenant, ())
        return any(cause not in deferring for cause in self._renewals.get(tenant, ())) or any(
            kept.line.notice is None for _, kept in self._lines.get(tenant, {}).values()
        )

    def renewal_left(self, tenant: str) -> bool:
        """The disk holds a line already that asks for a renewal. One without tags stands for what could not be read or
        applied, and it alone is on the disk."""
        lines = self._lines.get(tenant, {}).values()
        return any(kept.line.notice is None and kept.line.tags for _, kept in lines)

    def renewed(self, tenant: str, mark: int) -> list[Kept]:
        """The epoch has been renewed after `mark` was taken. Which lines asked for no more than that: they are done."""
        causes = self._renewals.get(tenant, {})
        for cause in [cause for cause, number in causes.items() if number <= mark]:
            del causes[cause]
        if not causes:
            self._renewals.pop(tenant, None)
        lines = self._lines.get(tenant, {}).values()
        covered = [kept for number, kept in lines if number <= mark and kept.line.notice is None]
        self.applied(covered)
        return covered

    def lines(self, tenant: str, most: int) -> list[Kept]:
        """The oldest lines that are to be applied one by one."""
        found: list[Kept] = []
        for _, kept in self._lines.get(tenant, {}).values():
            if len(found) == most:
                break
            if kept.line.notice is not None:
                found.append(kept)
        return found

    def waits(self, tenant: str) -> bool:
        """Lines of the tenant wait to be applied one by one."""
        return any(kept.line.notice is not None for _, kept in self._lines.get(tenant, {}).values())

    def applied(self, kept: Iterable[Kept]) -> None:
        for ref, line in kept:
            lines = self._lines.get(line.tenant, {})
            lines.pop(ref, None)
            if not lines:
                self._lines.pop(line.tenant, None)

    def _next(self) -> int:
        self._number += 1
        return self._number
