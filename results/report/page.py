"""Renders contents as one HTML file that makes no network requests.

jinja2 escapes all text. Questions are JSON in a script tag, encoded so that no text can end the
tag. A content security policy allows the page's own script and style only, by their digests, and
blocks every request, in case of a mistake here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mapflow.results.contract.visible_text import visible, visible_lines
from mapflow.results.figures.route_curves import shared_scale
from mapflow.results.report import curves, forest
from mapflow.results.report.contents import ReportContents, questions_link
from mapflow.results.report.drawings import policy_svg, route_svg
from mapflow.results.statistics import points
from mapflow.results.tables.formats import Column, Row, Table

HERE = Path(__file__).parent
STYLES = ("style.css", "viewer.css")
SCRIPTS = ("elements.js", "tables.js", "filters.js", "question.js", "viewer.js")
"""One script: each file uses what those before it define."""
FLIPS = {"lost": "lost", "gained": "gained", "both right": "both", "both wrong": "neither"}
"""Headings of columns whose cells count questions → the flips that show these questions."""


def render_report(contents: ReportContents) -> str:
    """The text of the page. Raises ValueError for NaN in the answers."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    environment.globals |= {  # macros that a template imports see these, not its variables
        "cells": lambda table: _cells(table, contents),
        "columns": lambda table: _columns(table, contents),
        **{name: _markup(draw) for name, draw in DRAWINGS.items()},
        "forest": forest,
        "curves": curves,
        "route_scale": shared_scale,
        "points": points,
    }
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in STYLES)
    parts = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    return environment.get_template("page.html.jinja").render(
        contents=contents,
        style=Markup(style),
        script=Markup(script),
        digests={"style": _digest(style), "script": _digest(script)},
        data=Markup(script_json(contents.viewer.to_json())),
    )


DRAWINGS: Mapping[str, Callable[..., str]] = {
    "policy_drawing": policy_svg,
    "route_drawing": lambda curve, limits: route_svg(curve, *limits),
    "curve_drawing": curves.panel_svg,
    "curve_key": curves.key_svg,
    "axis_drawing": forest.axis_svg,
    "interval_drawing": lambda one, scale, described, marks: forest.interval_svg(
        one, scale, escape(described), marks
    ),
}


def _markup(draw: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *arguments: Markup(visible_lines(draw(*arguments)))


def _columns(table: Table, contents: ReportContents) -> Sequence[Column[Row]]:
    """Without the benchmark where the page is about a single one, or the title names it."""
    named = {str(row.get("benchmark")) for row in table.rows}
    whole = {one.title for one in contents.in_short}
    if len(named) != 1 or not (named == whole or named.pop() in table.title):
        return table.columns
    return [column for column in table.columns if column.head != "benchmark"]


def _cells(table: Table, contents: ReportContents) -> list[list[tuple[str, str]]]:
    """Of each row, the (text, address) of its cells; the address is empty without a link."""
    runs = set(contents.viewer.runs)
    benchmarks = {question.benchmark for question in contents.viewer.questions}
    found = []
    for row in table.rows:
        linked = row.get("treatment") in runs and row.get("baseline") in runs
        cells = []
        for column in _columns(table, contents):
            text, address = visible(" ".join(column.show(row).split())), ""
            if linked and column.head in FLIPS and text != "0":
                address = questions_link(
                    baseline=row["baseline"],
                    treatment=row["treatment"],
                    flips=FLIPS[column.head],
                    benchmark=row.get("benchmark") if len(benchmarks) > 1 else None,
                    task=row.get("subtask"),
                )
            cells.append((text, address))
        found.append(cells)
    return found


def _digest(text: str) -> Markup:
    """As a content security policy names it."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Markup(f"'sha256-{digest}'")


def script_json(values: Any) -> str:
    """JSON for a script tag: <, > and & are escaped, so no text can end the tag or open a comment.

    Control characters, such as bidirectional overrides, are shown as codes.
    """
    text = json.dumps(_shown(values), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _shown(value: Any) -> Any:
    """The value with `visible_lines` applied to all texts in it, except trusted markup."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return visible_lines(value)
    if isinstance(value, dict):
        return {_shown(name): _shown(one) for name, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, (list, tuple)) else value
