"""Access: what whoever holds a token may do. Made by the doors, carried by the caller, minded by the tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EVERYTHING", "TOOLSETS", "Access"]

TOOLSETS: Mapping[str, str] = {
    "crm": "contacts and jobs",
    "work": "tasks, activities, the calendar, work orders and material orders",
    "sales": "estimates, invoices, payments, budgets and products",
    "files": "files and photos",
    "account": "users, statuses, workflows and other settings, webhooks",
    "bulk": "many records at once",
}
"""Groups of tools; `default` is a choice across them, `all` is all of them, `meta` finds and uses the others."""


@dataclass(frozen=True, slots=True)
class Access:
    """`client`: the name under which what this caller does is counted, limited and audited; "" is nobody in particular.

    `instances`, `toolsets`, `tools`: what may be used; None is no bound. A tool may be used when its toolset is in
    `toolsets` or its name is in `tools`; with both None, every tool may. `read_only`: nothing that writes.
    `requests_per_minute`: of this client; None is the server's own setting, 0 no limit. `until`: epoch seconds at which
    all this ends, for what goes on longer than a request; None: it does not end by itself.
    """

    client: str = ""
    instances: frozenset[str] | None = None
    toolsets: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    read_only: bool = False
    requests_per_minute: int | None = None
    until: float | None = None

    def allows_instance(self, instance: str) -> bool:
        return self.instances is None or instance in self.instances

    @property
    def allows_every_tool(self) -> bool:
        """No list of toolsets or tools bounds it."""
        return self.toolsets is None and self.tools is None


EVERYTHING = Access()
"""Of callers who need no token of their own: stdio, and a server without tokens."""
