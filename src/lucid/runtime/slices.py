"""A batch in slices: a call whose rows are independent, by plans of some of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.ir.types import Dim
from lucid.runtime.planner import MAX_BATCH

if TYPE_CHECKING:
    from lucid.ir.graph import Value
    from lucid.ir.ops.base import Array
    from lucid.runtime.plans import Plan, Ready, Slices
    from lucid.runtime.signature import Port

    Run = Callable[[Plan | Ready, Sequence[Array], Sequence[Array]], None]
    """One call of a plan: writes its results from its inputs."""


def compute(plans: Slices, run: Run, arrays: Sequence[Array], results: Sequence[Array]) -> None:
    """Write the results of a batch: at once, where it has a plan of its own, or in slices."""
    whole, last, batch, graph = plans
    if plans.is_one:
        run(whole, arrays, results)
        return
    if not batch:
        _compute_empty(plans, run, arrays, results)
    for start in range(0, batch, MAX_BATCH):
        rows = slice(start, min(start + MAX_BATCH, batch))
        plan = whole if rows.stop - start == MAX_BATCH else last
        run(plan, rows_of(graph.inputs, arrays, rows), rows_of(graph.outputs, results, rows))


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


def _compute_empty(
    plans: Slices, run: Run, arrays: Sequence[Array], results: Sequence[Array]
) -> None:
    """Write those results that have no rows, which no row of an input has a part in."""
    if all(result.size == 0 for result in results):
        return

    def one(value: Value | Port, array: Array) -> Array:
        """One row where there is none."""
        return np.zeros(value.type.concrete(1), array.dtype) if value.type.batch_axes() else array

    graph = plans.graph
    takes: Sequence[Value | Port] = graph.inputs
    gives: Sequence[Value | Port] = graph.outputs
    inputs = [one(*pair) for pair in zip(takes, arrays, strict=True)]
    outputs = [one(*pair) for pair in zip(gives, results, strict=True)]
    run(plans.whole, inputs, outputs)
