"""How fresh an answer must be, chosen for each kind of read."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Mode"]


class Mode(StrEnum):
    """What is promised to a read about invalidations that were acknowledged before it started."""

    STRICT = "strict"
    """None is missed: every hit is validated by a round trip to the store."""
    BARRIER = "barrier"
    """None is missed: L1 is trusted while its lease lasts, and acknowledging waits until every L1 has applied."""
    BOUNDED = "bounded"
    """None older than the L1 lease is missed; nobody waits."""
    ANY = "any"
    """Dirty answers may be given while the new one is fetched, and say so."""

    @property
    def trusts_l1(self) -> bool:
        """Is a value in L1 served without a round trip?"""
        return self is not Mode.STRICT
