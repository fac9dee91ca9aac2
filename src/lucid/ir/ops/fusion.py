"""A region: one anchor op, and the elementwise ops that its kernel inlines into its epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.cast import Cast
from lucid.ir.ops.constant import Constant
from lucid.ir.ops.elementwise import Elementwise
from lucid.ir.types import TensorType, held

if TYPE_CHECKING:  # graphs hold ops, and import them
    from lucid.ir.graph import Graph, Value


@op("fusion")
class Fusion(Op):
    """y = body(anchor(anchor's operands), extras).

    Operands: the anchor's (a bias among them), then the extras (a residual, a scale by channel).
    `body`: a graph whose inputs are the anchor's result and the extras in order, with one output
    of the shape of the anchor's result, made of elementwise ops, casts and scalar constants only,
    without parameters.
    """

    anchor: Op
    body: Graph

    def infer(self, *operands: TensorType) -> TensorType:
        own = self.anchor_operands(len(operands))
        least, _ = self.anchor.arity()
        self.require(own >= least, f"{len(operands)} operands are too few for {self.anchor.name}")
        anchored = self.anchor.result_types(*operands[:own])
        given, wanted = anchored + operands[own:], tuple(v.type for v in self.body.inputs)
        self.require(given == wanted, f"the body takes {_listed(wanted)}, given {_listed(given)}")
        self.require(not self.body.parameters, "the body must have no parameters")
        strangers = [n.op.name for n in self.body.nodes if not _is_inlined(n.op)]
        self.require(not strangers, f"the body must be elementwise, but holds {strangers}")
        self.require(
            len(self.body.outputs) == 1 and self.body.outputs[0].type.shape == wanted[0].shape,
            f"the body must give one result of the shape of {wanted[0]},"
            f" gives {_listed(tuple(v.type for v in self.body.outputs))}",
        )
        return self.body.outputs[0].type

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return self.anchor.keeps_images_apart(operands, result)

    def anchor_operands(self, count: int) -> int:
        """How many of `count` operands, from the first on, are the anchor's own."""
        return count - (len(self.body.inputs) - 1)

    def evaluate(self, *operands: Array) -> Array:
        own = self.anchor_operands(len(operands))
        (y,) = self.anchor.results(*operands[:own])
        return self.applied(y, operands[own:])

    def applied(self, y: Array, extras: Sequence[Array]) -> Array:
        """The body, of the anchor's result and its extra operands."""
        values: dict[Value, Array] = dict(zip(self.body.inputs, (y, *extras), strict=True))
        floating = next((a.dtype for a in (y, *extras) if a.dtype.kind == "f"), np.dtype("f4"))
        for node in self.body.nodes:
            if isinstance(node.op, Constant):
                values[node.output] = node.op.array(floating)
            else:
                (result,) = node.op.results(*(values[v] for v in node.inputs))
                kind = held(node.output.type.dtype, floating)
                values[node.output] = result.astype(kind, copy=False)
        return values[self.body.outputs[0]]


def _is_inlined(op: Op) -> bool:
    """Elementwise ops, casts, and the scalars they read."""
    return isinstance(op, Elementwise | Cast) or (
        isinstance(op, Constant) and not isinstance(op.value, tuple)
    )


def _listed(types: tuple[TensorType, ...]) -> str:
    return ", ".join(map(str, types)) or "nothing"
