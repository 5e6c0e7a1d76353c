"""Secrets out of the settings: the one place that reveals them, on their way to whoever compares or sends them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

__all__ = ["all_revealed", "revealed", "some"]


def revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def some(secret: SecretStr | None) -> tuple[str, ...]:
    """One secret as a tuple, none as an empty one."""
    return () if secret is None else (secret.get_secret_value(),)


def all_revealed(secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    return {name: secret.get_secret_value() for name, secret in secrets.items()}
