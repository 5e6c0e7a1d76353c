"""Conditions on records: each knows how JobNimbus is asked, and how a row is checked here.

JobNimbus's `filter` is the inside of an Elasticsearch bool query; unknown fields match nothing, unknown parameters are
ignored without a word, and text fields are tokenised. So every condition can also be checked on the rows that came
back. Source: JobNimbus API documentation, list parameters and filter; production notes of its users.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.crm.payloads import MILLISECONDS_FROM, digits_of, epoch_s, values_at

__all__ = [
    "NEWEST_FIRST",
    "AnyOf",
    "Between",
    "Clause",
    "Is",
    "NameIs",
    "Not",
    "OneOf",
    "PhoneHas",
    "Sort",
    "Where",
    "Word",
    "filter_of",
    "matches",
]

Scalar = str | int | bool

_SET_BY_JOBNIMBUS = frozenset({"date_created", "date_updated", "date_status_change"})
"""Dates nobody else writes, so they are always in seconds."""

_WHOLE_PHONE = 10
"""Digits of a North American number; JobNimbus serves contractors there."""


@dataclass(frozen=True, slots=True)
class Is:
    """`field` equals `value` exactly; for ids, numbers and booleans (JobNimbus's text fields are tokenised)."""

    field: str
    value: Scalar

    def asked(self) -> dict[str, Any]:
        return {"term": {self.field: self.value}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        return any(_same(value, self.value) for value in values_at(row, self.field))

    def form(self) -> list[Any]:
        return ["is", self.field, self.value]


@dataclass(frozen=True, slots=True)
class OneOf:
    """`field` equals one of `values`; at most 100 of them, so that the URL stays short."""

    field: str
    values: tuple[Scalar, ...]

    def asked(self) -> dict[str, Any]:
        return {"terms": {self.field: list(self.values)}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        return any(_same(found, value) for found in values_at(row, self.field) for value in self.values)

    def form(self) -> list[Any]:
        return ["one_of", self.field, sorted(self.values, key=str)]


@dataclass(frozen=True, slots=True)
class NameIs:
    """A text field equals `name` whatever the case: asked by its lower-cased first word, checked whole."""

    field: str
    name: str

    def asked(self) -> dict[str, Any]:
        words = _tokens(self.name)
        clauses = [{"term": {self.field: word}} for word in words]
        return clauses[0] if len(clauses) == 1 else {"bool": {"must": clauses}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        return any(str(value).casefold() == self.name.casefold() for value in values_at(row, self.field))

    def form(self) -> list[Any]:
        return ["name_is", self.field, self.name.casefold()]


@dataclass(frozen=True, slots=True)
class Between:
    """A date field lies in [`at_least`, `at_most`], epoch seconds, both included; None leaves that end open.

    Dates that people or integrations set may be stored in milliseconds: they are asked for in both units, and mean the
    same. `as_stored` asks for the bare number instead, which is how JobNimbus sorts.
    """

    field: str
    at_least: int | None = None
    at_most: int | None = None
    as_stored: bool = False

    def asked(self) -> dict[str, Any]:
        seconds = _range(self.field, self.at_least, self.at_most)
        if self.as_stored or self.field in _SET_BY_JOBNIMBUS:
            return seconds
        if self.at_most is None:
            seconds = _range(self.field, self.at_least, MILLISECONDS_FROM)
        milliseconds = _range(
            self.field,
            max((self.at_least or 0) * 1000, MILLISECONDS_FROM + 1),
            None if self.at_most is None else self.at_most * 1000 + 999,
        )
        return {"bool": {"should": [seconds, milliseconds]}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        for value in values_at(row, self.field):
            moment = value if self.as_stored and isinstance(value, int) else epoch_s(value) or 0
            if (self.at_least is None or moment >= self.at_least) and (self.at_most is None or moment <= self.at_most):
                return True
        return False

    def form(self) -> list[Any]:
        return ["between", self.field, self.at_least, self.at_most, *(["as stored"] if self.as_stored else [])]


@dataclass(frozen=True, slots=True)
class Not:
    """The clause does not hold; a missing field counts as not holding."""

    clause: Clause

    def asked(self) -> dict[str, Any]:
        return {"bool": {"must_not": [self.clause.asked()]}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        return not self.clause.holds(row)

    def form(self) -> list[Any]:
        return ["not", self.clause.form()]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the clauses holds."""

    clauses: tuple[Clause, ...]

    def asked(self) -> dict[str, Any]:
        return {"bool": {"should": [clause.asked() for clause in self.clauses]}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        return any(clause.holds(row) for clause in self.clauses)

    def form(self) -> list[Any]:
        return ["any", sorted((clause.form() for clause in self.clauses), key=str)]


@dataclass(frozen=True, slots=True)
class Word:
    """`word` stands, whatever its case, somewhere in one of the text fields.

    Asked as wildcards over the tokens of each field: a superset, since every run of letters and digits of the word is
    inside one token wherever the word is inside the text.
    """

    word: str
    fields: tuple[str, ...]

    def asked(self) -> dict[str, Any]:
        clauses: list[dict[str, Any]] = []
        for field in self.fields:
            # `number` is a keyword field: case counts there
            for form in (str.lower, str.upper) if field == "number" else (str.lower,):
                runs = [{"wildcard": {field: f"*{form(run)}*"}} for run in dict.fromkeys(_tokens(self.word))]
                made = runs[0] if len(runs) == 1 else {"bool": {"must": runs}}
                if made not in clauses:
                    clauses.append(made)
        return {"bool": {"should": clauses}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        word = self.word.casefold()
        return any(word in str(value).casefold() for field in self.fields for value in values_at(row, field))

    def form(self) -> list[Any]:
        return ["word", self.word.casefold(), list(self.fields)]


@dataclass(frozen=True, slots=True)
class PhoneHas:
    """A phone field contains these digits, however either is punctuated.

    A whole number is asked by its last four digits, which are one token's end in every usual spelling. The digits of a
    part of one may also lie in two groups of three or four: up to three of them in the later group, the rest before.
    """

    digits: str
    fields: tuple[str, ...]

    def asked(self) -> dict[str, Any]:
        return {"bool": {"should": [clause for field in self.fields for clause in self._asked_of(field)]}}

    def _asked_of(self, field: str) -> Iterator[dict[str, Any]]:
        yield {"wildcard": {field: f"*{self.digits[-4:]}*"}}
        if len(self.digits) >= _WHOLE_PHONE:
            return
        for later in range(1, min(4, len(self.digits))):
            ahead = {"wildcard": {field: f"*{self.digits[:-later][-3:]}"}}
            yield {"bool": {"must": [ahead, {"wildcard": {field: f"{self.digits[-later:]}*"}}]}}

    def holds(self, row: Mapping[str, Any]) -> bool:
        return any(self.digits in digits_of(str(value)) for field in self.fields for value in values_at(row, field))

    def form(self) -> list[Any]:
        return ["phone", self.digits, list(self.fields)]


Clause = Is | OneOf | NameIs | Between | Not | AnyOf | Word | PhoneHas
Where = tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Sort:
    """Order of a list: a date field and its direction."""

    field: str = "date_created"
    descending: bool = True


NEWEST_FIRST = Sort()
"""JobNimbus's own default order, always asked for by name."""


def filter_of(where: Where) -> dict[str, Any] | None:
    """The `filter` parameter that asks for `where`, or None when there is nothing to ask."""
    must = [clause.asked() for clause in where if not isinstance(clause, Not)]
    must_not = [clause.clause.asked() for clause in where if isinstance(clause, Not)]
    made = {name: clauses for name, clauses in (("must", must), ("must_not", must_not)) if clauses}
    return made or None


def matches(where: Where, row: Mapping[str, Any]) -> bool:
    """Whether a row satisfies every clause; the check for filters that JobNimbus ignored."""
    return all(clause.holds(row) for clause in where)


def _range(field: str, at_least: int | None, at_most: int | None) -> dict[str, Any]:
    bounds = {"gte": at_least, "lte": at_most}
    return {"range": {field: {name: bound for name, bound in bounds.items() if bound is not None}}}


def _same(found: Any, wanted: Scalar) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return found is wanted
    return str(found) == str(wanted)


def _tokens(text: str) -> list[str]:
    return [token.lower() for token in re.findall(r"[^\W_]+", text)]
