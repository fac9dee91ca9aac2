"""From a graph and its schedule to a Program: one lowering for each op, registered by its class."""

from lucid.codegen.lowering import (
    attention,
    convolution,
    indexing,
    matmul,
    normalisation,
    ordering,
    pooling,
    reduction,
    resample,
    scan,
    shapes,
    strided,
)
from lucid.codegen.lowering.context import Lowering, lowers
from lucid.codegen.lowering.lower import lower, unsupported

__all__ = [
    "Lowering",
    "attention",
    "convolution",
    "indexing",
    "lower",
    "lowers",
    "matmul",
    "normalisation",
    "ordering",
    "pooling",
    "reduction",
    "resample",
    "scan",
    "shapes",
    "strided",
    "unsupported",
]
