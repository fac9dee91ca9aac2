"""Resizing of images. The op has ONNX's names for where it samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir import volumes
from lucid.ir.ops import Array, Gather, Resize
from lucid.ir.ops.resize import COORDINATES, ROUNDING, nearest
from lucid.ir.types import TensorType
from lucid.onnx.known import known
from lucid.onnx.table import reads, writes
from lucid.onnx.windows import spatial_axes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

NEAR = 1e-6
"""Of the size: what float32 may be off by."""
TIE = 1e-6
"""Measured on ONNX Runtime 1.32: 14.500001 is rounded as 14.5 is, 24.499998 is not."""
MODES = {"nearest": "nearest", "bilinear": "linear"}
READ = {
    "nearest": (*COORDINATES, "half_pixel_symmetric", "tf_half_pixel_for_nn"),
    "linear": (*COORDINATES, "half_pixel_symmetric"),
}
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
INEXACT = {"nearest": ("align_corners",), "linear": ("align_corners", "half_pixel_symmetric")}
"""Coordinates that are read only where the scales are the ratios of the sizes: onnx's reference and
ONNX Runtime differ about the corners else, and Lucid's op has no symmetric ones."""
SIMPLE = "simple"
"""How versions before 11, which do not say, round in runtimes: up where the image shrinks."""


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
    scaled = op.scale is None or _scaled(before, np.array(op.scale, np.float32)) == op.size
    on_the_edge = not scaled or any(_on_the_edge(op, axis, before[axis]) for axis in (0, 1))
    if op.mode == "nearest" and on_the_edge:
        rows, columns = (w.constant(op.nearest_index(a, before[a]), "i64") for a in (0, 1))
        return w.emit("Gather", w.emit("Gather", x, rows, axis=2), columns, axis=3)
    if not whole and (op.scale is None or op.coordinates == "align_corners"):
        return w.emit("Resize", x, "", "", w.shape(kind.shape), **attributes)
    scale = op.scale or tuple(b / a for a, b in zip(before, op.size, strict=True))
    if not scaled:
        raise UnsupportedError(
            f"resize by {scale} from {before} to {op.size}: in ONNX the size follows from the scale"
        )
    return w.emit("Resize", x, "", w.constant((1.0, 1.0, *scale)), **attributes)


def _on_the_edge(op: Resize, axis: int, size: int) -> bool:
    """Whether a place samples so near the middle between two pixels that how the quotient is
    rounded decides which: ONNX does not say, and ONNX Runtime divides where PyTorch multiplies."""
    if op.scale is None and op.size[axis] % size == 0:
        return False
    exact = op.sources(axis, size)
    edge = exact if op.rounding in ("floor", "ceil") else exact + 0.5
    return bool((np.abs(edge - np.round(edge))[1:] < NEAR * size).any())


@reads("Resize", "Upsample")
def read_resize(call: Call) -> Operand:
    """The op; nearest samples that it does not take are gathered, axis by axis."""
    x, axes = call.value(call.operand(0)), range(spatial_axes(call))
    how, problem = _sampling(call)
    size, scales, exact = _target(call)
    if how.coordinates != "tf_crop_and_resize" and all(scale == 1 for scale in scales):
        return call.operand(0)
    if problem:
        raise UnsupportedError(f"with {problem}")
    scale = None if exact else [float(s) for s in scales]
    if scale is not None and how.coordinates in INEXACT[how.mode]:
        raise UnsupportedError(f"with {how.coordinates} and scales that give no whole size")

    def resized(mode: str, rounding: str) -> Callable[[int, int], Resize]:
        return lambda *pair: Resize(
            volumes.picked(size, pair, 1),
            mode,
            how.own_coordinates,
            rounding,
            None if scale is None else volumes.picked(scale, pair, 1.0),
        )

    if how.mode == "linear":
        return volumes.axis_by_axis(call.node, x, resized("bilinear", "floor"))
    before = call.integer_dims(*x.type.shape[2:])
    places = [how.places(*axis) for axis in zip(before, size, scales, strict=True)]
    for rounding in sorted(ROUNDING, key=lambda rounding: rounding != how.rounding):
        over = resized("nearest", rounding)
        ops = [over(axis, volumes.NONE) for axis in axes]
        found = [op.nearest_index(0, n) for op, n in zip(ops, before, strict=True)]
        if all(map(np.array_equal, found, places)):
            return volumes.axis_by_axis(call.node, x, over)
    for axis in axes:
        x = call.value(call.apply(Gather(2 + axis), x, known(places[axis])))
    return x


@dataclass(frozen=True)
class Sampling:
    """What is sampled where, in ONNX's words."""

    mode: str
    coordinates: str
    rounding: str

    def places(self, size: int, out: int, scale: np.float32) -> Array:
        """Which of the `size` elements along an axis each of the `out` nearest samples is (int64).

        As ONNX Runtime computes it: in float32, by division, and what is within TIE of the middle
        between two elements is in the middle.
        """
        place, half = np.arange(out, dtype=np.float32), np.float32(0.5)
        match self.coordinates:
            case _ if scale == 1:
                source = place
            case "asymmetric":
                source = place / scale
            case "align_corners":
                source = place * np.float32(size - 1) / np.float32(max(1, out - 1))
            case "tf_half_pixel_for_nn":
                source = (place + half) / scale
            case "pytorch_half_pixel" if out == 1:
                source = place
            case "half_pixel_symmetric":
                length = np.float32(size)
                offset = length * half * (1 - np.float32(out) / (scale * length))
                source = (offset + (place + 0.5) / np.float64(scale) - 0.5).astype(np.float32)
            case _:
                source = (place + half) / scale - half
        exact = source.astype(np.float64)
        match self.rounding:
            case "round_prefer_floor":
                return nearest(exact - TIE, self.rounding, size)
            case "round_prefer_ceil":
                return nearest(exact + TIE, self.rounding, size)
            case "simple":
                return nearest(exact, "ceil" if scale < 1 else "floor", size)
        return nearest(exact, self.rounding, size)

    @property
    def own_coordinates(self) -> str:
        """Those of Lucid's that come nearest."""
        return self.coordinates if self.coordinates in COORDINATES else "half_pixel"


def _sampling(call: Call) -> tuple[Sampling, str]:
    """How images are sampled, and what of it Lucid has no op for; empty if nothing."""
    mode, coordinates, rounding = call.text("mode", "nearest"), "asymmetric", SIMPLE
    call.ignore("extrapolation_value", "cubic_coeff_a", 1)  # of modes that are not read
    if call.opset >= 11:
        coordinates = call.text("coordinate_transformation_mode", "half_pixel")
        rounding = call.choice("nearest_mode", NEAREST_MODES)
    problem = ""
    if mode not in MODES.values():
        problem = f"mode {mode}"
    elif coordinates not in READ[mode]:
        problem = f"coordinates {coordinates}"
    for name in ("antialias", "exclude_outside"):
        if call.integer(name, 0):
            problem = problem or name
    return Sampling(mode, coordinates, rounding), problem


def _target(call: Call) -> tuple[tuple[int, ...], list[np.float32], bool]:
    """The spatial sizes of the result, the scales to them, and whether these are their ratios to
    x's. Scales are float32, and so is what they give: 10 by 0.7 is 7."""
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    before = call.integer_dims(*call.shape()[2:])
    lengths = np.array(before, np.float32)
    at = 1 if call.opset < 11 else 2
    if call.opset >= 11 and call.has(3) and call.elements(3).size:
        if call.has(at) and call.elements(at).size:
            raise ModelFileError("has both scales and sizes")
        if policy != "stretch":
            raise UnsupportedError("with a keep_aspect_ratio_policy")
        sizes = _spatial(call, list(call.sizes(3)), list(call.shape()))
        after = tuple(call.integer_dims(*sizes))
        return after, list(np.array(after, np.float32) / lengths), True
    given = [float(s) for s in call.elements(at).reshape(-1)]
    scales = np.array(_spatial(call, given, [1.0] * call.rank()), np.float32)
    size = _scaled(before, scales)
    return size, list(scales), bool((lengths * scales == size).all())


def _scaled(before: Sequence[int], scales: Array) -> tuple[int, ...]:
    """The sizes that scales give."""
    return tuple(int(d) for d in np.floor(np.array(before, np.float32) * scales))


def _spatial(call: Call, given: list[Any], kept: list[Any]) -> list[Any]:
    """What is said of spatial axes; of other ones, it must be that they are kept."""
    named = call.integer_list("axes") or range(call.rank())
    axes = [call.counted(axis, call.rank()) for axis in named]
    if len(given) != len(axes):
        raise ModelFileError(f"says {len(given)} sizes for {len(axes)} axes")
    wanted = dict(zip(axes, given, strict=True))
    if call.image_by_image and wanted.get(0) == 1:
        del wanted[0]
    if any(wanted.get(axis, kept[axis]) != kept[axis] for axis in (0, 1)):
        raise UnsupportedError("of other axes than the spatial ones")
    return [wanted.get(axis, kept[axis]) for axis in range(2, call.rank())]
