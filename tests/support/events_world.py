"""What the contract suite of event logs needs of a kind of log: its world."""

from __future__ import annotations

from typing import Protocol

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.ports import EventLog

__all__ = ["SLOW_TAKEOVER", "VOLATILE", "World"]

VOLATILE = "volatile"
"""A limit: the log lives and dies with its one process; `durable` says so, and `log()` gives the same one each time."""

SLOW_TAKEOVER = "slow_takeover"
"""A limit: what a dead process had in hand comes after the transport's own time-out, not after `claim_idle_s`."""


class World(Protocol):
    """One store of events, and as many logs over it as there are processes.

    Made by `world(request)` of `events_world_<name>`, an asynchronous context manager that is given the pytest request
    (for its fixtures: `request.getfixturevalue`). It is entered and left in different tasks, so it holds no task group
    and no `asyncio.timeout` open. Nothing of one world is seen in another.

    `clock`: where short waits are real ones. `instance`: the account, whose events it keeps. `limits`: what this kind
    of log cannot do, of those above.
    """

    clock: Clock
    instance: str
    limits: frozenset[str]

    async def log(self, *, claim_idle_s: float = 30.0) -> EventLog:
        """A new log over the same data, as another process has it; the world closes it."""
        ...

    async def crash(self, log: EventLog) -> None:
        """That log's process is dead: it gives nothing back and does nothing more."""
        ...
