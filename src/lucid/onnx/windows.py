"""How ONNX describes windows that slide: kernels, strides, pads by axis, `auto_pad`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops.windows import Pair, Sizes
from lucid.ir.volumes import Windows

if TYPE_CHECKING:
    from lucid.onnx.call import Call

MOST_AXES = 3


def spatial_axes(call: Call) -> int:
    """How many spatial axes the first operand has. Refuses none, and more than three."""
    axes = call.rank() - 2
    if not 0 < axes <= MOST_AXES:
        raise UnsupportedError(f"over {axes} spatial axes: Lucid has those over one to three")
    return axes


def windows(call: Call, kernel: tuple[int, ...]) -> Windows:
    """The windows of a convolution or pool over the first operand."""
    axes = spatial_axes(call)
    if len(kernel) != axes:
        raise ModelFileError(f"has a kernel {kernel} for an operand of {call.rank()} axes")
    stride, dilation = per_axis(call, "strides", 1), per_axis(call, "dilations", 1)
    if min(*kernel, *stride, *dilation) < 1:
        raise ModelFileError("has a kernel, stride or dilation below 1")
    automatic = auto_pad(call)
    if automatic == "NOTSET":
        return Windows(kernel, stride, padding(call), dilation)
    call.ignore("pads")  # as runtimes do: some exporters write zeros beside
    sides = []
    for axis, length in enumerate(call.integer_dims(*call.shape()[2:])):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        count = -(-length // stride[axis])
        sides.append(halves(automatic, (count - 1) * stride[axis] + reach - length))
    before, after = zip(*sides, strict=True)
    return Windows(kernel, stride, (*before, *after), dilation)


def per_axis(call: Call, name: str, default: int) -> Sizes:
    """An attribute of one number for each spatial axis."""
    axes = spatial_axes(call)
    values = call.integer_list(name) or (default,) * axes
    if len(values) != axes:
        raise ModelFileError(f"has {len(values)} {name} for {axes} axes")
    return values


def padding(call: Call) -> Sizes:
    """The attribute `pads`: all before the axes, then all after them."""
    axes = spatial_axes(call)
    pads = call.integer_list("pads") or (0,) * (2 * axes)
    if len(pads) != 2 * axes:
        raise ModelFileError(f"has {len(pads)} pads for {axes} axes")
    return pads


def auto_pad(call: Call) -> str:
    """The attribute of this name."""
    return call.choice("auto_pad", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "")) or "NOTSET"


def halves(automatic: str, total: int) -> Pair:
    """`total` padding before and after an axis, as `auto_pad` says."""
    if automatic == "VALID":
        return 0, 0
    less, more = max(0, total) // 2, max(0, total) - max(0, total) // 2
    return (less, more) if automatic == "SAME_UPPER" else (more, less)
