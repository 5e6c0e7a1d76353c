"""How often which API path was called. Bounded: paths beyond the limit are counted together."""

from __future__ import annotations

from collections import Counter

__all__ = ["CallCounter"]

_MOST_PATHS = 20_000
_OTHER = "(other)"


class CallCounter:
    """Counts API calls, refused and failed ones included, by path relative to the API root."""

    def __init__(self) -> None:
        self.total = 0
        self._by_path: Counter[str] = Counter()

    def count(self, path: str) -> None:
        self.total += 1
        known = path in self._by_path or len(self._by_path) < _MOST_PATHS
        self._by_path[path if known else _OTHER] += 1

    def by_path(self) -> dict[str, int]:
        return dict(self._by_path)

    def clear(self) -> None:
        self.total = 0
        self._by_path.clear()
