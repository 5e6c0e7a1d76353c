"""From (seed, instance, scale, day) to the account a simulated JobNimbus starts with, dirty data included."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.simulator.children import seed_children
from jobnimbus_mcp.simulator.dataset import DAY_S, Draft, User, seed_people
from jobnimbus_mcp.simulator.history import seed_note
from jobnimbus_mcp.simulator.ids import key_text, seeded_guid, seeded_id
from jobnimbus_mcp.simulator.money import seed_money
from jobnimbus_mcp.simulator.settings_seed import find_workflow
from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["Seeded", "seed_account", "seed_keys"]

_OVERSIZED_SCALE = 40
_OVERSIZED_ACTIVITIES = 1200
_NUMBERED = {
    "contacts": 2001,
    "jobs": 1001,
    "tasks": 5001,
    "estimates": 1101,
    "workorders": 101,
    "invoices": 9001,
    "materialorders": 51,
    "budgets": 501,
}


@dataclass(frozen=True, slots=True)
class Seeded:
    """Everything an account starts with. The records are shared with the account made of it: never change them.

    `origin`: names the account, for ids of records made later. `numbers`: kind -> number of its next record.
    `admin`: whom the full-access key acts for. `restricted_user`: whose records the other key sees.
    """

    instance: str
    origin: str
    day_s: int
    customer: str
    users: Sequence[User]
    settings: dict[str, Any]
    groups: list[dict[str, Any]]
    records: dict[str, dict[str, Record]]
    recid: int
    numbers: dict[str, int]
    admin: str
    restricted_user: str


def seed_account(seed: int, instance: str, scale: int, day_s: int) -> Seeded:
    """The account `instance`; `day_s` is midnight UTC (epoch seconds) of the day its dates are counted from."""
    origin = f"{seed}:{instance}"
    rng = random.Random(origin)
    draft = Draft(rng, instance, scale, day_s, customer=seeded_id(rng, -1000 * DAY_S))
    seed_people(draft)
    seed_children(draft)
    _soil(draft)
    if scale >= _OVERSIZED_SCALE:
        _overfill(draft)
    seed_money(draft, origin)
    sales = [user.id for user in draft.reps]
    return Seeded(
        instance=instance,
        origin=origin,
        day_s=day_s,
        customer=draft.customer,
        users=tuple(draft.users),
        settings=draft.settings,
        groups=[
            {"name": "Sales", "managers": [draft.users[0].id], "members": sales},
            {"name": "Production", "managers": [draft.users[5].id], "members": [draft.users[5].id]},
        ],
        records=draft.records,
        recid=draft.recid,
        numbers={kind: first + len(draft.records[kind]) for kind, first in _NUMBERED.items()},
        admin=draft.users[0].id,
        restricted_user=draft.users[1].id,
    )


def seed_keys(seed: int, instance: str) -> tuple[str, str]:
    """(full-access key, key of the profile that sees only its own records)."""
    rng = random.Random(f"keys:{seed}:{instance}")
    return key_text(rng), key_text(rng)


def _soil(draft: Draft) -> None:
    """The irregularities that real accounts are full of.

    Source: JobNimbus API documentation, quirks: millisecond dates from integrations, frozen names, free-text numbers,
    author-less records, GUID ids from the quoting product, files without a link, names in odd case.
    """
    jobs = list(draft.records["jobs"].values())
    contacts = list(draft.records["contacts"].values())
    tasks = list(draft.records["tasks"].values())
    by_stage = {stage: [job for job in jobs if draft.stages[job["jnid"]] == stage] for stage in range(8)}

    jobs[5]["number"] = "22-1275"
    jobs[6]["number"] = "R-20417"
    _in_milliseconds(by_stage[3][0], "date_start", "date_end")
    _in_milliseconds(tasks[3], "date_start")
    insured = next(contact for contact in contacts if contact["cf_date_2"])
    _in_milliseconds(insured, "cf_date_2", "Date of Loss")
    contacts[4].update(zip="06902-2114", mobile_phone="(203) 555-0142")
    contacts[9].update(mobile_phone="+1 475 555 0199")
    for record in (contacts[12], contacts[30], jobs[12], tasks[7]):
        record["created_by_name"] = None
    production = find_workflow(draft.settings, "job", "Roofing")
    assert production is not None
    odd = next(job for job in by_stage[4] if job["record_type"] == production["id"])
    odd["status_name"] = "In production"
    by_stage[7][0]["is_archived"] = True
    _rename_a_user(draft, jobs)
    _orphan_and_big_file(draft)
    _quoted_estimate(draft)


def _in_milliseconds(record: Record, *fields: str) -> None:
    for name in fields:
        if record[name]:
            record[name] *= 1000


def _rename_a_user(draft: Draft, jobs: list[Record]) -> None:
    """A rep who married: records older than half a year keep the former name."""
    rep = draft.users[3]
    for job in jobs:
        if job["sales_rep"] == rep.id and job["date_created"] < draft.day_s - 180 * DAY_S:
            job["sales_rep_name"] = f"{rep.first_name} Former-{rep.last_name}"


def _orphan_and_big_file(draft: Draft) -> None:
    files = list(draft.records["files"].values())
    files[2].update(primary=None, related=[], description="Uploaded without a link")
    files[8].update(size=14_680_064, filename="drone-survey.mp4", content_type="video/mp4")


def _quoted_estimate(draft: Draft) -> None:
    """An approved estimate of the embedded quoting product: GUID for an id, its own spelling of the status."""
    estimates = draft.records["estimates"]
    plain = next(record for record in estimates.values() if record["status"] == 4)
    del estimates[plain["jnid"]]
    guid = seeded_guid(draft.rng).lower()
    estimates[guid] = {**plain, "jnid": guid, "source": "sumoquote", "status_name": "approved"}


def _overfill(draft: Draft) -> None:
    """One job with more activities than a list can page through."""
    job = next(job for job in draft.records["jobs"].values() if draft.stages[job["jnid"]] == 7)
    rep = next(user for user in draft.users if user.id == job["sales_rep"])
    mine = [row for row in draft.records["activities"].values() if row["primary"]["id"] == job["jnid"]]
    links = mine[0]["related"]
    for _ in range(_OVERSIZED_ACTIVITIES - len(mine)):
        seed_note(draft, links[0], links, rep, draft.later(job["date_created"] - draft.day_s, 60))
