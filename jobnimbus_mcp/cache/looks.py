"""The round trip that tells what is kept and at which generations; shared by readers who come before it is sent."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from jobnimbus_mcp.cache.codec import CorruptEntry, Entry, decode, peek
from jobnimbus_mcp.cache.holding import Holding
from jobnimbus_mcp.cache.outcome import Lying, Tier
from jobnimbus_mcp.cache.plan import Found, fresh_left_s
from jobnimbus_mcp.cache.ports import Seen, Store, StoreError, Verdict
from jobnimbus_mcp.cache.question import Look, Question
from jobnimbus_mcp.cache.shared_reads import SharedReads
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Looks"]


class Looks:
    """READs. Whoever constructs this closes it."""

    def __init__(self, store: Store, holding: Holding, clock: Clock, recorder: Recorder) -> None:
        self._store = store
        self._holding = holding
        self._clock = clock
        self._recorder = recorder
        self._reads: SharedReads[Seen] = SharedReads()

    async def look(
        self, question: Question, key_text: str, etag: str, call: Call, *, want: bool = True, dirty: bool = False
    ) -> Look:
        """As `Store.read`, with the mark of before.

        Raises:
            StoreError: the store is away; `call` tries it no more.
        """
        store, key, tags = self._store, question.key, question.tags
        # Before the READ is sent, and before another reader's is waited for: what is applied from here on is newer.
        since, asked_at = self._holding.mark(key.tenant), self._clock.monotonic()

        async def send_for_all() -> Seen:
            # Whoever waits has a call of its own; the shared round trip must not depend on one that leaves.
            shared = replace(call)
            try:
                return await store.read(key, tags, etag, want=want, dirty=dirty, call=shared)
            finally:
                call.store_usable = call.store_usable and shared.store_usable

        try:
            seen = await self._reads.read(
                (key_text, key.bearer, etag, want, dirty, tags),
                partial(store.read, key, tags, etag, want=want, dirty=dirty, call=call),
                send_for_all,
            )
        except StoreError:
            call.store_usable = False
            raise
        return Look(seen, since, asked_at)

    def found(self, question: Question, key_text: str, look: Look, held: Entry | None) -> Found | None:
        """The entry that the look found, or `held` when it found that unchanged; None without a readable one.

        What L1 has of a key whose entry is away, dirty or unreadable is let go.
        """
        seen, entry, tier = look.seen, None, Tier.L2
        dirty = seen.verdict is Verdict.DIRTY
        if seen.verdict is Verdict.NOT_MODIFIED and held is not None:
            entry, tier = held, Tier.L1
        elif seen.value is not None and (dirty or seen.verdict is Verdict.HIT):
            try:
                entry = decode(seen.value, key_text=key_text, tags=question.tags)
            except CorruptEntry:
                self._recorder.count("cache_corrupt", entity=question.key.entity)
        elif seen.verdict is Verdict.CORRUPT:
            self._recorder.count("cache_corrupt", entity=question.key.entity)
        if entry is None or dirty:
            self._holding.discard(key_text)
        if entry is None:
            return None
        return Found(entry, tier, fresh_left_s(entry, seen.ttl_s), max(0.0, entry.kept_s - seen.ttl_s), dirty)

    async def lying(self, question: Question, call: Call) -> Lying | None:
        """What lies under the key within its lifetime, good or dirty, while the epoch is that of its fill."""
        if not call.store_usable:
            return None
        key_text = question.key.text
        held = self._holding.entry(key_text, None)
        try:
            look = await self.look(question, key_text, "" if held is None else held.etag, call, dirty=True)
        except StoreError:
            return None
        found, seen = self.found(question, key_text, look, held), look.seen
        if found is None or found.fresh_left_s <= 0:
            return None
        epoch, entry = _epoch(seen.vector), found.entry
        if found.dirty:
            # Only the bytes tell at which epoch they were kept; a valid entry's is the present one.
            head = None if seen.value is None else peek(seen.value)
            if head is None or not epoch or _epoch(head.vector) != epoch:
                return None
        return Lying(
            entry.value,
            entry.negative,
            entry.fetched_at,
            found.fresh_left_s,
            entry.etag,
            found.dirty,
            entry.position,
            epoch,
            self._clock.now() - found.least_age_s,
        )

    async def aclose(self) -> None:
        await self._reads.aclose()


def _epoch(vector: bytes) -> bytes:
    return vector.partition(b"\n")[0]
