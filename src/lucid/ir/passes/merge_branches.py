"""merge-branches: parallel convolutions of one tensor that are added up become one convolution.

RepVGG, MobileOne and FastViT are trained so: conv3x3(x) + conv1x1(x) + batch_norm(x), and meant to
be run as one convolution. Convolution is linear: kernels are padded to the largest window and
added, and x itself is a kernel that is 1 in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import Add, Concat, Constant, Conv2d, Mul, Pad, Slice, Sub
from lucid.ir.passes.recipes import add, along, apply, are_parameters, expand, ints, mul, reshape
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.recipe import Literal, Recipe

merge_branches = Pass(
    "merge-branches", "Add up parallel convolutions of one tensor, and the tensor itself, as one"
)


@dataclass(frozen=True)
class Term:
    """`scale` (a vector by channel, or nothing) times `value`, which is a convolution of `source`
    or the source itself."""

    value: Value
    scale: Recipe | None

    @property
    def convolution(self) -> Conv2d | None:
        """What is read as a convolution by parameters, with its dilation told only where it has
        one."""
        node = self.value.producer
        if node is None or not isinstance(node.op, Conv2d) or not are_parameters(*node.inputs[1:]):
            return None
        return replace(node.op, dilation=(1, 1)) if self.window == (1, 1) else node.op

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        assert self.value.producer is not None
        height, width = ints(self.value.producer.inputs[1].type.shape[2:])
        return height, width


@dataclass
class Expression:
    """A sum: terms, shifts by channel, and the nodes that compute it."""

    channels: int
    terms: list[Term] = field(default_factory=list)
    shifts: list[Recipe] = field(default_factory=list)
    nodes: set[Node] = field(default_factory=set)


@rewrite(merge_branches, Add, Sub)
def into_one_convolution(node: Node, graph: Rewriter) -> None:
    """conv2d(x, w, b) + conv2d(x, v, c) + x == conv2d(x, w + v + 1, b + c)

    With 1 for the weights that give x back. Of a sum, several terms may be so.

    Terms may be scaled by channel, as batch norms and layer scales are after folding. Fires where
    one convolution has the stride and the groups of the others and a window that holds theirs, and
    nothing else reads their results. Not for one dense convolution and its plain residual, which an
    epilogue adds at hardly any cost.
    """
    kind = node.output.type
    if kind.rank != 4 or not isinstance(kind.shape[1], int) or _is_inner(node, graph):
        return
    sum = Expression(kind.shape[1])
    _collect(node, None, sum, graph)
    for main in sorted(sum.terms, key=_area, reverse=True):
        merged = [t for t in sum.terms if t is main or _fits(t, main, graph, node)]
        if len(merged) > 1 and _pays(merged, main):
            _merge(node, sum, main, merged, graph)
            return


# -- sums -----------------------------------------------------------------------------------------


def _is_inner(node: Node, graph: Rewriter) -> bool:
    """Whether the sum is part of a larger one, which is looked at instead."""
    user = graph.only_user(node.output)
    if user is not None and isinstance(user.op, Mul) and _factor(user, node.output) is not None:
        user = graph.only_user(user.output)
    return (
        user is not None and isinstance(user.op, Add | Sub) and user.output.type == node.output.type
    )


def _collect(node: Node, scale: Recipe | None, into: Expression, graph: Rewriter) -> None:
    """Add what `scale` times an addition or subtraction consists of to an expression."""
    into.nodes.add(node)
    signs = (scale, scale if isinstance(node.op, Add) else _times(scale, Literal(-1.0)))
    for value, sign in zip(node.inputs, signs, strict=True):
        _add_value(value, sign, node, into, graph)


def _add_value(
    value: Value, scale: Recipe | None, reader: Node, into: Expression, graph: Rewriter
) -> None:
    shift = by_channel(value, into.channels)
    inner = value.producer
    if shift is not None:
        into.shifts.append(shift if scale is None else mul(shift, scale))
    elif inner is None or value.type != reader.output.type or graph.only_user(value) is not reader:
        into.terms.append(Term(value, scale))
    elif isinstance(inner.op, Add | Sub):
        _collect(inner, scale, into, graph)
    elif isinstance(inner.op, Mul) and (factor := _scaled(inner, into.channels)) is not None:
        scaled, recipe = factor
        into.nodes.add(inner)
        _add_value(scaled, _times(scale, recipe), inner, into, graph)
    else:
        into.terms.append(Term(value, scale))


def _times(scale: Recipe | None, factor: Recipe) -> Recipe:
    return factor if scale is None else mul(scale, factor)


def _scaled(node: Node, channels: int) -> tuple[Value, Recipe] | None:
    """What a multiplication scales by channel, and the scale."""
    for value, other in (node.inputs, node.inputs[::-1]):
        recipe = by_channel(other, channels)
        if recipe is not None and value.type == node.output.type:
            return value, recipe
    return None


def _factor(node: Node, value: Value) -> Recipe | None:
    """The scale where `node` scales `value` by channel."""
    channels = value.type.shape[1]
    found = _scaled(node, channels) if isinstance(channels, int) else None
    return found[1] if found is not None and found[0] is value else None


def by_channel(value: Value, channels: int) -> Recipe | None:
    """A parameter of (C, 1, 1), or a scalar, as a vector (C) or a scalar; None for any other."""
    match value.producer:
        case Node(op=Constant(value=float() | int() as number, dtype="f32")):
            return Literal(float(number))
    if not isinstance(value, Parameter) or value.type.rank > 4:
        return None
    shape = ints((1,) * (4 - value.type.rank) + value.type.shape)
    if shape == (1, 1, 1, 1):
        return reshape(value.recipe)
    return reshape(value.recipe, channels) if shape == (1, channels, 1, 1) else None


# -- which terms go together ----------------------------------------------------------------------


def _area(term: Term) -> int:
    return term.window[0] * term.window[1] if term.convolution is not None else 0


def _source(term: Term) -> Value:
    node = term.value.producer
    return node.inputs[0] if term.convolution is not None and node is not None else term.value


def _fits(term: Term, main: Term, graph: Rewriter, node: Node) -> bool:
    """Whether a term can become part of the convolution `main`."""
    op, x = main.convolution, _source(main)
    if op is None or op.dilation != (1, 1) or not _is_free(main, graph):
        return False
    if term.value is x:
        return op.stride == (1, 1) and x.type == node.output.type
    own = term.convolution
    if own is None or _source(term) is not x or min(_margins(term, main)) < 0:
        return False
    alike = (own.stride, own.groups, own.dilation) == (op.stride, op.groups, op.dilation)
    return alike and _is_free(term, graph)


def _own(term: Term, main: Term) -> Node | None:
    """The convolution of a term that goes together with `main`; None where it is the source."""
    return None if term.value is _source(main) else term.value.producer


def _is_free(term: Term, graph: Rewriter) -> bool:
    """Whether nothing but the sum reads a convolution's result."""
    return graph.only_user(term.value) is not None


def _margins(term: Term, main: Term) -> tuple[int, int, int, int]:
    """By how much the window of `main` is larger: above, left, below, right of the term's."""
    op, own = main.convolution, _own(term, main)
    assert op is not None
    top, left, *_ = op.padding
    inner = (1, 1)
    if own is not None:
        assert isinstance(own.op, Conv2d)
        top, left, inner = top - own.op.padding[0], left - own.op.padding[1], term.window
    rows, columns = (a - b for a, b in zip(main.window, inner, strict=True))
    return top, left, rows - top, columns - left


def _pays(merged: list[Term], main: Term) -> bool:
    """Whether it spares more than the residual of one dense convolution."""
    op = main.convolution
    assert op is not None
    assert main.value.producer is not None
    plain = [t for t in merged if _own(t, main) is None and t.scale is None]
    depthwise = main.value.producer.inputs[1].type.shape[:2] == (op.groups, 1)
    return depthwise or len(merged) - len(plain) > 1


# -- one convolution ------------------------------------------------------------------------------


def _merge(node: Node, sum: Expression, main: Term, merged: list[Term], graph: Rewriter) -> None:
    """Put a convolution in the place of the merged terms and the shifts, and add the others."""
    layer, op = main.value.producer, main.convolution
    assert layer is not None
    assert op is not None
    weight = layer.inputs[1]
    kernels = (_kernel(term, main, sum.channels) for term in merged)
    shifts = [s for term in merged for s in _shift(term, main)] + sum.shifts
    operands = [_source(main), graph.parameter(f"{weight.name}.merged", _total(kernels))]
    if shifts:
        vectors = (expand(s, sum.channels) for s in shifts)
        operands.append(graph.parameter(f"{weight.name}.bias.merged", _total(vectors)))
    convolutions = {n for t in merged if (n := _own(t, main)) is not None}
    fuses = graph.in_order(convolutions | sum.nodes)
    others = [t for t in sum.terms if t not in merged]
    if not others:
        graph.substitute(node, op, operands, fuses=fuses)
        return
    total = graph.insert_before(node, op, operands)
    *early, last = (_scaled_value(t, node, sum.channels, graph) for t in others)
    for value in early:
        total = graph.insert_before(node, Add(), [total, value])
    graph.substitute(node, Add(), [total, last], fuses=fuses)


def _scaled_value(term: Term, node: Node, channels: int, graph: Rewriter) -> Value:
    if term.scale is None:
        return term.value
    vector = along(expand(term.scale, channels), 0, 3)
    scale = graph.parameter(f"{node.output.name}.scale", vector)
    return graph.insert_before(node, Mul(), [term.value, scale])


def _total(recipes: Iterator[Recipe]) -> Recipe:
    total = next(recipes)
    for recipe in recipes:
        total = add(total, recipe)
    return total


def _shift(term: Term, main: Term) -> list[Recipe]:
    """The bias of a term's convolution, scaled."""
    node = _own(term, main)
    if node is None or len(node.inputs) < 3:
        return []
    bias = node.inputs[2]
    assert isinstance(bias, Parameter)
    return [bias.recipe if term.scale is None else mul(bias.recipe, term.scale)]


def _kernel(term: Term, main: Term, channels: int) -> Recipe:
    """A term as a kernel of the shape of the main one."""
    assert main.value.producer is not None
    own = _own(term, main)
    if own is None:
        kernel = _delta(channels, ints(main.value.producer.inputs[1].type.shape)[1])
    else:
        weight = own.inputs[1]
        assert isinstance(weight, Parameter)
        kernel = weight.recipe
    if term.scale is not None:
        kernel = mul(kernel, along(expand(term.scale, channels), 0, 4))
    top, left, bottom, right = _margins(term, main)
    if not any((top, left, bottom, right)):
        return kernel
    return apply(Pad((0, 0, top, left), (0, 0, bottom, right)), kernel)


def _delta(channels: int, depth: int) -> Recipe:
    """The 1x1 kernel (channels, depth, 1, 1) that keeps every channel, in groups of `depth`."""
    if depth == 1:
        return expand(Literal(1.0), channels, 1, 1, 1)
    one, zeros = expand(Literal(1.0), depth, 1), expand(Literal(0.0), depth, depth)
    rows = apply(Concat(1), one, zeros)  # 1, 0, ..., 0 in depth + 1 columns: laid out in rows of
    flat = reshape(rows, depth * (depth + 1))  # depth columns, every 1 is one further to the right
    square = reshape(apply(Slice(0, 0, depth * depth), flat), 1, depth, depth)
    repeated = expand(square, channels // depth, depth, depth)
    return reshape(repeated, channels, depth, 1, 1)
