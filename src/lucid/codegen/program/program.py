"""The second IR: a Program is phases of kernel calls over buffers, ready to be emitted and run.

Between phases lies a barrier; within one, calls are independent. Operands are views: a buffer, an
offset, a logical shape and strides in floats. Each call carries its `region`, the graph of what it
computes, so that a Program can be interpreted by the ops' references.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lucid.codegen.kernels.packing import Packed
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.program.places import Places
from lucid.ir.graph import Graph
from lucid.ir.types import DTYPES


@dataclass(frozen=True)
class View:
    """A strided window on a buffer. `offset` and `strides` count floats; `shape` is logical."""

    buffer: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @cached_property
    def places(self) -> Places:
        """The places of its buffer that the view holds."""
        return Places.of(self.offset, zip(self.shape, self.strides, strict=True))

    def __str__(self) -> str:
        at = f"+{self.offset}" if self.offset else ""
        shape = "x".join(map(str, self.shape))
        return f"{self.buffer}{at}[{shape} : {','.join(map(str, self.strides))}]"


@dataclass(frozen=True)
class Code:
    """The address of an exported function of another kernel."""

    kernel: KernelSpec
    export: str


@dataclass(frozen=True)
class WeightRef:
    """A packed parameter as an operand; the key of `Program.weights`."""

    name: str


ArgumentValue = int | float | View | Code | WeightRef


@dataclass(frozen=True)
class KernelCall:
    """One kernel over its grid of tasks.

    `reads` and `writes` are the inputs and outputs of `region`, in order. `scratch`: floats of
    thread-private memory. `algorithm`: how it computes, for tables and forcing. `work`: floating
    operations that a direct evaluation needs (2 a multiply-add).
    """

    kernel: KernelSpec
    tasks: int
    arguments: dict[str, ArgumentValue]
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    region: Graph
    origin: str = ""
    algorithm: str = ""
    scratch: int = 0
    work: int = 0


@dataclass(frozen=True)
class Buffer:
    """Memory of `floats` numbers. `kind`: `input`, `output` (the user's arrays) or `arena`.

    `dtype`: of its numbers, which are what views on it count. An arena buffer has room for whole
    floats.
    """

    name: str
    kind: str
    floats: int
    dtype: str = "f32"

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return DTYPES[self.dtype].itemsize

    @property
    def room(self) -> int:
        """Floats that take as much memory."""
        return -(-self.floats * self.itemsize // 4)


@dataclass
class Program:
    """Phases of kernel calls for one batch and image size.

    `offsets` places the arena buffers, in floats; `weights` names the packed parameters.
    """

    name: str
    target: str
    batch: int
    buffers: dict[str, Buffer] = field(default_factory=dict)
    phases: list[list[KernelCall]] = field(default_factory=list)
    weights: dict[str, Packed] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    arena: int = 0
    inputs: tuple[View, ...] = ()
    outputs: tuple[View, ...] = ()
    may_need: frozenset[KernelSpec] = frozenset()

    def calls(self) -> Iterator[KernelCall]:
        for phase in self.phases:
            yield from phase

    @property
    def scratch(self) -> int:
        """Floats of scratch each thread needs."""
        return max((c.scratch for c in self.calls()), default=0)

    def kernels(self) -> list[KernelSpec]:
        """The kernels its calls need (tiles among them), each once, in order of first use."""
        found: dict[KernelSpec, None] = {}
        for call in self.calls():
            found.setdefault(call.kernel)
            for value in call.arguments.values():
                if isinstance(value, Code):
                    found.setdefault(value.kernel)
        return list(found)

    def __str__(self) -> str:
        return print_program(self)


def print_program(program: Program) -> str:
    """The text of a Program: buffers with their places, weights, and phases of calls. Phases that
    are empty, as those of a part of a program may be, are left out."""
    lines = [f"program {program.name} target={program.target} batch={program.batch} {{"]
    for buffer in program.buffers.values():
        place = f" at {program.offsets[buffer.name]}" if buffer.name in program.offsets else ""
        kind = "" if buffer.dtype == "f32" else f" {buffer.dtype}"
        lines.append(f"  {buffer.kind} {buffer.name}: {buffer.floats}{kind}{place}")
    for name, packed in program.weights.items():
        lines.append(f"  weights {name}: {packed.floats} {packed.packing}")
    for number, phase in enumerate(program.phases):
        if not phase:
            continue
        lines.append(f"  phase {number} {{")
        for call in phase:
            reads = ", ".join(map(str, call.reads))
            writes = ", ".join(map(str, call.writes))
            lines.append(f'    {call.kernel} "{call.origin}" tasks={call.tasks}')
            lines.append(f"      ({reads}) -> ({writes})")
            plain = {n: v for n, v in call.arguments.items() if isinstance(v, int | float)}
            lines.append(f"      {json.dumps(plain)}")
        lines.append("  }")
    lines.append("}")
    return "\n".join(lines) + "\n"
