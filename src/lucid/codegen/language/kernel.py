"""The interface of every kernel: a specification, an argument block, and one signature.

A kernel is `void kernel(words* arguments, pointer* buffers, i64 first, i64 last, byte* scratch)`:
it does tasks `first` to `last - 1` of its grid. Its arguments are 64-bit words in a table that the
Program fills: sizes and strides are among them, so one piece of code serves every layer. A buffer
operand takes two words, the number of its buffer and a byte offset into it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.dtypes import COMPUTED, dtype
from lucid.codegen.language.names import KernelName
from lucid.codegen.language.values import F32, I8, I64, Int, Pointer, PointerTo
from lucid.codegen.target import Target

WORDS = {"buffer": 2, "int": 1, "float": 1, "code": 1}
"""How many words each kind of argument takes. `code` is the address of another kernel's function;
a `float` lies in the low half of its word."""


@dataclass(frozen=True)
class Arg:
    """One declared argument of a kernel. `dtype`: of the elements of a buffer."""

    name: str
    kind: str = "int"
    dtype: str = ""


def ints(*names: str) -> tuple[Arg, ...]:
    return tuple(Arg(n) for n in names)


def buffers(*names: str, dtype: str = COMPUTED) -> tuple[Arg, ...]:
    """Buffers of what kernels compute with, or of another dtype."""
    return tuple(Arg(n, "buffer", dtype) for n in names)


def codes(*names: str) -> tuple[Arg, ...]:
    return tuple(Arg(n, "code") for n in names)


def floats(*names: str) -> tuple[Arg, ...]:
    return tuple(Arg(n, "float") for n in names)


MAP = ("image", "line", "pixel")
"""What the strides of a map of pixels are called, in its elements."""


def strides_of(name: str) -> tuple[Arg, ...]:
    """The declared strides of an operand that is a map."""
    return ints(*(f"{name}_{axis}" for axis in MAP))


Extent = tuple[tuple[int, int], ...]
"""Places in a buffer, counted from an operand's first one: every sum of `index * stride` with
0 <= index < count, over dimensions (count, stride)."""


def reach(extent: Extent) -> int:
    """How far the last place of an extent lies behind its first; -1 where it has none."""
    if any(count < 1 for count, _ in extent):
        return -1
    return sum((count - 1) * stride for count, stride in extent)


class Given:
    """A call as its kernel sees it: the values of its arguments by name (of a buffer, its view or
    parameter), and how many tasks it has."""

    def __init__(
        self,
        arguments: Mapping[str, Any],
        tasks: int,
        largest: Callable[[Any, int], int] = lambda table, count: 0,
        suffix: str = "",
    ) -> None:
        self.tasks = tasks
        self._arguments, self._largest, self._suffix = arguments, largest, suffix

    def __getattr__(self, name: str) -> Any:
        try:
            return self._arguments[name + self._suffix]
        except KeyError:
            raise AttributeError(f"there is no argument {name + self._suffix}") from None

    def largest(self, table: str, count: int) -> int:
        """The largest of the first `count` numbers of a parameter that is a table of places."""
        return self._largest(getattr(self, table), count)

    def part(self, suffix: str) -> Given:
        """The same for a part of a kernel, whose arguments have names that end so."""
        return Given(self._arguments, self.tasks, self._largest, suffix)

    def require_tasks(self, *factors: int) -> None:
        """Raises ValueError unless there are as many tasks as the product of these."""
        if self.tasks != prod(factors):
            raise ValueError(f"{self.tasks} tasks instead of {' * '.join(map(str, factors))}")

    def tasks_over(self, *factors: int) -> int:
        """How often there are as many tasks as the product of these, such as for each image. Raises
        ValueError where that is no whole number."""
        each = prod(factors)
        if each < 1 or self.tasks % each:
            raise ValueError(f"{self.tasks} tasks in steps of {' * '.join(map(str, factors))}")
        return self.tasks // each

    def images_of(self, each: int) -> int:
        """The images of a result in blocks, `each` of them for so many images. Raises ValueError
        where they lack some, or the last ones have none."""
        if self.blocks != each * -(-self.images // self.block_images):
            raise ValueError(f"{self.blocks} blocks of {self.images} images")
        return int(self.images)

    def lines_of(self, bands: int) -> int:
        """The lines of a result in bands of so many. Raises ValueError where they lack some, or the
        last one has none."""
        if not (bands - 1) * self.lines < self.out_height <= bands * self.lines:
            raise ValueError(f"{bands} bands of {self.lines} of {self.out_height} lines")
        return int(self.out_height)

    def columns_of(self, strips: int) -> int:
        """The columns of a result in so many even strips. Raises ValueError where they lack some,
        the last one has none, or their blocks are not of one line."""
        even = self.strip == -(-self.out_width // strips)
        if not even or (strips - 1) * self.strip >= self.out_width:
            raise ValueError(f"{strips} strips of {self.strip} of {self.out_width} columns")
        if strips > 1 and (self.lines, self.block_images) != (1, 1):
            raise ValueError(f"strips of {self.lines} lines of {self.block_images} images")
        return int(self.out_width)

    def map(
        self, prefix: str, images: int, size: tuple[int, int], channels: int, step: int = 1
    ) -> Extent:
        """The extent of a map whose strides are the arguments that begin so."""
        counts = (images, *size)
        steps = (getattr(self, f"{prefix}{axis}") for axis in MAP)
        return (*zip(counts, steps, strict=True), (channels, step))


@dataclass(frozen=True)
class KernelSpec:
    """What a kernel's code depends on, and nothing else: two equal specifications share code.

    `streams`: whether each op that a call stands for goes over its operands about once, so that
    their bytes tell what it takes.
    """

    family: ClassVar[str] = ""
    exports: ClassVar[tuple[str, ...]] = ("kernel",)
    streams: ClassVar[bool] = False

    def emit(self, target: Target) -> ir.Module:
        """The kernel's module for a target; its exported functions are `exports`."""
        raise NotImplementedError

    def arguments(self) -> tuple[Arg, ...]:
        """The declared arguments, in the order of the table."""
        return ()

    def extents(self, given: Given) -> dict[str, Extent]:
        """What a call touches of each of its buffers, read from the same arguments as its code
        reads: the verifier compares it with the operands' views. Where a call may leave out some
        of an operand, as windows do, what it could touch. Raises ValueError where the arguments
        contradict each other."""
        raise NotImplementedError

    def replaceable(self) -> tuple[str, ...]:
        """The operands in whose place the result y may lie where their views are the same: each of
        their elements is read for that of y at its place alone, once, before that is written."""
        return ()

    def __str__(self) -> str:
        options = ", ".join(f"{f.name}={getattr(self, f.name)}" for f in dataclasses.fields(self))
        return f"{self.family}({options})"

    def key(self) -> str:
        """A short name for files and tables."""
        return self.called().key

    def called(self) -> KernelName:
        """The name by which its code is found."""
        return KernelName(str(self), self.exports)


class Frame:
    """A kernel function's view of its argument table: `frame.rows`, `frame.x`, ..."""

    def __init__(self, spec: KernelSpec, target: Target, module: ir.Module | None = None) -> None:
        self.module = module or ir.Module(spec.family)
        self.module.triple = target.triple
        signature = [
            ("arguments", PointerTo(I64)),
            ("buffers", PointerTo(I64)),
            ("first", I64),
            ("last", I64),
            ("scratch", PointerTo(I8)),
        ]
        self.kernel = Kernel(self.module, target, "kernel", signature)
        self.first: Int = self.kernel.args["first"]
        self.last: Int = self.kernel.args["last"]
        self.scratch: Pointer = self.kernel.args["scratch"]
        position = 0
        for argument in spec.arguments():
            assert argument.name not in self.__dict__, f"{spec} declares {argument.name} twice"
            setattr(self, argument.name, self._load(argument, position))
            position += WORDS[argument.kind]

    def _load(self, argument: Arg, position: int) -> Any:
        k = self.kernel
        word = k.args["arguments"].words(position)
        if argument.kind == "int":
            return k.load_int(word)
        if argument.kind == "code":
            return k.load_pointer(word)
        if argument.kind == "float":
            return k.load(word.to(F32), lanes=1)
        element = dtype(argument.dtype).element
        base = k.load_pointer(k.args["buffers"].words(k.load_int(word)), element)
        return base.bytes(k.load_int(word.words(1)))

    def set(self, **values: Any) -> None:
        """Give arguments that are not in the table the values they have here."""
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this kernel declares no argument {name!r}")

    def finish(self) -> ir.Module:
        self.kernel.finish()
        return self.module


def share(part: Int, total: Int, parts: Int) -> tuple[Int, Int]:
    """Begin and end of one of `parts` even shares of `total`."""
    return part * total // parts, (part + 1) * total // parts


OUTER = 4
"""Dimensions over which kernels that take any strides are repeated."""


def repeated(*operands: str) -> tuple[Arg, ...]:
    """The declared sizes of the outer dimensions, and each operand's strides over them."""
    declared = ints(*(f"size{i}" for i in range(OUTER)))
    for name in operands:
        declared += ints(*(f"{name}_stride{i}" for i in range(OUTER)))
    return declared


def repeated_extents(given: Given, number: int, *operands: str) -> dict[str, Extent]:
    """What outer indices up to `number` reach in each operand. Raises ValueError where that is not
    all of the outer dimensions once."""
    sizes = [getattr(given, f"size{i}") for i in range(OUTER)]
    if number != prod(sizes):
        raise ValueError(f"tasks for {number} of {' * '.join(map(str, sizes))} outer indices")
    return {
        o: tuple((size, getattr(given, f"{o}_stride{i}")) for i, size in enumerate(sizes))
        for o in operands
    }


def places(frame: Frame, number: Int, *operands: str) -> list[Pointer]:
    """Where the operands begin at an outer index, which counts over all outer dimensions."""
    at = [getattr(frame, name) for name in operands]
    for i in reversed(range(OUTER)):
        size = getattr(frame, f"size{i}")
        index, number = number % size, number // size
        steps = [getattr(frame, f"{name}_stride{i}") for name in operands]
        at = [place + index * step for place, step in zip(at, steps, strict=True)]
    return at
