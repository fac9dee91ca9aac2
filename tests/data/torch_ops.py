"""What PyTorch computes for ops, kept as data: the tests need no torch.

`python tests/data/torch_ops.py` (with torch and Lucid installed) writes `torch_ops.npz`. A row is
an op, the same in torch, and operands that float32 holds exactly; the result is torch's in float64.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lucid.ir import ops
from lucid.ir.text import parse_op, print_op

FILE = Path(__file__).with_suffix(".npz")
Array = np.ndarray[Any, np.dtype[Any]]
Row = tuple[ops.Op, Callable[..., Any], tuple[Array, ...]]

nan, inf = float("nan"), float("inf")
# fmt: off
EXTREMES = np.array([
    nan, inf, -inf, 0, -0.0, 0.25, -0.25, 0.5, -0.5, 1, -1, 1.5, -1.5, 2.5, -2.5, 3, -3, 3.5, 6,
    6.5, -6, 10.25, -10.25, 19.5, 20, 20.5, -20, -40, 80, -80, 96, 2.0**-40, -(2.0**-40),
    2.0**24 + 2,
])
# fmt: on


@dataclass(frozen=True)
class Case:
    """One row: `op` of the operands (float64, i64 or u8, exact in float32) is `result`."""

    op: ops.Op
    operands: tuple[Array, ...]
    result: Array

    def __str__(self) -> str:
        return print_op(self.op)


def cases() -> list[Case]:
    """The rows of the file."""
    with np.load(FILE) as file:
        index, values = json.loads(str(file["index"])), file["values"]
    found, at = [], 0
    for text, *kinds in index:
        arrays = []
        for dtype, *shape in kinds:
            end = at + int(np.prod(shape))
            arrays.append(values[at:end].reshape(shape).astype(dtype))
            at = end
        found.append(Case(parse_op(text), tuple(arrays[:-1]), arrays[-1]))
    return found


def write() -> None:
    """Let torch compute all rows."""
    import torch

    index, values = [], []
    for op, function, operands in (*elementwise(), *over_axes(), *moves(), *windows(), *resizes()):
        result = function(*map(torch.tensor, operands)).numpy()
        arrays = [*operands, result]
        index.append([print_op(op), *([str(a.dtype), *a.shape] for a in arrays)])
        values += [a.astype(np.float64).ravel() for a in arrays]
    np.savez_compressed(FILE, index=json.dumps(index), values=np.concatenate(values))
    print(f"{len(index)} rows, {FILE.stat().st_size} bytes")


RNG = np.random.default_rng(10)


def normal(*shape: int) -> Array:
    """Normal numbers, in sixty-fourths."""
    return np.round(RNG.standard_normal(shape) * 64) / 64


def positive(*shape: int) -> Array:
    return np.abs(normal(*shape)) + 1 / 64


def spoilt(*shape: int) -> Array:
    """Normal numbers, ties among them, with a NaN and both infinities in places."""
    x = np.round(normal(*shape) * 2) / 2
    x.flat[[1, x.size // 2, x.size - 1]] = [nan, inf, -inf]
    return x


def elementwise() -> Iterator[Row]:
    import torch
    from torch.nn import functional as F

    x = EXTREMES
    for op in (op for cls in ops.declared(ops.Unary) for op in cls.examples()):
        yield op, unary(op), (x,)
    a, b = np.repeat(x[:12], 12), np.tile(x[:12], 12)
    for binary, function in (
        (ops.Add(), torch.add), (ops.Sub(), torch.sub), (ops.Mul(), torch.mul),
        (ops.Div(), torch.div), (ops.Maximum(), torch.maximum), (ops.Minimum(), torch.minimum),
        (ops.Pow(), torch.pow), (ops.Equal(), lambda a, b: torch.eq(a, b).double()),
        (ops.Less(), lambda a, b: torch.lt(a, b).double()),
        (ops.LessEqual(), lambda a, b: torch.le(a, b).double()),
    ):  # fmt: skip
        yield binary, function, (a, b)
        yield binary, function, (positive(2, 3, 1, 5), normal(3, 4, 1))
    yield ops.Prelu(), lambda x, w: F.prelu(x, w.flatten()), (spoilt(2, 3, 5), normal(3, 1))
    yield ops.Prelu(), F.prelu, (spoilt(2, 3, 5), normal(1))
    cond = np.array([0, -0.0, 1, -3, nan, inf, 0.5])
    choose = lambda c, a, b: torch.where(c.bool(), a, b)  # noqa: E731
    yield ops.Where(), choose, (cond, spoilt(3, 7), spoilt(3, 1))
    yield ops.Where(), choose, (np.tri(4), normal(2, 1, 4, 4), np.asarray(-inf))
    yield ops.Cast("i64"), lambda x: x.long(), (x[np.isfinite(x)],)
    yield ops.Cast("u8"), lambda x: x.byte(), (np.array([0, 0.5, 0.99, 1, 127.5, 128, 254.9, 255]),)
    yield ops.Cast("u8"), lambda x: x.byte(), (np.array([0, 7, 255]),)
    yield ops.Cast(), lambda x: x.double(), (np.arange(250, 256, dtype=np.uint8),)


def unary(op: ops.Op) -> Callable[..., Any]:
    """An elementwise op as torch has it: the function of its name, where it has no attributes."""
    import torch
    from torch.nn import functional as F

    match op:
        case ops.Clip(low=low, high=high):
            return lambda x: x if low is None and high is None else x.clamp(low, high)
        case ops.LeakyRelu(slope):
            return lambda x: F.leaky_relu(x, slope)
        case ops.Elu(alpha):
            return lambda x: F.elu(x, alpha)
        case ops.Gelu(approximate):
            return lambda x: F.gelu(x, approximate=approximate)
        case ops.Not():
            return lambda x: torch.logical_not(x).double()
    name = op.torch or op.name
    return getattr(torch, name, None) or getattr(F, name)


def over_axes() -> Iterator[Row]:
    import torch
    from torch.nn import functional as F

    for x in (normal(2, 5, 3, 4), spoilt(2, 5, 3, 4)):
        for axes in ((2, 3), (1,)):
            yield ops.Sum(axes), lambda x, a=axes: x.sum(a), (x,)
            yield ops.Mean(axes, True), lambda x, a=axes: x.mean(a, True), (x,)
            yield ops.Max(axes), lambda x, a=axes: x.amax(a), (x,)
            yield ops.Min(axes, True), lambda x, a=axes: x.amin(a, True), (x,)
        for axis in range(1, 4):
            yield ops.ArgMax(axis, axis == 2), lambda x, a=axis: x.argmax(a, a == 2), (x,)
            yield ops.Softmax(axis), lambda x, a=axis: x.softmax(a), (x,)
    yield (
        ops.Softmax(1),
        lambda x: x.softmax(1),
        (np.array([[-inf, 0, 96], [-inf] * 3, [inf, 0, 1]]),),
    )
    yield ops.ArgMax(0), lambda x: x.argmax(0), (np.array([1, 3, 3, nan, nan]),)
    yield ops.ArgMax(0), lambda x: x.argmax(0), (np.array([-0.0, 0, -1]),)

    x = normal(2, 6, 3, 5)
    yield ops.LayerNorm((3,)), lambda x: F.layer_norm(x, (5,)), (x,)
    yield ops.LayerNorm((3,), 0.5), lambda x, w: F.layer_norm(x, (5,), w, eps=0.5), (x, normal(5))
    operands = (x, normal(3, 5), normal(3, 5))
    yield ops.LayerNorm((2, 3)), lambda x, w, b: F.layer_norm(x, (3, 5), w, b), operands
    operands = (x, normal(6), normal(6))
    yield ops.LayerNorm((1,)), _channels_first, operands
    yield ops.LayerNorm((1,)), _channels_first, (np.full_like(x, 3.5), *operands[1:])
    yield ops.LayerNorm((1,)), _channels_first, (spoilt(2, 6, 3, 5), *operands[1:])
    yield ops.RmsNorm((3,), 1e-6), lambda x, w: F.rms_norm(x, (5,), w, 1e-6), (x, normal(5))
    yield ops.RmsNorm((2, 3), 0.5), lambda x: F.rms_norm(x, (3, 5), None, 0.5), (x,)
    for groups in (1, 2, 6):
        grouped = lambda x, w, b, g=groups: F.group_norm(x, g, w, b)  # noqa: E731
        yield ops.GroupNorm(groups), grouped, operands
    yield (
        ops.GroupNorm(3),
        lambda x, w, b: F.group_norm(x, 3, w, b),
        (normal(2, 6, 7), *operands[1:]),
    )
    yield (
        ops.GroupNorm(3),
        lambda x, w, b: F.group_norm(x, 3, w, b),
        (spoilt(2, 6, 2), *operands[1:]),
    )
    for size in (1, 2, 3, 4, 5, 9):
        op = ops.LocalResponseNorm(size, 0.5, 0.75, 2.0)
        yield (
            op,
            lambda x, s=size: F.local_response_norm(x, s, 0.5, 0.75, 2.0),
            (normal(2, 6, 2, 3),),
        )
    yield ops.LocalResponseNorm(5), lambda x: F.local_response_norm(x, 5), (spoilt(2, 6, 3),)
    statistics = (normal(6), normal(6), normal(6), positive(6))
    yield (
        ops.BatchNorm(0.1),
        lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, eps=0.1),
        (x, *statistics),
    )
    yield ops.MatMul(), torch.matmul, (normal(2, 1, 3, 7), normal(5, 7, 4))
    yield ops.Linear(), F.linear, (normal(2, 3, 7), normal(5, 7), normal(5))


def _channels_first(x: Any, w: Any, b: Any) -> Any:
    """Layer norm over the channels: of the channels-last view."""
    from torch.nn import functional as F

    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), w, b).permute(0, 3, 1, 2)


def moves() -> Iterator[Row]:
    import torch
    from torch.nn import functional as F

    x = normal(2, 3, 4, 5)
    for value in (0.0, -0.0, -1.5, nan, -inf):
        op = ops.Pad((0, 1, 0, 2), (0, 0, 3, 1), value)
        yield op, lambda x, v=value: F.pad(x, (2, 1, 0, 3, 1, 0), value=v), (x,)
    for mode, torchs, (left, right, top, bottom) in (
        ("reflect", "reflect", (4, 3, 3, 0)), ("reflect", "reflect", (1, 0, 0, 2)),
        ("edge", "replicate", (7, 0, 1, 9)), ("edge", "replicate", (0, 1, 0, 0)),
    ):  # fmt: skip
        op = ops.Pad((0, 0, top, left), (0, 0, bottom, right), mode=mode)
        yield (
            op,
            lambda x, p=(left, right, top, bottom), m=torchs: F.pad(x, p, mode=m),
            (spoilt(2, 3, 4, 5),),
        )
    flat = np.array([4, 0, 0, 3, -1])
    yield ops.Gather(1), lambda x, i: x[:, i], (normal(2, 5, 3), flat)
    yield (
        ops.Gather(2),
        lambda x, i: x[:, :, i],
        (normal(2, 3, 5), np.array([[0, 4, 2], [-5, 1, 1]])),
    )
    yield ops.Gather(0), lambda x, i: x[i], (normal(5, 3), np.array(3))
    yield ops.Concat(1), lambda *x: torch.cat(x, 1), (x, normal(2, 1, 4, 5))
    yield ops.Slice(3, 1, 5, 3), lambda x: x[..., 1:5:3], (x,)
    yield ops.Permute((2, 0, 3, 1)), lambda x: x.permute(2, 0, 3, 1), (x,)
    yield ops.Expand((-1, 3, 2)), lambda x: x.expand(-1, 3, 2), (normal(2, 1, 2),)


def windows() -> Iterator[Row]:
    from torch.nn import functional as F

    for x in (normal(2, 2, 7, 8), spoilt(1, 2, 7, 8)):
        for kernel, stride, pad, dilation, ceil in (
            ((3, 3), (2, 2), (1, 1), (1, 1), False), ((3, 3), (2, 2), (1, 1), (1, 1), True),
            ((2, 2), (2, 2), (0, 0), (1, 1), True), ((3, 2), (2, 3), (0, 1), (1, 1), True),
            ((2, 3), (1, 2), (1, 0), (2, 1), True), ((1, 5), (3, 1), (0, 2), (1, 1), False),
            ((3, 3), (3, 3), (1, 1), (1, 1), True),
        ):  # fmt: skip
            borders = pad * 2
            maximum = ops.MaxPool2d(kernel, stride, borders, dilation, ceil)
            call = (kernel, stride, pad, dilation, ceil)
            yield maximum, lambda x, c=call: F.max_pool2d(x, *c), (x,)
            if dilation != (1, 1):
                continue
            for counted, divisor in ((True, None), (False, None), (True, 3)):
                mean = ops.AvgPool2d(kernel, stride, borders, ceil, counted, divisor)
                call = (kernel, stride, pad, ceil, counted, divisor)
                yield mean, lambda x, c=call: F.avg_pool2d(x, *c), (x,)
        for size in ((1, 1), (7, 8), (3, 3), (2, 5), (6, 7), (9, 1), (7, 13)):
            yield ops.AdaptiveAvgPool2d(size), lambda x, s=size: F.adaptive_avg_pool2d(x, s), (x,)
            yield ops.AdaptiveMaxPool2d(size), lambda x, s=size: F.adaptive_max_pool2d(x, s), (x,)
    operands = (normal(2, 4, 5, 6), normal(6, 2, 3, 2), normal(6))
    op = ops.Conv2d((2, 1), (1, 2, 1, 2), (1, 2), 2)
    yield op, lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2), operands
    depthwise = lambda x, w: F.conv2d(x, w, None, 1, 2, 1, 4)  # noqa: E731
    yield ops.Conv2d(padding=(2, 2, 2, 2), groups=4), depthwise, (operands[0], normal(4, 1, 5, 5))


def resizes() -> Iterator[Row]:
    from torch.nn import functional as F

    def row(op: ops.Resize, x: Array, mode: str, align: bool | None = None) -> Row:
        """Torch is told the scale where the op has one, else the size."""
        told = {"size": op.size} if op.scale is None else {"scale_factor": op.scale}
        return op, lambda x: F.interpolate(x, mode=mode, align_corners=align, **told), (x,)

    x = normal(1, 2, 5, 7)
    sizes = [(9, 4), (5, 7), (10, 14), (1, 1), (3, 15), (20, 28), (6, 2)]
    scaled = [
        ((10, 21), (2.0, 3.0)),
        ((8, 11), (1.7, 1.7)),
        ((3, 4), (0.7, 0.6)),
        ((6, 9), (1.3, 1.4)),
    ]
    # The float32 of 1 / 41, times 41, is below 1: the 42nd of 82 rows still is the first.
    for case, size, scale in (
        *((x, size, None) for size in sizes),
        *((x, size, scale) for size, scale in scaled),
        (normal(1, 1, 2, 1), (82, 1), None),
        (normal(1, 2, 1, 3), (4, 1), None),
        (spoilt(1, 2, 3, 4), (5, 8), None),
    ):
        yield row(ops.Resize(size, coordinates="asymmetric", scale=scale), case, "nearest")
        exact = ops.Resize(size, rounding="round_prefer_ceil", scale=scale)
        yield row(exact, case, "nearest-exact")
        yield row(ops.Resize(size, "bilinear", scale=scale), case, "bilinear", False)
        aligned = ops.Resize(size, "bilinear", "align_corners", scale=scale)
        yield row(aligned, case, "bilinear", True)


if __name__ == "__main__":
    write()
