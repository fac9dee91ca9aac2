"""A batch in slices: a call whose rows are independent, by plans of some of them at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.ir.types import Dim

if TYPE_CHECKING:
    from lucid.ir.graph import Graph, Value
    from lucid.ir.ops.base import Array
    from lucid.runtime.plans import Plan, Ready, Slices
    from lucid.runtime.signature import Interface, Port

    Run = Callable[[Plan | Ready, Sequence[Array], Sequence[Array]], None]
    """One call of a plan: writes its results from its inputs."""


def compute(plans: Slices, run: Run, arrays: Sequence[Array], results: Sequence[Array]) -> None:
    """Write the results of a batch: at once, where it has a plan of its own, or in slices. Those of
    no rows are written where no row of an input has a part in them."""
    if plans.is_one:
        run(plans.whole, arrays, results)
        return
    if not plans.batch and all(result.size == 0 for result in results):
        return
    graph, start = plans.graph, 0
    for plan, size in plans.parts:
        rows = slice(start, min(start + size, plans.batch))
        inputs, outputs = rows_of(graph.inputs, arrays, rows), rows_of(graph.outputs, results, rows)
        if rows.stop - start == size:
            run(plan, inputs, outputs)
        else:
            _compute_few(graph, functools.partial(run, plan), size, inputs, outputs)
        start = rows.stop


def rows_of(values: Sequence[Value | Port], arrays: Sequence[Array], rows: slice) -> list[Array]:
    """The part of arrays that a slice of the batch has, views of them; the first dimension may be
    2N, and those without the batch stay whole."""
    parts = []
    for value, array in zip(values, arrays, strict=True):
        first = value.type.shape[0] if value.type.rank else 1
        if isinstance(first, Dim):
            array = array[rows.start * first.coefficient : rows.stop * first.coefficient]
        parts.append(array)
    return parts


def _compute_few(
    graph: Graph | Interface,
    run: Callable[[Sequence[Array], Sequence[Array]], None],
    size: int,
    arrays: Sequence[Array],
    results: Sequence[Array],
) -> None:
    """Write the results of fewer rows than `run` computes, which gets them again for the others, or
    zeros where there are none."""
    takes: Sequence[Value | Port] = graph.inputs
    gives: Sequence[Value | Port] = graph.outputs
    inputs = [np.resize(a, v.type.concrete(size)) for v, a in zip(takes, arrays, strict=True)]
    outputs = [
        np.empty(v.type.concrete(size), r.dtype) for v, r in zip(gives, results, strict=True)
    ]
    run(inputs, outputs)
    for result, output in zip(results, outputs, strict=True):
        result[...] = output[: len(result)] if result.ndim else output
