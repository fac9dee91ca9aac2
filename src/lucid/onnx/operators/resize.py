"""Resizing of images. The op has ONNX's names for where it samples."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import Resize
from lucid.ir.ops.resize import COORDINATES
from lucid.ir.types import TensorType
from lucid.onnx.table import reads, writes
from lucid.onnx.windows import like_operand, two_dimensional

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

NEAR = 1e-6
"""Of the size: what float32 may be off by."""
MODES = {"nearest": "nearest", "bilinear": "linear"}


@writes(Resize)
def write_resize(w: Writer, op: Resize, operands: Sequence[Edge], kind: TensorType) -> str:
    """By scales where these are given or whole, else by sizes; as gathered rows and columns where
    runtimes may differ."""
    (x,) = operands
    attributes: dict[str, Any] = {
        "mode": MODES[op.mode],
        "coordinate_transformation_mode": op.coordinates,
    }
    if op.mode == "nearest":
        attributes["nearest_mode"] = op.rounding
    before = op.integers(*x.type.shape[2:])
    whole = all(b % a == 0 for a, b in zip(before, op.size, strict=True))
    if op.mode == "nearest" and any(_on_the_edge(op, axis, before[axis]) for axis in (0, 1)):
        rows, columns = (w.constant(op.nearest_index(a, before[a]), "i64") for a in (0, 1))
        return w.emit("Gather", w.emit("Gather", x, rows, axis=2), columns, axis=3)
    if not whole and (op.scale is None or op.coordinates == "align_corners"):
        return w.emit("Resize", x, "", "", w.shape(kind.shape), **attributes)
    scale = op.scale or tuple(b / a for a, b in zip(before, op.size, strict=True))
    if any(floor(a * s) != b for a, b, s in zip(before, op.size, scale, strict=True)):
        raise UnsupportedError(
            f"resize by {scale} from {before} to {op.size}: in ONNX the size follows from the scale"
        )
    return w.emit("Resize", x, "", w.constant((1.0, 1.0, *scale)), **attributes)


def _on_the_edge(op: Resize, axis: int, size: int) -> bool:
    """Whether a place samples so near the middle between two pixels that how the quotient is
    rounded decides which: ONNX does not say, and ONNX Runtime divides where PyTorch multiplies."""
    if op.size[axis] % size == 0:
        return False
    exact = op.sources(axis, size)
    edge = exact if op.rounding in ("floor", "ceil") else exact + 0.5
    return bool((np.abs(edge - np.round(edge))[1:] < NEAR * size).any())


@reads("Resize", "Upsample")
def read_resize(call: Call) -> Operand:
    x = two_dimensional(call, call.operand(0))
    size, scale = _target(call, x)
    if size == x.type.shape[2:]:
        return call.operand(0)
    mode = call.text("mode", "nearest")
    if mode not in MODES.values():
        raise UnsupportedError(f"with mode {mode}")
    for name in ("antialias", "exclude_outside"):
        if call.integer(name, 0):
            raise UnsupportedError(f"with {name}")
    rounding = "floor"
    coordinates = "asymmetric"
    if call.opset >= 11:
        rounding = call.text("nearest_mode", "round_prefer_floor")
        coordinates = call.text("coordinate_transformation_mode", "half_pixel")
    if coordinates == "half_pixel_symmetric" and scale is None:
        coordinates = "half_pixel"  # the same where the scale is the ratio of the sizes
    if coordinates == "align_corners" and scale is not None:
        raise UnsupportedError("with align_corners and a scale that gives no whole size")
    if coordinates not in COORDINATES:
        raise UnsupportedError(f"with coordinates {coordinates}")
    if mode == "linear":
        op = Resize(size, "bilinear", coordinates, scale=scale)
    else:
        op = Resize(size, "nearest", coordinates, rounding, scale)
    return like_operand(call, call.apply(op, x))


def _target(call: Call, x: Operand) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """The height and width of the result, and the scale where it is not their ratio to x's."""
    if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError("with a keep_aspect_ratio_policy")
    before = call.integer_dims(*x.type.shape[2:])
    at = 1 if call.opset < 11 else 2
    if call.opset >= 11 and call.has(3) and call.elements(3).size:
        sizes = _spatial(call, list(call.sizes(3)), list(call.shape()))
        height, width = call.integer_dims(*sizes)
        return (height, width), None
    scales = [float(s) for s in call.elements(at).reshape(-1)]
    vertical, horizontal = _spatial(call, scales, [1.0] * call.rank())
    size = floor(before[0] * vertical), floor(before[1] * horizontal)
    exact = size == (before[0] * vertical, before[1] * horizontal)
    return size, None if exact else (vertical, horizontal)


def _spatial(call: Call, given: list[Any], kept: list[Any]) -> tuple[Any, Any]:
    """What is said of height and width; of other axes, it must be that they are kept."""
    named = call.integer_list("axes") or range(call.rank())
    axes = [call.counted(axis, call.rank()) for axis in named]
    if len(given) != len(axes):
        raise ModelFileError(f"says {len(given)} sizes for {len(axes)} axes")
    wanted = dict(zip(axes, given, strict=True))
    if call.image_by_image and wanted.get(0) == 1:
        del wanted[0]
    if any(wanted.get(axis, kept[axis]) != kept[axis] for axis in (0, 1)):
        raise UnsupportedError("of other axes than the last one or two")
    spatial = [wanted.get(axis, kept[axis]) for axis in range(2, call.rank())]
    return (1, spatial[0]) if len(spatial) == 1 else (spatial[0], spatial[1])
