"""One read's question, and what answers it at the origin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from jobnimbus_mcp.cache.admission import Admit
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Loaded
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import Seen
from jobnimbus_mcp.call import Call

__all__ = ["Errand", "Loader", "Look", "Question"]

Loader = Callable[[Call], Awaitable[Loaded]]
"""Asks the origin. What it raises is never kept and reaches everybody who waited for it."""


@dataclass(frozen=True, slots=True)
class Question:
    """One read: where its answer is kept, what makes it dirty, for how long it is good, and what is promised of it.

    `tags` are all known before the read, and hold no line break. `settles`: names of floors; while a change told one of
    them lately, the origin may still answer with what was before.
    """

    key: CacheKey
    tags: tuple[str, ...]
    policy: Policy
    mode: Mode = Mode.STRICT
    settles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """One READ's answer, and what was true before it was sent: the coherence mark, and the time (monotonic)."""

    seen: Seen
    since: int
    asked_at: float


@dataclass(frozen=True, slots=True)
class Errand:
    """One load to be made, or to be joined.

    `look` None: the store was not looked at. `replaces`: etag of the entry that is not good enough, "" none. `patient`:
    the reader has something to serve meanwhile. `oldest`: wall seconds before which no fetch may have begun that
    answers it, None any. `alone`: joins no other load.
    """

    question: Question
    key_text: str
    loader: Loader
    call: Call
    look: Look | None
    admit: Admit | None = None
    replaces: str = ""
    patient: bool = False
    max_age_s: float | None = None
    oldest: float | None = None
    alone: bool = False
