"""Pictures of graphs: what is drawn (`picture`), and one file for each form it is drawn in."""

from lucid.ir.view.dot import to_dot
from lucid.ir.view.explorer import to_explorer
from lucid.ir.view.picture import Picture, picture

FORMS = {".dot": to_dot, ".json": to_explorer}
"""How to draw a graph, by the ending of the file."""

__all__ = ["FORMS", "Picture", "picture", "to_dot", "to_explorer"]
