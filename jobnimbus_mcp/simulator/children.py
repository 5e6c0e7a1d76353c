"""What hangs on contacts and jobs in a seeded account: estimates, tasks, files, work orders; money: `money.py`."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from jobnimbus_mcp.simulator.dataset import DAY_S, Draft, User, acting, authored
from jobnimbus_mcp.simulator.history import seed_history, seed_note
from jobnimbus_mcp.simulator.ids import seeded_guid, seeded_id
from jobnimbus_mcp.simulator.names import (
    PHOTOS,
    PRODUCTS,
    TASK_TITLES,
)
from jobnimbus_mcp.simulator.settings_seed import STATUSES
from jobnimbus_mcp.simulator.shapes import Record, reference

__all__ = ["iso_day", "seed_children"]


def seed_children(draft: Draft) -> None:
    """Fill in the children of every job, some of contacts alone, and the ids of the products their items are of."""
    users = {user.id: user for user in draft.users}
    draft.products.extend(seeded_id(draft.rng, -800 * DAY_S) for _ in PRODUCTS)
    for index, job in enumerate(list(draft.records["jobs"].values())):
        contact = draft.records["contacts"][job["primary"]["id"]]
        rep, stage = users[job["sales_rep"]], draft.stages[job["jnid"]]
        offset = job["date_created"] - draft.day_s
        links = [reference(job), job["primary"]]
        items = _items(draft)
        seed_history(draft, job, links, rep, stage, offset)
        _files(draft, index, links, rep, offset)
        if stage >= 1 and draft.rng.random() < 0.76:
            _estimate(draft, links, items, rep, stage, offset)
        _task(draft, index, job, links, offset)
        if stage >= 3 and draft.rng.random() < 0.6:
            _work_order(draft, job, contact, links, items, stage)
    for index, contact in enumerate(list(draft.records["contacts"].values())):
        if index % 11 == 0:
            offset = draft.later(contact["date_created"] - draft.day_s, 20)
            seed_note(draft, reference(contact), [reference(contact)], users[contact["sales_rep"]], offset)


def iso_day(epoch_s: int) -> str:
    """The UTC date, `2026-09-18`."""
    return datetime.fromtimestamp(epoch_s, UTC).date().isoformat()


def _files(draft: Draft, index: int, links: list[Record], rep: User, offset_s: int) -> None:
    rng = draft.rng
    for number in range(rng.choice((0, 1, 1, 2, 2, 3))):
        taken_s = draft.later(offset_s, 20)
        photo = rng.random() < 0.7
        filename = f"{rng.choice(PHOTOS)}-{number + 1}.jpg" if photo else f"contract-{index + 1}.pdf"
        # Some files hang on the job alone and some on the contact alone, so neither list is the whole truth.
        related = rng.choice((links, links, links, links[:1], links[1:]))
        draft.add("files", taken_s, _file(draft, filename, related, rep, draft.day_s + taken_s))


def _file(draft: Draft, filename: str, related: list[Record], rep: User, taken_s: int) -> Record:
    photo = filename.endswith(".jpg")
    return {
        **acting(rep),
        **authored(rep),
        "filename": filename,
        "content_type": "image/jpeg" if photo else "application/pdf",
        "size": draft.rng.randint(40_000, 6_000_000),
        "md5": hashlib.md5(f"{filename}{draft.recid}".encode(), usedforsecurity=False).hexdigest(),
        "description": "After" if "after" in filename else "",
        "record_type": 2 if photo else 1,
        "record_type_name": "Photo" if photo else "Document",
        "date_file_created": taken_s - 300 if photo else 0,
        "primary": related[0] if related else None,
        "related": related,
    }


def _items(draft: Draft) -> list[Record]:
    rng = draft.rng
    rows = []
    for at in sorted(rng.sample(range(len(PRODUCTS)), rng.randint(2, 4))):
        name, description, uom, item_type, price, cost = PRODUCTS[at]
        quantity = rng.randint(8, 40)
        rows.append(
            {
                "jnid": draft.products[at],
                "name": name,
                "description": description,
                "uom": uom,
                "item_type": item_type,
                "quantity": quantity,
                "price": price,
                "cost": cost,
                "amount": quantity * price,
                "quickbooksId": None,
                "photos": [],
                "tax_couch_id": None,
                "tax_name": None,
                "tax_rate": 0,
                "labor": {"price": 0, "cost": 0, "amount": 0, "tax_rate": 0},
                "sku": None,
                "color": None,
                "category": None,
            }
        )
    return rows


def _estimate(draft: Draft, links: list[Record], items: list[Record], rep: User, stage: int, offset_s: int) -> None:
    rng = draft.rng
    status = rng.choice((1, 2, 2, 3, 3, 6)) if stage == 1 else (5 if stage >= 6 else 4)
    made_s = draft.later(offset_s, 10)
    sent_s = draft.later(made_s, 4) if status != 1 else None
    signed_s = draft.later(sent_s or made_s, 8) if status in (4, 5) else None
    total = sum(item["amount"] for item in items)
    cost = sum(item["quantity"] * item["cost"] for item in items)
    number = str(1101 + len(draft.records["estimates"]))
    pdf: Record | None = None
    if status in (4, 5) and rng.random() < 0.25:
        filename = f"estimate-{number}.pdf"
        pdf = draft.add("files", made_s, _file(draft, filename, links, rep, draft.day_s + made_s))
    changed_s = signed_s or sent_s or made_s
    draft.add(
        "estimates",
        made_s,
        {
            **acting(rep),
            **authored(rep),
            "number": number,
            "guid": seeded_guid(rng),
            "status": status,
            "status_name": STATUSES["estimates"][status],
            "date_estimate": (draft.day_s + made_s) // DAY_S * DAY_S,
            "date_sign_requested": 0 if sent_s is None else draft.day_s + sent_s,
            "date_signed": 0 if signed_s is None else draft.day_s + signed_s,
            "date_status_change": draft.day_s + changed_s,
            "esigned": signed_s is not None,
            "signature_status": "signed" if signed_s is not None else None,
            "subtotal": str(total) if rng.random() < 0.1 else total,
            "total": total,
            "cost": cost,
            "margin": round(100 * (total - cost) / total),
            "internal_note": rng.choice(("", "Insurance scope", "Includes 6 sheets of decking")),
            "attachment_id": None if pdf is None else pdf["jnid"],
            "items": items,
            "related": links,
        },
        changed_s,
    )


def _task(draft: Draft, index: int, job: Record, links: list[Record], offset_s: int) -> None:
    rng = draft.rng
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        kind, number = rng.choice((("Task", 1), ("Phone Call", 2), ("Appointment", 3)))
        assigned = rng.choice(draft.users[1:7])
        ahead = rng.random() < 0.3
        day = rng.randint(0, 45) if ahead else (draft.later(offset_s, 60) // DAY_S)
        start_s = draft.day_s + day * DAY_S + rng.choice((13, 14, 16, 18, 20)) * 3600
        all_day = rng.random() < 0.1
        done = rng.random() < (0.04 if day >= 0 else 0.8)
        by_automation = rng.random() < 0.2
        made_s = min(offset_s + 3600, -60)
        author: dict[str, Any] = (
            {"created_by": "system_automation_job", "created_by_name": "Automation (Job)"}
            if by_automation
            else {"created_by": job["sales_rep"], "created_by_name": job["sales_rep_name"]}
        )
        draft.add(
            "tasks",
            made_s,
            {
                **author,
                "number": str(5001 + len(draft.records["tasks"])),
                "owners": [{"id": assigned.id}],
                "title": rng.choice(TASK_TITLES[kind]),
                "description": rng.choice(("", "Check ridge vent", "Bring samples", "Gate code 4471")),
                "record_type": number,
                "record_type_name": kind,
                "date_start": start_s,
                "date_end": rng.choice((0, start_s + 3600, start_s + 7200)),
                "date_sort": start_s,
                "all_day": all_day,
                "all_day_start_date": iso_day(start_s) if all_day else "",
                "all_day_end_date": iso_day(start_s) if all_day else "",
                "is_completed": done,
                "priority": rng.choice((0, 0, 0, 1, 2, 3, 5)),
                "hide_from_calendarview": kind == "Phone Call",
                "estimated_time": rng.choice((0, 30, 60)),
                "related": links[1:] if index % 13 == 0 else links[:1],
            },
            draft.later(made_s, 10) if done else None,
        )


def _work_order(
    draft: Draft, job: Record, contact: Record, links: list[Record], items: list[Record], stage: int
) -> None:
    rng = draft.rng
    made_s = draft.later(job["date_created"] - draft.day_s, 20)
    labor = [item for item in items if "labor" in item["item_type"]] or items[:1]
    all_day = rng.random() < 0.5
    status = (367, "Done") if stage >= 5 else (366, "Assigned")
    manager = draft.users[5]
    number = 101 + len(draft.records["workorders"])
    draft.add(
        "workorders",
        made_s,
        {
            **acting(next(user for user in draft.users if user.id == job["sales_rep"])),
            **authored(manager),
            "owners": [{"id": manager.id}, {"id": job["sales_rep"]}],
            "number": f"WO-{number}",
            "name": f"{contact['last_name']} install crew",
            "record_type": 41,
            "record_type_name": "Install",
            "status": status[0],
            "status_name": status[1],
            "date_status_change": draft.day_s + made_s,
            "date_start": job["date_start"],
            "date_end": rng.choice((0, job["date_end"])),
            "all_day": all_day,
            "all_day_start_date": iso_day(job["date_start"]) if all_day else "",
            "all_day_end_date": iso_day(job["date_end"]) if all_day else "",
            "internal_note": rng.choice(("", "Dog in yard", "Protect the flower beds")),
            "items": labor,
            "total_line_item_cost": sum(item["quantity"] * item["cost"] for item in labor),
            "total_line_item_price": sum(item["amount"] for item in labor),
            "parent_mobile_phone": contact["mobile_phone"],
            "parent_home_phone": contact["home_phone"],
            "subcontractors": job["subcontractors"],
            "primary": links[0],
            "related": links,
        },
    )
