"""Widths of texts, computed without a browser from the metrics of Helvetica and Arial."""

from __future__ import annotations

from functools import cache

SIZES = {
    "heading": 15.0,
    "title": 14.0,
    "frame-title": 13.0,
    "detail": 12.0,
    "name": 12.0,
    "shape-label": 12.0,
    "part": 11.0,
}
"""Font sizes in pixels, by the class of a text in the style sheet: all legible at a scale of 1."""

WIDTHS = {
    222: "ijl",
    260: "|",
    278: " !,./:;I[\\]ft·",
    333: "()-`r",
    355: '"',
    389: "*",
    469: "^",
    500: "Jckvsxyz",
    556: "#$?0123456789L_abdeghnopqu–",
    584: "+<=>~×",
    611: "FTZ",
    667: "&ABEKPSVXY",
    722: "CDHNRUw",
    778: "GOQ",
    833: "Mm",
    889: "%",
    944: "W",
    1015: "@",
}
"""Thousandths of the font size."""

BY_CHARACTER = {c: width for width, characters in WIDTHS.items() for c in characters}
OTHER = 1000
BOLD = 1.08
MARGIN = 1.14
"""What a browser may show instead, DejaVu Sans say, is that much wider."""


@cache
def text_width(text: str, size: float, bold: bool = False) -> float:
    """An upper bound, in pixels, of the width of a text in a font of `size` pixels."""
    units = sum(BY_CHARACTER.get(c, OTHER) for c in text)
    return units / 1000 * size * MARGIN * (BOLD if bold else 1.0)


def shortened(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text, or its beginning and `…`, so that it is no wider than `width`."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text + "…"
