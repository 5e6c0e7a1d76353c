"""A seeded account of a roofing contractor: users, contacts and jobs; `children.py` adds what hangs on them.

The same (seed, instance, scale) gives the same ids, names and numbers everywhere; dates are fixed offsets from `day_s`,
the start of the day the account was made on, so that calendars and overdue tasks stay alive.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from jobnimbus_mcp.simulator.ids import seeded_id
from jobnimbus_mcp.simulator.names import (
    CARRIERS,
    COLORS,
    DESCRIPTIONS,
    FIRST_NAMES,
    JOB_KINDS,
    LAST_NAMES,
    STREETS,
    TOWNS,
    TRADES,
)
from jobnimbus_mcp.simulator.settings_seed import find_workflow, seed_settings
from jobnimbus_mcp.simulator.shapes import BLANK, KINDS, Record, reference

__all__ = ["DAY_S", "JOB_STAGES", "Draft", "User", "acting", "authored", "seed_people"]

DAY_S = 86_400
_CONTACTS, _JOBS, _SUBCONTRACTORS = 265, 300, 8
_COMPANY_EMAIL = "example.com"

# Stage of a job by how far the work has come: 0 asked, 1 looked at, 2 approved, 3 scheduled, 4 under way, 5 finished,
# 6 invoiced, 7 paid. Repair has fewer statuses, so several stages share one.
JOB_STAGES = {
    "Roofing": (350, 352, 353, 354, 355, 357, 358, 359),
    "Repair": (370, 371, 372, 373, 373, 374, 374, 375),
}
_CONTACT_STATUS_OF_STAGE = (5, 8, 12, 12, 12, 15, 15, 18)


@dataclass(frozen=True, slots=True)
class User:
    """A team member. `id` is what owners, sales_rep and created_by hold."""

    id: str
    first_name: str
    last_name: str
    email: str
    role: str
    is_active: bool = True

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}"


@dataclass(slots=True)
class Draft:
    """The account while it is being made; records may still be changed in place."""

    rng: random.Random
    instance: str
    scale: int
    day_s: int
    customer: str
    users: list[User] = field(default_factory=list)
    reps: list[User] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=seed_settings)
    records: dict[str, dict[str, Record]] = field(default_factory=lambda: {name: {} for name in KINDS})
    stages: dict[str, int] = field(default_factory=dict)
    products: list[str] = field(default_factory=list)
    recid: int = 0

    def add(self, kind: str, offset_s: int, fields: Record, updated_s: int | None = None) -> Record:
        """A new record created `offset_s` from the day, last changed `updated_s` from it (None: never)."""
        self.recid += 1
        jnid = fields.get("jnid") or seeded_id(self.rng, offset_s)
        record = {
            **BLANK[kind],
            "customer": self.customer,
            "recid": self.recid,
            "date_created": self.day_s + offset_s,
            "date_updated": self.day_s + (offset_s if updated_s is None else updated_s),
            **fields,
            "jnid": jnid,
        }
        self.records[kind][jnid] = record
        return record

    def past(self, youngest_d: int, oldest_d: int) -> int:
        """An offset in working hours of a past day."""
        return -self.rng.randint(youngest_d, oldest_d) * DAY_S + self.rng.randint(13 * 3600, 21 * 3600)

    def later(self, offset_s: int, most_d: int) -> int:
        """An offset after `offset_s` by up to `most_d` days, and still before the day began."""
        return max(offset_s, min(offset_s + self.rng.randint(3600, most_d * DAY_S), -self.rng.randint(1, 7200)))


def acting(rep: User) -> Record:
    """Whose a record is: owner and sales rep."""
    return {"owners": [{"id": rep.id}], "sales_rep": rep.id, "sales_rep_name": rep.name}


def authored(user: User) -> Record:
    """Who made a record."""
    return {"created_by": user.id, "created_by_name": user.name}


def seed_people(draft: Draft) -> None:
    """Fill in users, contacts and jobs."""
    _users(draft)
    contacts = _contacts(draft)
    _jobs(draft, contacts)


def _users(draft: Draft) -> None:
    rng = draft.rng
    first_names, last_names = rng.sample(FIRST_NAMES, 8), rng.sample(LAST_NAMES, 8)
    roles = ("admin", "rep", "rep", "rep", "rep", "production", "office", "rep")
    for index, (first, last, role) in enumerate(zip(first_names, last_names, roles, strict=True)):
        email = f"{first.lower()}@{_COMPANY_EMAIL}"
        draft.users.append(User(seeded_id(rng, -900 * DAY_S), first, last, email, role, is_active=index != 7))
    twin = draft.users[2]
    # One human under two ids, as accounts have after somebody left and came back.
    draft.users.append(User(seeded_id(rng, -400 * DAY_S), twin.first_name, twin.last_name, twin.email, "rep"))
    draft.reps = [user for user in draft.users if user.role == "rep"]


def _contacts(draft: Draft) -> list[Record]:
    rng, settings = draft.rng, draft.settings
    customer = find_workflow(settings, "contact", "Customer")
    sub = find_workflow(settings, "contact", "Subcontractor")
    assert customer is not None
    assert sub is not None
    taken: dict[str, int] = {}
    contacts = []
    for index, offset in enumerate(sorted(draft.past(1, 400) for _ in range(_CONTACTS * draft.scale))):
        is_sub = index < _SUBCONTRACTORS * draft.scale
        workflow = sub if is_sub else customer
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        company = f"{last} {rng.choice(TRADES)}" if is_sub else (f"{last} Properties" if rng.random() < 0.06 else "")
        name = company if is_sub else f"{first} {last}"
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            name = f"{name} ({taken[name]})"
        town, zip_code, plus_four, lat, lon = rng.choice(TOWNS)
        rep = draft.users[0] if is_sub else rng.choice(draft.reps)
        status = workflow["status"][0] if is_sub or rng.random() < 0.6 else workflow["status"][6]
        source = rng.choice(settings["sources"])
        insured = not is_sub and rng.random() < 0.3
        loss = draft.day_s + offset - rng.randint(3, 60) * DAY_S if insured else None
        claim = f"CLM-{rng.randint(10_000, 99_999)}" if insured else None
        changed = draft.later(offset, 30)
        contacts.append(
            draft.add(
                "contacts",
                offset,
                {
                    **acting(rep),
                    "number": str(2001 + index),
                    **authored(draft.users[6] if index % 3 else rep),
                    "date_status_change": draft.day_s + changed,
                    "first_name": first,
                    "last_name": last,
                    "display_name": name,
                    "company": company,
                    "description": "" if is_sub else rng.choice(DESCRIPTIONS),
                    "email": _email(first, last, taken[name.split(" (")[0]]) if rng.random() < 0.9 else "",
                    "mobile_phone": _phone(rng),
                    "home_phone": _phone(rng) if rng.random() < 0.2 else None,
                    "work_phone": _phone(rng) if is_sub else "",
                    "address_line1": f"{rng.randint(2, 980)} {rng.choice(STREETS)}",
                    "address_line2": rng.choice(("", None, "", "Unit 2")),
                    "city": town,
                    "state_text": "CT",
                    "zip": f"{zip_code}-{plus_four}" if rng.random() < 0.06 else zip_code,
                    "geo": {"lat": lat, "lon": lon} if rng.random() < 0.9 else {"lat": 0, "lon": 0},
                    "location": {"id": 1, "parent_id": None, "name": "Main"} if index % 4 else {"id": 2},
                    "record_type": workflow["id"],
                    "record_type_name": workflow["name"],
                    "status": status["id"],
                    "status_name": status["name"],
                    "is_lead": status["is_lead"],
                    "is_closed": status["is_closed"],
                    "is_sub_contractor": is_sub,
                    "source": source["JobSourceId"],
                    "source_name": source["SourceName"],
                    "tags": ["insurance"] if insured else [],
                    "cf_string_7": claim,
                    "Claim Number:": claim,
                    "cf_date_2": loss,
                    "Date of Loss": loss,
                },
                changed,
            )
        )
    return contacts


def _jobs(draft: Draft, contacts: list[Record]) -> None:
    rng, settings = draft.rng, draft.settings
    subs = [record for record in contacts if record["is_sub_contractor"]]
    customers = [record for record in contacts if not record["is_sub_contractor"]]
    users = {user.id: user for user in draft.users}
    taken: dict[str, int] = {}
    for index, offset in enumerate(sorted(draft.past(1, 365) for _ in range(_JOBS * draft.scale))):
        # Jobs come soon after their contact: contacts are in order of creation too, so take one from nearby.
        # Two are left out so that some contacts have no job yet.
        middle = index * (len(customers) - 2) // (_JOBS * draft.scale)
        contact = customers[max(0, middle - rng.randint(0, 6))]
        offset = max(offset, contact["date_created"] - draft.day_s + 600)
        rep = users[contact["sales_rep"]]
        age_d = -offset // DAY_S
        workflow = find_workflow(settings, "job", "Roofing" if rng.random() < 0.72 else "Repair")
        assert workflow is not None
        stage = _stage(rng, age_d)
        status = next(row for row in workflow["status"] if row["id"] == JOB_STAGES[workflow["name"]][stage])
        changed = offset if stage == 0 else draft.later(offset, max(2, min(40, age_d)))
        start_s, end_s = _schedule(draft, offset, stage)
        kind = rng.choice(JOB_KINDS[workflow["name"]])
        name = f"{contact['last_name']} - {kind}"
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            name = f"{name} #{taken[name]}"
        color, insured = rng.choice(COLORS), bool(contact["tags"])
        warranty = draft.day_s + changed + 3650 * DAY_S if stage >= 5 else None
        contact_reference = reference(contact)
        unscheduled = 0 if index % 7 else None
        job = draft.add(
            "jobs",
            offset,
            {
                **acting(rep),
                "number": str(1001 + index),
                "external_id": f"CRM-{88_000 + index}" if index % 12 == 0 else None,
                "name": name,
                "description": rng.choice(DESCRIPTIONS) + (f" ({rng.choice(CARRIERS)})" if insured else ""),
                **authored(rep),
                "date_status_change": draft.day_s + changed,
                "date_start": unscheduled if start_s is None else draft.day_s + start_s,
                "date_end": unscheduled if end_s is None else draft.day_s + end_s,
                "is_archived": stage == 7 and rng.random() < 0.1,
                "is_lead": status["is_lead"],
                "is_closed": status["is_closed"],
                "record_type": workflow["id"],
                "record_type_name": workflow["name"],
                "status": status["id"],
                "status_name": status["name"],
                "subcontractors": [{"id": rng.choice(subs)["jnid"]}] if stage >= 3 and rng.random() < 0.4 else [],
                "primary": contact_reference,
                "related": [contact_reference],
                "cf_string_3": color,
                "Shingle Color": color,
                "cf_boolean_1": insured,
                "Insurance Job?": insured,
                "cf_date_5": warranty,
                "Warranty Date": warranty,
                "parent_home_phone": contact["home_phone"],
                "parent_mobile_phone": contact["mobile_phone"],
                "parent_work_phone": contact["work_phone"],
                "parent_fax_number": contact["fax_number"],
                **{
                    key: contact[key]
                    for key in (
                        "source",
                        "source_name",
                        "location",
                        "address_line1",
                        "address_line2",
                        "city",
                        "state_text",
                        "zip",
                        "geo",
                        "tags",
                    )
                },
            },
            changed,
        )
        draft.stages[job["jnid"]] = stage
        contact["related"] = [*contact["related"], reference(job)]
        _advance(draft, contact, stage)


def _advance(draft: Draft, contact: Record, stage: int) -> None:
    """A contact stands where its latest job stands."""
    workflow = find_workflow(draft.settings, "contact", "Customer")
    assert workflow is not None
    status = next(row for row in workflow["status"] if row["id"] == _CONTACT_STATUS_OF_STAGE[stage])
    contact["status"], contact["status_name"] = status["id"], status["name"]
    contact["is_lead"], contact["is_closed"] = status["is_lead"], status["is_closed"]


def _stage(rng: random.Random, age_d: int) -> int:
    if age_d < 10:
        return rng.choice((0, 0, 1, 1, 2))
    if age_d < 45:
        return rng.choice((0, 1, 1, 2, 3, 3, 4))
    if age_d < 90:
        return rng.choice((1, 2, 3, 3, 4, 4, 5, 6))
    return rng.choice((1, 4, 5, 6, 7, 7, 7, 7))


def _schedule(draft: Draft, offset_s: int, stage: int) -> tuple[int | None, int | None]:
    """(start, end) as offsets from the day; both None: not scheduled."""
    rng = draft.rng
    if stage < 3:
        return None, None
    hour = rng.choice((12, 13, 14)) * 3600
    if stage == 3:
        start = rng.randint(0, 45) * DAY_S + hour
    elif stage == 4:
        start = -rng.randint(0, 4) * DAY_S + hour
    else:
        start = min(offset_s + rng.randint(7, 40) * DAY_S, -rng.randint(2, 9) * DAY_S) // DAY_S * DAY_S + hour
    return start, start + rng.randint(1, 3) * DAY_S


def _email(first: str, last: str, occurrence: int) -> str:
    tail = "" if occurrence == 1 else str(occurrence)
    return f"{first}.{last}{tail}@example.com".lower().replace("'", "")


def _phone(rng: random.Random) -> str:
    line = f"{rng.randint(0, 9999):04}"
    area = rng.choice(("203", "475", "860"))
    style = rng.random()
    if style < 0.8:
        return f"{area}555{line}"
    if style < 0.88:
        return f"({area}) 555-{line}"
    if style < 0.95:
        return f"{area}-555-{line}"
    return f"+1 {area} 555 {line}"
