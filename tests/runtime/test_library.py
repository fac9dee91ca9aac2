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
from lucid.runtime import library
from lucid.runtime.library import KernelLibrary

KERNELS = [Transpose(), Driver(), Tile(1)]


@pytest.fixture
def fresh():
    return KernelLibrary(Target.host())


@pytest.mark.parametrize("processors", [1, 3])
def test_objects_are_those_of_each_alone(fresh, processors, monkeypatch):
    monkeypatch.setattr(library, "available_processors", lambda: processors)
    told = []
    codes = fresh._object_codes(KERNELS, None, lambda *state: told.append(state))
    assert codes == {kernel: compile_object(kernel, fresh.target) for kernel in KERNELS}
    assert list(codes) == KERNELS
    assert fresh.emitted == 3
    assert told == [("kernels", 0, 3), ("kernels", 3, 3)]


def test_progress_is_told_between_parts(fresh, monkeypatch):
    """When no thread is in LLVM: what is told may fork."""
    monkeypatch.setattr(library, "available_processors", lambda: 1)
    monkeypatch.setattr(library, "EACH", 2)
    told = []
    fresh._object_codes(KERNELS, None, lambda *state: told.append(state[1]))
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
    fresh.load([Transpose(), Driver()])
    assert len(threads) == 4
    assert get_ident() not in threads


class Broken(KernelSpec):
    family = "broken"

    def emit(self, target):
        raise ValueError("no such loop")


def test_a_kernel_that_cannot_be_emitted(fresh):
    with pytest.raises(CompileError, match=r"broken\(\) cannot be emitted.*ValueError: no such"):
        fresh.load([Transpose(), Broken()])


def test_who_loads_holds_what_was_there(fresh, monkeypatch):
    """Though nobody else does any more, by the time the rest has been compiled."""
    monkeypatch.setattr(library, "KEPT", 0)
    held = [fresh.load([Transpose()])]
    code = fresh.load([Transpose(), Driver()], progress=lambda *state: held.clear())
    assert not held
    assert code.address(Transpose())
    assert fresh.emitted == 2


class Illegal(KernelSpec):
    family = "illegal"
    exports = ()

    def emit(self, target):
        return "define void @f() { ret i32 1 }"


def test_a_kernel_that_llvm_refuses(fresh):
    with pytest.raises(CompileError, match=r"illegal\(\) is not legal LLVM IR"):
        fresh.load([Transpose(), Illegal()])
