"""PNG and PDF of an SVG: by an installed Chromium, else by the package cairosvg.

Chromium runs headless, with a temporary profile, and is kept off the network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lucid.errors import LucidError, MissingPackageError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OFFLINE = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-quic",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
SCALE = 2
"""Pixels of a PNG for one of the figure."""
LARGEST = 16_000
"""Pixels along a side: Chromium paints no more than 16,384."""
PATIENCE = 120
"""Seconds to wait for the browser."""
PAGE = """<!doctype html><meta charset="utf-8">
<style>
@page {{ size: {width}px {height}px; margin: 0 }}
html, body {{ margin: 0; width: {width}px; height: {height}px; overflow: hidden }}
svg {{ display: block }}
</style>
{svg}"""


def to_png(svg: str) -> bytes:
    """The figure as PNG, two pixels for one, or fewer where it would be more than 16,000 high or
    wide. Raises MissingPackageError where neither a Chromium nor cairosvg is there."""
    width, height = _size(svg)
    scale = min(SCALE, LARGEST / max(width, height))
    browser = _browser()
    if browser is None:
        data: bytes = _cairosvg().svg2png(bytestring=svg.encode(), scale=scale)
        return data
    flags = (
        f"--window-size={width},{height}",
        f"--force-device-scale-factor={scale:g}",
        "--hide-scrollbars",
    )
    return _painted(browser, svg, "--screenshot", "figure.png", flags)


def to_pdf(svg: str) -> bytes:
    """The figure as a PDF of one page of its size. Raises MissingPackageError as `to_png`."""
    browser = _browser()
    if browser is None:
        data: bytes = _cairosvg().svg2pdf(bytestring=svg.encode())
        return data
    return _painted(browser, svg, "--print-to-pdf", "figure.pdf", ("--no-pdf-header-footer",))


def _size(svg: str) -> tuple[int, int]:
    found = re.search(r'width="(\d+)" height="(\d+)"', svg)
    assert found is not None, "to_svg says how large it is"
    return int(found[1]), int(found[2])


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _painted(browser: str, svg: str, action: str, name: str, flags: tuple[str, ...]) -> bytes:
    """What the browser writes of the figure. Raises LucidError where it writes nothing."""
    width, height = _size(svg)
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium refuses to run as root else
    with tempfile.TemporaryDirectory(prefix="lucid-picture-") as folder:
        page, output = Path(folder, "page.html"), Path(folder, name)
        page.write_text(PAGE.format(svg=svg, width=width, height=height), encoding="utf-8")
        command = [browser, *OFFLINE, *root, f"--user-data-dir={folder}/profile", *flags]
        command += [f"{action}={output}", page.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=PATIENCE, text=True)
            problem = done.stderr.strip()[-500:]
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if not output.is_file():
            raise LucidError(f"{browser} drew nothing: {problem or 'it did not say why'}")
        return output.read_bytes()


def _cairosvg() -> Any:
    try:
        import cairosvg
    except (ImportError, OSError) as error:  # OSError: the library cairo is not there
        raise MissingPackageError(
            "PNG and PDF are drawn by Chromium, or by the package cairosvg: install Chromium, or "
            "`pip install cairosvg`; .svg and .html need neither"
        ) from error
    return cairosvg
