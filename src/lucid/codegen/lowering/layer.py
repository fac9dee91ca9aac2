"""A convolution or linear layer about to be lowered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lucid.codegen.kernels.arithmetic import ARITHMETIC, Arithmetic
from lucid.codegen.kernels.matrix_tile import PARTS
from lucid.codegen.kernels.packing import Packing, PairPanels, Panels, QuadPanels
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.lowering.epilogue import Epilogue
from lucid.codegen.scheduling.planes import Slices
from lucid.codegen.scheduling.schedule import Choice
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import Conv2d, IntegerConv2d, IntegerProduct, Op, SplitAttention

POINTWISE = Choice("pointwise")


@dataclass
class Layer:
    """Anchor, operands, epilogue and result, and how the schedule wants it computed.

    `slices`: of which slices of volumes the input channels are, where they are of several.
    `as_bytes`: whether bytes are multiplied as they are, not as 16-bit integers.
    """

    op: Op
    x: Value
    weight: Parameter
    bias: Parameter | None
    result: Value
    origin: str
    epilogue: Epilogue = field(default_factory=Epilogue)
    choice: Choice = POINTWISE
    slices: Slices | None = None
    as_bytes: bool = False

    @property
    def conv(self) -> Conv2d:
        """The convolution of images that it is, of floats or of integers."""
        op = self.op.of_floats() if isinstance(self.op, IntegerConv2d) else self.op
        assert isinstance(op, Conv2d)
        return op

    @property
    def is_integer(self) -> bool:
        """Whether it sums up integers; its body then reads and makes numbers of any dtype."""
        return isinstance(self.op, IntegerProduct)

    @property
    def zero_point(self) -> int:
        """What x holds for 0."""
        return self.op.zero_point if isinstance(self.op, IntegerProduct) else 0

    @property
    def numbers(self) -> str:
        """The dtype of the panels that register tiles multiply."""
        if self.choice.rounds_to_bf16 or self.choice.takes_parts:
            return "bf16"
        if self.as_bytes:
            return "i8"
        return "i16" if self.is_integer else COMPUTED

    @property
    def parts(self) -> int:
        """As how many numbers of those a number of the weights is packed."""
        return PARTS if self.choice.takes_parts else 1

    @property
    def arithmetic(self) -> Arithmetic:
        """How register tiles multiply them."""
        return ARITHMETIC[self.numbers]

    def panels(self, groups: int, width: int, segments: int = 1) -> Packing:
        """How the weights are packed for rows of so many segments."""
        if self.numbers == COMPUTED:
            return Panels(groups, width)
        packing = QuadPanels if self.as_bytes else PairPanels
        return packing(groups, width, segments)

    def by_tap(self, shape: tuple[int, ...]) -> tuple[Parameter, tuple[int, ...]]:
        """The weights with all taps of a channel behind each other, and their shape so; `shape`:
        that of `weight`."""
        return self.weight, shape

    def append(self, region: Graph, x: Value, tensors: Sequence[Value]) -> Value:
        """The layer in a region, from its input and the tensors its body reads."""
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        own = [region.add_parameter(p.name, p.recipe) for p in parameters]
        node = region.append(self.op, [x, *own], origin=self.origin)
        return self.epilogue.append(region, node.output, tensors)


def feeds_attention(layer: Layer) -> bool:
    """Whether a split attention reads the result, and so its channel sums."""
    result = layer.result
    return any(isinstance(u.op, SplitAttention) and u.inputs[0] is result for u in result.users)
