"""What is left of a model when part of it has been read.

An operator that cannot be read yet is deferred, and so is all that depends on it:

- it wants the elements of an operand that the graph computes, or is given: a Reshape its shape, a
  Slice its starts, an If its condition. Once the graph has run they are known, and it can be read;
- nothing in Lucid says what it does, or the shape of its results depends on data (NonZero, Unique,
  NonMaxSuppression): it is run on the host, by NumPy, when all its operands are there.

All else is the graph of a `Stage`. Its results are what the deferred operators read and those
outputs of the file that do not wait. `Stage.rest` is the program that remains, to be read when the
results are there, with their shapes and the elements that were wanted (`continuation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lucid.ir.graph import Graph, Value
from lucid.ir.ops import Array
from lucid.onnx.known import Foreign, Held, Items, Known, Opaque
from lucid.onnx.operator import Operator
from lucid.onnx.tensors import BFLOAT16, External, StoredTensor, as_elements

if TYPE_CHECKING:
    import onnx


Live = Any
"""A value between stages: an array of numbers as graphs compute with them, or of strings and the
like; a list for a sequence; None for an optional without a value."""


@dataclass(frozen=True)
class Given:
    """What is known of a name that a program reads: the type of a value that the graph takes as an
    input, a tuple of such for a sequence, or what it stands for itself. `element`: its element type
    in the file."""

    value: Any
    element: int


@dataclass(frozen=True)
class Output:
    """A name that a program gives, and the element type that the file says it has (0: none)."""

    name: str
    element: int


@dataclass(frozen=True, eq=False)
class Program:
    """Operators in topological order, and what else a file says of the names that they read.

    `tensors`: stored in the file. `constants`: names that an earlier stage knew all of. `types`:
    element types of names. `depth`: how many stages were before. `opened`: the weights among the
    tensors that have been looked at, for all stages.
    """

    name: str
    operators: Sequence[Operator]
    tensors: Mapping[str, onnx.TensorProto]
    outputs: Sequence[Output]
    constants: Mapping[str, Held] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    depth: int = 0
    opened: dict[str, StoredTensor] = field(default_factory=dict)

    @cached_property
    def wanted(self) -> set[str]:
        """The names that somebody reads."""
        read = {name for operator in self.operators for name in operator.reads}
        return read | {output.name for output in self.outputs}


@dataclass(frozen=True, eq=False)
class Deferred:
    """An operator that is not read in a stage, and why. `demands`: the names whose elements it
    wants to know, none where it is to run on the host. `waits`: an operand is deferred itself.
    `unread`: it waits, and there is no way to read it then. `impossible`: nothing can run it,
    whatever its operands are."""

    operator: Operator
    reason: str
    demands: tuple[str, ...]
    waits: bool
    unread: bool = False
    impossible: bool = False

    @property
    def on_host(self) -> bool:
        """Whether NumPy is to run it when this stage is done."""
        return not self.waits and not self.demands


@dataclass(frozen=True, eq=False)
class Stage:
    """A graph, and what is to be done with its results.

    `kept`: names that deferred operators read, `finished`: outputs of the program by their index,
    both in values of the graph; `left`: the indices of the outputs that `rest` gives.
    """

    graph: Graph
    deferred: Sequence[Deferred]
    kept: Mapping[str, Held]
    finished: Mapping[int, Held]
    left: Sequence[int]
    rest: Program
    external: External

    @property
    def is_whole(self) -> bool:
        """Whether the graph gives all outputs of the file, one for one: nothing is left to do."""
        held = [self.finished.get(i) for i in range(len(self.finished) + len(self.left))]
        return not self.deferred and held == self.graph.outputs

    def collected(self, held: Held, results: Sequence[Array], live: Mapping[str, Live]) -> Live:
        """What a name stands for, once the graph has given its results. `live`: what was given."""
        match held:
            case Value():
                array = results[self.graph.outputs.index(held)]
                return as_elements(array, BFLOAT16) if held.type.dtype == "bf16" else array
            case Items(elements):
                return [self.collected(item, results, live) for item in elements]
            case Opaque(name):
                return live[name]
            case Known(array):
                return array
            case Foreign(value):
                return value
        return None


def refused(deferred: Iterable[Deferred]) -> list[tuple[str, str, str]]:
    """The operators that a graph alone cannot express: their kinds, places and reasons."""
    return [
        (d.operator.kind, d.operator.where, d.reason)
        for d in deferred
        if d.impossible or d.unread or not d.waits
    ]


def listed(name: str, deferred: Iterable[Deferred]) -> str:
    """One line for each operator and reason, with how many and which nodes they are."""
    groups: dict[tuple[str, str], list[str]] = {}
    for kind, where, reason in refused(deferred):
        groups.setdefault((kind, reason), []).append(where)
    lines = []
    for (kind, reason), places in sorted(groups.items()):
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        why = f" ({reason})" if reason else ""
        lines.append(f"  {kind} x{len(places)}{why}: {', '.join(places[:3])}{more}")
    kinds = len({kind for kind, _ in groups})
    what = "an operator" if kinds == 1 else f"{kinds} operators"
    return f"{name} holds {what} that Lucid cannot express:\n" + "\n".join(lines)
