"""Small HTML tables for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mapflow.results.contract.visible_text import visible


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts; everything is escaped."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(f"<{tag}>{escape(visible(str(cell)))}</{tag}>" for cell in cells)

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', heads)}</tr></thead><tbody>{body}</tbody></table>"
