"""Names of the people whose ids an answer shows, from the account's users; an answer never fails for want of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobnimbus_mcp.errors import ProjectError, UpstreamForbidden
from jobnimbus_mcp.tools.shape import Projection

if TYPE_CHECKING:  # a call's context holds this
    from jobnimbus_mcp.tools.context import ToolContext

__all__ = ["AWAY_S", "NOT_TOLD_S", "People"]

NOT_TOLD_S = 300.0
"""How long the users are not asked for again in the name of a caller who may not list them: each answer would cost
JobNimbus a request otherwise."""

AWAY_S = 30.0
"""The same after any other failure, which passes sooner."""

_BOUND_S = 2.0
"""What a name may cost an answer that is otherwise ready; the users are read once in two hours."""

_CALLERS_MOST = 1_000


class People:
    """Adds names to projections; remembers whose users could not be had, for a while."""

    def __init__(self) -> None:
        self._not_before: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def named(self, ctx: ToolContext, projection: Projection, rows: Sequence[Mapping[str, Any]]) -> Projection:
        """The projection with the names of the account's users, where the rows as shown have ids to name."""
        if not projection.has_people(rows):
            return projection
        who = (ctx.caller.instance, ctx.caller.partition)
        not_before = self._not_before.get(who)
        if not_before is None or ctx.clock.monotonic() >= not_before:
            try:
                async with asyncio.timeout(_BOUND_S):
                    people = await ctx.directory.user_names()
            except (ProjectError, TimeoutError) as failure:
                # the read was counted and logged where it failed; ids alone are a whole answer too
                forbidden = isinstance(failure, UpstreamForbidden)
                self._ask_at(who, ctx.clock.monotonic() + (NOT_TOLD_S if forbidden else AWAY_S))
            else:
                self._not_before.pop(who, None)
                return replace(projection, people=people)
        # without names it is not the answer of these reads, so it is not to be remembered as theirs
        ctx.now()
        return projection

    def _ask_at(self, who: tuple[str, str], moment: float) -> None:
        self._not_before[who] = moment
        self._not_before.move_to_end(who)
        while len(self._not_before) > _CALLERS_MOST:
            self._not_before.popitem(last=False)
