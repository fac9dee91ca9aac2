"""The second IR: a Program is phases of kernel calls over buffers, ready to be emitted and run.

Between phases lies a barrier; within one, calls are independent. Operands are views: a buffer, a
dtype, a logical shape and strides in elements. Each call carries its `region`, the graph of what it
computes, so that a Program can be interpreted by the ops' references.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lucid.codegen.kernels.packing import Packed
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.program.places import Places
from lucid.ir.graph import Graph


@dataclass(frozen=True)
class View:
    """A strided window on a buffer, of its `dtype`. `offset` and `strides` count elements; `shape`
    is logical."""

    buffer: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return dtype(self.dtype).bytes

    def over(self, shape: Sequence[int], strides: Sequence[int], offset: int | None = None) -> View:
        """Another window on the same buffer, by default from the same element on."""
        start = self.offset if offset is None else offset
        return View(self.buffer, self.dtype, tuple(shape), tuple(strides), start)

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

    `reads` and `writes` are the inputs and outputs of `region`, in order. `scratch`: bytes of
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
    """Memory of so many `elements` of a dtype, which is what views on it count.

    `kind`: `input`, `output` (the user's arrays) or `arena`.
    """

    name: str
    kind: str
    elements: int
    dtype: str

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        return self.elements * dtype(self.dtype).bytes


@dataclass
class Program:
    """Phases of kernel calls for one batch and image size.

    `inputs` and `outputs` are those of the graph, by name and in order. `offsets` places the arena
    buffers, in bytes; `arena` is as many bytes; `weights` names the packed parameters. `threads`:
    the most that each phase is worth (`estimate`); where it is empty, as many as there are tasks.
    """

    name: str
    target: str
    batch: int
    buffers: dict[str, Buffer] = field(default_factory=dict)
    phases: list[list[KernelCall]] = field(default_factory=list)
    weights: dict[str, Packed] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    arena: int = 0
    inputs: dict[str, View] = field(default_factory=dict)
    outputs: dict[str, View] = field(default_factory=dict)
    may_need: frozenset[KernelSpec] = frozenset()
    threads: list[int] = field(default_factory=list)

    def calls(self) -> Iterator[KernelCall]:
        for phase in self.phases:
            yield from phase

    @property
    def scratch(self) -> int:
        """Bytes of scratch each thread needs."""
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
    """The text of a Program: buffers with their elements, and their places in bytes; weights; and
    phases of calls. Phases that are empty, as those of a part of a program may be, are left out."""
    lines = [f"program {program.name} target={program.target} batch={program.batch} {{"]
    users = {"input": program.inputs, "output": program.outputs}
    names = {v.buffer: f"{kind} %{n} =" for kind, own in users.items() for n, v in own.items()}
    for buffer in program.buffers.values():
        place = f" at {program.offsets[buffer.name]}" if buffer.name in program.offsets else ""
        kind = names.get(buffer.name, buffer.kind)
        lines.append(f"  {kind} {buffer.name}: {buffer.elements} {buffer.dtype}{place}")
    for name, packed in program.weights.items():
        lines.append(f"  weights {name}: {packed.elements} {packed.dtype} {packed.packing}")
    for number, phase in enumerate(program.phases):
        if not phase:
            continue
        threads = f" threads={program.threads[number]}" if program.threads else ""
        lines.append(f"  phase {number}{threads} {{")
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
