"""The measured peak, and the code that measures it."""

import pytest

from lucid.codegen.kernels.peak import UNROLL, Peak, chains
from lucid.codegen.language.llvm import assembly
from lucid.codegen.target import LEVELS, Target
from lucid.runtime.peak import calls_per_second, measured_peak

INSTRUCTION = {"x86-64": "mulps", "aarch64": "fmla", "aarch64-dotprod": "fmla"}
"""The multiply-add, where it is none of x86 with AVX2."""


@pytest.mark.parametrize("target", LEVELS.values(), ids=LEVELS)
def test_the_loop_is_all_multiply_adds(target):
    text = assembly(Peak(), target)
    assert text.count(INSTRUCTION.get(target.name, "vfmadd")) == UNROLL * chains(target)
    if target.is_x86:
        assert "rsp" not in text


def test_every_level_has_a_peak():
    """How they compare is up to the processor: those of AMD's Zen 4 do a vector of AVX-512 in two
    halves, and reach no more than with AVX2."""
    levels = [t for t in LEVELS.values() if t.runs_here() and not t.dot]
    assert min(map(measured_peak, levels)) > 1


def test_each_thread_adds_work():
    assert measured_peak(Target.host(), 2) > 1


def test_only_what_runs_together_counts():
    steady = [(float(i), float(i + 1)) for i in range(8)]
    late = [(i + 0.5, i + 1.5) for i in range(8)]
    assert calls_per_second([steady]) == pytest.approx(1)
    assert calls_per_second([steady, late]) == pytest.approx(2)
    assert calls_per_second([steady, [(20.0, 21.0)] * 8]) == 0
