"""Whole networks: 10 to 40 nodes of what people build networks of, chained, branched and joined.

Blocks are functions from a value to a value; a network is some of them after one another. Each
keeps numbers near 1, so that an error is one and not the noise of something large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graph_builder import Builder, sizes

from lucid.codegen.scheduling.conv_shape import ConvShape, scheduled_layers
from lucid.codegen.scheduling.schedule import Choice, Schedule, allowed_kernels
from lucid.codegen.scheduling.schedule import schedule as scheduled
from lucid.codegen.target import Target
from lucid.ir import BATCH, Graph, Op, Value, ops
from lucid.ir.passes import PIPELINE

from .draw import Draw
from .values import Array, fill

CHANNELS = [1, 3, 4, 6, 8, 12, 16, 17, 20, 24, 32, 33, 48, 64]
SPATIAL = [4, 5, 6, 7, 8, 9, 11, 12, 14, 16, 19, 23]
OPTIONAL = tuple(name for name in PIPELINE if name != "fold-batch-norm")
"""Passes that may be left out: batch norms have no kernel of their own."""
LARGEST = 40_000
"""Numbers in one map of one image, at most."""
ACTIVATIONS: list[Op] = [
    *(ops.Relu(), ops.Relu(), ops.Relu(), ops.Clip(0, 6), ops.Silu(), ops.Hardswish()),
    *(ops.LeakyRelu(0.1), ops.Elu(), *(cls() for cls in ops.declared(ops.Activation))),
]


@dataclass
class NetworkCase:
    """A network with its inputs, and how it is compiled."""

    seed: int
    graph: Graph
    inputs: list[Array]
    batch: int
    disable: tuple[str, ...] = ()
    precision: str = "strict"
    threads: int = 2
    target: str = "host"
    forced: bool = False
    blocks: list[str] = field(default_factory=list)


Block = Callable[["Net", Value], Value]
BLOCKS: dict[str, Block] = {}


def block(function: Block) -> Block:
    BLOCKS[function.__name__] = function
    return function


class Net:
    """A network being built. `branches`: maps made before, which later blocks may read again."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.build = Builder(draw.seed)
        self.branches: list[Value] = []

    def apply(self, op: Op, *operands: Value, origin: str = "") -> Value:
        return self.build.apply(op, *operands, origin=origin or self.build.next_origin(op.name))

    def channels(self, multiple: int = 1) -> int:
        return self.draw.pick([c for c in CHANNELS if c % multiple == 0] or [multiple])

    def activation(self, y: Value) -> Value:
        return self.apply(self.draw.pick(ACTIVATIONS), y)

    def conv(
        self,
        x: Value,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        act: bool = True,
        norm: bool | None = None,
    ) -> Value:
        """Convolution, batch norm (mostly) and activation; `same` padding, seldom another."""
        draw = self.draw
        reach = dilation * (kernel - 1)
        padding = (reach // 2,) * 4
        if kernel > 1 and draw.chance(0.15):
            padding = tuple(draw.integer(0, reach) for _ in range(4))
        if min(s + padding[i] + padding[i + 2] for i, s in enumerate(sizes(x)[2:])) <= reach:
            padding = (reach,) * 4
        norm = draw.chance(0.7) if norm is None else norm
        y = self.build.conv(
            x,
            out,
            (kernel, kernel),
            bias=draw.chance(0.2 if norm else 0.7),
            stride=(stride, stride),
            padding=padding,
            dilation=(dilation, dilation),
            groups=groups,
        )
        y = self.build.batch_norm(y) if norm else y
        return self.activation(y) if act else y

    def fitted(self, x: Value, like: Value) -> Value:
        """x with the channels and the size of another map."""
        _, channels, height, width = sizes(like)
        if sizes(x)[2:] != (height, width):
            match self.draw.integer(0, 2):
                case 0:
                    x = self.apply(ops.AdaptiveAvgPool2d((height, width)), x)
                case 1:
                    x = self.apply(ops.AdaptiveMaxPool2d((height, width)), x)
                case _:
                    mode = self.draw.pick(["nearest", "bilinear"])
                    x = self.apply(ops.Resize((height, width), mode), x)
        return x if sizes(x)[1] == channels else self.conv(x, channels, act=False)


# -- layers ---------------------------------------------------------------------------------------


@block
def layer(net: Net, x: Value) -> Value:
    """A convolution of any kind."""
    draw = net.draw
    kernel = draw.pick([1, 1, 3, 3, 3, 5, 7])
    groups = draw.divisor(sizes(x)[1]) if draw.chance(0.3) else 1
    out = groups * draw.pick([1, 2, 3, 4, 8]) if groups > 1 else net.channels()
    dilation = draw.pick([1, 1, 1, 2, 3]) if kernel > 1 else 1
    return net.conv(x, out, kernel, draw.pick([1, 1, 1, 2]), groups, dilation)


@block
def separable(net: Net, x: Value) -> Value:
    """Depthwise and pointwise, or MobileNet's inverted residual with squeeze and excitation."""
    draw, channels = net.draw, sizes(x)[1]
    y = net.conv(x, channels * draw.pick([1, 2, 3])) if draw.chance(0.5) else x
    wide = sizes(y)[1]
    stride = draw.pick([1, 1, 2])
    y = net.conv(y, wide * draw.pick([1, 1, 1, 2]), draw.pick([3, 3, 5]), stride, groups=wide)
    if draw.chance(0.4):
        gate = draw.pick([ops.Sigmoid(), ops.Hardsigmoid()])
        y = net.build.squeeze_excitation(y, draw.integer(1, 6), gate)
    out = channels if draw.chance(0.6) else net.channels()
    y = net.conv(y, out, act=draw.chance(0.3))
    return net.apply(ops.Add(), x, y) if y.type == x.type else y


@block
def shuffle(net: Net, x: Value) -> Value:
    """ShuffleNet's unit: half of the channels pass, all are shuffled."""
    if sizes(x)[1] % 2:
        x = net.conv(x, net.channels(2))
    n, channels, height, width = BATCH, *sizes(x)[1:]
    half = channels // 2
    left = net.apply(ops.Slice(1, 0, half), x)
    right = net.apply(ops.Slice(1, half, channels), x)
    right = net.conv(net.fitted(net.conv(right, half, 3, groups=half, act=False), right), half)
    y = net.apply(ops.Concat(1), left, right)
    if net.draw.chance(0.3):
        y = net.conv(y, channels, 3, groups=2, act=False)
        height, width = sizes(y)[2:]
    y = net.apply(ops.Reshape((n, 2, half, height, width)), y)
    y = net.apply(ops.Permute((0, 2, 1, 3, 4)), y)
    return net.apply(ops.Reshape((n, channels, height, width)), y)


@block
def pool(net: Net, x: Value) -> Value:
    draw = net.draw
    high, wide = (draw.pick([k for k in (1, 2, 2, 3, 3, 5) if k <= s]) for s in sizes(x)[2:])
    if draw.chance(0.6):
        high = wide = min(high, wide)
    stride = draw.pick([1, 2, 2])
    pads = draw.integer(0, high // 2), draw.integer(0, wide // 2)
    window = ((high, wide), (stride, stride), pads * 2)
    ceil = draw.chance(0.3)
    if draw.chance(0.5):
        return net.apply(ops.MaxPool2d(*window, ceil_mode=ceil), x)
    y = net.apply(ops.AvgPool2d(*window, ceil_mode=ceil, count_include_pad=draw.chance(0.5)), x)
    return net.conv(y, net.channels()) if draw.chance(0.4) else y


# -- blocks with branches -------------------------------------------------------------------------


@block
def residual(net: Net, x: Value) -> Value:
    """ResNet's blocks, basic and bottleneck, with every kind of shortcut."""
    draw, stride = net.draw, net.draw.pick([1, 1, 2])
    width = net.channels()
    if draw.chance(0.5):
        y = net.conv(net.conv(x, width, 3, stride), width, 3, act=False)
    else:
        groups = draw.pick([1, 1, 2, 4])
        inner = groups * draw.pick([2, 4, 8])
        y = net.conv(net.conv(x, inner), inner, 3, stride, groups)
        y = net.conv(y, width, act=False)
    shortcut = x
    if y.type != x.type:
        if stride == 2 and draw.chance(0.6) and min(sizes(x)[2:]) > 1:
            pooled = ops.AvgPool2d((2, 2), (2, 2), ceil_mode=True, count_include_pad=False)
            shortcut = net.conv(net.apply(pooled, x), width, act=False, norm=True)
        else:
            shortcut = net.conv(x, width, 1, stride, act=False, norm=True)
        shortcut = net.fitted(shortcut, y)
    y = net.apply(ops.Add(), *draw.shuffled([y, shortcut]))
    return net.apply(ops.Relu(), y) if draw.chance(0.8) else y


@block
def resnest(net: Net, x: Value) -> Value:
    """ResNeSt's block: split attention between two 1x1 convolutions, a pool before or after."""
    draw = net.draw
    radix, cardinality = draw.pick([(2, 1), (2, 1), (2, 2), (1, 1), (4, 1), (3, 2)])
    inner = cardinality * draw.pick([2, 4, 8, 16])
    width = net.channels()
    y = net.conv(x, inner)
    y = net.conv(
        y,
        inner * radix,
        3,
        groups=draw.pick([g for g in (cardinality, radix * cardinality) if inner % g == 0]),
    )
    hidden = cardinality * draw.integer(1, 6)
    y = net.build.split_attention(y, radix, cardinality, hidden, draw.chance(0.7))
    strided = draw.chance(0.3) and min(sizes(y)[2:]) > 2
    if strided:
        y = net.apply(ops.AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1)), y)
    y = net.conv(y, width, act=False, norm=True)
    shortcut = x
    if y.type != x.type:
        shortcut = net.fitted(x, y) if strided else x
        shortcut = net.conv(shortcut, width, act=False, norm=True)
        shortcut = net.fitted(shortcut, y)
    return net.apply(ops.Relu(), net.apply(ops.Add(), y, shortcut))


@block
def dense(net: Net, x: Value) -> Value:
    """DenseNet: each layer reads all before it."""
    growth = net.draw.pick([3, 4, 8, 12, 16])
    for _ in range(net.draw.integer(2, 3)):
        y = x
        if net.draw.chance(0.5):  # normalised before the convolution
            y = net.build.batch_norm(y)
            y = net.apply(ops.Relu(), y) if net.draw.chance(0.6) else y
        kernel = net.draw.pick([1, 3])
        y = net.build.conv(y, growth, (kernel, kernel), padding=(kernel // 2,) * 4)
        x = net.apply(ops.Concat(1), x, y)
    return x


@block
def inception(net: Net, x: Value) -> Value:
    """Branches of all kinds side by side, joined; a part of them may be read on its own."""
    draw, parts = net.draw, []
    for _ in range(draw.integer(2, 4)):
        match draw.integer(0, 4):
            case 0:
                y = net.conv(x, net.channels())
            case 1:
                y = net.conv(net.conv(x, draw.pick([2, 4, 8])), net.channels(), 3)
            case 2 if min(sizes(x)[2:]) >= 2:
                y = net.apply(ops.MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)), x)
                y = net.conv(y, net.channels()) if draw.chance(0.6) else y
            case 3:
                y = net.apply(ops.AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1)), x)
                y = net.conv(y, draw.pick([4, 8, 16]))
            case _:
                y = x
        parts.append(net.fitted(y, x) if sizes(y)[2:] != sizes(x)[2:] else y)
    y = net.apply(ops.Concat(1), *parts)
    if draw.chance(0.3):
        start = draw.integer(0, sizes(y)[1] - 1)
        y = net.apply(ops.Slice(1, start, draw.integer(start + 1, sizes(y)[1])), y)
    return y


@block
def merge(net: Net, x: Value) -> Value:
    """An earlier map once more: added, multiplied, or beside this one, as in pyramids."""
    other = net.draw.pick(net.branches)
    if net.draw.chance(0.4):
        other = net.fitted(other, x)
        op = net.draw.pick([ops.Add(), ops.Add(), ops.Maximum(), ops.Mul(), ops.Sub()])
        y = net.apply(op, x, other)
        return net.apply(ops.Tanh(), y) if isinstance(op, ops.Mul) else y
    size = sizes(x)[2:]
    if sizes(other)[2:] != size:
        other = net.apply(ops.Resize(size, net.draw.pick(["nearest", "bilinear"])), other)
    return net.apply(ops.Concat(1), x, other)


# -- attention, norms and the rest ----------------------------------------------------------------


@block
def transformer(net: Net, x: Value) -> Value:
    """Attention over the pixels, and a perceptron, both with layer norms."""
    draw = net.draw
    if sizes(x)[1] % 2:
        x = net.conv(x, net.channels(2))
    if sizes(x)[2] * sizes(x)[3] > 100:
        x = net.apply(ops.AdaptiveAvgPool2d((6, 7)), x)
    _, channels, height, width = sizes(x)
    tokens, heads = height * width, draw.pick([h for h in (1, 2, 4) if channels % h == 0])
    y = net.apply(ops.Permute((0, 2, 1)), net.apply(ops.Reshape((BATCH, channels, tokens)), x))
    norm = ops.LayerNorm((2,), 1e-2)
    normal = net.apply(
        norm, y, *(net.build.weight(net.build.next_origin("ln"), channels) for _ in "wb")
    )
    parts = []
    for axes in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        part = net.build.linear(normal, channels)
        part = net.apply(ops.Reshape((BATCH, tokens, heads, channels // heads)), part)
        parts.append(net.apply(ops.Permute(axes), part))
    scores = net.apply(ops.MatMul(), parts[0], parts[1])
    scale = net.apply(ops.Constant((channels // heads) ** -0.5))
    scores = net.apply(ops.Softmax(3), net.apply(ops.Mul(), scores, scale))
    mixed = net.apply(ops.Permute((0, 2, 1, 3)), net.apply(ops.MatMul(), scores, parts[2]))
    mixed = net.apply(ops.Reshape((BATCH, tokens, channels)), mixed)
    y = net.apply(ops.Add(), y, net.build.linear(mixed, channels))
    if draw.chance(0.6):
        hidden = net.apply(ops.Gelu(), net.build.linear(y, channels * 2))
        y = net.apply(ops.Add(), y, net.build.linear(hidden, channels))
    y = net.apply(ops.Permute((0, 2, 1)), y)
    return net.apply(ops.Reshape((BATCH, channels, height, width)), y)


@block
def convnext(net: Net, x: Value) -> Value:
    """ConvNeXt's block, channels last inside."""
    channels = sizes(x)[1]
    y = net.conv(x, channels, 7, groups=channels, act=False, norm=False)
    y = net.apply(ops.Permute((0, 2, 3, 1)), net.fitted(y, x))
    weights = (net.build.weight(net.build.next_origin("ln"), channels) for _ in "wb")
    y = net.apply(ops.LayerNorm((3,), 1e-2), y, *weights)
    y = net.build.linear(net.apply(ops.Gelu(), net.build.linear(y, channels * 2)), channels)
    y = net.apply(ops.Permute((0, 3, 1, 2)), y)
    return net.apply(ops.Add(), x, y)


@block
def gated(net: Net, x: Value) -> Value:
    """A layer whose two halves meet again: one opens the other, or the larger one goes on."""
    half = net.draw.pick([4, 8, 16, 17, 32])
    y = net.conv(x, 2 * half, net.draw.pick([1, 3]), act=False)
    parts = [net.apply(ops.Slice(1, i * half, (i + 1) * half), y) for i in range(2)]
    if net.draw.chance(0.4):
        return net.apply(ops.Maximum(), *parts)
    return net.apply(ops.Mul(), parts[0], net.apply(ops.Sigmoid(), parts[1]))


@block
def many_branches(net: Net, x: Value) -> Value:
    """RepVGG's block as it is trained: 3x3, 1x1 and nothing, each with its batch norm, added."""
    channels = sizes(x)[1]
    groups = net.draw.pick([1, 1, channels])
    parts = []
    for size in net.draw.some([1, 3, 3, 5], 0.7) or [3]:
        pads = (size // 2,) * 4
        y = net.build.conv(x, channels, (size, size), padding=pads, groups=groups)
        parts.append(net.build.batch_norm(y))
    if net.draw.chance(0.6):
        parts.append(net.build.batch_norm(x) if net.draw.chance(0.7) else x)
    y = parts[0]
    for part in parts[1:]:
        y = net.apply(ops.Add(), y, part)
    return net.activation(y)


@block
def written_out(net: Net, x: Value) -> Value:
    """What some frameworks write: norms, swishes and means in many small ops."""
    channels = sizes(x)[1]
    match net.draw.integer(0, 4):
        case 4:  # a norm over any axes
            axes = tuple(net.draw.some([1, 2, 3], 0.6) or [1])
            y = x
            if net.draw.chance(0.5):
                y = net.apply(ops.Sub(), x, net.apply(ops.Mean(axes, keepdims=True), x))
            squares = net.apply(ops.Mean(axes, keepdims=True), net.apply(ops.Mul(), y, y))
            epsilon = net.apply(ops.Constant(0.05))
            root = net.apply(ops.Sqrt(), net.apply(ops.Add(), squares, epsilon))
            return net.apply(ops.Div(), y, root)
        case 0:  # a layer norm over channels, channels last
            y = net.apply(ops.Permute((0, 2, 3, 1)), x)
            mean = net.apply(ops.Mean((3,), keepdims=True), y)
            apart = net.apply(ops.Sub(), y, mean)
            squares = net.apply(ops.Mul(), apart, apart)
            variance = net.apply(ops.Mean((3,), keepdims=True), squares)
            epsilon = net.apply(ops.Constant(0.05))
            factor = net.apply(ops.Rsqrt(), net.apply(ops.Add(), variance, epsilon))
            y = net.apply(ops.Mul(), apart, factor)
            weight = net.build.weight(net.build.next_origin("ln"), channels, positive=True)
            y = net.apply(ops.Mul(), y, weight)
            return net.apply(ops.Permute((0, 3, 1, 2)), y)
        case 1:  # a swish
            return net.apply(ops.Mul(), x, net.apply(ops.Sigmoid(), x))
        case 2:  # a reduction and a slice of channels last
            y = net.apply(ops.Permute((0, 2, 3, 1)), x)
            axis = net.draw.pick([1, 2])
            mean = net.apply(ops.Mean((axis,), keepdims=True), y)
            y = net.apply(ops.Add(), net.apply(ops.Relu(), y), mean)
            return net.apply(ops.Permute((0, 3, 1, 2)), y)
    scale = net.build.weight(net.build.next_origin("scale"), channels, 1, 1, positive=True)
    y = net.conv(x, channels, 1, act=False, norm=False)  # a layer scale
    return net.apply(ops.Add(), x, net.apply(ops.Mul(), y, scale))


@block
def viewed(net: Net, x: Value) -> Value:
    """Any other block behind a view: repeated, turned round, or lines for columns."""
    draw, shape = net.draw, (BATCH, *sizes(x)[1:])
    axis = draw.pick([1, 2, 3])
    size = sizes(x)[axis]
    match draw.integer(0, 4):
        case 0:  # means, or one line or channel, as a whole map again
            axes = draw.some([1, 2, 3], 0.5) or [axis]
            thin = net.apply(ops.Mean(tuple(axes), keepdims=True), x)
            y = net.apply(ops.Expand(shape), thin)
        case 1:  # twice, side by side or number by number
            apart = [(1, size), (2, size)] if draw.chance(0.5) else [(size, 1), (size, 2)]
            steps = [(*shape[:axis], *a, *shape[axis + 1 :]) for a in (*apart, (2 * size,))]
            y = net.apply(ops.Expand(steps[1]), net.apply(ops.Reshape(steps[0]), x))
            y = net.apply(ops.Reshape(steps[2]), y)
        case 2:
            y = net.apply(ops.Permute((0, 1, 3, 2)), x)
        case 3:
            order = net.apply(ops.Constant(tuple(reversed(range(size))), "i64"))
            y = net.apply(ops.Gather(axis), x, order)
        case _:  # every other line or channel, from the second on
            y = net.apply(ops.Slice(axis, min(1, size - 1), size, 2), x)
    return BLOCKS[draw.pick(["norm", "written_out", "layer", "pool", "odds", "separable"])](net, y)


@block
def norm(net: Net, x: Value) -> Value:
    draw, channels = net.draw, sizes(x)[1]

    def weights(count: int) -> list[Value]:
        origin = net.build.next_origin("norm")
        return [net.build.weight(f"{origin}.{i}", channels, positive=True) for i in range(count)]

    match draw.integer(0, 4):
        case 0:
            return net.apply(ops.GroupNorm(draw.divisor(channels), 1e-1), x, *weights(2))
        case 1:
            return net.apply(ops.LayerNorm((1,), 1e-1), x, *weights(2))
        case 2:
            return net.apply(ops.RmsNorm((1,), 1e-1), x, *weights(1))
        case 3:  # of all of an image, or of some of its axes
            return net.apply(ops.LayerNorm(tuple(draw.some([1, 2, 3], 0.6) or [3]), 1e-1), x)
    return net.apply(ops.LocalResponseNorm(5, 0.1), x)


@block
def odds(net: Net, x: Value) -> Value:
    """What stands between layers now and then."""
    draw, (_, channels, height, width) = net.draw, sizes(x)
    match draw.integer(0, 6):
        case 0:
            slope = net.build.weight(net.build.next_origin("prelu"), channels, 1, 1, positive=True)
            return net.apply(ops.Prelu(), x, slope)
        case 1:
            mode = draw.pick(["constant", "reflect", "edge"])
            most = min(2, height - 1, width - 1)
            before, after = ((0, 0, draw.integer(0, most), draw.integer(0, most)) for _ in "ab")
            y = net.apply(ops.Pad(before, after, draw.pick([0.0, 0.0, 0.7, -1.0]), mode), x)
            if draw.chance(0.3):
                return net.apply(ops.MaxPool2d((2, 2), (1, 1)), y)
            return net.conv(y, net.channels(), draw.pick([1, 3]))
        case 2:
            order = tuple(draw.integer(0, channels - 1) for _ in range(channels))
            indices = net.apply(ops.Constant(order, "i64"))
            return net.apply(ops.Gather(1), x, indices)
        case 3:
            size = (draw.pick(SPATIAL), draw.pick(SPATIAL))
            return net.apply(ops.Resize(size, draw.pick(["nearest", "bilinear"])), x)
        case 4:
            number = net.apply(ops.Constant(draw.pick([0.5, -0.25, 1.5])))
            op = draw.pick([ops.Mul(), ops.Add(), ops.Sub(), ops.Maximum()])
            return net.apply(op, *draw.shuffled([x, number]))
        case 5:
            axis = draw.pick([2, 3])
            y = net.apply(ops.Mean((axis,), keepdims=True), x)
            return net.apply(ops.Mul(), x, net.apply(ops.Sigmoid(), y))
    y = net.apply(ops.Softmax(1), x)
    return net.apply(ops.Add(), x, y)


def head(net: Net, x: Value) -> Value:
    """What a network ends in: classes, probabilities, or a map."""
    draw = net.draw
    if draw.chance(0.25):
        return x
    y = net.apply(ops.Mean((2, 3)), x)
    if draw.chance(0.3):
        y = net.apply(ops.Relu(), net.build.linear(y, net.channels()))
    y = net.build.linear(y, draw.pick([1, 5, 10, 17, 100]), draw.chance(0.8))
    return net.apply(ops.Softmax(1), y) if draw.chance(0.3) else y


# -- networks -------------------------------------------------------------------------------------


def network(seed: int, least: int = 10, most: int = 40) -> NetworkCase:
    """The network of this seed, with `least` to about `most` nodes."""
    draw = Draw(seed)
    net = Net(draw)
    wanted = draw.integer(least, most - 6)
    x = net.build.input(draw.pick([1, 3, 3, 4, 8, 16]), draw.pick(SPATIAL), draw.pick(SPATIAL))
    net.branches.append(x)
    blocks = []
    while len(net.build.graph.nodes) < wanted:
        name = draw.pick(list(BLOCKS))
        blocks.append(name)
        x = BLOCKS[name](net, x)
        if min(sizes(x)[2:]) < 3:
            x = net.apply(ops.Resize((5, 6), "nearest"), x)
        if sizes(x)[1] * sizes(x)[2] * sizes(x)[3] > LARGEST or sizes(x)[1] > 130:
            x = net.conv(net.apply(ops.AdaptiveAvgPool2d((7, 5)), x), 16)
        net.branches.append(x)
    outputs = [head(net, x)]
    if draw.chance(0.2):
        outputs.append(draw.pick(net.branches[1:]))
    net.build.graph.set_outputs(outputs)
    batch = draw.pick([1, 1, 2, 2, 3, 4, 5, 9])
    return NetworkCase(
        seed,
        net.build.graph,
        [fill(draw, v.type.concrete(batch)) for v in net.build.graph.inputs],
        batch,
        disable=_disabled(draw),
        precision=draw.pick(["fast", "strict", "bf16"]),
        threads=draw.pick([2, 2, 2, 3]),
        forced=draw.chance(0.5),
        blocks=blocks,
    )


def _disabled(draw: Draw) -> tuple[str, ...]:
    """Passes to leave out: mostly none, else any of them, or all that may be."""
    if draw.chance(0.5):
        return ()
    if draw.chance(0.2):
        return OPTIONAL
    return tuple(draw.some(OPTIONAL, draw.pick([0.1, 0.3, 0.7])))


def choices(case: NetworkCase, fused: Graph, target: Target, batch: int) -> Schedule:
    """The schedule's own choices, or any legal ones: kernels, tiles and how the work is cut."""
    own = scheduled(fused, target, batch, case.precision)
    if not case.forced:
        return own
    draw = Draw(case.seed + 1)
    chosen = {}
    for node in scheduled_layers(fused):
        kernel = draw.pick(allowed_kernels(ConvShape.of(node, batch), case.precision))
        tiles = draw.pick([1, 2, 5, 12, 49]) if kernel.startswith("winograd") else 0
        split, rows = draw.pick(["auto", "auto", "rows", "panels"]), draw.pick([0, 0, 1, 7, 30])
        chunks = draw.pick([0, 0, 1, 2, 3])
        chosen[node.output.name] = Choice(kernel, tiles, split, rows, chunks)
    return Schedule(own.choices | chosen)
