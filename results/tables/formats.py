"""One table, six ways to print it: terminal, Markdown, LaTeX (booktabs), CSV, JSON, HTML.

The rows of a table hold raw values by name; its columns turn a row into the text of a cell. CSV and
JSON print the raw values, the other formats the cells. Text from data sets and models is escaped in
every format: control characters appear as codes (in JSON as escapes), and a CSV text that a
spreadsheet would run as a formula begins with an apostrophe. `latex.py` escapes for LaTeX.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import nearest, visible, visible_json, visible_lines
from mapflow.results.tables.latex import lacking, latex_cell, latex_marked, latex_table

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

    @property
    def word(self) -> str:
        """The heading as a command line names it: "micro [95 % CI]" is `micro`."""
        return re.sub(r"\W+", "-", re.sub(r"\[.*?\]|[0-9]* ?%", "", self.head)).strip("-").lower()


def choose(columns: Sequence[Column[Item]], *heads: str) -> list[Column[Item]]:
    """The columns with these headings, in this order. Raises KeyError for an unknown heading."""
    by_head = {column.head: column for column in columns}
    return [by_head[head] for head in heads]


@dataclass(frozen=True)
class Marks:
    """Cells of one column that LaTeX shows in bold (`best`) or with a dagger (`tied`), by row."""

    head: str
    best: frozenset[int]
    tied: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table before it is printed.

    `rows` hold raw values by name (accuracies as fractions) and `columns` say which cells a reader
    sees. `notes` are sentences below the table. `provenance` holds (label, value) pairs that say
    what the numbers were measured on.

    `kind` tells tables of one output apart: those of one kind share a CSV file. `more` are columns
    shown on request only, `compact` the headings of a small table. `legend` explains both of
    `marks`.
    `apart` are rows that begin a new block. `caption` says that the title is the user's own,
    `label` is LaTeX's.
    """

    title: str
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = field(default=())
    kind: str = ""
    more: Sequence[Column[Row]] = ()
    compact: Sequence[str] = ()
    marks: Sequence[Marks] = ()
    legend: tuple[str, str] = ("", "")
    apart: Sequence[int] = ()
    caption: bool = False
    label: str | None = None

    @property
    def names(self) -> list[str]:
        """The names of all raw values, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def records(self) -> list[dict[str, Any]]:
        """One dictionary of raw values per row, with None for values that a row lacks.

        `pandas.DataFrame(table.records())` is the table as a data frame.
        """
        return [{name: row.get(name) for name in self.names} for row in self.rows]

    def with_columns(self, columns: Sequence[Column[Row]]) -> Table:
        """The table with these columns alone, and with the raw values that their cells read."""
        rows: list[Row] = []
        for row in self.rows:
            read = _Reads(row)
            for column in columns:
                column.show(read)
            rows.append({name: row[name] for name in read.names})
        return replace(self, columns=columns, rows=rows)

    def compacted(self) -> Table:
        """The columns of `compact`; a text that is the same in all rows moves to the title."""
        columns, same = [], []
        for column in choose([*self.columns, *self.more], *self._present(self.compact)):
            cells = {column.show(row) for row in self.rows}
            if len(cells) == 1 and column.head in ("benchmark", "baseline"):
                same.append(f"{column.head} {cells.pop()}")
            else:
                columns.append(column)
        about = [one for one in same if one.partition(" ")[2] not in self.title]
        title = f"{self.title} ({', '.join(about)})" if about else self.title
        return replace(self.with_columns(columns or self.columns), title=title)

    def _present(self, heads: Sequence[str]) -> list[str]:
        known = {column.head for column in (*self.columns, *self.more)}
        return [head for head in heads if head in known]

    def find(self, word: str) -> Column[Row] | None:
        """The column with this heading or short heading, or that of a raw value; None without."""
        wanted, every = _letters(word), [*self.columns, *self.more]
        exact = [column for column in every if column.head.lower() == word.lower()]
        short = [one for one in every if wanted in (_letters(one.head), _letters(one.word))]
        if exact or short:
            return (exact or short)[0]
        for name in self.names:
            if wanted == _letters(name):
                numbers = all(not isinstance(row.get(name), str) for row in self.rows)
                return Column(name, partial(_raw_cell, name), right=numbers)
        return None


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def _raw_cell(name: str, row: Row) -> str:
    value = row.get(name)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(plain_list(value))


class _Reads(dict[str, Any]):
    """A row that notes which of its values are read."""

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        self.names[name] = None
        return value

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]


def choose_columns(tables: Sequence[Table], words: Sequence[str]) -> list[Table]:
    """The tables with the columns that `words` name, in this order.

    A table without any of them keeps its own. Raises MapflowError for a word that no table knows.
    """
    for word in words:
        if not any(table.find(word) for table in tables):
            heads = [column.word for table in tables for column in (*table.columns, *table.more)]
            names = [name for table in tables for name in table.names]
            hint = nearest(word.lower(), [*heads, *names])
            raise MapflowError(
                f"unknown column {word!r}: {hint + ' ' if hint else ''}there are"
                f" {', '.join(dict.fromkeys(heads))};"
                f" and raw values {', '.join(dict.fromkeys(names))}"
            )
    chosen = []
    for table in tables:
        found = {one.head: one for word in words if (one := table.find(word))}
        chosen.append(table.with_columns(list(found.values())) if found else table)
    return chosen


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
    if how == "csv":
        return visible_lines("\n".join(_csv(own) for own in by_kind(tables).values()))
    one = {"terminal": _terminal, "markdown": _markdown, "latex": _latex, "html": _html}[how]
    text = visible_lines("\n".join(one(table) for table in tables))
    return (
        _HTML_PAGE.format(title=html.escape(visible(tables[0].title) if tables else ""), body=text)
        if how == "html"
        else text
    )


def by_kind(tables: Sequence[Table]) -> dict[str, list[Table]]:
    """Kind → its tables; one CSV file holds one kind."""
    kinds: dict[str, list[Table]] = {}
    for table in tables:
        kinds.setdefault(table.kind, []).append(table)
    return kinds


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


def _latex(table: Table) -> str:
    """A table environment; notes and provenance are comments, without digests of weights."""
    cells = [[_one_line(column.show(row)) for column in table.columns] for row in table.rows]
    heads = [_one_line(column.head) for column in table.columns]
    escaped = [[latex_cell(cell) for cell in row] for row in cells]
    for marks in table.marks:
        for at in [k for k, column in enumerate(table.columns) if column.head == marks.head]:
            for row in marks.best | marks.tied:
                escaped[row][at] = latex_marked(
                    escaped[row][at], best=row in marks.best, tied=row in marks.tied
                )
    caption, said = _one_line(table.title), []
    shown = [marks for marks in table.marks if marks.head in heads]
    used = (any(marks.best for marks in shown), any(marks.tied for marks in shown))
    if legend := " ".join(text for text, one in zip(table.legend, used, strict=True) if one):
        said = [f"Say in the caption: {legend}"] if table.caption else []
        caption = caption if table.caption else f"{caption}. {legend}"
    unknown = lacking("".join([caption, *heads, *(cell for row in cells for cell in row)]))
    if unknown:
        codes = ", ".join(f"[U+{ord(one):04X}] is {one}" for one in unknown)
        said.append(f"Signs that pdflatex's fonts lack stand as codes: {codes}.")
    said += [_one_line(note) for note in table.notes]
    said += [
        re.sub(r"; digest [0-9a-f]+", "", _one_line(f"{label}: {value}"))
        for label, value in table.provenance
    ]
    return latex_table(
        heads,
        escaped or [["--"] * len(heads)],
        [column.right for column in table.columns],
        apart=table.apart,
        caption=caption,
        label=table.label,
        comments=said,
    )


def _csv(tables: Sequence[Table]) -> str:
    """Raw values of tables of one kind; title, notes and provenance are lines that begin with #."""
    text = io.StringIO()
    for table in tables:
        for line in (
            table.title,
            *table.notes,
            *(f"{label}: {value}" for label, value in table.provenance),
        ):
            text.write(f"# {' '.join(line.split())}\n")
    names = dict.fromkeys(name for table in tables for name in table.names)
    writer = csv.DictWriter(text, list(names), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(
        {name: plain_cell(value) for name, value in record.items()}
        for table in tables
        for record in table.records()
    )
    return text.getvalue()


def plain_list(value: Any) -> Any:
    """A list as its items with spaces between; any other value as it is."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def plain_cell(value: Any) -> Any:
    """A CSV cell; text that a spreadsheet would run gets an apostrophe (OWASP, CSV injection)."""
    text = plain_list(value)
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
