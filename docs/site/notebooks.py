"""Tutorials: Python files with cells (jupytext's percent format) to executed pages and notebooks.

Sources hold no outputs. Each is executed in a folder of its own while the site is built, and an
error in a cell fails the build. What a cell writes to stderr (progress) is not shown.
"""

from __future__ import annotations

import os
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

AT_ONCE = 2
CELL_SECONDS = 300
STRICT = "set -euo pipefail\n"
"""Read by every shell cell, so that any failing command fails the cell."""
HIDDEN = "hidden"
"""Tag of cells whose code is not shown."""


@dataclass
class Executed:
    """A tutorial after its execution: the page, its pictures by file name, and the .ipynb."""

    source: Path
    notebook: str
    pictures: dict[str, bytes] = field(default_factory=dict)
    markdown: str = ""


def executed(sources: Iterable[Path]) -> list[Executed]:
    """Raises nbclient's CellExecutionError for a cell that fails."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_executed, sources))


def _executed(source: Path) -> Executed:
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "work")
        folder.mkdir()
        strict = Path(place, "strict.sh")
        strict.write_text(STRICT, encoding="utf-8")
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "BASH_ENV": str(strict),
            "OMP_NUM_THREADS": "1",
            "MAPFLOW_REPOSITORY": str(Path(__file__).parents[2]),
        }
        client = NotebookClient(
            notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}}
        )
        client.execute(env=environment)
    page = Executed(source, nbformat.writes(notebook))
    page.markdown = "\n\n".join(part for cell in notebook.cells for part in _shown(cell, page))
    return page


def _shown(cell: Any, page: Executed) -> list[str]:
    """The cell and its outputs as Markdown; pictures are added to the page."""
    if cell.cell_type == "markdown":
        return [cell.source]
    magic, _, rest = cell.source.partition("\n")
    language, code = ("bash", rest) if magic.startswith("%%bash") else ("python", cell.source)
    hidden = HIDDEN in cell.metadata.get("tags", ())
    parts = [] if hidden else [f"```{language}\n{code}\n```"]
    printed = [one.text for one in cell.outputs if one.get("name") == "stdout"]  # comes in pieces
    if printed:
        parts.append(_text("".join(printed)))
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            name = f"{page.source.stem}_{len(page.pictures) + 1}.png"
            page.pictures[name] = b64decode(data["image/png"])
            parts.append(f"![{cell.metadata.get('alt', 'what the cell draws')}]({name})")
        elif "text/html" in data:
            parts.append(f'<div class="output" markdown="0">{_one_block(data["text/html"])}</div>')
        elif "text/plain" in data:
            parts.append(_text(data["text/plain"]))
    return parts


def _text(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def _one_block(html: str) -> str:
    """Without empty lines, at which Markdown would end the block."""
    return "\n".join(line for line in html.splitlines() if line.strip())
