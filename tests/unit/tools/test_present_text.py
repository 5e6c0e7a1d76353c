"""HTML in notes as readable text, and text that only looks like it as it is."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.tools.plain_text import plain_text


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("<p>Hello <b>Dana</b>,</p>\n<p>the crew comes at 8.</p>", "Hello Dana,\nthe crew comes at 8."),
        ("one<br>two<br/>three<br />four", "one\ntwo\nthree\nfour"),
        ("<ul><li>ridge</li><li>valley</li></ul>", "- ridge\n- valley"),
        ("<table><tr><td>SQ</td><td>32</td></tr><tr><td>LF</td><td>8</td></tr></table>", "SQ 32\nLF 8"),
        ("Smith &amp; Sons&nbsp;&#39;24 &lt;ok&gt;", "Smith & Sons\u00a0'24 <ok>"),
        ("<P CLASS='x'>UPPER</P>", "UPPER"),
        ("<style>p { color: red }</style><p>kept</p><script>if (a < b) alert('<p>')</script>", "kept"),
        ("<script>never closed", ""),
        ("<!-- hidden <b>too</b> -->seen", "seen"),
        ("<img src='x.png' alt='Ridge'> photo", "Ridge photo"),
        ("<p>  spaced \t out  </p>", "spaced out"),
        ("&lt;script&gt; is only written of", "<script> is only written of"),
    ],
)
def test_markup_becomes_lines_and_words(stored: str, shown: str) -> None:
    assert plain_text(stored) == shown


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (
            'See <a href="https://x.example/q?a=1&amp;b=2">the quote</a>.',
            "See the quote [https://x.example/q?a=1&b=2].",
        ),
        ("<a href='https://x.example/q'>https://x.example/q</a>", "https://x.example/q"),
        ("<a href=mailto:dana@example.com>dana@example.com</a>", "dana@example.com"),
        ("<a href=tel:5550100>call</a>", "call [tel:5550100]"),
        ("<a href='javascript:alert(1)'>here</a>", "here"),
        ("<a name='top'>here</a>", "here"),
        (
            "<a href='https://a.example'>one<a href='https://b.example'>two",
            "one [https://a.example]two [https://b.example]",
        ),
    ],
)
def test_a_link_keeps_where_it_leads_unless_its_words_say_so(stored: str, shown: str) -> None:
    assert plain_text(stored) == shown


@pytest.mark.parametrize(
    "text",
    [
        "roof < 20 SQ, pitch > 4",
        "Dana Whitfield <dana@example.com>",
        "owner: <none>, gate <code-7>",
        "AT&T, R&D; a=1&copy=2",
        "two\n\n  paragraphs  as typed\n",
        "1 <",
        "",
    ],
)
def test_what_only_looks_like_markup_is_left_as_it_was(text: str) -> None:
    assert plain_text(text) == text


@given(st.text())
def test_text_written_as_html_is_read_as_it_was_meant(text: str) -> None:
    """The law: what was escaped comes back."""
    assert plain_text(html.escape(text)) == text
