"""The kernel builder: loops, memory accesses and arithmetic at the level of a kernel's author.

This module and the values it deals in (`values.py` beside it) hide llvmlite's builder; kernels
reach for it only where they need an instruction that nobody else does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from llvmlite import ir

from lucid.codegen.language.values import (
    F32,
    F64,
    I1,
    I32,
    I64,
    PTR,
    VOID,
    Int,
    Loop,
    Pointer,
    PointerTo,
    Vector,
    constant,
    size_of,
)
from lucid.codegen.target import Target

Signature = Sequence[tuple[str, "ir.Type | PointerTo"]]
"""Names and types of a function's arguments."""

# Types for the methods of Kernel, inside which `int` is a method.
Number = int
Lanes = int | None
IntLike = int | Int
V = TypeVar("V", bound=Vector)


def function_type(arguments: Signature, result: ir.Type = VOID) -> ir.FunctionType:
    """The type of a function with these arguments."""
    return ir.FunctionType(
        result, [PTR if isinstance(kind, PointerTo) else kind for _, kind in arguments]
    )


class Kernel:
    """One function under construction, in a module of its own or beside others.

    `arguments`: (name, type) pairs; inside, `self.args[name]` is an Int, Pointer or Vector. Numbers
    are float32 where nothing else is said: that is what kernels compute with.
    """

    def __init__(
        self,
        module: ir.Module,
        target: Target,
        name: str,
        arguments: Signature,
        result: ir.Type = VOID,
    ) -> None:
        self.module = module
        self.target = target
        self.function = ir.Function(module, function_type(arguments, result), name)
        self.function.attributes.add("nounwind")
        # LLVM would turn a loop of zeros into a call of memset, which the object does not have;
        # llvmlite's own list of attributes lacks this one.
        set.add(self.function.attributes, '"no-builtins"')
        # Where loops begin depends on what was loaded before, and costs up to 10% where it is bad.
        set.add(self.function.attributes, f"align {target.line}")
        # Denormals are zeros here (the driver sees to it). LLVM has to know: it would test the sign
        # bit for "below zero", and call a negative denormal's power NaN.
        set.add(self.function.attributes, '"denormal-fp-math"="preserve-sign,preserve-sign"')
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.args: dict[str, Any] = {}
        for (label, kind), raw in zip(arguments, self.function.args, strict=True):
            raw.name = label
            self.args[label] = self._wrap(kind, raw)

    def _wrap(self, kind: ir.Type | PointerTo, raw: Any) -> Any:
        if isinstance(kind, PointerTo):
            return Pointer(self.builder, raw, kind.element)
        if kind == I64:
            return Int(self.builder, raw)
        return Vector(self.builder, raw) if kind == F32 else raw

    def no_alias(self, *names: str) -> None:
        """Promise that nothing else in the function reaches what these pointers reach."""
        for name in names:
            self.function.args[list(self.args).index(name)].add_attribute("noalias")

    @property
    def vector(self) -> int:
        return self.target.vector

    @property
    def aligned(self) -> Number:
        """The alignment, in bytes, of arrays that whole vectors of them are read from."""
        return self.target.vector * size_of(F32)

    def line(self, element: ir.Type) -> Number:
        """Elements of a cache line."""
        return self.target.line // size_of(element)

    # -- integers ---------------------------------------------------------------------------

    def int(self, value: IntLike) -> Int:
        return value if isinstance(value, Int) else Int(self.builder, value)

    def select(self, condition: Any, yes: IntLike, no: IntLike) -> Int:
        raw = self.builder.select(condition, self.int(yes).raw, self.int(no).raw)
        return Int(self.builder, raw)

    def both(self, *conditions: Any) -> Any:
        """Whether all conditions hold (without branches)."""
        result = conditions[0]
        for c in conditions[1:]:
            result = self.builder.and_(result, c)
        return result

    def either_of(self, *conditions: Any) -> Any:
        """Whether one condition holds at least (without branches)."""
        result = conditions[0]
        for c in conditions[1:]:
            result = self.builder.or_(result, c)
        return result

    def negated(self, condition: Any) -> Any:
        """Whether the condition does not hold."""
        return self.builder.not_(condition)

    def load_int(self, address: Pointer) -> Int:
        return Int(self.builder, self.builder.load(address.raw, typ=I64, align=8))

    def load_pointer(self, address: Pointer, element: ir.Type = I64) -> Pointer:
        """An address of such elements; that of a table of words where nothing else is said."""
        return Pointer(self.builder, self.builder.load(address.raw, typ=PTR, align=8), element)

    def store_int(self, value: IntLike, address: Pointer) -> None:
        self.builder.store(self.int(value).raw, address.raw, align=8)

    def store_pointer(self, value: Pointer, address: Pointer) -> None:
        self.builder.store(value.raw, address.raw, align=8)

    def choose(self, condition: Any, yes: Pointer, no: Pointer) -> Pointer:
        """One of two pointers."""
        raw = self.builder.select(condition, yes.raw, no.raw)
        return Pointer(self.builder, raw, yes.element)

    def opaque(self, address: Pointer) -> Pointer:
        """The same address, of which LLVM does not know how it was made."""
        kind = ir.FunctionType(PTR, [PTR])
        raw = self.builder.asm(kind, "", "=r,0", [address.raw], False)
        return Pointer(self.builder, raw, address.element)

    # -- control ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def loop(
        self,
        start: IntLike,
        stop: IntLike,
        step: IntLike = 1,
        carry: Sequence[Vector] = (),
        never_empty: bool = False,
    ) -> Iterator[Loop]:
        """`for index in range(start, stop, step)`, run not at all when start >= stop.

        `never_empty`: promise that it runs at least once, which saves the check before it.
        """
        b = self.builder
        first, last, stride = self.int(start), self.int(stop), self.int(step)
        before = b.block
        body, end = b.append_basic_block("loop"), b.append_basic_block("after")
        if never_empty:
            b.branch(body)
        else:
            b.cbranch(first < last, body, end)
        b.position_at_end(body)
        index = b.phi(I64, "index")
        index.add_incoming(first.raw, before)
        phis = [b.phi(v.raw.type) for v in carry]
        for phi, value in zip(phis, carry, strict=True):
            phi.add_incoming(value.raw, before)
        loop = Loop(Int(self.builder, index), [v.of(p) for v, p in zip(carry, phis, strict=True)])
        yield loop
        following = loop.index + stride
        index.add_incoming(following.raw, b.block)
        for phi, value in zip(phis, loop.carried, strict=True):
            phi.add_incoming(value.raw, b.block)
        inside = b.block
        b.cbranch(following < last, body, end)
        b.position_at_end(end)
        if never_empty:
            loop.results = list(loop.carried)
            return
        for value, final in zip(carry, loop.carried, strict=True):
            merged = b.phi(value.raw.type)
            merged.add_incoming(value.raw, before)
            merged.add_incoming(final.raw, inside)
            loop.results.append(value.of(merged))

    def repeat(
        self,
        initial: Sequence[Any],
        condition: Callable[[list[Any]], Any],
        step: Callable[[list[Any]], Sequence[Any]],
    ) -> list[Any]:
        """`while condition(values): values = step(values)`, from `initial` on, over LLVM's own
        values; those that hold in the end."""
        b = self.builder
        before = b.block
        head, body, end = (b.append_basic_block(n) for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        phis = [b.phi(value.type) for value in initial]
        for phi, value in zip(phis, initial, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(condition(phis), body, end)
        b.position_at_end(body)
        following = step(phis)
        for phi, value in zip(phis, following, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(end)
        return phis

    @contextlib.contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        with self.builder.if_then(condition):
            yield

    def either(self, condition: Any, yes: Callable[[], None], no: Callable[[], None]) -> None:
        """`if condition: yes() else: no()`."""
        with self.builder.if_else(condition) as (then, otherwise):
            with then:
                yes()
            with otherwise:
                no()

    def merge(
        self,
        condition: Any,
        yes: Callable[[], list[Vector]],
        no: Callable[[], list[Vector]],
        likely: bool | None = None,
    ) -> list[Vector]:
        """The values of `yes()` if the condition holds, else those of `no()`. `likely`: whether it
        mostly does, where that is known: what the rare way needs is then not held in registers."""
        b = self.builder
        with b.if_else(condition, likely) as (then, otherwise):
            with then:
                first, from_first = yes(), b.block
            with otherwise:
                second, from_second = no(), b.block
        merged = []
        for one, other in zip(first, second, strict=True):
            phi = b.phi(one.raw.type)
            phi.add_incoming(one.raw, from_first)
            phi.add_incoming(other.raw, from_second)
            merged.append(one.of(phi))
        return merged

    def call(self, function: Any, kind: ir.FunctionType, arguments: Sequence[Any]) -> Any:
        """Call a function, or the address of one, of this type."""
        raw = [a.raw if isinstance(a, Int | Pointer | Vector) else a for a in arguments]
        callee = function
        if isinstance(function, Pointer):
            callee = _Address(function.raw, kind)
        return self.builder.call(callee, raw)

    def system_call(self, function: Pointer, number: IntLike, *arguments: IntLike | Pointer) -> Int:
        """A call of the C library's `syscall`, whose address `function` is, with words."""
        b = self.builder
        words = [
            Int(b, b.ptrtoint(a.raw, I64)) if isinstance(a, Pointer) else self.int(a)
            for a in (number, *arguments)
        ]
        return Int(b, self.call(function, ir.FunctionType(I64, [I64] * len(words)), words))

    def exchange(self, word: Pointer, value: IntLike, how: str = "xchg") -> Int:
        """Put a value into a word of memory, or with `max` no less than it, in the one order that
        all such accesses have (sequentially consistent); gives the value before."""
        return Int(
            self.builder,
            self.builder.atomic_rmw(how, word.raw, self.int(value).raw, "seq_cst"),
        )

    def finish(self, result: Any = None) -> None:
        if result is None:
            self.builder.ret_void()
        else:
            self.builder.ret(result)

    # -- memory of the function -------------------------------------------------------------

    def stack(self, count: Number, element: ir.Type = F32, align: Number = 64) -> Pointer:
        """Room for elements on the stack, for the whole life of the function."""
        with self.builder.goto_entry_block():
            room = self.builder.alloca(ir.ArrayType(element, count))
            room.align = align
            room.type = PTR  # llvmlite still gives it a typed pointer
        return Pointer(self.builder, room, element)

    # -- vectors ----------------------------------------------------------------------------

    def vector_type(self, lanes: Lanes = None, element: ir.Type = F32) -> ir.Type:
        count = self.vector if lanes is None else lanes
        return element if count == 1 else ir.VectorType(element, count)

    def splat_constant(self, value: float, lanes: Lanes = None) -> Vector:
        return Vector(self.builder, constant(self.vector_type(lanes), value))

    def zero(self, lanes: Lanes = None) -> Vector:
        return self.splat_constant(0.0, lanes)

    def splat(self, scalar: Vector, lanes: Lanes = None) -> Vector:
        """A scalar in every lane."""
        kind = self.vector_type(lanes, scalar.raw.type)
        if not isinstance(kind, ir.VectorType):
            return scalar
        return scalar.of(self.every_lane(scalar.raw, kind.count))

    def every_lane(self, scalar: Any, lanes: Number) -> Any:
        """A number of any LLVM type as a vector of so many."""
        undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(first, undefined, order)

    def shuffle(self, value: V, lanes: Sequence[Number]) -> V:
        """The lanes of a vector in another order."""
        kind = value.raw.type
        order = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        undefined = ir.Constant(kind, ir.Undefined)
        return value.of(self.builder.shuffle_vector(value.raw, undefined, order))

    def joined(self, values: Sequence[V]) -> V:
        """Vectors side by side as one, of as many lanes as all of them."""
        whole = values[0]
        for value in values[1:]:
            pad = range(value.lanes, whole.lanes)
            wide = self.shuffle(value, [*range(value.lanes), *(0 for _ in pad)])
            order = [*range(whole.lanes), *(whole.lanes + i for i in range(value.lanes))]
            kind = ir.VectorType(I32, len(order))
            both = self.builder.shuffle_vector(whole.raw, wide.raw, ir.Constant(kind, order))
            whole = whole.of(both)
        return whole

    def parted(self, whole: V, count: Number) -> list[V]:
        """The `count` equal vectors that lie side by side in one."""
        lanes = whole.lanes // count
        return [self.shuffle(whole, range(i * lanes, (i + 1) * lanes)) for i in range(count)]

    def shuffle_mask(self, mask: Any, lanes: Sequence[Number]) -> Any:
        """Some lanes of a mask."""
        order = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        undefined = ir.Constant(mask.type, ir.Undefined)
        return self.builder.shuffle_vector(mask, undefined, order)

    def constant_mask(self, lanes: Sequence[bool]) -> Any:
        """A mask of these lanes."""
        return ir.Constant(ir.VectorType(I1, len(lanes)), [int(lane) for lane in lanes])

    def load(
        self, address: Pointer, lanes: Lanes = None, mask: Any = None, align: Lanes = None
    ) -> Vector:
        """Elements at `address`; lanes that `mask` leaves out are zero, and not read. `align`: in
        bytes, by default that of an element."""
        align = align or size_of(address.element)
        kind = self.vector_type(lanes, address.element)
        if mask is None:
            return Vector(self.builder, self.builder.load(address.raw, typ=kind, align=align))
        load = self.intrinsic(
            f"llvm.masked.load.{self.suffix(kind)}.p0",
            kind,
            [PTR, I32, ir.VectorType(I1, kind.count), kind],
        )
        rest = constant(kind, 0)
        loaded = self.builder.call(load, [address.raw, ir.Constant(I32, align), mask, rest])
        return Vector(self.builder, loaded)

    def store(self, value: Vector, address: Pointer, mask: Any = None, align: Lanes = None) -> None:
        """Write elements; lanes that `mask` leaves out are not written. `align` as in `load`."""
        align = align or size_of(address.element)
        if mask is None:
            self.builder.store(value.raw, address.raw, align=align)
            return
        kind = value.raw.type
        store = self.intrinsic(
            f"llvm.masked.store.{self.suffix(kind)}.p0",
            VOID,
            [kind, PTR, I32, ir.VectorType(I1, kind.count)],
        )
        self.builder.call(store, [value.raw, address.raw, ir.Constant(I32, align), mask])

    def first_lanes(self, count: Int, lanes: Lanes = None) -> Any:
        """A mask of the first `count` lanes (none when negative, all when more than there are)."""
        width = self.vector if lanes is None else lanes
        kind = ir.VectorType(I32, width)
        bounded = count.minimum(width).maximum(0)
        every = self.every_lane(self.builder.trunc(bounded.raw, I32), width)
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(width))), every)

    def each_vector(self, count: Int, body: Callable[[Int, Any], None]) -> None:
        """`body(offset, mask)` for `count` numbers: whole vectors without mask, then the rest."""
        whole = count // self.vector * self.vector
        with self.loop(0, whole, self.vector) as loop:
            body(loop.index, None)
        with self.when(whole < count):
            body(whole, self.first_lanes(count - whole))

    def each_piece(
        self, first: Int, last: Int, lanes: Number, body: Callable[[Int, Number, Any], None]
    ) -> None:
        """`body(index, lanes, mask)` for numbers `first` to `last`: `lanes` at once, then as many
        as there are floats in a vector, the last of which begin early enough to end with `last`,
        so that some are done twice. A mask is left where there are fewer than those: of bytes, for
        which this is meant, it is a branch for each."""
        narrow = self.vector
        whole = first + (last - first) // lanes * lanes
        with self.loop(first, whole, lanes) as loop:
            body(loop.index, lanes, None)

        def vectors() -> None:
            with self.loop(whole, last, narrow) as loop:
                body(loop.index.minimum(last - narrow), narrow, None)

        def few() -> None:
            body(first, narrow, self.first_lanes(last - first))

        self.either(last - first >= narrow, vectors, few)

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        """a * b + c, rounded once where the target can."""
        if not self.target.fused:
            return a * b + c
        kind = a.raw.type
        fma = self.intrinsic(f"llvm.fma.{self.suffix(kind)}", kind, [kind] * 3)
        return Vector(self.builder, self.builder.call(fma, [a.raw, b.raw, c.raw]))

    def math(self, name: str, *operands: Vector) -> Vector:
        """An LLVM intrinsic over floats that is one instruction: sqrt, fabs, copysign, floor."""
        kind = operands[0].raw.type
        function = self.intrinsic(f"llvm.{name}.{self.suffix(kind)}", kind, [kind] * len(operands))
        return Vector(self.builder, self.builder.call(function, [o.raw for o in operands]))

    def widen(self, x: Vector) -> Vector:
        """The same numbers as doubles."""
        return Vector(self.builder, self.builder.fpext(x.raw, _with_element(x.raw.type, F64)))

    def narrow(self, x: Vector) -> Vector:
        """Doubles rounded to floats."""
        return Vector(self.builder, self.builder.fptrunc(x.raw, _with_element(x.raw.type, F32)))

    def as_float(self, count: Int) -> Vector:
        """An integer as a float, the nearest one."""
        return Vector(self.builder, self.builder.sitofp(count.raw, F32))

    def low_bits(self, x: Vector) -> Any:
        """The low 32 bits of each double, as integers."""
        bits = self.builder.bitcast(x.raw, _with_element(x.raw.type, I64))
        return self.builder.trunc(bits, _with_element(x.raw.type, I32))

    def pick(self, condition: Any, yes: V, no: V) -> V:
        """Lane by lane, `yes` where the condition holds and else `no`."""
        return yes.of(self.builder.select(condition, yes.raw, no.raw))

    def frozen(self, value: V) -> V:
        """The same numbers, as the result of no instructions that LLVM does not look into: sums of
        integers before and after are not put into another order."""
        kind = value.raw.type
        register = "v" if self.target.is_x86 else "w"
        same = ir.FunctionType(kind, [kind])
        return value.of(self.builder.asm(same, "", f"={register},0", [value.raw], False))

    def prefetch(self, address: Pointer, near: bool = False, write: bool = False) -> None:
        """Ask for a cache line that will be read: into L2, or `near`, into L1; or that will be
        written, which no other core is to have then."""
        function = self.intrinsic("llvm.prefetch.p0", VOID, [PTR, I32, I32, I32])
        arguments = [ir.Constant(I32, v) for v in (int(write), 3 if near else 2, 1)]
        self.builder.call(function, [address.raw, *arguments])

    def prefetch_lines(
        self, places: Sequence[Pointer], count: IntLike, write: bool = False
    ) -> None:
        """Ask, into L1, for the lines of `count` elements of each place. By their last ones: where
        a place begins within a line, its first ones lie in the line of what is before."""
        line = self.line(places[0].element)

        def ask(end: IntLike) -> None:
            for place in places:
                self.prefetch(place + end, near=True, write=write)

        if isinstance(count, Int):
            with self.loop(count.minimum(line) - 1, count, self.vector) as end:
                ask(end.index)
        else:
            for number in range(min(line, count) - 1, count, self.vector):
                ask(number)

    def intrinsic(self, name: str, result: ir.Type, operands: Sequence[ir.Type]) -> Any:
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, operands), name)

    @staticmethod
    def suffix(kind: ir.Type) -> str:
        if isinstance(kind, ir.VectorType):
            return f"v{kind.count}{Kernel.suffix(kind.element)}"
        return str(kind) if isinstance(kind, ir.IntType) else str(kind.intrinsic_name)


def _with_element(kind: ir.Type, element: ir.Type) -> ir.Type:
    """The type with as many lanes, of other elements."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


class _Address:
    """A loaded code address, dressed as what llvmlite's `call` expects of a function."""

    def __init__(self, raw: Any, kind: ir.FunctionType) -> None:
        self.raw = raw
        self.function_type = kind
        self.type = raw.type

    def get_reference(self) -> str:
        return str(self.raw.get_reference())
