"""Kernels compiled side by side: as each alone, in their order, with errors of their own."""

from threading import get_ident

import pytest

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.microkernels import Tile
from lucid.codegen.kernels.transpose import Transpose
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.llvm import Compilation, compile_object
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.runtime import kernel_compiler
from lucid.runtime.kernel_compiler import KernelCompiler

KERNELS = [Transpose(), Driver(), Tile(1)]


@pytest.fixture
def fresh():
    return KernelCompiler(Target.host())


@pytest.mark.parametrize("processors", [1, 3])
def test_objects_are_those_of_each_alone(fresh, processors, monkeypatch):
    monkeypatch.setattr(kernel_compiler, "available_processors", lambda: processors)
    told = []
    codes = fresh.object_codes(KERNELS, None, lambda *state: told.append(state))
    assert codes == {kernel: compile_object(kernel, fresh.target) for kernel in KERNELS}
    assert list(codes) == KERNELS
    assert fresh.emitted == 3
    assert told == [("kernels", 0, 3), ("kernels", 3, 3)]


def test_progress_is_told_between_parts(fresh, monkeypatch):
    """When no thread is in LLVM: what is told may fork."""
    monkeypatch.setattr(kernel_compiler, "available_processors", lambda: 1)
    monkeypatch.setattr(kernel_compiler, "EACH", 2)
    told = []
    fresh.object_codes(KERNELS, None, lambda *state: told.append(state[1]))
    assert told == [0, 2, 3]


def test_interrupts_do_not_reach_what_is_compiled(fresh, monkeypatch):
    """Which all happens on threads that Python raises none on, from beginning to end."""
    threads = []

    class Noted(Compilation):
        def __init__(self, *given):
            threads.append(get_ident())
            super().__init__(*given)

        def close(self):
            threads.append(get_ident())
            super().close()

    monkeypatch.setattr("lucid.codegen.language.llvm.Compilation", Noted)
    fresh.object_codes([Transpose(), Driver()])
    assert len(threads) == 4
    assert get_ident() not in threads


class Broken(KernelSpec):
    family = "broken"

    def emit(self, target):
        raise ValueError("no such loop")


def test_a_kernel_that_cannot_be_emitted(fresh):
    with pytest.raises(CompileError, match=r"broken\(\) cannot be emitted.*ValueError: no such"):
        fresh.object_codes([Transpose(), Broken()])


class Illegal(KernelSpec):
    family = "illegal"
    exports = ()

    def emit(self, target):
        return "define void @f() { ret i32 1 }"


def test_a_kernel_that_llvm_refuses(fresh):
    with pytest.raises(CompileError, match=r"illegal\(\) is not legal LLVM IR"):
        fresh.object_codes([Transpose(), Illegal()])
