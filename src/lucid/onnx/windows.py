"""How ONNX describes windows that slide: kernels, strides, pads by axis, `auto_pad`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops.windows import Padding, Pair

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand


@dataclass(frozen=True)
class Windows:
    """Windows over two axes, in the order of Lucid's ops: padding is (top, left, bottom, right)."""

    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair


def two_dimensional(call: Call, x: Operand) -> Operand:
    """x: (N, C, H, W), or (N, C, W) with a height of 1. Refuses other ranks."""
    if x.type.rank == 3:
        n, c, w = x.type.shape
        return call.reshape(x, (n, c, 1, w))
    if x.type.rank != 4:
        raise UnsupportedError(
            f"over {x.type.rank - 2} spatial axes: Lucid has those over one or two"
        )
    return x


def like_operand(call: Call, y: Operand) -> Operand:
    """The result without the height that `two_dimensional` has given x."""
    if call.rank() == 3:
        n, c, _, w = y.type.shape
        return call.reshape(y, (n, c, w))
    return y


def windows(call: Call, x: Operand, kernel: tuple[int, ...]) -> Windows:
    """The windows of a convolution or pool over x, as `two_dimensional` gives it."""
    spatial = len(kernel)
    if spatial != call.rank() - 2:
        raise ModelFileError(f"has a kernel {kernel} for an operand of {call.rank()} axes")
    size: Pair = (kernel[0] if spatial == 2 else 1, kernel[-1])
    stride, dilation = pair(call, "strides", 1), pair(call, "dilations", 1)
    if min(*size, *stride, *dilation) < 1:
        raise ModelFileError("has a kernel, stride or dilation below 1")
    images = call.integer_dims(*x.type.shape[2:])
    automatic = auto_pad(call)
    if automatic == "NOTSET":
        return Windows(size, stride, padding(call), dilation)
    call.ignore("pads")  # as runtimes do: some exporters write zeros beside
    sides = []
    for axis, length in enumerate(images):
        reach = dilation[axis] * (size[axis] - 1) + 1
        count = -(-length // stride[axis])
        sides.append(halves(automatic, (count - 1) * stride[axis] + reach - length))
    (top, bottom), (left, right) = sides
    return Windows(size, stride, (top, left, bottom, right), dilation)


def pair(call: Call, name: str, default: int) -> Pair:
    """An attribute of one number for each spatial axis; `default` for the axis that lines lack."""
    spatial = call.rank() - 2
    values = call.integer_list(name) or (default,) * spatial
    if len(values) != spatial:
        raise ModelFileError(f"has {len(values)} {name} for {spatial} axes")
    return (values[0] if spatial == 2 else default), values[-1]


def padding(call: Call) -> Padding:
    """The attribute `pads`, (top, left, bottom, right)."""
    spatial = call.rank() - 2
    pads = call.integer_list("pads") or (0,) * (2 * spatial)
    if len(pads) != 2 * spatial:
        raise ModelFileError(f"has {len(pads)} pads for {spatial} axes")
    if spatial == 1:
        return 0, pads[0], 0, pads[1]
    return pads[0], pads[1], pads[2], pads[3]


def auto_pad(call: Call) -> str:
    """The attribute of this name."""
    return call.choice("auto_pad", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "")) or "NOTSET"


def halves(automatic: str, total: int) -> Pair:
    """`total` padding before and after an axis, as `auto_pad` says."""
    if automatic == "VALID":
        return 0, 0
    less, more = max(0, total) // 2, max(0, total) - max(0, total) // 2
    return (less, more) if automatic == "SAME_UPPER" else (more, less)
