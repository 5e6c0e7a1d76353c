"""What an admin's invalidation is about: tags to bump, wherever that can be said in tags, else entries to look for.

Every entry carries the tags `<entity>`, `<entity>:<operation>` and `<entity>:<operation>:<identifier>`. Entities and
operations are closed lists, so globs over whole ones are spelled out; any other glob, such as one over identifiers, for
one partition, or with a star that runs over colons, has to scan.
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
_MAX_PATTERN = 500
_BRACKETS = frozenset("[]{}")
_MAX_TAG = 256
_MAX_TAGS = 100
_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags to bump in each account."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """A glob over `<partition>:<entity>:<operation>:<identifier>`; `*`, also over colons, and `?` have a meaning."""

    pattern: str


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
    if rest.startswith("{"):
        name, closed, rest = rest[1:].partition("}:")
        named = tuple(instance for instance in instances if fnmatchcase(instance, _literal(name)))
        if not closed or not named:
            raise _bad_pattern("the braces hold the name of no account served here")
        chosen = tuple(instance for instance in named if instance in chosen)
        if not chosen:
            raise InvalidInput("The pattern is about another account than instance.", field="instance")
    elif rest:
        rest = f"*:{_without_any(rest)}"
    if not rest:
        raise _bad_pattern("it names nothing")
    if set(rest) & _BRACKETS:
        raise _bad_pattern("brackets have no meaning but around the name of an account")
    said = _said_in_tags(rest)
    return Target(chosen, Scan(rest), *_resource_of(rest)) if said is None else Target(chosen, *said)


def _said_in_tags(pattern: str) -> tuple[Tags, str, str] | None:
    """Tags, resource and its id for a glob as of `Scan`; None where tags cannot say it.

    They can where it is about every partition and every part is whole: a star ends a part or is all of it, and one
    that ends the pattern stands for all parts that are left out.
    """
    if pattern != "*" and not pattern.startswith("*:"):
        return None
    parts = pattern.removeprefix("*:").split(":", 2)
    if len(parts) < 3 and not parts[-1].endswith("*"):
        return None
    entity, operation, identifier = parts + ["*"] * (3 - len(parts))
    if "*" in entity[:-1] or "*" in operation[:-1] or (identifier != "*" and _is_glob(identifier)):
        return None
    entities = [name for name in ENTITIES if fnmatchcase(name, entity)]
    operations = [name for name in OPERATIONS if fnmatchcase(name, operation)]
    if not (entities and operations and identifier):
        return None
    named = None if identifier == "*" else identifier
    return Tags(_tags(entities, operations, named)), _resource(entities), named or ""


def _resource_of(scanned: str) -> tuple[str, str]:
    """What a scan shows in the log: kind of record and identifier where it has the parts of a whole key."""
    parts = scanned.split(":", 3)
    if len(parts) < 4:
        return "all", ""
    kind = parts[1] if parts[1] in ENTITIES else "all"
    return kind, "" if parts[3] == "*" else parts[3]


def _without_any(rest: str) -> str:
    """`*:*:jobs:list:*` as `jobs:list:*`: leading stars before a kind of record stand for account and partition."""
    parts = rest.split(":")
    for at, part in enumerate(parts):
        if part in ENTITIES:
            return ":".join(parts[at:])
        if part != "*":
            break
    return rest


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
