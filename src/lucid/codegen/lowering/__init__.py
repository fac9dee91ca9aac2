"""From a graph and its schedule to a Program: one lowering for each op, registered by its class."""

from lucid.codegen.lowering import (
    attention,
    convolution,
    matmul,
    normalisation,
    pooling,
    reduction,
    resample,
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
    "convolution",
    "lower",
    "lower_parts",
    "lowers",
    "matmul",
    "normalisation",
    "partition",
    "pooling",
    "reduction",
    "resample",
    "shapes",
    "strided",
    "unsupported",
]
