"""Resizing of images. The op has ONNX's names for where it samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops import Add, Array, Cast, Gather, Mul, Resize
from lucid.ir.ops.resize import COORDINATES, ROUNDING, nearest
from lucid.ir.ops.windows import Pair
from lucid.ir.types import Dim, TensorType
from lucid.onnx.known import known
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

NEAR = 1e-6
"""Of the size: what float32 may be off by."""
TIE = 1e-6
"""Measured on ONNX Runtime 1.32: 14.500001 is rounded as 14.5 is, 24.499998 is not."""
MODES = ("nearest", "linear", "cubic")
WRITTEN = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}
COORDINATES_READ = tuple(c for c in COORDINATES if c != "align_scaled_corners")
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
POLICIES = ("stretch", "not_larger", "not_smaller")
SIMPLE = "simple"
"""How versions before 11, which do not say, round in runtimes: up where the image shrinks."""


@writes(Resize)
def write_resize(w: Writer, op: Resize, operands: Sequence[Edge], kind: TensorType) -> str:
    """By scales where these are given or whole, else by sizes; as gathered rows and columns where
    runtimes may differ, and as products with the weights where ONNX has no words for them."""
    (x,) = operands
    if x.type.dtype != kind.dtype:
        x = w.apply(Cast(kind.dtype), x)
    height, width = op.integers(*x.type.shape[2:])
    before = (height, width)
    scaled = op.scale is None or _scaled(before, np.array(op.scale, np.float32)) == op.size
    on_the_edge = not scaled or any(_on_the_edge(op, axis, before[axis]) for axis in (0, 1))
    if op.mode == "nearest" and not op.weighted and on_the_edge:
        rows, columns = (w.constant(op.nearest_index(a, before[a]), "i64") for a in (0, 1))
        return w.emit("Gather", w.emit("Gather", x, rows, axis=2), columns, axis=3)
    own = op.coordinates in ("align_scaled_corners", "tf_half_pixel_for_nn", "tf_crop_and_resize")
    if op.weighted and (own or not scaled):
        return _by_products(w, op, x, before)
    attributes: dict[str, Any] = {
        "mode": WRITTEN[op.mode],
        "coordinate_transformation_mode": op.coordinates,
    }
    if op.mode == "nearest":
        attributes["nearest_mode"] = op.rounding
    if op.mode == "bicubic":
        attributes["cubic_coeff_a"] = op.cubic
    for name in ("antialias", "exclude_outside"):
        if getattr(op, name):
            attributes[name] = 1
    whole = all(b % a == 0 for a, b in zip(before, op.size, strict=True))
    if not whole and (op.scale is None or op.coordinates == "align_corners"):
        return w.emit("Resize", x, "", "", w.shape(kind.shape), **attributes)
    scale = op.scale or tuple(b / a for a, b in zip(before, op.size, strict=True))
    if not scaled:
        raise UnsupportedError(
            f"resize by {scale} from {before} to {op.size}: in ONNX the size follows from the scale"
        )
    return w.emit("Resize", x, "", w.constant((1.0, 1.0, *scale)), **attributes)


def _by_products(w: Writer, op: Resize, x: Edge, before: Pair) -> str:
    """The lines and the columns, each as a product with a matrix of weights."""
    rows, columns = (_matrix(op, axis, before[axis]) for axis in (0, 1))
    lines = w.emit("MatMul", w.constant(rows), x)
    return w.emit("MatMul", lines, w.constant(columns.T))


def _matrix(op: Resize, axis: int, size: int) -> Array:
    """The weights of every place of the source, (places of the result, places of the source)."""
    places, weights = op.taps(axis, size)
    matrix = np.zeros((op.size[axis], size))
    np.add.at(matrix, (np.arange(len(places))[:, None], places), weights)
    return matrix


def _scaled(before: Sequence[int], scales: Array) -> Pair:
    """The height and width that scales give."""
    height, width = np.floor(np.array(before, np.float32) * scales)
    return int(height), int(width)


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
    """Height and width by one op; other axes one after the other, as images of two axes. Nearest
    samples that the op does not take are gathered."""
    x, how = call.operand(0), _sampling(call)
    targets = _targets(call, how)
    moved = [a for a, t in enumerate(targets) if t is not None and not how.keeps(t)]
    if not moved:
        return x
    if call.rank() in (3, 4) and moved[0] >= 2 and not how.fills:
        return _image(call, how, [t for t in targets[2:] if t is not None])
    for axis in moved:
        target = targets[axis]
        assert target is not None, "an axis that depends on the batch does not move"
        x = _along(call, how, x, axis, target)
    return x


def _image(call: Call, how: Sampling, targets: Sequence[Target]) -> Operand:
    """Height and width of an image; an image of lines has a height of 1."""
    images, channels, *size = call.shape()
    rows, columns = (Target.kept(1), *targets)[-2:]
    x = call.reshape(call.operand(0), (images, channels, *(1, *size)[-2:]))
    result = (images, channels, *(target.out for target in targets))
    for op in how.ops(rows, columns):
        taken = (how.takes(op, axis, t) for axis, t in enumerate((rows, columns)))
        if how.mode != "nearest" or all(taken):
            return call.reshape(call.apply(op, x), result)
    for axis, target in enumerate((rows, columns)):
        x = call.apply(Gather(2 + axis), x, known(how.places(target)))
    return call.reshape(x, result)


def _along(call: Call, how: Sampling, x: Operand, axis: int, target: Target) -> Operand:
    """One axis of an array, which is the height of images whose width is all behind it."""
    shape = x.type.shape
    if how.mode == "nearest":
        y = call.apply(Gather(axis), x, known(how.places(target)))
    else:
        own = call.integer_dims(*shape[1:])
        front = (1, 1) if axis == 0 else (shape[0], prod(own[: axis - 1]))
        behind = prod(own[axis:])
        image = call.reshape(x, (*front, target.size, behind))
        image = call.apply(next(how.ops(target, Target.kept(behind))), image)
        y = call.reshape(image, (*shape[:axis], target.out, *shape[axis + 1 :]))
    if not how.fills:
        return y
    outside = 1 - how.inside(target).astype(np.float32)
    column = (-1, *(1,) * (len(shape) - axis - 1))
    if how.mode == "nearest":
        y = call.apply(Mul(), y, known((1 - outside).reshape(column)))
    return call.apply(Add(), y, known(np.float32(how.extrapolation) * outside.reshape(column)))


@dataclass(frozen=True)
class Target:
    """What becomes of an axis. `exact`: the scale is the ratio of the sizes. `roi`: its part."""

    size: int
    out: int
    scale: np.float32
    exact: bool
    roi: tuple[float, float] = (0.0, 1.0)

    @staticmethod
    def kept(size: int) -> Target:
        return Target(size, size, np.float32(1), True)


@dataclass(frozen=True)
class Sampling:
    """What is sampled where, in ONNX's words."""

    mode: str
    coordinates: str
    rounding: str
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0

    @property
    def cuts(self) -> bool:
        """Whether a part of the source is sampled, or more than all of it."""
        return self.coordinates == "tf_crop_and_resize"

    @property
    def fills(self) -> bool:
        """Whether anything but 0 stands where nothing is sampled."""
        return self.cuts and (self.mode == "nearest" or self.extrapolation != 0)

    def keeps(self, target: Target) -> bool:
        """Whether an axis stays as it is."""
        same = target.out == target.size and abs(float(target.scale) - 1) <= 1e-9
        return same and (not self.cuts or target.roi == (0.0, 1.0))

    def places(self, target: Target) -> Array:
        """Which of the elements along an axis each of the nearest samples is (int64).

        As ONNX Runtime computes it: in float32, by division, and what is within TIE of the middle
        between two elements is in the middle.
        """
        size, out, scale = target.size, target.out, target.scale
        place, half = np.arange(out, dtype=np.float32), np.float32(0.5)
        match self.coordinates:
            case "tf_crop_and_resize":
                source = self._op(target).sources(0, size).astype(np.float32)
            case _ if scale == 1:
                source = place
            case "asymmetric":
                source = place / scale
            case "align_corners" if not target.exact:
                source = self._op(target).sources(0, size).astype(np.float32)
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

    def inside(self, target: Target) -> Array:
        """Which places of the result sample the source at all."""
        source = self._op(target).sources(0, target.size)
        return (source >= 0) & (source <= target.size - 1)

    def takes(self, op: Resize, axis: int, target: Target) -> bool:
        """Whether the nearest samples of an op are these."""
        return np.array_equal(op.nearest_index(axis, target.size), self.places(target))

    def ops(self, rows: Target, columns: Target) -> Iterator[Resize]:
        """The ops that may be meant: of nearest samples, by rounding of all kinds."""
        pair = (rows, columns)
        exact = all(t.exact for t in pair)
        coordinates = self.coordinates
        if coordinates == "align_corners" and not exact:
            coordinates = "align_scaled_corners"
        given = Resize(
            (rows.out, columns.out),
            {"linear": "bilinear", "cubic": "bicubic"}.get(self.mode, self.mode),
            coordinates,
            scale=None if exact else (float(rows.scale), float(columns.scale)),
            cubic=self.cubic if self.mode == "cubic" else -0.75,
            antialias=self.antialias,
            exclude_outside=self.exclude_outside,
            roi=(rows.roi[0], columns.roi[0], rows.roi[1], columns.roi[1]) if self.cuts else None,
        )
        roundings = ROUNDING if self.mode == "nearest" else ("floor",)
        for rounding in sorted(roundings, key=lambda rounding: rounding != self.rounding):
            yield replace(given, rounding=rounding)

    def _op(self, target: Target) -> Resize:
        """The op of one axis."""
        return next(self.ops(target, Target.kept(1)))


def _sampling(call: Call) -> Sampling:
    """How images are sampled. Raises UnsupportedError for what Lucid has no op for."""
    mode = call.text("mode", "nearest")
    if mode not in MODES:
        raise UnsupportedError(f"with mode {mode}")
    if call.opset < 11:
        return Sampling(mode, "asymmetric", SIMPLE)
    coordinates = call.choice("coordinate_transformation_mode", COORDINATES_READ)
    if coordinates == "tf_half_pixel_for_nn" and mode != "nearest":
        raise UnsupportedError(f"with coordinates {coordinates} for mode {mode}")
    how = Sampling(
        mode,
        coordinates,
        call.choice("nearest_mode", NEAREST_MODES),
        call.number("cubic_coeff_a", -0.75),
        bool(call.integer("antialias", 0)),
        bool(call.integer("exclude_outside", 0)),
        call.number("extrapolation_value", 0.0),
    )
    if how.mode == "nearest":
        return replace(how, antialias=False, exclude_outside=False)
    return how


def _targets(call: Call, how: Sampling) -> list[Target | None]:
    """What becomes of each axis; None of one that depends on the batch, which is kept. Scales are
    float32, and so is what they give: 10 by 0.7 is 7."""
    policy = call.choice("keep_aspect_ratio_policy", POLICIES)
    named = call.integer_list("axes") or range(call.rank())
    axes = [call.counted(axis, call.rank()) for axis in named]
    roi = [0.0] * len(axes) + [1.0] * len(axes)
    if how.cuts:
        roi = [float(r) for r in call.elements(1).reshape(-1)]
    call.ignore(1)
    at = 1 if call.opset < 11 else 2
    sizes: list[Any] = []
    scales: list[np.float32] = []
    if call.opset >= 11 and call.has(3) and call.elements(3).size:
        if call.has(at) and call.elements(at).size:
            raise ModelFileError("has both scales and sizes")
        sizes = list(call.sizes(3))
    else:
        given = call.floats("scales") or () if call.opset < 9 else call.elements(at).reshape(-1)
        scales = [np.float32(s) for s in given]
    for what, count, wanted in (("sizes", len(sizes or scales), 1), ("ends", len(roi), 2)):
        if count != wanted * len(axes):
            raise ModelFileError(f"says {count} {what} for {len(axes)} axes")
    found: list[Target | None] = [
        None if isinstance(d, Dim) else Target.kept(d) for d in call.shape()
    ]
    if policy != "stretch" and sizes:
        lengths = call.integer_dims(*(call.shape()[axis] for axis in axes))
        ratios = [out / d for out, d in zip(call.integer_dims(*sizes), lengths, strict=True)]
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        sizes, scales = [int(ratio * d + 0.5) for d in lengths], [np.float32(ratio)] * len(axes)
    for i, axis in enumerate(axes):
        ends = (roi[i], roi[len(axes) + i])
        scale = scales[i] if scales else None
        found[axis] = _target(call, axis, sizes[i] if sizes else None, scale, ends)
    return found


def _target(
    call: Call, axis: int, out: Any, scale: np.float32 | None, roi: tuple[float, float]
) -> Target | None:
    """What becomes of one axis, by its size or by its scale."""
    size = call.shape()[axis]
    if isinstance(size, Dim):
        one = call.image_by_image and axis == 0 and out == 1
        if (out is not None and out != size and not one) or (scale is not None and scale != 1):
            raise UnsupportedError("of the axis that depends on the batch")
        return None
    length = np.float32(size)
    if out is None:
        assert scale is not None, "there are sizes or scales"
        out = int(np.floor(length * scale))
        return Target(size, out, scale, bool(length * scale == out), roi)
    (out,) = call.integer_dims(out)
    if scale is None:
        return Target(size, out, np.float32(out) / length, True, roi)
    return Target(size, out, scale, bool(length * scale == out), roi)
