"""Resizing of images by sampling: nearest, bilinear, bicubic, with and without antialias.

What is sampled where is told axis by axis (`nearest_index`, `linear_index`, `taps`), for the
references here and for generated code alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.quantisation import EIGHT_BITS
from lucid.ir.ops.windows import Pair
from lucid.ir.types import FLOATS, TensorType

MODES = ("nearest", "bilinear", "bicubic")
COORDINATES = (
    "half_pixel",
    "align_corners",
    "asymmetric",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
    "align_scaled_corners",
)
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

    x: f32, u8 or i8 (N, C, H, W) -> (N, C, *size) of the same dtype with "nearest", else of f32,
    which 8-bit integers become first. With s = `scale` of the axis (result / source; None: the
    ratio of the sizes), place i of the result lies in the source at

        half_pixel            (i + 0.5) / s - 0.5
        pytorch_half_pixel    the same; 0 where the result has one place only
        half_pixel_symmetric  the same, moved so that the middles meet
        tf_half_pixel_for_nn  (i + 0.5) / s
        asymmetric            i / s
        align_corners         i * (H - 1) / (OH - 1); 0 where the result has one place only
        align_scaled_corners  i * (H - 1) / (s * H - 1)
        tf_crop_and_resize    from start to end of `roi`, (top, left, bottom, right) as shares of
                              H - 1 and W - 1; what lies outside the source is 0

    mode "nearest" takes the element there, the coordinate rounded by `rounding` and then clipped to
    the source; "bilinear" clips the coordinate first and weighs the two neighbours on each axis, so
    that a NaN or an infinity reaches what it has weight 0 in, too. "bicubic" weighs four neighbours
    by the cubic convolution with the coefficient `cubic` (Keys, "Cubic convolution interpolation
    for digital image processing", 1981); those beyond the border are the element at the border.
    With `antialias` the filter (a triangle or that cubic) is stretched by 1 / s where the image
    shrinks, and its weights are divided by their sum. `exclude_outside` gives neighbours beyond the
    border the weight 0, and the rest the sum 1: with antialias that is what PyTorch and Pillow do.
    The names are those of ONNX's Resize. `interpolation` gives the op for each mode of
    torch.nn.functional.interpolate.
    """

    takes = (*FLOATS, *EIGHT_BITS)
    images_apart = True

    size: Pair
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "floor"
    scale: tuple[float, float] | None = None
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    roi: tuple[float, float, float, float] | None = None

    def infer(self, x: TensorType) -> TensorType:
        self.require_taken(x=x)
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        height, width = self.integers(*x.shape[2:])
        for name, value, known in (
            ("mode", self.mode, MODES),
            ("coordinates", self.coordinates, COORDINATES),
            ("rounding", self.rounding, ROUNDING),
        ):
            self.require(value in known, f"{name} is one of {', '.join(known)}, got {value!r}")
        wanted = len(self.size) == 2 and min(self.size) > 0
        self.require(wanted, f"size must be two positive numbers, got {self.size}")
        self.require(height > 0 and width > 0, f"there is nothing to resize in {x}")
        scaled = self.scale is None or (len(self.scale) == 2 and min(self.scale) > 0)
        self.require(scaled, f"scale must be two positive numbers or None, got {self.scale}")
        smooth = self.mode != "nearest" or not (self.antialias or self.exclude_outside)
        self.require(smooth, "antialias and exclude_outside are of weights: nearest has none")
        cut = self.roi is None or len(self.roi) == 4
        self.require(cut, f"roi is (top, left, bottom, right) or None, got {self.roi}")
        plain = x.dtype in FLOATS or not self.weighted
        self.require(plain, f"{x} must be cast to f32 first: more than two neighbours are weighed")
        blended = self.mode != "nearest"
        return TensorType("f32" if blended else x.dtype, (*x.shape[:2], *self.size))

    @property
    def weighted(self) -> bool:
        """Whether what it samples is said by `taps` alone, and not by one or two neighbours."""
        cut = self.coordinates == "tf_crop_and_resize"
        return cut or self.antialias or self.mode == "bicubic"

    def evaluate(self, x: Array) -> Array:
        if self.weighted:
            return self._weighed(x)
        if self.mode == "nearest":
            rows, columns = (self.nearest_index(a, x.shape[2 + a]) for a in (0, 1))
            y: Array = x[:, :, rows[:, None], columns]
            return y
        x = x if x.dtype.kind == "f" else x.astype(np.float32)
        for axis in (0, 1):
            left, right, fraction = self.linear_index(axis, x.shape[2 + axis])
            share = fraction.astype(x.dtype).reshape((-1, 1) if axis == 0 else (-1,))
            with np.errstate(invalid="ignore"):
                x = np.take(x, left, 2 + axis) * (1 - share) + np.take(x, right, 2 + axis) * share
        return x

    def _weighed(self, x: Array) -> Array:
        for axis in (0, 1):
            places, weights = self.taps(axis, x.shape[2 + axis])
            shares = weights.astype(x.dtype).reshape(*weights.shape, *(1,) * (1 - axis))
            with np.errstate(invalid="ignore"):
                terms = (
                    np.take(x, places[:, t], 2 + axis) * shares[:, t]
                    for t in range(places.shape[1])
                )
                x = sum(terms, np.zeros((), x.dtype))
        return x

    def taps(self, axis: int, size: int) -> tuple[Array, Array]:
        """For each row (axis 0) or column (axis 1) of the result: which of the `size` of x it is
        made of (int64) and their weights (float64), both (places of the result, taps)."""
        source, stretch = self.sources(axis, size), 1.0
        if self.mode == "nearest":
            places, weights = nearest(source, self.rounding, size), self._inside(axis, size)
            return places[:, None], weights[:, None].astype(np.float64)
        if self.antialias:
            stretch = max(1.0, self._step(axis, size))
        reach = stretch * (2 if self.mode == "bicubic" else 1)
        first = np.floor(source - reach).astype(np.int64) + 1
        places = first[:, None] + np.arange(int(np.ceil(2 * reach)))
        distance = np.abs(places - source[:, None]) / stretch
        weights = self._cubic(distance) if self.mode == "bicubic" else np.maximum(1 - distance, 0)
        if self.exclude_outside:
            weights[(places < 0) | (places >= size)] = 0
        total = weights.sum(1, keepdims=True)
        weights /= np.where(total == 0, 1, total)
        weights[~self._inside(axis, size)] = 0
        used = np.asarray(weights.any(0))
        used[0] |= not used.any()
        return np.clip(places, 0, size - 1)[:, used], weights[:, used]

    def _cubic(self, x: Array) -> Array:
        """The weight of what lies x away."""
        a = self.cubic
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    def _inside(self, axis: int, size: int) -> Array:
        """Which places of the result sample the source at all."""
        if self.coordinates != "tf_crop_and_resize":
            return np.ones(self.size[axis], bool)
        source = self.sources(axis, size)
        return (source >= 0) & (source <= size - 1)

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
            case "align_scaled_corners":
                length = size / step
                return place * ((size - 1) / (length - 1) if length != 1 else 0.0)
            case "asymmetric":
                return place * step
            case "tf_half_pixel_for_nn":
                return (place + 0.5) * step
            case "tf_crop_and_resize":
                start, end = (self.roi or (0.0, 0.0, 1.0, 1.0))[axis::2]
                if out == 1:  # as onnx's reference: half of the length, from the start
                    return np.array([start + (end - start) / 2]) * (size - 1)
                return start * (size - 1) + place * ((end - start) * (size - 1) / (out - 1))
            case "pytorch_half_pixel" if out == 1:
                return place
            case "half_pixel_symmetric":
                place = place + size / 2 * (1 - out * step / size) / step
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
    antialias: bool = False,
) -> Resize:
    """The op that is torch.nn.functional.interpolate for images of the size `before`.

    mode: "nearest", "nearest-exact", "bilinear" or "bicubic". `scale`: the factors that the user
    gave, where coordinates follow them and not the ratio of the sizes; None for an axis without
    one. Two ratios win over a scale near them, axis by axis: 1 for "bilinear", 1 and 2 for
    "nearest" (`nearest_idx` and `compute_source_index_and_lambda` in ATen's UpSample.h). With
    `align_corners` coordinates follow the sizes alone.
    """
    if antialias:
        return _antialiased(before, size, scale, mode, align_corners)
    coordinates = "asymmetric" if mode == "nearest" else "half_pixel"
    rounding = "round_prefer_ceil" if mode == "nearest-exact" else "floor"
    method = mode if mode in MODES else "nearest"
    if align_corners:
        coordinates = "align_corners"
    if scale is None:
        return Resize(size, method, coordinates, rounding)
    winning = {"nearest": (1, 2), "bilinear": (1,)}.get(mode, ())
    rows, columns = (
        new / old if factor is None or new in (ratio * old for ratio in winning) else float(factor)
        for old, new, factor in zip(before, size, scale, strict=True)
    )
    return Resize(size, method, coordinates, rounding, (rows, columns))


def _antialiased(
    before: Pair,
    size: Pair,
    scale: Sequence[float | None] | None,
    mode: str,
    align_corners: bool,
) -> Resize:
    """With the filters of Pillow, whose cubic has the coefficient -0.5. Aligned corners change the
    scale alone, and an axis that keeps its size is left as it is (ATen's UpSampleKernel.cpp)."""
    given: tuple[float, float] | None = None
    if scale is not None or align_corners:
        rows, columns = (
            _antialiased_scale(old, new, factor, align_corners)
            for old, new, factor in zip(before, size, scale or (None, None), strict=True)
        )
        given = (rows, columns)
    return Resize(size, mode, scale=given, cubic=-0.5, antialias=True, exclude_outside=True)


def _antialiased_scale(old: int, new: int, factor: float | None, align_corners: bool) -> float:
    if old == new:
        return 1.0
    if align_corners:  # of one place all that is sampled lies at the first
        return (new - 1) / (old - 1) if min(old, new) > 1 else 1e9
    return new / old if factor is None else float(factor)
