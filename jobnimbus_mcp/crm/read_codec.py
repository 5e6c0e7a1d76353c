"""A `Read` as one JSON object and back, for whoever keeps questions outside the process.

What a question holds is the account's (names, phone numbers), so the text is as private as an answer: it may be a value
in a store, never a key, a log line or a metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import orjson

from jobnimbus_mcp.crm.entities import Entity, is_jnid
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Is, NameIs, Not, OneOf, PhoneHas, Scalar, Sort, Word
from jobnimbus_mcp.crm.reads import SCAN_ROWS_MAX, Operation, Read, Shape

__all__ = ["decode_read", "encode_read"]

_VERSION = 1

_DEPTH_MAX = 8
"""Of clauses within clauses. Ours have two; what is damaged must not exhaust the stack."""

T = TypeVar("T")


def encode_read(read: Read) -> bytes:
    """The question as JSON: equal bytes for equal questions that name their clauses in the same order.

    Raises:
        ValueError: it holds what JSON does not, such as half of a surrogate pair, or clauses nested too deep.
    """
    told: dict[str, Any] = {
        "v": _VERSION,
        "entity": read.entity.value,
        "operation": read.operation.value,
        "shape": read.shape.value,
        "record": read.record_id,
        "where": [_written(clause, _DEPTH_MAX) for clause in read.where],
        "sort": [read.sort.field, read.sort.descending],
        "offset": read.offset,
        "size": read.size,
        "scope": sorted(read.scope),
    }
    if read.part:
        told["part"] = read.part
    try:
        return orjson.dumps(told)
    except TypeError as error:
        raise ValueError("not to be written as JSON") from error


def decode_read(raw: bytes | str) -> Read:
    """The question of `encode_read`.

    Raises:
        ValueError: it is damaged, or of a version that is not understood.
    """
    told = orjson.loads(raw)
    if not isinstance(told, dict) or told.get("v") != _VERSION:
        raise ValueError("no question, or of another version")
    try:
        shape = Shape(told["shape"])
        field, descending = _list(told["sort"])
        read = Read(
            Entity(told["entity"]),
            Operation(told["operation"]),
            shape,
            record_id=_text(told["record"]),
            where=tuple(_read(clause, _DEPTH_MAX) for clause in _list(told["where"])),
            sort=Sort(_text(field), _of(bool, descending)),
            offset=_number(told["offset"]),
            size=_number(told["size"]),
            scope=frozenset(_text(parent) for parent in _list(told["scope"])),
            part=_text(told.get("part", "")),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("no question") from error
    # it becomes a request: a record's id is part of the path there, and the rows asked for are bounded
    if (shape is Shape.RECORD) != bool(read.record_id) or (read.record_id and not is_jnid(read.record_id)):
        raise ValueError("no record's id")
    if read.offset < 0 or not 0 < read.size <= SCAN_ROWS_MAX:
        raise ValueError("no such rows")
    return read


def _written(clause: Clause, depth: int) -> list[Any]:
    if depth == 0:
        raise ValueError("nested too deep")
    match clause:
        case Is(field, value):
            return ["is", field, value]
        case OneOf(field, values):
            return ["one_of", field, values]
        case NameIs(field, name):
            return ["name_is", field, name]
        case Between(field, at_least, at_most, as_stored):
            return ["between", field, at_least, at_most, as_stored]
        case Not(inner):
            return ["not", _written(inner, depth - 1)]
        case AnyOf(clauses):
            return ["any_of", [_written(inner, depth - 1) for inner in clauses]]
        case Word(word, fields):
            return ["word", word, fields]
        case PhoneHas(digits, fields):
            return ["phone_has", digits, fields]


def _read(written: Any, depth: int) -> Clause:
    if depth == 0:
        raise ValueError("nested too deep")
    kind, *parts = _list(written)
    if kind == "not":
        (inner,) = parts
        return Not(_read(inner, depth - 1))
    if kind == "any_of":
        (clauses,) = parts
        return AnyOf(tuple(_read(inner, depth - 1) for inner in _list(clauses)))
    if not isinstance(kind, str) or kind not in _PLAIN:
        raise ValueError("no clause of ours")
    return _PLAIN[kind](*parts)


def _is(field: Any, value: Any) -> Is:
    return Is(_text(field), _scalar(value))


def _one_of(field: Any, values: Any) -> OneOf:
    return OneOf(_text(field), tuple(_scalar(value) for value in _list(values)))


def _name_is(field: Any, name: Any) -> NameIs:
    return NameIs(_text(field), _text(name))


def _between(field: Any, at_least: Any, at_most: Any, as_stored: Any) -> Between:
    low = None if at_least is None else _number(at_least)
    high = None if at_most is None else _number(at_most)
    return Between(_text(field), low, high, _of(bool, as_stored))


def _word(word: Any, fields: Any) -> Word:
    return Word(_text(word), tuple(_text(field) for field in _list(fields)))


def _phone_has(digits: Any, fields: Any) -> PhoneHas:
    return PhoneHas(_text(digits), tuple(_text(field) for field in _list(fields)))


_PLAIN: Mapping[str, Callable[..., Clause]] = MappingProxyType(
    {
        "is": _is,
        "one_of": _one_of,
        "name_is": _name_is,
        "between": _between,
        "word": _word,
        "phone_has": _phone_has,
    }
)
"""Clauses that hold no other; another number of parts than theirs is a TypeError."""


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise ValueError("another kind of value")
    return value


def _text(value: Any) -> str:
    return _of(str, value)


def _list(value: Any) -> list[Any]:
    return _of(list, value)


def _number(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("another kind of value")
    return _of(int, value)


def _scalar(value: Any) -> Scalar:
    return value if isinstance(value, (str, bool)) else _number(value)
