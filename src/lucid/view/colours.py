"""Colours: one for each family of ops, and the theme around them, light and dark."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template

from lucid.view.text_width import SIZES

COLOURS = {
    "input": "#e6e9ed",
    "output": "#e6e9ed",
    "convolution": "#a9cbee",
    "linear": "#a3d5dd",
    "attention": "#f4c58f",
    "pooling": "#b5dfb8",
    "resize": "#a9dccb",
    "reduction": "#cfe3a0",
    "elementwise": "#f2e3a3",
    "normalization": "#d8c4ec",
    "shape": "#dde3d8",
    "constant": "#d9d5cf",
}
OTHERS = "#ffffff"

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2933",
    "faint": "#64707d",
    "line": "#8593a3",
    "frame": "#3f5a7d",
    "added": "#1f9d55",
    "changed": "#d97706",
    "removed": "#d64545",
}
DARK = {
    "paper": "#14181d",
    "ink": "#e6ebf0",
    "faint": "#98a4b0",
    "line": "#6b7886",
    "frame": "#8fb0d8",
    "added": "#4cc38a",
    "changed": "#f2a33a",
    "removed": "#f07878",
}


def colour(kind: str) -> str:
    """The fill colour of a box; white where its kind has none of its own."""
    return COLOURS.get(kind, OTHERS)


def blend(a: str, b: str, share: float) -> str:
    """The colour that is `share` of the way from `a` to `b`, both `#rrggbb`."""
    pairs = ((int(a[i : i + 2], 16), int(b[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in pairs)


def deepened(colour: str) -> str:
    """The colour with most of the white in it taken away."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    white = 0.6 * min(parts)
    return "#" + "".join(f"{round(p - white):02x}" for p in parts)


@cache
def stylesheet() -> str:
    """The style of everything drawn, for light and dark: plain values, which all viewers know."""
    drawing = Template(files(__package__).joinpath("drawing.css").read_text(encoding="utf-8"))
    sizes = {name.replace("-", "_"): f"{size:g}" for name, size in SIZES.items()}
    dark = drawing.substitute(DARK, **sizes) + _kinds(DARK, fill=0.35, stroke=0.4)
    light = drawing.substitute(LIGHT, **sizes) + _kinds(LIGHT, fill=0.0, stroke=0.45)
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _kinds(theme: dict[str, str], fill: float, stroke: float) -> str:
    """The rules for each family: fill and outline lie between its colour and the theme's. The
    pale colours are deepened first where the paper is dark, else they would be grey there."""
    ground = theme["paper"] if fill else theme["ink"]
    rules = []
    for kind, pale in {**COLOURS, "others": OTHERS}.items():
        own = deepened(pale) if fill else pale
        rules.append(
            f".lucid .{kind} {{ fill: {blend(own, ground, fill)}; "
            f"stroke: {blend(pale, ground, stroke)}; }}"
        )
    return "\n".join(rules) + "\n"


def style_class(kind: str) -> str:
    """The class of what is drawn in a family's colours."""
    return kind if kind in COLOURS else "others"
