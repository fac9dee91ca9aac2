"""How each operator is written and how it is read, one file a family; importing registers all."""

from lucid.onnx.operators import (
    activations,
    boxes,
    control,
    elementwise,
    fused,
    indexing,
    normalisation,
    ordering,
    pooling,
    products,
    recurrent,
    reductions,
    resize,
    scans,
    shapes,
    sizes,
)

__all__ = [
    "activations",
    "boxes",
    "control",
    "elementwise",
    "fused",
    "indexing",
    "normalisation",
    "ordering",
    "pooling",
    "products",
    "recurrent",
    "reductions",
    "resize",
    "scans",
    "shapes",
    "sizes",
]
