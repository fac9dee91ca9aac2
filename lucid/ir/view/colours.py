"""One colour a family of ops, in every kind of picture."""

COLOURS = {
    "input": "#e6e9ed",
    "output": "#e6e9ed",
    "convolution": "#a9cbee",
    "linear": "#a9cbee",
    "attention": "#f4c58f",
    "pooling": "#b5dfb8",
    "reduction": "#b5dfb8",
    "elementwise": "#f2e3a3",
    "normalization": "#d8c4ec",
    "shape": "#dde3d8",
    "constant": "#dde3d8",
}
OTHERS = "#ffffff"


def colour(kind: str) -> str:
    """The fill colour of a box; white where its kind has none of its own."""
    return COLOURS.get(kind, OTHERS)
