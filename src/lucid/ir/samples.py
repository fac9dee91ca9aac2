"""Generated values for graphs that have none: sources of parameters, and inputs."""

from __future__ import annotations

import math

import numpy as np

from lucid.ir.graph import Graph
from lucid.ir.ops.base import Array
from lucid.ir.types import DTYPES


def sample_payload(graph: Graph) -> dict[str, Array]:
    """Values for every source tensor of a graph, by the rules of new layers: scaled for weights,
    1 for variances and scales, 0 for the rest."""
    generator = np.random.default_rng(0)
    payload: dict[str, Array] = {}
    for name, source in graph.sources().items():
        shape = source.type.concrete(1)
        if len(shape) > 1:
            scale = np.float32(math.sqrt(2 / max(1, math.prod(shape[1:]))))
            payload[name] = generator.standard_normal(shape, np.float32) * scale
        else:
            one = name.rsplit(".", 1)[-1] in ("weight", "running_var")
            payload[name] = np.full(shape, float(one), np.float32)
    return payload


def sample_inputs(graph: Graph, batch: int, seed: int = 0) -> list[Array]:
    """Inputs for a batch, as `sample` makes them."""
    generator = np.random.default_rng(seed)
    return [sample(v.type.dtype, v.type.concrete(batch), generator) for v in graph.inputs]


def sample(dtype: str, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Normally distributed numbers; of bytes and truth values any that there are."""
    kind = DTYPES[dtype]
    if kind.itemsize == 1:
        low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
        return generator.integers(low, high, shape, kind.type, endpoint=True)
    return generator.standard_normal(shape, np.float32).astype(DTYPES[dtype], copy=False)
