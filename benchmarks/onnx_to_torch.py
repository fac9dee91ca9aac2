"""An ONNX model of Lucid's as a torch.fx module: the operators that its own networks have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

Attributes = dict[str, Any]


def to_torch(path: Path, batch: int) -> torch.fx.GraphModule:
    """The model for one batch size. Raises NotImplementedError for what it does not know."""
    proto = onnx.load(path).graph
    arrays = {i.name: numpy_helper.to_array(i) for i in proto.initializer}
    uses = Counter(name for node in proto.node for name in node.input)
    root, graph = torch.nn.Module(), torch.fx.Graph()
    values: dict[str, Any] = {i.name: graph.placeholder("images") for i in proto.input}

    def operand(name: str) -> Any:
        """A value of the graph, a weight, or, where it is a list of integers, the list."""
        if name in values:
            return values[name]
        array = arrays[name]
        if array.dtype == np.int64:
            return array.tolist()
        label = f"weight{len(values)}"
        root.register_parameter(
            label, torch.nn.Parameter(torch.from_numpy(array.copy()), requires_grad=False)
        )
        values[name] = graph.get_attr(label)
        return values[name]

    for node in proto.node:
        build = OPERATORS.get(node.op_type)
        if build is None:
            raise NotImplementedError(f"{node.op_type} is not among {', '.join(OPERATORS)}")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        attributes |= {"batch": batch, "last_use": uses[node.input[0]] == 1}
        operands = [operand(name) for name in node.input]
        values[node.output[0]] = build(graph.call_function, operands, attributes)
    graph.output(values[proto.output[0].name])
    return torch.fx.GraphModule(root, graph).eval()


def _conv(call: Callable[..., Any], operands: Sequence[Any], a: Attributes) -> Any:
    x, weight, *bias = operands
    strides, dilations = tuple(a["strides"]), tuple(a["dilations"])
    bias = [*bias, None]
    return call(functional.conv2d, (x, weight, bias[0], strides, _pads(a), dilations, a["group"]))


def _pads(a: Attributes) -> tuple[int, int]:
    """Padding above and beside, where it is the same below and on the other side."""
    top, left, bottom, right = a["pads"]
    if (top, left) != (bottom, right):
        raise NotImplementedError(f"padding {a['pads']} differs from side to side")
    return (top, left)


def _max_pool(call: Callable[..., Any], operands: Sequence[Any], a: Attributes) -> Any:
    kernel, strides = tuple(a["kernel_shape"]), tuple(a["strides"])
    return call(functional.max_pool2d, (operands[0], kernel, strides, _pads(a)))


def _avg_pool(call: Callable[..., Any], operands: Sequence[Any], a: Attributes) -> Any:
    kernel, strides = tuple(a["kernel_shape"]), tuple(a["strides"])
    counts = bool(a.get("count_include_pad", 0))
    return call(functional.avg_pool2d, (operands[0], kernel, strides, _pads(a), False, counts))


def _relu(call: Callable[..., Any], operands: Sequence[Any], a: Attributes) -> Any:
    """In place where nothing else reads the operand."""
    return call(torch.relu_ if a["last_use"] else torch.relu, (operands[0],))


def _reshape(call: Callable[..., Any], operands: Sequence[Any], a: Attributes) -> Any:
    x, shape = operands
    return call(torch.reshape, (x, [a["batch"] if d == 0 else d for d in shape]))


def _slice(call: Callable[..., Any], operands: Sequence[Any], a: Attributes) -> Any:
    x, (start,), (stop,), (axis,), (step,) = operands
    if step != 1:
        raise NotImplementedError(f"a slice of step {step}")
    return call(torch.narrow, (x, axis, start, stop - start))


def _gemm(call: Callable[..., Any], operands: Sequence[Any], a: Attributes) -> Any:
    if not a["transB"]:
        raise NotImplementedError("Gemm with weights that are not transposed")
    return call(functional.linear, tuple(operands))


OPERATORS: dict[str, Callable[[Callable[..., Any], Sequence[Any], Attributes], Any]] = {
    "Add": lambda call, x, a: call(torch.add, tuple(x)),
    "AveragePool": _avg_pool,
    "Concat": lambda call, x, a: call(torch.cat, (list(x), a["axis"])),
    "Conv": _conv,
    "Flatten": lambda call, x, a: call(torch.flatten, (x[0], a["axis"])),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda call, x, a: call(functional.adaptive_avg_pool2d, (x[0], 1)),
    "MaxPool": _max_pool,
    "Mul": lambda call, x, a: call(torch.mul, tuple(x)),
    "Relu": _relu,
    "Reshape": _reshape,
    "Sigmoid": lambda call, x, a: call(torch.sigmoid, (x[0],)),
    "Slice": _slice,
    "Softmax": lambda call, x, a: call(torch.softmax, (x[0], a["axis"])),
    "Sub": lambda call, x, a: call(torch.sub, tuple(x)),
    "Transpose": lambda call, x, a: call(torch.permute, (x[0], list(a["perm"]))),
}
"""How each operator is called: by what appends a call, its operands and its attributes."""
