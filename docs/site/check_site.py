"""Is the built site complete and readable without a network?"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""Tags whose address a browser fetches by itself."""
NOT_FETCHED = {"canonical", "next", "prev", "alternate", "license"}


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.followed: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        address = given.get(LOADED.get(tag, ""), "")
        if address and not NOT_FETCHED & set(given.get("rel", "").split()):
            self.loaded.append(address)
        if tag == "a" and given.get("href"):
            self.followed.append(given["href"])


def problems(site: Path) -> Iterator[str]:
    """One line for each address that is fetched from elsewhere, and for each broken local link."""
    pages = {}
    for page in sorted(site.rglob("*.html")):
        pages[page] = _Addresses()
        pages[page].feed(page.read_text(encoding="utf-8"))
    for page, found in pages.items():
        name = page.relative_to(site)
        for address in found.loaded:
            if address.startswith("//") or urlsplit(address).scheme in ("http", "https"):
                yield f"{name} fetches {address}"
        for address in {*found.loaded, *found.followed}:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or address.startswith("//") or name.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file():
                yield f"{name} links to {address}, which is not on the site"
            elif target in pages and parts.fragment:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors:
                    yield f"{name} links to {address}: no such anchor"
