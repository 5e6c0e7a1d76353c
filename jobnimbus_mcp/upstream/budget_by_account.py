"""The request budgets of accounts whose stores are different ones, as one."""

from __future__ import annotations

from collections.abc import Mapping

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.upstream.ports import RequestBudget

__all__ = ["BudgetByAccount"]


class BudgetByAccount:
    """Implements `RequestBudget`; each account's is its own, all of the same rate."""

    def __init__(self, budgets: Mapping[str, RequestBudget]) -> None:
        self._budgets = dict(budgets)

    @property
    def rate_per_s(self) -> float:
        return next(iter(self._budgets.values())).rate_per_s

    async def take(self, instance: str, call: Call) -> float:
        return await self._budgets[instance].take(instance, call)

    def share_left(self, instance: str) -> float:
        return self._budgets[instance].share_left(instance)
