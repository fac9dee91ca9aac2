"""Which kernel each layer gets, and in what blocks: a cost model over `Target` alone.

A `Choice` settles what affects a sum (algorithm, tile blocks); it depends on the graph, the target,
the batch compiled for and the precision, never on the number of threads. How the tasks are split is
decided by the lowering for the team at hand, and changes no result.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from lucid.codegen.costs import Transforms
from lucid.codegen.kernels.accumulation import SHORT
from lucid.codegen.kernels.live_taps import SPARSE, AxisWindows, sparse_share
from lucid.codegen.kernels.matrix_tile import PARTS
from lucid.codegen.kernels.microkernels import panel_vectors, tile_target
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.scheduling.planes import Plane
from lucid.codegen.target import Target
from lucid.errors import ParseError, UnknownNameError
from lucid.ir.graph import Graph, Node
from lucid.ir.ops import Conv2d, Convolution, Fusion, IntegerConv2d, Linear, Op
from lucid.ir.types import TensorType

BRAINS = "_bf16"
"""How kernels that multiply floats rounded to bfloat16 are named, after those of float32."""
BY_PARTS = "_parts"
"""How kernels are named that multiply floats as the sums of bfloat16 parts, by tiles of matrices.
Where the target has none they are those of float32."""
BY_ROWS = ("pointwise", "direct")
KERNELS = (
    *(*BY_ROWS, "winograd2x2", "winograd4x4", "depthwise", "strassen"),
    *(kernel + BRAINS for kernel in (*BY_ROWS, "winograd2x2")),
    *(kernel + BY_PARTS for kernel in BY_ROWS),
)
"""The names by which kernels of convolutions are chosen and forced."""
MATRIX_KERNELS = ("pointwise", "strassen", "pointwise" + BRAINS, "pointwise" + BY_PARTS)
"""Those that linear layers may have."""

GROUPS = (1, 2, 4, 8)
"""Channels of a group that the depthwise kernel makes, of as many or of one."""

PAIRED = 8
"""Channels of groups, as many as a vector of AVX2 has, whose products Winograd takes in pairs of
groups, half of them with zeros: 256 channels at 28x28 take 0.45 ms by F(4x4) so, and 0.77 as
vectors. Groups of four at 56x56 would take 1.0, and take 0.55 as vectors."""

ROUNDING = ("winograd4x4", "strassen")
"""Those whose sums round more than direct ones."""

SPLITS = ("auto", "rows", "panels")

LEAST_TILES = 12
"""Tiles below which a block's products are too few for the weights it reads."""
STREAMED = 4
"""Weights so many times as large as L2 are read anew for every block, and larger blocks are worth
more than that theirs fit: 2048 to 512 channels at 65x65, with L2 of 2 MB, take 141 ms in blocks of
12 tiles, 94 of 25, 66 of 49 and 59 of 145, which need 50 MB of scratch a thread."""
FEW_TASKS = 4
"""Tasks a layer should have where its weights are small enough to be read once more for each."""


@dataclass(frozen=True)
class Choice:
    """How one convolution is computed, and how its work is cut.

    `tiles`: output tiles in a Winograd block. The rest changes no result, and where it is 0 or
    "auto" the lowering decides for the team at hand: `split` a product's "rows" or "panels", `rows`
    in a block, `chunks` of weight panels.
    """

    kernel: str
    tiles: int = 0
    split: str = "auto"
    rows: int = 0
    chunks: int = 0

    @property
    def algorithm(self) -> str:
        """The kernel, whatever numbers it multiplies."""
        return self.kernel.removesuffix(BRAINS).removesuffix(BY_PARTS)

    @property
    def rounds_to_brains(self) -> bool:
        """Whether it multiplies floats rounded to bfloat16."""
        return self.kernel.endswith(BRAINS)

    @property
    def takes_parts(self) -> bool:
        """Whether it multiplies floats as the sums of parts."""
        return self.kernel.endswith(BY_PARTS)

    def on(self, target: Target) -> Choice:
        """The choice as this target carries it out."""
        if target.tiles or not self.takes_parts:
            return self
        return dataclasses.replace(self, kernel=self.algorithm)


@dataclass(frozen=True)
class Schedule:
    """The choices for a graph, by the name of the convolution's result."""

    choices: Mapping[str, Choice]

    def to_json(self) -> str:
        rows = {name: dataclasses.asdict(c) for name, c in self.choices.items()}
        return json.dumps(rows, indent=1)

    @staticmethod
    def from_json(text: str) -> Schedule:
        """The inverse of `to_json`. Raises ParseError."""
        try:
            rows = json.loads(text)
            choices = {name: Choice(**row) for name, row in rows.items()}
        except (ValueError, TypeError, AttributeError) as problem:
            raise ParseError(f"this is not a schedule: {problem}") from problem
        for name, choice in choices.items():
            if choice.kernel not in KERNELS:
                raise ParseError(f"{name}: no kernel is named {choice.kernel!r}")
            if choice.split not in SPLITS:
                raise ParseError(f"{name}: a split is one of {SPLITS}, not {choice.split!r}")
            counts = (choice.tiles, choice.rows, choice.chunks)
            if not all(isinstance(n, int) and n >= 0 for n in counts):
                raise ParseError(f"{name}: tiles, rows and chunks are counts, not {counts}")
        return Schedule(choices)


@dataclass(frozen=True)
class ConvShape:
    """A convolution in numbers; sizes are those of the batch and image compiled for, and of images
    where it is over one or three axes (`Plane`). `slices`: its input channels are those of so many
    slices of a volume; 0 where they are an image's own. `integer`: whether integers are summed up,
    which kernels multiply as pairs of 16-bit ones. `linear`: whether it is a linear layer: over the
    rows of images, which are then one pixel wide, or of other rank, one pixel high."""

    batch: int
    channels: int
    columns: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    op: Conv2d
    itemsize: int  # bytes of a number, in maps and weights
    slices: int = 0
    integer: bool = False
    linear: bool = False

    @property
    def depth(self) -> int:
        """Input channels of a group."""
        return self.channels // self.op.groups

    @property
    def group_columns(self) -> int:
        return self.columns // self.op.groups

    @property
    def products(self) -> int:
        """Multiply-adds of the direct sum."""
        taps = self.kernel[0] * self.kernel[1]
        pixels = self.batch * self.out_height * self.out_width
        return pixels * self.columns * self.depth * taps

    @property
    def map_bytes(self) -> int:
        """About what the input takes, of one image."""
        pixels = self.out_height * self.out_width * math.prod(self.op.stride)
        return self.itemsize * self.channels * pixels

    @property
    def live_taps(self) -> float:
        """The share of the windows' taps that the direct kernel has to compute: those of far
        dilated windows on small maps mostly meet padding."""
        op, size = self.op, (self.out_height, self.out_width)
        axes = []
        for i in (0, 1):
            reach = (self.kernel[i] - 1) * op.dilation[i] + 1
            pixels = (size[i] - 1) * op.stride[i] + reach - op.padding[i] - op.padding[2 + i]
            fields = op.stride[i], op.padding[i], op.dilation[i], self.kernel[i], pixels
            axes.append(AxisWindows(size[i], *fields))
        share = sparse_share(*axes)
        return share if share < SPARSE else 1.0

    @property
    def is_halved(self) -> bool:
        """Whether the weights of a 1x1 layer of floats are a matrix of 2 by 2 quarters."""
        even = self.channels % 2 == 0 and self.columns % 2 == 0
        rows = not self.linear or (self.out_width == 1 < self.out_height)
        return even and rows and self.op.groups == 1 and not self.integer

    @property
    def pairs(self) -> int:
        """Strassen's pairs of rows."""
        return self.batch * -(-self.out_height * self.out_width // 2)

    def together(self, target: Target) -> ConvShape:
        """The convolution as Winograd's products take it."""
        count = groups_together(self.op.groups, self.depth, self.group_columns, target)
        if count == 1 or self.integer or self.slices:
            return self
        groups = self.op.groups // count
        return dataclasses.replace(self, op=dataclasses.replace(self.op, groups=groups))

    def tiles(self, m: int) -> int:
        """Winograd's tiles of m x m outputs in an image."""
        phase = phase_tiles((self.out_height, self.out_width), self.op.dilation, m)
        return math.prod(phase) * math.prod(self.op.dilation)

    @staticmethod
    def of(node: Node, batch: int) -> ConvShape:
        op = _anchor(node)
        if isinstance(op, Linear):
            return ConvShape._of_linear(node, batch)
        integer = isinstance(op, IntegerConv2d)
        op = op.of_floats() if isinstance(op, IntegerConv2d) else op
        assert isinstance(op, Convolution)
        x, weight, y = (v.type.concrete(batch) for v in (*node.inputs[:2], node.output))
        plane = Plane.of(op, x, weight, y)
        columns, depth, *kernel = plane.weight
        n, _, height, width = plane.y
        itemsize = dtype("i16" if integer else node.inputs[0].type.dtype).bytes
        sizes, channels = (kernel[0], kernel[1]), depth * op.groups
        slices = 0 if plane.slices is None else plane.slices.taps
        numbers = (n, channels, columns, height, width)
        return ConvShape(*numbers, sizes, plane.op, itemsize, slices, integer)

    @staticmethod
    def _of_linear(node: Node, batch: int) -> ConvShape:
        x, weight = (v.type.concrete(batch) for v in node.inputs[:2])
        size = (x[1], 1) if len(x) == 3 else (1, math.prod(x[1:-1]))
        numbers = (x[0], x[-1], weight[0], *size)
        itemsize = dtype(node.inputs[0].type.dtype).bytes
        return ConvShape(*numbers, (1, 1), Conv2d(), itemsize, linear=True)


def groups_together(groups: int, depth: int, columns: int, target: Target) -> int:
    """How many of a convolution's groups of floats are one of Winograd's."""
    return 2 if _are_paired(groups, depth, columns) and target.vector == PAIRED else 1


def _are_paired(groups: int, depth: int, columns: int) -> bool:
    return depth == columns == PAIRED and groups % 2 == 0


def phase_tiles(size: tuple[int, int], dilation: tuple[int, int], m: int) -> tuple[int, int]:
    """Winograd's tiles in the height and width of a phase: outputs whose dilated windows meet the
    same pixels, one in so many lines and columns."""
    height, width = (-(-s // d) for s, d in zip(size, dilation, strict=True))
    return -(-height // m), -(-width // m)


def convolutions(graph: Graph) -> list[Node]:
    """The convolution nodes of a graph, fused or not."""
    return [n for n in graph.nodes if isinstance(_anchor(n), Convolution | IntegerConv2d)]


def matrices(graph: Graph) -> list[Node]:
    """The linear layers of floats over features or rows of images (N, ..., channels), fused or
    not."""
    found = [n for n in graph.nodes if type(_anchor(n)) is Linear]
    return [n for n in found if _is_matrix(n.inputs[0].type)]


def _anchor(node: Node) -> Op:
    return node.op.anchor if isinstance(node.op, Fusion) else node.op


def scheduled_layers(graph: Graph) -> list[Node]:
    """The nodes that a schedule may have a choice for."""
    return [*convolutions(graph), *matrices(graph)]


def _is_matrix(x: TensorType) -> bool:
    """Whether the axes between count what belongs to one image, whatever the batch."""
    inner = all(isinstance(size, int) for size in x.shape[1:-1])
    return x.rank >= 2 and inner and x.dtype == COMPUTED


def legal_kernels(shape: ConvShape) -> list[str]:
    """The kernels that can compute this convolution, the plain ones first, those that round to
    bfloat16 last."""
    kernels = _exact_kernels(shape)
    if shape.integer or shape.slices or "depthwise" in kernels:
        return kernels
    return kernels + [k + BRAINS for k in kernels if k + BRAINS in KERNELS]


def possible_kernels(shape: ConvShape) -> list[str]:
    """Those of `legal_kernels`, and the ones by parts."""
    kernels = legal_kernels(shape)
    if shape.integer or shape.slices or "depthwise" in kernels:
        return kernels
    return kernels + [k + BY_PARTS for k in kernels if k in BY_ROWS]


def _exact_kernels(shape: ConvShape) -> list[str]:
    """Those of `legal_kernels` that multiply what they are given."""
    op = shape.op
    inner = shape.depth // max(1, shape.slices)
    alike = inner in (1, shape.group_columns) and shape.group_columns in GROUPS
    winograd = _winograd_kernels(shape)
    if alike and op.groups > 1:
        paired = _are_paired(op.groups, shape.depth, shape.group_columns)
        floats = not (shape.integer or shape.slices)
        return ["depthwise", "direct", *(winograd if paired and floats else [])]
    plain = op.padding == (0, 0, 0, 0) and (shape.integer or op.stride == (1, 1))
    if shape.kernel == (1, 1) and plain and not shape.slices:
        halved = ["strassen"] if shape.is_halved else []
        return ["pointwise", *([] if shape.linear else ["direct"]), *halved]
    return ["direct", *winograd]


def _winograd_kernels(shape: ConvShape) -> list[str]:
    op = shape.op
    phased = all(p % d == 0 for p, d in zip(op.padding, op.dilation * 2, strict=True))
    if shape.kernel == (3, 3) and op.stride == (1, 1) and phased:
        return ["winograd2x2", "winograd4x4"]
    return []


def schedule(
    graph: Graph,
    target: Target,
    batch: int,
    precision: str = "fast",
    forced: Mapping[str, str] | None = None,
) -> Schedule:
    """A choice for every convolution. `forced`: kernel names by patterns over origins.

    Raises UnknownNameError for a forced kernel that does not exist or cannot compute the layer.
    """
    choices = {}
    forced = forced or {}
    _check_forced(graph, forced)
    for node in convolutions(graph):
        shape = ConvShape.of(node, batch)
        kernel = _forced_kernel(node, shape, forced) or cheapest(shape, target, precision)
        choices[node.output.name] = Choice(kernel, tile_block(shape, kernel, target))
    for node in matrices(graph):
        shape = ConvShape.of(node, batch)
        meant = {p: kernel for p, kernel in forced.items() if kernel in MATRIX_KERNELS}
        kernel = _forced_kernel(node, shape, meant) or cheapest(shape, target, precision)
        if kernel != "pointwise":  # which those without a choice have
            choices[node.output.name] = Choice(kernel)
    return Schedule(choices)


def without_choice(chosen: Schedule, graph: Graph, batch: int) -> list[str]:
    """The results of layers for which there is no choice but should be one, or one that cannot
    compute them."""
    missing = [
        n.output.name
        for n in convolutions(graph)
        if (choice := chosen.choices.get(n.output.name)) is None
        or choice.kernel not in possible_kernels(ConvShape.of(n, batch))
    ]
    return missing + [n.output.name for n in _misfits(chosen, graph, batch)]


def _misfits(chosen: Schedule, graph: Graph, batch: int) -> list[Node]:
    """The linear layers that the choice for them cannot compute."""
    fitting = {n: possible_kernels(ConvShape.of(n, batch)) for n in matrices(graph)}
    layers = [n for n in graph.nodes if isinstance(_anchor(n), Linear)]
    choices = ((n, chosen.choices.get(n.output.name)) for n in layers)
    return [n for n, choice in choices if choice and choice.kernel not in fitting.get(n, ())]


def check_schedule(chosen: Schedule, graph: Graph, batch: int) -> None:
    """Every convolution has a choice, and one that can compute it. Raises UnknownNameError."""
    for node in convolutions(graph):
        layer = f"{node.output.name} ({node.origin})"
        choice = chosen.choices.get(node.output.name)
        if choice is None:
            raise UnknownNameError(f"the schedule has nothing for {layer}: it is another model's")
        legal = possible_kernels(ConvShape.of(node, batch))
        if choice.kernel not in legal:
            raise UnknownNameError(
                f"kernel {choice.kernel!r} cannot compute {layer}: it may have {', '.join(legal)}"
            )
        if choice.kernel.startswith("winograd") and not choice.tiles:
            raise UnknownNameError(f"the schedule gives no tiles for {layer}, {choice.kernel}")
    for node in _misfits(chosen, graph, batch):
        kernel = chosen.choices[node.output.name].kernel
        raise UnknownNameError(
            f"kernel {kernel!r} cannot compute the linear layer {node.output.name} ({node.origin})"
        )


def _check_forced(graph: Graph, forced: Mapping[str, str]) -> None:
    """Every kernel has a known name, and every pattern names a layer. Raises UnknownNameError."""
    convolved = {n.origin for n in convolutions(graph)}
    multiplied = convolved | {n.origin for n in matrices(graph)}
    for pattern, kernel in forced.items():
        if kernel not in KERNELS:
            raise UnknownNameError(f"no kernel is named {kernel!r}; there are {', '.join(KERNELS)}")
        origins = sorted(multiplied if kernel in MATRIX_KERNELS else convolved)
        if not fnmatch.filter(origins, pattern):
            close = difflib.get_close_matches(pattern, origins) or origins[:3]
            raise UnknownNameError(
                f"no convolution lies at {pattern!r}; there are {', '.join(close)}, ..."
            )


def _forced_kernel(node: Node, shape: ConvShape, forced: Mapping[str, str]) -> str | None:
    for pattern, kernel in forced.items():
        if not fnmatch.fnmatchcase(node.origin, pattern):
            continue
        legal = possible_kernels(shape)
        if kernel not in legal:
            raise UnknownNameError(
                f"kernel {kernel!r} cannot compute {node.origin}: it may have {', '.join(legal)}"
            )
        return kernel
    return None


def allowed_kernels(shape: ConvShape, precision: str) -> list[str]:
    """The kernels that model and tuner may pick from: `strict` precision leaves out F(4x4) of
    floats, and Strassen's products; bfloat16 is for the precision of that name."""
    kernels = legal_kernels(shape) if precision == "bf16" else _exact_kernels(shape)
    rounds = precision == "strict" and not shape.integer
    return [n for n in kernels if not (rounds and n in ROUNDING)]


def modelled_kernels(shape: ConvShape, target: Target, precision: str) -> list[str]:
    """Those that the model may pick from: by parts where they were measured."""
    kernels = allowed_kernels(shape, precision)
    if not (target.tiles and target.costs.parts):
        return kernels
    return kernels + [k for k in possible_kernels(shape) if k.endswith(BY_PARTS)]


def cheapest(shape: ConvShape, target: Target, precision: str) -> str:
    """The kernel with the lowest modelled time among those of the model. By Strassen's products
    only linear layers of many rows are certain to gain."""
    gains = shape.linear or target.costs.strassen_convolutions
    gains = gains and shape.pairs >= STRASSEN_PAIRS
    names = modelled_kernels(shape, target, precision)
    names = [n for n in names if gains or n != "strassen"]
    return min(names, key=lambda name: cycles(shape, name, target))


GROUP_SHARE = {"depthwise": 0.38, "direct": 0.34}
"""Shares of the peak that groups reach which fill a vector of AVX2: 256 channels in groups of 8 at
28x28 take 0.77 ms as vectors, each of which is broadcast lane by lane, and 0.87 over windows, by
tiles of one vector; with stride 2 0.63 and 0.80."""
LARGE_MAP, LARGE_SHARE = 8 << 20, 0.3
"""Bytes of a map from which on vectors of such groups with a stride wait for memory, and a share
that is less than windows': with stride 2, 256 channels at 112x112 take 7.1 ms as vectors and 5.6
over windows, 384 9.7 and 6.6; but 128 take 1.8 and 1.7, 512 at 56x56 2.8 and 3.2, 256 1.0 and
1.1."""


PAIRS_RATE = 1.5
"""Multiply-adds of pairs of integers in the time of one of floats: register tiles of 6 by 16 with
operands in cache do 74 thousand million a second, and 48 of floats (AVX2, Zen 3)."""


INTEGER_TRANSFORMS = {4: Transforms(72, 165), 2: Transforms(35, 35)}
"""Those of integers, twice as many of which are a vector of input channels: 64 to 64 channels at
56x56 take 0.65 ms by F(4x4), 0.11 of it for transforms."""


def cycles(shape: ConvShape, kernel: str, target: Target) -> float:
    """Modelled time on one core, in cycles: products at peak, transforms, weights from memory."""
    costs = target.costs
    if kernel.endswith(BRAINS):
        halved = dataclasses.replace(shape, itemsize=BRAIN_BYTES)
        algorithm = kernel.removesuffix(BRAINS)
        return _cycles(halved, algorithm, target, costs.brains) + _rounding(shape, target)
    if kernel.endswith(BY_PARTS):
        parted = dataclasses.replace(shape, itemsize=PARTS * BRAIN_BYTES)
        algorithm, faster = kernel.removesuffix(BY_PARTS), costs.parts or 1.0
        return _cycles(parted, algorithm, target, faster) + PARTS * _rounding(shape, target)
    return _cycles(shape, kernel, target, PAIRS_RATE if shape.integer else 1.0)


def _cycles(shape: ConvShape, kernel: str, target: Target, faster: float) -> float:
    """Those of a kernel that does so many multiply-adds in the time of one of floats."""
    costs = target.costs
    rate = costs.multiply_adds * target.vector * faster  # multiply-adds a cycle
    filled = shape.group_columns == shape.depth == target.vector == PAIRED and shape.op.groups > 1
    if filled and kernel in GROUP_SHARE and not shape.integer:
        large = shape.op.stride != (1, 1) and shape.map_bytes > LARGE_MAP
        waits = kernel == "depthwise" and large
        return shape.products / ((LARGE_SHARE if waits else GROUP_SHARE[kernel]) * rate)
    if kernel == "depthwise":
        return shape.products / (costs.products * rate)
    shape = shape.together(target) if kernel.startswith("winograd") else shape
    if kernel == "strassen":
        return _strassen_cycles(shape, target)
    if not kernel.startswith("winograd"):
        return _products_cycles(shape, kernel, target, rate)
    inputs, outputs = (-(-n // target.vector) for n in (shape.depth, shape.group_columns))
    m = int(kernel[-1])
    points = (m + 2) ** 2
    tiles, lanes = shape.batch * shape.tiles(m), _lanes(shape, target)
    products = tiles * points * shape.columns * shape.depth * lanes / (costs.winograd * rate)
    each = INTEGER_TRANSFORMS[m] if shape.integer else costs.transforms(m)
    transforms = tiles * shape.op.groups * (inputs * each.input + outputs * each.output)
    weights = shape.itemsize * points * shape.columns * shape.depth / costs.streamed
    return max(products, weights) + transforms


def _lanes(shape: ConvShape, target: Target) -> float:
    """What register tiles compute for each column of a group."""
    vectors = -(-shape.group_columns // target.vector)
    return vectors * target.vector / shape.group_columns


def _lanes_of_rows(shape: ConvShape, target: Target) -> float:
    """The same of rows and windows."""
    if shape.integer:
        return _lanes(shape, target)
    return _lanes(shape, tile_target(shape.group_columns, target))


def _products_cycles(shape: ConvShape, kernel: str, target: Target, rate: float) -> float:
    """Of `cycles`: products of rows or windows, at most so many a cycle, by weights that come from
    memory once."""
    costs = target.costs
    size = shape.columns * shape.depth * shape.kernel[0] * shape.kernel[1]
    share = costs.products
    if kernel == "direct":
        short = shape.depth * shape.kernel[1] <= SHORT
        share = (costs.short if short else costs.direct) / shape.live_taps
    products = shape.products * _lanes_of_rows(shape, target) / (share * rate)
    return max(products, shape.itemsize * size / costs.streamed)


BRAIN_BYTES = dtype("bf16").bytes
ROUNDED = 3.0
"""Cycles to round a vector of floats to bfloat16 and write it down."""


def _rounding(shape: ConvShape, target: Target) -> float:
    """Cycles to round what a convolution reads of its map."""
    pixels = shape.batch * shape.out_height * shape.out_width
    if shape.kernel != (1, 1):
        pixels *= math.prod(shape.op.stride)
    return ROUNDED * pixels * shape.channels / target.vector


STRASSEN_MARGIN = 1.02
"""What it should gain, as it takes memory for the sums of rows, and rounds more."""
STRASSEN_PAIRS = 48
"""Pairs below which the sums of weights, which the first of their row groups makes, are too large a
part: 49 rows, 2048 to 512 channels, take 1.24 ms as a plain product and 1.45 so."""


def _strassen_cycles(shape: ConvShape, target: Target) -> float:
    """Of `cycles`: seven products in place of eight, and the sums."""
    inputs, columns = -(-shape.channels // 2 // target.vector), -(-shape.columns // 2)
    vectors = panel_vectors(columns, target, even=True)
    panels = -(-columns // (vectors * target.vector))
    outputs = vectors * (panels + panels % 2)  # two threads take as long for one more
    costs = target.costs
    rate = costs.products * costs.multiply_adds * target.vector
    products = 7 * shape.pairs * shape.channels / 2 * outputs * target.vector / rate
    weights = shape.itemsize * shape.columns * shape.channels / costs.streamed
    sums = shape.pairs * (costs.strassen.input * inputs + costs.strassen.output * outputs)
    return STRASSEN_MARGIN * (max(products, weights) + sums)


def tile_block(shape: ConvShape, kernel: str, target: Target) -> int:
    """Tiles in a Winograd block: even blocks of an image, or several whole images."""
    if not kernel.startswith("winograd"):
        return 0
    m, shape = int(kernel.removesuffix(BRAINS)[-1]), shape.together(target)
    tiles = shape.tiles(m)
    panel = target.panel_vectors * target.vector
    bytes_per_tile = shape.itemsize * (m + 2) ** 2 * (shape.depth + panel)
    most = max(LEAST_TILES, min(target.costs.tiles, target.l2 // bytes_per_tile))
    weights = shape.itemsize * (m + 2) ** 2 * shape.columns * shape.depth
    if weights > STREAMED * target.l2:
        most = target.costs.tiles
    several = -(-FEW_TASKS // shape.op.groups) if weights <= target.l2 // 2 else 1
    several = min(several, tiles // LEAST_TILES)
    if tiles < most and several < 2:
        return tiles * max(1, most // max(1, tiles))
    blocks = max(-(-tiles // most), several)
    if blocks == 2 > several and tiles * bytes_per_tile <= 2 * target.l2:
        blocks = 1  # to read the weights once is worth a working set of twice L2
    elif blocks > 2:
        blocks += blocks % 2  # as much for one of two threads as for the other
    return -(-tiles // blocks)
