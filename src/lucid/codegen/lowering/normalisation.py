"""Lowering of normalisation: rows and groups by kernels of their own, all else by reductions.

Weights and biases are the first steps of the body, whatever follows in a fusion the next ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from lucid.codegen.kernels.body import OPERAND, Body
from lucid.codegen.kernels.normalisation import (
    GroupNormalise,
    Moments,
    NeighbourNorm,
    RowNorm,
    scratch_bytes,
)
from lucid.codegen.kernels.strided import operand_names
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.elements import STRIDED, Access
from lucid.codegen.lowering.context import Lowering, lowers
from lucid.codegen.lowering.epilogue import append_body, to_body
from lucid.codegen.lowering.fusion import lowers_fused, parts
from lucid.codegen.lowering.reduction import Semantics, reduce, spaced
from lucid.codegen.lowering.strided import Grid, broadcast, elementwise, inlined
from lucid.codegen.program.lowered_ops import GroupMoments, Standardise
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir import ops
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.types import TensorType

LEAST_PART = 1 << 14
"""Floats of a part of a map whose moments are taken by themselves: they stay in a near cache."""
MOST_PARTS = 16
LEAST_PIECE = 1 << 12
"""Floats that one task normalises at least."""


@dataclass(frozen=True)
class Standard:
    """What is normalised, and what becomes of it: y = body(standardised x, extras).

    All views have x's shape. `eps`, `centred` (less the mean, or by the mean square alone).
    """

    x: View
    out: View
    extras: tuple[View, ...]
    body: Body
    eps: float
    centred: bool
    origin: str

    @property
    def operands(self) -> tuple[View, ...]:
        return (self.x, *self.extras, self.out)

    def names(self) -> tuple[str, ...]:
        return operand_names(1 + len(self.extras))

    def bound(self) -> dict[str, ArgumentValue]:
        return dict(zip(self.names(), self.operands, strict=True))


def standard(ctx: Lowering, node: Node) -> tuple[ops.Op, Standard]:
    """A node that normalises, alone or as the anchor of a fusion."""
    if isinstance(node.op, ops.Fusion):
        fusion, own, others = parts(node)
        op, body = fusion.anchor, fusion.body
    else:
        op, own, others, body = node.op, node.inputs, [], None
    assert isinstance(op, ops.LayerNorm | ops.RmsNorm | ops.GroupNorm)
    axes = (1,) if isinstance(op, ops.GroupNorm) else op.axes
    x = ctx.view(own[0])
    weights = [_along(ctx.view(v), axes, len(x.shape)) for v in own[1:]]
    tail = Graph("tail")
    read = [tail.add_input(node.output.type, "y")]
    read += [tail.add_input(read[0].type.with_shape(w.shape), "w") for w in weights]
    read += [tail.add_input(v.type, "e") for v in others]
    y = read[0]
    for step, value in zip((ops.Mul(), ops.Add()), read[1 : 1 + len(weights)], strict=False):
        y = tail.append(step, [y, value]).output
    if body is not None:
        y = inlined(body, tail, [y, *read[1 + len(weights) :]])
    tail.set_outputs([y])
    views = [*weights, *(ctx.view(v) for v in others)]
    extras = tuple(broadcast(v, x.shape) for v in views)
    kernel_body = to_body(tail, [OPERAND] * len(extras))
    out = ctx.result(node.output, x)
    centred = not isinstance(op, ops.RmsNorm)
    return op, Standard(x, out, extras, kernel_body, op.eps, centred, node.origin)


def _along(view: View, axes: Sequence[int], rank: int) -> View:
    """Weights of the dimensions `axes`, in that order, as an array of x's rank."""
    sizes, steps = [1] * rank, [0] * rank
    for axis, size, step in zip(axes, view.shape, view.strides, strict=True):
        sizes[axis], steps[axis] = size, step
    return view.over(sizes, steps)


@lowers(ops.LayerNorm, ops.RmsNorm)
@lowers_fused(ops.LayerNorm, ops.RmsNorm)
def _over_axes(ctx: Lowering, node: Node) -> None:
    op, job = standard(ctx, node)
    assert isinstance(op, ops.LayerNorm | ops.RmsNorm)
    if not _rows(ctx, job, op.axes):
        _in_steps(ctx, job, op.axes)


@lowers(ops.GroupNorm)
@lowers_fused(ops.GroupNorm)
def _group_norm(ctx: Lowering, node: Node) -> None:
    """Maps that lie channels last by moments of their parts, others as rows of split channels."""
    op, job = standard(ctx, node)
    assert isinstance(op, ops.GroupNorm)
    if len(job.x.shape) == 4 and _by_moments(ctx, job, op.groups):
        return

    def split(view: View) -> View:
        n, channels, *rest = view.shape
        image, channel, *others = view.strides
        width = channels // op.groups
        shape = (n, op.groups, width, *rest)
        return view.over(shape, (image, channel * width, channel, *others))

    extras = tuple(map(split, job.extras))
    grouped = Standard(
        split(job.x), split(job.out), extras, job.body, job.eps, job.centred, job.origin
    )
    axes = range(2, len(grouped.x.shape))
    if not _rows(ctx, grouped, axes):
        _in_steps(ctx, grouped, axes)


# -- rows -----------------------------------------------------------------------------------------


def _rows(ctx: Lowering, job: Standard, axes: Sequence[int]) -> bool:
    """One kernel, if the axes are one contiguous dimension of x and an even one of all others."""
    strides = [v.strides for v in job.operands]
    kept = [i for i in range(len(job.x.shape)) if i not in axes]
    inner = Grid.over([job.x.shape[a] for a in axes], _at(strides, axes), 0)
    if len(inner.sizes) > 1 or (inner.sizes[0] > 1 and inner.steps[0][0] != 1):
        return False
    outer = Grid.over([job.x.shape[i] for i in kept], _at(strides, kept))
    steps = tuple((*o, *i) for o, i in zip(outer.steps, inner.steps, strict=True))
    rows = Grid((*outer.sizes, *inner.sizes), steps)
    kernel = RowNorm(job.body, spaced(rows, [COMPUTED] * len(strides)), job.centred)
    arguments, tasks = rows.bind(ctx, job.names(), job.origin, whole=True)
    arguments |= job.bound()
    arguments |= {"inverse": 1.0 / max(1, inner.sizes[0]), "eps": job.eps}
    region, inputs = ctx.region(job.origin, job.operands[:-1])
    kind: ops.Op = (ops.LayerNorm if job.centred else ops.RmsNorm)(tuple(axes), job.eps)
    normal = region.append(kind, inputs[:1]).output
    region.set_outputs([append_body(region, job.body, normal, inputs[1:])])
    ctx.call(
        kernel,
        tasks,
        arguments,
        job.operands[:-1],
        [job.out],
        region,
        job.origin,
        algorithm="row_norm",
    )
    return True


def _at(strides: Sequence[Sequence[int]], places: Sequence[int]) -> list[list[int]]:
    return [[s[i] for i in places] for s in strides]


# -- any axes -------------------------------------------------------------------------------------


def _in_steps(ctx: Lowering, job: Standard, axes: Sequence[int]) -> None:
    """Means, mean squares, and then an elementwise chain over x and them."""
    x, axes = job.x, tuple(axes)
    shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    scale = 1.0 / max(1, prod(x.shape[a] for a in axes))

    def statistic(name: str, kind: str, centre: View | None) -> View:
        """The mean of x, of its distance from a centre, or of the square of that."""
        strides = [0 if i in axes else s for i, s in enumerate(x.strides)]
        out = ctx.allocate(f"{job.out.buffer}.{name}", COMPUTED, shape, _dense(shape, strides))
        reads = [x] if centre is None else [x, centre]
        region, inputs = ctx.region(job.origin, reads)
        value = inputs[0] if centre is None else region.append(ops.Sub(), inputs).output
        if kind == "squares":
            value = region.append(ops.Mul(), [value, value]).output
        region.set_outputs([region.append(ops.Mean(axes, True), [value]).output])
        meaning = Semantics(region, tuple(reads), (out,), job.origin)
        reduce(ctx, x, out, axes, kind, scale, meaning, centre)
        return out

    if job.centred:
        mean = statistic("mean", "sum", None)
        found = [mean, statistic("rest", "sum", mean), statistic("squares", "squares", mean)]
    else:
        found = [statistic("squares", "squares", None)]
    views = [x, *found, *job.extras]
    chain = _standardised([v.shape for v in views], len(found), job)
    body = to_body(chain, [OPERAND] * (len(views) - 1))
    region, inputs = ctx.region(job.origin, views)
    region.set_outputs([append_body(region, body, inputs[0], inputs[1:])])
    elementwise(ctx, body, views, job.out, region, job.origin)


def _dense(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Dense strides in the order of these, of which those of size 1 do not count."""
    dense, step = [0] * len(shape), 1
    real = [i for i, d in enumerate(shape) if d != 1]
    for i in sorted(real, key=lambda i: abs(strides[i])):
        dense[i] = step
        step *= shape[i]
    return tuple(dense)


def _standardised(shapes: Sequence[tuple[int, ...]], found: int, job: Standard) -> Graph:
    """((x - mean) - rest) / sqrt(max(squares - rest^2, 0) + eps), and the body behind it."""
    chain = Graph("chain")
    x, *others = (chain.add_input(TensorType(COMPUTED, s), "a") for s in shapes)
    statistics, extras = others[:found], others[found:]

    def apply(op: ops.Op, *operands: Value | float) -> Value:
        read = [
            v if isinstance(v, Value) else chain.append(ops.Constant(v), []).output
            for v in operands
        ]
        return chain.append(op, read).output

    variance = statistics[-1]
    if job.centred:
        mean, rest, squares = statistics
        x = apply(ops.Sub(), apply(ops.Sub(), x, mean), rest)
        variance = apply(ops.Sub(), squares, apply(ops.Mul(), rest, rest))
        variance = apply(ops.Maximum(), variance, 0.0)
    y = apply(ops.Mul(), x, apply(ops.Rsqrt(), apply(ops.Add(), variance, job.eps)))
    chain.set_outputs([append_body(chain, job.body, y, extras)])
    return chain


# -- groups of channels ---------------------------------------------------------------------------


def _by_moments(ctx: Lowering, job: Standard, groups: int) -> bool:
    """Moments of parts of each image, and then every task puts the parts together for itself; if
    channels are contiguous, and pixels evenly spaced in every operand."""
    n, channels, height, width = job.x.shape
    pixels, each = height * width, channels // groups
    strides = [v.strides for v in job.operands]
    along = Grid.over((height, width), _at(strides, (2, 3)), 0)
    if len(along.sizes) > 1 or (channels > 1 and strides[0][1] != 1):
        return False
    cuts = max(1, min(MOST_PARTS, pixels * channels // LEAST_PART, pixels))
    moments = ctx.allocate(
        f"{job.out.buffer}.moments",
        COMPUTED,
        (n, cuts, 3, groups),
        (cuts * 3 * groups, 3 * groups, groups, 1),
    )
    sizes: dict[str, ArgumentValue] = {
        "pixels": pixels,
        "channels": channels,
        "groups": groups,
        "width": each,
        "parts": cuts,
    }
    region, inputs = ctx.region(job.origin, [job.x])
    region.set_outputs([region.append(GroupMoments(groups, cuts), inputs).output])
    source: dict[str, ArgumentValue] = {"x": job.x, "y": moments}
    source |= {"image": strides[0][0], "pixel": along.steps[0][0]}
    ctx.call(
        Moments(),
        n * cuts,
        source | sizes,
        [job.x],
        [moments],
        region,
        job.origin,
        algorithm="moments",
        scratch=scratch_bytes(3 * channels),
    )
    _by_group(ctx, job, moments, sizes, along)
    return True


def _by_group(
    ctx: Lowering, job: Standard, moments: View, sizes: dict[str, ArgumentValue], along: Grid
) -> None:
    """Normalise a map by the moments of its parts."""
    n, channels, *_ = job.x.shape
    pixels, groups = prod(along.sizes), moments.shape[3]
    pieces = max(1, min(-(-ctx.pieces(n * pixels * channels, LEAST_PIECE) // max(1, n)), pixels))
    reads = [job.x, moments, *job.extras]
    region, inputs = ctx.region(job.origin, reads)
    normal = region.append(Standardise(job.eps), inputs[:2]).output
    region.set_outputs([append_body(region, job.body, normal, inputs[2:])])
    arguments = sizes | job.bound() | {"moments": moments, "pieces": pieces, "eps": job.eps}
    arguments["inverse"] = groups / max(1, pixels * channels)
    for name, view, row in zip(job.names(), job.operands, along.steps, strict=True):
        image, channel, *_ = view.strides
        arguments |= {f"{name}_image": image, f"{name}_row": row[0], f"{name}_inner": channel}
    single = groups == 1
    kernel = GroupNormalise(job.body, tuple(_evenly(v, channels) for v in job.operands), single)
    scratch = scratch_bytes(3 * groups + (0 if single else 3 * channels))
    ctx.call(
        kernel,
        n * pieces,
        arguments,
        reads,
        [job.out],
        region,
        job.origin,
        algorithm="group_norm",
        scratch=scratch,
    )


def _evenly(view: View, channels: int) -> Access:
    """How a view's channels lie, never to be sorted out in registers."""
    access = Access.along(view.strides[1] if channels > 1 else 1)
    return Access(STRIDED) if access.apart > 1 else access


# -- neighbouring channels ------------------------------------------------------------------------


@lowers(ops.LocalResponseNorm)
def _local_response(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.LocalResponseNorm)
    x = ctx.view(node.inputs[0])
    out = ctx.result(node.output, x)
    kept = [i for i in range(len(x.shape)) if i != 1]
    outer = Grid.over([x.shape[i] for i in kept], _at([x.strides, out.strides], kept))
    steps = tuple((*s, v.strides[1]) for s, v in zip(outer.steps, (x, out), strict=True))
    rows = Grid((*outer.sizes, x.shape[1]), steps)
    arguments, tasks = rows.bind(ctx, ("x", "y"), node.origin, whole=True)
    arguments |= {"x": x, "y": out, "window": op.size, "before": op.size // 2}
    arguments |= {"scale": op.alpha / op.size, "offset": op.k}
    region, inputs = ctx.region(node.origin, [x])
    region.set_outputs([region.append(op, inputs).output])
    ctx.call(
        NeighbourNorm(spaced(rows, [COMPUTED] * 2), op.beta),
        tasks,
        arguments,
        [x],
        [out],
        region,
        node.origin,
        algorithm="neighbour_norm",
        scratch=scratch_bytes(x.shape[1] + op.size),
    )
