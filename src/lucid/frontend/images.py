"""uint8 images as a graph's input: `Preprocess.normalise` as ops that precede the graph's own.

    %images: u8[N,H,W,C]  ->  cast, mul and add along a line of pixels  ->  permute to NCHW

The arithmetic runs over lines of W*C levels, as they lie in memory, so that one kernel does it at
full vectors and writes what a first convolution reads: floats, channels last.
"""

from __future__ import annotations

from collections.abc import Sequence

from lucid.errors import InputError
from lucid.ir.graph import Graph, Value
from lucid.ir.ops import Add, Cast, Concat, Constant, Expand, Mul, Permute, Reshape, Slice
from lucid.ir.recipe import Apply, Recipe
from lucid.ir.types import TensorType, f32
from lucid.vision.spec import Preprocess

ORIGIN = "preprocess"
"""The path of the nodes in front of the model."""


def takes_images(graph: Graph, spec: Preprocess) -> Graph:
    """The graph for uint8 images (N, H, W, C), RGB or grey, in place of float32 (N, C, H, W).

    Raises InputError where the graph's input is none of images of `spec`'s channels.
    """
    inputs = ", ".join(f"{v.name}: {v.type}" for v in graph.inputs)
    one = len(graph.inputs) == 1 and graph.inputs[0].type.rank == 4
    x = graph.inputs[0] if one else None
    if x is None or x.type != f32(x.type.shape[0], spec.channels, *x.type.shape[2:]):
        raise InputError(
            f"{graph.name} has the inputs ({inputs}); input='uint8_nhwc' is for models of one "
            f"input f32[N,{spec.channels},H,W] ({spec.order} images): give `preprocess` with its "
            "order (rgb, bgr or grey), or compile it for float32"
        )
    result = Graph(graph.name, graph.payload)
    channels, height, width = (int(d) for d in x.type.concrete(1)[1:])
    batch = x.type.shape[0]
    images = result.add_input(TensorType("u8", (batch, height, width, channels)), "images")
    mapped = {x: _normalised(result, images, spec)}
    _copy(graph, result, mapped)
    return result


def _normalised(graph: Graph, images: Value, spec: Preprocess) -> Value:
    """(level / divisor - mean) / std as level * scale + shift, NCHW."""
    _, height, width, channels = images.type.concrete(1)
    batch = images.type.shape[0]
    scale = [1 / (s * spec.divisor) for s in spec.stds]
    shift = [-m / s for m, s in zip(spec.means, spec.stds, strict=True)]
    if spec.order == "bgr":  # the numbers are in the network's order, the levels are RGB
        scale, shift = scale[::-1], shift[::-1]

    def apply(op: object, *operands: Value) -> Value:
        return graph.append(op, operands, origin=ORIGIN).output  # type: ignore[arg-type]  # an Op

    y = apply(Reshape((batch, height, width * channels)), images)
    y = apply(Cast("f32"), y)
    for op, numbers, name in ((Mul(), scale, "scale"), (Add(), shift, "shift")):
        y = apply(op, y, graph.add_parameter(f"{ORIGIN}.{name}", _line(numbers, width)))
    y = apply(Reshape((batch, height, width, channels)), y)
    y = apply(Permute((0, 3, 1, 2)), y)
    if spec.order == "bgr":
        parts = [apply(Slice(1, i, i + 1), y) for i in reversed(range(channels))]
        y = apply(Concat(1), *parts)
    return y


def _line(numbers: Sequence[float], width: int) -> Recipe:
    """One number a channel, for each pixel of a line: f32[width * channels]."""
    one = Apply(Constant(tuple(numbers)))
    line = Apply(Expand((width, len(numbers))), (one,))
    return Apply(Reshape((width * len(numbers),)), (line,))


def _copy(graph: Graph, result: Graph, mapped: dict[Value, Value]) -> None:
    """The nodes of a graph at the end of another; `mapped` says what its inputs have become."""
    for name, parameter in graph.parameters.items():
        mapped[parameter] = result.add_parameter(name, parameter.recipe)
    for node in graph.nodes:
        new = result.append(
            node.op,
            [mapped[v] for v in node.inputs],
            names=[v.name for v in node.outputs],
            origin=node.origin,
            fused_from=node.fused_from,
            location=node.location,
        )
        mapped.update(zip(node.outputs, new.outputs, strict=True))
    result.set_outputs(mapped[v] for v in graph.outputs)
