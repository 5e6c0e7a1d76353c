"""What a value must look like. The messages never repeat the value: it may be a secret in the wrong place."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from jobnimbus_mcp.cache.address import parse
from jobnimbus_mcp.gateway.access import TOOLSETS

__all__ = [
    "SECRET_LENGTH_MIN",
    "ApiKey",
    "Hosts",
    "HttpUrl",
    "Lowered",
    "Secret",
    "check_api_key",
    "check_groups",
    "check_hosts",
    "check_http_url",
    "check_instances",
    "check_log_level",
    "check_redis_url",
    "check_secret",
    "check_toolsets",
    "listed",
    "suffix",
]

SECRET_LENGTH_MIN = 16
"""Shorter secrets can be guessed over the network; random ones of this length cannot."""

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_API_KEY = re.compile(r"[A-Za-z0-9_-]{16,256}")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_HOST = re.compile(r"(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?)(?::\d{1,5})?")


def listed(value: Any) -> Any:
    """A comma-separated text as a tuple without blanks; anything else as it is."""
    if isinstance(value, str):
        return tuple(part for item in value.split(",") if (part := item.strip()))
    return value


def check_instances(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("name at least one account")
    if not all(_INSTANCE.fullmatch(name) for name in names):
        raise ValueError(
            "names are 1 to 32 lower-case letters, digits, - or _, the first a letter or digit, separated by commas"
        )
    if len({suffix(name) for name in names}) < len(names):
        raise ValueError("every name must be different, - and _ counting as the same")
    return names


def check_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < SECRET_LENGTH_MIN:
        raise ValueError(f"must have at least {SECRET_LENGTH_MIN} characters")
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("must be printable ASCII without blanks, or no header could carry it")
    return value


def check_api_key(value: SecretStr) -> SecretStr:
    if not _API_KEY.fullmatch(value.get_secret_value()):
        raise ValueError("a JobNimbus key is 16 to 256 letters, digits, - or _")
    return value


def check_http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an http:// or https:// URL without user, query or fragment")
    return value.rstrip("/")


def check_redis_url(value: SecretStr) -> SecretStr:
    try:
        parse(value.get_secret_value())
    except ValueError as wrong:
        raise ValueError(
            f"must be redis://, rediss://, unix://, or one for Sentinels or a cluster; what is set {wrong}"
        ) from None
    return value


def check_hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    lowered = tuple(value.lower() for value in values)
    if not all(_HOST.fullmatch(value) for value in lowered):
        raise ValueError("must be host names (host or host:port), separated by commas, without scheme or path")
    return lowered


def check_groups(values: tuple[str, ...]) -> tuple[str, ...]:
    for group in values:
        digests = group.split("+")
        if len(digests) < 2 or not all(_DIGEST.fullmatch(digest) for digest in digests):
            raise ValueError(
                "write groups of digests as `jobnimbus-mcp doctor` prints them, joined by +, groups separated by commas"
            )
    return values


def check_toolsets(names: tuple[str, ...]) -> tuple[str, ...]:
    lowered = tuple(name.lower() for name in names)
    if not lowered or not {*lowered} <= {*TOOLSETS, "default", "all"}:
        raise ValueError(f"must be some of default, {', '.join(TOOLSETS)}, all, separated by commas")
    return lowered


def check_log_level(value: Any) -> Any:
    lowered = value.lower() if isinstance(value, str) else value
    return "warning" if lowered == "warn" else lowered


Secret = Annotated[SecretStr, AfterValidator(check_secret)]
ApiKey = Annotated[SecretStr, AfterValidator(check_api_key)]
HttpUrl = Annotated[str, AfterValidator(check_http_url)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(check_hosts)]
Lowered = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def suffix(instance: str) -> str:
    """How an account's name ends the name of a variable."""
    return instance.upper().replace("-", "_")
