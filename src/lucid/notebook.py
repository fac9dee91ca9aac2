"""Graphs in notebooks: displayed as pictures and pages, drawn on demand."""

from __future__ import annotations

from html import escape

from lucid.ir.graph import Graph

FRAME = "width:100%;height:640px;border:1px solid #8886;border-radius:8px"


def picture(graph: Graph) -> str:
    """The graph as SVG."""
    from lucid.view import to_svg  # networkx takes a while to load

    return to_svg(graph)


def page(graph: Graph) -> str:
    """The page in a frame of its own, so that neither sees the other's style."""
    from lucid.view import to_html

    return f'<iframe style="{FRAME}" srcdoc="{escape(to_html(graph))}"></iframe>'
