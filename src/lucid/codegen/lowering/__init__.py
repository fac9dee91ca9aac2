"""From a graph and its schedule to a Program: one lowering for each op, registered by its class."""

from lucid.codegen.lowering import (
    attention,
    convolution,
    fold,
    matmul,
    normalisation,
    pooling,
    reduction,
    resample,
    sampling,
    shapes,
    strided,
)
from lucid.codegen.lowering.context import Lowering, lowers
from lucid.codegen.lowering.lower import lower, unsupported

__all__ = [
    "Lowering",
    "attention",
    "convolution",
    "fold",
    "lower",
    "lowers",
    "matmul",
    "normalisation",
    "pooling",
    "reduction",
    "resample",
    "sampling",
    "shapes",
    "strided",
    "unsupported",
]
