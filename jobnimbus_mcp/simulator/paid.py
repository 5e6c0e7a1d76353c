"""What payments make of the invoices they name: paid, still due, and since when.

Source: JobNimbus API documentation, payments: what counts is `total` less `refunded_amount`. That a refund first eats
up what was applied to no invoice is a guess.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["PAID_FIELDS", "amount", "applied", "paid_fields", "plain", "unapplied"]

PAID_FIELDS = frozenset({"total_paid", "due", "date_paid_in_full", "first_payment_date", "payments"})


def amount(value: object) -> float:
    """A sum of money, or any other number, as it is; 0 for what is none."""
    return value if isinstance(value, (int, float)) else 0


def unapplied(payment: Mapping[str, Any]) -> float:
    """The credit that is left of it: what no invoice got and nobody got back."""
    named = sum(amount(entry.get("amount")) for entry in _entries(payment))
    return max(0, amount(payment.get("total")) - named - amount(payment.get("refunded_amount")))


def applied(payment: Mapping[str, Any], invoice_id: str) -> float:
    """What the invoice got of the payment."""
    entries = _entries(payment)
    named = sum(amount(entry.get("amount")) for entry in entries)
    refunded = max(0, amount(payment.get("refunded_amount")) - max(0, amount(payment.get("total")) - named))
    got: float = 0
    for entry in entries:
        kept = max(0, amount(entry.get("amount")) - refunded)
        refunded -= amount(entry.get("amount")) - kept
        if entry.get("invoice_id") == invoice_id:
            got += kept
    return got


def paid_fields(invoice: Mapping[str, Any], payments: Iterable[Record]) -> Record:
    """The `PAID_FIELDS` of an invoice; `payments` are the live ones that name it."""
    total, paid, in_full = amount(invoice.get("total")), 0.0, 0.0
    came = sorted(payments, key=lambda payment: (amount(payment.get("date_payment")), payment["recid"]))
    shown = []
    first: float = 0
    for payment in came:
        got = applied(payment, invoice["jnid"])
        if not got:
            continue
        date = amount(payment.get("date_payment"))
        first = first or date
        in_full = date if paid < total <= paid + got else in_full
        paid += got
        shown.append({"jnid": payment["jnid"], "amount": got, "is_active": True})
    return {
        "date_paid_in_full": in_full,
        "first_payment_date": first,
        "total_paid": plain(paid),
        "due": plain(total - paid),
        "payments": shown,
    }


def _entries(payment: Mapping[str, Any]) -> list[Record]:
    entries = payment.get("invoices")
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("is_active") is not False]


def plain(value: float) -> float:
    """In whole cents; whole amounts as whole numbers. What cannot be rounded is 0."""
    if not math.isfinite(value):
        return 0
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded
