"""The Program verifier: invariants of phases, views, arguments and the memory plan.

Kernels trust their arguments, so whatever a lowering gets wrong shows here and not as a crash.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import prod
from typing import NoReturn

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lucid.codegen.kernels.packing import Flat, Indices
from lucid.codegen.language.kernel import Arg, Given, KernelSpec
from lucid.codegen.program.places import Places
from lucid.codegen.program.plan import ALIGNMENT, lifetimes
from lucid.codegen.program.program import Code, KernelCall, Program, View, WeightRef
from lucid.errors import VerifyError
from lucid.ir.ops import Constant
from lucid.ir.ops.base import Array
from lucid.ir.recipe import Apply


def verify_program(program: Program) -> None:
    """Check a whole Program. Raises VerifyError, which names the call, its origin and operand.

    - Every view lies inside its buffer and has its dtype; inputs and parameters are never written,
      and no view that is written holds one place twice.
    - What a call reads was written in an earlier phase, and so are all outputs at the end.
    - Calls of one phase do not write what another one, or they themselves, read or write.
    - Reads and writes have the shapes of the region's inputs and outputs, and reads their dtypes;
      arguments are those the kernel declares, buffers of the dtypes it declares; and there are
      tasks exactly where there is something to write.
    - What a kernel reaches by its arguments (`KernelSpec.extents`) is inside its operands and, of
      what it reads and writes, all: counts, strides and offsets fit the views.
    - Arena buffers are inside the arena, aligned, and apart while both are alive.
    """
    check = _Verifier(program)
    for view in (*program.inputs.values(), *program.outputs.values()):
        check.view(view, "the user's array")
    for number, phase in enumerate(program.phases):
        check.phase(number, phase)
    for view in program.outputs.values():
        check.written(view, "output")
    check.plan()


class _Verifier:
    """The state of one check: what has been written so far."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.declared: dict[KernelSpec, tuple[Arg, ...]] = {}
        self.whole = {v.buffer for v in program.inputs.values()}  # buffers written all over
        self.places: dict[str, Array] = {}  # which places of the other buffers are written
        self.sizes = {n: b.elements for n, b in program.buffers.items()}
        self.sizes |= {n: p.elements for n, p in program.weights.items()}
        self.dtypes = {n: b.dtype for n, b in program.buffers.items()}
        self.dtypes |= {n: p.dtype for n, p in program.weights.items()}
        self.where = ""

    def fail(self, problem: str) -> NoReturn:
        raise VerifyError(f"program {self.program.name}: {self.where}{problem}")

    # -- calls ------------------------------------------------------------------------------

    def phase(self, number: int, calls: list[KernelCall]) -> None:
        running = []
        for call in calls:
            self.where = f"phase {number}, {call.kernel} for {call.origin or 'the model'}: "
            self.call(call)
            if call.tasks:
                running.append(call)
        self.where = f"phase {number}: "
        self.conflicts(running)
        for call in running:
            for view in call.writes:
                self.write(view)

    def call(self, call: KernelCall) -> None:
        """One call by itself, against what earlier phases have written."""
        for i, view in enumerate(call.reads):
            self.view(view, f"read {i}")
        for i, view in enumerate(call.writes):
            self.view(view, f"write {i}")
            if view.buffer in self.program.weights:
                self.fail(f"write {i}, {view}, is a parameter")
            if self.program.buffers[view.buffer].kind == "input":
                self.fail(f"write {i}, {view}, is the user's input")
            if not _apart(view):
                self.fail(f"write {i}, {view}, holds some place twice")
        empty = [0 in v.shape for v in call.writes]
        if call.tasks < 0 or (call.tasks == 0) != all(empty):
            self.fail(f"{call.tasks} tasks, to write {', '.join(map(str, call.writes))}")
        self.region(call)
        self.arguments(call)
        if call.tasks:
            self.extents(call)
            for i, view in enumerate(call.reads):
                self.written(view, f"read {i}")

    def region(self, call: KernelCall) -> None:
        inputs = [(v.type.dtype, v.type.shape) for v in call.region.inputs]
        if inputs != [(v.dtype, v.shape) for v in call.reads]:
            self.fail(f"reads {[(v.dtype, v.shape) for v in call.reads]}, its region {inputs}")
        sizes = [prod(v.type.concrete(self.program.batch)) for v in call.region.outputs]
        if sizes != [prod(v.shape) for v in call.writes]:
            self.fail(f"writes {[v.shape for v in call.writes]}, its region {sizes} elements")

    def arguments(self, call: KernelCall) -> None:
        declared = self.declared.get(call.kernel)
        if declared is None:
            declared = self.declared[call.kernel] = call.kernel.arguments()
        names = [a.name for a in declared]
        if call.arguments.keys() != set(names):
            missing = [n for n in names if n not in call.arguments]
            extra = [n for n in call.arguments if n not in names]
            self.fail(f"missing arguments {missing}, undeclared ones {extra}")
        operands = {v.buffer for v in (*call.reads, *call.writes)}
        for argument in declared:
            value = call.arguments[argument.name]
            if not isinstance(value, _KINDS[argument.kind]):
                self.fail(f"argument {argument.name} is no {argument.kind}: {value!r}")
            if isinstance(value, WeightRef) and value.name not in self.program.weights:
                self.fail(f"argument {argument.name}: no parameter is named {value.name}")
            if isinstance(value, View | WeightRef):
                self.dtype(value, argument)
            if isinstance(value, View):
                self.view(value, f"argument {argument.name}")
                if value.buffer not in operands:
                    self.fail(f"argument {argument.name}, {value}, is neither read nor written")
            if isinstance(value, Code) and value.export not in value.kernel.exports:
                self.fail(f"argument {argument.name}: {value.kernel} exports no {value.export}")

    def dtype(self, value: View | WeightRef, argument: Arg) -> None:
        """A buffer holds what the kernel's code takes it to hold."""
        given = value.dtype if isinstance(value, View) else self.dtypes[value.name]
        if given != argument.dtype:
            self.fail(f"argument {argument.name} is {given}, the kernel takes {argument.dtype}")

    def extents(self, call: KernelCall) -> None:
        """What the kernel touches, by its arguments, is what the call says that it reads and
        writes: of each operand all of it and nothing else."""
        try:
            found = call.kernel.extents(Given(call.arguments, call.tasks, self.largest))
        except ValueError as problem:
            self.fail(f"arguments that contradict each other: {problem}")
        touched: dict[str, list[Places]] = defaultdict(list)
        for argument in self.declared[call.kernel]:
            if argument.kind != "buffer":
                continue
            value, extent = call.arguments[argument.name], found[argument.name]
            assert isinstance(value, View | WeightRef)
            buffer, first = _start(value)
            places = Places.of(first, extent)
            if isinstance(value, View) and prod(n for n, _ in extent) != prod(value.shape):
                self.fail(f"argument {argument.name}, {value}, is walked as {extent}")
            if not places.inside(self.sizes[buffer]):
                self.fail(
                    f"argument {argument.name} reaches places {places.first} to {places.end - 1} of"
                    f" {buffer}, which has {self.sizes[buffer]}"
                )
            touched[buffer].append(places)
            own = [v for v in (*call.reads, *call.writes) if v.buffer == buffer]
            if isinstance(value, View) and not any(places.same(v.places) for v in own):
                self.fail(
                    f"argument {argument.name} reaches other places of {buffer} than"
                    f" {' and '.join(map(str, own))}: {places}"
                )
        for kind, views in (("read", call.reads), ("write", call.writes)):
            for i, view in enumerate(views):
                if not any(p.same(view.places) for p in touched[view.buffer]):
                    self.fail(f"{kind} {i}, {view}, is what no argument reaches")

    def largest(self, table: WeightRef, count: int) -> int:
        """The largest of the first `count` numbers of a packed table of places."""
        packed = self.program.weights[table.name]
        if isinstance(packed.packing, Indices):
            return packed.packing.size - 1
        if not isinstance(packed.recipe, Apply) or not isinstance(packed.recipe.op, Constant):
            self.fail(f"{table.name}: a table of places that is not known")
        return int(packed.recipe.op.evaluate().reshape(-1)[:count].max(initial=-1))

    def conflicts(self, calls: list[KernelCall]) -> None:
        """No place is written by a call of the phase and touched by anyone else in it."""
        written: dict[str, list[tuple[int, View]]] = defaultdict(list)
        for number, call in enumerate(calls):
            for view in call.writes:
                for other, known in written[view.buffer]:
                    if self.overlap(view, known):
                        self.clash(calls[number], view, calls[other], known)
                written[view.buffer].append((number, view))
        for call in calls:
            for view in call.reads:
                for other, known in written.get(view.buffer, ()):
                    if self.overlap(view, known):
                        self.clash(call, view, calls[other], known)

    def clash(self, call: KernelCall, view: View, other: KernelCall, known: View) -> NoReturn:
        self.fail(
            f"{call.kernel} for {call.origin or 'the model'} touches {view} while"
            f" {other.kernel} for {other.origin or 'the model'} writes {known}"
        )

    # -- views ------------------------------------------------------------------------------

    def view(self, view: View, operand: str) -> None:
        size = self.sizes.get(view.buffer)
        if size is None:
            self.fail(f"{operand}, {view}: there is no such buffer")
        if view.dtype != self.dtypes[view.buffer]:
            self.fail(f"{operand}, {view}, is {view.dtype}, its buffer {self.dtypes[view.buffer]}")
        if len(view.shape) != len(view.strides) or any(d < 0 for d in view.shape):
            self.fail(f"{operand}, {view}: shape and strides do not fit together")
        if not view.places.inside(size):
            self.fail(f"{operand}, {view}, is not inside its buffer of {size} elements")
        packed = self.program.weights.get(view.buffer)
        if packed is not None and not isinstance(packed.packing, Flat):
            self.fail(f"{operand}, {view}: a packed parameter is no array")

    def written(self, view: View, operand: str) -> None:
        """Every place of the view is written, in an earlier phase or by the user."""
        if view.buffer in self.whole or view.buffer in self.program.weights or 0 in view.shape:
            return
        places = self.places.get(view.buffer)
        if places is None or not _on(places, view).all():
            self.fail(f"{operand}, {view}, is read before it is written")

    def write(self, view: View) -> None:
        if view.buffer in self.whole:
            return
        if prod(view.shape) == self.sizes[view.buffer]:  # its places are apart, and inside
            self.whole.add(view.buffer)
            return
        places = self.places.setdefault(view.buffer, np.zeros(self.sizes[view.buffer], bool))
        _on(places, view)[...] = True

    def overlap(self, a: View, b: View) -> bool:
        """Whether two views of one buffer have a place in common."""
        one, other = a.places, b.places
        if 0 in a.shape or 0 in b.shape or one.first >= other.end or other.first >= one.end:
            return False
        places = np.zeros(self.sizes[a.buffer], bool)
        _on(places, a)[...] = True
        return bool(_on(places, b).any())

    # -- the plan ---------------------------------------------------------------------------

    def plan(self) -> None:
        """Arena buffers are placed, inside, aligned, and apart from those alive with them, but for
        a result that lies exactly in the place of what it replaces."""
        program, self.where = self.program, "the memory plan: "
        spans = lifetimes(program)
        for name in spans:
            offset, size = program.offsets.get(name), program.buffers[name].bytes
            if offset is None:
                self.fail(f"{name} has no place")
            if offset < 0 or offset % ALIGNMENT or offset + size > program.arena:
                self.fail(f"{name}, {size} bytes at {offset}, is not aligned or not in the arena")
        for number in range(len(program.phases)):
            alive = [n for n, s in spans.items() if s.first <= number <= s.last]
            alive.sort(key=program.offsets.__getitem__)
            for one, other in pairwise(n for n in alive if self.sizes[n]):
                if program.offsets[one] + program.buffers[one].bytes > program.offsets[other]:
                    self.fail(f"{one} and {other} overlap while both live, in phase {number}")


_KINDS: dict[str, type | tuple[type, ...]] = {
    "buffer": (View, WeightRef),
    "int": int,
    "float": (int, float),
    "code": Code,
}
"""What may be given for each kind of argument."""


def _start(operand: View | WeightRef) -> tuple[str, int]:
    """The buffer of an operand, and its first place there."""
    if isinstance(operand, WeightRef):
        return operand.name, 0
    return operand.buffer, operand.offset


def _on(places: Array, view: View) -> Array:
    """The view on an array of one byte a place."""
    return as_strided(places[view.offset :], view.shape, view.strides)


def _apart(view: View) -> bool:
    """Whether no two elements of a view lie in one place: each stride passes over all that the
    smaller ones reach."""
    if 0 in view.shape:
        return True
    reach = 0
    for stride, size in sorted((s, d) for d, s in zip(view.shape, view.strides, strict=True)):
        if size > 1:
            if stride <= reach:
                return False
            reach += (size - 1) * stride
    return True
