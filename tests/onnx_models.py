"""Small models of ONNX, built operator by operator; needs the package onnx."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lucid.frontend.onnx import import_onnx
from lucid.ir import interpret, verify

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def node(kind, inputs, outputs="y", name="", **attributes):
    """`inputs` and `outputs` separated by spaces; `-` is an operand left out."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(kind, names, outputs.split(), name=name, **attributes)


def model(nodes, constants=None, shape=("N", 3, 8, 8), outputs="y", opset=18, dtype=FLOAT):
    """A model of one input x of `shape`, with initializers `constants`."""
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs.split()],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def run(proto, x, **options):
    """The one output for x, in float64."""
    graph = import_onnx(proto, **options)
    verify(graph)
    (y,) = interpret(graph, [x], dtype=np.float64)
    return y


def kinds(proto):
    """The names of the ops of the graph, in order."""
    return [n.op.name for n in import_onnx(proto).nodes]


def convolution(weight):
    """A model of one convolution by `w`."""
    return model([node("Conv", "x w", name="/stem/Conv")], {"w": weight}, ("N", 3, 8, 8))
