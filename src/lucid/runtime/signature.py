"""The inputs and outputs of a compiled model, for people to read: names, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lucid.codegen.language.dtypes import dtype
from lucid.ir.types import Dim

if TYPE_CHECKING:
    from lucid.ir.graph import Value
    from lucid.ir.types import Shapes, TensorType


class Port(NamedTuple):
    """An input or output of a graph that was not read."""

    name: str
    type: TensorType


class Interface(NamedTuple):
    """The inputs and outputs of a graph that was not read, as a graph has them. `apart`: whether
    the rows of a batch are independent (`lucid.ir.batch.obstacle`)."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    apart: bool

    def input_types(self) -> list[TensorType]:
        return [port.type for port in self.inputs]

    def input_shapes(self, batch: int) -> Shapes:
        """The shapes of the inputs for so many images."""
        return tuple(port.type.concrete(batch) for port in self.inputs)


class TensorSpec(NamedTuple):
    """One input or output. `dtype`: NumPy's name of it, such as `float32`. `shape`: its sizes, the
    batch and its multiples as `"N"` and `"2N"`."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{','.join(map(str, self.shape))}]"


def specs(values: Sequence[Value | Port]) -> tuple[TensorSpec, ...]:
    """Of a graph's inputs or outputs."""
    return tuple(
        TensorSpec(
            value.name,
            dtype(value.type.dtype).numbers,
            tuple(str(d) if isinstance(d, Dim) else d for d in value.type.shape),
        )
        for value in values
    )


class Signature(NamedTuple):
    """`x: float32[N,3,224,224] -> y: float32[N,1000]`"""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        return " -> ".join(", ".join(map(str, side)) for side in self)


def as_html(title: str, facts: str, signature: Signature | None) -> str:
    """A table for notebooks: a line about the model, and one for each input and output."""
    from html import escape

    sides = signature._asdict() if signature else {}
    rows = [
        (side.removesuffix("s"), spec.name, spec.dtype, " × ".join(map(str, spec.shape)))
        for side, tensors in sides.items()
        for spec in tensors
    ]
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><caption><b>{escape(title)}</b>, {escape(facts)}</caption>{cells}</table>"
