"""Which credentials JobNimbus accepts, as far as this process has seen: digests, never the credentials themselves."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

__all__ = ["KNOWN_MAX", "KnownKeys"]

KNOWN_MAX = 4_096
"""Most credentials remembered besides the trusted ones: more than ask one process, in under a megabyte."""


class KnownKeys:
    """Pairs of account and credential. At most `most` accepted ones are kept; the longest unused goes first.

    `trusted` are known from the start and never make room; they too are unknown between a refusal and the next
    acceptance.
    """

    def __init__(self, trusted: Iterable[tuple[str, str]] = (), *, most: int = KNOWN_MAX) -> None:
        if most < 1:
            raise ValueError("most must be at least 1")
        self._most = most
        self._trusted = {_digest(instance, credential): True for instance, credential in trusted}
        self._accepted: OrderedDict[bytes, None] = OrderedDict()

    def knows(self, instance: str, credential: str) -> bool:
        """Whether JobNimbus accepted it last time, or it is trusted and was not refused since."""
        digest = _digest(instance, credential)
        if digest in self._accepted:
            self._accepted.move_to_end(digest)
            return True
        return self._trusted.get(digest, False)

    def accepted(self, instance: str, credential: str) -> None:
        """JobNimbus answered a question asked with it."""
        digest = _digest(instance, credential)
        if digest in self._trusted:
            self._trusted[digest] = True
            return
        self._accepted[digest] = None
        self._accepted.move_to_end(digest)
        if len(self._accepted) > self._most:
            self._accepted.popitem(last=False)

    def refused(self, instance: str, credential: str) -> None:
        """JobNimbus answered 401."""
        digest = _digest(instance, credential)
        self._accepted.pop(digest, None)
        if digest in self._trusted:
            self._trusted[digest] = False

    def __len__(self) -> int:
        return len(self._trusted) + len(self._accepted)


def _digest(instance: str, credential: str) -> bytes:
    return hashlib.sha256(f"{instance}\0{credential}".encode(errors="surrogatepass")).digest()
