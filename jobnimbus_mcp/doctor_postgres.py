"""Asks the PostgreSQL that keeps the events about itself, for doctor; nothing is made there."""

from __future__ import annotations

import asyncio
from typing import Any

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.doctor import EventFacts, EventsAway
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events.log_postgres import PostgresEvents
from jobnimbus_mcp.events.migrate_postgres import migrations
from jobnimbus_mcp.events.ports import EventsUnavailable

__all__ = ["event_facts"]


async def event_facts(dsn: str, instance: str, *, clock: Clock, timeout_s: float = 5.0) -> EventFacts:
    """The facts of one account's events in the database at `dsn`.

    Raises:
        EventsAway: not reachable, it refuses the credentials, or what it needs is not installed; the message holds no
            credential.
    """
    try:
        log = PostgresEvents(dsn, clock=clock, instances=(instance,), connections=1, command_timeout_s=timeout_s)
    except SettingsError as missing:
        raise EventsAway(missing.public_message.removesuffix(".")) from missing
    try:
        durable, version, may_make = await _looked(dsn, timeout_s)
        if version < migrations()[-1][0]:
            if not may_make:
                raise EventsAway("its tables are not of this release, and the role may not make them; grant it CREATE")
            return EventFacts(durable=durable, lags=None)
        # its tables are as they should be, so this makes none
        return EventFacts(durable=durable, lags=await log.lag(instance))
    except EventsUnavailable as away:
        raise EventsAway(away.detail or "no answer in time") from away
    finally:
        await log.aclose()


async def _looked(dsn: str, timeout_s: float) -> tuple[bool, int, bool]:
    """Whether what is committed is on the disk, the version of the tables (0: none), and whether tables can be made."""
    import asyncpg  # an extra; that it is there has been seen

    try:
        async with asyncio.timeout(timeout_s):
            connection = await asyncpg.connect(dsn, timeout=timeout_s, command_timeout=timeout_s)
            try:
                row: Any = await connection.fetchrow(_FACTS)
                version = await connection.fetchval(_VERSION) if row["prepared"] else 0
            finally:
                await connection.close(timeout=timeout_s)
    except asyncpg.InvalidAuthorizationSpecificationError as refused:  # a wrong password is one of these
        raise EventsAway("it refuses the role or its password") from refused
    except asyncpg.InvalidCatalogNameError as absent:
        raise EventsAway("it has no such database") from absent
    except TimeoutError as late:
        raise EventsAway("no answer in time") from late
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as failed:
        raise EventsAway(type(failed).__name__) from failed
    return bool(row["durable"]), int(version), bool(row["may_make"])


_FACTS = """
select current_setting('fsync') = 'on' and current_setting('full_page_writes') = 'on'
       and current_setting('synchronous_commit') <> 'off' as durable,
       to_regclass('jobnimbus_mcp.migrations') is not null as prepared,
       has_database_privilege(current_database(), 'create') as may_make
"""
_VERSION = "select coalesce(max(version), 0) from jobnimbus_mcp.migrations"
