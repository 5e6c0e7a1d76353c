"""What an admin's invalidation is about: tags to bump, wherever that can be said in tags, else entries to look for.

Every entry carries the tags `<entity>`, `<entity>:<operation>` and `<entity>:<operation>:<identifier>`. Entities and
operations are closed lists, so globs over them are spelled out; only a glob over identifiers, or a pattern for one
partition, has to scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.web.params import one_of

__all__ = ["ENTITIES", "OPERATIONS", "Scan", "Tags", "Target", "target_of"]

ENTITIES = tuple(entity.value for entity in Entity)
OPERATIONS = tuple(operation.value for operation in Operation)
_FORMS = {
    "pattern": frozenset({"pattern", "instance"}),
    "entity": frozenset({"entity", "operation", "identifier", "instance"}),
    "tags": frozenset({"tags", "instance"}),
}
_PREFIX = "jobnimbus:"
_MAX_PATTERN = 512
_MAX_TAG = 256
_MAX_TAGS = 100
_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags to bump in each account."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """Globs over the four parts of a key; `*` and `?` have a meaning, all else is literal."""

    partition: str
    entity: str
    operation: str
    identifier: str


@dataclass(frozen=True, slots=True)
class Target:
    """`resource` and `resource_id` name it in the log: one kind of record or "all", one identifier or ""."""

    instances: tuple[str, ...]
    work: Tags | Scan
    resource: str
    resource_id: str


def target_of(body: Mapping[str, Any], instances: Sequence[str]) -> Target:
    """What the body of /cache/invalidate asks for, in one of its three forms.

    Raises:
        InvalidInput: `field` names what is wrong.
    """
    form = _form_of(body)
    instance = one_of(body, "instance", instances)
    chosen = tuple(instances) if instance is None else (instance,)
    match form:
        case "pattern":
            return _of_pattern(_text(body, "pattern", _MAX_PATTERN), chosen, instances)
        case "entity":
            entity = one_of(body, "entity", ENTITIES)
            operation = one_of(body, "operation", OPERATIONS)
            assert entity is not None
            identifier = _text(body, "identifier", _MAX_TAG) if "identifier" in body else None
            operations = OPERATIONS if operation is None else (operation,)
            return Target(chosen, Tags(_tags((entity,), operations, identifier)), entity, identifier or "")
        case _:
            tags = _given_tags(body["tags"])
            kinds = {tag.partition(":")[0].partition("@")[0] for tag in tags}
            return Target(chosen, Tags(tags), _resource(sorted(kinds & set(ENTITIES) if len(kinds) == 1 else ())), "")


def _form_of(body: Mapping[str, Any]) -> str:
    forms = [form for form in _FORMS if form in body]
    if not forms:
        unknown = [name for name in body if name not in ("instance", "operation", "identifier")]
        field = unknown[0][:_MAX_SHOWN] if unknown else "pattern"
        raise InvalidInput("The body needs one of: pattern, entity, tags.", field=field)
    if len(forms) > 1:
        raise InvalidInput(f"Give one of {' and '.join(forms)}, not both.", field=forms[1])
    for name in body:
        if name not in _FORMS[forms[0]]:
            known = ", ".join(sorted(_FORMS[forms[0]]))
            raise InvalidInput(f"Unknown field; with {forms[0]} known: {known}.", field=name[:_MAX_SHOWN])
    return forms[0]


def _of_pattern(pattern: str, chosen: tuple[str, ...], instances: Sequence[str]) -> Target:
    if not pattern.startswith(_PREFIX):
        raise _bad_pattern(f"it must start with {_PREFIX}")
    rest = pattern.removeprefix(_PREFIX)
    partition = "*"
    if rest.startswith("{"):
        name, closed, rest = rest[1:].partition("}:")
        named = tuple(instance for instance in instances if fnmatchcase(instance, _literal(name)))
        if not closed or not named:
            raise _bad_pattern("the braces hold the name of no account served here")
        chosen = tuple(instance for instance in named if instance in chosen)
        if not chosen:
            raise InvalidInput("The pattern is about another account than instance.", field="instance")
        partition, entity, operation, identifier = _segments(rest, 4)
    else:
        entity, operation, identifier = _segments(_without_any(rest), 3)
    entities = _matching(entity, ENTITIES, "kind of record")
    operations = _matching(operation, OPERATIONS, "operation")
    resource, resource_id = _resource(entities), "" if identifier == "*" else identifier
    if partition != "*" or (identifier != "*" and _is_glob(identifier)):
        return Target(chosen, Scan(partition, entity, operation, identifier), resource, resource_id)
    tags = _tags(entities, operations, None if identifier == "*" else identifier)
    return Target(chosen, Tags(tags), resource, resource_id)


def _segments(rest: str, n: int) -> list[str]:
    """The `n` parts of a pattern; a star that ends it stands for all parts that are left out."""
    parts = rest.split(":", n - 1)
    if "" in parts:
        raise _bad_pattern("a part of it is empty")
    if len(parts) < n and not parts[-1].endswith("*"):
        raise _bad_pattern("it names no whole key; end it with :*")
    return parts + ["*"] * (n - len(parts))


def _without_any(rest: str) -> str:
    """`*:*:jobs:list:*` as `jobs:list:*`: leading stars before a kind of record stand for account and partition."""
    parts = rest.split(":")
    for at, part in enumerate(parts):
        if part in ENTITIES:
            return ":".join(parts[at:])
        if part != "*":
            break
    return rest


def _matching(glob: str, names: Sequence[str], what: str) -> tuple[str, ...]:
    found = tuple(name for name in names if fnmatchcase(name, _literal(glob)))
    if not found:
        raise _bad_pattern(f"no {what} matches; there are: {', '.join(names)}")
    return found


def _tags(entities: Sequence[str], operations: Sequence[str], identifier: str | None) -> tuple[str, ...]:
    if identifier is not None:
        return tuple(f"{entity}:{operation}:{identifier}" for entity in entities for operation in operations)
    if len(operations) == len(OPERATIONS):
        return tuple(entities)
    return tuple(f"{entity}:{operation}" for entity in entities for operation in operations)


def _given_tags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_TAGS:
        raise InvalidInput(f"tags must be a list of 1 to {_MAX_TAGS} names.", field="tags")
    for tag in value:
        if not isinstance(tag, str) or not 1 <= len(tag) <= _MAX_TAG or not tag.isprintable():
            raise InvalidInput("Each tag must be a name as /cache/entries shows it.", field="tags")
    return tuple(dict.fromkeys(value))


def _text(body: Mapping[str, Any], name: str, longest: int) -> str:
    value = body[name]
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
        raise InvalidInput(f"{name} must be 1 to {longest} printable characters.", field=name)
    return value


def _resource(entities: Sequence[str]) -> str:
    return entities[0] if len(entities) == 1 else "all"


def _is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def _literal(glob: str) -> str:
    """For fnmatch, to which a bracket is special."""
    return glob.replace("[", "[[]")


def _bad_pattern(why: str) -> InvalidInput:
    return InvalidInput(f"The pattern cannot be used: {why}.", field="pattern")
