"""The settings table as documentation shows it, taken from the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.settings.model import Settings

__all__ = ["VARIABLES", "Variable"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the settings table as documentation shows it. `default` is empty where nothing is set."""

    name: str
    unit: str
    default: str
    reason: str
    secret: bool


def _shown(default: Any) -> str:
    match default:
        case None | ():
            return ""
        case bool():
            return "true" if default else "false"
        case float():
            return f"{default:g}"
        case tuple():
            return ",".join(default)
        case _:
            return str(default)


def _rows() -> Sequence[Variable]:
    rows = []
    for field in Settings.model_fields.values():
        if field.alias is None or not isinstance(field.json_schema_extra, dict):
            continue
        unit = str(field.json_schema_extra["unit"])
        shown = str(field.json_schema_extra["shown"]) or _shown(field.default)
        secret = unit.startswith("secret") or field.alias == "REDIS_URL"
        rows.append(Variable(field.alias, unit, shown, str(field.description), secret))
    families = {
        "REDIS_URL": (
            Variable(
                "REDIS_URL_<INSTANCE>",
                "URL",
                "",
                "that account's own Redis, with a breaker of its own: the others go on when it fails",
                True,
            ),
        ),
        "JOBNIMBUS_API_KEY": (
            Variable("JOBNIMBUS_API_KEY_<INSTANCE>", "secret", "", "that account's key, e.g. ..._STAMFORD", True),
        ),
        "WEBHOOK_SECRET": (
            Variable("WEBHOOK_SECRET_<INSTANCE>", "secret", "", "opens that account's webhooks alone", True),
        ),
        "CACHE_CONSISTENCY": (
            Variable(
                "CACHE_CONSISTENCY_<ENTITY>",
                "word",
                "",
                "the same for all reads of that kind, e.g. CACHE_CONSISTENCY_PAYMENTS",
                False,
            ),
            Variable(
                "CACHE_CONSISTENCY_<ENTITY>_<OPERATION>",
                "word",
                "",
                "the same for LIST, SEARCH or DETAIL reads of that kind; wins over the one above",
                False,
            ),
            Variable(
                "CACHE_TTL_<ENTITY>",
                "s",
                "",
                "lifetime of all reads of that kind, e.g. CACHE_TTL_JOBS; bounds what no webhook tells of",
                False,
            ),
            Variable(
                "CACHE_TTL_<ENTITY>_<OPERATION>",
                "s",
                "",
                "lifetime of LIST, SEARCH or DETAIL reads of that kind; wins over the one above",
                False,
            ),
        ),
    }
    return [row for first in rows for row in (first, *families.get(first.name, ()))]


VARIABLES: Sequence[Variable] = tuple(_rows())
"""The table in the order of the documentation; `.env.example` and the README are held equal to it by tests."""
