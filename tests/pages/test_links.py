"""Links of all pages: files and headings exist, addresses are well formed. Nothing is fetched."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.pages.blocks import ROOT, pages, without_blocks

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<text>.+?) *#*$", re.M)
TUTORIALS = [*(ROOT / "docs").glob("*.py"), *(ROOT / "docs" / "tutorials").glob("*.py")]


@cache
def anchors(page: Path) -> set[str]:
    """Of the headings, as code hosts and the site form them."""
    found = HEADING.finditer(without_blocks(page.read_text(encoding="utf-8")))
    plain = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading["text"]) for heading in found)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in plain}


def broken(page: Path, text: str) -> list[str]:
    """What is wrong with each bad link of `text`, a line each."""
    found = []
    for link in LINK.finditer(without_blocks(text)):
        parts = urlsplit(link["target"])
        if parts.scheme:
            if parts.scheme != "https" or "." not in parts.netloc:
                found.append(f"{link['target']}: addresses begin with https:// and a host")
            continue
        target = Path(os.path.normpath(page.parent / parts.path)) if parts.path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            found.append(f"{link['target']}: there is no such file")
        elif parts.fragment and parts.fragment not in anchors(target):
            found.append(f"{link['target']}: there is no such heading")
    return found


@pytest.mark.parametrize(
    "page", [*pages(), *TUTORIALS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_broken_links_are_found():
    page = ROOT / "README.md"
    assert broken(page, "[a](absent.md) [b](CONTRIBUTING.md#no-such) [c](http://x.org) [d](../x)")
    assert len(broken(page, "[a](absent.md) [b](CONTRIBUTING.md#no-such) [c](http://x.org)")) == 3
    assert broken(page, "[a](CONTRIBUTING.md#a-policy) [b](https://arxiv.org/abs/2510.13251)") == []


def test_commands_of_make_exist():
    """`make NAME` in the prose of a page."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {name for page in pages() for name in re.findall(r"`make ([\w./]+)`", page.read_text())}
    targets = set(re.findall(r"^([\w.]+):", makefile, re.M)) | {".venv/.tools"}
    assert "demo" in named and named <= targets, named - targets
