"""The variables whose names hold an account or a kind of record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import SecretStr

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.settings.checks import check_api_key, check_redis_url, check_secret, listed, suffix

__all__ = ["TTL_MAX_S", "Families"]

_T = TypeVar("_T")

TTL_MAX_S = 86_400
"""A lifetime only bounds what no event tells of: beyond a day it would no longer bound anything."""

_ENTITIES = tuple(entity.value for entity in Entity)
_OPERATIONS = tuple(operation.value for operation in Operation)


class Families:
    """The variables whose names hold an instance or a kind of record."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.mistakes: list[str] = []
        names: tuple[str, ...] = listed(given.get("JOBNIMBUS_INSTANCES", "default"))
        self._instances = {suffix(name): name for name in names}
        self.api_keys = self._per_instance(given, "JOBNIMBUS_API_KEY_", check_api_key)
        self.webhook_secrets = self._per_instance(given, "WEBHOOK_SECRET_", check_secret)
        self.redis_urls = self._per_instance(given, "REDIS_URL_", check_redis_url)
        self.ttl_overrides = self._per_kind(given, "CACHE_TTL_", _lifetime)
        self.consistency_overrides = self._per_kind(given, "CACHE_CONSISTENCY_", _mode)
        if plain := given.get("JOBNIMBUS_API_KEY"):
            if len(names) == 1:
                # a malformed one is reported by the table's own row
                self.api_keys.setdefault(names[0], SecretStr(plain))
            else:
                self.mistakes.append(
                    "JOBNIMBUS_API_KEY: several accounts are served, so give each its own as "
                    + " and ".join(f"JOBNIMBUS_API_KEY_{suffix(name)}" for name in names)
                )

    def _per_instance(self, given: Mapping[str, str], prefix: str, check: Any) -> dict[str, SecretStr]:
        found: dict[str, SecretStr] = {}
        for name, value in given.items():
            if not name.startswith(prefix):
                continue
            instance = self._instances.get(name.removeprefix(prefix))
            if instance is None:
                self.mistakes.append(f"{name}: JOBNIMBUS_INSTANCES names no such account")
                continue
            try:
                found[instance] = check(SecretStr(value))
            except ValueError as wrong:
                self.mistakes.append(f"{name}: {wrong}")
        return found

    def _per_kind(
        self, given: Mapping[str, str], prefix: str, understood: Callable[[str], _T]
    ) -> dict[tuple[str, str | None], _T]:
        found: dict[tuple[str, str | None], _T] = {}
        for name, value in given.items():
            if not name.startswith(prefix):
                continue
            entity, underscore, operation = name.removeprefix(prefix).lower().partition("_")
            if entity not in _ENTITIES or (underscore and operation not in _OPERATIONS):
                kinds = ", ".join(_ENTITIES).upper()
                self.mistakes.append(
                    f"{name}: write {prefix}<ENTITY> or {prefix}<ENTITY>_<OPERATION>, the entity one of {kinds}, "
                    f"the operation one of {', '.join(_OPERATIONS).upper()}"
                )
                continue
            try:
                found[entity, operation or None] = understood(value)
            except ValueError as wrong:
                self.mistakes.append(f"{name}: {wrong}")
        return found


def _lifetime(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", value) or not 1 <= int(value) <= TTL_MAX_S:
        raise ValueError(f"must be a whole number of seconds from 1 to {TTL_MAX_S}")
    return int(value)


def _mode(value: str) -> Mode:
    try:
        return Mode(value.lower())
    except ValueError:
        raise ValueError("must be strict, barrier, bounded or any") from None
