"""`Maker`: what cases of one op are made with, whatever the op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from graph_builder import Builder, sizes

from lucid.ir import BATCH, Graph, Op, TensorType, Value, f32, ops
from lucid.ir.types import INTEGERS, NUMBERS

from .draw import BATCHES, Draw
from .values import KINDS, WILD, Array, fill, whole
from .views import behind

Make = Callable[["Maker"], Value | Sequence[Value]]
GENERATORS: dict[str, Make] = {}
"""By the op's name in IR text, what makes a case of it; see `generator` for elementwise ones."""


@dataclass
class OpCase:
    """A graph about one op, its inputs, and how it is compiled. `kernels`: forced, by origin."""

    name: str
    seed: int
    graph: Graph
    inputs: list[Array]
    batch: int
    kernels: dict[str, str] = field(default_factory=dict)


def makes(*names: str) -> Callable[[Make], Make]:
    def register(function: Make) -> Make:
        GENERATORS.update(dict.fromkeys(names, function))
        return function

    return register


class Maker:
    """A case being made: `op` is the name of the op wanted, `dtype` that of its operands."""

    def __init__(self, draw: Draw, op: str) -> None:
        self.draw, self.op = draw, op
        self.dtype = dtype_of(draw, ops.op_class(op))
        self.build = Builder(draw.seed)
        self.batch = draw.pick(BATCHES)
        self.kind = draw.pick(WILD if draw.chance(0.25) else KINDS)
        self.inputs: list[Array] = []
        self.kernels: dict[str, str] = {}

    # -- operands ---------------------------------------------------------------------------

    def array(
        self,
        *shape: int,
        batched: bool = True,
        kind: str | None = None,
        dtype: str | None = None,
    ) -> Value:
        """An operand (N, *shape), behind any chain of views."""
        place, steps = behind(self.draw, (*([BATCH] if batched else []), *shape))
        dtype = dtype or self.dtype
        x = self.build.graph.add_input(TensorType(dtype, place))
        sizes = x.type.concrete(self.batch)
        is_float = dtype == "f32"
        numbers = fill(self.draw, sizes, kind or self.kind) if is_float else None
        self.inputs.append(whole(self.draw, sizes, dtype) if numbers is None else numbers)
        for step in steps:
            x = step(self.build.apply, x)
        return x

    def image(self, channels: int | None = None, least: int = 1, kind: str | None = None) -> Value:
        """A map (N, C, H, W)."""
        channels = channels or self.draw.channels()
        return self.array(channels, *self.draw.image(channels, self.batch, least), kind=kind)

    def weight(self, *shape: int, positive: bool = False) -> Value:
        name = self.build.next_origin("weight")
        value = self.build.weight(name, *shape, positive=positive)
        if self.draw.chance(0.1):
            kind = self.draw.pick(["integers", "zeros", "wide"]) if not positive else "positive"
            self.build.payload[name] = fill(self.draw, shape, kind)
        return value

    def indices(self, size: int, *shape: int, batched: bool = True) -> Value:
        """An operand i64 (N, *shape) of indices along an axis."""
        kind = TensorType("i64", (*([BATCH] if batched else []), *shape))
        self.inputs.append(self.draw.arrays.integers(-size, size, kind.concrete(self.batch)))
        return self.build.graph.add_input(kind)

    def apply(self, op: Op, *operands: Value) -> Value:
        return self.build.apply(op, *operands, origin=self.build.next_origin(self.op))

    def apply_all(self, op: Op, *operands: Value) -> list[Value]:
        """The results of an op that has several."""
        origin = self.build.next_origin(self.op)
        return self.build.graph.append(op, operands, origin=origin).outputs

    # -- what follows -----------------------------------------------------------------------

    def followed(self, y: Value) -> Value:
        """What may be fused into the op: activations, an added or multiplied tensor."""
        draw = self.draw
        while y.type.dtype in INTEGERS and draw.chance(0.35):
            y = self._followed_by_whole(y)
        while y.type.dtype == "f32" and draw.chance(0.35):
            match draw.integer(0, 4):
                case 0 | 1:
                    y = self.apply(draw.pick(FOLLOWING), y)
                case 2 if y.type.rank > 1 and y.type.shape[0] == BATCH:
                    other = self.array(*sizes(y)[1:], dtype="f32")
                    pair = draw.shuffled([y, other])
                    y = self.apply(draw.pick([ops.Add(), ops.Add(), ops.Mul(), ops.Sub()]), *pair)
                case 3 if len(y.type.shape) == 4:
                    scale = self.weight(sizes(y)[1], 1, 1, positive=True)
                    y = self.apply(draw.pick([ops.Mul(), ops.Add()]), y, scale)
                case 4:
                    number = self.apply(ops.Constant(draw.pick([0.5, -1.25, 3.0])))
                    y = self.apply(draw.pick([ops.Mul(), ops.Add(), ops.Maximum()]), y, number)
        return y

    def _followed_by_whole(self, y: Value) -> Value:
        """What may be fused into an op of integers, a cast to floats at times."""
        draw, dtype = self.draw, y.type.dtype
        match draw.integer(0, 4):
            case 0 if draw.chance(0.5):
                return self.apply(ops.Cast("f32"), y)
            case 1:
                return self.apply(draw.pick(FOLLOWING_WHOLE), y)
            case 2 if y.type.rank > 1 and y.type.shape[0] == BATCH:
                other = self.array(*sizes(y)[1:], dtype=dtype)
                return self.apply(draw.pick(PAIRS), *draw.shuffled([y, other]))
        return self.apply(draw.pick(PAIRS), *draw.shuffled([y, self.number(dtype)]))

    def number(self, dtype: str) -> Value:
        """An integer as a constant."""
        return self.apply(ops.Constant(whole(self.draw, (), dtype).item(), dtype))

    def finish(self, made: Value | Sequence[Value]) -> OpCase:
        outputs = [made] if isinstance(made, Value) else list(made)
        producer = outputs[0].producer
        if self.draw.chance(0.1) and producer is not None and producer.inputs:
            first = producer.inputs[0]
            if first.producer is not None and first.type.dtype in NUMBERS:
                outputs.append(first)
        self.build.graph.set_outputs(outputs)
        if all(BATCH not in v.type.shape for v in self.build.graph.inputs):  # nobody says how large
            self.build.graph.add_input(f32(BATCH))
            self.inputs.append(np.zeros(self.batch, np.float32))
        case = OpCase(self.op, self.draw.seed, self.build.graph, self.inputs, self.batch)
        case.kernels = self.kernels
        return case


FOLLOWING: list[Op] = [
    *(ops.Relu(), ops.Clip(0, 6), ops.Silu(), ops.Sigmoid(), ops.Hardswish(), ops.Gelu()),
    *(ops.Tanh(), ops.LeakyRelu(0.1), ops.Abs(), ops.Neg()),
]

FOLLOWING_WHOLE: list[Op] = [ops.Neg(), ops.Abs(), ops.Sign(), ops.BitwiseNot()]
PAIRS: list[Op] = [
    *(ops.Add(), ops.Sub(), ops.Mul(), ops.Maximum(), ops.BitwiseXor(), ops.Div(), ops.Mod()),
    *(ops.ShiftLeft(), ops.ShiftRight(), ops.Pow()),
]
MOVING = (ops.Reshape, ops.Permute, ops.Concat, ops.Slice, ops.Expand, ops.Pad, ops.Gather)


def dtype_of(draw: Draw, cls: type[Op]) -> str:
    """One that an op takes: float32, where it does, more often than all others together."""
    taken = NUMBERS if issubclass(cls, (*MOVING, ops.Where)) else cls.takes
    if "f32" in taken and (len(taken) == 1 or draw.chance(0.65)):
        return "f32"
    return draw.pick([name for name in taken if name != "f32"])


def drawn_window(make: Maker, x: Value, kernels: list[int], dilations: list[int]) -> dict[str, Any]:
    """Kernel, stride, dilation and paddings that leave at least one window."""
    draw = make.draw
    fields: dict[str, list[int]] = {"kernel": [], "stride": [], "dilation": []}
    before, after = [], []
    for size in sizes(x)[2:]:
        kernel, dilation = draw.pick(kernels), draw.pick(dilations)
        reach = dilation * (kernel - 1) + 1
        same = draw.chance(0.4)
        pads = [reach // 2] * 2 if same else [draw.integer(0, reach - 1) for _ in range(2)]
        lacking = reach - size - sum(pads)
        pads[1] += max(0, lacking)
        before.append(pads[0])
        after.append(pads[1])
        fields["kernel"].append(kernel)
        fields["stride"].append(draw.pick([1, 1, 1, 2, 2, 3, 5]))
        fields["dilation"].append(dilation)
    window: dict[str, Any] = {name: tuple(value) for name, value in fields.items()}
    return window | {"padding": (*before, *after)}
