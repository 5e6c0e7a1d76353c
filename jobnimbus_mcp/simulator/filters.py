"""The filter grammar: the inside of an Elasticsearch bool query, compiled to a predicate over records.

Source: JobNimbus API documentation, filters. `should` needs a hit only where neither `must` nor `filter` stands beside
it. A field no record has matches nothing. Custom fields are indexed under their `cf_` key, not under their label.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from jobnimbus_mcp.simulator.matching import any_form, as_text, compare, descend, equals, forms, present, values_at
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.settings_seed import CUSTOM_FIELDS
from jobnimbus_mcp.simulator.shapes import Record
from jobnimbus_mcp.simulator.text import Analysis, analysis_of, tokens

__all__ = ["CompiledFilter", "compile_filter"]

Predicate = Callable[[Record], bool]

_LABELS = frozenset(label for fields in CUSTOM_FIELDS.values() for label in fields)
_LINK_PATHS = ("related.id", "primary.id")


@dataclass(frozen=True, slots=True)
class CompiledFilter:
    """`matches` decides; `ids` and `links` (None: no bound known) name the only records worth asking.

    `ids`: jnids that a top-level `must` demands. `links`: ids one of which the record must be linked to.
    `fields`: every path the filter looks at.
    """

    matches: Predicate
    ids: frozenset[str] | None
    links: frozenset[str] | None
    fields: frozenset[str]


def compile_filter(text: str, now: float) -> CompiledFilter:
    """Read the `filter` parameter; `now` (epoch seconds) is what `now-30d` counts from.

    Raises: Refusal 400 for malformed JSON, an unknown clause or a clause of the wrong shape.
    """
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"parse_exception: filter is not valid JSON ({error.msg})") from error
    compiler = _Compiler(now)
    matches = compiler.boolean(body)
    ids, links = _bounds(body)
    return CompiledFilter(matches, ids, links, frozenset(compiler.fields))


class _Compiler:
    def __init__(self, now: float) -> None:
        self._now = now
        self.fields: set[str] = set()

    def boolean(self, body: Any) -> Predicate:
        if not isinstance(body, dict):
            raise _malformed("bool", "an object with must, should or must_not")
        unknown = set(body) - {"must", "should", "must_not", "filter", "minimum_should_match"}
        if unknown:
            raise Refusal(400, f"parse_exception: bool query does not support [{sorted(unknown)[0]}]")
        every = [self.clause(c) for key in ("must", "filter") for c in _clauses(body, key)]
        some = [self.clause(c) for c in _clauses(body, "should")]
        none = [self.clause(c) for c in _clauses(body, "must_not")]
        least = body.get("minimum_should_match", 0 if every or not some else 1)
        if not isinstance(least, int) or isinstance(least, bool):
            raise _malformed("minimum_should_match", "a whole number")

        def matches(record: Record) -> bool:
            if not all(clause(record) for clause in every) or any(clause(record) for clause in none):
                return False
            return least <= 0 or sum(clause(record) for clause in some) >= least

        return matches

    def clause(self, clause: Any) -> Predicate:
        if not isinstance(clause, dict) or len(clause) != 1:
            raise _malformed("clause", "an object with exactly one query")
        ((name, body),) = clause.items()
        if name == "bool":
            return self.boolean(body)
        if name == "match_all":
            return lambda record: True
        if not isinstance(body, dict):
            raise _malformed(name, "an object")
        if name == "nested":
            if not isinstance(body.get("path"), str) or "query" not in body:
                raise _malformed(name, "an object with path and query")
            return self.clause(body["query"])
        if name == "exists":
            return self._exists(body)
        if name == "ids":
            return self._ids(body)
        compile_one = {
            "term": self._term,
            "terms": self._terms,
            "range": self._range,
            "prefix": self._prefix,
            "wildcard": self._wildcard,
            "match": self._match,
            "match_phrase": self._match_phrase,
        }.get(name)
        if compile_one is None:
            raise Refusal(400, f"parse_exception: unknown query [{name}]")
        options = {key: value for key, value in body.items() if key != "boost"}
        if len(options) != 1:
            raise _malformed(name, "an object with exactly one field")
        ((path, argument),) = options.items()
        self.fields.add(path)
        if path in _LABELS:
            return lambda record: False
        return compile_one(path, argument)

    def _term(self, path: str, argument: Any) -> Predicate:
        wanted = _scalar("term", argument, "value")
        return self._any(path, equals(path, [wanted]))

    def _terms(self, path: str, argument: Any) -> Predicate:
        if not isinstance(argument, list):
            raise _malformed("terms", "a list of values")
        return self._any(path, equals(path, [_scalar("terms", value, None) for value in argument]))

    def _range(self, path: str, argument: Any) -> Predicate:
        if not isinstance(argument, dict):
            raise _malformed("range", "an object with gte, gt, lte or lt")
        tests: list[Callable[[Any], bool]] = []
        for key, bound in argument.items():
            if key in ("format", "time_zone", "boost", "relation"):
                continue
            if key not in ("gte", "gt", "lte", "lt"):
                raise Refusal(400, f"parse_exception: range query does not support [{key}]")
            if bound is not None:
                tests.append(compare(path, key, bound, self._now))
        analysis = analysis_of(path)

        def inside(value: Any) -> bool:
            if isinstance(value, bool):
                return False
            if isinstance(value, str):
                return any(all(test(form) for test in tests) for form in forms(value, analysis))
            return all(test(value) for test in tests)

        return self._any(path, inside)

    def _prefix(self, path: str, argument: Any) -> Predicate:
        wanted = _text("prefix", argument, "value")
        return self._any(path, any_form(path, lambda form: form.startswith(wanted)))

    def _wildcard(self, path: str, argument: Any) -> Predicate:
        wanted = _text("wildcard", argument, "value")
        escaped = re.escape(wanted).replace(r"\*", ".*").replace(r"\?", ".")
        pattern = re.compile(escaped, re.DOTALL)
        return self._any(path, any_form(path, lambda form: pattern.fullmatch(form) is not None))

    def _match(self, path: str, argument: Any) -> Predicate:
        wanted = _scalar("match", argument, "query")
        everything = isinstance(argument, dict) and str(argument.get("operator", "or")).lower() == "and"
        if analysis_of(path) is Analysis.KEYWORD or not isinstance(wanted, str):
            return self._any(path, equals(path, [wanted]))
        words = set(tokens(wanted))
        literal = equals(path, [wanted])

        def matches(record: Record) -> bool:
            found: set[str] = set()
            for value in values_at(record, path):
                if isinstance(value, str):
                    found.update(tokens(value))
                elif literal(value):
                    return True
            return bool(words) and (words <= found if everything else not words.isdisjoint(found))

        return matches

    def _match_phrase(self, path: str, argument: Any) -> Predicate:
        wanted = _scalar("match_phrase", argument, "query")
        if analysis_of(path) is Analysis.KEYWORD or not isinstance(wanted, str):
            return self._any(path, equals(path, [wanted]))
        words = tokens(wanted)
        literal = equals(path, [wanted])

        def holds(value: Any) -> bool:
            if not isinstance(value, str):
                return literal(value)
            found = tokens(value)
            return bool(words) and any(
                found[at : at + len(words)] == words for at in range(len(found) - len(words) + 1)
            )

        return self._any(path, holds)

    def _exists(self, body: Mapping[str, Any]) -> Predicate:
        path = body.get("field")
        if not isinstance(path, str):
            raise _malformed("exists", "an object with field")
        self.fields.add(path)
        if path in _LABELS:
            return lambda record: False
        return lambda record: any(True for _ in present(record, path.split(".")))

    def _ids(self, body: Mapping[str, Any]) -> Predicate:
        values = body.get("values")
        if not isinstance(values, list):
            raise _malformed("ids", "an object with values")
        wanted = {str(value) for value in values}
        return lambda record: record["jnid"] in wanted

    def _any(self, path: str, test: Callable[[Any], bool]) -> Predicate:
        if "." not in path:

            def flat(record: Record) -> bool:
                value = record.get(path)
                if value is None:
                    return False
                if isinstance(value, (list, dict)):
                    return any(test(one) for one in descend(value, ()))
                return test(value)

            return flat
        segments = path.split(".")
        return lambda record: any(test(value) for value in descend(record, segments))


def _clauses(body: Mapping[str, Any], key: str) -> list[Any]:
    given = body.get(key, [])
    return given if isinstance(given, list) else [given]


def _scalar(name: str, argument: Any, key: str | None) -> Any:
    if isinstance(argument, dict) and key is not None:
        argument = argument.get(key)
    if argument is None or isinstance(argument, (dict, list)):
        raise _malformed(name, "a plain value")
    return argument


def _text(name: str, argument: Any, key: str) -> str:
    wanted = _scalar(name, argument, key)
    if not isinstance(wanted, str):
        wanted = as_text(wanted)
    return str(wanted)


def _malformed(name: str, wanted: str) -> Refusal:
    return Refusal(400, f"parse_exception: [{name}] must be {wanted}")


def _bounds(body: Mapping[str, Any]) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """Ids and links that a top-level `must` demands, so that not every record need be asked."""
    ids: frozenset[str] | None = None
    links: frozenset[str] | None = None
    for clause in [*_clauses(body, "must"), *_clauses(body, "filter")]:
        ((name, argument),) = clause.items()
        if name == "ids":
            ids = frozenset(map(str, argument["values"]))
        elif name in ("term", "terms"):
            ((path, wanted),) = ((key, value) for key, value in argument.items() if key != "boost")
            if isinstance(wanted, dict):
                wanted = wanted["value"]
            values = frozenset(map(as_text, wanted if isinstance(wanted, list) else [wanted]))
            if path == "jnid":
                ids = values
            elif path in _LINK_PATHS:
                links = values
    return ids, links
