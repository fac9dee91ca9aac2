"""Which kernel each layer gets: of those that may compute it the cheapest by the cost model.

A `Choice` settles what affects a sum (algorithm, tile blocks); it depends on the graph, the target,
the batch compiled for and the precision, never on the number of threads. How the tasks are split is
decided by the lowering for the team at hand, and changes no result.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass

from lucid.codegen.scheduling.conv_shape import (
    GROUPS,
    ConvShape,
    anchor_of,
    are_paired,
    convolutions,
    matrices,
)
from lucid.codegen.scheduling.cost_model import STRASSEN_PAIRS, cycles, tile_block
from lucid.codegen.scheduling.kernel_names import (
    BF16_SUFFIX,
    KERNELS,
    MATRIX_KERNELS,
    PARTS_SUFFIX,
    ROUNDING,
    algorithm_of,
)
from lucid.codegen.target import Target
from lucid.errors import ParseError, UnknownNameError
from lucid.ir.graph import Graph, Node
from lucid.ir.ops import Linear

SPLITS = ("auto", "rows", "panels")


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
        return algorithm_of(self.kernel)

    @property
    def rounds_to_bf16(self) -> bool:
        """Whether it multiplies floats rounded to bfloat16."""
        return self.kernel.endswith(BF16_SUFFIX)

    @property
    def takes_parts(self) -> bool:
        """Whether it multiplies floats as the sums of parts."""
        return self.kernel.endswith(PARTS_SUFFIX)

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


def legal_kernels(shape: ConvShape) -> list[str]:
    """The kernels that can compute this convolution, the plain ones first, those that round to
    bfloat16 last."""
    return exact_kernels(shape) + _variants(shape, BF16_SUFFIX)


def possible_kernels(shape: ConvShape) -> list[str]:
    """Those of `legal_kernels`, and the ones by parts."""
    return legal_kernels(shape) + _variants(shape, PARTS_SUFFIX)


def _variants(shape: ConvShape, suffix: str) -> list[str]:
    """The kernels that multiply floats as this suffix says: those of images, and not of vectors of
    groups."""
    kernels = exact_kernels(shape)
    if shape.integer or shape.slices or "depthwise" in kernels:
        return []
    return [k + suffix for k in kernels if k + suffix in KERNELS]


def exact_kernels(shape: ConvShape) -> list[str]:
    """Those of `legal_kernels` that multiply what they are given."""
    op = shape.op
    inner = shape.depth // max(1, shape.slices)
    alike = inner in (1, shape.group_columns) and shape.group_columns in GROUPS
    winograd = _winograd_kernels(shape)
    if alike and op.groups > 1:
        paired = are_paired(op.groups, shape.depth, shape.group_columns)
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
        meant = {p: kernel for p, kernel in forced.items() if _is_meant(node, shape, kernel)}
        kernel = _forced_kernel(node, shape, meant) or cheapest(shape, target, precision)
        # Those without a choice have the plain kernel; with bfloat16 another size might round.
        if kernel != "pointwise" or precision == "bf16":
            choices[node.output.name] = Choice(kernel)
    return Schedule(choices)


def _is_meant(node: Node, shape: ConvShape, kernel: str) -> bool:
    """Whether a kernel that is forced by a pattern is also for this linear layer: rows of images
    are multiplied as 1x1 convolutions are, of others only what can be."""
    rows = node.inputs[0].type.rank == 3
    return kernel in MATRIX_KERNELS and (rows or kernel in possible_kernels(shape))


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
    layers = [n for n in graph.nodes if isinstance(anchor_of(n), Linear)]
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
    kernels = legal_kernels(shape) if precision == "bf16" else exact_kernels(shape)
    rounds = precision == "strict" and not shape.integer
    return [n for n in kernels if not (rounds and n in ROUNDING)]


def modelled_kernels(shape: ConvShape, target: Target, precision: str) -> list[str]:
    """Those that the model may pick from: by parts where they were measured."""
    kernels = allowed_kernels(shape, precision)
    if not (target.tiles and target.costs.parts):
        return kernels
    return kernels + [k for k in possible_kernels(shape) if k.endswith(PARTS_SUFFIX)]


def cheapest(shape: ConvShape, target: Target, precision: str) -> str:
    """The kernel with the lowest modelled time among those of the model. By Strassen's products
    only layers of many rows gain, and convolutions where `Costs.strassen_convolutions` says so."""
    gains = shape.linear or target.costs.strassen_convolutions
    gains = gains and shape.pairs >= STRASSEN_PAIRS
    names = modelled_kernels(shape, target, precision)
    names = [n for n in names if gains or n != "strassen"]
    return min(names, key=lambda name: cycles(shape, name, target))
