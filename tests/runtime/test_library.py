"""Kernels in memory, and who holds them."""

import pytest

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.kernels.transpose import Transpose
from lucid.codegen.target import Target
from lucid.runtime import library
from lucid.runtime.library import KernelLibrary


@pytest.fixture
def fresh():
    return KernelLibrary(Target.host())


def test_who_loads_holds_what_was_there(fresh, monkeypatch):
    """Though nobody else does any more, by the time the rest has been compiled."""
    monkeypatch.setattr(library, "KEPT", 0)
    held = [fresh.load([Transpose()])]
    code = fresh.load([Transpose(), Driver()], progress=lambda *state: held.clear())
    assert not held
    assert code.address(Transpose())
    assert fresh.emitted == 2
