"""Pictures of graphs: the `Picture` itself, and one module for each output format.

A `Picture` is boxes in modules. `cut` takes a part of one, `compare` marks what a pass did, the
`overlay` functions add times and layouts. `modules` nests it, `layers` and `place` lay it out.
"""

from lucid.view.compare import compare
from lucid.view.cut import cut
from lucid.view.dot import to_dot
from lucid.view.explorer import to_explorer
from lucid.view.html import Stage, page, to_html
from lucid.view.picture import Picture, picture
from lucid.view.raster import to_pdf, to_png
from lucid.view.svg import to_svg

FORMS = (".svg", ".png", ".pdf", ".html", ".dot", ".json")
"""The endings of the files that pictures are drawn in."""

__all__ = [
    "FORMS",
    "Picture",
    "Stage",
    "compare",
    "cut",
    "page",
    "picture",
    "to_dot",
    "to_explorer",
    "to_html",
    "to_pdf",
    "to_png",
    "to_svg",
]
