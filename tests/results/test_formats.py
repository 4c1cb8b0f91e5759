"""Six formats of one table: values survive, hostile text stays text, LaTeX compiles."""

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.tables.formats import FORMATS, Column, Table, choose, latex_text, render

HOSTILE = '<script>alert(1)</script> | a_b & 50% $x$ #1 {y} ~^\\ " −0.3…+0.7 ± 日本 <!-- \n# new'
COLUMNS = (
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


def test_latex_text_leaves_no_special_sign_and_no_letter_that_pdflatex_lacks():
    text = latex_text(HOSTILE.replace("\n", " "))
    assert text.isascii()
    plain = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|dots)\{\}|\\[&%$#_{}]|\$[^$]*\$", "", text
    )
    assert not set("&%$#_{}~^\\<>") & set(plain)


def compile_latex(body, folder):
    document = (
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        + body
        + "\\end{document}\n"
    )
    (folder / "table.tex").write_text(document)
    return subprocess.run(
        ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("rows", [TABLE.rows, []])
def test_latex_compiles(tmp_path, rows):
    table = Table(TABLE.title, COLUMNS, rows, TABLE.notes, TABLE.provenance)
    done = compile_latex(render([table, table], "latex"), tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_a_table_wider_than_the_page_is_shrunk_to_it(tmp_path):
    columns = [Column(f"column {k}", lambda r: "51.2 [49.3–53.1]") for k in range(14)]
    done = compile_latex(render([Table("Wide", columns, [{}])], "latex"), tmp_path)
    assert done.returncode == 0 and "Overfull" not in done.stdout


def test_latex_is_booktabs_with_balanced_braces():
    text = render([TABLE], "latex")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1
    assert "\\hline" not in text
    escaped = re.sub(r"\\[{}]", "", text)
    assert escaped.count("{") == escaped.count("}")
    rows = [line for line in text.split("\n") if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1, 1, 1]


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


def test_records_have_every_raw_value_in_every_row():
    table = Table("t", COLUMNS, [{"name": "a", "n": 1}, {"name": "b", "accuracy": 0.5}])
    assert table.names == ["name", "n", "accuracy"]
    assert table.records() == [
        {"name": "a", "n": 1, "accuracy": None},
        {"name": "b", "n": None, "accuracy": 0.5},
    ]
