"""Record ids and API keys, made from a seed: the same seed gives the same ones on every machine and day."""

from __future__ import annotations

import hashlib
import random

__all__ = ["derived_id", "key_text", "seeded_guid", "seeded_id"]

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 24
# The time prefix of an id counts from this fixed moment (2026-01-01) plus the record's offset from the seed's day, so
# that ids sort roughly by time, as JobNimbus's do, and yet do not depend on today's date.
_ANCHOR_MS = 1_767_225_600_000
_KEY_LENGTH = 32


def seeded_id(rng: random.Random, offset_s: int) -> str:
    """A 24-character jnid: base-36 milliseconds, then random base-36. `offset_s`: creation, from the seed's day."""
    prefix = _base36(_ANCHOR_MS + offset_s * 1000)
    tail = _base36(rng.getrandbits(96))[-(_ID_LENGTH - len(prefix)) :]
    return prefix + tail.rjust(_ID_LENGTH - len(prefix), "0")


def derived_id(text: str, offset_s: int) -> str:
    """A jnid that is a function of `text`; for records made while running, where no random state is carried along."""
    prefix = _base36(_ANCHOR_MS + offset_s * 1000)
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return prefix + _base36(digest).rjust(_ID_LENGTH, "0")[-(_ID_LENGTH - len(prefix)) :]


def seeded_guid(rng: random.Random) -> str:
    """A GUID with dashes, upper case; the shape of the quoting product's ids and of `guid` fields."""
    digits = f"{rng.getrandbits(128):032X}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def key_text(rng: random.Random) -> str:
    """An API key: 32 lower-case letters and digits."""
    return "".join(rng.choices(_ALPHABET, k=_KEY_LENGTH))


def _base36(number: int) -> str:
    digits = []
    number = max(number, 0)
    while number:
        number, rest = divmod(number, 36)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits)) or "0"
