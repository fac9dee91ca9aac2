"""A fusion's body as a kernel sees it: elementwise steps over the anchor's result and extra
operands.

Names are gone, so that two layers fused alike share one kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.language.elements import splat_number
from lucid.codegen.language.values import Vector
from lucid.codegen.language.vector_math import lower
from lucid.ir.ops import Gelu, Mul
from lucid.ir.ops.base import Op


@dataclass(frozen=True)
class Whole:
    """A constant of an integer dtype."""

    value: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.value}{self.dtype}"


Operand = int | float | Whole
"""Which value a step reads: 0 is the anchor's result, then the extras, then earlier steps' results;
a float is a constant, and so is a `Whole`."""


@dataclass(frozen=True)
class Extra:
    """An extra operand of a body. `kind`: how it lies to the result; of layers `tensor` (shaped
    like it) or `channel` (one number a channel), of pools and products of tensors `vector` (side by
    side along the inner dimension) or `constant` (the same number), else `operand`."""

    kind: str
    dtype: str = COMPUTED

    def __repr__(self) -> str:
        return self.kind + ("" if self.dtype == COMPUTED else f" {self.dtype}")


def tensors(extras: Sequence[Extra]) -> tuple[str, ...]:
    """The names of the extra operands that are shaped like the result."""
    return tuple(f"extra{i}" for i, extra in enumerate(extras) if extra.kind == "tensor")


TENSOR, CHANNEL, OPERAND = Extra("tensor"), Extra("channel"), Extra("operand")
"""Extras of floats."""


@dataclass(frozen=True)
class Body:
    """Elementwise `steps` over the anchor's result and `extras`.

    `result`: which value is the body's, by default the last step's or, without steps, the anchor's.
    """

    extras: tuple[Extra, ...] = ()
    steps: tuple[tuple[Op, tuple[Operand, ...]], ...] = ()
    result: Operand | None = None

    def returned(self) -> Operand:
        """Which value is the body's."""
        if self.result is not None:
            return self.result
        return len(self.extras) + len(self.steps) if self.steps else 0

    @property
    def looped(self) -> bool:
        """Whether a tile applies it row by row in a loop, in which its constants stay in registers:
        GELU's twelve. Of a sigmoid they do not, which needs more registers for its steps."""
        return any(op == Gelu() for op, _ in self.steps)

    def tensors(self) -> tuple[str, ...]:
        """The names of the operands that are shaped like the result."""
        return tensors(self.extras)

    def gated(self, operand: int) -> Body:
        """The body with one more extra, the last, by which `operand` is multiplied first."""
        gate = 1 + len(self.extras)
        product = gate + 1

        def moved(o: Operand) -> Operand:
            if isinstance(o, float | Whole):
                return o
            return product if o == operand else o if o < gate else o + 2

        steps = tuple((op, tuple(map(moved, read))) for op, read in self.steps)
        result = None if self.steps and self.result is None else moved(self.returned())
        return Body((*self.extras, OPERAND), ((Mul(), (operand, gate)), *steps), result)

    def emit(self, k: Kernel, result: Vector, extras: Sequence[Vector]) -> Vector:
        """The body applied to one vector of the anchor's result."""
        values = [result, *extras]
        for op, operands in self.steps:
            read = [_read(k, o, values) for o in operands]
            values.append(lower(k, op, read))
        return _read(k, self.returned(), values)

    def __str__(self) -> str:
        """All that the kernel's code depends on: extras take arguments whether read or not."""
        names = ["y", *(f"{extra}{i}" for i, extra in enumerate(self.extras))]
        for op, operands in self.steps:
            read = ", ".join(names[o] if isinstance(o, int) else str(o) for o in operands)
            fields = [str(getattr(op, f.name)) for f in dataclasses.fields(op)]
            options = "{" + ", ".join(fields) + "}" if fields else ""
            names.append(f"{op.name}{options}({read})")
        returned = self.returned()
        text = names[returned] if isinstance(returned, int) else str(returned)
        return f"({', '.join(names[: 1 + len(self.extras)])}) -> {text}" if self.extras else text


def _read(k: Kernel, operand: Operand, values: Sequence[Vector]) -> Vector:
    """One of the values, or a constant with as many lanes."""
    if isinstance(operand, int):
        return values[operand]
    lanes = values[0].lanes
    if isinstance(operand, float):
        return k.splat_constant(operand, lanes)
    return splat_number(k, operand.value, operand.dtype, lanes)


PLAIN = Body()
