"""Compiled ops give what PyTorch gives: the rows of `tests/data/torch_ops.npz`."""

from collections import defaultdict

import numpy as np
import pytest
from data.torch_ops import cases
from harness import TARGETS, Run

from lucid.codegen.lowering import lower
from lucid.codegen.lowering.lower import unsupported
from lucid.codegen.scheduling.schedule import schedule
from lucid.ir import Graph, TensorType, ops
from lucid.ir.passes import run_passes

CASES = defaultdict(list)
for row in cases():
    CASES[row.op.name].append(row)

LOOSE = {"exp": 1e-5, "pow": 1e-5}
"""Ops whose results are large: a float32 operand's rounding shows."""


def nested(array):
    return tuple(map(nested, array)) if array.ndim else array.item()


def graph_of(rows):
    """All rows of an op as one graph: an input for each float operand, weights as sources."""
    graph, inputs, outputs = Graph("table", {}), [], []
    for number, case in enumerate(rows):
        values = []
        for i, array in enumerate(case.operands):
            name, shape = f"x{number}_{i}", array.shape
            if array.dtype.kind == "i":
                values.append(graph.append(ops.Constant(nested(array), "i64"), []).output)
            elif i and not isinstance(case.op, ops.Elementwise | ops.MatMul | ops.Concat):
                values.append(graph.add_source(name, TensorType("f32", shape)))
                graph.payload[name] = array.astype(np.float32)
            else:
                dtype = "u8" if array.dtype.kind == "u" else "f32"
                values.append(graph.add_input(TensorType(dtype, shape), name))
                inputs.append(array.astype(np.uint8 if dtype == "u8" else np.float32))
        outputs.append(graph.append(case.op, values, origin=f"row{number}").output)
    graph.set_outputs(outputs)
    return graph, inputs


@pytest.mark.parametrize("name", CASES)
def test_compiled_values_are_those_of_pytorch(name):
    graph, inputs = graph_of(CASES[name])
    fused = run_passes(graph)
    assert not unsupported(fused)
    for target in TARGETS:
        program = lower(fused, schedule(fused, target, 1, "strict"), target, 1, threads=1)
        results = Run(program, target).outputs(graph.payload, inputs)
        for case, result in zip(CASES[name], results, strict=True):
            with np.errstate(over="ignore"):
                wanted = case.result.astype(result.dtype)
            np.testing.assert_allclose(
                result, wanted, LOOSE.get(name, 2e-6), 2e-6, err_msg=f"{case} on {target.name}"
            )
