"""Memory for code: writable, then executable, never both; freed with who holds it."""

import ctypes
import gc
from itertools import pairwise

import pytest

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.reduction import Softmax
from lucid.codegen.language.llvm import compile_object, symbol
from lucid.codegen.target import Target
from lucid.errors import CompileError
from lucid.runtime import code_memory
from lucid.runtime.code_memory import CodeMemory, Layout
from lucid.runtime.object_code import ObjectCode, Place


@pytest.fixture(scope="module")
def objects():
    return [ObjectCode(compile_object(kernel, Target.host())) for kernel in (Softmax(), Driver())]


def protection(address):
    """What may be done with the page, as the system says it; None where nothing is mapped."""
    with open("/proc/self/maps") as file:
        for line in file:
            place, allowed, *_ = line.split()
            start, end = (int(edge, 16) for edge in place.split("-"))
            if start <= address < end:
                return allowed
    return None


def test_code_runs_and_constants_are_read(objects):
    memory, layout, name = CodeMemory(objects), Layout(objects), symbol(Driver(), "lucid_run")
    address = memory.address(1, name)
    assert protection(address) == "r-xp"
    start = address - layout.offset(1, objects[1].symbols[name])
    assert protection(start + layout.constants) == "r--p"
    content = next(s.content for s in objects[1].sections.values() if s.is_code)
    assert ctypes.string_at(address, 8) in bytes(content)


def test_it_is_freed_with_who_holds_it(objects):
    memory = CodeMemory(objects)
    address = memory.address(1, symbol(Driver(), "lucid_run"))
    assert protection(address) == "r-xp"
    del memory
    gc.collect()
    assert protection(address) != "r-xp"


def test_sections_lie_apart_and_aligned(objects):
    layout = Layout(objects)
    spans = []
    for number, obj in enumerate(objects):
        for index, section in obj.sections.items():
            start = layout.offset(number, Place(index, 0))
            assert start % section.alignment == 0
            assert section.is_code == (start < layout.constants)
            spans.append((start, start + len(section.content)))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert spans[-1][1] <= layout.size


def test_a_symbol_that_is_not_there(objects):
    with pytest.raises(CompileError, match="no symbol 'lucid_walk'"):
        CodeMemory(objects).address(1, "lucid_walk")


def test_too_much_code(objects, monkeypatch):
    monkeypatch.setattr(code_memory, "LARGEST", 4096)
    with pytest.raises(CompileError, match="too much for one batch"):
        CodeMemory(objects)


def test_a_system_that_runs_nothing_new(objects, monkeypatch):
    real = code_memory._system
    refusing = lambda name: (lambda *a: -1) if name == "mprotect" else real(name)  # noqa: E731
    monkeypatch.setattr(code_memory, "_system", refusing)
    with pytest.raises(CompileError, match="does not let the process make memory executable"):
        CodeMemory(objects)
