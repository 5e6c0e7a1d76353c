"""The prompts: what is to be done, in which order and with which tools, and what a good result looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.prompts import Argument, Asked, Made, Part, Prompt

__all__ = ["PROMPTS"]

_SENT_DAYS_AGO = 7

_STYLE = (
    "Name each job by its number and name, each person by name. Say as_of once. Do not guess: what the data does not "
    "say, leave out or ask for with a tool. Change nothing in JobNimbus unless you are asked to."
)


async def _pipeline(asked: Asked) -> Made:
    rep, kind = asked.text("sales_rep"), asked.text("record_type")
    narrowed = {name: value for name, value in (("sales_rep", rep), ("record_type", kind)) if value is not None}
    of_rep = {"owner_id": (await asked.user_of("sales_rep", rep))[0]} if rep is not None else {}
    whose = f" of {rep}" if rep else ""
    what = f" in the workflow {kind}" if kind else ""
    text = f"""\
Review the pipeline{whose}{what} for {asked.day(0)}.

1. From the jobs changed since yesterday: what moved to which status, what is new, what was lost.
2. For each status that is not final (the workflows come with this, in order), get_jobs with that status, sort_by
   date_status_change, order asc, size 5: the jobs that have stood there longest. Name those with more than 14 days.
3. From the overdue tasks and today's calendar: what holds these jobs up and who is to act. get_tasks and
   get_activities with job_id tell more of a job that stands out.
4. Answer in at most one page: moved (one line each), stuck (status, days, next step, who), today (by time), and the
   three things to do first, with the reason.

{_STYLE}"""
    changed = {"updated_since": asked.day(-1), "sort_by": "date_updated", "size": 25, "verbosity": "summary"}
    return Made(
        text,
        (
            Part("Jobs changed since yesterday", "get_jobs", {**changed, **narrowed}),
            Part("Workflows and their statuses, in order", "get_settings", {"part": "workflows"}),
            Part("Overdue tasks", "get_tasks", {"overdue": True, "size": 15, "verbosity": "summary", **of_rep}),
            Part(
                "Today's calendar",
                "get_calendar_activities",
                {"date_from": asked.day(0), "date_to": asked.day(0), "size": 15, "verbosity": "summary", **of_rep},
            ),
        ),
    )


async def _briefing(asked: Asked) -> Made:
    job = asked.text("job")
    if job is None:
        raise InvalidInput("Say which job: its number, or its jnid.", field="job")
    text = f"""\
Brief somebody who is about to call the customer of job {job}, or to stand on their roof.

1. From the record: customer, address, what is to be done, status and since when, sales rep, dates of the work.
2. From the activities, newest first: what was said and promised last, and by whom. get_activities with job_id and the
   next_cursor goes further back if the last days are only the change log.
3. From estimates and invoices: what was offered, approved, invoiced and paid; what is due.
4. From tasks: what is open or overdue, and who has it. From the files: which documents and photos there are.
5. Answer in at most half a page: situation in two sentences, the money in one line, what was promised, open points
   with who and when, and what to settle on this call.

{_STYLE}"""
    of_job = {"job_id": job}
    return Made(
        text,
        (
            Part("The job", "get_job", {**of_job, "verbosity": "compact"}),
            Part("Its latest activities", "get_activities", {**of_job, "size": 15}),
            Part("Its open tasks", "get_tasks", {**of_job, "is_completed": False, "size": 15}),
            Part("Its estimates", "get_estimates", {**of_job, "size": 5, "verbosity": "summary"}),
            Part("Its invoices", "get_invoices", {**of_job, "size": 5, "verbosity": "summary"}),
            Part("Its newest files", "get_attachments", {**of_job, "size": 15, "verbosity": "summary"}),
        ),
    )


async def _followups(asked: Asked) -> Made:
    owner = asked.text("owner")
    of_owner = {"owner_id": (await asked.user_of("owner", owner))[0]} if owner is not None else {}
    whose = f" of {owner}" if owner else ""
    text = f"""\
Work through the overdue follow-ups{whose} as of {asked.day(0)}.

1. Group the overdue tasks by job or contact, the longest overdue first.
2. For each group get_activities with job_id or contact_id, size 5: was the thing done meanwhile without closing the
   task, or did the customer answer?
3. The estimates sent more than {_SENT_DAYS_AGO} days ago and not answered are follow-ups too: add those that no task
   stands for{whose and ", where the sales rep is the same"}.
4. Answer as a list: who to contact, about what, days overdue, what was last said, and a first sentence to say or
   write. Then the tasks that look done and could be closed: propose, do not close them yet.

{_STYLE}"""
    return Made(
        text,
        (
            Part(
                "Overdue tasks",
                "get_tasks",
                {"overdue": True, "sort_by": "date_start", "order": "asc", "size": 50, **of_owner},
            ),
            Part(
                "Estimates sent and not answered",
                "get_estimates",
                {"status": "Sent", "sent_to": asked.day(-_SENT_DAYS_AGO), "size": 25, "verbosity": "summary"},
            ),
        ),
    )


async def _receivables(asked: Asked) -> Made:
    days, rep = asked.days("min_days_overdue", 1), asked.text("sales_rep")
    keep = None
    if rep is not None:
        user_id, _ = await asked.user_of("sales_rep", rep)

        def keep(row: Mapping[str, Any]) -> bool:
            return row.get("sales_rep") == user_id

    whose = f" of {rep}'s jobs" if rep else ""
    text = f"""\
Review the receivables{whose}: invoices with money due for {days} days or more, as of {asked.day(0)}.

1. Sum what is due, and split it by age: up to 30, 31 to 60, 61 to 90 and more than 90 days after date_due.
2. For the ten largest, get_job with the job in related for status and insurance, and get_activities with job_id,
   size 5: was payment promised, is something disputed, does the insurer hold it?
3. get_payments with invoice_id tells what came in on one, where a payment is in doubt.
4. Answer with the total, the table by age, then one line for each invoice: number, customer, due, days overdue, why
   it is open, and the next step with who takes it. Say how many invoices you have not looked at.

{_STYLE}"""
    fields = ["jnid", "number", "due", "total", "date_due", "status_name", "sales_rep", "sales_rep_name", "related"]
    return Made(
        text,
        (
            Part(
                "Invoices with money due, the oldest first",
                "get_invoices",
                {
                    "unpaid": True,
                    "due_to": asked.day(-days),
                    "sort_by": "date_due",
                    "order": "asc",
                    "size": 200,
                    "fields": fields,
                },
                keep,
            ),
        ),
    )


_REP = Argument("sales_rep", "Sales rep", "Only this person's: full name, e-mail or user id.", completes="people")

PROMPTS: Sequence[Prompt] = (
    Prompt(
        "daily_pipeline_review",
        "Daily pipeline review",
        "What moved since yesterday, what is stuck in which status, and what to do first today.",
        (
            _REP,
            Argument("record_type", "Workflow", "Only jobs of this workflow.", completes="jobs.record_type"),
        ),
        ("get_jobs",),
        _pipeline,
    ),
    Prompt(
        "job_briefing",
        "Job briefing",
        "Everything to know about one job before a call or a visit, with what was promised and what is due.",
        (Argument("job", "Job", "Job number, or jnid.", required=True, completes="job"),),
        ("get_job",),
        _briefing,
    ),
    Prompt(
        "overdue_followups",
        "Overdue follow-ups",
        "Overdue tasks and unanswered estimates, by customer, with what to say to each.",
        (Argument("owner", "Owner", "Only this person's tasks: full name, e-mail or user id.", completes="people"),),
        ("get_tasks",),
        _followups,
    ),
    Prompt(
        "receivables_review",
        "Receivables review",
        "Invoices with money overdue, by age, with why each is open and the next step.",
        (
            Argument(
                "min_days_overdue", "Days overdue", "At least so many days past due; default 1.", completes="days"
            ),
            _REP,
        ),
        ("get_invoices",),
        _receivables,
    ),
)
