"""Resizing of images by sampling: nearest and bilinear.

What is sampled where is told axis by axis (`nearest_index`, `linear_index`), for the references
here and for generated code alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.windows import Pair
from lucid.ir.types import TensorType

COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
ROUNDING = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def nearest(source: Array, rounding: str, size: int) -> Array:
    """The whole places (int64) that coordinates are rounded to, one of ROUNDING, and clipped to
    the `size` places that there are."""
    match rounding:
        case "floor":
            place = np.floor(source)
        case "ceil":
            place = np.ceil(source)
        case "round_prefer_floor":
            place = np.ceil(source - 0.5)
        case _:
            place = np.floor(source + 0.5)
    return np.clip(place, 0, size - 1).astype(np.int64)


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
    Resize. `interpolation` gives the op for each mode of torch.nn.functional.interpolate.
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

        int64, one for each place of the result. The coordinates of PyTorch's modes are computed in
        float32, as PyTorch does; their rounding decides where a place falls on an integer.
        """
        out = self.size[axis]
        places, step = np.arange(out, dtype=np.float32), np.float32(self._step(axis, size))
        match self.coordinates, self.rounding:
            case "asymmetric", _:
                source = (places * step).astype(np.float64)
            case "half_pixel", "round_prefer_ceil":
                source = ((places + np.float32(0.5)) * step).astype(np.float64) - 0.5
            case _:
                source = self.sources(axis, size)
        return nearest(source, self.rounding, size)

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


def interpolation(
    before: Pair,
    size: Pair,
    scale: Sequence[float | None] | None,
    mode: str,
    align_corners: bool = False,
) -> Resize:
    """The op that is torch.nn.functional.interpolate for images of the size `before`.

    mode: "nearest", "nearest-exact" or "bilinear". `scale`: the factors that the user gave, where
    coordinates follow them and not the ratio of the sizes; None for an axis without one. Two ratios
    win over a scale near them, axis by axis: 1 unless the mode is "nearest-exact", and 2 for
    "nearest" (`nearest_idx` and `compute_source_index_and_lambda` in ATen's UpSample.h). With
    `align_corners` coordinates follow the sizes alone.
    """
    coordinates = "asymmetric" if mode == "nearest" else "half_pixel"
    rounding = "round_prefer_ceil" if mode == "nearest-exact" else "floor"
    method = "bilinear" if mode == "bilinear" else "nearest"
    if align_corners:
        coordinates = "align_corners"
    if scale is None:
        return Resize(size, method, coordinates, rounding)
    winning = {"nearest": (1, 2), "bilinear": (1,), "nearest-exact": ()}[mode]
    rows, columns = (
        new / old if factor is None or new in (ratio * old for ratio in winning) else float(factor)
        for old, new, factor in zip(before, size, scale, strict=True)
    )
    return Resize(size, method, coordinates, rounding, (rows, columns))
