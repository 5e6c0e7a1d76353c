"""The activities of a seeded account: what the system logged about jobs, and what people noted."""

from __future__ import annotations

from jobnimbus_mcp.simulator.dataset import JOB_STAGES, Draft, User, acting, authored
from jobnimbus_mcp.simulator.names import CALL_NOTES, EMAIL_NOTES, MEETING_NOTES, NOTES
from jobnimbus_mcp.simulator.settings_seed import find_workflow
from jobnimbus_mcp.simulator.shapes import Record

__all__ = ["seed_history", "seed_note"]


def seed_note(draft: Draft, primary: Record, related: list[Record], rep: User, offset_s: int) -> None:
    """One human activity: a note, a call, an e-mail or a meeting."""
    rng = draft.rng
    number, name, notes = rng.choice(
        (
            (1, "Note", NOTES),
            (1, "Note", NOTES),
            (2, "Phone Call", CALL_NOTES),
            (3, "Email", EMAIL_NOTES),
            (4, "Meeting", MEETING_NOTES),
        )
    )
    draft.add(
        "activities",
        offset_s,
        {
            **acting(rep),
            **authored(rep),
            "note": rng.choice(notes),
            "record_type": number,
            "record_type_name": name,
            "is_private": rng.random() < 0.05,
            "email_status": "delivered" if name == "Email" else None,
            "primary": primary,
            "related": related,
        },
    )


def seed_history(draft: Draft, job: Record, links: list[Record], rep: User, stage: int, offset_s: int) -> None:
    """What became of a job: created, moved to its present status, talked about."""
    system = {**acting(rep), **authored(rep), "is_editable": False, "related": links}
    draft.add(
        "activities",
        offset_s,
        {
            **system,
            "note": f"Job Created\n{job['name']}",
            "record_type": 23,
            "record_type_name": "Job Created",
            "primary": links[0],
        },
    )
    if stage > 0:
        workflow = find_workflow(draft.settings, "job", job["record_type"])
        assert workflow is not None
        ids = JOB_STAGES[workflow["name"]]
        old = next(row for row in workflow["status"] if row["id"] == max(i for i in ids if i < job["status"]))
        by_automation = draft.rng.random() < 0.1
        plain = draft.rng.random() < 0.3
        author = {"created_by": "system_automation_job", "created_by_name": "Automation (Job)"}
        draft.add(
            "activities",
            job["date_status_change"] - draft.day_s,
            {
                **system,
                **(author if by_automation else {}),
                "note": f"Status changed from {old['name']} to {job['status_name']}."
                if plain
                else f"Job Updated\nStatus: {old['name']} => {job['status_name']}",
                "record_type": 19,
                "record_type_name": "Status Changed",
                "is_status_change": True,
                "primary": {**links[0], "old_status": old["id"], "new_status": job["status"]},
            },
        )
    if draft.rng.random() < 0.85:
        seed_note(draft, links[0], links, rep, draft.later(offset_s, 25))
