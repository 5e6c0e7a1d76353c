"""Names in the store: an entry's key, and everything else's, all on one cluster slot per tenant."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["IDENTIFIER_MAX_CHARS", "CacheKey", "entry_glob", "glob_within", "partition_prefix", "system_key"]

IDENTIFIER_MAX_CHARS = 120
"""A longer identifier is replaced by its digest: keys stay readable in a listing and cheap to send."""

_PREFIX = "jobnimbus:{"
_GLOB_LITERAL = str.maketrans({"\\": "\\\\", "[": "\\[", "]": "\\]", "^": "\\^"})


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Whose answer to which question. `identifier` is replaced by its digest here when it is too long.

    `bearer`: whose acceptance by the origin lets a kept answer be shown. Several bearers may share the entries of one
    partition, so it is no part of `text`; left out it is the partition, which then has no other.

    Raises:
        ValueError: an empty field, or one other than `identifier` holds a colon, a brace or a blank.
    """

    tenant: str
    partition: str
    entity: str
    operation: str
    identifier: str
    bearer: str = ""

    def __post_init__(self) -> None:
        head = f"{self.tenant}{self.partition}{self.entity}{self.operation}{self.bearer}"
        if not (self.tenant and self.partition and self.entity and self.operation and self.identifier):
            raise ValueError("a cache key has no empty field")
        if ":" in head or "{" in head or "}" in head or " " in head or not head.isprintable():
            raise ValueError("tenant, partition, entity, operation and bearer hold no colon, brace or blank")
        if not self.bearer:
            object.__setattr__(self, "bearer", self.partition)
        if len(self.identifier) > IDENTIFIER_MAX_CHARS:
            object.__setattr__(self, "identifier", hashlib.sha256(self.identifier.encode()).hexdigest())

    @property
    def text(self) -> str:
        """The key in the store: `jobnimbus:{<tenant>}:<partition>:<entity>:<operation>:<identifier>`."""
        return f"jobnimbus:{{{self.tenant}}}:{self.partition}:{self.entity}:{self.operation}:{self.identifier}"

    @property
    def family(self) -> str:
        """The kind of read: `entity:operation`."""
        return f"{self.entity}:{self.operation}"

    @classmethod
    def parse(cls, text: str) -> CacheKey | None:
        """The key that has this text; None when no key has it."""
        if not text.startswith(_PREFIX):
            return None
        tenant, closed, rest = text[len(_PREFIX) :].partition("}:")
        parts = rest.split(":", 3)
        if not closed or len(parts) != 4 or len(parts[3]) > IDENTIFIER_MAX_CHARS:
            return None
        try:
            return cls(tenant, *parts)
        except ValueError:
            return None


def entry_glob(
    tenant: str, *, partition: str = "*", entity: str = "*", operation: str = "*", identifier: str = "*"
) -> str:
    """A glob over one tenant's entries; only `*` and `?` have a meaning in the four parts, all else is literal."""
    return glob_within(tenant, ":".join((partition, entity, operation, identifier)))


def glob_within(tenant: str, pattern: str) -> str:
    """A glob over one tenant's entries, `pattern` over what follows the tenant in a key; `*` also runs over colons."""
    return f"jobnimbus:{{{tenant}}}:{pattern.translate(_GLOB_LITERAL)}"


def partition_prefix(tenant: str, partition: str) -> str:
    """What the keys of all entries of one partition start with."""
    return f"jobnimbus:{{{tenant}}}:{partition}:"


def system_key(tenant: str, name: str) -> str:
    """The key of anything that is not an entry."""
    return f"jobnimbus-sys:{{{tenant}}}:{name}"
