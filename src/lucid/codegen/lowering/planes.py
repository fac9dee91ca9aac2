"""Convolutions over one or three axes, seen as layers over images.

Views of the same memory do it: lines and volumes are channels last as images are, so that a line is
an image of one row, and a slice of a volume an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lucid.codegen.lowering.context import Lowering, features_last
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.lowering.shapes import reshaped
from lucid.codegen.program.program import View
from lucid.codegen.scheduling.planes import Plane
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import Convolution, Permute, Reshape
from lucid.ir.recipe import Apply
from lucid.ir.types import TensorType

TO_SLICES = (0, 2, 1, 3, 4)
"""(N, C, D, H, W) as (N, D, C, H, W), and back."""


@dataclass
class VolumeLayer(Layer):
    """A layer over slices of volumes; `whole` is the one over volumes."""

    whole: Layer | None = None

    def by_tap(self, shape: tuple[int, ...]) -> tuple[Parameter, tuple[int, ...]]:
        assert self.whole is not None
        assert self.slices is not None
        out, inner, rows, columns = shape
        taps = self.slices.taps
        return self.whole.weight, (out, inner // taps, taps * rows, columns)

    def append(self, region: Graph, x: Value, tensors: Sequence[Value]) -> Value:
        """The convolution of volumes, between views of them as their slices."""
        whole, slices = self.whole, self.slices
        assert whole is not None
        assert slices is not None
        shape = x.type.concrete(1)
        volumes = Reshape((shape[0] // slices.volume, slices.volume, *shape[1:]))
        x = region.append(volumes, [x]).output
        x = region.append(Permute(TO_SLICES), [x]).output
        parameters = [p for p in (whole.weight, whole.bias) if p is not None]
        own = [region.add_parameter(p.name, p.recipe) for p in parameters]
        y = region.append(whole.op, [x, *own], origin=self.origin).output
        y = region.append(Permute(TO_SLICES), [y]).output
        n, depth, *rest = y.type.concrete(1)
        y = region.append(Reshape((n * depth, *rest)), [y]).output
        return self.epilogue.append(region, y, tensors)


def in_plane(ctx: Lowering, layer: Layer) -> Layer:
    """The layer over images that computes one over lines or volumes, in the same places."""
    op = layer.op
    assert isinstance(op, Convolution)
    shapes = (ctx.shape(v) for v in (layer.x, layer.weight, layer.result))
    plane = Plane.of(op, *shapes)
    result = ctx.result(layer.result, strides=features_last(ctx.shape(layer.result)))
    extras = tuple(
        _parameter(e, Reshape((1, plane.y[1], 1, 1)))
        if isinstance(e, Parameter)
        else _images(ctx, e, plane.y)
        for e in layer.epilogue.extras
    )
    weight = layer.weight
    if plane.slices is not None:  # (O, C, KD, KH, KW) by slice, then by channel
        weight = _parameter(weight, Permute(TO_SLICES))
    made = VolumeLayer if plane.slices is not None else Layer
    folded = made(
        plane.op,
        _images(ctx, layer.x, plane.x),
        _parameter(weight, Reshape(plane.weight)),
        layer.bias,
        _stand_in(ctx, layer.result, _folded(result, plane.y)),
        layer.origin,
        replace(layer.epilogue, extras=extras),
        layer.choice,
        plane.slices,
    )
    if isinstance(folded, VolumeLayer):
        folded.whole = layer
    return folded


def _images(ctx: Lowering, value: Value, shape: Sequence[int]) -> Value:
    """A value over lines or volumes, of this shape as images; copied if no view says so."""
    view = ctx.view(value)
    folded = None if len(view.shape) > 3 and not _dense(view) else _folded_or_none(view, shape)
    if folded is None:
        rows = ctx.allocate(f"{value.name}.rows", view.dtype, view.shape, features_last(view.shape))
        ctx.copy(ctx, view, rows, value.producer.origin if value.producer else "")
        ctx.views[value] = rows
        folded = _folded(rows, shape)
    return _stand_in(ctx, value, folded)


def _dense(view: View) -> bool:
    """Whether the channels of each pixel lie side by side."""
    return view.shape[1] == 1 or view.strides[1] == 1


def _folded(view: View, shape: Sequence[int]) -> View:
    found = _folded_or_none(view, shape)
    assert found is not None, "channels last"
    return found


def _folded_or_none(view: View, shape: Sequence[int]) -> View | None:
    """A view (N, C, L) or (N, C, D, H, W) as images of this shape, if strides can say it."""
    order = (0, *range(2, len(view.shape)), 1)
    last = view.over([view.shape[i] for i in order], [view.strides[i] for i in order])
    n, channels, height, width = shape
    images = reshaped(last, (n, height, width, channels))
    if images is None:
        return None
    batch, line, pixel, channel = images.strides
    return images.over(shape, (batch, channel, line, pixel))


def _stand_in(ctx: Lowering, value: Value, view: View) -> Value:
    """A value that lies where this view does."""
    other = Value(TensorType(view.dtype, view.shape), value.name, value.producer)
    ctx.views[other] = view
    return other


def _parameter(parameter: Parameter, op: Permute | Reshape) -> Parameter:
    return Parameter(parameter.name, Apply(op, (parameter.recipe,)))
