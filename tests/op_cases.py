"""The table of ops: each with types it takes, and what it computes by another formula."""

import math

import numpy as np

from lucid.ir import BATCH, Dim, Graph, TensorType, f32, ops
from lucid.ir.ops import (
    Abs,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Add,
    ArgMax,
    AvgPool2d,
    BatchNorm,
    BitwiseAnd,
    BitwiseNot,
    BitwiseOr,
    BitwiseXor,
    Cast,
    Ceil,
    Clip,
    Concat,
    Constant,
    Conv1d,
    Conv2d,
    Conv3d,
    Cos,
    CumProd,
    CumSum,
    DeformColumns,
    Dequantize,
    Div,
    Elu,
    Equal,
    Erf,
    Exp,
    Expand,
    Floor,
    FloorDiv,
    Fold,
    Fusion,
    Gather,
    GatherElements,
    GatherND,
    Gelu,
    GridSample,
    GroupNorm,
    Gru,
    Hardsigmoid,
    Hardswish,
    IntegerConv2d,
    IntegerLinear,
    IntegerMatMul,
    IntegerSumPool2d,
    LayerNorm,
    LeakyRelu,
    Less,
    LessEqual,
    Linear,
    LocalResponseNorm,
    Log,
    Lookup,
    Lstm,
    MatMul,
    Max,
    Maximum,
    MaxPool2d,
    MaxPoolIndices,
    MaxUnpool2d,
    Mean,
    Min,
    Minimum,
    Mish,
    Mod,
    Mul,
    Neg,
    NonMaxSuppression,
    Not,
    Pad,
    Permute,
    Pow,
    Prelu,
    Quantize,
    RadixCombine,
    RadixMean,
    RadixSoftmax,
    Relu,
    Reshape,
    Resize,
    RmsNorm,
    Rnn,
    RoiAlign,
    Round,
    Rsqrt,
    Saturate,
    ScatterElements,
    ScatterND,
    ShiftLeft,
    ShiftRight,
    Sigmoid,
    Sign,
    Silu,
    Sin,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    SplitAttention,
    Sqrt,
    Sub,
    Sum,
    SumSquares,
    Tanh,
    TopK,
    Where,
)

N = BATCH
IMAGE = f32(N, 4, 5, 6)
VOLUME = f32(N, 4, 3, 5, 6)
I64 = TensorType("i64", (2, 3))


def kind(dtype, *shape):
    return TensorType(dtype, shape)


BYTES = kind("u8", N, 4, 5, 6)


def each(function):
    """A formula for one number, over arrays."""
    vectorized = np.vectorize(function, otypes=[np.float64])
    return lambda *arrays: vectorized(*arrays)


def clamp(x):
    return min(max(x, 0), 6)


def fused_body():
    """y -> relu(y * scale + residual)."""
    body = Graph("body")
    y = body.add_input(f32(N, 2, 5, 6), "y")
    scale = body.add_input(f32(2, 1, 1), "scale")
    residual = body.add_input(f32(N, 2, 5, 6), "residual")
    total = body.append(Add(), [body.append(Mul(), [y, scale]).output, residual]).output
    body.set_outputs([body.append(Relu(), [total]).output])
    return body


def pointwise(x, w, b, groups=1):
    """A 1x1 convolution, group by group."""
    inner = w.shape[1]
    outer = len(w) // groups
    parts = [
        np.einsum(
            "ncij,oc->noij",
            x[:, g * inner : (g + 1) * inner],
            w[g * outer : (g + 1) * outer, :, 0, 0],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, 1) + b[:, None, None]


def split_attention(radix, cardinality, gate=None):
    """The definition, channel by channel: softmax over radix of the logits of one channel."""

    def formula(x, w1, b1, w2, b2):
        n, channels = x.shape[0], x.shape[1] // radix
        inner = channels // cardinality
        splits = [x[:, r * channels : (r + 1) * channels] for r in range(radix)]
        gap = sum(splits).mean((2, 3), keepdims=True)
        hidden = np.maximum(pointwise(gap, w1, b1, cardinality), 0)
        z = pointwise(hidden, w2, b2, cardinality)[:, :, 0, 0]
        y = np.zeros((n, channels, *x.shape[2:]))
        for c in range(channels):
            k, i = divmod(c, inner)
            logits = np.stack([z[:, (k * radix + r) * inner + i] for r in range(radix)])
            weights = gate(logits) if gate else np.exp(logits) / np.exp(logits).sum(0)
            for r in range(radix):
                y[:, c] += splits[r][:, c] * weights[r][:, None, None]
        return y

    return formula


def conv(x, w, b):
    """3x3, stride 2, padding 1: the definition in a loop over outputs."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
    y = np.zeros((len(x), len(w), rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            y[:, :, i, j] = np.einsum("ncuv,ocuv->no", window, w) + b
    return y


def conv_of_lines(x, w, b):
    """As `conv`, the line in the middle of an image of zeros."""
    rows = np.pad(w[:, :, None], ((0, 0), (0, 0), (1, 1), (0, 0)))
    return conv(x[:, :, None], rows, b)[:, :, 0]


def conv_of_volumes(x, w, b):
    """Two slices each, as `conv`."""
    pairs = [
        conv(x[:, :, d], w[:, :, 0], b) + conv(x[:, :, d + 1], w[:, :, 1], 0)
        for d in range(x.shape[2] - 1)
    ]
    return np.stack(pairs, 2)


def largest_places(x):
    """Of pairs in a line, counted over everything."""
    pairs = x[..., :6].reshape(-1, 3, 2).argmax(-1)
    places = pairs + 2 * np.arange(3) + x.shape[3] * np.arange(len(pairs))[:, None]
    return places.reshape(*x.shape[:3], 3)


def standard(x, axes, eps=1e-5):
    """Mean 0 and variance 1 over `axes`, by the definition."""
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(x.var(axes, keepdims=True) + eps)


def moved(x, by):
    """The squares of the channel `by` further on, 0 where there is none."""
    y = np.zeros(x.shape)
    y[:, max(0, -by) : 4 - max(0, by)] = x[:, max(0, by) : 4 - max(0, -by)] ** 2
    return y


BEFORE_ROWS = ((0, 0), (0, 0), (1, 0), (0, 0))


BEFORE_LINES = ((0, 0), (0, 0), (0, 0), (1, 0))


def largest_of_rows(x):
    """Of each three rows."""
    return np.maximum(np.maximum(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])


def summed_windows(x, height, width):
    """The sum over each window, as differences of sums from the corner on."""
    total = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0))).cumsum(2).cumsum(3)
    rows = total[:, :, height:] - total[:, :, :-height]
    return rows[..., width:] - rows[..., :-width]


def columns_pooled(x):
    """The means of four windows over all rows and six columns, which overlap."""
    windows = [(0, 2), (1, 3), (3, 5), (4, 6)]
    return np.stack([x[..., left:right].mean((2, 3)) for left, right in windows], 2)


def quarter(x, side):
    """Three quarters of each pixel and one of its left (-1) or right neighbour, or of itself."""
    beside = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)), mode="edge")
    return 0.75 * x + 0.25 * (beside[..., :-2] if side < 0 else beside[..., 2:])


def folded(x):
    """Windows of 2 x 3, two rows and one column apart, one row and one column of padding."""
    n, _, length = x.shape
    y = np.zeros((n, 2, 6, 8))
    for c, i, j in np.ndindex(2, 2, 3):
        for window in range(length):
            row, column = divmod(window, 6)
            y[:, c, 2 * row + i, column + j] += x[:, (c * 2 + i) * 3 + j, window]
    return y[:, :, 1:5, 1:]


def unpooled(x, indices):
    """In images of 4 x 3, of which there are two channels."""
    y = np.zeros(len(x) * 24)
    for place, value in zip(indices.ravel(), x.ravel(), strict=True):
        if 0 <= place < y.size:
            y[place] = value
    return y.reshape(len(x), 2, 4, 3)


def between(image, row, column):
    """A pixel of (C, H, W) between others; 0 beyond the border."""
    beyond = np.pad(image, ((0, 0), (1, 2), (1, 2)))
    row, column = (
        min(max(place + 1, 0), size - 2)
        for place, size in zip((row, column), beyond.shape[1:], strict=True)
    )
    i, j = int(row), int(column)
    square = beyond[:, i : i + 2, j : j + 2]
    weights = np.outer([1 - row + i, row - i], [1 - column + j, column - j])
    return (square * weights).sum((1, 2))


def grid_sampled(x, grid):
    """Bilinear, between the middles of the corner pixels."""
    _, _, height, width = x.shape
    y = np.zeros((*grid.shape[:-1], x.shape[1]))
    for n, i, j in np.ndindex(*grid.shape[:-1]):
        column, row = (grid[n, i, j] + 1) / 2 * (width - 1, height - 1)
        y[n, i, j] = between(x[n], row, column)
    return np.moveaxis(y, -1, 1)


def nearest_around(x, grid):
    """The nearest pixel, those at the border repeated for ever."""
    rows = np.clip(np.rint(((grid[..., 1] + 1) * x.shape[2] - 1) / 2), 0, x.shape[2] - 1)
    columns = np.clip(np.rint(((grid[..., 0] + 1) * x.shape[3] - 1) / 2), 0, x.shape[3] - 1)
    images = [a[:, r.astype(int), c.astype(int)] for a, r, c in zip(x, rows, columns, strict=True)]
    return np.stack(images) if images else np.zeros((0, x.shape[1], *grid.shape[1:-1]))


def deformed(x, offset, mask):
    """A column of two taps, two rows apart, over every row but the last."""
    n, channels, height, width = x.shape
    y = np.zeros((n, 2, channels, height - 1, width))
    for m, tap, i, j in np.ndindex(n, 2, height - 1, width):
        row, column = (offset[m, 2 * tap : 2 * tap + 2, i, j] + (i + 2 * tap - 1, j)).tolist()
        y[m, tap, :, i, j] = between(x[m], row, column) * mask[m, tap, i, j]
    return y.reshape(n, -1, height - 1, width)


def around_boxes(x, boxes):
    """One sample in each of two bins, one above the other."""
    y = np.zeros((len(boxes), x.shape[1], 2, 1))
    for box, out in zip(boxes, y, strict=True):
        number, left, top, right, bottom = box
        if not -1 < number < len(x):
            continue
        image = np.pad(x[int(number)], ((0, 0), (1, 2), (1, 2)), mode="edge")
        for i in range(2):
            row, column = top + (bottom - top) * (2 * i + 1) / 4, (left + right) / 2
            row, column = row - 0.5, column - 0.5
            if -1 <= row <= x.shape[2] and -1 <= column <= x.shape[3]:
                row, column = np.clip(row, 0, x.shape[2] - 1), np.clip(column, 0, x.shape[3] - 1)
                out[:, i, 0] = inside(image, row, column)
    return y


def inside(beyond, row, column):
    """A pixel between others of an image with one more line and column before it."""
    i, j = int(row + 1), int(column + 1)
    square = beyond[:, i : i + 2, j : j + 2]
    weights = np.outer([i - row, row + 1 - i], [j - column, column + 1 - j])
    return (square * weights).sum((1, 2))


BESIDE_ROWS = ((0, 0), (0, 0), (1, 1), (0, 0))


def halfway(x):
    """Between the rows of an image and the next ones, by the cubic of -0.5."""
    return (9 * (x[:, :, 1:-2] + x[:, :, 2:-1]) - x[:, :, :-3] - x[:, :, 3:]) / 16


def thirds(x):
    """Three columns weighed 1, 3 and 3, of four times 1 3 3 1 whose first lies outside."""
    return (x[..., 0] + 3 * x[..., 1] + 3 * x[..., 2]) / 7


def pairs(x):
    """The columns 1 to 4 of an image weighed 1, 3, 3 and 1."""
    return (x[..., 1] + 3 * x[..., 2] + 3 * x[..., 3] + x[..., 4]) / 8


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unrolled(step, gates, directions):
    """A recurrent layer, one sequence and one direction at a time: `step` makes the new states of
    a function that gives each gate's products of input and state, and of the old states."""

    def layer(x, w, r, b, *states):
        n, steps, _ = x.shape
        y, last = np.zeros((n, steps, r.shape[2] * len(r))), [s.astype(float) for s in states]
        for i, d in np.ndindex(n, len(r)):
            wx, rh, bx, bh = (np.split(a[d], gates) for a in (w, r, *np.split(b, 2, axis=1)))
            now = [s[i, d].astype(float) for s in states]
            for t in range(steps)[:: directions[d]]:
                of_input = [wx[g] @ x[i, t] + bx[g] for g in range(gates)]
                now = step(of_input, lambda g, h, rh=rh, bh=bh: rh[g] @ h + bh[g], *now)
                y[i, t, d * len(now[0]) : (d + 1) * len(now[0])] = now[0]
            for kept, value in zip(last, now, strict=True):
                kept[i, d] = value
        return y, *last

    return layer


def lstm_step(x, of_state, h, c):
    i, o, f = (sigmoid(x[g] + of_state(g, h)) for g in range(3))
    c = f * c + i * np.tanh(x[3] + of_state(3, h))
    return o * np.tanh(c), c


def gru_step(x, of_state, h):
    z, r = (sigmoid(x[g] + of_state(g, h)) for g in range(2))
    n = np.tanh(x[2] + of_state(2, r * h))
    return ((1 - z) * n + z * h,)


def late_gru_step(x, of_state, h):
    z, r = (sigmoid(x[g] + of_state(g, h)) for g in range(2))
    return ((1 - z) * np.tanh(x[2] + r * of_state(2, h)) + z * h,)


def rnn_step(x, of_state, h):
    return (np.maximum(x[0] + of_state(0, h), 0),)


def layer_types(gates, directions, states):
    """x of three steps of two numbers, a state of four."""
    weights = [(directions, 4 * gates, k) for k in (2, 4)]
    state = [f32(N, directions, 4)] * states
    return [f32(N, 3, 2), *(f32(*w) for w in weights), f32(directions, 8 * gates), *state]


def top(x, axis, k, sign):
    """The k first by size of each row: values, and places."""
    rows = np.moveaxis(x, axis, -1)
    places = np.zeros((*rows.shape[:-1], k), int)
    for at in np.ndindex(rows.shape[:-1]):
        order = sorted(range(rows.shape[-1]), key=lambda i, row=rows[at]: (-sign * row[i], i))
        places[at] = order[:k]
    return tuple(np.moveaxis(a, -1, axis) for a in (np.take_along_axis(rows, places, -1), places))


def put(data, places, updates, combine):
    """One number after the other to its place."""
    y = data.copy()
    for place, value in zip(places, np.reshape(updates, (len(places), -1)), strict=True):
        y[place] = combine(y[place].reshape(-1), value).reshape(y[place].shape)
    return y


def along_first(indices):
    """The places that indices along axis 1 of two stand for."""
    return [(i, int(indices[i, j])) for i, j in np.ndindex(indices.shape)]


def kept_boxes(boxes, scores, most, share, least):
    """The definition, box by box."""
    rows = []
    for image, number in np.ndindex(scores.shape[:2]):
        own, kept = scores[image, number], []
        for i in sorted(range(len(own)), key=lambda i, own=own: (-own[i], i)):
            over = (overlap(boxes[image, i], boxes[image, j]) > share for j in kept)
            if own[i] > least and len(kept) < most and not any(over):
                kept.append(i)
        rows += [(image, number, i) for i in kept]
    padding = [(-1, -1, -1)] * (scores[..., 0].size * min(most, scores.shape[2]) - len(rows))
    return np.array(rows + padding), np.array(len(rows))


def overlap(a, b):
    """What two boxes have in common, as a share of what they cover."""
    sides = [
        (min(p[i], p[i + 2]), max(p[i], p[i + 2]))
        for i in (0, 1)
        for p in (np.float32(a), np.float32(b))
    ]
    first, second = sides[:2], sides[2:]
    common = [min(p[1], q[1]) - max(p[0], q[0]) for p, q in (first, second)]
    areas = [np.prod([p[i][1] - p[i][0] for p in (first, second)]) for i in (0, 1)]
    shared = common[0] * common[1] if min(common) > 0 else 0
    return shared / (sum(areas) - shared)


def quantised(dtype):
    """One number after the other."""
    least, most = (0, 255) if dtype == "u8" else (-128, 127)
    return each(lambda x, s, z=0: min(max(round(x / s) + int(z), least), most))


def by_channel(vector):
    return vector[:, None, None]


def requantised():
    """The sums y of u8 and i8 -> saturate(relu(y * scale + (residual - 3) * 0.25))."""
    body = Graph("body")
    y = body.add_input(kind("i32", N, 2, 5, 6), "y")
    scale = body.add_input(f32(2, 1, 1), "scale")
    residual = body.add_input(kind("i8", N, 2, 5, 6), "residual")

    def apply(op, *operands):
        return body.append(op, operands).output

    three, quarter = apply(Constant(3.0)), apply(Constant(0.25))
    added = apply(Mul(), apply(Sub(), apply(Cast(), residual), three), quarter)
    total = apply(Add(), apply(Mul(), apply(Cast(), y), scale), added)
    body.set_outputs([apply(Saturate("i8", -9), apply(Relu(), total))])
    return body


def requantised_values(x, w, b, s, r):
    """What a fusion of `requantised` computes, pointwise, of bytes whose zero is 7."""
    sums = pointwise(x.astype(np.float64) - 7, w, b) * s + (r - 3.0) * 0.25
    return np.clip(np.rint(np.maximum(sums, 0)) - 9, -128, 127)


CASES = [
    (TopK(1, 2), [IMAGE], lambda x: top(x, 1, 2, 1)),
    (TopK(3, 6, largest=False), [IMAGE], lambda x: top(x, 3, 6, -1)),
    (TopK(0, 3), [TensorType("i64", (7,))], lambda x: top(x, 0, 3, 1)),
    (
        GatherElements(1),
        [f32(7, 5), I64],
        lambda x, i: np.stack([x[r, i[r]] for r in range(2)]),
    ),
    (GatherElements(0), [f32(6), TensorType("i64", (N,))], lambda x, i: x[i]),
    (
        GatherND(1),
        [f32(N, 6, 5, 2), TensorType("i64", (N, 3, 2))],
        lambda x, i: np.stack([x[n, i[n, :, 0], i[n, :, 1]] for n in range(len(x))]),
    ),
    (GatherND(), [f32(5, 6), TensorType("i64", (3, 1))], lambda x, i: x[i[:, 0]]),
    (
        ScatterElements(1),
        [f32(2, 6), I64, f32(2, 3)],
        lambda x, i, u: put(x, along_first(i), u, lambda a, b: b),
    ),
    *(
        (
            ScatterElements(1, reduction),
            [f32(4, 6), I64, f32(2, 3)],
            lambda x, i, u, f=f: put(x, along_first(i), u, f),
        )
        for reduction, f in (("add", np.add), ("mul", np.multiply), ("max", np.maximum))
    ),
    (
        ScatterND(),
        [f32(5, 4, 2), TensorType("i64", (3, 1)), f32(3, 4, 2)],
        lambda x, i, u: put(x, [(int(r),) for r in i[:, 0]], u, lambda a, b: b),
    ),
    (
        ScatterND("min"),
        [f32(5, 6), TensorType("i64", (2, 2)), f32(2)],
        lambda x, i, u: put(x, [tuple(r) for r in i], u, np.minimum),
    ),
    (CumSum(1), [IMAGE], lambda x: np.einsum("ij,njhw->nihw", np.tri(4), x)),
    (
        CumSum(3, exclusive=True, reverse=True),
        [IMAGE],
        lambda x: np.einsum("ij,nchj->nchi", np.tri(6, k=-1).T, x),
    ),
    (CumSum(1), [I64], lambda x: np.stack([x[:, 0], x[:, :2].sum(1), x.sum(1)], 1)),
    (
        CumProd(2),
        [f32(N, 2, 3)],
        lambda x: np.stack([x[..., : i + 1].prod(2) for i in range(3)], 2),
    ),
    (
        CumProd(1, exclusive=True, reverse=True),
        [f32(N, 3, 2)],
        lambda x: np.stack([x[:, i + 1 :].prod(1) for i in range(3)], 1),
    ),
    (
        NonMaxSuppression(3, 0.3),
        [f32(2, 6, 4), f32(2, 3, 6)],
        lambda b, s: kept_boxes(b, s, 3, np.float32(0.3), -np.inf),
    ),
    (
        NonMaxSuppression(9, 0.1, 0.25),
        [f32(1, 7, 4), f32(1, 2, 7)],
        lambda b, s: kept_boxes(b, s, 9, np.float32(0.1), 0.25),
    ),
    (Conv2d((2, 2), (1, 1, 1, 1)), [IMAGE, f32(3, 4, 3, 3), f32(3)], conv),
    (Conv1d((2,), (1, 1)), [f32(N, 4, 7), f32(3, 4, 3), f32(3)], conv_of_lines),
    (Conv3d((1, 2, 2), (0, 1, 1, 0, 1, 1)), [VOLUME, f32(3, 4, 2, 3, 3), f32(3)], conv_of_volumes),
    (Linear(), [f32(N, 3), f32(2, 3), f32(2)], lambda x, w, b: np.einsum("ni,oi->no", x, w) + b),
    (Linear(), [f32(N, 5, 3), f32(2, 3)], lambda x, w: np.einsum("nti,oi->nto", x, w)),
    (MatMul(), [f32(N, 2, 3, 4), f32(4, 5)], lambda a, b: np.einsum("nbij,jk->nbik", a, b)),
    (MatMul(), [f32(2, 3), f32(3, 2)], lambda a, b: np.einsum("ij,jk->ik", a, b)),
    (
        BatchNorm(eps=0.1),
        [f32(N, 3, 2), f32(3), f32(3), f32(3), f32(3)],
        lambda x, w, b, m, v: ((x.transpose(0, 2, 1) - m) / np.sqrt(v + 0.1) * w + b).transpose(
            0, 2, 1
        ),
    ),
    (
        MaxPool2d((2, 2), (2, 2)),
        [f32(N, 3, 4, 7)],
        lambda x: x[:, :, :, :6].reshape(len(x), 3, 2, 2, 3, 2).max((3, 5)),
    ),
    (
        MaxPoolIndices((1, 2), (1, 2), (0, 0, 0, 0), (1, 1), whole=True),
        [f32(N, 3, 4, 7)],
        largest_places,
    ),
    (
        AvgPool2d((2, 2), (2, 2)),
        [f32(N, 3, 5, 6)],
        lambda x: x[:, :, :4].reshape(len(x), 3, 2, 2, 3, 2).mean((3, 5)),
    ),
    (Add(), [IMAGE, f32(4, 1, 1)], lambda a, b: np.array(a) + b),
    (Add(), [f32(), IMAGE], each(lambda a, b: a + b)),
    (Add(), [I64, I64], lambda a, b: a + b),
    (Sub(), [IMAGE, f32(N, 4, 1, 1)], each(lambda a, b: a - b)),
    (Mul(), [f32(6), f32(N, 1, 1)], each(lambda a, b: a * b)),
    (Mul(), [f32(), f32()], each(lambda a, b: a * b)),
    (Div(), [IMAGE, f32()], each(lambda a, b: a / b)),
    (Maximum(), [IMAGE, IMAGE], each(max)),
    (Minimum(), [IMAGE, f32(1, 6)], each(min)),
    (Neg(), [IMAGE], each(lambda x: -x)),
    (Relu(), [IMAGE], each(lambda x: max(x, 0))),
    (Sigmoid(), [IMAGE], each(lambda x: 1 / (1 + math.exp(-x)))),
    (Silu(), [IMAGE], each(lambda x: x / (1 + math.exp(-x)))),
    (Hardswish(), [IMAGE], each(lambda x: x * clamp(x + 3) / 6)),
    (Hardsigmoid(), [f32()], each(lambda x: clamp(x + 3) / 6)),
    (Gelu(), [IMAGE], each(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)),
    (
        Gelu("tanh"),
        [IMAGE],
        each(lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
    ),
    (Tanh(), [IMAGE], each(math.tanh)),
    (Exp(), [IMAGE], each(math.exp)),
    (Sqrt(), [f32(3)], each(math.sqrt)),
    (Rsqrt(), [f32(3)], each(lambda x: x**-0.5)),
    (Rsqrt(), [f32()], each(lambda x: x**-0.5)),
    (Abs(), [IMAGE], each(abs)),
    (Erf(), [IMAGE], each(math.erf)),
    (Erf(), [f32()], each(math.erf)),
    (Clip(), [IMAGE], lambda x: x),
    (Clip(0.5, 1), [IMAGE], each(lambda x: min(max(x, 0.5), 1))),
    (Clip(low=0.5), [f32()], each(lambda x: max(x, 0.5))),
    (Sum((2, 3)), [IMAGE], lambda x: np.einsum("ncij->nc", x)),
    (Sum((1,), keepdims=True), [IMAGE], lambda x: np.einsum("ncij->nij", x)[:, None]),
    (Mean((3, 2)), [IMAGE], lambda x: np.einsum("ncij->nc", x) / 30),
    (Max((1,)), [IMAGE], lambda x: np.sort(x, axis=1)[:, -1]),
    (Max((2, 3), keepdims=True), [IMAGE], lambda x: x.max(3).max(2)[:, :, None, None]),
    (Softmax(1), [f32(N, 3, 2)], lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    (Reshape((N, 120)), [IMAGE], lambda x: x.reshape(len(x), 120)),
    (Reshape((-1, 6)), [IMAGE], lambda x: x.reshape(len(x) * 20, 6)),
    (Reshape((N, -1)), [IMAGE], lambda x: x.reshape(len(x), 120)),
    (Reshape((Dim(2), 2, -1)), [IMAGE], lambda x: x.reshape(2 * len(x), 2, 30)),
    (Reshape((3, -1)), [f32(2, 6)], lambda x: x.reshape(3, 4)),
    (Permute((2, 0, 1)), [f32(N, 2, 3)], lambda x: np.einsum("nij->jni", x)),
    (Concat(1), [f32(N, 2, 3), f32(N, 4, 3)], lambda *x: np.concatenate(x, 1)),
    (Concat(0), [f32(N, 2), f32(Dim(2), 2)], lambda *x: np.concatenate(x)),
    (Concat(0), [f32(2)], lambda x: x),
    (Slice(1, 1, 4, 2), [IMAGE], lambda x: x[:, [1, 3]]),
    (Slice(3, 0, 6), [IMAGE], lambda x: x),
    (Expand((-1, 3, 2)), [f32(N, 1, 2)], lambda x: np.concatenate([x] * 3, 1)),
    (Expand((N, 3, 2)), [f32(N, 1, 2)], lambda x: np.concatenate([x] * 3, 1)),
    (Expand((2, 3)), [f32()], lambda x: np.full((2, 3), x)),
    (Constant(((1.5, 2.0),)), [], lambda: np.array([[1.5, 2.0]])),
    (Constant((1, 2), "i64"), [], lambda: np.array([1, 2])),
    (
        Fusion(Conv2d(), fused_body()),
        [IMAGE, f32(2, 4, 1, 1), f32(2), f32(2, 1, 1), f32(N, 2, 5, 6)],
        lambda x, w, b, s, r: np.maximum(pointwise(x, w, b) * s + r, 0),
    ),
    (
        Fusion(Conv2d(), fused_body()),
        [IMAGE, f32(2, 4, 1, 1), f32(2, 1, 1), f32(N, 2, 5, 6)],
        lambda x, w, s, r: np.maximum(pointwise(x, w, np.zeros(2)) * s + r, 0),
    ),
    (
        RadixMean(2),
        [IMAGE],
        lambda x: (x[:, :2].mean((2, 3)) + x[:, 2:].mean((2, 3)))[:, :, None, None],
    ),
    (
        RadixSoftmax(2, 2),
        [f32(N, 4, 1, 1)],  # logits (k0 r0, k0 r1, k1 r0, k1 r1) -> weights (r0: k0 k1, r1: k0 k1)
        lambda z: (
            np.exp(z[:, [0, 2, 1, 3]]) / (np.exp(z[:, [0, 2, 0, 2]]) + np.exp(z[:, [1, 3, 1, 3]]))
        ),
    ),
    (RadixCombine(2), [IMAGE, f32(N, 4, 1, 1)], lambda x, g: (x * g)[:, :2] + (x * g)[:, 2:]),
    (RadixCombine(1), [IMAGE, f32(N, 4, 1, 1)], lambda x, g: x * g),
    (
        RadixCombine(2, folded=True),
        [IMAGE, f32(N, 2, 1, 1)],
        lambda x, g: x[:, :2] * g + x[:, 2:] * (1 - g),
    ),
    (
        SplitAttention(2),
        [IMAGE, f32(3, 2, 1, 1), f32(3), f32(4, 3, 1, 1), f32(4)],
        split_attention(2, 1),
    ),
    (
        SplitAttention(3, cardinality=2),
        [f32(N, 12, 2, 3), f32(6, 2, 1, 1), f32(6), f32(12, 3, 1, 1), f32(12)],
        split_attention(3, 2),
    ),
    (
        SplitAttention(1, gate="sigmoid"),
        [IMAGE, f32(3, 4, 1, 1), f32(3), f32(4, 3, 1, 1), f32(4)],
        split_attention(1, 1, gate=lambda z: 1 / (1 + np.exp(-z))),
    ),
    (
        SplitAttention(1, 2, gate="hardsigmoid"),
        [IMAGE, f32(2, 2, 1, 1), f32(2), f32(4, 1, 1, 1), f32(4)],
        split_attention(1, 2, gate=lambda z: np.clip(z + 3, 0, 6) / 6),
    ),
    (
        SplitAttention(2, folded=True),
        [IMAGE, f32(3, 2, 1, 1), f32(3), f32(2, 3, 1, 1), f32(2)],
        lambda x, w1, b1, w2, b2: split_attention(2, 1)(
            x, w1, b1, np.concatenate([w2, 0 * w2]), np.concatenate([b2, 0 * b2])
        ),
    ),
    (LeakyRelu(0.2), [IMAGE], each(lambda x: x if x > 0 else 0.2 * x)),
    (Prelu(), [IMAGE, f32(4, 1, 1)], each(lambda x, s: x if x > 0 else s * x)),
    (Elu(0.5), [IMAGE], each(lambda x: x if x > 0 else 0.5 * (math.exp(x) - 1))),
    (Softplus(), [IMAGE], each(lambda x: math.log(1 + math.exp(x)))),
    (Softsign(), [IMAGE], each(lambda x: x / (1 + abs(x)))),
    (Mish(), [IMAGE], each(lambda x: x * math.tanh(math.log(1 + math.exp(x))))),
    (Log(), [f32(3)], each(math.log)),
    (Sin(), [IMAGE], each(math.sin)),
    (Cos(), [IMAGE], each(math.cos)),
    (ops.Tan(), [IMAGE], each(math.tan)),
    (ops.Asin(), [f32(3)], each(lambda x: math.asin(x) if x <= 1 else math.nan)),
    (ops.Acos(), [f32(3)], each(lambda x: math.acos(x) if x <= 1 else math.nan)),
    (ops.Atan(), [IMAGE], each(math.atan)),
    (ops.Sinh(), [IMAGE], each(math.sinh)),
    (ops.Cosh(), [IMAGE], each(math.cosh)),
    (ops.Asinh(), [IMAGE], each(math.asinh)),
    (ops.Acosh(), [f32(3)], each(lambda x: math.acosh(x) if x >= 1 else math.nan)),
    (ops.Atanh(), [f32(3)], each(lambda x: math.atanh(x) if x < 1 else math.nan)),
    (Floor(), [IMAGE], each(math.floor)),
    (Round(), [IMAGE], each(round)),
    (Pow(), [f32(3), f32()], each(pow)),
    (Ceil(), [IMAGE], each(math.ceil)),
    (Sign(), [IMAGE], each(lambda x: (x > 0) - (x < 0))),
    (Div(), [I64, I64], each(lambda a, b: int(a / b) if b else 0)),
    (FloorDiv(), [I64, I64], each(lambda a, b: a // b if b else 0)),
    (Mod(), [I64, I64], each(lambda a, b: a % b if b else 0)),
    (Mod(True), [IMAGE, f32(4, 1, 1)], each(math.fmod)),
    (Pow(), [I64, I64], each(lambda a, b: int(float(a) ** b) if a or b >= 0 else 0)),
    (Less(), [I64, I64], each(lambda a, b: a < b)),
    (BitwiseAnd(), [I64, I64], each(lambda a, b: a & b)),
    (BitwiseOr(), [I64, I64], each(lambda a, b: a | b)),
    (BitwiseXor(), [I64, I64], each(lambda a, b: a ^ b)),
    (BitwiseNot(), [I64], each(lambda x: ~x)),
    (ShiftLeft(), [I64, I64], each(lambda a, b: a << b if b >= 0 else 0)),
    (ShiftRight(), [I64, I64], each(lambda a, b: a >> (b if b >= 0 else 64))),
    (Equal(), [IMAGE, IMAGE], each(lambda a, b: a == b)),
    (Equal(), [IMAGE, f32(N, 1, 5, 6)], each(lambda a, b: a == b)),
    (Less(), [IMAGE, f32(N, 1, 5, 6)], each(lambda a, b: a < b)),
    (LessEqual(), [f32(4, 1, 1), IMAGE], each(lambda a, b: a <= b)),
    (Not(), [IMAGE], lambda x: x * 0.0),
    (Where(), [IMAGE, f32(N, 1, 1, 6), f32()], lambda c, a, b: a + 0 * c),
    (Where(), [f32(N, 2, 3), I64, I64], lambda c, a, b: a + 0 * c),
    (Cast(), [I64], lambda x: x),
    (Cast("u8"), [I64], lambda x: np.maximum(x, 0)),
    (Cast("i64"), [IMAGE], lambda x: np.trunc(x)),
    (Cast("u8"), [IMAGE], lambda x: np.trunc(np.maximum(x, 0))),
    (SumSquares((1,)), [IMAGE], lambda x: np.einsum("nchw,nchw->nhw", x, x)),
    (Min((1,)), [IMAGE], lambda x: np.sort(x, axis=1)[:, 0]),
    (ops.Prod((1,)), [IMAGE], lambda x: x[:, 0] * x[:, 1] * x[:, 2] * x[:, 3]),
    (ops.ArgMin(1), [IMAGE], lambda x: np.argsort(x, axis=1)[:, 0]),
    (ops.ArgMax(1, last=True), [I64], lambda x: 2 - np.argmax(x[:, ::-1], axis=1)),
    (ArgMax(1), [IMAGE], lambda x: np.argsort(x, axis=1)[:, -1]),
    (ArgMax(3, keepdims=True), [IMAGE], lambda x: np.argsort(x, axis=3)[..., -1:]),
    (LayerNorm((3,), 0.1), [IMAGE], lambda x: standard(x, (3,), 0.1)),
    (
        LayerNorm((1,)),
        [IMAGE, f32(4), f32(4)],
        lambda x, w, b: standard(x, (1,)) * w[:, None, None] + b[:, None, None],
    ),
    (
        LayerNorm((3, 1)),  # weights lie in the order of the axes
        [IMAGE, f32(6, 4)],
        lambda x, w: np.einsum("ncij,jc->ncij", standard(x, (1, 3)), w),
    ),
    (
        GroupNorm(2),
        [IMAGE, f32(4), f32(4)],
        lambda x, w, b: (
            np.concatenate([standard(x[:, :2], (1, 2, 3)), standard(x[:, 2:], (1, 2, 3))], 1)
            * w[:, None, None]
            + b[:, None, None]
        ),
    ),
    (
        RmsNorm((2, 3), 0.1),
        [IMAGE, f32(5, 6)],
        lambda x, w: x / np.sqrt((x**2).mean((2, 3), keepdims=True) + 0.1) * w,
    ),
    (
        LocalResponseNorm(3, 0.3, 2.0, 0.5),
        [IMAGE],
        lambda x: x / (0.5 + 0.1 * (moved(x, -1) + x**2 + moved(x, 1))) ** 2,
    ),
    (
        Pad((0, 1, 0, 2), (0, 0, 3, 0), -1.5),
        [IMAGE],
        lambda x: np.pad(x, ((0, 0), (1, 0), (0, 3), (2, 0)), constant_values=-1.5),
    ),
    (
        Pad((0, 0, 4, 0), (0, 0, 1, 5), mode="reflect"),
        [IMAGE],
        lambda x: np.pad(x, ((0, 0), (0, 0), (4, 1), (0, 5)), mode="reflect"),
    ),
    (
        Pad((0, 0, 4, 7), (0, 2, 1, 0), mode="edge"),
        [IMAGE],
        lambda x: np.pad(x, ((0, 0), (0, 2), (4, 1), (7, 0)), mode="edge"),
    ),
    (
        Pad((0, 0, 4, 7), (0, 2, 1, 0), mode="wrap"),
        [IMAGE],
        lambda x: np.pad(x, ((0, 0), (0, 2), (4, 1), (7, 0)), mode="wrap"),
    ),
    (Pad((1, 0), (0, 2), 3), [I64], lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=3)),
    (
        Gather(2),
        [IMAGE, I64],
        lambda x, i: np.stack([np.stack([x[:, :, k] for k in row], 2) for row in i], 2),
    ),
    (Gather(0), [f32(5, 3), TensorType("i64", ())], lambda x, i: x[int(i)]),
    (Gather(0), [f32(5, 3), TensorType("i64", (N,))], lambda x, i: x[i]),
    (
        AdaptiveAvgPool2d((2, 4)),
        [IMAGE],
        lambda x: np.stack([columns_pooled(x[:, :, :3]), columns_pooled(x[:, :, 2:])], 2),
    ),
    (
        AdaptiveMaxPool2d((1, 3)),
        [IMAGE],
        lambda x: np.stack([x[..., c : c + 2].max((2, 3)) for c in (0, 2, 4)], 2)[:, :, None],
    ),
    (
        IntegerSumPool2d((2, 3), (3, 1), (1, 0, 0, 0), zero_point=250),
        [TensorType("u8", (N, 4, 5, 6))],
        lambda x: summed_windows(np.pad(x - 250.0, BEFORE_ROWS), 2, 3)[:, :, ::3],
    ),
    (
        IntegerSumPool2d((5, 6), (5, 6), zero_point=-3),
        [TensorType("i8", (N, 4, 5, 6))],
        lambda x: (x + 3.0).sum((2, 3), keepdims=True),
    ),
    (
        MaxPool2d((3, 2), (1, 1), (0, 1, 0, 0)),
        [TensorType("i8", (N, 4, 5, 6))],
        lambda x: np.stack(
            [
                x[:, :, i : i + 3, max(j - 1, 0) : j + 1].max((2, 3))
                for i in range(3)
                for j in range(6)
            ],
            -1,
        ).reshape(*x.shape[:2], 3, 6),
    ),
    (Lstm("bidirectional"), layer_types(4, 2, 2), unrolled(lstm_step, 4, (1, -1))),
    (Lstm(), layer_types(4, 1, 2), unrolled(lstm_step, 4, (1,))),
    (Gru("reverse"), layer_types(3, 1, 1), unrolled(gru_step, 3, (-1,))),
    (Gru(linear_before_reset=True), layer_types(3, 1, 1), unrolled(late_gru_step, 3, (1,))),
    (Rnn(activations=(Relu(),)), layer_types(1, 1, 1), unrolled(rnn_step, 1, (1,))),
    (Resize((10, 3), coordinates="asymmetric"), [IMAGE], lambda x: x.repeat(2, 2)[..., ::2]),
    (
        Resize((5, 12), "bilinear"),
        [IMAGE],
        lambda x: np.stack([quarter(x, -1), quarter(x, 1)], -1).reshape(len(x), 4, 5, 12),
    ),
    (
        Resize((9, 6), "bilinear", "align_corners"),
        [IMAGE],
        lambda x: np.insert(x, range(1, 5), (x[:, :, 1:] + x[:, :, :-1]) / 2, axis=2),
    ),
    (GridSample(align_corners=True), [IMAGE, f32(N, 2, 3, 2)], grid_sampled),
    (GridSample("nearest", "border"), [IMAGE, f32(N, 2, 3, 2)], nearest_around),
    (
        DeformColumns((2, 1), padding=(1, 0, 0, 0), dilation=(2, 1)),
        [IMAGE, f32(N, 4, 4, 6), f32(N, 2, 4, 6)],
        deformed,
    ),
    (Fold((4, 7), (2, 3), (2, 1), (1, 1, 1, 0)), [f32(N, 12, 18)], folded),
    (
        MaxUnpool2d((4, 3), whole=True),
        [f32(N, 2, 2, 2), TensorType("i64", (N, 2, 2, 2))],
        unpooled,
    ),
    (RoiAlign((2, 1), samples=1, half_pixel=True), [IMAGE, f32(5, 5)], around_boxes),
    (
        Resize((9, 6), "bicubic", "align_corners", cubic=-0.5),
        [IMAGE],
        lambda x: np.insert(x, range(1, 5), halfway(np.pad(x, BESIDE_ROWS, mode="edge")), axis=2),
    ),
    (
        Resize((5, 3), "bilinear", antialias=True, exclude_outside=True),
        [IMAGE],
        lambda x: np.stack([thirds(x[..., :3][..., ::-1]), pairs(x), thirds(x[..., 3:])], -1),
    ),
    (
        Resize((5, 4), "bilinear", "tf_crop_and_resize", roi=(0.0, -0.2, 1.0, 0.4)),
        [IMAGE],
        lambda x: x[..., [0, 0, 1, 2]] * [0, 1, 1, 1],
    ),
    (Quantize(), [IMAGE, f32(), kind("u8")], quantised("u8")),
    (Quantize("i8"), [IMAGE, f32()], quantised("i8")),
    (
        Quantize("i8", axis=1),
        [IMAGE, f32(4), kind("i8", 4)],
        lambda x, s, z: quantised("i8")(x, by_channel(s), by_channel(z)),
    ),
    (
        Quantize("u8", axis=2, block=3),
        [IMAGE, f32(N, 4, 2, 6), kind("u8", N, 4, 2, 6)],
        lambda x, s, z: quantised("u8")(x, *(a[:, :, [0, 0, 0, 1, 1]] for a in (s, z))),
    ),
    (Dequantize(), [BYTES, f32(), kind("u8")], each(lambda x, s, z: (int(x) - int(z)) * s)),
    (Dequantize(axis=0), [kind("i32", 5), f32(5)], each(lambda x, s: x * s)),
    (
        Dequantize(axis=1, block=3),
        [kind("i8", N, 4), f32(N, 2), kind("i8", N, 2)],
        lambda x, s, z: (x.astype(float) - z[:, [0, 0, 0, 1]]) * s[:, [0, 0, 0, 1]],
    ),
    (Saturate("u8", 3), [IMAGE], lambda x: quantised("u8")(x, 1, 3)),
    (Saturate("i8", -5), [IMAGE], lambda x: quantised("i8")(x, 1, -5)),
    (Lookup(), [BYTES, f32(256)], lambda x, t: t[x]),
    (Lookup(), [kind("i8", N, 3), kind("u8", 256)], lambda x, t: np.roll(t, 128)[x]),
    (
        IntegerConv2d((2, 2), (1, 1, 1, 1), zero_point=9),
        [BYTES, kind("i8", 3, 4, 3, 3), kind("i32", 3)],
        lambda x, w, b: conv(x.astype(np.float64) - 9, w, b),
    ),
    (
        IntegerConv2d(groups=2),
        [kind("i8", N, 4, 5, 6), kind("i16", 6, 2, 1, 1)],
        lambda x, w: pointwise(x.astype(np.float64), w.astype(np.float64), np.zeros(6), 2),
    ),
    (
        IntegerLinear(zero_point=-4),
        [kind("i8", N, 5, 3), kind("i8", 2, 3), kind("i32", 2)],
        lambda x, w, b: np.einsum("nti,oi->nto", x + 4.0, w) + b,
    ),
    (
        IntegerMatMul(11, -6),
        [kind("u8", N, 2, 3, 4), kind("i8", 4, 5)],
        lambda a, b: np.einsum("nbij,jk->nbik", a - 11.0, b + 6.0),
    ),
    (
        Fusion(IntegerConv2d(zero_point=7), requantised()),
        [
            *(BYTES, kind("i8", 2, 4, 1, 1), kind("i32", 2)),
            *(f32(2, 1, 1), kind("i8", N, 2, 5, 6)),
        ],
        requantised_values,
    ),
]

IDS = [f"{op.name}-{i}" for i, (op, *_) in enumerate(CASES)]
