"""Every code block of every page runs, in the order of the page."""

from __future__ import annotations

import ast
import subprocess
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
import yaml

from mapflow.model_adapters.checkpoints.pathways import read_pathways
from mapflow.model_adapters.interventions.language.grammar import read_interventions
from mapflow.results.contract.errors import MapflowError
from tests.pages.blocks import (
    FILE,
    INSTALL,
    OUTLINE,
    PARSED,
    ROOT,
    RUN_IN_PYTHON,
    RUN_IN_SHELL,
    SHOWN,
    Block,
    blocks,
    pages,
)
from tests.pages.playground import Playground, playground


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Iterator[Playground]:
    with playground(tmp_path_factory.mktemp("pages")) as made:
        yield made


def _toml(file: Path) -> Any:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads(file.read_text(encoding="utf-8"))


READERS: dict[str, Callable[[Path], Any]] = {
    "interventions.yaml": read_interventions,
    "pathways.yaml": read_pathways,
    "pyproject.toml": _toml,
    "run.yaml": lambda file: yaml.safe_load(file.read_text(encoding="utf-8")),
}
"""File that a page shows -> what reads it; a file of another name fails the test."""

FAILURES = (AssertionError, AttributeError, KeyError, MapflowError, SyntaxError, CalledProcessError)

WITH_BLOCKS = [page for page in pages() if any(one.language != SHOWN for one in blocks(page))]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in here.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(tmp_path / "page.py")}
    for block in blocks(page):
        run_block(block, names, here, tmp_path)


def run_block(block: Block, names: dict[str, Any], here: Playground, folder: Path) -> None:
    """Fails the test with the place of the block."""
    if block.kind == RUN_IN_SHELL:
        done = here.shell(block, folder)
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    elif block.kind == RUN_IN_PYTHON:
        code = "\n" * (block.line - 1) + block.code  # so that errors name the page's lines
        exec(compile(code, str(block.page), "exec", dont_inherit=True), names)
    elif block.kind == OUTLINE:
        ast.parse(textwrap.dedent(block.code))
    elif block.kind in (INSTALL, PARSED):
        subprocess.run(["bash", "-n", "-c", block.code], check=True)
    elif block.kind == FILE:
        file = folder / block.title
        file.write_text(block.code, encoding="utf-8")
        assert READERS[block.title](file), block


def test_a_broken_block_fails(here, tmp_path):
    """The check can fail: a misspelt flag, an error in Python, a file of another kind."""

    def broken(language: str, code: str, title: str = "") -> Block:
        return Block(ROOT / "README.md", 1, language, title, code)

    for block in (
        broken("bash", "mapflow explain effectiv\ntrue\n"),
        broken("bash", "mapflow explain effective --figgure x.png | cat\n"),
        broken("python", "import mapflow\nmapflow.lode()\n"),
        broken("yaml", "no-shortcut: {cut: [video->lest]}\n", "interventions.yaml"),
        broken("yaml", "a: 1\n", "unknown.yaml"),
        broken("python", "def half(:\n", "outline"),
        broken("bash", "pip install (\n", "install"),
    ):
        with pytest.raises(FAILURES):
            run_block(block, {}, here, tmp_path)
    with pytest.raises(ValueError, match="no kind of block"):
        _ = broken("console", "$ mapflow\n").kind


def test_most_blocks_run():
    """Kinds that are only parsed or shown stay the exception."""
    kinds = Counter(block.kind for page in pages() for block in blocks(page))
    assert kinds[RUN_IN_SHELL] + kinds[RUN_IN_PYTHON] > 25
    assert kinds[OUTLINE] <= 6 and kinds[INSTALL] + kinds[PARSED] <= 3, kinds
