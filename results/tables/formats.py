"""One table, six ways to print it: terminal, Markdown, LaTeX (booktabs), CSV, JSON, HTML.

The rows of a table hold raw values by name; its columns turn a row into the text of a cell. CSV and
JSON print the raw values, the other formats the cells. Text from data sets and models is escaped in
every format: control characters appear as codes (in JSON as escapes), and a CSV text that a
spreadsheet would run as a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import visible, visible_json, visible_lines

FORMATS = ("terminal", "markdown", "latex", "csv", "json", "html")
Row = Mapping[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Column(Generic[Item]):
    """One column: its heading, how to make the text of a cell from an item, and its alignment.

    The heading is also the name by which `choose` finds the column.
    """

    head: str
    show: Callable[[Item], str]
    right: bool = True


def choose(columns: Sequence[Column[Item]], *heads: str) -> list[Column[Item]]:
    """The columns with these headings, in this order. Raises KeyError for an unknown heading."""
    by_head = {column.head: column for column in columns}
    return [by_head[head] for head in heads]


@dataclass(frozen=True)
class Table:
    """A table before it is printed.

    `rows` hold raw values by name (accuracies as fractions) and `columns` say which cells a reader
    sees. `notes` are sentences below the table. `provenance` holds (label, value) pairs that say
    what the numbers were measured on.
    """

    title: str
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = field(default=())

    @property
    def names(self) -> list[str]:
        """The names of all raw values, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def records(self) -> list[dict[str, Any]]:
        """One dictionary of raw values per row, with None for values that a row lacks.

        `pandas.DataFrame(table.records())` is the table as a data frame.
        """
        return [{name: row.get(name) for name in self.names} for row in self.rows]


def render(tables: Sequence[Table], how: str) -> str:
    """All tables as one text that ends with a newline.

    Raises MapflowError for a format outside `FORMATS`.
    """
    if how not in FORMATS:
        raise MapflowError(f"unknown format {how!r}: use one of {', '.join(FORMATS)}")
    if how == "json":
        values = [_as_json(table) for table in tables]
        return (
            visible_json(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"
        )
    one = {
        "terminal": _terminal,
        "markdown": _markdown,
        "latex": _latex,
        "csv": _csv,
        "html": _html,
    }[how]
    text = visible_lines("\n".join(one(table) for table in tables))
    return (
        _HTML_PAGE.format(title=html.escape(visible(tables[0].title) if tables else ""), body=text)
        if how == "html"
        else text
    )


def html_table(table: Table) -> str:
    """The table without title and notes, escaped, for a page with its own `<head>`."""
    return visible_lines(_grid(table.columns, table.rows, "html"))


def text_table(columns: Sequence[Column[Item]], items: Sequence[Item]) -> str:
    """Columns of text for a terminal, one line per item."""
    return _grid(columns, items, "simple")


def _grid(
    columns: Sequence[Column[Item]],
    items: Sequence[Item],
    style: str,
    escape: Callable[[str], str] = str,
) -> str:
    from tabulate import tabulate  # not above: `--help` lists FORMATS and prints no table

    cells = [[escape(_one_line(column.show(item))) for column in columns] for item in items]
    # tabulate cannot align a table without rows, so an empty one gets a row of dashes.
    cells = cells or [[escape("–")] * len(columns)]
    return tabulate(
        cells,
        [escape(column.head) for column in columns],
        tablefmt=style,
        colalign=["right" if column.right else "left" for column in columns],
        disable_numparse=True,
    )


def _terminal(table: Table) -> str:
    below = [_one_line(note) for note in table.notes]
    below += [_one_line(f"{label}: {value}") for label, value in table.provenance]
    return "\n".join(
        [_one_line(table.title), "", _grid(table.columns, table.rows, "simple"), "", *below, ""]
    )


def _markdown(table: Table) -> str:
    notes = [f"- {_markdown_text(note)}" for note in table.notes]
    provenance = [
        f"- {_markdown_text(label)}: {_markdown_text(value)}" for label, value in table.provenance
    ]
    parts = [
        f"### {_markdown_text(table.title)}",
        _grid(table.columns, table.rows, "pipe", _markdown_text),
    ]
    parts += ["\n".join(notes)] if notes else []
    parts += ["Measured on:\n\n" + "\n".join(provenance)] if provenance else []
    return "\n\n".join(parts) + "\n"


def _markdown_text(text: str) -> str:
    """Escapes text so that Markdown shows it on one line, without columns, tags or links."""
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", html.escape(_one_line(text), quote=False))


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "…": r"\dots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "²": r"$^2$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    **{sign: "\\" + sign for sign in "&%$#_"},
}


def latex_text(text: str) -> str:
    """Escapes text for pdflatex; characters that it may lack become code points."""
    return "".join(
        _LATEX.get(sign, sign if 32 <= ord(sign) < 127 else f"[U+{ord(sign):04X}]") for sign in text
    )


def _latex(table: Table) -> str:
    """A table environment, shrunk to the line width; notes and provenance in footnote size."""
    body = _grid(table.columns, table.rows, "latex_raw", latex_text)
    rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
    body = re.sub(r"\\hline", lambda _: next(rules), body)
    small = [latex_text(note) for note in table.notes]
    small += [f"{latex_text(label)}: {latex_text(value)}" for label, value in table.provenance]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(table.title)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            body + "}",
            *(rf"\par\smallskip{{\footnotesize\raggedright {line}\par}}" for line in small),
            r"\end{table}",
            "",
        ]
    )


def _csv(table: Table) -> str:
    """Raw values; title, notes and provenance are lines that begin with #."""
    text = io.StringIO()
    for line in (
        table.title,
        *table.notes,
        *(f"{label}: {value}" for label, value in table.provenance),
    ):
        text.write(f"# {' '.join(line.split())}\n")
    writer = csv.DictWriter(text, table.names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: plain_cell(value) for name, value in record.items()} for record in table.records()
    )
    return text.getvalue()


def plain_cell(value: Any) -> Any:
    """A CSV cell; text that a spreadsheet would run gets an apostrophe (OWASP, CSV injection)."""
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(tuple("=+-@\t\r")) else text


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def _as_json(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "rows": [dict(row) for row in table.rows],
        "notes": list(table.notes),
        "provenance": [list(pair) for pair in table.provenance],
    }


_HTML_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 14px system-ui, sans-serif; margin: 2em }}\
 table {{ border-collapse: collapse }}
th, td {{ padding: .3em .8em; border-bottom: 1px solid #ddd }}\
 .notes {{ color: #555; font-size: 12px }}</style></head>
<body>
{body}</body></html>
"""


def _html(table: Table) -> str:
    below = [*table.notes, *(f"{label}: {value}" for label, value in table.provenance)]
    notes = "".join(f"<li>{html.escape(line)}</li>\n" for line in below)
    head = f"<h2>{html.escape(table.title)}</h2>\n{html_table(table)}"
    return f"{head}\n<ul class='notes'>\n{notes}</ul>\n"
