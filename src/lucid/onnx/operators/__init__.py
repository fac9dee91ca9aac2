"""How each operator is written and how it is read, one file a family; importing registers all."""

from lucid.onnx.operators import (
    activations,
    elementwise,
    fused,
    integers,
    normalisation,
    pooling,
    products,
    reductions,
    resize,
    shapes,
    sizes,
)

__all__ = [
    "activations",
    "elementwise",
    "fused",
    "integers",
    "normalisation",
    "pooling",
    "products",
    "reductions",
    "resize",
    "shapes",
    "sizes",
]
