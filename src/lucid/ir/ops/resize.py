"""Resizing of images by sampling: nearest and bilinear.

What is sampled where is told axis by axis (`nearest_index`, `linear_index`), for the references
here and for generated code alike.
"""

from __future__ import annotations

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.windows import Pair
from lucid.ir.types import TensorType

COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
ROUNDING = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


@op("resize")
class Resize(Op):
    """y[n,c,i,j] = x sampled at the source coordinates of row i and column j.

    x: (N, C, H, W) -> (N, C, *size). With s = `scale` of the axis (result / source; None: the ratio
    of the sizes), place i of the result lies in the source at

        half_pixel            (i + 0.5) / s - 0.5
        pytorch_half_pixel    the same; 0 where the result has one place only
        asymmetric            i / s
        align_corners         i * (H - 1) / (OH - 1); 0 where the result has one place only

    mode "nearest" takes the element there, the coordinate rounded by `rounding` and then clipped to
    the source; "bilinear" clips the coordinate first and weighs the two neighbours on each axis, so
    that a NaN or an infinity reaches what it has weight 0 in, too. The names are those of ONNX's
    Resize. torch.nn.functional.interpolate is asymmetric with floor for "nearest", half_pixel with
    round_prefer_ceil for "nearest-exact", and half_pixel or align_corners for "bilinear".
    """

    images_apart = True

    size: Pair
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "floor"
    scale: tuple[float, float] | None = None

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        height, width = self.integers(*x.shape[2:])
        for name, value, known in (
            ("mode", self.mode, ("nearest", "bilinear")),
            ("coordinates", self.coordinates, COORDINATES),
            ("rounding", self.rounding, ROUNDING),
        ):
            self.require(value in known, f"{name} is one of {', '.join(known)}, got {value!r}")
        wanted = len(self.size) == 2 and min(self.size) > 0
        self.require(wanted, f"size must be two positive numbers, got {self.size}")
        self.require(height > 0 and width > 0, f"there is nothing to resize in {x}")
        scaled = self.scale is None or (len(self.scale) == 2 and min(self.scale) > 0)
        self.require(scaled, f"scale must be two positive numbers or None, got {self.scale}")
        return x.with_shape((*x.shape[:2], *self.size))

    def evaluate(self, x: Array) -> Array:
        if self.mode == "nearest":
            rows, columns = (self.nearest_index(a, x.shape[2 + a]) for a in (0, 1))
            y: Array = x[:, :, rows[:, None], columns]
            return y
        for axis in (0, 1):
            left, right, fraction = self.linear_index(axis, x.shape[2 + axis])
            share = fraction.astype(x.dtype).reshape((-1, 1) if axis == 0 else (-1,))
            with np.errstate(invalid="ignore"):
                x = np.take(x, left, 2 + axis) * (1 - share) + np.take(x, right, 2 + axis) * share
        return x

    def nearest_index(self, axis: int, size: int) -> Array:
        """Which of the `size` rows (axis 0) or columns (axis 1) of x each of the result's takes.

        int64, one for each place of the result. Asymmetric coordinates are computed in float32,
        as PyTorch's are; their rounding decides where a place falls on an integer.
        """
        out = self.size[axis]
        if self.coordinates == "asymmetric":
            step = np.float32(self._step(axis, size))
            source = (np.arange(out, dtype=np.float32) * step).astype(np.float64)
        else:
            source = self.sources(axis, size)
        match self.rounding:
            case "floor":
                place = np.floor(source)
            case "ceil":
                place = np.ceil(source)
            case "round_prefer_floor":
                place = np.ceil(source - 0.5)
            case _:
                place = np.floor(source + 0.5)
        return np.clip(place, 0, size - 1).astype(np.int64)

    def linear_index(self, axis: int, size: int) -> tuple[Array, Array, Array]:
        """For each row (axis 0) or column (axis 1) of the result: its neighbours among the `size`
        of x, int64, and how much of the right one it takes (float64, the left one has the rest).

        At the last row or column both neighbours are that one, whatever the fraction.
        """
        source = np.maximum(self.sources(axis, size), 0)
        left = np.minimum(np.floor(source), size - 1).astype(np.int64)
        return left, np.minimum(left + 1, size - 1), np.minimum(source - left, 1)

    def sources(self, axis: int, size: int) -> Array:
        """The source coordinate of each place, float64."""
        out = self.size[axis]
        place, step = np.arange(out, dtype=np.float64), self._step(axis, size)
        match self.coordinates:
            case "align_corners":
                return place * ((size - 1) / max(1, out - 1))
            case "asymmetric":
                return place * step
            case "pytorch_half_pixel" if out == 1:
                return place
        return (place + 0.5) * step - 0.5

    def _step(self, axis: int, size: int) -> float:
        """How far two neighbours of the result lie apart in the source."""
        return size / self.size[axis] if self.scale is None else 1 / self.scale[axis]
