"""Receipts: what became of a write, kept under its idempotency key, so that the same call again does nothing twice.

    begin   nothing known         -> New: go on
            under way             -> Running: somebody is at it
            carried out           -> Done: what it gave
            sent, end not seen    -> Unknown: look first. Also where whoever was at it has died meanwhile
            of another write      -> Another

Who gets New or Unknown has the key for `lease_s`, and says how it ended by `done`, `unknown` or `forget`; a call that
comes when its lease is over and somebody else has taken the key changes nothing. `others` tells whoever looks for a
record which of those it sees were made under other keys.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import orjson

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Entity

__all__ = [
    "LIFE_S",
    "Another",
    "Done",
    "Keeping",
    "Kept",
    "MemoryReceipts",
    "New",
    "Owner",
    "Receipts",
    "ReceiptsByAccount",
    "RowsKept",
    "Running",
    "Standing",
    "Unknown",
    "decode_kept",
    "digest",
    "encode_kept",
]

LIFE_S = 86_400
"""How long a key is remembered after its last use: whoever repeats a call does so within hours. A week would keep
seven times as many."""

_KEPT_MOST = 10_000
_ROWS_MOST = 32


class Owner(NamedTuple):
    """Whose keys these are: equal keys of two owners have nothing in common."""

    instance: str
    partition: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is remembered of a write that was carried out: enough to tell it again, and no more of the record than its
    id. `part`: of the account's settings, which have no id to be read by, the part itself."""

    entity: Entity
    action: Action
    jnid: str = ""
    changed: tuple[str, ...] = ()
    note: str = ""
    part: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)

    @property
    def made(self) -> str:
        """Id of the record that was made; "" when none was."""
        return self.jnid if self.action is Action.CREATED else ""


@dataclass(frozen=True, slots=True)
class New:
    """Nothing is known of the key; it is the caller's. `token`: what it has it by."""

    token: str


@dataclass(frozen=True, slots=True)
class Running:
    """Somebody is at it, for `retry_after_s` at most."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """It was carried out."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was sent, and how it ended was not seen. The key is the caller's. `began`: when it was first tried, epoch
    seconds of whoever did. `age_s`: since the last moment at which it may have been sent."""

    token: str
    began: float
    age_s: float


@dataclass(frozen=True, slots=True)
class Another:
    """The key belongs to another write."""


Standing = New | Running | Done | Unknown | Another


class Receipts(Protocol):
    """Keys of all accounts. Every method raises CacheUnavailable when the store does not answer."""

    async def begin(self, owner: Owner, key: str, fingerprint: str, now: float, *, lease_s: float) -> Standing:
        """Take the key, or hear what is known of it. `now`: epoch seconds."""
        ...

    async def done(self, owner: Owner, key: str, token: str, kept: Kept) -> None:
        """It was carried out."""
        ...

    async def unknown(self, owner: Owner, key: str, token: str, *, sent: bool) -> None:
        """How it ended was not seen. `sent`: it was sent this time, not only looked for."""
        ...

    async def forget(self, owner: Owner, key: str, token: str) -> None:
        """It was not carried out; the key is as good as new."""
        ...

    async def others(self, owner: Owner, key: str, jnids: Sequence[str]) -> frozenset[str]:
        """Those of the account's records that were made under another key, whoever's that is."""
        ...


class RowsKept(Protocol):
    """The rows of bulk runs, so that a later call can go on with them. Raises CacheUnavailable."""

    async def keep(self, owner: Owner, bulk_id: str, rows: bytes) -> bytes:
        """Keep them, unless there are rows of that id already; what is kept now."""
        ...

    async def kept(self, owner: Owner, bulk_id: str) -> bytes | None:
        """The rows of that id, or None."""
        ...


class Keeping(Receipts, RowsKept, Protocol):
    """Both, as one store keeps them."""


def digest(owner: Owner, key: str) -> str:
    """What a key is kept under: keys are callers' own words, and may say anything."""
    return hashlib.blake2b(f"{owner.partition}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def encode_kept(kept: Kept) -> bytes:
    return orjson.dumps(
        {
            "entity": kept.entity.value,
            "action": kept.action.value,
            "jnid": kept.jnid,
            "changed": kept.changed,
            "note": kept.note,
            "part": kept.part,
        }
    )


def decode_kept(raw: bytes) -> Kept:
    told = orjson.loads(raw)
    return Kept(
        Entity(told["entity"]),
        Action(told["action"]),
        str(told["jnid"]),
        tuple(map(str, told["changed"])),
        str(told["note"]),
        told["part"],
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """`till`: end of the lease of whoever is at it, None when nobody is. `uncertain_at`: when it may last have been
    sent, None when it certainly was not. All monotonic but `began`."""

    fingerprint: str
    token: str
    began: float
    till: float | None
    ends: float
    uncertain_at: float | None = None
    kept: Kept | None = None


class MemoryReceipts:
    """Implements `Keeping` in this process, for the embedded store. Bounded: the oldest go first, those with somebody
    at them last."""

    def __init__(self, clock: Clock, new_token: Callable[[], str], *, most: int = _KEPT_MOST) -> None:
        self._clock = clock
        self._new_token = new_token
        self._most = most
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._rows: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()

    async def begin(self, owner: Owner, key: str, fingerprint: str, now: float, *, lease_s: float) -> Standing:
        at, name = self._clock.monotonic(), (owner.instance, digest(owner, key))
        entry = self._entries.get(name)
        if entry is None or entry.ends <= at:
            taken = _Entry(fingerprint, self._new_token(), now, at + lease_s, at + LIFE_S)
            self._put(name, taken)
            return New(taken.token)
        if entry.fingerprint != fingerprint:
            return Another()
        if entry.kept is not None:
            return Done(entry.kept)
        if entry.till is not None and entry.till > at:
            return Running(entry.till - at)
        uncertain_at = entry.uncertain_at if entry.till is None else entry.till
        taken = replace(entry, token=self._new_token(), till=at + lease_s, ends=at + LIFE_S, uncertain_at=uncertain_at)
        self._put(name, taken)
        return Unknown(taken.token, taken.began, at - (taken.uncertain_at or 0.0))

    async def done(self, owner: Owner, key: str, token: str, kept: Kept) -> None:
        self._ended(owner, key, token, kept=kept)

    async def unknown(self, owner: Owner, key: str, token: str, *, sent: bool) -> None:
        if sent:
            self._ended(owner, key, token, uncertain_at=self._clock.monotonic())
        else:
            self._ended(owner, key, token)

    async def forget(self, owner: Owner, key: str, token: str) -> None:
        name = (owner.instance, digest(owner, key))
        entry = self._entries.get(name)
        if entry is not None and entry.token == token:
            del self._entries[name]

    async def others(self, owner: Owner, key: str, jnids: Sequence[str]) -> frozenset[str]:
        mine, asked = (owner.instance, digest(owner, key)), frozenset(jnids)
        made = {
            entry.kept.made
            for name, entry in self._entries.items()
            if entry.kept is not None and name[0] == owner.instance and name != mine
        }
        return asked & made

    async def keep(self, owner: Owner, bulk_id: str, rows: bytes) -> bytes:
        at = self._clock.monotonic()
        known = await self.kept(owner, bulk_id)
        name = (owner.instance, digest(owner, bulk_id))
        self._rows[name] = (at + LIFE_S, rows if known is None else known)
        self._rows.move_to_end(name)
        while len(self._rows) > _ROWS_MOST:
            self._rows.popitem(last=False)
        return self._rows[name][1]

    async def kept(self, owner: Owner, bulk_id: str) -> bytes | None:
        ends, rows = self._rows.get((owner.instance, digest(owner, bulk_id)), (0.0, b""))
        return rows if ends > self._clock.monotonic() else None

    def _ended(self, owner: Owner, key: str, token: str, **changes: Any) -> None:
        name = (owner.instance, digest(owner, key))
        entry = self._entries.get(name)
        if entry is not None and entry.token == token:
            ends = self._clock.monotonic() + LIFE_S
            self._put(name, replace(entry, token="", till=None, ends=ends, **changes))

    def _put(self, name: tuple[str, str], entry: _Entry) -> None:
        self._entries[name] = entry
        self._entries.move_to_end(name)
        if len(self._entries) > self._most:
            at = self._clock.monotonic()
            idle = (name for name, one in self._entries.items() if one.till is None or one.till <= at)
            del self._entries[next(idle, next(iter(self._entries)))]


class ReceiptsByAccount:
    """The receipts of accounts with different stores, as one; `stores`: account -> its own or a shared one."""

    def __init__(self, stores: Mapping[str, Keeping]) -> None:
        self._stores = dict(stores)

    async def begin(self, owner: Owner, key: str, fingerprint: str, now: float, *, lease_s: float) -> Standing:
        return await self._stores[owner.instance].begin(owner, key, fingerprint, now, lease_s=lease_s)

    async def done(self, owner: Owner, key: str, token: str, kept: Kept) -> None:
        await self._stores[owner.instance].done(owner, key, token, kept)

    async def unknown(self, owner: Owner, key: str, token: str, *, sent: bool) -> None:
        await self._stores[owner.instance].unknown(owner, key, token, sent=sent)

    async def forget(self, owner: Owner, key: str, token: str) -> None:
        await self._stores[owner.instance].forget(owner, key, token)

    async def others(self, owner: Owner, key: str, jnids: Sequence[str]) -> frozenset[str]:
        return await self._stores[owner.instance].others(owner, key, jnids)

    async def keep(self, owner: Owner, bulk_id: str, rows: bytes) -> bytes:
        return await self._stores[owner.instance].keep(owner, bulk_id, rows)

    async def kept(self, owner: Owner, bulk_id: str) -> bytes | None:
        return await self._stores[owner.instance].kept(owner, bulk_id)
