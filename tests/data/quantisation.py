"""What ONNX Runtime and onnx's reference make of ties, NaN, infinities and what saturates, kept as
data: the tests need neither.

`python tests/data/quantisation.py` (with onnx and ONNX Runtime) writes `quantisation.npz`, which
says their versions. A row is a scale, a zero point and the numbers that are quantised, or the
integers that are dequantised. The two agree but where NaN and what int32 does not hold are
quantised: there ONNX Runtime has the least integer and saturates, and the reference what NumPy
casts to int32. Lucid has ONNX Runtime's.

A product is a QLinearConv, many sums of which are ties. There the two differ by one: ONNX Runtime
rounds half to even and adds the zero point, the reference adds an odd zero point first; and how
scale_x * scale_w / scale_y is rounded decides what is a tie. Lucid has ONNX Runtime's again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
Array = np.ndarray[Any, np.dtype[Any]]

nan, inf = float("nan"), float("inf")
# fmt: off
NUMBERS = np.array([
    nan, -nan, inf, -inf, 0, -0.0, 0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, -3.5, 126.5, 127.5, 128.5,
    -127.5, -128.5, -129.5, 254.5, 255.5, 256.5, 1e-30, -1e-30, 0.49999997, 0.50000006, 1.4999999,
    32767.5, -32768.5, 65534.5, 65535.5, 2.0**23 + 1, 2.0**24 + 2, 2.0**31, -2.0**31, 2.0**33,
    -2.0**33, 3e38, -3e38,
], np.float32)
# fmt: on
"""In steps: ties lie in the middle between two of them."""
STEPS = (1.0, 0.5, 2.0**-7, 2.0**9, 0.1, 0.02, 1 / 255, 0.007843138, 3.7)
LEAST = float(np.finfo(np.float32).tiny)
EXTREMES = (1e-40, LEAST, 1e-30, 1e30, 3e38)
"""Steps of which the first is subnormal, with which files are refused that divide by it."""
ZERO_POINTS = {
    np.uint8: (0, 1, 128, 255),
    np.int8: (-128, -1, 0, 127),
    np.uint16: (0, 40000),
    np.int16: (-32768, 5),
}


class Row(NamedTuple):
    """x and its result, of a scale and a zero point. `reference`: the result of onnx's."""

    x: Array
    scale: Array
    zero_point: Array
    result: Array
    reference: Array

    def __str__(self) -> str:
        kind = "quantize" if self.x.dtype == np.float32 else "dequantize"
        return f"{kind} {self.zero_point.dtype} {self.scale} {self.zero_point}"


class Product(NamedTuple):
    """The operands of a QLinearConv of one pixel's window, and the results of both."""

    x: Array
    x_scale: Array
    x_zero: Array
    weight: Array
    scale: Array
    zero: Array
    y_scale: Array
    y_zero: Array
    bias: Array
    result: Array
    reference: Array

    def __str__(self) -> str:
        kinds = f"{self.x.dtype} {self.weight.dtype}"
        return f"{kinds} {self.x_scale}*{self.scale[0]}/{self.y_scale} {self.y_zero}"

    @property
    def operands(self) -> dict[str, Array]:
        """All but the results, by name."""
        return {name: getattr(self, name) for name in self._fields[:-2]}


def read() -> list[Row]:
    """The rows of the file."""
    return [Row(*row) for row in _groups("row", Row._fields)]


def products() -> list[Product]:
    """The products of the file."""
    return [Product(*row) for row in _groups("product", Product._fields)]


def versions() -> dict[str, str]:
    """Those of the packages that gave the results."""
    with np.load(FILE) as file:
        return dict(file["versions"])


def _groups(kind: str, fields: tuple[str, ...]) -> list[list[Array]]:
    with np.load(FILE) as file:
        count = sum(name.startswith(f"{kind}.") for name in file.files) // len(fields)
        return [[file[f"{kind}.{i}.{name}"] for name in fields] for i in range(count)]


def computed(x: Array, scale: Array, zero_point: Array) -> Row:
    """By both."""
    kind = "QuantizeLinear" if x.dtype == np.float32 else "DequantizeLinear"
    return Row(x, scale, zero_point, *_by_both(model(kind, x, s=scale, z=zero_point), x))


def model(kind: str, x: Array, **stored: Array) -> Any:
    """An operator over an input x, its other operands stored."""
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(a, name) for name, a in stored.items()]
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *stored], ["y"])],
        "row",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_empty_tensor_value_info("y")],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _by_both(proto: Any, x: Array) -> tuple[Array, Array]:
    """Of ONNX Runtime without optimisations, and of onnx's reference."""
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    (result,) = session.run(None, {"x": x})
    with np.errstate(all="ignore"):
        (reference,) = ReferenceEvaluator(proto).run(None, {"x": x})
    return result, reference


def rows() -> list[Row]:
    made = []
    for kind, zero_points in ZERO_POINTS.items():
        bounds = np.iinfo(kind)
        wide = np.linspace(bounds.min, bounds.max, 256).astype(kind)
        pairs = [(step, zero_points[i % len(zero_points)]) for i, step in enumerate(STEPS)]
        if bounds.bits == 8:
            pairs += [(step, zero) for step in EXTREMES for zero in (bounds.min, bounds.max)]
        for step, point in pairs:
            scale, zero = np.float32(step), np.array(point, kind)
            with np.errstate(all="ignore"):
                made.append(computed(NUMBERS * scale, np.asarray(scale), zero))
            made.append(computed(wide, np.asarray(scale), zero))
    return made


WEIGHTS = (1, -1, 3, -5, 25, -50)
"""So small that no pair of products saturates, whatever the processor."""
MULTIPLIERS = ((1, 0.5, 1), (0.5, 0.5, 1), (0.02, 0.03, 0.9), (0.1, 0.1, 1), (0.7, 9, 0.01))
"""Scales of x, of weights, and of the result: of two in three sums are often ties."""


def computed_products() -> list[Product]:
    made = []
    kinds = (np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8)
    for kind, weights in kinds:
        bounds = np.iinfo(kind)
        x = np.arange(bounds.min, bounds.max + 1).astype(kind).reshape(1, 1, 16, 16)
        middle = np.array(60 if weights == np.uint8 else 0, weights)
        weight = (np.array(WEIGHTS) + int(middle)).astype(weights).reshape(-1, 1, 1, 1)
        bias = np.array([0, 1, -1, 0, 125, -2000], np.int32)
        for scales in MULTIPLIERS:
            x_scale, scale, y_scale = (np.asarray(s, np.float32) for s in scales)
            for zero in (bounds.min, bounds.max, (int(bounds.min) + bounds.max + 1) // 2):
                by_channel = scale * np.array([1, 1, 1, 2, 1, 1], np.float32)
                parts = Product(
                    *(x, x_scale, np.array(zero, kind), weight, by_channel, middle),
                    *(y_scale, np.array(zero, kind), bias, x, x),
                )
                proto = model("QLinearConv", **parts.operands)
                result, reference = _by_both(proto, x)
                made.append(parts._replace(result=result, reference=reference))
    return made


def main() -> None:
    import onnx
    import onnxruntime

    arrays: dict[str, Any] = {}
    for kind, made in (("row", rows()), ("product", computed_products())):
        for i, row in enumerate(made):
            arrays |= {f"{kind}.{i}.{n}": v for n, v in zip(row._fields, row, strict=True)}
    packages = [("onnx", onnx.__version__), ("onnxruntime", onnxruntime.__version__)]
    np.savez_compressed(FILE, versions=np.array(packages), **arrays)


if __name__ == "__main__":
    main()
