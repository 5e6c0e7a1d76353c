"""Pages as tables of text: one record a line, whatever its values hold, and within the budget."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools.layout import Layout
from jobnimbus_mcp.tools.shape import Projection, size_bytes
from jobnimbus_mcp.tools.table_text import columns_of, line_of


def test_a_page_is_a_header_and_a_line_for_each_record() -> None:
    rows: list[dict[str, Any]] = [
        {
            "jnid": "j1",
            "name": "Re-roof",
            "total": 17_800,
            "is_archived": False,
            "owners": [{"id": "u1", "name": "Robin"}],
        },
        {"jnid": "j2", "total": 1_234.5, "tags": ["hail", "rush"], "primary": {"id": "c1", "name": "Dana"}},
    ]

    assert Layout("table", ("jnid", "name", "primary", "owners", "total", "tags", "is_archived", "never")).body(
        rows
    ) == {
        "columns": ["jnid", "name", "primary", "owners", "total", "tags", "is_archived"],
        "table": "jnid | name | primary | owners | total | tags | is_archived\n"
        "j1 | Re-roof |  | Robin | 17,800 |  | false\n"
        "j2 |  | Dana |  | 1,234.50 | hail, rush | ",
    }


@pytest.mark.parametrize(
    ("name", "value", "cell"),
    [
        ("note", "one\r\ntwo\tthree\u2028four", "one two three four"),
        ("note", "a|b | c", "a\\|b \\| c"),
        ("number", 1042, "1042"),
        ("price", 0.125, "0.125"),
        ("total", -1_200_000, "-1,200,000"),
        ("owners", [{"id": "u9"}, {"id": "u1", "name": "Robin"}], "u9, Robin"),
        ("geo", {"lat": 39.6, "lon": -104.9}, "lat: 39.6; lon: -104.9"),
        ("location", {"id": 1}, "1"),
        (
            "uoms",
            [{"uom": "SQ", "material": {"cost": 210, "price": 1385}}],
            "uom: SQ; material: cost: 210; price: 1,385",
        ),
        ("name", None, ""),
        ("is_archived", True, "true"),
    ],
)
def test_a_cell_is_short_text_on_one_line(name: str, value: Any, cell: str) -> None:
    assert line_of({name: value}, [name]) == cell


def test_columns_stand_in_the_order_asked_for_and_only_where_some_record_has_them() -> None:
    rows = [{"primary": {"id": "c1"}, "a.b": 1}, {"number": "7"}]

    assert columns_of(rows, ("number", "primary.id", "primary.name", "a.b", "gone")) == ["number", "primary", "a.b"]
    assert columns_of(rows) == ["primary", "a.b", "number"]


NAMES = st.sampled_from(["jnid", "name", "note", "total", "number"])
ROWS = st.lists(
    st.dictionaries(NAMES, st.text(max_size=30) | st.integers(-9999, 9999), min_size=1), min_size=1, max_size=6
)


@given(ROWS)
def test_every_line_splits_into_its_cells_whatever_they_hold(rows: list[dict[str, Any]]) -> None:
    body = Layout("table", None).body(rows)

    header, *lines = body["table"].split("\n")
    assert header.split(" | ") == body["columns"]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.replace("\\|", "|") for cell in line.split(" | ")]
        said = {name: cell for name, cell in zip(body["columns"], cells, strict=True) if isinstance(row.get(name), str)}
        assert said == {name: " ".join(value.split()) for name, value in row.items() if isinstance(value, str)}


@given(ROWS, st.integers(0, 400))
def test_as_many_lines_are_shown_as_fit_and_one_more_of_the_same_columns_would_not(
    rows: list[dict[str, Any]], budget: int
) -> None:
    layout = Layout("table", None)

    fitting = layout.fit(rows, budget)

    def spent(many: int) -> int:
        columns = columns_of(rows)
        lines = [line_of({name: name for name in columns}, columns), *(line_of(row, columns) for row in rows[:many])]
        return size_bytes(columns) + size_bytes("\n".join(lines))

    assert fitting == 0 or spent(fitting) <= budget
    assert fitting == len(rows) or spent(fitting + 1) > budget


def test_a_record_too_large_for_a_page_of_its_own_is_cut_until_its_table_fits() -> None:
    row = {"jnid": "j1", "name": "n" * 300, "description": "d" * 5_000, "number": "1042", "status_name": "s" * 200}
    projection = Projection(Entity.JOBS)

    kept, omitted = Layout("table", projection.paths).fit_one(row, projection, 700)

    assert kept["jnid"] == "j1"
    assert "description" in omitted
    body = Layout("table", projection.paths).body([kept])
    assert size_bytes(body["columns"]) + size_bytes(body["table"]) <= 700
    assert len(kept) >= 3
