"""The kernel builder: loops, integers, pointers and vectors as a kernel's author thinks of them.

This is the only module that knows llvmlite's builder. Integers (`Int`) and vectors (`Vector`) carry
operators, so that kernel code reads like the loop nest it generates.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir

from lucid.codegen.target import Target

F32 = ir.FloatType()
I1 = ir.IntType(1)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
PTR = ir.PointerType()
VOID = ir.VoidType()


def _constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


class Int:
    """A 64-bit integer of the generated code; operations on constants are done here and now."""

    __slots__ = ("kernel", "known", "raw")

    def __init__(self, kernel: Kernel, raw: Any) -> None:
        self.kernel = kernel
        self.known: int | None = raw if isinstance(raw, int) else None
        self.raw = _constant(raw) if isinstance(raw, int) else raw

    def _binary(self, other: int | Int, emit: str, fold: Callable[[int, int], int]) -> Int:
        right = self.kernel.int(other)
        if self.known is not None and right.known is not None:
            return Int(self.kernel, fold(self.known, right.known))
        return Int(self.kernel, getattr(self.kernel.builder, emit)(self.raw, right.raw))

    def __add__(self, other: int | Int) -> Int:
        if isinstance(other, int) and other == 0:
            return self
        return self._binary(other, "add", lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: int | Int) -> Int:
        return self._binary(other, "sub", lambda a, b: a - b)

    def __rsub__(self, other: int) -> Int:
        return self.kernel.int(other) - self

    def __mul__(self, other: int | Int) -> Int:
        if isinstance(other, int) and other == 1:
            return self
        return self._binary(other, "mul", lambda a, b: a * b)

    __rmul__ = __mul__

    def __floordiv__(self, other: int | Int) -> Int:
        """Quotient of two values that are not negative."""
        return self._binary(other, "udiv", lambda a, b: a // b)

    def __mod__(self, other: int | Int) -> Int:
        """Remainder of two values that are not negative."""
        return self._binary(other, "urem", lambda a, b: a % b)

    def compare(self, sign: str, other: int | Int) -> Any:
        return self.kernel.builder.icmp_signed(sign, self.raw, self.kernel.int(other).raw)

    def __lt__(self, other: int | Int) -> Any:
        return self.compare("<", other)

    def __le__(self, other: int | Int) -> Any:
        return self.compare("<=", other)

    def __gt__(self, other: int | Int) -> Any:
        return self.compare(">", other)

    def __ge__(self, other: int | Int) -> Any:
        return self.compare(">=", other)

    def equals(self, other: int | Int) -> Any:
        return self.compare("==", other)

    def minimum(self, other: int | Int) -> Int:
        right = self.kernel.int(other)
        return Int(self.kernel, self.kernel.builder.select(self < right, self.raw, right.raw))

    def maximum(self, other: int | Int) -> Int:
        right = self.kernel.int(other)
        return Int(self.kernel, self.kernel.builder.select(self > right, self.raw, right.raw))

    def ceil_div(self, other: int | Int) -> Int:
        return (self + (self.kernel.int(other) - 1)) // other


class Vector:
    """A vector of floats (or, with one lane, a scalar float) of the generated code."""

    __slots__ = ("kernel", "raw")

    def __init__(self, kernel: Kernel, raw: Any) -> None:
        self.kernel = kernel
        self.raw = raw

    @property
    def lanes(self) -> int:
        kind = self.raw.type
        return kind.count if isinstance(kind, ir.VectorType) else 1

    def _with(self, other: float | Vector, emit: str) -> Vector:
        right = self.like(other)
        return Vector(self.kernel, getattr(self.kernel.builder, emit)(self.raw, right.raw))

    def like(self, value: float | Vector) -> Vector:
        """`value` with as many lanes as this vector."""
        if isinstance(value, Vector):
            return value
        return self.kernel.splat_constant(value, self.lanes)

    def __add__(self, other: float | Vector) -> Vector:
        return self._with(other, "fadd")

    __radd__ = __add__

    def __sub__(self, other: float | Vector) -> Vector:
        return self._with(other, "fsub")

    def __rsub__(self, other: float) -> Vector:
        return self.like(other) - self

    def __mul__(self, other: float | Vector) -> Vector:
        return self._with(other, "fmul")

    __rmul__ = __mul__

    def __truediv__(self, other: float | Vector) -> Vector:
        return self._with(other, "fdiv")

    def __rtruediv__(self, other: float) -> Vector:
        return self.like(other) / self

    def __neg__(self) -> Vector:
        return Vector(self.kernel, self.kernel.builder.fneg(self.raw))

    def compare(self, sign: str, other: float | Vector) -> Any:
        """Ordered comparison, one bit a lane: false where either is NaN."""
        return self.kernel.builder.fcmp_ordered(sign, self.raw, self.like(other).raw)


class Pointer:
    """An address; offsets are in floats unless said otherwise."""

    __slots__ = ("kernel", "raw")

    def __init__(self, kernel: Kernel, raw: Any) -> None:
        self.kernel = kernel
        self.raw = raw

    def __add__(self, floats: int | Int) -> Pointer:
        if isinstance(floats, int) and floats == 0:
            return self
        return self._offset(F32, floats)

    def bytes(self, count: int | Int) -> Pointer:
        return self._offset(ir.IntType(8), count)

    def words(self, count: int | Int) -> Pointer:
        """Offset in 64-bit words."""
        return self._offset(I64, count)

    def _offset(self, element: ir.Type, count: int | Int) -> Pointer:
        k = self.kernel
        moved = k.builder.gep(self.raw, [k.int(count).raw], source_etype=element)
        return Pointer(k, moved)


class Loop:
    """What a `with kernel.loop(...)` block sees: the index, and values carried between rounds."""

    def __init__(self, index: Int, carried: list[Vector]) -> None:
        self.index = index
        self.carried = carried
        self.results: list[Vector] = []

    def carry(self, values: Sequence[Vector]) -> None:
        """What the carried values are in the next round (after the last: in `results`)."""
        self.carried = list(values)


# Types for the methods of Kernel, inside which `int` is a method.
Number = int
Lanes = int | None
IntLike = int | Int


class Kernel:
    """One function under construction, in a module of its own or beside others.

    `arguments`: (name, type) pairs; inside, `self.args[name]` is an Int, Pointer or Vector.
    """

    def __init__(
        self,
        module: ir.Module,
        target: Target,
        name: str,
        arguments: Sequence[tuple[str, ir.Type]],
        result: ir.Type = VOID,
    ) -> None:
        self.module = module
        self.target = target
        self.function = ir.Function(
            module, ir.FunctionType(result, [t for _, t in arguments]), name
        )
        self.function.attributes.add("nounwind")
        # LLVM would turn a loop of zeros into a call of memset, which the object does not have;
        # llvmlite's own list of attributes lacks this one.
        set.add(self.function.attributes, '"no-builtins"')
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.args: dict[str, Any] = {}
        for (label, kind), raw in zip(arguments, self.function.args, strict=True):
            raw.name = label
            self.args[label] = self._wrap(kind, raw)

    def _wrap(self, kind: ir.Type, raw: Any) -> Any:
        if kind == I64:
            return Int(self, raw)
        if kind == PTR:
            return Pointer(self, raw)
        return Vector(self, raw) if kind == F32 else raw

    def no_alias(self, *names: str) -> None:
        """Promise that nothing else in the function reaches what these pointers reach."""
        for name in names:
            self.function.args[list(self.args).index(name)].add_attribute("noalias")

    @property
    def vector(self) -> int:
        return self.target.vector

    # -- integers ---------------------------------------------------------------------------

    def int(self, value: IntLike) -> Int:
        return value if isinstance(value, Int) else Int(self, value)

    def select(self, condition: Any, yes: IntLike, no: IntLike) -> Int:
        return Int(self, self.builder.select(condition, self.int(yes).raw, self.int(no).raw))

    def both(self, *conditions: Any) -> Any:
        """Whether all conditions hold (without branches)."""
        result = conditions[0]
        for c in conditions[1:]:
            result = self.builder.and_(result, c)
        return result

    def load_int(self, address: Pointer) -> Int:
        return Int(self, self.builder.load(address.raw, typ=I64, align=8))

    def load_pointer(self, address: Pointer) -> Pointer:
        return Pointer(self, self.builder.load(address.raw, typ=PTR, align=8))

    def store_int(self, value: IntLike, address: Pointer) -> None:
        self.builder.store(self.int(value).raw, address.raw, align=8)

    def store_pointer(self, value: Pointer, address: Pointer) -> None:
        self.builder.store(value.raw, address.raw, align=8)

    def choose(self, condition: Any, yes: Pointer, no: Pointer) -> Pointer:
        """One of two pointers."""
        return Pointer(self, self.builder.select(condition, yes.raw, no.raw))

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
        loop = Loop(Int(self, index), [Vector(self, p) for p in phis])
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
            loop.results.append(Vector(self, merged))

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
        self, condition: Any, yes: Callable[[], list[Vector]], no: Callable[[], list[Vector]]
    ) -> list[Vector]:
        """The values of `yes()` if the condition holds, else those of `no()`."""
        b = self.builder
        with b.if_else(condition) as (then, otherwise):
            with then:
                first, from_first = yes(), b.block
            with otherwise:
                second, from_second = no(), b.block
        merged = []
        for one, other in zip(first, second, strict=True):
            phi = b.phi(one.raw.type)
            phi.add_incoming(one.raw, from_first)
            phi.add_incoming(other.raw, from_second)
            merged.append(Vector(self, phi))
        return merged

    def call(self, function: Any, kind: ir.FunctionType, arguments: Sequence[Any]) -> Any:
        """Call a function, or the address of one, of this type."""
        raw = [a.raw if isinstance(a, Int | Pointer | Vector) else a for a in arguments]
        callee = function
        if isinstance(function, Pointer):
            callee = _Address(function.raw, kind)
        return self.builder.call(callee, raw)

    def finish(self, result: Any = None) -> None:
        if result is None:
            self.builder.ret_void()
        else:
            self.builder.ret(result)

    # -- memory of the function -------------------------------------------------------------

    def stack(self, floats: Number, align: Number = 64) -> Pointer:
        """Room on the stack, for the whole life of the function."""
        with self.builder.goto_entry_block():
            room = self.builder.alloca(ir.ArrayType(F32, floats))
            room.align = align
            room.type = PTR  # llvmlite still gives it a typed pointer
        return Pointer(self, room)

    # -- vectors ----------------------------------------------------------------------------

    def vector_type(self, lanes: Lanes = None) -> ir.Type:
        count = self.vector if lanes is None else lanes
        return F32 if count == 1 else ir.VectorType(F32, count)

    def splat_constant(self, value: float, lanes: Lanes = None) -> Vector:
        kind = self.vector_type(lanes)
        single = struct.unpack("f", struct.pack("f", value))[0]
        if isinstance(kind, ir.VectorType):
            return Vector(self, ir.Constant(kind, [single] * kind.count))
        return Vector(self, ir.Constant(kind, single))

    def zero(self, lanes: Lanes = None) -> Vector:
        return self.splat_constant(0.0, lanes)

    def splat(self, scalar: Vector, lanes: Lanes = None) -> Vector:
        """A scalar in every lane."""
        kind = self.vector_type(lanes)
        if not isinstance(kind, ir.VectorType):
            return scalar
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar.raw, ir.Constant(I32, 0))
        lanes_type = ir.VectorType(I32, kind.count)
        mask = ir.Constant(lanes_type, [0] * kind.count)
        return Vector(self, self.builder.shuffle_vector(first, undefined, mask))

    def load(
        self, address: Pointer, lanes: Lanes = None, mask: Any = None, align: Number = 4
    ) -> Vector:
        """Floats at `address`; lanes that `mask` leaves out are zero, and not read."""
        kind = self.vector_type(lanes)
        if mask is None:
            return Vector(self, self.builder.load(address.raw, typ=kind, align=align))
        load = self.intrinsic(
            f"llvm.masked.load.v{kind.count}f32.p0",
            kind,
            [PTR, I32, ir.VectorType(I1, kind.count), kind],
        )
        rest = ir.Constant(kind, [0.0] * kind.count)
        return Vector(
            self, self.builder.call(load, [address.raw, ir.Constant(I32, align), mask, rest])
        )

    def store(self, value: Vector, address: Pointer, mask: Any = None, align: Number = 4) -> None:
        if mask is None:
            self.builder.store(value.raw, address.raw, align=align)
            return
        kind = value.raw.type
        store = self.intrinsic(
            f"llvm.masked.store.v{kind.count}f32.p0",
            VOID,
            [kind, PTR, I32, ir.VectorType(I1, kind.count)],
        )
        self.builder.call(store, [value.raw, address.raw, ir.Constant(I32, align), mask])

    def first_lanes(self, count: Int, lanes: Lanes = None) -> Any:
        """A mask of the first `count` lanes (none when negative, all when more than there are)."""
        width = self.vector if lanes is None else lanes
        kind = ir.VectorType(I32, width)
        bounded = count.minimum(width).maximum(0)
        narrow = self.builder.trunc(bounded.raw, I32)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, narrow, ir.Constant(I32, 0))
        every = self.builder.shuffle_vector(first, undefined, ir.Constant(kind, [0] * width))
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(width))), every)

    def each_vector(self, count: Int, body: Callable[[Int, Any], None]) -> None:
        """`body(offset, mask)` for `count` floats: whole vectors without mask, then the rest."""
        whole = count // self.vector * self.vector
        with self.loop(0, whole, self.vector) as loop:
            body(loop.index, None)
        with self.when(whole < count):
            body(whole, self.first_lanes(count - whole))

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        """a * b + c, rounded once where the target can."""
        if not self.target.fused:
            return a * b + c
        kind = a.raw.type
        fma = self.intrinsic(f"llvm.fma.{self.suffix(kind)}", kind, [kind] * 3)
        return Vector(self, self.builder.call(fma, [a.raw, b.raw, c.raw]))

    def math(self, name: str, *operands: Vector) -> Vector:
        """An LLVM intrinsic over floats that is one instruction: sqrt, fabs, copysign, floor."""
        kind = operands[0].raw.type
        function = self.intrinsic(f"llvm.{name}.{self.suffix(kind)}", kind, [kind] * len(operands))
        return Vector(self, self.builder.call(function, [o.raw for o in operands]))

    def pick(self, condition: Any, yes: Vector, no: Vector) -> Vector:
        """Lane by lane, `yes` where the condition holds and else `no`."""
        return Vector(self, self.builder.select(condition, yes.raw, no.raw))

    def prefetch(self, address: Pointer, near: bool = False) -> None:
        """Ask for a cache line that will be read: into L2, or `near`, into L1."""
        function = self.intrinsic("llvm.prefetch.p0", VOID, [PTR, I32, I32, I32])
        arguments = [ir.Constant(I32, v) for v in (0, 3 if near else 2, 1)]
        self.builder.call(function, [address.raw, *arguments])

    def intrinsic(self, name: str, result: ir.Type, operands: Sequence[ir.Type]) -> Any:
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, operands), name)

    @staticmethod
    def suffix(kind: ir.Type) -> str:
        return f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"


class _Address:
    """A loaded code address, dressed as what llvmlite's `call` expects of a function."""

    def __init__(self, raw: Any, kind: ir.FunctionType) -> None:
        self.raw = raw
        self.function_type = kind
        self.type = raw.type

    def get_reference(self) -> str:
        return str(self.raw.get_reference())
