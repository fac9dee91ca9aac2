"""Which nodes mix the images of a batch: judged by shapes, and compared with what ops compute."""

import numpy as np
import pytest
from op_cases import CASES, IDS

from lucid.ir import BATCH, Dim, Graph, TensorType, f32, interpret
from lucid.ir.batch import mixing_node
from lucid.ir.ops import (
    Add,
    ArgMax,
    Concat,
    Expand,
    Gather,
    MatMul,
    Max,
    Mean,
    Op,
    Pad,
    Permute,
    Reshape,
    Softmax,
    Where,
)

N = BATCH
I64 = TensorType("i64", (3,))


def alone(op, types):
    graph = Graph("alone")
    graph.set_outputs(graph.append(op, [graph.add_input(t) for t in types]).outputs)
    return graph


def rows(kind, array, part):
    """The part's images, where the type has the batch in front."""
    if not kind.shape or not isinstance(kind.shape[0], Dim):
        return array
    each = kind.shape[0].coefficient
    return array[part.start * each : part.stop * each]


@pytest.mark.parametrize(("op", "types", "formula"), CASES, ids=IDS)
def test_a_batch_in_two_parts_gives_the_same(op, types, formula):
    graph = alone(op, types)
    first = [d for output in graph.outputs for d in output.type.shape[:1]]
    if mixing_node(graph) is not None or not any(isinstance(d, Dim) for d in first):
        return
    rng = np.random.default_rng(3)
    inputs = [rng.uniform(0.5, 2.5, t.concrete(3)) for t in types]
    whole = interpret(graph, inputs, dtype=np.float64)
    parts = [slice(0, 1), slice(1, 3)]
    given = [
        interpret(graph, [rows(t, x, p) for t, x in zip(types, inputs, strict=True)], dtype="f8")
        for p in parts
    ]
    for *pieces, result in zip(*given, whole, strict=True):
        np.testing.assert_allclose(np.concatenate(pieces), result, rtol=1e-12)


@pytest.mark.parametrize(
    ("op", "types", "mixes"),
    [
        (Mean((0,)), [f32(N, 3)], True),
        (Max((1,)), [f32(N, 3)], False),
        (Max((1,)), [f32(3, N)], True),
        (ArgMax(0), [f32(N, 3)], True),
        (ArgMax(1), [f32(N, 3)], False),
        (Softmax(0), [f32(N, 3)], True),
        (Concat(0), [f32(N, 3), f32(N, 3)], True),
        (Concat(1), [f32(N, 3), f32(N, 3)], False),
        (Gather(0), [f32(N, 3), I64], True),
        (Gather(1), [f32(N, 3), I64], False),
        (Gather(0), [f32(5, 3), TensorType("i64", (N,))], False),
        (Gather(1), [f32(N, 3), TensorType("i64", (N,))], True),
        (MatMul(), [f32(N, 2, 3), f32(N, 3, 4)], False),
        (MatMul(), [f32(N, 3), f32(3, 4)], False),
        (MatMul(), [f32(4, 3), f32(3, N)], False),
        (MatMul(), [f32(3, N), f32(N, 3)], True),
        (MatMul(), [f32(N, 3), f32(3, N)], True),
        (Add(), [f32(N, 1), f32(N)], True),
        (Where(), [f32(N, 1), f32(3), f32()], False),
        (Pad((0, 1), (0, 2)), [f32(N, 3)], False),
        (Expand((N, 3)), [f32(1, 3)], False),
        (Permute((1, 0)), [f32(N, 3)], False),
        (Reshape((-1,)), [f32(N, 3)], False),
        (Reshape((-1,)), [f32(3, N)], True),
    ],
)
def test_ops_over_the_batch_are_found(op, types, mixes):
    assert (mixing_node(alone(op, types)) is not None) == mixes


def test_of_an_unknown_op_the_worst_is_assumed():
    class Reverse(Op):
        name = "reverse"

        def infer(self, x):
            return x

    assert mixing_node(alone(Reverse(), [f32(N, 3)])) is not None
