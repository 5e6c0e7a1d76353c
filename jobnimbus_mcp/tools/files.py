"""Files: what only they can be asked for."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.filters import Condition, Filter, Given

__all__ = ["FILE_TYPE", "is_of_type"]


async def _file_type(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    wanted: str = given["file_type"]
    return Condition(keep=lambda row: is_of_type(row, wanted))


FILE_TYPE = Filter(
    {
        "file_type": Annotated[
            str | None,
            Field(
                pattern=r"^\.?[A-Za-z0-9]{1,10}$|^[A-Za-z][A-Za-z0-9.+-]{0,39}/([A-Za-z0-9][A-Za-z0-9.+-]{0,79}|\*)$",
                description="Extension (pdf, jpg) or MIME type (image/jpeg, image/*).",
            ),
        ]
    },
    _file_type,
)


def is_of_type(row: Mapping[str, Any], wanted: str) -> bool:
    """Whether a file has this extension or MIME type (`image/*` for a family); spellings of one type are equal."""
    wanted = wanted.lower().lstrip(".")
    content_type = str(row.get("content_type") or "").lower().split(";")[0].strip()
    if "/" in wanted:
        return content_type.startswith(wanted[:-1]) if wanted.endswith("/*") else content_type == wanted
    if str(row.get("filename") or "").lower().endswith(f".{wanted}"):
        return True
    guessed, _ = mimetypes.guess_type(f"x.{wanted}")
    return guessed is not None and guessed == content_type
