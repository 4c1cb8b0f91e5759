"""Renders contents as one HTML file that makes no network requests.

jinja2 escapes all text. Questions are JSON in a script tag, encoded so that no text can end the
tag. A content security policy also blocks every request, in case of a mistake here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mapflow.results.contract.visible_text import visible_lines
from mapflow.results.figures.route_curves import shared_scale
from mapflow.results.report.contents import ReportContents
from mapflow.results.report.drawings import policy_svg, route_svg
from mapflow.results.tables.formats import html_table

HERE = Path(__file__).parent


def render_report(contents: ReportContents) -> str:
    """The text of the page. Raises ValueError for NaN in the answers."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    template = environment.get_template("page.html.jinja")
    return template.render(
        contents=contents,
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "viewer.js").read_text(encoding="utf-8")),
        data=Markup(script_json(contents.viewer.to_json())),
        table=lambda table: Markup(html_table(table)),
        drawing=lambda policy: Markup(visible_lines(policy_svg(policy))),
        panel=lambda curve, limits: Markup(visible_lines(route_svg(curve, *limits))),
        scale=shared_scale,
    )


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
