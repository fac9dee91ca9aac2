"""How ONNX describes windows that slide: kernels, strides, pads by axis, `auto_pad`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lucid.errors import ModelFileError, UnsupportedError
from lucid.ir.ops.windows import Padding, Pair

if TYPE_CHECKING:
    from lucid.ir.onnx.call import Call
    from lucid.ir.onnx.known import Operand


@dataclass(frozen=True)
class Windows:
    """Windows over two axes, in the order of Lucid's ops: padding is (top, left, bottom, right).

    `flat`: there is one spatial axis only, and x has been given a height of 1.
    """

    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    flat: bool


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
    strides = _listed(call, "strides", spatial)
    dilations = _listed(call, "dilations", spatial)
    pads = call.integer_list("pads") or (0,) * (2 * spatial)
    if len(pads) != 2 * spatial:
        raise ModelFileError(f"has {len(pads)} pads for {spatial} axes")
    if spatial == 1:
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    if min(*kernel, *strides, *dilations) < 1:
        raise ModelFileError("has a kernel, stride or dilation below 1")
    height, width = call.integer_dims(*x.type.shape[2:])
    automatic = call.text("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", ""):
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        sizes = zip((height, width), strides, reach, strict=True)
        sides = [_automatic(call, automatic, *size) for size in sizes]
        pads = (sides[0][0], sides[1][0], sides[0][1], sides[1][1])
    top, left, bottom, right = pads
    return Windows(
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (top, left, bottom, right),
        (dilations[0], dilations[1]),
        spatial == 1,
    )


def _listed(call: Call, name: str, count: int) -> tuple[int, ...]:
    values = call.integer_list(name) or (1,) * count
    if len(values) != count:
        raise ModelFileError(f"has {len(values)} {name} for {count} axes")
    return values


def _automatic(call: Call, kind: str, size: int, stride: int, reach: int) -> Pair:
    """The pads before and after with which size / stride windows fit, rounded up."""
    if kind == "VALID":
        return 0, 0
    if kind not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelFileError(f"has the auto_pad {kind!r}")
    total = max(0, (-(-size // stride) - 1) * stride + reach - size)
    less, more = total // 2, total - total // 2
    return (less, more) if kind == "SAME_UPPER" else (more, less)
