"""Formats of one table: values survive, hostile text stays text, columns are chosen."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.tables.formats import (
    FORMATS,
    Column,
    Row,
    Table,
    choose,
    choose_columns,
    render,
)

HOSTILE = '<script>alert(1)</script> | a_b & 50% $x$ #1 {y} ~^\\ " −0.3…+0.7 ± 日本 <!-- \n# new'
COLUMNS: tuple[Column[Row], ...] = (
    Column("name | <b>", lambda r: r["name"], right=False),
    Column("accuracy %", lambda r: f"{100 * r['accuracy']:.1f}"),
)
TABLE = Table(
    f"Title {HOSTILE}",
    COLUMNS,
    [{"name": HOSTILE, "accuracy": 0.51249}, {"name": "007", "accuracy": 1 / 3}],
    [f"Note {HOSTILE}"],
    [("model", HOSTILE)],
)


def test_csv_and_json_keep_raw_values():
    lines = render([TABLE], "csv").split("\n")
    assert all(line.startswith("# ") for line in lines[:3]) and not lines[3].startswith("#")
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[3:]))))
    assert [float(row["accuracy"]) for row in rows] == [0.51249, 1 / 3]
    assert [row["name"] for row in rows] == [HOSTILE, "007"]
    (table,) = json.loads(render([TABLE], "json"))
    assert table["rows"] == [dict(row) for row in TABLE.rows]
    assert table["provenance"] == [["model", HOSTILE]]


def test_markdown_rows_keep_their_number_of_columns_and_hold_no_tag():
    text = render([TABLE], "markdown")
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert "<script" not in text and "51.2" in text


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_html_shows_hostile_text_as_text():
    page = Tags()
    page.feed(render([TABLE], "html"))
    assert "script" not in page.tags and page.tags.count("tr") == 3
    assert "<script>alert(1)</script>" in page.text


def test_terminal_shows_what_a_reader_sees():
    text = render([TABLE], "terminal")
    assert "51.2" in text and "33.3" in text and "0.51249" not in text and "007" in text


def test_an_unknown_format_is_refused():
    with pytest.raises(MapflowError, match="unknown format 'pdf': use one of terminal"):
        render([TABLE], "pdf")


@pytest.mark.parametrize("how", FORMATS)
def test_no_rows_are_no_crash(how):
    assert render([Table("empty", COLUMNS, [])], how)


def test_columns_are_chosen_by_their_heading():
    assert choose(COLUMNS, "accuracy %", "name | <b>") == [COLUMNS[1], COLUMNS[0]]
    with pytest.raises(KeyError, match="absent"):
        choose(COLUMNS, "absent")


CHOSEN = Table(
    "t",
    (
        Column("intervention", lambda r: r["name"], right=False),
        Column("micro [95 % CI]", lambda r: f"{r['micro']} {r['low']}"),
        Column("p (Holm)", lambda r: str(r.get("p_holm"))),
    ),
    [
        {"name": "a", "micro": 0.5, "low": 0.25, "p_holm": 0.1, "hidden": 7},
        {"name": "b"} | dict(micro=1, low=1),
    ],
    more=(Column("protocol", lambda r: "paper", right=False),),
)


@pytest.mark.parametrize(
    ("words", "heads", "names"),
    [
        (["p-holm", "intervention"], ["p (Holm)", "intervention"], ["p_holm", "name"]),
        (["P_Holm", "MICRO"], ["p (Holm)", "micro [95 % CI]"], ["p_holm", "micro", "low"]),
        (["p (Holm)", "p-holm", "hidden"], ["p (Holm)", "hidden"], ["p_holm", "hidden"]),
        (["protocol", "micro [95 % CI]"], ["protocol", "micro [95 % CI]"], ["micro", "low"]),
    ],
)
def test_columns_are_found_by_heading_or_raw_value_in_every_format(words, heads, names):
    (table,) = choose_columns([CHOSEN], words)
    assert [column.head for column in table.columns] == heads and table.names == names
    header = render([table], "csv").split("# t\n")[1].splitlines()[0]
    assert header.split(",") == names
    assert render([table], "latex").split("\\toprule\n")[1].count("&") == 3 * (len(heads) - 1)
    assert set(json.loads(render([table], "json"))[0]["rows"][0]) == set(names)


def test_a_whole_heading_comes_before_a_short_one():
    errors = Table("t", [Column("n %", lambda r: "1"), Column("n", lambda r: "2")], [{"n": 2}])
    for word, head in (("n", "n"), ("N", "n"), ("n %", "n %")):
        assert choose_columns([errors], [word])[0].columns[0].head == head


def test_an_unknown_column_gets_a_suggestion_and_a_table_without_it_keeps_its_own():
    with pytest.raises(MapflowError, match="unknown column 'intervnetion': did you mean 'interven"):
        choose_columns([CHOSEN], ["micro", "intervnetion"])
    other = Table("u", [Column("x", lambda r: "1")], [{"x": 1}])
    found = choose_columns([CHOSEN, other], ["micro"])
    assert [len(table.columns) for table in found] == [1, 1] and found[1] is other


def test_one_csv_holds_tables_of_one_kind_alone():
    again = Table("again", CHOSEN.columns, [{"name": "c", "other": 3}])
    subtasks = Table("by subtask", CHOSEN.columns, [{"subtask": "s"}], kind="subtasks")
    first, second = render([CHOSEN, subtasks, again], "csv").split("\n\n")
    rows = list(csv.DictReader(line for line in first.splitlines() if line[0] != "#"))
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert [row["other"] for row in rows] == ["", "", "3"] and "# again" in first
    assert "subtask\ns\n" in second


def test_records_have_every_raw_value_in_every_row():
    table = Table("t", COLUMNS, [{"name": "a", "n": 1}, {"name": "b", "accuracy": 0.5}])
    assert table.names == ["name", "n", "accuracy"]
    assert table.records() == [
        {"name": "a", "n": 1, "accuracy": None},
        {"name": "b", "n": None, "accuracy": 0.5},
    ]
