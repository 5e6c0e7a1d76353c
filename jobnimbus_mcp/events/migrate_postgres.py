"""Brings a database to the tables and functions this release needs; safe to repeat, and for many processes at once."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from jobnimbus_mcp.errors import SettingsError

if TYPE_CHECKING:
    import asyncpg

__all__ = ["migrate", "migrations", "queue_sql"]

_LOCK = 7_464_001
"""Of PostgreSQL's advisory locks; any number nobody else uses in this database."""
_NEEDED = ("pgmq.read_grouped_head(text,integer,integer)", "pgmq.set_vt(text,bigint[],timestamp with time zone)")


def migrations() -> list[tuple[int, str, str]]:
    """(version, name, SQL), in their order."""
    found = []
    for file in files("jobnimbus_mcp.events.sql").iterdir():
        if numbered := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            found.append((int(numbered[1]), numbered[2], file.read_text(encoding="utf-8")))
    return sorted(found)


def queue_sql() -> str:
    """The SQL of pgmq, which its Python package carries. The package is not imported: it would bring another driver."""
    spec = find_spec("pgmq")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("Events in PostgreSQL need the package pgmq: pip install '.[postgres]' in the clone.")
    return (Path(spec.submodule_search_locations[0]) / "sql" / "pgmq.sql").read_text(encoding="utf-8")


async def migrate(connection: asyncpg.Connection) -> int:
    """The version the database has afterwards; a later one than ours is left as it is, for the sake of rolling updates.

    Raises:
        SettingsError: its queues are of a pgmq too old.
        asyncpg.PostgresError: among others, the role may not make schemas.
    """
    wanted = migrations()
    version = await _version(connection)
    if version >= wanted[-1][0]:
        return version
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute("create schema if not exists jobnimbus_mcp")
        await connection.execute(
            "create table if not exists jobnimbus_mcp.migrations"
            " (version integer primary key, name text not null, applied_at timestamptz not null default now())"
        )
        if await connection.fetchval("select to_regnamespace('pgmq') is null"):
            await connection.execute(queue_sql())
        for function in _NEEDED:
            if await connection.fetchval("select to_regprocedure($1) is null", function):
                raise SettingsError("The database has a pgmq that is too old: 1.13 or later is needed.")
        version = await _version(connection)
        for number, name, sql in wanted:
            if number > version:
                await connection.execute(sql)
                await connection.execute(
                    "insert into jobnimbus_mcp.migrations (version, name) values ($1, $2)", number, name
                )
                version = number
    return version


async def _version(connection: asyncpg.Connection) -> int:
    if await connection.fetchval("select to_regclass('jobnimbus_mcp.migrations') is null"):
        return 0
    return int(await connection.fetchval("select coalesce(max(version), 0) from jobnimbus_mcp.migrations"))
