"""One account: its records, and what each write changes, side effects included.

Stored records are never changed in place; a write puts a new one in the old one's stead. So a copy of an account
(`copy.copy`, `copy.deepcopy`) costs a few shallow dict copies, and answers from before a change stay what they were.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.simulator.activity_log import has_moved, log_entries
from jobnimbus_mcp.simulator.dataset import User
from jobnimbus_mcp.simulator.ids import derived_id
from jobnimbus_mcp.simulator.rollups import with_rollups
from jobnimbus_mcp.simulator.search import Searcher
from jobnimbus_mcp.simulator.seed import Seeded
from jobnimbus_mcp.simulator.settings_writes import add_setting, custom_fields_of, seed_unlisted
from jobnimbus_mcp.simulator.shapes import BLANK, KINDS, Record, canonical
from jobnimbus_mcp.simulator.view import View, linked_ids
from jobnimbus_mcp.simulator.writes import normalise

__all__ = ["Account", "Action", "Change"]

Action = Literal["created", "updated", "deleted"]

# How many latest writes an index that lags can undo; beyond these it is as if the index had caught up.
_UNDOABLE_WRITES = 10_000
_STAMPED = ("date_status_change", "date_invoice", "date_payment", "date_materialorder", "date_budget")
_NUMBER_PREFIXES = {"workorders": "WO-", "materialorders": "MO-", "budgets": "B-"}


class Change(NamedTuple):
    """One record that a write touched. `record`: as it is now; of a deletion, as it was last."""

    action: Action
    record: Record


Changes = list[Change]
Rows = list[Record]


class Account:
    """State and reducers. Kinds may be spelled as in the API's paths. Rows and records handed out are new dicts whose
    nested values are shared: do not change those.

    `viewer` is the id of the user whose own records are all that is seen; None sees everything.
    """

    def __init__(self, seeded: Seeded, clock: Clock, *, index_lag_s: float = 0) -> None:
        self.instance = seeded.instance
        self.admin = seeded.admin
        self.restricted_user = seeded.restricted_user
        self.index_lag_s = index_lag_s
        self._clock = clock
        self._seeded = seeded
        self._users = list(seeded.users)
        self._users_updated_s = seeded.day_s
        self._settings: dict[str, Any] = dict(seeded.settings)
        self._unlisted: dict[str, list[Record]] = seed_unlisted()
        self._records = {kind: dict(rows) for kind, rows in seeded.records.items()}
        self._links: dict[tuple[str, str], tuple[str, ...]] = _link_index(self._records)
        self._recid = seeded.recid
        self._numbers = dict(seeded.numbers)
        self._serial = 0
        self._updated_s = 0
        self._writes: deque[tuple[float, str, str, Record | None]] = deque(maxlen=_UNDOABLE_WRITES)
        self._searcher = Searcher()

    def __copy__(self) -> Account:
        twin = object.__new__(Account)
        twin.__dict__.update(self.__dict__)
        twin._users = list(self._users)
        twin._settings = dict(self._settings)
        twin._unlisted = dict(self._unlisted)
        twin._records = {kind: dict(rows) for kind, rows in self._records.items()}
        twin._links = dict(self._links)
        twin._numbers = dict(self._numbers)
        twin._writes = self._writes.copy()
        twin._searcher = Searcher()
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Account:
        return self.__copy__()

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Mapping[str, Any]:
        """What GET /account/settings answers."""
        return self._settings

    def settings_field(self, name: str) -> Any:
        """What `?field=<name>` answers; None: no such part."""
        return self._seeded.groups if name == "groups" else self._settings.get(name)

    @property
    def custom_fields(self) -> Mapping[str, Mapping[str, str]]:
        """Kind of record -> label -> storage key."""
        return custom_fields_of(self._unlisted["customFields"])

    def users(self) -> dict[str, Any]:
        """What GET /account/users answers."""
        rows = [
            {
                "id": user.id,
                "first_name": user.first_name,
                "last_name": user.last_name,
                "email": user.email,
                "image_url": "",
                "calendar_color": f"#{int.from_bytes(user.id[-3:].encode(), 'big'):06X}",
                "is_active": user.is_active,
            }
            for user in self._users
        ]
        return {"users": rows, "date_updated": self._users_updated_s}

    def user(self, user_id: object) -> User | None:
        return next((user for user in self._users if user.id == user_id), None)

    def user_by_email(self, email: str) -> User | None:
        """The first active user with that address, whatever its case."""
        wanted = email.casefold()
        return next((user for user in self._users if user.is_active and user.email.casefold() == wanted), None)

    def user_name(self, user_id: object) -> str | None:
        user = self.user(user_id)
        return None if user is None else user.name

    def records(self, entity: str) -> Iterator[Record]:
        """The live records of a kind, derived fields included."""
        kind = _kind(entity)
        view = self._view(0)
        for record in self._records[kind].values():
            yield with_rollups(kind, record, view.linked)

    def get(self, entity: str, jnid: str, viewer: str | None = None) -> Record | None:
        """The record as it is now (the index's lag does not touch reads by id); None: none that the viewer may see."""
        kind = _kind(entity)
        record = self._records[kind].get(jnid)
        if record is None or (viewer is not None and not _is_own(record, viewer)):
            return None
        return with_rollups(kind, record, self._view(0).linked)

    def find(self, jnid: str) -> Record | None:
        """The live record with that id, of whatever kind, without derived fields."""
        return next((rows[jnid] for rows in self._records.values() if jnid in rows), None)

    def list(
        self, entity: str, params: Mapping[str, str], viewer: str | None = None, *, lag_s: float = 0
    ) -> tuple[int, Rows]:
        """(count of all matches, rows of the page) for a list call's parameters, as the index sees it: as of
        `lag_s` or `index_lag_s` ago, whichever is more.

        Raises: Refusal 400 for a page beyond the window or a filter that cannot be read.
        """
        kind = _kind(entity)
        visible = None if viewer is None else lambda record: _is_own(record, viewer)
        view = self._view(max(lag_s, self.index_lag_s))
        return self._searcher.list(KINDS[kind], params, view, visible, self._clock.now())

    def age_s(self, entity: str, jnid: str) -> float | None:
        """Seconds since the record was created by a recent write; None: it is older than the writes remembered."""
        kind = _kind(entity)
        for at, written_kind, written, before in reversed(self._writes):
            if before is None and written == jnid and written_kind == kind:
                return self._clock.monotonic() - at
        return None

    def text_taken(self, entity: str, field: str, value: str, *, but: str | None = None) -> bool:
        """Whether a live record other than `but` has that text in `field`, whatever its case."""
        wanted = value.casefold()
        return any(
            isinstance(record.get(field), str) and record[field].casefold() == wanted and record["jnid"] != but
            for record in self._records[_kind(entity)].values()
        )

    def _view(self, lag_s: float) -> View:
        undone: dict[str, dict[str, Record | None]] = {}
        if lag_s > 0:
            since = self._clock.monotonic() - lag_s
            for at, kind, jnid, before in reversed(self._writes):
                if at <= since:
                    break
                undone.setdefault(kind, {})[jnid] = before
        return View(self._records, self._links, undone)

    # -- writing ---------------------------------------------------------------------------------------------------

    def create(
        self, entity: str, fields: Mapping[str, Any], *, actor: str | None = None, jnid: str | None = None
    ) -> Changes:
        """Add a record; the first change is the record itself, further ones are what came with it.

        Nothing is checked. `actor`: id of the user it is done as; None: the account's administrator. `jnid`: one made
        by `new_id` beforehand.
        """
        kind, actor = _kind(entity), actor or self.admin
        sent = normalise(kind, fields, self, None)
        fresh: Record = {"owners": [{"id": actor}]} if "owners" in BLANK[kind] else {}
        fresh |= {name: self._stamp() for name in _STAMPED if name in BLANK[kind]}
        created = self._add(kind, {**fresh, **_inherited(kind, sent, self), **sent}, actor, jnid)
        return [created, *self._log(log_entries(kind, None, created.record, self._settings), actor)]

    def update(
        self,
        entity: str,
        jnid: str,
        fields: Mapping[str, Any],
        *,
        actor: str | None = None,
        author: str | None = None,
    ) -> Changes:
        """Merge `fields` into the record (arrays are replaced whole); `is_active` false deletes it. Nothing is checked.

        `author`: id of the user who is to be its creator from now on; None: whoever is stays.

        Raises: KeyError for an id without a live record.
        """
        kind, actor = _kind(entity), actor or self.admin
        before = self._records[kind][jnid]
        if fields.get("is_active") is False:
            return self.delete(kind, jnid, actor=actor)
        now = self._stamp()
        sent = normalise(kind, fields, self, before)
        is_active = before["is_active"] or sent.get("is_active") is True
        after = {**before, **sent, "date_updated": now, "is_active": is_active}
        if author is not None:
            after |= {"created_by": author, "created_by_name": self.user_name(author)}
        if has_moved(before, after):
            after["date_status_change"] = now
            if kind == "estimates":
                _sign(before, after, now)
        self._put(kind, after)
        entries = log_entries(kind, before, after, self._settings)
        return [Change("updated", self._shown(kind, after)), *self._log(entries, actor)]

    def delete(self, entity: str, jnid: str, *, actor: str | None = None) -> Changes:
        """Remove the record from every list and from reads by id. What links to it keeps its link.

        Raises: KeyError for an id without a live record.
        """
        kind = _kind(entity)
        before = self._records[kind][jnid]
        shown = {**self._shown(kind, before), "date_updated": self._stamp(), "is_active": False}
        self._put(kind, before, remove=True)
        entries = log_entries(kind, before, None, self._settings)
        return [Change("deleted", shown), *self._log(entries, actor or self.admin)]

    def change_user(self, user_id: str, **fields: Any) -> None:
        """Rename a user or switch them off (`first_name`, `last_name`, `email`, `is_active`); records keep old names.

        Raises: KeyError for an id without a user.
        """
        at = next((index for index, user in enumerate(self._users) if user.id == user_id), None)
        if at is None:
            raise KeyError(user_id)
        self._users[at] = replace(self._users[at], **fields)
        self._users_updated_s = self._stamp()

    def change_settings(self, name: str, value: Any) -> None:
        """Replace one part of the settings object (`workflows`, `sources`, ...)."""
        self._settings[name] = value

    def add_setting(self, path: str, body: Mapping[str, Any]) -> Record:
        """What a POST to that path under /account makes, or the item of that name that there was.

        Raises: Refusal for what the service would refuse.
        """
        part, value, item = add_setting(path, body, {**self._settings, **self._unlisted})
        if part in self._unlisted:
            self._unlisted[part] = value
        else:
            self._settings[part] = value
        return item

    def new_id(self) -> str:
        """A jnid that no record has."""
        self._serial += 1
        return derived_id(f"{self._seeded.origin}:{self._serial}", int(self._clock.now()) - self._seeded.day_s)

    def _shown(self, kind: str, record: Record) -> Record:
        return with_rollups(kind, record, self._view(0).linked)

    def _stamp(self) -> int:
        """Now, in whole seconds, never before the latest stamp: `date_updated` must not run backwards."""
        self._updated_s = max(self._updated_s, int(self._clock.now()))
        return self._updated_s

    def _next_number(self, kind: str) -> str:
        number = self._numbers[kind]
        self._numbers[kind] = number + 1
        return f"{_NUMBER_PREFIXES.get(kind, '')}{number}"

    def _number_of_job(self, record: Record) -> str | None:
        """Of an invoice: its job's number and how many it is there; None: it is no invoice, or of no job."""
        related = record["related"] if record["type"] == "invoice" and isinstance(record["related"], list) else []
        job = next((one for one in related if isinstance(one, dict) and one.get("type") == "job"), None)
        if job is None:
            return None
        return f"{job.get('number')}-{len(self._links.get(('invoices', job['id']), ())) + 1}"

    def _put(self, kind: str, record: Record, *, remove: bool = False) -> None:
        jnid = record["jnid"]
        before = self._records[kind].get(jnid)
        had = linked_ids(before) if before is not None else frozenset()
        has = frozenset() if remove else linked_ids(record)
        for parent in had - has:
            left = tuple(one for one in self._links[kind, parent] if one != jnid)
            if left:
                self._links[kind, parent] = left
            else:
                del self._links[kind, parent]
        for parent in has - had:
            self._links[kind, parent] = (*self._links.get((kind, parent), ()), jnid)
        if remove:
            del self._records[kind][jnid]
        else:
            self._records[kind][jnid] = record
        self._writes.append((self._clock.monotonic(), kind, jnid, before))
        self._searcher.orders.forget(kind)

    def _log(self, entries: Sequence[Record], actor: str) -> Changes:
        return [self._add("activities", entry, actor) for entry in entries]

    def _add(self, kind: str, fields: Record, actor: str, jnid: str | None = None) -> Change:
        now = self._stamp()
        self._recid += 1
        record = {
            **BLANK[kind],
            **fields,
            "jnid": jnid or self.new_id(),
            "recid": self._recid,
            "customer": self._seeded.customer,
            "created_by": actor,
            "created_by_name": self.user_name(actor),
            "date_created": _whole(fields.get("date_created")) or now,
            "date_updated": now,
            # A product can be made ready before it is sold; nothing else is born deleted.
            "is_active": kind != "products" or fields.get("is_active") is not False,
        }
        if not record.get("number") and kind in self._numbers:
            record["number"] = self._number_of_job(record) or self._next_number(kind)
        self._put(kind, record)
        return Change("created", self._shown(kind, record))


def _kind(entity: str) -> str:
    kind = canonical(entity)
    if kind is None:
        raise KeyError(entity)
    return kind


def _is_own(record: Record, user_id: str) -> bool:
    if "owners" not in record or record.get("sales_rep") == user_id:
        return True
    owners = record.get("owners")
    return isinstance(owners, list) and any(isinstance(one, dict) and one.get("id") == user_id for one in owners)


def _inherited(kind: str, sent: Record, account: Account) -> Record:
    """Owners and sales rep of what an activity, file or payment hangs on, where none were sent."""
    primary = sent.get("primary")
    if kind not in ("activities", "files", "payments") or not isinstance(primary, dict):
        return {}
    parent = account.find(primary["id"])
    return {} if parent is None else {key: parent[key] for key in ("owners", "sales_rep", "sales_rep_name")}


def _sign(before: Record, after: Record, now: int) -> None:
    """An estimate that is sent or approved gets its date, unless the caller gave one."""
    for status, stamped in ((2, "date_sign_requested"), (4, "date_signed")):
        if after.get("status") == status and after.get(stamped) == before.get(stamped):
            after[stamped] = now


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value)


def _link_index(records: Mapping[str, Mapping[str, Record]]) -> dict[tuple[str, str], tuple[str, ...]]:
    index: dict[tuple[str, str], list[str]] = {}
    for kind, rows in records.items():
        for jnid, record in rows.items():
            for parent in linked_ids(record):
                index.setdefault((kind, parent), []).append(jnid)
    return {key: tuple(ids) for key, ids in index.items()}
