"""Which Host and Origin headers are ours: the guard against DNS rebinding and against pages from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["AllowedHosts"]

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?)\.?(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class AllowedHosts:
    """`allowed`: `name` (any port) or `name:port`."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._ports: dict[str, set[str | None]] = {}
        for entry in allowed:
            matched = _HOST.fullmatch(entry.lower())
            if matched is None:
                raise ValueError(f"not a host name: {entry!r}")
            self._ports.setdefault(matched[1], set()).add(matched[2])

    def answers_for(self, host: str) -> bool:
        """Whether a Host header is one of ours."""
        matched = _HOST.fullmatch(host.lower())
        if matched is None:
            return False
        ports = self._ports.get(matched[1], set())
        return None in ports or matched[2] in ports or (matched[2] is None and not ports.isdisjoint({"80", "443"}))

    def is_home(self, origin: str) -> bool:
        """Whether an Origin header names a page of one of our hosts; `null` does not."""
        scheme, _, host = origin.lower().partition("://")
        default = _DEFAULT_PORTS.get(scheme)
        matched = _HOST.fullmatch(host)
        if default is None or matched is None:
            return False
        ports = self._ports.get(matched[1], set())
        return None in ports or (matched[2] or default) in ports
