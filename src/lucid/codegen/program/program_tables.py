"""What the tables of a program hold (`tables.py` makes them), known without the compiler: they may
come from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lucid.codegen.language.names import KernelName

if TYPE_CHECKING:
    from lucid.ir.ops.base import Array


class Function(NamedTuple):
    """An exported function of a kernel."""

    kernel: KernelName
    export: str


class Step(NamedTuple):
    """A kernel call: the kernel, the first word of its arguments, and its tasks, one at least."""

    kernel: KernelName
    first: int
    tasks: int


@dataclass(frozen=True)
class ProgramTables:
    """`words`: the arguments of all steps, one behind the other, int64. `codes`: the words that
    await the address of a function, 0 so far. `weights`: the words that hold a byte offset into a
    weight, a key of `Program.weights`, and await where that lies behind the weights' beginning.
    `phases`: rows as `kernels.driver` lays them out, with the one that ends them. `users`: how many
    inputs and outputs there are. `arena`, `scratch`: bytes of a call's memory and of each thread's.
    """

    steps: tuple[Step, ...]
    words: Array
    codes: Mapping[int, Function]
    weights: Mapping[int, str]
    phases: Array
    users: int
    arena: int
    scratch: int
