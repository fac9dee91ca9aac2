"""From a graph and its schedule to a Program: one lowering for each op, registered by its class."""

from lucid.codegen.lowering import (
    attention,
    boxes,
    convolution,
    fold,
    indexing,
    matmul,
    normalisation,
    ordering,
    pooling,
    quantisation,
    recurrent,
    reduction,
    resample,
    sampling,
    scan,
    shapes,
    strided,
)
from lucid.codegen.lowering.context import Lowering, lowers
from lucid.codegen.lowering.lower import lower, unsupported
from lucid.codegen.lowering.partition import HostNode, Lowered, Region, lower_parts, partition

__all__ = [
    "HostNode",
    "Lowered",
    "Lowering",
    "Region",
    "attention",
    "boxes",
    "convolution",
    "fold",
    "indexing",
    "lower",
    "lower_parts",
    "lowers",
    "matmul",
    "normalisation",
    "ordering",
    "partition",
    "pooling",
    "quantisation",
    "recurrent",
    "reduction",
    "resample",
    "sampling",
    "scan",
    "shapes",
    "strided",
    "unsupported",
]
