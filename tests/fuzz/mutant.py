"""A seeded miscompile: a small wrong change to the compiler, in the text of one function.

`old` is what stands in the function's source, `new` what it is replaced by. `families`: of kernels
whose code it changes, so that none may come from the cache; `EVERY` for all. `tests`: the tests, a
file or some of it, that have to find it, where that is not the fuzzer.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY = ("",)
PRODUCTS = ("product", "stage")
TILES = ("tile", "window_tile", "matmul")


@dataclass(frozen=True)
class Mutant:
    """One wrong change, in `module:function` or `module:Class.method`."""

    name: str
    where: str
    old: str
    new: str
    families: tuple[str, ...] = ()
    tests: str = ""


P, L, K = "lucid.ir.passes", "lucid.codegen.lowering", "lucid.codegen.kernels"
C, R = "lucid.codegen", "lucid.runtime"
