"""The code blocks of Markdown pages, and the kinds that there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)(?P<marks>`{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)^ *(?P=marks) *$", re.M | re.S
)
INFO = re.compile(r'(?P<language>\w*)(?: title="(?P<title>[^"]+)")?')

RUN_IN_SHELL, INSTALL, PARSED, RUN_IN_PYTHON, FILE, OUTLINE, SHOWN = (
    "bash",
    "bash, install",
    "bash, needs",
    "python",
    "file",
    "python, outline",
    "text",
)


@dataclass(frozen=True)
class Block:
    """One fenced block: `line` is that of its first line of code; `title` may be empty."""

    page: Path
    line: int
    language: str
    title: str
    code: str

    @property
    def kind(self) -> str:
        """One of the kinds above. Raises ValueError for anything else: the list is closed.

        bash: run, must succeed. title="install…": changes the environment, so it is run by
        `fresh_readme.py` and only parsed elsewhere. title="needs PACKAGE": only parsed where the
        package, which mapflow does not require, is absent. python: run, one namespace for the page.
        yaml, toml and bash with a file name as title: written under that name, which later blocks
        use, and read by what the file is for. python title="outline…": a part of a larger
        definition, only parsed. text: output, a drawing, what a file holds.
        """
        if self.title.startswith("install") and self.language == "bash":
            return INSTALL
        if self.title.startswith("outline") and self.language == "python":
            return OUTLINE
        if self.language == "bash" and (needs := re.fullmatch(r"needs (\w+)", self.title)):
            return RUN_IN_SHELL if find_spec(needs[1]) else PARSED
        if re.fullmatch(r"[\w.-]+\.(yaml|toml|sbatch)", self.title):
            return FILE
        if not self.title and self.language in (RUN_IN_SHELL, RUN_IN_PYTHON, SHOWN):
            return self.language
        raise ValueError(f"{self}: no kind of block is {self.language!r}, title {self.title!r}")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every Markdown file of the repository, without what builds and tools leave."""
    made = {"docs_output", "figures_output", "build", "node_modules"}
    found = (page.relative_to(ROOT) for page in ROOT.rglob("*.md"))
    kept = (page for page in found if not made & set(page.parts))
    return [ROOT / page for page in sorted(kept) if not any(p.startswith(".") for p in page.parts)]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return list(_blocks(page, text))


def without_blocks(text: str) -> str:
    """The prose alone, with its lines in place."""
    return FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def _blocks(page: Path, text: str) -> Iterable[Block]:
    for found in FENCE.finditer(text):
        info = INFO.fullmatch(found["info"].strip())
        line = text.count("\n", 0, found.start()) + 2
        if info is None:
            raise ValueError(f"{page}:{line}: the fence {found['info']!r} is not understood")
        indent = len(found["indent"])
        code = "".join(one[indent:] or "\n" for one in found["code"].splitlines(keepends=True))
        yield Block(page, line, info["language"], info["title"] or "", code)
