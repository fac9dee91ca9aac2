"""The site (`make site`) builds without a warning, fetches nothing from elsewhere when it is seen,
has what its pages have on GitHub, and the whole of the public API."""

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import lucid
from lucid import errors

ROOT = Path(__file__).parents[1]
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser fetches by itself: tags, and the attribute that says from where."""
COUNTED = ("h1", "h2", "h3", "li", "pre", "table", "tr", "td", "img")
"""Tags of which an article has as many on GitHub (`p` and `code` differ in lists and fences)."""


class Html(HTMLParser):
    """The tags of the article (of all, in HTML without one), and what the whole page fetches."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.fetched = Counter[str](), list[str]()
        self._inside = "<article" not in text
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside |= tag == "article"
        self.tags[tag] += self._inside
        said = dict(attributes)
        if tag in LOADED and said.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(said.get(LOADED[tag]) or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "article"

    def counts(self) -> dict[str, int]:
        return {tag: self.tags[tag] for tag in COUNTED}


@pytest.mark.slow
def test_the_site(tmp_path: Path) -> None:
    for package in ("material", "mkdocstrings_handlers"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    assert_nothing_is_fetched(tmp_path)
    assert_pages_are_those_of_github(tmp_path)
    assert_api_is_complete((tmp_path / "api" / "index.html").read_text("utf-8"))


def assert_nothing_is_fetched(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert [url for url in Html(text).fetched if re.match("(https?:)?//", url)] == [], page
        for cause in ('class="mermaid"', 'data-md-component="source"'):
            assert cause not in text, f"{page}: here the theme's script would fetch something"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", style.read_text("utf-8")), style


def assert_pages_are_those_of_github(site: Path) -> None:
    """Lists above all: Python's Markdown wants four blanks before what belongs to an item."""
    from docs.site_pages import PAGES

    pages = {path.name: path for path in (ROOT / "docs").glob("*.md")}
    pages |= {name: ROOT / path for path, name in PAGES.items()}
    del pages["api.md"]
    for name, path in pages.items():
        html = site / ("" if name == "index.md" else name.removesuffix(".md")) / "index.html"
        on_github = MarkdownIt().enable("table").render(path.read_text("utf-8"))
        assert Html(html.read_text("utf-8")).counts() == Html(on_github).counts(), path


def assert_api_is_complete(page: str) -> None:
    for module in (lucid, lucid.models, lucid.nn, lucid.random, lucid.vision):
        for name in module.__all__:
            if callable(getattr(module, name)) and not hasattr(errors, name):
                assert f'id="{module.__name__}.{name}"' in page, name
