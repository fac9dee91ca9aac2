"""Boxes of detectors: which of those that overlap are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.ordering import stable_order
from lucid.ir.types import TensorType

Sides = tuple[Array, Array, Array, Array]
"""Two lower sides of boxes and two upper ones, along the first coordinate and the second."""


def threshold(number: float) -> np.float32:
    """The largest float that is not above a number: floats exceed both or neither."""
    nearest = np.float32(number)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > number else nearest


@dataclass(frozen=True)
class Form:
    """How four numbers say a box. `strict`: boxes without an area, and those that share none,
    never overlap, whatever the threshold."""

    sides: Callable[[Array], Sides]
    strict: bool


def _low(a: Array, b: Array) -> Array:
    """The lower one; a where either is NaN, as C++ has it."""
    lower = np.minimum(a, b)
    return np.where(np.isnan(lower), a, lower) if np.isnan(lower).any() else lower


def _high(a: Array, b: Array) -> Array:
    """The higher one; a where either is NaN, as C++ has it."""
    higher = np.maximum(a, b)
    return np.where(np.isnan(higher), a, higher) if np.isnan(higher).any() else higher


def _corners(boxes: Array) -> Sides:
    a, b, c, d = np.moveaxis(boxes, -1, 0)
    return _low(a, c), _low(b, d), _high(a, c), _high(b, d)


def _centre(boxes: Array) -> Sides:
    a, b, width, height = np.moveaxis(boxes, -1, 0)
    half, other = width / np.float32(2), height / np.float32(2)
    return a - half, b - other, a + half, b + other


def _sides(boxes: Array) -> Sides:
    a, b, c, d = np.moveaxis(boxes, -1, 0)
    return a, b, c, d


FORMS = {
    "corners": Form(_corners, strict=True),
    "centre": Form(_centre, strict=True),
    "sides": Form(_sides, strict=False),
}


@op("non_max_suppression")
class NonMaxSuppression(Op):
    """For each image and class the boxes in the order of their scores, without those of which more
    than a share `iou_threshold` overlaps one that is kept; `max_boxes` at most.

    boxes: f32 (B, S, 4), scores: f32 (B, C, S) -> i64 (B * C * min(max_boxes, S), 3), the image,
    the class and the box of each one kept, and -1 in what is left; and i64 (), how many there are.
    They stand in the order of images, classes and scores; of equal scores the lower index first,
    NaN before all. With `score_threshold`, only boxes whose score is above it take part.

    `form`: "corners" are any two opposite ones, "centre" is that and the two sizes, as in ONNX
    (center_point_box); "sides" are lower ones and then upper ones, as in torchvision.ops.nms. Each
    is computed in float32, operation by operation, as by ONNX Runtime and torchvision.
    """

    max_boxes: int
    iou_threshold: float = 0.0
    score_threshold: float | None = None
    form: str = "corners"

    def infer(self, boxes: TensorType, scores: TensorType) -> tuple[TensorType, TensorType]:
        self.require_float(boxes=boxes, scores=scores)
        self.require(self.form in FORMS, f"form is one of {', '.join(FORMS)}, got {self.form!r}")
        self.require(self.max_boxes >= 0, f"max_boxes must not be negative, got {self.max_boxes}")
        images = boxes.shape[:1]
        fits = boxes.rank == scores.rank == 3 and boxes.shape[2] == 4 and images == scores.shape[:1]
        self.require(fits, f"takes boxes (B, S, 4) and scores (B, C, S), got {boxes} and {scores}")
        count, classes, size = self.integers(boxes.shape[1], *scores.shape[1:])
        self.require(count == size, f"{boxes} are {count} boxes, {scores} the scores of {size}")
        each = classes * min(self.max_boxes, count)
        most = images[0] * each if each else 0
        return TensorType("i64", (most, 3)), TensorType("i64", ())

    def evaluate(self, boxes: Array, scores: Array) -> tuple[Array, Array]:
        found = self.selected(boxes, scores)
        images, classes, count = scores.shape
        padded = np.full((images * classes * min(self.max_boxes, count), 3), -1, np.int64)
        padded[: len(found)] = found
        return padded, np.asarray(len(found), np.int64)

    def selected(self, boxes: Array, scores: Array) -> Array:
        """The rows (image, class, box) that are kept and no others: i64 (count, 3)."""
        images, classes, _ = scores.shape
        rows = [np.empty((0, 3), np.int64)]
        for image in range(images):
            for number in range(classes):
                kept = self.kept(boxes[image], scores[image, number])
                rows.append(np.stack(np.broadcast_arrays(image, number, kept), axis=-1))
        return np.concatenate(rows).astype(np.int64, copy=False)

    def kept(self, boxes: Array, scores: Array) -> Array:
        """Of one image and class, (S, 4) and (S), the indices of the boxes that are kept."""
        scores = np.asarray(scores, np.float32)
        order = stable_order(scores, 0, descending=True)
        if self.score_threshold is not None:
            with np.errstate(invalid="ignore"):
                order = order[scores[order] > threshold(self.score_threshold)]
        form = FORMS[self.form]
        with np.errstate(all="ignore"):
            sides = np.stack(form.sides(np.asarray(boxes, np.float32)[order]))
            areas = (sides[2] - sides[0]) * (sides[3] - sides[1])
            gone, found = np.zeros(len(order), bool), list[int]()
            for i in range(len(order)):
                if len(found) == self.max_boxes:
                    break
                if not gone[i]:
                    found.append(i)
                    one, rest = (sides[:, i : i + 1], areas[i]), slice(i + 1, None)
                    gone[rest] |= self._overlap(form.strict, *one, sides[:, rest], areas[rest])
        return order[np.array(found, np.int64)]

    def _overlap(self, strict: bool, a: Array, own: Array, b: Array, areas: Array) -> Array:
        """Which of some boxes, by their sides and areas, overlap one by more than the threshold."""
        size = _low(a[2:], b[2:]) - _high(a[:2], b[:2])
        if not strict:
            size = _high(np.zeros_like(size), size)
        shared = size[0] * size[1]
        union = own + areas - shared
        over: Array = shared / union > threshold(self.iou_threshold)
        if strict:
            over &= (size > 0).all(axis=0) & (shared > 0) & (own > 0) & (areas > 0) & (union > 0)
        return over

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return False  # what is kept of all images stands in one list
