"""PNG and PDF of figures: by Chromium where it is there, else by cairosvg."""

import io
import os
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from lucid.errors import LucidError, MissingPackageError
from lucid.view import raster, to_pdf, to_png

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40" viewBox="0 0 60 40">'
    '<rect width="60" height="40" fill="#00ff00"/></svg>'
)


def test_a_browser_draws():
    if raster._browser() is None:
        pytest.skip("no chromium found: apt-get install chromium")
    image = Image.open(io.BytesIO(to_png(SVG))).convert("RGB")
    assert image.size == (120, 80)
    assert {image.getpixel(at) for at in ((0, 0), (119, 79), (60, 40))} == {(0, 255, 0)}
    pdf = to_pdf(SVG)
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") == 1


def browser(folder, script):
    """A program in place of the browser."""
    path = folder / "chromium"
    path.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_browser_is_kept_off_the_network_and_to_its_size(tmp_path, monkeypatch):
    script = "name = [a for a in sys.argv if a.startswith('--screenshot=')][0]\n"
    script += "open(name.partition('=')[2], 'w').write('\\n'.join(sys.argv))"
    monkeypatch.setattr(raster, "_browser", lambda: str(browser(tmp_path, script)))
    flags = to_png(SVG.replace('width="60" height', 'width="32000" height')).decode().split("\n")
    assert "--host-resolver-rules=MAP * ~NOTFOUND" in flags
    assert "--force-device-scale-factor=0.5" in flags
    assert ("--no-sandbox" in flags) == (os.geteuid() == 0)
    assert flags[-1].startswith("file://")


def test_a_browser_that_draws_nothing(tmp_path, monkeypatch):
    path = browser(tmp_path, "sys.exit('no display')")
    monkeypatch.setattr(raster, "_browser", lambda: str(path))
    with pytest.raises(LucidError, match="drew nothing: no display"):
        to_pdf(SVG)


def test_without_a_browser(monkeypatch):
    monkeypatch.setattr(raster, "_browser", lambda: None)
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    for draw in (to_png, to_pdf):
        with pytest.raises(MissingPackageError, match="pip install cairosvg"):
            draw(SVG)
    stand_in = SimpleNamespace(
        svg2png=lambda bytestring, scale: b"png %d" % scale, svg2pdf=lambda bytestring: b"pdf"
    )
    monkeypatch.setitem(sys.modules, "cairosvg", stand_in)
    assert (to_png(SVG), to_pdf(SVG)) == (b"png 2", b"pdf")
