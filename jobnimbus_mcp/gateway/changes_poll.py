"""Questions of the background: what has changed, which ids there are. With the server's own key, and behind callers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity, is_jnid
from jobnimbus_mcp.crm.query import Between, Is, Sort, Where
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import BudgetExhausted, InvalidInput, UpstreamNotFound
from jobnimbus_mcp.gateway.identity import Identities
from jobnimbus_mcp.upstream.client import JobNimbusClient
from jobnimbus_mcp.upstream.ports import RequestBudget

__all__ = ["CALLERS_SHARE", "ChangesPoll"]

CALLERS_SHARE = 0.3
"""Of the request budget; while no more than this is left, callers want it, and the background waits."""

_LOOK_AGAIN_S = 0.25
_WAIT_MOST_S = 30.0

_CHANGED_FIELDS = ("jnid", "date_created", "date_updated", "type", "related", "primary", "record_type_name")
_MADE_FIELDS = ("jnid", "date_created")


class ChangesPoll:
    """Asks about the accounts for which the server has a key. `ids` makes request ids.

    All methods but `serves` raise `UpstreamError` and `BudgetExhausted` as the client does, and `BudgetExhausted` also
    when callers have left no room for half a minute.
    """

    def __init__(
        self,
        client: JobNimbusClient,
        identities: Identities,
        budget: RequestBudget,
        *,
        clock: Clock,
        ids: Callable[[], str],
    ) -> None:
        self._client = client
        self._identities = identities
        self._budget = budget
        self._clock = clock
        self._ids = ids

    def serves(self, instance: str) -> bool:
        """Does the server have a key of its own for this account?"""
        return self._identities.server_caller(instance) is not None

    async def changed(
        self, instance: str, kind: Entity, *, since_s: int, offset: int, size: int
    ) -> tuple[Sequence[Mapping[str, Any]], int | None]:
        """(rows with a `date_updated` of `since_s` or later, in its order; how many match, None: not told)."""
        where = (Between("date_updated", at_least=since_s, as_stored=True),)
        order = Sort("date_updated", descending=False)
        return await self._page(instance, kind, where, order, offset, size, _CHANGED_FIELDS)

    async def made(
        self, instance: str, kind: Entity, *, from_s: int | None, to_s: int | None, offset: int, size: int
    ) -> tuple[Sequence[Mapping[str, Any]], int | None]:
        """(rows with a `date_created` within both bounds, in its order; how many match, None: not told)."""
        where: Where = ()
        if from_s is not None or to_s is not None:
            where = (Between("date_created", at_least=from_s, at_most=to_s, as_stored=True),)
        order = Sort("date_created", descending=False)
        return await self._page(instance, kind, where, order, offset, size, _MADE_FIELDS)

    async def is_gone(self, instance: str, kind: Entity, jnid: str) -> bool:
        """Does JobNimbus say that there is no such record: by 404, or for kinds without a page per record, and ids that
        cannot be in a path, by a list that is empty and says so?"""
        if facts_of(kind).has_detail and is_jnid(jnid):
            try:
                credential, call = await self._turn(instance)
                await self._client.load(Read.record(kind, jnid), instance=instance, credential=credential, call=call)
            except UpstreamNotFound:
                return True
            return False
        rows, count = await self._page(instance, kind, (Is("jnid", jnid),), Sort(), 0, 1, _MADE_FIELDS)
        return not rows and count == 0

    async def _page(
        self, instance: str, kind: Entity, where: Where, order: Sort, offset: int, size: int, fields: Sequence[str]
    ) -> tuple[Sequence[Mapping[str, Any]], int | None]:
        credential, call = await self._turn(instance)
        return await self._client.page(
            kind,
            where,
            order,
            offset=offset,
            size=size,
            fields=fields,
            instance=instance,
            credential=credential,
            call=call,
        )

    async def _turn(self, instance: str) -> tuple[str, Call]:
        """The server's credential, and a call for one question, once callers leave room for it."""
        caller = self._identities.server_caller(instance)
        if caller is None:
            raise InvalidInput("This server holds no JobNimbus key for the account.")
        waited_s = 0.0
        while self._budget.share_left(instance) < CALLERS_SHARE:
            if waited_s >= _WAIT_MOST_S:
                raise BudgetExhausted("Callers leave no room for background work.", retry_after_s=_WAIT_MOST_S)
            await self._clock.sleep(_LOOK_AGAIN_S)
            waited_s += _LOOK_AGAIN_S
        return caller.credential, Call.begin(self._clock, self._ids())
