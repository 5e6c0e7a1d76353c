"""The fuzzy `search` parameter of contacts and jobs: any word may match, a near miss counts too, best rows first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from jobnimbus_mcp.simulator.matching import values_at
from jobnimbus_mcp.simulator.shapes import Record
from jobnimbus_mcp.simulator.text import tokens

__all__ = ["SEARCHED", "Relevance"]

# Kind -> path -> weight. Kinds that are not here ignore the parameter, as they ignore any unknown one.
SEARCHED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "contacts": {
            "display_name": 2,
            "first_name": 2,
            "last_name": 2,
            "company": 2,
            "email": 1.5,
            "home_phone": 1,
            "mobile_phone": 1,
            "work_phone": 1,
            "number": 1.5,
            "address_line1": 1,
            "city": 1,
            "description": 0.5,
        },
        "jobs": {
            "name": 2,
            "number": 1.5,
            "primary.name": 1.5,
            "primary.email": 1,
            "address_line1": 1,
            "city": 1,
            "description": 0.5,
        },
    }
)

_EXACT, _PREFIX, _NEAR = 3.0, 1.5, 1.0
_SHORTEST_FUZZY = 4


class Relevance:
    """Scores records of one kind. Keeps each record's words; entries of records that changed or went are dropped."""

    def __init__(self, kind: str) -> None:
        self._weights = SEARCHED[kind]
        self._words: dict[str, tuple[Record, Mapping[str, float]]] = {}

    def rank(self, text: str, records: Iterable[Record]) -> list[tuple[float, Record]]:
        """(score, record) of every record that some word of `text` matches; in the order given."""
        asked = tokens(text)
        scores: list[dict[str, float]] = [{} for _ in asked]
        kept: dict[str, tuple[Record, Mapping[str, float]]] = {}
        found: list[tuple[float, Record]] = []
        for record in records:
            jnid = record["jnid"]
            known = self._words.get(jnid)
            if known is None or known[0] is not record:
                known = (record, self._words_of(record))
            kept[jnid] = known
            total = 0.0
            for word, cache in zip(asked, scores, strict=True):
                best = 0.0
                for token, weight in known[1].items():
                    score = cache.get(token)
                    if score is None:
                        score = cache[token] = _likeness(word, token)
                    if score and score * weight > best:
                        best = score * weight
                total += best
            if total > 0:
                found.append((total, record))
        self._words = kept
        return found

    def _words_of(self, record: Record) -> Mapping[str, float]:
        words: dict[str, float] = {}
        for path, weight in self._weights.items():
            for value in values_at(record, path):
                for token in tokens(str(value)):
                    words[token] = max(weight, words.get(token, 0))
        return words


def _likeness(word: str, token: str) -> float:
    if word == token:
        return _EXACT
    if token.startswith(word):
        return _PREFIX
    if len(word) >= _SHORTEST_FUZZY and abs(len(word) - len(token)) <= 1 and _one_edit_apart(word, token):
        return _NEAR
    return 0.0


def _one_edit_apart(one: str, other: str) -> bool:
    if len(one) > len(other):
        one, other = other, one
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) == len(other):
        return one[at + 1 :] == other[at + 1 :]
    return one[at:] == other[at + 1 :]
