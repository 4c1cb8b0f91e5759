"""One table, six ways to print it: terminal, Markdown, LaTeX (booktabs), CSV, JSON, HTML.

A table's rows hold raw values and its columns say how a reader sees them; CSV and JSON give the raw values, the others
what a reader sees. Text is text in all of them: characters that act on a screen are shown as codes, in JSON as escapes;
in CSV a text that a spreadsheet would take for a formula begins with an apostrophe. tabulate draws wherever it can.
Knows nothing of runs and statistics.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import visible, visible_json, visible_lines

FORMATS = ("terminal", "markdown", "latex", "csv", "json", "html")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """`show` makes a row's text; texts that are numbers stand on the right."""

    head: str
    show: Callable[[Row], str]
    right: bool = True


@dataclass(frozen=True)
class Table:
    """`rows` are raw values by name (accuracies as fractions), `columns` what a reader sees of them, `notes` sentences
    below the table, `provenance` (label, value) pairs: what the numbers were measured on."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = field(default=())

    @property
    def heads(self) -> list[str]:
        return [column.head for column in self.columns]

    @property
    def cells(self) -> list[list[str]]:
        """What a reader sees, on one line each."""
        return [[_one_line(column.show(row)) for column in self.columns] for row in self.rows]

    @property
    def alignment(self) -> list[str]:
        return ["right" if column.right else "left" for column in self.columns]


def render(tables: Sequence[Table], how: str) -> str:
    """All tables as one text that ends with a newline. Raises MapflowError for a format that is none of `FORMATS`."""
    if how not in FORMATS:
        raise MapflowError(f"no format {how!r}; there are {', '.join(FORMATS)}")
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
    """The table alone, escaped, for a page that has its own head."""
    return visible_lines(_tabulate(table, "html"))


def _tabulate(table: Table, style: str, escape: Callable[[str], str] = str) -> str:
    # Without rows tabulate knows no columns, and LaTeX none to align.
    cells = table.cells or [["–"] * len(table.columns)]
    return tabulate(
        [[escape(cell) for cell in row] for row in cells],
        [escape(head) for head in table.heads],
        tablefmt=style,
        colalign=table.alignment,
        disable_numparse=True,
    )


def _terminal(table: Table) -> str:
    below = [_one_line(note) for note in table.notes]
    below += [_one_line(f"{label}: {value}") for label, value in table.provenance]
    return "\n".join([_one_line(table.title), "", _tabulate(table, "simple"), "", *below, ""])


def _markdown(table: Table) -> str:
    notes = [f"- {_markdown_text(note)}" for note in table.notes]
    provenance = [
        f"- {_markdown_text(label)}: {_markdown_text(value)}" for label, value in table.provenance
    ]
    parts = [f"### {_markdown_text(table.title)}", _tabulate(table, "pipe", _markdown_text)]
    parts += ["\n".join(notes)] if notes else []
    parts += ["Measured on:\n\n" + "\n".join(provenance)] if provenance else []
    return "\n\n".join(parts) + "\n"


def _markdown_text(text: str) -> str:
    """As text on one line: neither a new column nor a tag nor emphasis nor a link."""
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
    """As text for pdflatex; letters that it may lack become their code point, so that a table always compiles."""
    return "".join(
        _LATEX.get(sign, sign if 32 <= ord(sign) < 127 else f"[U+{ord(sign):04X}]") for sign in text
    )


def _latex(table: Table) -> str:
    """A table environment, shrunk to the line where it is wider; small print below says what it was measured on."""
    body = _tabulate(table, "latex_raw", latex_text)
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
    """Raw values; several tables are blocks with an empty line between. Provenance and notes are # lines."""
    names = list(dict.fromkeys(name for row in table.rows for name in row))
    text = io.StringIO()
    for line in (
        table.title,
        *table.notes,
        *(f"{label}: {value}" for label, value in table.provenance),
    ):
        text.write(f"# {' '.join(line.split())}\n")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: plain_cell(row.get(name)) for name in names} for row in table.rows)
    return text.getvalue()


def plain_cell(value: Any) -> Any:
    """Texts that spreadsheets would run begin with an apostrophe, which they show as text (OWASP, CSV injection)."""
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
<style>body {{ font: 14px system-ui, sans-serif; margin: 2em }} table {{ border-collapse: collapse }}
th, td {{ padding: .3em .8em; border-bottom: 1px solid #ddd }} .notes {{ color: #555; font-size: 12px }}</style></head>
<body>
{body}</body></html>
"""


def _html(table: Table) -> str:
    below = [*table.notes, *(f"{label}: {value}" for label, value in table.provenance)]
    notes = "".join(f"<li>{html.escape(line)}</li>\n" for line in below)
    return f"<h2>{html.escape(table.title)}</h2>\n{html_table(table)}\n<ul class='notes'>\n{notes}</ul>\n"
