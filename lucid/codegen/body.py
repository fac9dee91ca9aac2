"""A fused body as a kernel sees it: elementwise steps over the anchor's result and extra operands.

Names are gone, so that two layers fused alike share one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lucid.codegen.emit import Kernel, Vector
from lucid.codegen.vector_math import lower
from lucid.ir.ops.base import Op

Operand = int | float
"""Which value a step reads: 0 is the anchor's result, then the extras, then earlier steps' results;
a float is a constant."""


@dataclass(frozen=True)
class Body:
    """`extras`: `"tensor"` (shaped like the result) or `"channel"` (one float a channel) each.

    The last step's result is the body's; without steps it is the anchor's.
    """

    extras: tuple[str, ...] = ()
    steps: tuple[tuple[Op, tuple[Operand, ...]], ...] = ()

    def emit(self, k: Kernel, result: Vector, extras: Sequence[Vector]) -> Vector:
        """The body applied to one vector of the anchor's result."""
        values = [result, *extras]
        for op, operands in self.steps:
            read = [result.like(o) if isinstance(o, float) else values[o] for o in operands]
            values.append(lower(k, op, read))
        return values[-1] if self.steps else result

    def __str__(self) -> str:
        names = ["y", *(f"{kind}{i}" for i, kind in enumerate(self.extras))]
        for op, operands in self.steps:
            read = ", ".join(str(o) if isinstance(o, float) else names[o] for o in operands)
            fields = [str(getattr(op, f)) for f in op.__dataclass_fields__]
            options = "{" + ", ".join(fields) + "}" if fields else ""
            names.append(f"{op.name}{options}({read})")
        return names[-1] if self.steps else "y"


PLAIN = Body()
