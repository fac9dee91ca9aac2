"""What ONNX Runtime and onnx's reference make of ties, NaN, infinities and what saturates, kept as
data: the tests need neither.

`python tests/data/quantisation.py` (with onnx and ONNX Runtime) writes `quantisation.npz`. A row is
a scale, a zero point and the numbers that are quantised, or the integers that are dequantised. The
two agree but where NaN and what int32 does not hold are quantised: there ONNX Runtime has the least
integer and saturates, and the reference what NumPy casts to int32. Lucid has ONNX Runtime's.
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


def read() -> list[Row]:
    """The rows of the file."""
    with np.load(FILE) as file:
        count = len(file.files) // len(Row._fields)
        return [Row(*(file[f"{i}.{name}"] for name in Row._fields)) for i in range(count)]


def computed(x: Array, scale: Array, zero_point: Array) -> Row:
    """By both."""
    import onnxruntime
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    kind = "QuantizeLinear" if x.dtype == np.float32 else "DequantizeLinear"
    stored = [numpy_helper.from_array(a, n) for a, n in ((scale, "s"), (zero_point, "z"))]
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    given = helper.make_tensor_value_info("x", element, x.shape)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "s", "z"], ["y"])],
        "row",
        [given],
        [helper.make_empty_tensor_value_info("y")],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (result,) = session.run(None, {"x": x})
    with np.errstate(all="ignore"):
        (reference,) = ReferenceEvaluator(model).run(None, {"x": x})
    return Row(x, scale, zero_point, result, reference)


def rows() -> list[Row]:
    made = []
    for kind, zero_points in ZERO_POINTS.items():
        bounds = np.iinfo(kind)
        wide = np.linspace(bounds.min, bounds.max, 256).astype(kind)
        for number, step in enumerate(STEPS):
            scale = np.float32(step)
            zero = np.array(zero_points[number % len(zero_points)], kind)
            with np.errstate(all="ignore"):
                made.append(computed(NUMBERS * scale, np.asarray(scale), zero))
            made.append(computed(wide, np.asarray(scale), zero))
    return made


if __name__ == "__main__":
    arrays = {
        f"{i}.{name}": value
        for i, row in enumerate(rows())
        for name, value in zip(Row._fields, row, strict=True)
    }
    np.savez_compressed(FILE, **arrays)
