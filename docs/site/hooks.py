"""What `mkdocs build` adds to the pages of docs/: the repository's own pages and generated ones.

Links in all Markdown are true on disk, so that they work where the repository is read. The site
shows the repository's pages below `project/` (README.md is its first page); links from one side to
the other are rewritten here. Files that pages link to travel along.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(Path(__file__).parent))

from check_site import problems  # noqa: E402
from command_pages import MARK, all_commands  # noqa: E402
from notebooks import Executed, executed  # noqa: E402

log = logging.getLogger("mkdocs.hooks.site")

LINK = re.compile(r"(?P<head>\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2\s*?$", re.M | re.S)
SHOWN_FILE = re.compile(r"^<!-- file: (?P<target>\S+) -->$", re.M)
OWN = ("harness", "model_adapters", "results", "tasks", "tests")


def on_files(files: Files, config) -> Files:
    """Adds the repository's pages, what they link to, and the generated pages."""
    pages = [*ROOT.glob("*.md"), *(page for room in OWN for page in (ROOT / room).rglob("*.md"))]
    for file in {*pages, *(linked for page in pages for linked in _linked_files(page))}:
        if not file.is_relative_to(DOCS):
            files.append(File.generated(config, _place(file), abs_src_path=str(file)))
    for tutorial in executed([*(DOCS / "tutorials").glob("*.py"), *DOCS.glob("*.py")]):
        place = tutorial.source.parent.relative_to(DOCS)
        stem = tutorial.source.stem
        made = {f"{stem}.md": _with_download(tutorial), f"{stem}.ipynb": tutorial.notebook}
        for name, content in {**made, **tutorial.pictures}.items():
            files.append(File.generated(config, (place / name).as_posix(), content=content))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Links that are true on disk become links that are true on the site."""
    source = Path(page.file.abs_src_path or DOCS / page.file.src_uri)

    def rewritten(found: re.Match[str]) -> str:
        target = _on_disk(source, found["target"])
        if target is None:
            return found[0]
        place = posixpath.relpath(_place(target), posixpath.dirname(page.file.src_uri) or ".")
        return found["head"] + place + (found["anchor"] or "")

    markdown = SHOWN_FILE.sub(lambda found: _shown_file(source, found["target"]), markdown)
    if MARK in markdown:
        markdown = markdown.replace(MARK, all_commands())
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(rewritten, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(rewritten, markdown[end:])])


def on_post_build(config) -> None:
    """The search index as a script, which pages that are opened as files can load; the checks.

    Every problem is a warning, which `--strict` turns into a failure.
    """
    search = Path(config.site_dir, "search")
    index = (search / "search_index.json").read_text(encoding="utf-8")
    (search / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
    for problem in problems(Path(config.site_dir)):
        log.warning(problem)


def _with_download(tutorial: Executed) -> str:
    said = f"This page is a [notebook]({tutorial.source.stem}.ipynb), executed when it was built."
    title, _, rest = tutorial.markdown.partition("\n")
    return f"{title}\n\n*{said}*\n{rest}"


def _shown_file(page: Path, target: str) -> str:
    return f"```bash\n{(page.parent / target).read_text(encoding='utf-8')}```"


def _linked_files(page: Path) -> list[Path]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = (_on_disk(page, link["target"]) for link in LINK.finditer(text))
    return [file for file in found if file is not None]


def _on_disk(page: Path, target: str) -> Path | None:
    """The file of the repository that a page's link names; None for everything else."""
    if ":" in target:
        return None
    path = Path(os.path.normpath(page.parent / target))
    if path.is_dir():
        path = path / "README.md"
    return path if path.is_file() and path.is_relative_to(ROOT) else None


def _place(file: Path) -> str:
    """Where the site shows a file."""
    if file == ROOT / "README.md":
        return "index.md"
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    return f"project/{file.relative_to(ROOT).as_posix()}"
