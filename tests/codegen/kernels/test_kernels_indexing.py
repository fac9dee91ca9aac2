"""Order, taking and putting by indices, running totals and boxes against the ops' references, bit
by bit: over shapes, layouts and dtypes, in guarded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, examples, set_apart
from hypothesis import given
from hypothesis import strategies as st

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.errors import ShapeError
from lucid.ir import Graph, TensorType, interpret, ops
from lucid.ir.ops.indexing import REDUCTIONS
from lucid.ir.types import DTYPES

SIZES = [1, 2, 3, 5, 8, 17, 40]
KINDS = ["f32", "i64", "u8", "i16", "i32", "u64"]
Array = np.ndarray[Any, np.dtype[Any]]


def run(graph: Graph, arrays: Sequence[Array]) -> list[list[Array]]:
    """The outputs on every target, the same for one thread and for two."""
    found = []
    for target in TARGETS:
        results = []
        for threads in (1, 2):
            program = lower(graph, schedule(graph, target, 1), target, 1, threads)
            if threads == 1:
                set_apart(program)
            results.append(Run(program, target, threads).outputs({}, arrays))
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other)
        found.append(results[0])
    return found


def graph_of(
    op: ops.Op, arrays: Sequence[Array], kinds: Sequence[str], orders: Sequence[Any] = ()
) -> tuple[Graph, list[Array]]:
    """A graph of one op whose first operands lie in other orders; and its inputs."""
    graph, values, given = Graph("one", {}), [], list(arrays)
    for i, order in enumerate(orders):
        given[i] = np.ascontiguousarray(np.transpose(arrays[i], order))
    for i, (array, kind) in enumerate(zip(given, kinds, strict=True)):
        value = graph.add_input(TensorType(kind, array.shape))
        if i < len(orders):
            back = tuple(int(a) for a in np.argsort(orders[i]))
            value = graph.append(ops.Permute(back), [value]).output
        values.append(value)
    graph.set_outputs(graph.append(op, values).outputs)
    return graph, given


def agrees(
    op: ops.Op, arrays: Sequence[Array], kinds: Sequence[str], orders: Sequence[Any] = ()
) -> None:
    graph, given = graph_of(op, arrays, kinds, orders)
    wanted = interpret(graph, given)
    for results in run(graph, given):
        for value, right in zip(results, wanted, strict=True):
            assert value.dtype == right.dtype
            np.testing.assert_array_equal(value, right)


class Drawn:
    """Shapes, layouts and numbers of a case."""

    def __init__(self, data: st.DataObject, rank: int = 4) -> None:
        self.draw = data.draw
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**32)))
        shape = self.draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=rank))
        while np.prod(shape) > 4000:
            shape[int(np.argmax(shape))] = 3
        self.shape = tuple(shape)
        self.axis = self.draw(st.integers(0, len(shape) - 1))
        self.kind = self.draw(st.sampled_from(KINDS))
        self.order = tuple(self.draw(st.permutations(range(len(shape)))))

    def numbers(self, *shape: int) -> Array:
        """Few different ones, NaN and both zeros among the floats."""
        found = self.rng.integers(0, 9, shape)
        if self.kind != "f32":
            wide = found.astype(np.int64) * (1 << 40) if self.kind == "i64" else found
            return wide.astype(DTYPES[self.kind])
        values = np.round(self.rng.standard_normal(shape).astype(np.float32) * 3)
        return np.where(self.rng.random(shape) < 0.03, np.float32(np.nan), values)

    def indices(self, size: int, *shape: int) -> Array:
        return self.rng.integers(-size, size, shape)

    def part(self) -> tuple[int, ...]:
        """A shape of indices along the axis."""
        sizes = [self.draw(st.sampled_from([d, d, max(1, d // 2)])) for d in self.shape]
        sizes[self.axis] = self.draw(st.sampled_from(SIZES))
        return tuple(sizes)


@examples(0.5)
@given(data=st.data())
def test_top_k(data: st.DataObject) -> None:
    d = Drawn(data)
    size = d.shape[d.axis]
    k = data.draw(st.sampled_from([size, size // 9, size // 2, 1, 0]))
    op = ops.TopK(d.axis, k, data.draw(st.booleans()))
    agrees(op, [d.numbers(*d.shape)], [d.kind], [d.order])


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 5, 48, 49, 83, 84, 997])
def test_top_k_of_long_rows(k: int, largest: bool) -> None:
    """By a heap, and by sorting all; ascending rows, where each element is better than all before,
    and such that are equal."""
    rng = np.random.default_rng(k)
    rows = [rng.standard_normal(997), np.arange(997), -np.arange(997), np.zeros(997)]
    x = np.stack([*rows, rng.integers(0, 4, 997)]).astype(np.float32)
    agrees(ops.TopK(1, k, largest), [x], ["f32"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("largest", [True, False])
def test_top_k_of_rows_of_what_comes_last(kind: str, largest: bool) -> None:
    """A row of nothing but the element that is behind all others, which a heap begins with."""
    if kind == "f32":
        last = np.array(-np.inf if largest else np.nan, np.float32)
    else:
        limits = np.iinfo(DTYPES[kind])
        last = np.array(limits.min if largest else limits.max, DTYPES[kind])
    for k in (0, 1, 3):
        agrees(ops.TopK(1, k, largest), [np.full((2, 53), last)], [kind])


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize(
    "op", [ops.TopK(1, 1), ops.CumSum(1), ops.ScatterElements(1, "max"), ops.ScatterND("add")]
)
def test_floats_that_are_only_stored_are_refused(op: ops.Op, kind: str) -> None:
    x, indices = TensorType(kind, (2, 2)), TensorType("i64", (2, 2))
    single = isinstance(op, ops.TopK | ops.CumSum)
    updates = TensorType(kind, (2,)) if isinstance(op, ops.ScatterND) else x
    with pytest.raises(ShapeError, match="must be cast to f32 first"):
        op.result_types(*([x] if single else [x, indices, updates]))


def test_zeros_and_denormals_are_equal() -> None:
    """As everywhere in compiled code; what is chosen passes as it is."""
    x = np.array([0.0, 1e-40, -0.0, -1e-40, np.nan, -np.inf, np.inf, 1e-30], np.float32)
    graph, given = graph_of(ops.TopK(0, 8, False), [x], ["f32"])
    for values, places in run(graph, given):
        assert places.tolist() == [5, 0, 1, 2, 3, 7, 6, 4]
        np.testing.assert_array_equal(values.view(np.int32), x[places].view(np.int32))


@examples(0.5)
@given(data=st.data())
def test_gather_elements(data: st.DataObject) -> None:
    d = Drawn(data)
    indices = d.indices(d.shape[d.axis], *d.part())
    agrees(ops.GatherElements(d.axis), [d.numbers(*d.shape), indices], [d.kind, "i64"], [d.order])


@examples(0.3)
@given(data=st.data())
def test_gather(data: st.DataObject) -> None:
    d = Drawn(data, 3)
    shape = data.draw(st.lists(st.sampled_from([1, 2, 5]), max_size=2))
    arrays = [d.numbers(*d.shape), d.indices(d.shape[d.axis], *shape)]
    agrees(ops.Gather(d.axis), arrays, [d.kind, "i64"], [d.order])


def _places(d: Drawn, own: int, depth: int) -> Array:
    """Indices (own axes, any others, depth)."""
    shape = d.draw(st.lists(st.sampled_from([1, 2, 5]), max_size=2))
    sizes = d.shape[own : own + depth]
    return np.stack([d.indices(s, *d.shape[:own], *shape) for s in sizes], axis=-1)


@examples(0.5)
@given(data=st.data())
def test_gather_nd(data: st.DataObject) -> None:
    d = Drawn(data)
    depth = data.draw(st.integers(1, len(d.shape) - d.axis))
    arrays = [d.numbers(*d.shape), _places(d, d.axis, depth)]
    agrees(ops.GatherND(d.axis), arrays, [d.kind, "i64"], [d.order])


@examples(0.7)
@given(data=st.data())
def test_scatter_elements(data: st.DataObject) -> None:
    d = Drawn(data)
    part = d.part()
    op = ops.ScatterElements(d.axis, data.draw(st.sampled_from(["none", *REDUCTIONS])))
    arrays = [d.numbers(*d.shape), d.indices(d.shape[d.axis], *part), d.numbers(*part)]
    agrees(op, arrays, [d.kind, "i64", d.kind], [d.order])


@examples(0.7)
@given(data=st.data())
def test_scatter_nd(data: st.DataObject) -> None:
    d = Drawn(data)
    indices = _places(d, 0, d.axis + 1)
    op = ops.ScatterND(data.draw(st.sampled_from(["none", *REDUCTIONS])))
    updates = d.numbers(*indices.shape[:-1], *d.shape[d.axis + 1 :])
    agrees(op, [d.numbers(*d.shape), indices, updates], [d.kind, "i64", d.kind], [d.order])


FAR = np.array([2**62, -(2**62), 5, -6, 4, -5, 2**63 - 1, -(2**63)])
"""Indices outside an axis of 5 elements, or hardly inside."""


def test_indices_outside_take_the_nearest() -> None:
    x = np.arange(5, dtype=np.float32)
    nearest = [4, 0, 4, 0, 4, 0, 4, 0]
    for op in (ops.GatherElements(0), ops.Gather(0)):
        for (y,) in run(*graph_of(op, [x, FAR], ["f32", "i64"])):
            assert y.tolist() == nearest
    for (y,) in run(*graph_of(ops.GatherND(), [x, FAR[:, None]], ["f32", "i64"])):
        assert y.tolist() == nearest


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_indices_outside_put_nothing(reduction: str) -> None:
    x, updates = np.zeros(5, np.float32), np.arange(1, 9, dtype=np.float32)
    kinds = ["f32", "i64", "f32"]
    for (y,) in run(*graph_of(ops.ScatterElements(0, reduction), [x, FAR, updates], kinds)):
        assert y.tolist() == [6, 0, 0, 0, 5]
    op, rows = ops.ScatterND(reduction), np.stack([updates] * 3, 1)
    table = np.zeros((5, 3), np.float32)
    for (y,) in run(*graph_of(op, [table, FAR[:, None], rows], kinds)):
        assert y[:, 0].tolist() == [6, 0, 0, 0, 5]


@pytest.mark.parametrize("op", [ops.CumSum, ops.CumProd])
@examples(0.4)
@given(data=st.data())
def test_running_totals(op: Any, data: st.DataObject) -> None:
    d = Drawn(data)
    sides = data.draw(st.booleans()), data.draw(st.booleans())
    agrees(op(d.axis, *sides), [d.numbers(*d.shape)], [d.kind], [d.order])


@examples(0.6)
@given(data=st.data())
def test_boxes(data: st.DataObject) -> None:
    """That touch, overlap by just as much as the threshold, are empty or turned over, lie far
    apart, or have sides that are no finite numbers."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    images, classes = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    count = data.draw(st.sampled_from([1, 2, 9, 40, 120]))
    low = rng.integers(0, 6, (images, count, 2))
    low += rng.integers(0, 5, (images, count, 1)) * data.draw(st.sampled_from([0, 7, 10**6]))
    boxes = np.concatenate([low, low + rng.integers(-1, 4, low.shape)], -1).astype(np.float32)
    if data.draw(st.booleans()):
        boxes += rng.random(boxes.shape).astype(np.float32)
    if data.draw(st.booleans()):
        boxes[rng.random(boxes.shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    scores = rng.integers(0, 5, (images, classes, count)).astype(np.float32) / 4
    op = ops.NonMaxSuppression(
        data.draw(st.sampled_from([0, 1, 3, 200])),
        data.draw(st.sampled_from([-0.5, 0.0, 0.25, 1 / 3, 0.5, 0.7])),
        data.draw(st.sampled_from([None, 0.0, 0.5])),
        data.draw(st.sampled_from(["corners", "centre", "sides"])),
    )
    agrees(op, [boxes, scores], ["f32", "f32"])
