"""How the search index takes a field's value apart: keywords as they are, text into lower-cased tokens.

JobNimbus documents no mapping. What is known: `term` on text wants lower case, ids and `number` match exactly,
`term` on an e-mail address or a phone works with the whole value. The table here is the smallest that agrees.
"""

from __future__ import annotations

import re
from enum import Enum

__all__ = ["Analysis", "analysis_of", "tokens"]


class Analysis(Enum):
    """KEYWORD: the value, case kept. TEXT: lower-cased tokens. WHOLE: tokens and the whole value, lower-cased."""

    KEYWORD = "keyword"
    TEXT = "text"
    WHOLE = "whole"


# By the last segment of the path, so that `related.number` and `number` are read alike.
_KEYWORDS = frozenset(
    {
        "all_day_end_date",
        "all_day_start_date",
        "attachment_id",
        "class_id",
        "created_by",
        "customer",
        "duplicate_from_id",
        "external_id",
        "guid",
        "id",
        "image_id",
        "jnid",
        "last_estimate_jnid",
        "last_estimate_number",
        "last_invoice_jnid",
        "last_invoice_number",
        "md5",
        "merged",
        "number",
        "open_edge_id",
        "sales_rep",
        "template_id",
        "type",
    }
)
_WHOLES = frozenset(
    {
        "email",
        "fax_number",
        "home_phone",
        "mobile_phone",
        "parent_fax_number",
        "parent_home_phone",
        "parent_mobile_phone",
        "parent_work_phone",
        "work_phone",
    }
)

# Word boundaries of Elasticsearch's standard analyser, near enough: a full stop or apostrophe between letters, and a
# full stop or comma between digits, do not end a token ("example.com", "o'brien", "3.5"); a hyphen does ("06902-1234").
_TOKEN = re.compile(r"\w+(?:(?:(?<=[^\W\d_])[.'\u2019](?=[^\W\d_])|(?<=\d)[.,](?=\d))\w+)*")


def analysis_of(path: str) -> Analysis:
    """How string values under this (dotted) path are indexed."""
    name = path.rpartition(".")[2]
    if name in _KEYWORDS:
        return Analysis.KEYWORD
    return Analysis.WHOLE if name in _WHOLES else Analysis.TEXT


def tokens(text: str) -> list[str]:
    """The text's words, lower-cased, in order."""
    return _TOKEN.findall(text.lower())
