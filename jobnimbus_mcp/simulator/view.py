"""What is read at one moment: the live records, with the latest writes undone as far as the index lags behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["Links", "Undone", "View", "linked_ids"]

Links = Mapping[tuple[str, str], tuple[str, ...]]
"""(kind, jnid of the linked-to record) -> jnids of the live records of that kind that link to it."""

Undone = Mapping[str, Mapping[str, Record | None]]
"""Kind -> jnid -> the record as the index still has it; None: the index does not have it yet."""


class View:
    """Read access by kind. Records are shared, not copied: do not change them."""

    def __init__(self, records: Mapping[str, Mapping[str, Record]], links: Links, undone: Undone) -> None:
        self._records = records
        self._links = links
        self._undone = undone

    def is_current(self, kind: str) -> bool:
        """Whether the index has caught up with every write to this kind."""
        return not self._undone.get(kind)

    def get(self, kind: str, jnid: str) -> Record | None:
        """The record as the index has it; None: it has no such record."""
        undone = self._undone.get(kind)
        if undone and jnid in undone:
            return undone[jnid]
        return self._records[kind].get(jnid)

    def all(self, kind: str) -> Iterator[Record]:
        """Every record of the kind, in no promised order."""
        undone = self._undone.get(kind)
        if not undone:
            yield from self._records[kind].values()
            return
        for jnid, record in self._records[kind].items():
            if jnid not in undone:
                yield record
        yield from (record for record in undone.values() if record is not None)

    def linked(self, kind: str, jnid: str) -> Iterable[Record]:
        """The records of `kind` whose `related` or `primary` name `jnid`, and the payments that pay the invoice."""
        ids = self._links.get((kind, jnid), ())
        undone = self._undone.get(kind)
        if not undone:
            records = self._records[kind]
            return [records[one] for one in ids]
        found = [self._records[kind][one] for one in ids if one not in undone]
        found.extend(record for record in undone.values() if record is not None and jnid in linked_ids(record))
        return found


def linked_ids(record: Record) -> frozenset[str]:
    """The ids in `related` and `primary`, whatever shape they were written in, and of a payment its invoices'."""
    related = record.get("related")
    refs = [*(related if isinstance(related, list) else []), record.get("primary")]
    ids = frozenset(ref["id"] for ref in refs if isinstance(ref, dict) and isinstance(ref.get("id"), str))
    paid = record.get("invoices")
    if not isinstance(paid, list) or not paid:
        return ids
    return ids | {one["invoice_id"] for one in paid if isinstance(one, dict) and isinstance(one.get("invoice_id"), str)}
