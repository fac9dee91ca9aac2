"""From modules to object code: what may happen while it is made."""

from __future__ import annotations

import threading

import pytest

from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.llvm import Compilation
from lucid.codegen.target import Target

HOST = Target.host()


def test_a_compilation_is_closed_once_it_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an interrupt lets its caller go on, while another thread is at work on it."""
    work = Compilation(Driver(), HOST)
    begun, go_on, order = threading.Event(), threading.Event(), []

    def optimise() -> None:
        begun.set()
        go_on.wait(10)
        order.append("optimised")

    monkeypatch.setattr(work, "optimise", optimise)
    running = threading.Thread(target=work.run)
    closing = threading.Thread(target=lambda: (work.close(), order.append("closed")))
    running.start()
    assert begun.wait(10)
    closing.start()
    closing.join(0.02)
    assert order == []
    go_on.set()
    for thread in (running, closing):
        thread.join(10)
    assert order == ["optimised", "closed"]


def test_a_closed_compilation_does_nothing() -> None:
    work = Compilation(Driver(), HOST)
    work.close()
    work.run()
    assert work.seconds > 0
