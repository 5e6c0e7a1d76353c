"""Text that may hold HTML, as readable text.

Source: JobNimbus API documentation, notes: "text; may hold HTML and newlines". What only looks like HTML stays: a tag
counts when it is one of HTML's own names, so "roof < 20 sq", "<dana@example.com>" and "<none>" are what they were.
"""

from __future__ import annotations

import html
import re

__all__ = ["plain_text"]

_BLOCK_NAMES = (
    "address article aside blockquote br center dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr li main nav ol p pre section table tbody tfoot thead tr ul"
)
_INLINE_NAMES = (
    "a abbr acronym b bdi bdo big body button caption cite code col colgroup del dfn em embed font html i iframe img "
    "input ins kbd label legend link mark meta object option param q s samp select small span strike strong sub sup "
    "svg td textarea th time tt u var video wbr"
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_INLINE = frozenset(_INLINE_NAMES.split())

# each piece is looked for from one "<" on and ends at the next "<" at the latest, or takes all that is left: no text
# makes this slower than its length
_MARKUP = re.compile(
    r"""<!--.*?(?:-->|\Z)
      | <!doctype[^<>]*>
      | <(?P<dropped>script|style|head|title)\b[^<>]*>.*?(?:</(?P=dropped)\s*>|\Z)
      | <(?P<end>/?)(?P<tag>[a-z][a-z0-9]*)(?=[\s/>])(?P<rest>[^<>]*)>""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_HREF = re.compile(r"""\bhref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_ALT = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SPACES = re.compile(r"[ \t\f\v\u00a0]+")
_LINES = re.compile(r" ?(?:[\r\n] ?)+")
_LINKS = ("http://", "https://", "mailto:", "tel:")


def plain_text(text: str) -> str:
    """The text without markup: blocks on lines of their own, entities decoded, links with their URL in brackets.

    Scripts, styles and comments are dropped. Text without markup and entities is returned as it is.
    """
    if "<" in text and (found := _without_markup(text)) is not None:
        return _LINES.sub("\n", _SPACES.sub(" ", _decoded(found))).strip()
    return _decoded(text)


def _decoded(text: str) -> str:
    # only what ends with its semicolon: "AT&T" and "a=1&copy=2" are no entities
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text) if "&" in text else text


def _without_markup(text: str) -> str | None:
    """The text without its tags; None when it has none."""
    pieces: list[str] = []
    at, found = 0, False
    url, linked_from = "", 0
    for match in _MARKUP.finditer(text):
        tag = (match["tag"] or "").lower()
        if tag and tag not in _BLOCKS and tag not in _INLINE:
            continue
        found = True
        pieces.append(text[at : match.start()])
        at = match.end()
        if tag == "a":
            if url:
                pieces += _told(url, "".join(pieces[linked_from:]))
            url, linked_from = ("" if match["end"] else _value(_HREF, match["rest"])), len(pieces)
        elif tag == "img":
            pieces.append(_value(_ALT, match["rest"]))
        elif tag in ("td", "th"):
            pieces.append(" ")
        elif tag == "li" and not match["end"]:
            pieces.append("\n- ")
        elif tag in _BLOCKS:
            pieces.append("\n")
    pieces.append(text[at:])
    if url:
        pieces += _told(url, "".join(pieces[linked_from:]))
    return "".join(pieces) if found else None


def _told(url: str, words: str) -> list[str]:
    """What to add behind a link's words: its URL, unless they say it already or it leads nowhere."""
    address = html.unescape(url).strip()
    if not address.lower().startswith(_LINKS) or address.split(":", 1)[1].strip("/") in words:
        return []
    return [f" [{url.strip()}]"]


def _value(pattern: re.Pattern[str], attributes: str) -> str:
    match = pattern.search(attributes)
    return next((value for value in match.groups() if value is not None), "") if match else ""
