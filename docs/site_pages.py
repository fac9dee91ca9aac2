"""What the site (mkdocs.yml) has besides docs/*.md: pages of the repository, and links to them.

On GitHub a page may link to any file of the repository. In the site a link to one of PAGES leads to
its page there; a file that is neither one of these nor in docs/ has no address, and its link
becomes text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Files of the repository by path, and what they are called in the site."""
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add PAGES to the site."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the site has what they lead to in the repository."""
    paths = {name: path for path, name in PAGES.items()}
    uri = page.file.src_uri
    folder = posixpath.dirname(paths.get(uri, f"docs/{uri}"))
    return LINK.sub(lambda link: relinked(link, folder), markdown)


def relinked(link: re.Match[str], folder: str) -> str:
    """A link of a page in this folder of the repository as a link of the site."""
    text, target, place = link[1], link[2], link[3] or ""
    path = posixpath.normpath(posixpath.join(folder, target))
    if path in PAGES:
        return f"[{text}]({PAGES[path]}{place})"
    if path.startswith("docs/"):
        return f"[{text}]({path.removeprefix('docs/')}{place})"
    return text if (ROOT / path).exists() else link[0]
