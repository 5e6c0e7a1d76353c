"""Prompts: jobs that people in a contractor's office do again and again, told to an agent with the data to start.

Each says what to do, in which order and with which tools, and what a good result looks like. The data is fetched when
the prompt is asked for, by the same tools and in the caller's name, and fits, all parts together, the budget of one
answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import InvalidInput, NotAllowed, UpstreamForbidden
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.shape import size_bytes
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.toolbox import META, Toolbox

__all__ = ["GET_PROMPT", "PROMPTS", "Argument", "Part", "Prompt", "Prompted", "Prompts"]

GET_PROMPT = "prompts/get"

_VALUE_MOST = 120
_DAYS_MOST = 3_650
_SENT_DAYS_AGO = 7

_STYLE = (
    "Name each job by its number and name, each person by name. Say as_of once. Do not guess: what the data does not "
    "say, leave out or ask for with a tool. Change nothing in JobNimbus unless you are asked to."
)


class Argument(NamedTuple):
    """`completes`: what its values are, for whoever offers some while it is typed; "" nothing."""

    name: str
    title: str
    description: str
    required: bool = False
    completes: str = ""


class Part(NamedTuple):
    """One call whose answer comes with the prompt. `keep`: of its rows those wanted, where no argument says so."""

    title: str
    tool: str
    arguments: Mapping[str, Any]
    keep: Callable[[Mapping[str, Any]], bool] | None = None


class Made(NamedTuple):
    """What to do, and the data to fetch for it; where the first part cannot be had, the prompt cannot."""

    text: str
    parts: Sequence[Part]


class Prompted(NamedTuple):
    """The prompt's messages, in order: what to do, then the data part by part."""

    description: str
    messages: Sequence[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt's arguments as given, checked one by one where they are used."""

    values: Mapping[str, str]
    today: date
    user_of: Callable[[str, str], Awaitable[tuple[str, str]]]
    """Id and name of a user given by name, with the argument that names it."""

    def text(self, name: str) -> str | None:
        """None where it was left out or blank.

        Raises:
            InvalidInput: too long for a name.
        """
        value = self.values.get(name, "").strip()
        if len(value) > _VALUE_MOST:
            raise InvalidInput(f"{name} has more than {_VALUE_MOST} characters.", field=name)
        return value or None

    def days(self, name: str, default: int) -> int:
        """A whole number of days.

        Raises:
            InvalidInput: it is none.
        """
        value = self.text(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or int(value) > _DAYS_MOST:
            raise InvalidInput(f"{name} must be a whole number of days, 0 to {_DAYS_MOST}.", field=name)
        return int(value)

    def day(self, ahead: int) -> str:
        return (self.today + timedelta(days=ahead)).isoformat()


@dataclass(frozen=True, slots=True)
class Prompt:
    """`needs`: tools without which it makes no sense."""

    name: str
    title: str
    description: str
    arguments: Sequence[Argument]
    needs: Sequence[str]
    make: Callable[[Asked], Awaitable[Made]] = field(repr=False)


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


class _Named(NoArgs):
    argument: str
    name: str


class Prompts:
    """Makes prompts through the toolbox's own tools."""

    def __init__(self, toolbox: Toolbox, prompts: Sequence[Prompt] = PROMPTS) -> None:
        self._toolbox = toolbox
        self._prompts = {prompt.name: prompt for prompt in prompts}
        # answers of another size are not to be mistaken for the tools' own: nothing is remembered of them
        self._fetching = {
            parts: replace(toolbox, answer_max_bytes=toolbox.answer_max_bytes // parts, memo=AnswerMemo(0))
            for parts in range(1, 9)
        }
        who = ToolSpec(GET_PROMPT, "Make a prompt", "Whom it is about.", Entity.USERS, _Named, handler=_user_of)
        self._naming = replace(toolbox, specs=(replace(who, toolset=META),), memo=AnswerMemo(0))

    def listed(self, access: Access = EVERYTHING) -> list[Prompt]:
        """Those whose tools this caller may use."""
        return [prompt for prompt in self._prompts.values() if all(self._usable(name, access) for name in prompt.needs)]

    def named(self, name: str, access: Access = EVERYTHING) -> Prompt:
        """Raises InvalidInput: there is none of this name for this caller."""
        prompt = self._prompts.get(name)
        if prompt is None or prompt not in self.listed(access):
            names = ", ".join(one.name for one in self.listed(access)) or "none"
            raise InvalidInput(f"There is no prompt of this name. There are: {names}.", field="name")
        return prompt

    async def get(self, name: str, arguments: Mapping[str, str], who: Caller, call: Call) -> Prompted:
        """The prompt with its data.

        Raises:
            InvalidInput: no such prompt, an argument it does not take, or one that is wrong or missing.
            RecordNotFound: it is about a record that is not there.
            ProjectError: by its kind, as for a tool.
        """
        prompt = self.named(name, who.access)
        known = [argument.name for argument in prompt.arguments]
        for given in arguments:
            if given not in known:
                raise InvalidInput(
                    f"{name} has no argument {given[:60]!r}. It takes: {', '.join(known)}.", field=given[:60]
                )

        async def user_of(argument: str, text: str) -> tuple[str, str]:
            told = await self._naming.call(GET_PROMPT, {"argument": argument, "name": text}, who, replace(call))
            return told.structured["id"], told.structured["name"]

        box = self._toolbox
        today = datetime.fromtimestamp(box.clock.now(), UTC).astimezone(box.zone).date()
        made = await prompt.make(Asked(arguments, today, user_of))
        parts = [part for part in made.parts if self._exists(part.tool)]
        first, *others = parts
        share = len(parts)
        messages = [made.text, await self._fetched(first, share, who, call)]
        fetched = await asyncio.gather(
            *(self._if_allowed(part, share, who, call) for part in others), return_exceptions=True
        )
        for one in fetched:
            if isinstance(one, BaseException):
                raise one
            messages.append(one)
        return Prompted(prompt.description, messages)

    async def _if_allowed(self, part: Part, share: int, who: Caller, call: Call) -> str:
        """What this caller may not see is said, and does not keep it from the rest."""
        try:
            return await self._fetched(part, share, who, call)
        except (NotAllowed, UpstreamForbidden) as error:
            return f"{part.title}: not for this caller. {error.public_message}"

    async def _fetched(self, part: Part, share: int, who: Caller, call: Call) -> str:
        whole = self._fetching[1 if part.keep is not None else share]
        # each call has its own name and cursor words, and all of them the one deadline
        answer = await whole.call(part.tool, part.arguments, who, replace(call))
        if part.keep is None:
            data = answer.data
        else:
            data = orjson.dumps(_kept(answer.structured, part.keep, self._fetching[share].answer_max_bytes))
        asked = orjson.dumps(dict(part.arguments)).decode()
        return f"{part.title}, as {part.tool} answers {asked} (as of {answer.cache['asOf']}):\n{data.decode()}"

    def _exists(self, name: str) -> bool:
        return any(spec.name == name for spec in self._toolbox.specs)

    def _usable(self, name: str, access: Access) -> bool:
        return self._exists(name) and self._toolbox.usable(self._toolbox.spec(name), access)


async def _user_of(ctx: ToolContext, args: _Named) -> dict[str, Any]:
    user_id = await ctx.directory.user_id(args.name, args.argument)
    return {"id": user_id, "name": (await ctx.directory.user_names()).get(user_id, args.name)}


def _kept(answer: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], bool], most_bytes: int) -> dict[str, Any]:
    """The answer with the rows wanted alone, as many as fit; `looked_at` says of how many."""
    rows = [row for row in answer["results"] if keep(row)]
    shown: dict[str, Any] = {**answer, "results": [], "looked_at": answer["returned"], "matching": len(rows)}
    room = most_bytes - size_bytes(shown)
    for row in rows:
        room -= size_bytes(row) + 1
        if room < 0:
            break
        shown["results"].append(row)
    shown["returned"] = len(shown["results"])
    return shown
