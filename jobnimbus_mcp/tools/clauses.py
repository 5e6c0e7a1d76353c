"""Arguments that many tools share -> clauses."""

from __future__ import annotations

from jobnimbus_mcp.crm.payloads import digits_of
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Is, PhoneHas, Where, Word
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.dates import first_second, last_second

__all__ = ["date_range", "parents", "phone_query", "word_query"]

_PHONE_DIGITS_MIN = 3
_PHONE_MARKS = frozenset("0123456789 ()+-./x\u00a0\u2010\u2011\u2012\u2013\u2014\u2212")
"""What numbers are punctuated with, the spaces and dashes of word processors among it."""

_AROUND_WORDS = ',;:"\u201c\u201d'
"""Marks that stand beside a word without being part of it: `Main St, Stamford`, `"Riley Gibbs"`."""


def date_range(ctx: ToolContext, field: str, start: str | None, end: str | None, *, names: tuple[str, str]) -> Where:
    """`field` between two dates an agent wrote, both ends included; () when neither was given.

    Raises:
        InvalidInput: not dates, or the end before the start.
    """
    at_least = first_second(start, ctx.zone, field=names[0]) if start is not None else None
    at_most = last_second(end, ctx.zone, field=names[1]) if end is not None else None
    if at_least is None and at_most is None:
        return ()
    if at_least is not None and at_most is not None and at_most < at_least:
        raise InvalidInput(f"{names[1]} lies before {names[0]}.", field=names[1])
    return (Between(field, at_least, at_most),)


async def parents(
    ctx: ToolContext, *, job_id: str | None = None, contact_id: str | None = None, related_to: str | None = None
) -> tuple[Where, frozenset[str]]:
    """Clauses for "belongs to these records", and their jnids as the scope of the read.

    Raises:
        RecordNotFound: a job number that nothing carries.
    """
    ids = [parent for parent in (contact_id, related_to) if parent is not None]
    if job_id is not None:
        ids.append(await ctx.job_jnid(job_id))
    return tuple(Is("related.id", parent) for parent in ids), frozenset(ids)


def word_query(query: str, fields: tuple[str, ...], phones: tuple[str, ...] = ()) -> Where:
    """Every word of the query must occur in one of the fields; a number may also be part of a phone number.

    Raises:
        InvalidInput: nothing in the query to look for.
    """
    clauses: list[Clause] = []
    for part in query.split():
        text = part.strip(_AROUND_WORDS)
        if not any(character.isalnum() for character in text):
            continue
        word = Word(text, fields)
        digits = digits_of(text)
        if phones and len(digits) >= _PHONE_DIGITS_MIN and _PHONE_MARKS.issuperset(text):
            clauses.append(AnyOf((word, PhoneHas(digits, phones))))
        else:
            clauses.append(word)
    if not clauses:
        raise InvalidInput("query holds no word to look for.", field="query")
    return tuple(clauses)


def phone_query(query: str, phones: tuple[str, ...], fields: tuple[str, ...]) -> Where | None:
    """The clause for a query that is one phone number, in whatever format; None when it is not one."""
    digits = digits_of(query)
    if len(digits) < 7 or not _PHONE_MARKS.issuperset(query.strip()):
        return None
    written = query.strip()
    whole: tuple[Clause, ...] = (PhoneHas(digits, phones),)
    if " " not in written:
        whole = (*whole, Word(written, fields))
    return (AnyOf(whole),)
