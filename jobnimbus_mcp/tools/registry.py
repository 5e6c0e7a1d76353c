"""The list of tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools import account, activities, calendar, contacts, estimates, files, inputs, jobs, tasks
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.spec import LIST_OUTPUT, RECORD_OUTPUT, ToolSpec

__all__ = ["read_tools"]

_HOW_LISTS_WORK = (
    " Answers one page with the total count; follow next_cursor for more. Cached and kept current by webhooks."
)


def read_tools(get_webhooks: Callable[[ToolContext, inputs.NoArgs], Any]) -> tuple[ToolSpec, ...]:
    """The twelve read tools, in the order they are listed."""

    def lists(name: str, title: str, text: str, entity: Entity, model: type[BaseModel], plan: Any) -> ToolSpec:
        return ToolSpec(name, title, text + _HOW_LISTS_WORK, entity, model, LIST_OUTPUT, plan=plan)

    return (
        lists(
            "get_jobs",
            "List jobs",
            "List jobs by status, workflow, people, dates or schedule.",
            Entity.JOBS,
            inputs.JobsArgs,
            jobs.get_jobs,
        ),
        lists(
            "search_jobs",
            "Search jobs",
            "Find jobs by words in their name, number, address or description. Use it when you have no id.",
            Entity.JOBS,
            inputs.SearchJobsArgs,
            jobs.search_jobs,
        ),
        ToolSpec(
            "get_job",
            "Get one job",
            "One job in full, by jnid or job number. Use it for the current state before acting on a job.",
            Entity.JOBS,
            inputs.JobArgs,
            RECORD_OUTPUT,
            handler=jobs.get_job,
        ),
        lists(
            "get_contacts",
            "List contacts",
            "List customers and other contacts by status, workflow, people or dates.",
            Entity.CONTACTS,
            inputs.ContactsArgs,
            contacts.get_contacts,
        ),
        lists(
            "search_contacts",
            "Search contacts",
            "Find contacts by name, company, e-mail or a phone number in any format.",
            Entity.CONTACTS,
            inputs.SearchContactsArgs,
            contacts.search_contacts,
        ),
        lists(
            "get_estimates",
            "List estimates",
            "List estimates of the account, a job or a contact, by status and by when they were sent or approved.",
            Entity.ESTIMATES,
            inputs.EstimatesArgs,
            estimates.get_estimates,
        ),
        lists(
            "get_activities",
            "List activities",
            "List notes, calls, e-mails and the change log of the account, a job or a contact.",
            Entity.ACTIVITIES,
            inputs.ActivitiesArgs,
            activities.get_activities,
        ),
        lists(
            "get_calendar_activities",
            "List the calendar",
            "List scheduled tasks, jobs and work orders between two days, in time order; default the next 30 days.",
            Entity.CALENDAR,
            inputs.CalendarArgs,
            calendar.get_calendar_activities,
        ),
        lists(
            "get_tasks",
            "List tasks",
            "List tasks of the account, a job, a contact or a person; open, done or overdue.",
            Entity.TASKS,
            inputs.TasksArgs,
            tasks.get_tasks,
        ),
        lists(
            "get_users",
            "List users",
            "List the account's people with their ids, as owners and sales reps are named elsewhere.",
            Entity.USERS,
            inputs.UsersArgs,
            account.get_users,
        ),
        lists(
            "get_attachments",
            "List attachments",
            "List the files (metadata only) of the account, a job or a contact, by type or date.",
            Entity.ATTACHMENTS,
            inputs.AttachmentsArgs,
            files.get_attachments,
        ),
        ToolSpec(
            "get_webhooks",
            "How webhooks are set up",
            "The webhook URLs to enter in JobNimbus's automations, and which kinds of webhook have arrived.",
            Entity.SETTINGS,
            inputs.NoArgs,
            handler=get_webhooks,
        ),
    )
