"""Lists whose pages or orders differ from the others'."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jobnimbus_mcp.tools.inputs import SortedListArgs, Whole

__all__ = ["FilesArgs", "InvoicesArgs", "PaymentsArgs", "SortByDue", "SortByPayment"]

SortByDue = Literal["date_created", "date_updated", "date_status_change", "date_invoice", "date_due"]
SortByPayment = Literal["date_created", "date_updated", "date_payment"]


class FilesArgs(SortedListArgs):
    """Files are many and their metadata is short."""

    size: Annotated[Whole, Field(ge=1, le=500, description="Files per page.")] = 100


class InvoicesArgs(SortedListArgs):
    """Also in the order in which they fall due."""

    sort_by: SortByDue = "date_created"  # type: ignore[assignment]  # other dates than most kinds have


class PaymentsArgs(SortedListArgs):
    """Also in the order in which they were made."""

    sort_by: SortByPayment = "date_created"  # type: ignore[assignment]  # other dates than most kinds have
