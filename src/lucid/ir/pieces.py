"""Nodes of graphs that are interpreted, run in compiled graphs which serve many sizes.

    interpret(graph, arrays, natively=Pieces(compile_graph))

Where sizes differ from call to call (the boxes that a detector keeps), compiling a whole graph for
each would take longer than all else. What is heavy in it is one node most of the time: it is
compiled by itself, for rows that are rounded up, and gets rows that change nothing for the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, prod
from typing import Any

import numpy as np

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import (
    Array,
    AvgPool2d,
    Conv2d,
    Linear,
    MatMul,
    MaxPool2d,
    NonMaxSuppression,
    Op,
    RoiAlign,
)
from lucid.ir.types import BATCH, TensorType, f32

RunGraph = Callable[[Sequence[Array]], Sequence[Array]]

LINES = 32
"""Rows of a product that make one image of a batch: of any number of them."""


def rounded(count: int) -> int:
    """The next of the sizes that graphs are compiled for: at most a quarter more, or 16."""
    step = max(16, 1 << max(0, count.bit_length() - 3))
    return -(-count // step) * step


class Pieces:
    """Runs nodes by compiled graphs, which it keeps; None for nodes that NumPy does as fast.

    `compile_graph`: what gives a graph's results for its inputs, C-contiguous. It may be used by
    several threads at once.
    """

    def __init__(self, compile_graph: Callable[[Graph], RunGraph]) -> None:
        self._compile = compile_graph
        self._compiled: dict[Any, RunGraph] = {}
        self._lock = threading.RLock()

    def __call__(
        self, graph: Graph, node: Node, value_of: Callable[[Value], Array]
    ) -> tuple[Array, ...] | None:
        """The results of a node of a graph, whose values `value_of` gives."""
        if any(not v.type.concrete(1) or 0 in v.type.concrete(1) for v in node.inputs[:2]):
            return None
        match node.op:
            case NonMaxSuppression() as op:
                return self.suppressed(op, *map(value_of, node.inputs))
            case RoiAlign() as op:
                return self._aligned(op, *map(value_of, node.inputs))
            case Linear() | Conv2d() if all(isinstance(v, Parameter) for v in node.inputs[1:]):
                return self._multiplied(graph, node, value_of(node.inputs[0]))
        return None

    def suppressed(self, op: NonMaxSuppression, boxes: Array, scores: Array) -> tuple[Array, ...]:
        """The results of the op for at least one box: with boxes behind the others whose scores are
        the lowest ones, so that they are kept last."""
        count = boxes.shape[1]
        added = rounded(count) - count
        op_rounded = replace(op, max_boxes=min(op.max_boxes, count + added))
        boxes = np.pad(boxes, ((0, 0), (0, added), (0, 0)))
        scores = np.pad(scores, ((0, 0), (0, 0), (0, added)), constant_values=-np.inf)
        rows, number = self._run_op(op_rounded, boxes, scores)
        rows = rows[:number]
        rows = rows[rows[:, 2] < count]
        images, classes, _ = scores.shape
        padded = np.full((images * classes * min(op.max_boxes, count), 3), -1, np.int64)
        padded[: len(rows)] = rows
        return padded, np.asarray(len(rows), np.int64)

    def _aligned(self, op: RoiAlign, x: Array, boxes: Array) -> tuple[Array, ...]:
        """With boxes of no image."""
        count = len(boxes)
        boxes = np.pad(boxes, ((0, rounded(count) - count), (0, 0)), constant_values=-1)
        (y,) = self._run_op(op, x, boxes)
        return (y[:count],)

    def _multiplied(self, graph: Graph, node: Node, x: Array) -> tuple[Array, ...] | None:
        """A product with weights, for a batch of any size."""
        rows, count = x, len(x)
        if isinstance(node.op, Linear):
            if x.ndim != 2:
                return None
            rows = np.pad(x, ((0, -count % LINES), (0, 0))).reshape(-1, LINES, x.shape[1])
        weights = [v for v in node.inputs[1:] if isinstance(v, Parameter)]
        key = (node.op, rows.shape[1:], *(str(w.recipe) for w in weights))
        with self._lock:
            if key not in self._compiled:
                part = Graph(node.op.name)
                operands = [part.add_input(f32(BATCH, *rows.shape[1:]))]
                operands += [part.add_parameter(w.name, w.recipe) for w in weights]
                part.set_outputs(part.append(node.op, operands, origin=node.origin).outputs)
                part.payload = {name: graph.payload[name] for name in part.sources()}
                self._compiled[key] = self._compile(part)
            run = self._compiled[key]
        (y,) = run([np.ascontiguousarray(rows)])
        return (y.reshape(-1, y.shape[-1])[:count] if isinstance(node.op, Linear) else y,)

    def _run_op(self, op: Op, *operands: Array) -> Sequence[Array]:
        """The results of an op of floats, compiled for exactly these sizes."""
        key = (op, *(operand.shape for operand in operands))
        with self._lock:
            if key not in self._compiled:
                part = Graph(op.name)
                values = [part.add_input(TensorType("f32", a.shape)) for a in operands]
                part.set_outputs(part.append(op, values).outputs)
                self._compiled[key] = self._compile(part)
            run = self._compiled[key]
        return run([np.ascontiguousarray(operand, np.float32) for operand in operands])


# -- whether a graph is compiled whole ------------------------------------------------------------

OFTEN = 8
"""Calls of the same sizes, where others were met, that make it worth compiling a graph for them."""

LIGHT = 2_000_000
"""Operations that NumPy does in the time that planning a small graph takes: on one busy machine
three elementwise ops over 1.3 million elements took 106 ms, planning them 53 to 101 ms."""


def pays(graph: Graph, varied: bool, calls: int) -> bool:
    """Whether to compile a graph whose sizes come of data. `varied`: it had others before; `calls`:
    how often it had these."""
    return (calls >= OFTEN or not varied) and work(graph) > LIGHT


def work(graph: Graph) -> float:
    """About how many operations a graph is: products by what they add up, all else by the elements
    of results; infinite where there is a convolution or a pool, which take NumPy long."""
    total = 0.0
    for node in graph.nodes:
        sizes = [prod(value.type.concrete(1)) for value in node.outputs]
        if isinstance(node.op, Conv2d | MaxPool2d | AvgPool2d):
            return inf
        inner = 1
        if isinstance(node.op, Linear | MatMul):
            inner = node.inputs[0].type.concrete(1)[-1]
        total += max(sizes) * inner
    return total
