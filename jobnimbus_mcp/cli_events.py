"""`jobnimbus-mcp events`: what became of each change, and dead letters back to where they failed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import orjson
import typer

from jobnimbus_mcp.errors import CacheUnavailable, SettingsError
from jobnimbus_mcp.events.event import received_ms
from jobnimbus_mcp.events.ports import STATES, EventQuery, Traced
from jobnimbus_mcp.events.trace import summary, whole
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.logging import configure

if TYPE_CHECKING:
    from jobnimbus_mcp.app.events import Events

__all__ = ["app"]

T = TypeVar("T")

ENV_FILE = ".env"
_AT_ONCE = 200

app = typer.Typer(
    help="The trace of change events: what arrived, who acted on it, what failed and why.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Account = Annotated[str | None, typer.Option(help="One account only; else all.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")]


@app.command("list", epilog="Example: jobnimbus-mcp events list --state pending --entity jobs")
def listing(
    state: Annotated[str | None, typer.Option(help=f"One of: {', '.join(STATES)}.")] = None,
    entity: Annotated[str | None, typer.Option(help="A kind of record, e.g. jobs.")] = None,
    record: Annotated[str | None, typer.Option(help="A record's jnid.")] = None,
    instance: Account = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Events, newest first."""
    if state is not None and state not in STATES:
        raise typer.BadParameter(f"must be one of: {', '.join(STATES)}", param_hint="--state")
    query = EventQuery(state=state, entity=entity, record_id=record, limit=limit)
    _print(_run(_found(instance, query)), as_json=as_json)


@app.command(epilog="Example: jobnimbus-mcp events dead")
def dead(instance: Account = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Events that some consumer has given up, with the reason."""
    rows = _run(_found(instance, EventQuery(state="dead", limit=limit)))
    if as_json:
        _print(rows, as_json=True)
        return
    for row in rows:
        told = summary(row)
        for name, part in sorted(row.consumers.items()):
            if part.state == "dead":
                print(
                    f"{told['eventId']}  {told['receivedAt']}  {row.event.name} {told['recordId']}  "
                    f"{name}: {part.reason or 'given up'} after {part.attempts} tries"
                )
    print(_what_to_do(rows), file=sys.stderr)


@app.command(epilog="Example: jobnimbus-mcp events show 019a1b2c3d4e5f60718293a4b5c6d7e8")
def show(event_id: str) -> None:
    """Everything about one event, as JSON: from its receipt to what came of it for each consumer."""
    traced = _run(_shown(event_id))
    if traced is None:
        raise _failed(f"there is no event {event_id[:40]}: never received, or removed from the archive")
    print(orjson.dumps(whole(traced), option=orjson.OPT_INDENT_2).decode())


@app.command(epilog="Example: jobnimbus-mcp events replay --all-dead")
def replay(
    event_id: Annotated[str | None, typer.Argument(help="The event; or --all-dead.")] = None,
    consumer: Annotated[str | None, typer.Option(help="For this consumer only.")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Every dead letter, at most 1,000.")] = False,
    instance: Account = None,
) -> None:
    """Dead letters are due again, with fresh tries; what was tried before stays in the trace. What was not understood
    (dead of intake) cannot be replayed."""
    if (event_id is None) is not all_dead:
        raise typer.BadParameter("name one event, or --all-dead")
    replayed = _run(_replayed(event_id, consumer, instance))
    for one, consumers in replayed:
        print(f"{one}: due again for {', '.join(consumers)}")
    if not replayed:
        raise _failed(
            "nothing to replay: no such event, or no consumer has given it up; what is dead of intake was not "
            "understood, and cannot be replayed"
        )


def _what_to_do(rows: Sequence[Traced]) -> str:
    """How many are dead, and how those are replayed that can be."""
    told = f"{len(rows)} dead"
    can = sum(row.replayable for row in rows)
    if can < len(rows):
        told += f", {len(rows) - can} of them not understood (intake), which cannot be replayed"
    return f"{told}; replay one with: jobnimbus-mcp events replay <event id>" if can else told


async def _found(instance: str | None, query: EventQuery) -> list[Traced]:
    async with _events() as events:
        rows: list[Traced] = []
        for name in _chosen(events.instances, instance):
            before: str | None = None
            found: list[Traced] = []
            while len(found) < query.limit:
                page = await events.find(name, _next(query, query.limit - len(found), before))
                found += page.events
                before = page.next_before
                if before is None:
                    break
            rows += found
        rows.sort(key=lambda row: row.event.event_id, reverse=True)
        return rows[: query.limit]


def _next(query: EventQuery, left: int, before: str | None) -> EventQuery:
    return EventQuery(
        state=query.state,
        entity=query.entity,
        record_id=query.record_id,
        since=query.since,
        limit=min(left, _AT_ONCE),
        before=before,
    )


async def _shown(event_id: str) -> Traced | None:
    if received_ms(event_id) is None:
        return None
    async with _events() as events:
        for instance in events.instances:
            traced = await events.show(instance, event_id)
            if traced is not None:
                return traced
        return None


async def _replayed(
    event_id: str | None, consumer: str | None, instance: str | None
) -> list[tuple[str, Sequence[str]]]:
    ids: list[tuple[str, str]] = []
    if event_id is None:
        rows = await _found(instance, EventQuery(state="dead", limit=1_000))
        ids = [(row.event.instance, row.event.event_id) for row in rows]
    async with _events() as events:
        if event_id is not None and received_ms(event_id) is not None:
            ids = [(name, event_id) for name in _chosen(events.instances, instance)]
        done = [(one, await events.replay(name, one, consumer)) for name, one in ids]
    return [(one, consumers) for one, consumers in done if consumers]


def _chosen(instances: Sequence[str], named: str | None) -> Sequence[str]:
    if named is None:
        return instances
    if named not in instances:
        raise SettingsError("--instance: JOBNIMBUS_INSTANCES names no such account")
    return (named,)


def _events() -> AbstractAsyncContextManager[Events]:
    settings = _settings()
    # only once the settings are known to do, since it takes longest
    from jobnimbus_mcp.app import events_of

    return events_of(settings)


def _settings() -> Settings:
    settings = Settings.from_env(os.environ, env_file=ENV_FILE)
    configure("error", settings.log_format, secrets=settings.secret_values())
    if settings.events_transport == "redis":
        for instance in settings.instances:
            if settings.store_url_of(instance) is None:
                raise SettingsError(
                    "REDIS_URL: without a Redis, events are in the memory of the server's process; ask it by "
                    "GET /cache/events"
                )
    return settings


def _run(asked: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(asked)
    except CacheUnavailable as away:
        raise _failed(away.public_message) from None


def _print(rows: Sequence[Traced], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(orjson.dumps(summary(row)).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("event", "received", "state", "account", "what", "record", "source", "tries", box=None)
    for row in rows:
        told = summary(row)
        table.add_row(
            told["eventId"],
            told["receivedAt"],
            told["state"],
            told["instance"],
            row.event.name,
            told["recordId"] or "-",
            told["source"],
            str(told["attempts"]),
        )
    # never cut: ids are there to be copied
    Console(width=180, soft_wrap=True).print(table)


def _failed(sentence: str) -> typer.Exit:
    print(f"jobnimbus-mcp: {sentence}", file=sys.stderr)
    return typer.Exit(1)
